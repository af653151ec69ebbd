/* SPDX-License-Identifier: Apache-2.0 */
/* What a rank other than 0 does at the rendezvous: it connects to rank 0, proves that it knows the secret,
 * joins, and gets the addresses of all ranks or the reason why the run fails. */
#include "runtime/comm/rendezvous.h"

#include "base/io.h"
#include "runtime/comm/socket.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The connection of this rank to rank 0. */
struct client {
    const struct moe_rendezvous *v;
    int fd;
    struct moe_nonces nonces;
};

/* MOE_OK when the frame that rank 0 sent is of this protocol, of this version, and with a secret as this
 * rank has one. */
static enum moe_code check_frame(const struct moe_rendezvous *v, bool ours, const struct moe_wire_frame *f,
                                 struct moe_err *err)
{
    if (!ours)
        return moe_fail(err, MOE_DEVICE, "rank %d: what listens at '%s' is not moe-run", v->rank, v->where);
    if (f->version != MOE_WIRE_VERSION)
        return moe_fail(err, MOE_MISMATCH, "rank %d: rank 0 at '%s' is another version of moe-run", v->rank,
                        v->where);
    if (v->secret && !f->secret)
        return moe_fail(
            err, MOE_MISMATCH,
            "rank 0 at '%s' has no secret, rank %d has one (give all ranks the same --secret-file)", v->where,
            v->rank);
    if (!v->secret && f->secret)
        return moe_fail(
            err, MOE_MISMATCH,
            "rank 0 at '%s' wants a secret, rank %d has none (give all ranks the same --secret-file)",
            v->where, v->rank);
    return MOE_OK;
}

/* The error of a message of rank 0 whose signature is wrong. */
static enum moe_code bad_signature(const struct moe_rendezvous *v, struct moe_err *err)
{
    return moe_fail(err, MOE_MISMATCH,
                    "rank 0 at '%s' has another secret than rank %d (give all ranks the same --secret-file)",
                    v->where, v->rank);
}

/* Adds to the error of a socket that rank 0 did not answer. */
static enum moe_code of_host(const struct moe_rendezvous *v, enum moe_code code, struct moe_err *err)
{
    return code == MOE_DEVICE ? moe_wrap(err, "rank %d: rank 0 at '%s' did not answer", v->rank, v->where)
                              : code;
}

static enum moe_code receive(struct client *t, void *data, size_t bytes, double end, struct moe_err *err)
{
    return of_host(t->v, moe_socket_receive(t->fd, data, bytes, end, t->v->cancel, err), err);
}

static enum moe_code send_message(struct client *t, enum moe_wire_type type, const void *body, size_t bytes,
                                  bool sign, double end, struct moe_err *err)
{
    unsigned char frame[MOE_WIRE_FRAME_BYTES], mac[MOE_WIRE_MAC];
    const struct moe_rendezvous *v = t->v;
    moe_wire_frame_put(frame, &(struct moe_wire_frame){ MOE_WIRE_VERSION, v->rank, v->ranks, type,
                                                        v->secret != NULL, bytes + (sign ? sizeof mac : 0) });
    moe_secret_sign(v->secret, type, &t->nonces, frame, body, bytes, mac);
    enum moe_code code = moe_socket_send(t->fd, frame, sizeof frame, end, v->cancel, err);
    if (code == MOE_OK) code = moe_socket_send(t->fd, body, bytes, end, v->cancel, err);
    if (code == MOE_OK && sign) code = moe_socket_send(t->fd, mac, sizeof mac, end, v->cancel, err);
    return of_host(v, code, err);
}

/* Connects and sends HELLO, again and again until an answer comes; `head` is its frame.  Rank 0 may have
 * closed a connection because it had too many. */
