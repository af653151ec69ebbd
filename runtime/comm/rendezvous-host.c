/* SPDX-License-Identifier: Apache-2.0 */
/* Rank 0's side of the rendezvous: it serves the connections of all ranks, and of strangers, side by side in
 * one thread. */
#include "runtime/comm/rendezvous.h"

#include "base/io.h"
#include "runtime/comm/socket.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* MAX_UNJOINED: connections that have not joined, besides one for each rank.
 * GRACE: seconds for which rank 0 goes on listening once the run has failed, so that ranks that come later
 * learn why.
 * FIRST_READ: bytes of memory for a message before its length is known. */
enum { MAX_UNJOINED = 64, GRACE = 2, FIRST_READ = 512 };

/* One connection. */
struct client {
    int fd;
    int rank;          /* the rank as which it has joined; -1: none */
    enum { WANT_HELLO, WANT_JOIN, JOINED } state;
    double since;      /* when it was accepted (moe_now) */
    struct moe_nonces nonces;
    unsigned char *in; /* [cap] the message that is being read; once it has joined, its JOIN */
    size_t n_in, cap;
    struct moe_wire_join join;

    /* The last message to this client, except its body, which is the same for all clients; and how many bytes
     * of the message are sent. */
    unsigned char head[MOE_WIRE_FRAME_BYTES], mac[MOE_WIRE_MAC];
    size_t sent;
};

struct host {
    const struct moe_rendezvous *v;
    bool *reported;         /* [ranks] the user knows that this rank has come */
    int missing_reported;   /* how many ranks the user knows to be missing; 0: nothing was said yet */
    int listener;
    struct client *client;  /* [n] */
    int n, cap;
    int *client_of;         /* [ranks] the index of each rank in `client`; -1: it has not joined */
    int missing;            /* ranks that have not joined */
    int dropped;            /* connections that ended before they joined */
    int refused;            /* ranks that have joined and were told why the run fails */
    struct moe_err failure; /* why the run fails; code MOE_OK: it does not */
    bool gave_up;           /* give_up was called: the user is told of missing ranks no more */
    double end;             /* when rank 0 stops waiting (moe_now) */
    struct pollfd *poll;    /* [cap + 1] */
};

/* ---- connections come and go ---- */

static void drop(struct host *h, int i)
{
    struct client *g = &h->client[i];
    close(g->fd);
    free(g->in);
    if (g->state != JOINED) h->dropped++;
    if (g->rank >= 0) {
        h->client_of[g->rank] = -1;
        h->missing++;
    }
    *g = h->client[--h->n];
    if (i < h->n && g->rank >= 0) h->client_of[g->rank] = i;
}

/* The connection that is closed first when there are too many: the oldest of those that have not even sent
 * HELLO, else the oldest of those that have not joined; -1: all have joined.  *unjoined: how many have
 * not. */
static int oldest_unjoined(const struct host *h, int *unjoined)
{
    int least = -1;
    *unjoined = 0;
    for (int i = 0; i < h->n; i++) {
        const struct client *g = &h->client[i], *than = least < 0 ? NULL : &h->client[least];
        if (g->state == JOINED) continue;
        if (!than || g->state < than->state || (g->state == than->state && g->since < than->since)) least = i;
        ++*unjoined;
    }
    return least;
}

/* Accepts new connections.  All ranks may come at the same moment, so there is room for them besides
 * strangers. */
static void accept_clients(struct host *h)
{
    for (int turns = MAX_UNJOINED; turns; turns--) { /* after so many, open connections are served */
        bool full;
        int unjoined, least = oldest_unjoined(h, &unjoined), fd = moe_socket_accept(h->listener, &full);
        if (full && least >= 0) drop(h, least);
        if (full && least < 0) poll(NULL, 0, 10);
        if (fd < 0) return;
        if (unjoined >= h->v->ranks + MAX_UNJOINED || h->n == h->cap) {
            if (least < 0) {
                close(fd);
                continue;
            }
            drop(h, least);
        }
        h->client[h->n++] = (struct client){ .fd = fd, .rank = -1, .since = moe_now() };
    }
}

/* ---- messages of clients ---- */

/* The run fails for this reason, unless it fails already.  Rank 0 listens for GRACE seconds more, so that
 * ranks which come in that time are told. */
