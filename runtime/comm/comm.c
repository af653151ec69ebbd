/* SPDX-License-Identifier: Apache-2.0 */
/* What all back ends share: it counts messages, and decides which ranks are dead and which are only slow. */
#include "runtime/comm/comm.h"

#include "base/io.h"

#include <stdlib.h>

enum moe_code moe_comm_init(struct moe_comm *c, const struct moe_comm_ops *ops, int rank, int ranks,
                            size_t request_bytes, size_t reply_bytes, double timeout, struct moe_err *err)
{
    *c = (struct moe_comm){ .broken = MOE_ERR_INIT,
                            .ops = ops,
                            .rank = rank,
                            .ranks = ranks,
                            .request_bytes = request_bytes,
                            .reply_bytes = reply_bytes,
                            .timeout = timeout };
    c->dead = calloc((size_t)ranks, sizeof *c->dead);
    c->peer = calloc((size_t)ranks, sizeof *c->peer);
    return c->dead && c->peer ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for %d ranks", ranks);
}

void moe_comm_release(struct moe_comm *c)
{
    free(c->dead);
    free(c->peer);
}

void moe_comm_close(struct moe_comm **c)
{
    if (*c) (*c)->ops->close(*c);
    *c = NULL;
}

enum moe_code moe_comm_post(struct moe_comm *c, int to, size_t bytes, struct moe_err *err)
{
    MOE_CHECK(bytes <= c->request_bytes);
    c->posts++;
    c->post_bytes += bytes;
    return c->ops->post(c, to, bytes, err);
}

enum moe_code moe_comm_answer(struct moe_comm *c, int to, size_t bytes, struct moe_err *err)
{
    MOE_CHECK(bytes <= c->reply_bytes);
    c->answers++;
    c->answer_bytes += bytes;
    return c->ops->answer(c, to, bytes, err);
}

enum moe_code moe_comm_broadcast(struct moe_comm *c, uint32_t kind, const void *data, size_t bytes,
                                 struct moe_err *err)
{
    return c->ranks > 1 ? c->ops->broadcast(c, kind, data, bytes, err) : MOE_OK;
}

void moe_comm_begin_wait(struct moe_comm *c)
{
    for (int r = 0; r < c->ranks; r++) c->peer[r] = (struct moe_peer){ c->ops->heartbeats(c, r), 0 };
    c->tick = moe_now();
}

static enum moe_code wait_for(struct moe_comm *c, double seconds, struct moe_err *err)
{
    MOE_TRY(moe_cancel_check(c->cancel, err));
    c->ops->wait(c, seconds);
    if (c->broken.code != MOE_OK) {
        *err = c->broken;
        return err->code;
    }
    if (c->dead[c->rank])
        return moe_fail(err, MOE_DEVICE,
                        "rank %d was given up by the others (silent for %g seconds; raise --rank-timeout)",
                        c->rank, c->timeout);
    return MOE_OK;
}

enum moe_code moe_comm_wait(struct moe_comm *c, struct moe_err *err)
{
    double left = c->tick + c->timeout / MOE_COMM_TICKS - moe_now();
    return wait_for(c, left > 0 ? left : 0, err);
}

enum moe_code moe_comm_heartbeat(struct moe_comm *c, struct moe_err *err) { return wait_for(c, 0, err); }

bool moe_comm_mark_dead(struct moe_comm *c, const bool *awaited)
{
    double now = moe_now();
    bool any = false;
    if (now < c->tick + c->timeout / MOE_COMM_TICKS) return false;
    c->tick = now; /* counts as one tick, however late it is: this rank may not have run itself */
    for (int r = 0; r < c->ranks; r++) {
        struct moe_peer *p = &c->peer[r];
        uint64_t heartbeats = c->ops->heartbeats(c, r);
        p->ticks = heartbeats == p->heartbeats ? p->ticks + 1 : 0;
        p->heartbeats = heartbeats;
        if (r == c->rank || c->dead[r] || !awaited[r] || p->ticks < MOE_COMM_TICKS) continue;
        moe_comm_lost(c, r);
        c->ops->give_up(c, r);
        any = true;
    }
    return any;
}

void moe_comm_malformed(struct moe_comm *c, int rank, const char *what)
{
    if (c->broken.code == MOE_OK)
        moe_fail(&c->broken, MOE_DEVICE, "rank %d sent %s (do all ranks run the same version?)", rank, what);
}

void moe_comm_lost(struct moe_comm *c, int rank)
{
    if (c->dead[rank]) return;
    c->dead[rank] = true;
    c->n_dead++;
}
