/* SPDX-License-Identifier: Apache-2.0 */
/* Rank 0: all connections side by side. */
#include "runtime/comm/rendezvous.h"

#include "base/io.h"
#include "base/cli/tool.h"
#include "runtime/comm/socket.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Connections that have not joined, at most, beside one for each rank; seconds that a run which cannot be
 * goes on to listen, so that those who come can be told. */
enum { STRANGERS = 64, GRACE = 1, FIRST_READ = 512 };

/* A connection.  `in` is the frame and body under way; once it has joined, its JOIN. */
struct guest {
    int fd, rank; /* rank: whose seat it has; -1: none (yet) */
    enum { SAYS_HELLO, MAY_JOIN, JOINED } state;
    double since;
    struct moe_nonces nonces;
    unsigned char *in;
    size_t n_in, cap;
    struct moe_wire_join join;
    unsigned char head[MOE_WIRE_FRAME_BYTES], mac[MOE_WIRE_MAC]; /* of what rank 0 tells it in the end */
    size_t sent;
};

struct host {
    const struct moe_rendezvous *v;
    bool *known;   /* [ranks]: whose coming a person was told of */
    int told;      /* how many were missing then; 0: nothing was told yet */
    int door;
    /* [n], at most ranks - 1 that have joined and STRANGERS others (and ranks that came in vain) */
    struct guest *guest;
    int n, cap;
    int *seat;              /* [ranks] its index in guest; -1: nobody yet */
    int missing, dropped;   /* ranks; connections that ended before they joined */
    struct moe_err failure; /* the run cannot be; code MOE_OK: it can */
    double end;             /* nobody is waited for any longer */
    struct pollfd *poll;    /* [cap + 1] */
};

/* ---- connections come and go ---- */

static void drop(struct host *h, int i)
{
    struct guest *g = &h->guest[i];
    close(g->fd);
    free(g->in);
    if (g->state != JOINED) h->dropped++;
    if (g->rank >= 0) {
        h->seat[g->rank] = -1;
        h->missing++;
    }
    *g = h->guest[--h->n];
    if (i < h->n && g->rank >= 0) h->seat[g->rank] = i;
}

/* The connection that goes first when there are too many: of those that have not joined, one that has not
 * even said hello, and of these the oldest; -1: all have joined. */
static int least_likely(const struct host *h, int *strangers)
{
    int least = -1;
    *strangers = 0;
    for (int i = 0; i < h->n; i++) {
        const struct guest *g = &h->guest[i], *than = least < 0 ? NULL : &h->guest[least];
        if (g->state == JOINED) continue;
        if (!than || g->state < than->state || (g->state == than->state && g->since < than->since)) least = i;
        ++*strangers;
    }
    return least;
}

/* All ranks may come at the same moment, so there is room for them beside the strangers. */
static void let_in(struct host *h)
{
    for (int turns = STRANGERS; turns; turns--) { /* then those who are in get their turn */
        bool full;
        int strangers, least = least_likely(h, &strangers), fd = moe_socket_accept(h->door, &full);
        if (full && least >= 0) drop(h, least);
        if (full && least < 0) poll(NULL, 0, 10);
        if (fd < 0) return;
        if (strangers >= h->v->ranks + STRANGERS || h->n == h->cap) {
            if (least < 0) {
                close(fd);
                continue;
            }
            drop(h, least);
        }
        h->guest[h->n++] = (struct guest){ .fd = fd, .rank = -1, .since = moe_now() };
    }
}

/* ---- what they say ---- */

/* The run cannot be, for this reason, unless there is one already.  Those who still come are told. */
static void give_up(struct host *h, const struct moe_err *why)
{
    double soon = moe_now() + GRACE;
    if (h->failure.code != MOE_OK) return;
    h->failure = *why;
    if (soon < h->end) h->end = soon;
}