static void give_up(struct host *h, const struct moe_err *why)
{
    double soon = moe_now() + GRACE;
    if (h->failure.code != MOE_OK) return;
    h->failure = *why;
    h->gave_up = true;
    if (soon < h->end) h->end = soon;
}

/* Answers a client of another version with a frame of this one: the frame is all that both understand. */
static void refuse_version(struct host *h, struct client *g, uint32_t version)
{
    unsigned char out[MOE_WIRE_FRAME_BYTES];
    const struct moe_rendezvous *v = h->v;
    struct moe_err err;
    moe_wire_frame_put(out, &(struct moe_wire_frame){
                                .version = MOE_WIRE_VERSION, .ranks = v->ranks, .type = MOE_WIRE_CHALLENGE });
    /* with a secret only a client that has proved to know it can end the run */
    if (send(g->fd, out, sizeof out, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 || v->secret) return;
    moe_fail(&err, MOE_MISMATCH,
             "a rank of another version of moe-run came to '%s' (its messages are of version %u, not %d)",
             v->where, version, MOE_WIRE_VERSION);
    give_up(h, &err);
}

/* Bytes of the message that is being read, as far as they are known; 0: it is no message of this protocol,
 * or none that may come now. */
static size_t message_bytes(struct host *h, struct client *g)
{
    struct moe_wire_frame f;
    if (g->n_in < MOE_WIRE_FRAME_BYTES) return MOE_WIRE_FRAME_BYTES;
    if (!moe_wire_frame_get(g->in, &f)) return 0;
    if (f.version != MOE_WIRE_VERSION) {
        refuse_version(h, g, f.version);
        return 0;
    }
    if (f.type != (g->state == WANT_HELLO ? MOE_WIRE_HELLO : MOE_WIRE_JOIN)) return 0;
    bool sound = f.type == MOE_WIRE_HELLO
                     ? f.bytes == MOE_WIRE_NONCE
                     : f.bytes >= MOE_WIRE_MAC && f.bytes <= moe_wire_body_max(f.type, h->v->ranks);
    return sound ? MOE_WIRE_FRAME_BYTES + (size_t)f.bytes : 0;
}

/* Answers HELLO.  False: the connection ends. */
static bool challenge(struct host *h, struct client *g)
{
    unsigned char out[MOE_WIRE_FRAME_BYTES + MOE_WIRE_NONCE + MOE_WIRE_MAC],
        *nonce = out + MOE_WIRE_FRAME_BYTES;
    const struct moe_rendezvous *v = h->v;
    struct moe_err err;
    memcpy(g->nonces.client, g->in + MOE_WIRE_FRAME_BYTES, MOE_WIRE_NONCE);
    if (moe_secret_random(g->nonces.host, MOE_WIRE_NONCE, &err) != MOE_OK) {
        give_up(h, &err);
        return false;
    }
    moe_wire_frame_put(out, &(struct moe_wire_frame){ MOE_WIRE_VERSION, 0, v->ranks, MOE_WIRE_CHALLENGE,
                                                      v->secret != NULL, MOE_WIRE_NONCE + MOE_WIRE_MAC });
    memcpy(nonce, g->nonces.host, MOE_WIRE_NONCE);
    moe_secret_sign(v->secret, MOE_WIRE_CHALLENGE, &g->nonces, out, nonce, MOE_WIRE_NONCE,
                    nonce + MOE_WIRE_NONCE);
    g->state = WANT_JOIN;
    g->n_in = 0;
    /* the socket's buffer is empty, so that the message fits */
    return send(g->fd, out, sizeof out, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof out;
}

/* The run fails when a rank that has joined tells a failure, or does not fit rank 0. */
static void check_rank(struct host *h, const struct client *g)
{
    const char *other;
    struct moe_err err = g->join.failure;
    if (err.code != MOE_OK) {
        moe_wrap(&err, "rank %d", g->rank);
        give_up(h, &err);
        return;
    }
    if (h->failure.code != MOE_OK) return; /* rank 0 may have no settings then */
    other = moe_agree_difference(&g->join.settings, h->v->settings);
    if (!other) return;
    moe_fail(&err, MOE_MISMATCH,
             "rank %d has another model, plan or settings than rank 0: %s differs (give all ranks the same)",
             g->rank, other);
    give_up(h, &err);
}

/* Notes which rank a client is that has proved to know the secret; the run fails when there is no such
 * rank. */
static void assign_rank(struct host *h, struct client *g, const struct moe_wire_frame *f)
{
    const struct moe_rendezvous *v = h->v;
    struct moe_err err = MOE_ERR_INIT;
    if (f->ranks != v->ranks)
        moe_fail(&err, MOE_MISMATCH, "a rank came that wants %d ranks, here are %d", f->ranks, v->ranks);
    else if (f->rank < 1 || f->rank >= v->ranks)
        moe_fail(&err, MOE_MISMATCH, "rank %d came, which is none of %d", f->rank, v->ranks);
    else if (h->client_of[f->rank] >= 0) moe_fail(&err, MOE_DEVICE, "rank %d came twice", f->rank);
    if (err.code != MOE_OK) {
        give_up(h, &err);
        return;
    }
    g->rank = f->rank;
    h->client_of[f->rank] = (int)(g - h->client);
    h->missing--;
    check_rank(h, g);
}

/* Handles JOIN.  False: it is forged or malformed, and the connection ends. */
static bool join(struct host *h, struct client *g)
{
    struct moe_wire_frame f;
    const unsigned char *body = g->in + MOE_WIRE_FRAME_BYTES;
    moe_wire_frame_get(g->in, &f);
    size_t bytes = (size_t)f.bytes - MOE_WIRE_MAC;
    if (!moe_secret_signed(h->v->secret, MOE_WIRE_JOIN, &g->nonces, g->in, body, bytes, body + bytes))
        return false;
    if (!moe_wire_join_get(body, bytes, &g->join)) return false;
    g->state = JOINED;
    assign_rank(h, g, &f);
    return true;
}

/* Grows the memory for the message that is being read. */
static bool make_room(struct host *h, struct client *g, size_t want)
{
    struct moe_err err;
    if (g->cap >= want || g->n_in < g->cap) return true;
    /* twice what has come, not what was promised */
    size_t cap = 2 * g->cap > FIRST_READ ? 2 * g->cap : FIRST_READ;
    unsigned char *more = realloc(g->in, cap);
    if (!more) {
        moe_fail(&err, MOE_NOMEM, "no memory for the addresses of ranks");
        give_up(h, &err);
        return false;
    }
    g->in = more;
    g->cap = cap;
    return true;
}

/* Reads what a client has sent.  False: it is gone, or has sent what may not come now. */
static bool read_client(struct host *h, struct client *g)
{
    unsigned char more;
    /* a client that has joined sends nothing more */
    if (g->state == JOINED)
        return recv(g->fd, &more, 1, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR);
    size_t want = message_bytes(h, g);
    if (!want || !make_room(h, g, want)) return false;
    size_t room = (g->cap < want ? g->cap : want) - g->n_in;
    ssize_t n = recv(g->fd, g->in + g->n_in, room, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (n <= 0) return false;
    g->n_in += (size_t)n;
    want = message_bytes(h, g);
    if (!want) return false;
    if (g->n_in < want || want == MOE_WIRE_FRAME_BYTES) return true;
    return g->state == WANT_HELLO ? challenge(h, g) : join(h, g);
}

/* POLLIN: polls all clients and the listener, which is the last entry.  POLLOUT: those that have joined. */
static void poll_all(struct host *h, short events, int timeout)
{
    h->poll[h->n] = (struct pollfd){ .fd = events == POLLIN ? h->listener : -1, .events = POLLIN };
    for (int i = 0; i < h->n; i++) {
        bool wanted = events == POLLIN || h->client[i].state == JOINED;
        h->poll[i] = (struct pollfd){ .fd = wanted ? h->client[i].fd : -1, .events = events };
    }
    if (poll(h->poll, (nfds_t)h->n + 1, timeout) > 0) return;
    for (int i = 0; i <= h->n; i++) h->poll[i].revents = 0;
}

/* ---- messages to clients ---- */

/* Sends a client as much of the last message as its socket takes.  False: all is sent, or the client is
 * gone. */
static bool send_piece(struct client *g, const unsigned char *body, size_t bytes)
{
    const size_t first = sizeof g->head, all = first + bytes + sizeof g->mac;
    const unsigned char *p = g->sent < first           ? g->head + g->sent
                             : g->sent < first + bytes ? body + (g->sent - first)
                                                       : g->mac + (g->sent - first - bytes);
    size_t n = (g->sent < first ? first : g->sent < first + bytes ? first + bytes : all) - g->sent;
    ssize_t sent = send(g->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    g->sent += (size_t)sent;
    return g->sent < all;
}

static int joined_clients(const struct host *h)
{
    int n = 0;
    for (int i = 0; i < h->n; i++) n += h->client[i].state == JOINED;
    return n;
}

/* Sends the same last message to all clients that have joined, side by side, and closes their connections.  A
 * rank that is gone does not get it; the others will miss it soon enough. */
static void send_joined(struct host *h, enum moe_wire_type type, const unsigned char *body, size_t bytes)
{
    const struct moe_rendezvous *v = h->v;
    double end = moe_now() + MOE_RENDEZVOUS_PATIENCE;
    for (int i = 0; i < h->n; i++) {
        struct client *g = &h->client[i];
        if (g->state != JOINED) continue;
        moe_wire_frame_put(g->head, &(struct moe_wire_frame){ MOE_WIRE_VERSION, 0, v->ranks, type,
                                                              v->secret != NULL, bytes + MOE_WIRE_MAC });
        moe_secret_sign(v->secret, type, &g->nonces, g->head, body, bytes, g->mac);
    }
    while (joined_clients(h) && moe_now() < end) {
        poll_all(h, POLLOUT, 100);
        for (int i = h->n - 1; i >= 0; i--)
            if (h->client[i].state == JOINED && h->poll[i].revents && !send_piece(&h->client[i], body, bytes))
                drop(h, i);
    }
    for (int i = h->n - 1; i >= 0; i--)
        if (h->client[i].state == JOINED) drop(h, i);
}

/* Tells all ranks that have joined why the run fails. */
static enum moe_code refuse(struct host *h, const struct moe_err *why)
{
    unsigned char body[MOE_WIRE_ERR_BYTES];
    h->refused += joined_clients(h);
    if (joined_clients(h)) send_joined(h, MOE_WIRE_REFUSED, body, moe_wire_err_put(body, why));
    return why->code;
}

/* ---- waiting for all ranks ---- */

/* The run fails: ranks did not come in time. */
static void too_late(struct host *h)
{
    const struct moe_rendezvous *v = h->v;
    char unjoined[120] = "";
    struct moe_err err;
    int r = 1;
    while (h->client_of[r] >= 0) r++;
    if (h->dropped)
        snprintf(unjoined, sizeof unjoined, "; %d connections said nothing of use%s", h->dropped,
                 v->secret ? " or did not know the secret" : "");
    moe_fail(&err, MOE_DEVICE, "rank %d did not come to '%s' within %g seconds (%d of %d are missing%s)", r,
             v->where, v->timeout, h->missing, v->ranks, unjoined);
    give_up(h, &err);
}

/* Tells the user, after some seconds, which ranks are missing, and from then on which rank has come. */
static void report_missing(struct host *h)
{
    const struct moe_rendezvous *v = h->v;
    char line[MOE_PATH_BYTES + 120];
    int first = 0, newcomer = 0;
    if (!v->tell || h->gave_up || h->missing == h->missing_reported) return;
    if (moe_now() < h->end - v->timeout + MOE_RENDEZVOUS_SILENCE) return;
    for (int r = v->ranks - 1; r > 0; r--) {
        if (h->client_of[r] < 0) first = r;
        else if (!h->reported[r]) newcomer = r;
        h->reported[r] = h->client_of[r] >= 0;
    }
    if (h->missing_reported && newcomer)
        snprintf(line, sizeof line, "rank %d came, %d of %d ranks %s missing", newcomer, h->missing, v->ranks,
                 h->missing == 1 ? "is" : "are");
    else if (h->missing == 1)
        snprintf(line, sizeof line, "waiting for rank %d of %d at '%s', up to %g s", first, v->ranks,
                 v->where, v->timeout);
    else
        snprintf(line, sizeof line,
                 "waiting for %d of %d ranks at '%s', rank %d is the first of them, up to %g s", h->missing,
                 v->ranks, v->where, first, v->timeout);
    h->missing_reported = h->missing;
    v->tell(v->ctx, line);
}

/* As many clients have joined as there are other ranks, those included that were refused: no other rank will
 * come. */
static bool all_came(const struct host *h) { return h->refused + joined_clients(h) >= h->v->ranks - 1; }

/* Reads from all clients whose socket has something, and closes those that are gone or too slow. */
static void serve_clients(struct host *h)
{
    /* from the end: drop moves the last client, which had its turn, to the place of another */
    for (int i = h->n - 1; i >= 0; i--) {
        struct client *g = &h->client[i];
        bool late = g->state != JOINED && moe_now() > g->since + MOE_RENDEZVOUS_PATIENCE;
        if (late || (h->poll[i].revents && !read_client(h, g))) drop(h, i);
    }
}

static enum moe_code wait_for_all(struct host *h, struct moe_err *err)
{
    while (h->missing && moe_now() < h->end && !all_came(h)) {
        MOE_TRY(moe_cancel_check(h->v->cancel, err));
        poll_all(h, POLLIN, 100);
        bool someone = h->poll[h->n].revents != 0;
        serve_clients(h);
        if (h->failure.code != MOE_OK) refuse(h, &h->failure);
        if (someone) accept_clients(h);
        report_missing(h);
    }
    if (h->missing && h->failure.code == MOE_OK) too_late(h);
    return MOE_OK;
}

/* ---- the decision ---- */

/* Puts the addresses of all ranks into *m, and makes the key of the run. */
static enum moe_code collect(struct host *h, const void *mine, size_t bytes, struct moe_meeting *m,
                             struct moe_err *err)
{
    size_t at = bytes;
    m->offset[1] = at;
    for (int r = 1; r < h->v->ranks; r++)
        m->offset[r + 1] = at += h->client[h->client_of[r]].join.address_bytes;
    m->all = malloc(at);
    if (!m->all) return moe_fail(err, MOE_NOMEM, "no memory for the addresses of ranks");
    memcpy(m->all, mine, bytes);
    for (int r = 1; r < h->v->ranks; r++) {
        const struct moe_wire_join *j = &h->client[h->client_of[r]].join;
        memcpy(m->all + m->offset[r], j->address, j->address_bytes);
    }
    return moe_secret_random(m->key, sizeof m->key, err);
}

static enum moe_code welcome(struct host *h, const struct moe_meeting *m, struct moe_err *err)
{
    size_t bytes = moe_wire_welcome_bytes(h->v->ranks, m->offset[h->v->ranks]);
    unsigned char *body = malloc(bytes);
    if (!body) return moe_fail(err, MOE_NOMEM, "no memory for the addresses of ranks");
    moe_wire_welcome_put(body, m->key, h->v->ranks, m->offset, m->all);
    send_joined(h, MOE_WIRE_WELCOME, body, bytes);
    free(body);
    return MOE_OK;
}

static enum moe_code open_host(struct host *h, struct moe_err *err)
{
    int ranks = h->v->ranks;
    h->cap = 2 * ranks + MAX_UNJOINED;
    h->client = calloc((size_t)h->cap, sizeof *h->client);
    h->poll = calloc((size_t)h->cap + 1, sizeof *h->poll);
    h->client_of = calloc((size_t)ranks, sizeof *h->client_of);
    h->reported = calloc((size_t)ranks, sizeof *h->reported);
    if (!h->client || !h->poll || !h->client_of || !h->reported)
        return moe_fail(err, MOE_NOMEM, "no memory for %d ranks", ranks);
    for (int r = 0; r < ranks; r++) h->client_of[r] = -1;
    return moe_socket_listen(h->v->where, &h->listener, err);
}

enum moe_code moe_rendezvous_host(const struct moe_rendezvous *v, const struct moe_err *failure,
                                  const void *mine, size_t bytes, struct moe_meeting *m, struct moe_err *err)
{
    struct host h = { .v = v, .listener = -1, .missing = v->ranks - 1, .end = moe_now() + v->timeout };
    struct moe_err own = *failure; /* a copy, since `failure` may be err */
    h.failure = own;
    enum moe_code code = open_host(&h, err);
    if (code == MOE_OK) code = wait_for_all(&h, err);
    if (code == MOE_OK && h.failure.code != MOE_OK) {
        code = h.failure.code;
        *err = h.failure;
    }
    if (code == MOE_OK) code = collect(&h, mine, bytes, m, err);
    if (code == MOE_OK) code = welcome(&h, m, err);
    if (code != MOE_OK) refuse(&h, err);
    while (h.n) drop(&h, h.n - 1);
    if (h.listener >= 0) close(h.listener);
    free(h.client);
    free(h.poll);
    free(h.client_of);
    free(h.reported);
    return code;
}