static enum moe_code connect_to_host(struct client *t, double end, unsigned char head[MOE_WIRE_FRAME_BYTES],
                                     struct moe_err *err)
{
    const struct moe_rendezvous *v = t->v;
    bool told = !v->tell;
    for (;;) {
        double left = end - moe_now();
        MOE_TRY(moe_cancel_check(v->cancel, err));
        if (left <= 0) break;
        if (!told && left < v->timeout - MOE_RENDEZVOUS_SILENCE) {
            char line[MOE_PATH_BYTES + 80];
            snprintf(line, sizeof line, "rank %d is waiting for rank 0 at '%s', up to %g s", v->rank,
                     v->where, v->timeout);
            v->tell(v->ctx, line);
            told = true;
        }
        MOE_TRY(moe_socket_connect(v->where, left < 2 ? left : 2, &t->fd, err));
        struct moe_err quiet = MOE_ERR_INIT;
        if (t->fd >= 0) {
            MOE_TRY(moe_secret_random(t->nonces.client, sizeof t->nonces.client, err));
            enum moe_code code = send_message(t, MOE_WIRE_HELLO, t->nonces.client, sizeof t->nonces.client,
                                              false, end, &quiet);
            if (code == MOE_OK &&
                moe_socket_receive(t->fd, head, MOE_WIRE_FRAME_BYTES, end, v->cancel, &quiet) == MOE_OK)
                return MOE_OK;
            close(t->fd);
            t->fd = -1;
        }
        poll(NULL, 0, 50);
    }
    return moe_fail(err, MOE_DEVICE, "rank %d found nobody at '%s' within %g seconds (is rank 0 there?)",
                    v->rank, v->where, v->timeout);
}

static enum moe_code receive_challenge(struct client *t, const unsigned char head[MOE_WIRE_FRAME_BYTES],
                                       double end, struct moe_err *err)
{
    unsigned char body[MOE_WIRE_NONCE + MOE_WIRE_MAC];
    struct moe_wire_frame f;
    bool ours = moe_wire_frame_get(head, &f);
    MOE_TRY(check_frame(t->v, ours, &f, err));
    if (f.type != MOE_WIRE_CHALLENGE || f.bytes != sizeof body)
        return moe_fail(err, MOE_DEVICE, "rank %d: rank 0 at '%s' says what makes no sense", t->v->rank,
                        t->v->where);
    MOE_TRY(receive(t, body, sizeof body, end, err));
    memcpy(t->nonces.host, body, MOE_WIRE_NONCE);
    bool good = moe_secret_signed(t->v->secret, MOE_WIRE_CHALLENGE, &t->nonces, head, body, MOE_WIRE_NONCE,
                                  body + MOE_WIRE_NONCE);
    return good ? MOE_OK : bad_signature(t->v, err);
}

static enum moe_code join(struct client *t, const struct moe_err *failure, const void *mine, size_t bytes,
                          double end, struct moe_err *err)
{
    struct moe_wire_join j = { .failure = *failure };
    if (failure->code == MOE_OK) {
        j.settings = *t->v->settings;
        j.address = mine;
        j.address_bytes = bytes;
    }
    size_t n = moe_wire_join_bytes(&j);
    unsigned char *body = malloc(n);
    if (!body) return moe_fail(err, MOE_NOMEM, "no memory for the addresses of ranks");
    moe_wire_join_put(body, &j);
    enum moe_code code = send_message(t, MOE_WIRE_JOIN, body, n, true, end, err);
    free(body);
    return code;
}

/* Reads WELCOME or REFUSED: a body without its MAC. */
static enum moe_code read_decision(const struct moe_rendezvous *v, uint32_t type, const unsigned char *body,
                                   size_t bytes, struct moe_meeting *m, struct moe_err *err)
{
    const unsigned char *all;
    struct moe_err e;
    enum moe_code bad = moe_fail(err, MOE_DEVICE, "rank %d: rank 0 at '%s' says what makes no sense", v->rank,
                                 v->where);
    if (type == MOE_WIRE_REFUSED && moe_wire_err_get(body, bytes, &e)) {
        m->told = true;
        *err = e;
        return e.code;
    }
    if (type != MOE_WIRE_WELCOME || !moe_wire_welcome_get(body, bytes, m->key, v->ranks, m->offset, &all))
        return bad;
    m->all = malloc(m->offset[v->ranks]);
    if (!m->all) return moe_fail(err, MOE_NOMEM, "no memory for the addresses of ranks");
    memcpy(m->all, all, m->offset[v->ranks]);
    return MOE_OK;
}

