/* The serving half: requests of all ranks for one layer, computed together. */
#include "runtime/ep-internal.h"

#include "base/io.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The earliest (pass, layer) that is asked for, when all who are at work have asked. */
static bool due(struct moe_ep *ep, uint64_t *pass, int *layer)
{
    bool any = false;
    for (int r = 0; r < ep->ranks; r++) {
        const struct moe_ep_request *q = moe_comm_requested(ep->c, r);
        if (!q && ep->active[r] && !ep->c->dead[r]) return false;
        if (!q) continue;
        if (!any || q->pass < *pass || (q->pass == *pass && q->layer < *layer)) {
            *pass = q->pass;
            *layer = q->layer;
        }
        any = true;
    }
    return any;
}

static const struct moe_ep_request *asked(struct moe_ep *ep, int from, uint64_t pass, int layer)
{
    const struct moe_ep_request *q = moe_comm_requested(ep->c, from);
    return q && q->pass == pass && q->layer == layer ? q : NULL;
}

/* What came over a network is held against what it may be. */
static enum moe_code check(const struct moe_ep *ep, int from, const struct moe_ep_request *q, struct moe_err *err)
{
    const struct moe_ep_pair *p = (const struct moe_ep_pair *)(const void *)((const unsigned char *)q + moe_ep_pairs_at(ep->experts));
    size_t row = (size_t)ep->hidden * sizeof(float);
    bool good = q->layer >= 0 && q->layer < ep->layers && moe_layer_is_moe(ep->config, q->layer) && q->rows >= 0 && q->pairs >= q->rows &&
                moe_ep_up(sizeof(struct moe_ep_reply)) + (size_t)q->pairs * row <= ep->c->reply_bytes &&
                moe_ep_rows_at(ep->experts, q->pairs) + (size_t)q->rows * row <= ep->c->request_bytes;
    for (int32_t i = 0; good && i < q->pairs; i++) good = p[i].row >= 0 && p[i].row < q->rows && p[i].expert >= 0 && p[i].expert < ep->experts;
    if (!good) return moe_fail(err, MOE_DEVICE, "rank %d sent a request that makes no sense (do all ranks run the same version?)", from);
    for (int32_t i = 0; i < q->pairs; i++)
        if (ep->o.part && !moe_part_holds(ep->o.part, q->layer, p[i].expert))
            return moe_fail(err, MOE_DEVICE, "rank %d asked rank %d for expert %d of layer %d, which it does not hold (do all ranks have the same --plan?)",
                            from, ep->rank, p[i].expert, q->layer);
    return MOE_OK;
}

static enum moe_code room(struct moe_ep *ep, int64_t n, struct moe_err *err)
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

static float *reply_rows(struct moe_ep *ep, int to)
{
    return (float *)(void *)((unsigned char *)moe_comm_reply(ep->c, to) + moe_ep_up(sizeof(struct moe_ep_reply)));
}

static void add_choices(struct moe_ep *ep, int from, const struct moe_ep_request *q, int64_t *n)
{
    const unsigned char *b = (const unsigned char *)q;
    const struct moe_ep_pair *p = (const struct moe_ep_pair *)(const void *)(b + moe_ep_pairs_at(ep->experts));
    const float *rows = (const float *)(const void *)(b + moe_ep_rows_at(ep->experts, q->pairs));
    float *out = reply_rows(ep, from);
    for (int32_t i = 0; i < q->pairs; i++)
        ep->list[(*n)++] = (struct moe_choice){ rows + (int64_t)p[i].row * ep->hidden, out + (int64_t)i * ep->hidden, p[i].expert };
}

/* By expert, so that each one's weights are read once. */
static void sort(struct moe_ep *ep, int64_t n)
{
    memset(ep->first, 0, (size_t)(ep->experts + 1) * sizeof *ep->first);
    for (int64_t i = 0; i < n; i++) ep->first[ep->list[i].expert + 1]++;
    for (int64_t e = 0; e < ep->experts; e++) ep->first[e + 1] += ep->first[e];
    for (int64_t i = 0; i < n; i++) ep->sorted[ep->first[ep->list[i].expert]++] = ep->list[i];
}

static void compute(struct moe_ep *ep, int layer, int64_t n)
{
    int64_t most = ep->o.max_tokens * ep->k;
    sort(ep, n);
    double t = moe_now();
    for (int64_t i = 0; i < n; i += most) {
        moe_forward_experts(ep->o.forward, layer, ep->sorted + i, n - i < most ? n - i : most);
        if (i + most < n) ep->c->ops->wait(ep->c, 0); /* a sign of life */
    }
    ep->stats.seconds_experts += moe_now() - t;
}

/* NaN and Inf are told to whoever asked, with the damaged weight's name, which only this rank can find. */
static enum moe_code answer(struct moe_ep *ep, int to, const struct moe_ep_request *q, struct moe_err *err)
{
    struct moe_ep_reply *p = moe_comm_reply(ep->c, to);
    size_t bytes = (size_t)((int64_t)q->pairs * ep->hidden) * sizeof(float);
    struct moe_err bad = MOE_ERR_INIT;
    if (bytes && !isfinite(moe_kernels()->amax(reply_rows(ep, to), (int64_t)q->pairs * ep->hidden))) moe_model_blame(ep->o.model, q->layer, &bad);
    *p = (struct moe_ep_reply){ ep->seen, q->pairs, bad.code, ep->at };
    ep->stats.bytes_rows += bytes;
    if (bad.code != MOE_OK) {
        bytes = sizeof bad;
        memcpy(reply_rows(ep, to), &bad, sizeof bad);
    }
    return moe_comm_answer(ep->c, to, moe_ep_up(sizeof *p) + bytes, err);
}

static void note(struct moe_ep *ep, int from, const struct moe_ep_request *q)
{
    uint16_t *counts = ep->counts + ((int64_t)moe_ep_index(ep, q->layer) * ep->ranks + from) * ep->experts;
    if (from != ep->rank) memcpy(counts, (const unsigned char *)q + moe_ep_counts_at(), (size_t)ep->experts * sizeof *counts);
    ep->active[from] = true;
    if (q->pass > ep->seen) ep->seen = q->pass;
    moe_ep_told(ep, from, &q->at);
}

enum moe_code moe_ep_serve(struct moe_ep *ep, bool *did, struct moe_err *err)
{
    uint64_t pass = 0;
    int layer = 0;
    int64_t n = 0;
    *did = due(ep, &pass, &layer);
    if (!*did) return MOE_OK;
    double t = moe_now();
    for (int r = 0; r < ep->ranks; r++) {
        const struct moe_ep_request *q = asked(ep, r, pass, layer);
        if (!q) continue;
        MOE_TRY(check(ep, r, q, err));
        note(ep, r, q);
        n += q->pairs;
    }
    MOE_TRY(room(ep, n, err));
    n = 0;
    for (int r = 0; r < ep->ranks; r++) {
        const struct moe_ep_request *q = asked(ep, r, pass, layer);
        if (q) add_choices(ep, r, q, &n);
    }
    if (n) compute(ep, layer, n);
    for (int r = 0; r < ep->ranks; r++) {
        const struct moe_ep_request *q = asked(ep, r, pass, layer);
        if (!q) continue;
        if (moe_ep_dies(ep, err)) return MOE_DEVICE;
        MOE_TRY(answer(ep, r, q, err));
    }
    ep->stats.served++;
    ep->stats.seconds_serve += moe_now() - t;
    if (ep->done[ep->rank]) MOE_TRY(moe_ep_move(ep, err)); /* one at work moves where it asks */
    return MOE_OK;
}
