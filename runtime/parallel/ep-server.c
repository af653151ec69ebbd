/* SPDX-License-Identifier: Apache-2.0 */
/* The expert server: it takes the requests of all ranks for one layer, computes them together, and
 * replies. */
#include "runtime/parallel/ep-internal.h"

#include "base/io.h"
#include "kernels/kernels.h"
#include "model/group.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Finds the lowest (pass, layer) among the requests that have come.  False while the request of a rank that
 * is at work is missing, or when there are no requests. */
static bool find_next_layer(struct moe_ep *ep, uint64_t *pass, int *layer)
{
    bool any = false;
    for (int r = 0; r < ep->ranks; r++) {
        const unsigned char *slot = moe_comm_requested(ep->c, r);
        if (!slot && ep->active[r] && !ep->c->dead[r]) return false;
        if (!slot) continue;
        struct moe_wire_request q = moe_wire_request_get(slot);
        if (!any || q.pass < *pass || (q.pass == *pass && q.layer < *layer)) {
            *pass = q.pass;
            *layer = q.layer;
        }
        any = true;
    }
    return any;
}

/* The request of rank `from` if it is among those that are computed now, with its head in *q; NULL: there
 * is none, or it came after the others were checked, or the rank has died since. */
static const unsigned char *taken_request(struct moe_ep *ep, int from, struct moe_wire_request *q)
{
    const unsigned char *slot = ep->taken[from] ? moe_comm_requested(ep->c, from) : NULL;
    if (slot) *q = moe_wire_request_get(slot);
    return slot;
}

static const struct moe_wire_pair *pairs_of(const struct moe_ep *ep, const unsigned char *slot)
{
    return (const struct moe_wire_pair *)(const void *)(slot + moe_wire_pairs_at(ep->experts));
}

/* Checks a request, which may come over a network, before anything in it is used. */
static enum moe_code check_request(const struct moe_ep *ep, int from, const unsigned char *slot,
                                   const struct moe_wire_request *q, struct moe_err *err)
{
    const struct moe_wire_pair *p = pairs_of(ep, slot);
    if (!moe_wire_request_sound(slot, moe_comm_request_size(ep->c, from), &ep->shape) ||
        !moe_layer_is_moe(ep->config, q->layer))
        return moe_fail(err, MOE_DEVICE,
                        "rank %d sent a request that makes no sense (do all ranks run the same version?)",
                        from);
    for (int32_t i = 0; i < q->pairs; i++)
        if (ep->o.resident && !moe_resident_holds(ep->o.resident, q->layer, p[i].expert))
            return moe_fail(err, MOE_DEVICE,
                            "rank %d asked rank %d for expert %d of layer %d, which it does not hold (do all "
                            "ranks have the same --plan?)",
                            from, ep->rank, p[i].expert, q->layer);
    return MOE_OK;
}

static enum moe_code reserve_choices(struct moe_ep *ep, int64_t n, struct moe_err *err)
{
    if (n <= ep->list_cap) return MOE_OK;
    free(ep->list);
    free(ep->sorted);
    ep->list_cap = 2 * n;
    ep->list = malloc((size_t)ep->list_cap * sizeof *ep->list);
    ep->sorted = malloc((size_t)ep->list_cap * sizeof *ep->sorted);
    if (ep->list && ep->sorted) return MOE_OK;
    ep->list_cap = 0;
    return moe_fail(err, MOE_NOMEM, "no memory for the requests of %d ranks", ep->ranks);
}

static void add_choices(struct moe_ep *ep, int from, const unsigned char *slot,
                        const struct moe_wire_request *q, int64_t *n)
{
    const struct moe_wire_pair *p = pairs_of(ep, slot);
    const float *rows = (const float *)(const void *)(slot + moe_wire_rows_at(ep->experts, q->pairs));
    float *out = moe_ep_reply_rows(moe_comm_reply(ep->c, from));
    for (int32_t i = 0; i < q->pairs; i++)
        ep->list[(*n)++] = (struct moe_choice){ rows + (int64_t)p[i].row * ep->hidden,
                                                out + (int64_t)i * ep->hidden, p[i].expert };
}

/* Groups the choices by expert, so that the weights of each expert are read once. */
static void group_choices(struct moe_ep *ep, int64_t n)
{
    moe_group_count(ep->first, ep->experts, &ep->list->expert, sizeof *ep->list, n);
    for (int64_t i = 0; i < n; i++)
        ep->sorted[moe_group_place(ep->first, ep->list[i].expert)] = ep->list[i];
}