static enum moe_code receive_decision(struct client *t, struct moe_meeting *m, double end,
                                      struct moe_err *err)
{
    unsigned char head[MOE_WIRE_FRAME_BYTES];
    const struct moe_rendezvous *v = t->v;
    struct moe_wire_frame f;
    MOE_TRY(receive(t, head, sizeof head, end, err));
    bool ours = moe_wire_frame_get(head, &f);
    MOE_TRY(check_frame(v, ours, &f, err));
    if ((f.type != MOE_WIRE_WELCOME && f.type != MOE_WIRE_REFUSED) || f.bytes <= MOE_WIRE_MAC ||
        f.bytes > moe_wire_body_max(f.type, v->ranks))
        return moe_fail(err, MOE_DEVICE, "rank %d: rank 0 at '%s' says what makes no sense", v->rank,
                        v->where);
    size_t bytes = (size_t)f.bytes - MOE_WIRE_MAC;
    unsigned char *body = malloc(bytes + MOE_WIRE_MAC);
    if (!body) return moe_fail(err, MOE_NOMEM, "no memory for the addresses of ranks");
    enum moe_code code = receive(t, body, bytes + MOE_WIRE_MAC, end, err);
    if (code == MOE_OK && !moe_secret_signed(v->secret, f.type, &t->nonces, head, body, bytes, body + bytes))
        code = bad_signature(v, err);
    if (code == MOE_OK) code = read_decision(v, f.type, body, bytes, m, err);
    free(body);
    return code;
}

static enum moe_code join_as_client(const struct moe_rendezvous *v, const struct moe_err *failure,
                                    const void *mine, size_t bytes, struct moe_meeting *m,
                                    struct moe_err *err)
{
    struct client t = { .v = v, .fd = -1 };
    unsigned char head[MOE_WIRE_FRAME_BYTES];
    MOE_TRY(connect_to_host(&t, moe_now() + v->timeout, head, err));
    double soon = moe_now() + MOE_RENDEZVOUS_PATIENCE;
    enum moe_code code = receive_challenge(&t, head, soon, err);
    if (code == MOE_OK) code = join(&t, failure, mine, bytes, soon, err);
    /* rank 0 may have come just now, and waits for the others as long as this rank waited for it */
    if (code == MOE_OK) code = receive_decision(&t, m, soon + v->timeout, err);
    close(t.fd);
    return code;
}

enum moe_code moe_rendezvous(const struct moe_rendezvous *v, const struct moe_err *failure, const void *mine,
                             size_t bytes, struct moe_meeting *m, struct moe_err *err)
{
    struct moe_err own = *failure; /* a copy, since `failure` may be err */
    *m = (struct moe_meeting){ .offset = calloc((size_t)v->ranks + 1, sizeof *m->offset) };
    if (!m->offset) return moe_fail(err, MOE_NOMEM, "no memory for %d ranks", v->ranks);
    if (own.code == MOE_OK && (!bytes || bytes > MOE_WIRE_ADDRESS_MAX))
        moe_fail(&own, MOE_UNSUPPORTED, "rank %d has an address of %zu bytes, at most %d are supported",
                 v->rank, bytes, MOE_WIRE_ADDRESS_MAX);
    enum moe_code code = v->rank ? join_as_client(v, &own, mine, bytes, m, err)
                                 : moe_rendezvous_host(v, &own, mine, bytes, m, err);
    bool told = m->told || !v->rank;
    /* this rank's own failure says more than the error that rank 0 did not answer */
    if (code != MOE_OK && !told && own.code != MOE_OK) {
        code = own.code;
        *err = own;
    }
    if (code != MOE_OK) moe_meeting_release(m);
    m->told = told;
    return code;
}

void moe_meeting_release(struct moe_meeting *m)
{
    free(m->all);
    free(m->offset);
    *m = (struct moe_meeting){ 0 };
}
