/* SPDX-License-Identifier: Apache-2.0 */
/* Opens and closes one rank of an expert-parallel run, and handles the messages that ranks send to all others
 * besides requests and replies. */
#include "runtime/parallel/ep-internal.h"

#include "base/io.h"

#include <stdlib.h>
#include <string.h>

size_t moe_ep_request_bytes(const struct moe_config *c, int64_t max_tokens)
{
    int64_t pairs = max_tokens * c->num_experts_per_tok;
    return moe_wire_rows_at(c->n_routed_experts, pairs) +
           moe_wire_align((size_t)(max_tokens * c->hidden_size) * sizeof(float));
}

size_t moe_ep_reply_bytes(const struct moe_config *c, int64_t max_tokens)
{
    size_t rows = (size_t)(max_tokens * c->num_experts_per_tok * c->hidden_size) * sizeof(float),
           least = MOE_WIRE_ERR_BYTES;
    return MOE_WIRE_SLOT_HEAD + moe_wire_align(rows > least ? rows : least);
}

int moe_ep_index(const struct moe_ep *ep, int layer)
{
    const struct moe_plan *p = ep->plan;
    int lo = 0, hi = p->n_layers - 1;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (p->layers[mid].layer < layer) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

enum moe_code moe_ep_count_step(struct moe_ep *ep, struct moe_err *err)
{
    if (!ep->o.die || ++ep->steps != ep->o.die) return MOE_OK;
    ep->stats.died = true;
    return moe_fail(err, MOE_DEVICE, "rank %d was told to die", ep->rank);
}

/* ---- open and close ---- */

static bool allocate(struct moe_ep *ep)
{
    size_t n = (size_t)(ep->o.max_tokens * ep->k), e = (size_t)ep->experts, r = (size_t)ep->ranks;
    ep->place = calloc(n, sizeof *ep->place);
    ep->x = malloc((size_t)(ep->o.max_tokens * ep->hidden) * sizeof *ep->x);
    ep->chosen = calloc(n, sizeof *ep->chosen);
    ep->slot = calloc(n, sizeof *ep->slot);
    ep->left = calloc(n, sizeof *ep->left);
    ep->rows = calloc(r, sizeof *ep->rows);
    ep->pairs = calloc(r, sizeof *ep->pairs);
    ep->last = calloc(r, sizeof *ep->last);
    ep->awaited = calloc(r, sizeof *ep->awaited);
    ep->active = calloc(r, sizeof *ep->active);
    ep->done = calloc(r, sizeof *ep->done);
    ep->taken = calloc(r, sizeof *ep->taken);
    ep->peer = calloc(r, sizeof *ep->peer);
    ep->first = calloc(e + 1, sizeof *ep->first);
    ep->want = calloc(e, sizeof *ep->want);
    ep->tokens = calloc(e, sizeof *ep->tokens);
    ep->number = calloc(e, sizeof *ep->number);
    ep->counts = calloc((size_t)ep->n_moe * r * e, sizeof *ep->counts);
    for (size_t i = 0; ep->slot && i < n; i++) ep->slot[i] = (int32_t)i;
    return ep->place && ep->x && ep->chosen && ep->slot && ep->left && ep->rows && ep->pairs && ep->last &&
           ep->awaited && ep->active && ep->done && ep->taken && ep->peer && ep->first && ep->want &&
           ep->tokens && ep->number && ep->counts;
}

static enum moe_code start(struct moe_ep *ep, struct moe_err *err)
{
    if (!allocate(ep)) return moe_fail(err, MOE_NOMEM, "no memory for a rank");
    MOE_TRY(moe_split_open(&ep->split, ep->plan, err));
    for (int r = 0; r < ep->ranks; r++) ep->active[r] = true; /* until a rank pauses or is done */
    for (int32_t i = 0; i < ep->plan->n_layers; i++) {
        if (ep->plan->layers[i].slots > ep->share_cap) ep->share_cap = ep->plan->layers[i].slots;
        MOE_TRY(moe_ep_map(ep, &ep->plan->layers[i], err));
    }
    ep->share = calloc((size_t)ep->share_cap, sizeof *ep->share);
    return ep->share ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for a rank");
}

enum moe_code moe_ep_open(struct moe_ep **out, const struct moe_ep_options *o, struct moe_err *err)
{
    struct moe_ep *ep = calloc(1, sizeof *ep);
    const struct moe_config *c = &o->model->config;
    *out = NULL;
    if (!ep) return moe_fail(err, MOE_NOMEM, "no memory for a rank");
    *ep = (struct moe_ep){ .o = *o,
                           .c = o->comm,
                           .config = c,
                           .ranks = o->comm->ranks,
                           .rank = o->comm->rank,
                           .hidden = c->hidden_size,
                           .k = c->num_experts_per_tok,
                           .experts = c->n_routed_experts,
                           .layers = c->num_hidden_layers,
                           .n_moe = o->plan->n_layers,
                           .layer = -1,
                           .plan = o->plan };
    ep->shape = (struct moe_wire_shape){ ep->layers,        ep->experts,
                                         ep->hidden,        o->max_tokens * ep->k,
                                         ep->n_moe,         ep->c->request_bytes,
                                         ep->c->reply_bytes };
    enum moe_code code = start(ep, err);
    if (code != MOE_OK) {
        moe_ep_close(&ep);
        return code;
    }
    moe_forward_dispatcher(o->forward, &(struct moe_dispatcher){ ep, moe_ep_dispatch, moe_ep_combine });
    *out = ep;
    return MOE_OK;
}

void moe_ep_close(struct moe_ep **pep)
{
    struct moe_ep *ep = *pep;
    *pep = NULL;
    if (!ep) return;
    moe_forward_dispatcher(ep->o.forward, NULL);
    void *const owned[] = { ep->place,   ep->x,      ep->chosen, ep->slot, ep->left,  ep->rows,  ep->pairs,
                            ep->last,    ep->active, ep->done,   ep->peer, ep->taken, ep->first, ep->want,
                            ep->awaited, ep->tokens, ep->number, ep->list, ep->share, ep->counts,
                            ep->sorted };
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    moe_split_close(&ep->split);
    moe_split_close(&ep->next_split);
    free(ep);
}

/* ---- messages to all ranks ---- */

enum moe_code moe_ep_broadcast(struct moe_ep *ep, uint32_t kind, const void *data, size_t bytes,
                               struct moe_err *err)
{
    return moe_comm_broadcast(ep->c, MESSAGE_FIRST_USER + kind, data, bytes, err);
}

static enum moe_code fail_malformed(int from, struct moe_err *err)
{
    return moe_fail(err, MOE_DEVICE, "rank %d said what makes no sense (do all ranks run the same version?)",
                    from);
}

/* Keeps the first failure that a living rank has sent. */
static enum moe_code take_failure(struct moe_ep *ep, int from, const void *data, size_t bytes,
                                  struct moe_err *err)
{
    struct moe_err e;
    if (ep->failed.code != MOE_OK || ep->c->dead[from]) return MOE_OK;
    if (!moe_wire_err_get(data, bytes, &e)) return fail_malformed(from, err);
    ep->failed = e;
    return MOE_OK;
}

static enum moe_code received(struct moe_ep *ep, int from, uint32_t kind, const void *data, size_t bytes,
                              struct moe_err *err)
{
    if (kind == MESSAGE_FAILURE) return take_failure(ep, from, data, bytes, err);
    if (kind >= MESSAGE_FIRST_USER)
        return ep->o.received
                 ? ep->o.received(ep->o.ctx, from, kind - MESSAGE_FIRST_USER, data, bytes, err)
                 : MOE_OK;
    if (bytes) return fail_malformed(from, err);
    if (kind == MESSAGE_PAUSE || kind == MESSAGE_DONE) ep->active[from] = false;
    if (kind == MESSAGE_DONE) ep->done[from] = true;
    if (kind == MESSAGE_REPORT_BEGUN) ep->report_begun = from + 1;
    if (kind == MESSAGE_REPORTED) ep->reported = true;
    return MOE_OK;
}

enum moe_code moe_ep_receive(struct moe_ep *ep, struct moe_err *err)
{
    int from;
    uint32_t kind;
    const void *data;
    size_t bytes;
    while (moe_comm_received(ep->c, &from, &kind, &data, &bytes))
        MOE_TRY(received(ep, from, kind, data, bytes, err));
    if (ep->failed.code == MOE_OK) return MOE_OK;
    *err = ep->failed;
    return ep->failed.code;
}

enum moe_code moe_ep_wait(struct moe_ep *ep, struct moe_err *err)
{
    int dead = ep->c->n_dead;
    double t = moe_now();
    for (int r = 0; r < ep->ranks; r++)
        ep->awaited[r] |= ep->active[r] && !ep->done[r] && !moe_comm_requested(ep->c, r);
    enum moe_code code = moe_comm_wait(ep->c, err);
    ep->stats.seconds_wait += moe_now() - t;
    MOE_TRY(code);
    moe_comm_mark_dead(ep->c, ep->awaited);
    /* a rank that dispatches nothing more leaves it to the others to find out that experts are lost */
    if (ep->c->n_dead == dead || ep->done[ep->rank]) return MOE_OK;
    return moe_ep_check_covered(ep, err);
}

enum moe_code moe_ep_pause(struct moe_ep *ep, struct moe_err *err)
{
    ep->active[ep->rank] = false;
    return moe_comm_broadcast(ep->c, MESSAGE_PAUSE, NULL, 0, err);
}

static bool all_done(const struct moe_ep *ep)
{
    for (int r = 0; r < ep->ranks; r++)
        if (!ep->c->dead[r] && !ep->done[r]) return false;
    return true;
}

enum moe_code moe_ep_finish(struct moe_ep *ep, struct moe_err *err)
{
    bool did;
    ep->active[ep->rank] = false;
    ep->done[ep->rank] = true;
    MOE_TRY(moe_ep_count_step(ep, err));
    MOE_TRY(moe_comm_broadcast(ep->c, MESSAGE_DONE, NULL, 0, err));
    moe_comm_begin_wait(ep->c);
    for (;;) {
        MOE_TRY(moe_ep_receive(ep, err));
        MOE_TRY(moe_ep_serve(ep, &did, err));
        if (all_done(ep)) return MOE_OK;
        if (did) {
            moe_comm_begin_wait(ep->c);
            continue;
        }
        memset(ep->awaited, 0, (size_t)ep->ranks * sizeof *ep->awaited);
        MOE_TRY(moe_ep_wait(ep, err));
    }
}

enum moe_code moe_ep_broadcast_failure(struct moe_comm *c, const struct moe_err *why, struct moe_err *err)
{
    unsigned char out[MOE_WIRE_ERR_BYTES];
    return moe_comm_broadcast(c, MESSAGE_FAILURE, out, moe_wire_err_put(out, why), err);
}

void moe_ep_fail(struct moe_ep *ep, const struct moe_err *why)
{
    struct moe_err named = *why, ignored;
    /* a failure that came from another rank names that rank already */
    bool from_another = ep->failed.code != MOE_OK && !strcmp(ep->failed.msg, why->msg);
    if (!from_another) moe_wrap(&named, "rank %d", ep->rank);
    moe_ep_broadcast_failure(ep->c, &named, &ignored);
}

struct moe_ep_stats moe_ep_stats(const struct moe_ep *ep)
{
    struct moe_ep_stats s = ep->stats;
    s.bytes_sent = ep->c->post_bytes + ep->c->answer_bytes;
    s.mapped = ep->o.resident ? ep->o.resident->mapped : 0;
    return s;
}