/* Computes n choices of a layer in parts of the size for which the forward pass has room. */
static void compute(struct moe_ep *ep, int layer, int64_t n)
{
    struct moe_device *d = moe_forward_device(ep->o.forward);
    int64_t part = ep->o.max_tokens * ep->k;
    group_choices(ep, n);
    double t = moe_now();
    for (int64_t i = 0; i < n; i += part) {
        d->ops->serve(d, layer, ep->sorted + i, n - i < part ? n - i : part);
        if (i + part < n) ep->c->ops->wait(ep->c, 0); /* sends a heartbeat */
    }
    ep->stats.seconds_experts += moe_now() - t;
}

/* Replies to one request.  Outputs that are NaN or Inf are replied as an error that names the damaged
 * weight, since only this rank holds it. */
static enum moe_code answer(struct moe_ep *ep, int to, const struct moe_wire_request *q, struct moe_err *err)
{
    unsigned char *p = moe_comm_reply(ep->c, to);
    float *rows = moe_ep_reply_rows(p);
    size_t bytes = (size_t)((int64_t)q->pairs * ep->hidden) * sizeof(float);
    struct moe_err bad = MOE_ERR_INIT;
    if (bytes && !isfinite(moe_kernels()->amax(rows, (int64_t)q->pairs * ep->hidden)))
        moe_model_blame(ep->o.model, q->layer, &bad);
    moe_wire_reply_put(p, &(struct moe_wire_reply){ ep->seen, q->pairs, bad.code, ep->at });
    ep->stats.bytes_rows += bytes;
    if (bad.code != MOE_OK) bytes = moe_wire_err_put(p + MOE_WIRE_SLOT_HEAD, &bad);
    return moe_comm_answer(ep->c, to, MOE_WIRE_SLOT_HEAD + bytes, err);
}

/* Stores what a request says about the rank that it comes from: its tokens for each expert, that it is at
 * work, its pass, and its progress in a change of plan. */
static void note_request(struct moe_ep *ep, int from, const unsigned char *slot,
                         const struct moe_wire_request *q)
{
    uint16_t *counts = ep->counts + ((int64_t)moe_ep_index(ep, q->layer) * ep->ranks + from) * ep->experts;
    if (from != ep->rank) memcpy(counts, slot + MOE_WIRE_SLOT_HEAD, (size_t)ep->experts * sizeof *counts);
    ep->active[from] = true;
    if (q->pass > ep->seen) ep->seen = q->pass;
    moe_ep_note_progress(ep, from, &q->at);
}

/* Marks in ep->taken the requests for this layer that have come, and counts their pairs.  All are checked
 * before any is computed; a request that comes later is not among them. */
static enum moe_code take_requests(struct moe_ep *ep, uint64_t pass, int layer, int64_t *pairs,
                                   struct moe_err *err)
{
    *pairs = 0;
    for (int r = 0; r < ep->ranks; r++) {
        const unsigned char *slot = moe_comm_requested(ep->c, r);
        struct moe_wire_request q = { 0 };
        if (slot) q = moe_wire_request_get(slot);
        ep->taken[r] = slot && q.pass == pass && q.layer == layer;
        if (!ep->taken[r]) continue;
        MOE_TRY(check_request(ep, r, slot, &q, err));
        note_request(ep, r, slot, &q);
        *pairs += q.pairs;
    }
    return MOE_OK;
}

enum moe_code moe_ep_serve(struct moe_ep *ep, bool *did, struct moe_err *err)
{
    uint64_t pass = 0;
    int layer = 0;
    int64_t n = 0;
    struct moe_wire_request q;
    *did = find_next_layer(ep, &pass, &layer);
    if (!*did) return MOE_OK;
    double t = moe_now();
    MOE_TRY(take_requests(ep, pass, layer, &n, err));
    MOE_TRY(reserve_choices(ep, n, err));
    n = 0;
    for (int r = 0; r < ep->ranks; r++) {
        const unsigned char *slot = taken_request(ep, r, &q);
        if (slot) add_choices(ep, r, slot, &q, &n);
    }
    if (n) compute(ep, layer, n);
    for (int r = 0; r < ep->ranks; r++) {
        if (!taken_request(ep, r, &q)) continue;
        MOE_TRY(moe_ep_count_step(ep, err));
        MOE_TRY(answer(ep, r, &q, err));
    }
    ep->stats.served++;
    ep->stats.seconds_serve += moe_now() - t;
    if (ep->done[ep->rank]) MOE_TRY(moe_ep_move(ep, err)); /* a rank that dispatches does this in combine */
    return MOE_OK;
}