/* Its frame is all that can be understood of it; it is told this one's. */
static void other_version(struct host *h, struct guest *g, uint32_t version)
{
    unsigned char out[MOE_WIRE_FRAME_BYTES];
    const struct moe_rendezvous *v = h->v;
    struct moe_err err;
    moe_wire_frame_put(out, &(struct moe_wire_frame){
                                .version = MOE_WIRE_VERSION, .ranks = v->ranks, .type = MOE_WIRE_CHALLENGE });
    /* with a secret, whoever does not know it ends nothing */
    if (send(g->fd, out, sizeof out, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 || v->secret) return;
    moe_fail(&err, MOE_MISMATCH,
             "a rank of another version of moe-run came to '%s' (its messages are of version %u, not %d)",
             v->where, version, MOE_WIRE_VERSION);
    give_up(h, &err);
}

/* Bytes of the message under way, as far as its frame says it; 0: the frame is none, or of a message that has
 * no place here. */
static size_t wanted(struct host *h, struct guest *g)
{
    struct moe_wire_frame f;
    if (g->n_in < MOE_WIRE_FRAME_BYTES) return MOE_WIRE_FRAME_BYTES;
    if (!moe_wire_frame_get(g->in, &f)) return 0;
    if (f.version != MOE_WIRE_VERSION) {
        other_version(h, g, f.version);
        return 0;
    }
    if (f.type != (g->state == SAYS_HELLO ? MOE_WIRE_HELLO : MOE_WIRE_JOIN)) return 0;
    bool sound = f.type == MOE_WIRE_HELLO
                     ? f.bytes == MOE_WIRE_NONCE
                     : f.bytes >= MOE_WIRE_MAC && f.bytes <= moe_wire_body_max(f.type, h->v->ranks);
    return sound ? MOE_WIRE_FRAME_BYTES + (size_t)f.bytes : 0;
}

static bool challenge(struct host *h, struct guest *g)
{
    unsigned char out[MOE_WIRE_FRAME_BYTES + MOE_WIRE_NONCE + MOE_WIRE_MAC],
        *nonce = out + MOE_WIRE_FRAME_BYTES;
    const struct moe_rendezvous *v = h->v;
    struct moe_err err;
    memcpy(g->nonces.guest, g->in + MOE_WIRE_FRAME_BYTES, MOE_WIRE_NONCE);
    if (moe_secret_random(g->nonces.host, MOE_WIRE_NONCE, &err) != MOE_OK) {
        give_up(h, &err);
        return false;
    }
    moe_wire_frame_put(out, &(struct moe_wire_frame){ MOE_WIRE_VERSION, 0, v->ranks, MOE_WIRE_CHALLENGE,
                                                      v->secret != NULL, MOE_WIRE_NONCE + MOE_WIRE_MAC });
    memcpy(nonce, g->nonces.host, MOE_WIRE_NONCE);
    moe_secret_sign(v->secret, MOE_WIRE_CHALLENGE, &g->nonces, out, nonce, MOE_WIRE_NONCE,
                    nonce + MOE_WIRE_NONCE);
    g->state = MAY_JOIN;
    g->n_in = 0;
    /* nothing else is under way there */
    return send(g->fd, out, sizeof out, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof out;
}

/* It has proved that it is a rank; whether of this run is another question. */
static void seat(struct host *h, struct guest *g, const struct moe_wire_frame *f)
{
    const struct moe_rendezvous *v = h->v;
    struct moe_err err = MOE_ERR_INIT;
    if (f->ranks != v->ranks)
        moe_fail(&err, MOE_MISMATCH, "a rank came that wants %d ranks, here are %d", f->ranks, v->ranks);
    else if (f->rank < 1 || f->rank >= v->ranks)
        moe_fail(&err, MOE_MISMATCH, "rank %d came, which is none of %d", f->rank, v->ranks);
    else if (h->seat[f->rank] >= 0) moe_fail(&err, MOE_DEVICE, "rank %d came twice", f->rank);
    if (err.code != MOE_OK) {
        give_up(h, &err);
        return;
    }
    g->rank = f->rank;
    h->seat[f->rank] = (int)(g - h->guest);
    h->missing--;
}

static bool join(struct host *h, struct guest *g)
{
    struct moe_wire_frame f;
    const unsigned char *body = g->in + MOE_WIRE_FRAME_BYTES;
    moe_wire_frame_get(g->in, &f);
    size_t bytes = (size_t)f.bytes - MOE_WIRE_MAC;
    if (!moe_secret_signed(h->v->secret, MOE_WIRE_JOIN, &g->nonces, g->in, body, bytes, body + bytes))
        return false;
    if (!moe_wire_join_get(body, bytes, &g->join)) return false;
    g->state = JOINED;
    seat(h, g, &f);
    return true;
}

static bool make_room(struct host *h, struct guest *g, size_t want)
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

/* Some of what a guest sent; false: it has gone, or says what has no place here. */
static bool listen_to(struct host *h, struct guest *g)
{
    unsigned char more;
    /* has nothing more to say */
    if (g->state == JOINED)
        return recv(g->fd, &more, 1, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR);
    size_t want = wanted(h, g);
    if (!want || !make_room(h, g, want)) return false;
    size_t room = (g->cap < want ? g->cap : want) - g->n_in;
    ssize_t n = recv(g->fd, g->in + g->n_in, room, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (n <= 0) return false;
    g->n_in += (size_t)n;
    want = wanted(h, g);
    if (!want) return false;
    if (g->n_in < want || want == MOE_WIRE_FRAME_BYTES) return true;
    return g->state == SAYS_HELLO ? challenge(h, g) : join(h, g);
}

/* ---- until all are there ---- */

/* The door is the last one; nobody looks at it when all that is left is to be said. */
static void poll_all(struct host *h, short events, int timeout)
{
    h->poll[h->n] = (struct pollfd){ .fd = events == POLLIN ? h->door : -1, .events = POLLIN };
    for (int i = 0; i < h->n; i++) h->poll[i] = (struct pollfd){ .fd = h->guest[i].fd, .events = events };
    if (poll(h->poll, (nfds_t)h->n + 1, timeout) > 0) return;
    for (int i = 0; i <= h->n; i++) h->poll[i].revents = 0;
}

static void too_late(struct host *h)
{
    const struct moe_rendezvous *v = h->v;
    char strangers[120] = "";
    struct moe_err err;
    int r = 1;
    while (h->seat[r] >= 0) r++;
    if (h->dropped)
        snprintf(strangers, sizeof strangers, "; %d connections said nothing of use%s", h->dropped,
                 v->secret ? " or did not know the secret" : "");
    moe_fail(&err, MOE_DEVICE, "rank %d did not come to '%s' within %g seconds (%d of %d are missing%s)", r,
             v->where, v->timeout, h->missing, v->ranks, strangers);
    give_up(h, &err);
}

/* Once there was some silence: who is missing; from then on, who came. */
static void tell_missing(struct host *h)
{
    const struct moe_rendezvous *v = h->v;
    char line[MOE_PATH_BYTES + 120];
    int first = 0, newcomer = 0;
    if (!v->tell || moe_now() < h->end - v->timeout + MOE_RENDEZVOUS_SILENCE || h->missing == h->told) return;
    for (int r = v->ranks - 1; r > 0; r--) {
        if (h->seat[r] < 0) first = r;
        else if (!h->known[r]) newcomer = r;
        h->known[r] = h->seat[r] >= 0;
    }
    if (h->told && newcomer)
        snprintf(line, sizeof line, "rank %d came, %d of %d ranks %s missing", newcomer, h->missing, v->ranks,
                 h->missing == 1 ? "is" : "are");
    else if (h->missing == 1)
        snprintf(line, sizeof line, "waiting for rank %d of %d at '%s', up to %g s", first, v->ranks,
                 v->where, v->timeout);
    else
        snprintf(line, sizeof line,
                 "waiting for %d of %d ranks at '%s', rank %d is the first of them, up to %g s", h->missing,
                 v->ranks, v->where, first, v->timeout);
    h->told = h->missing;
    v->tell(v->ctx, line);
}

/* As many have joined as there are others, though not all of them for a seat: nobody else will come. */
static bool all_came(const struct host *h)
{
    int joined = 0;
    for (int i = 0; i < h->n; i++) joined += h->guest[i].state == JOINED;
    return joined >= h->v->ranks - 1;
}

static enum moe_code wait_for_all(struct host *h, struct moe_err *err)
{
    while (h->missing && moe_now() < h->end && !all_came(h)) {
        MOE_TRY(moe_interrupted(err));
        poll_all(h, POLLIN, 100);
        bool someone = h->poll[h->n].revents != 0;
        /* from the end: drop puts the last one, which had its turn, in its place */
        for (int i = h->n - 1; i >= 0; i--) {
            struct guest *g = &h->guest[i];
            bool late = g->state != JOINED && moe_now() > g->since + MOE_RENDEZVOUS_PATIENCE;
            if (late || (h->poll[i].revents && !listen_to(h, g))) drop(h, i);
        }
        if (someone) let_in(h);
        tell_missing(h);
    }
    if (h->missing && h->failure.code == MOE_OK) too_late(h);
    return MOE_OK;
}

/* ---- what becomes of it ---- */

/* The lowest failure of all, or that they do not belong together. */
static void judge(struct host *h)
{
    struct moe_err err;
    for (int r = 1; r < h->v->ranks && h->failure.code == MOE_OK; r++) {
        const struct moe_wire_join *j = &h->guest[h->seat[r]].join;
        const char *other = j->failure.code == MOE_OK ? moe_agree_difference(&j->settings, h->v->settings)
                                                      : NULL;
        if (j->failure.code != MOE_OK) {
            h->failure = j->failure;
            moe_wrap(&h->failure, "rank %d", r);
        } else if (other) {
            moe_fail(&err, MOE_MISMATCH,
                     "rank %d has another model, plan or settings than rank 0: %s differs (give all ranks "
                     "the same)",
                     r, other);
            h->failure = err;
        }
    }
}

static enum moe_code collect(struct host *h, const void *mine, size_t bytes, struct moe_meeting *m,
                             struct moe_err *err)
{
    size_t at = bytes;
    m->offset[1] = at;
    for (int r = 1; r < h->v->ranks; r++) m->offset[r + 1] = at += h->guest[h->seat[r]].join.address_bytes;
    m->all = malloc(at);
    if (!m->all) return moe_fail(err, MOE_NOMEM, "no memory for the addresses of ranks");
    memcpy(m->all, mine, bytes);
    for (int r = 1; r < h->v->ranks; r++) {
        const struct moe_wire_join *j = &h->guest[h->seat[r]].join;
        memcpy(m->all + m->offset[r], j->address, j->address_bytes);
    }
    return moe_secret_random(m->key, sizeof m->key, err);
}

/* One more piece to one guest; false when it has all, or is gone. */
static bool tell(struct guest *g, const unsigned char *body, size_t bytes)
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

/* The same to all who have joined, side by side; one that is gone will be missed soon enough. */
static void tell_all(struct host *h, enum moe_wire_type type, const unsigned char *body, size_t bytes)
{
    const struct moe_rendezvous *v = h->v;
    double end = moe_now() + MOE_RENDEZVOUS_PATIENCE;
    for (int i = h->n - 1; i >= 0; i--) {
        struct guest *g = &h->guest[i];
        if (g->state != JOINED) {
            drop(h, i);
            continue;
        }
        moe_wire_frame_put(g->head, &(struct moe_wire_frame){ MOE_WIRE_VERSION, 0, v->ranks, type,
                                                              v->secret != NULL, bytes + MOE_WIRE_MAC });
        moe_secret_sign(v->secret, type, &g->nonces, g->head, body, bytes, g->mac);
    }
    while (h->n && moe_now() < end) {
        poll_all(h, POLLOUT, 100);
        for (int i = h->n - 1; i >= 0; i--)
            if (h->poll[i].revents && !tell(&h->guest[i], body, bytes)) drop(h, i);
    }
}

static enum moe_code welcome(struct host *h, const struct moe_meeting *m, struct moe_err *err)
{
    size_t bytes = moe_wire_welcome_bytes(h->v->ranks, m->offset[h->v->ranks]);
    unsigned char *body = malloc(bytes);
    if (!body) return moe_fail(err, MOE_NOMEM, "no memory for the addresses of ranks");
    moe_wire_welcome_put(body, m->key, h->v->ranks, m->offset, m->all);
    tell_all(h, MOE_WIRE_WELCOME, body, bytes);
    free(body);
    return MOE_OK;
}

static enum moe_code refuse(struct host *h, const struct moe_err *why)
{
    unsigned char body[MOE_WIRE_ERR_BYTES];
    tell_all(h, MOE_WIRE_REFUSED, body, moe_wire_err_put(body, why));
    return why->code;
}

static enum moe_code open_host(struct host *h, struct moe_err *err)
{
    int ranks = h->v->ranks;
    h->cap = 2 * ranks + STRANGERS;
    h->guest = calloc((size_t)h->cap, sizeof *h->guest);
    h->poll = calloc((size_t)h->cap + 1, sizeof *h->poll);
    h->seat = calloc((size_t)ranks, sizeof *h->seat);
    h->known = calloc((size_t)ranks, sizeof *h->known);
    if (!h->guest || !h->poll || !h->seat || !h->known)
        return moe_fail(err, MOE_NOMEM, "no memory for %d ranks", ranks);
    for (int r = 0; r < ranks; r++) h->seat[r] = -1;
    return moe_socket_listen(h->v->where, &h->door, err);
}

enum moe_code moe_rendezvous_host(const struct moe_rendezvous *v, const struct moe_err *failure,
                                  const void *mine, size_t bytes, struct moe_meeting *m, struct moe_err *err)
{
    struct host h = { .v = v, .door = -1, .missing = v->ranks - 1, .end = moe_now() + v->timeout };
    enum moe_code code = open_host(&h, err);
    if (code == MOE_OK) code = wait_for_all(&h, err);
    /* it says more than that others did not come */
    if (code == MOE_OK && failure->code != MOE_OK) h.failure = *failure;
    if (code == MOE_OK && h.failure.code == MOE_OK) judge(&h);
    if (code == MOE_OK && h.failure.code != MOE_OK) code = h.failure.code, *err = h.failure;
    if (code == MOE_OK) code = collect(&h, mine, bytes, m, err);
    if (code == MOE_OK) code = welcome(&h, m, err);
    if (code != MOE_OK) refuse(&h, err);
    while (h.n) drop(&h, h.n - 1);
    if (h.door >= 0) close(h.door);
    free(h.guest);
    free(h.poll);
    free(h.seat);
    free(h.known);
    return code;
}
