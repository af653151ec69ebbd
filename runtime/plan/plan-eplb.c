/* SPDX-License-Identifier: Apache-2.0 */
/* Placements of other programs, for comparison: experts in order, round robin, and DeepSeek's EPLB.  EPLB
 * takes the steps of its published eplb.py, in float32 and with the same ties, so that the result is the same
 * slot by slot. */
#include "runtime/plan/plan-search.h"

#include <stdlib.h>
#include <string.h>

/* The arrays of balanced_packing.  order: [n] items by falling weight; pack, place: [n] the bin of each item
 * and its place there; fill, weight: [bins] how many items a bin has, and their weight. */
struct eplb {
    int32_t *order, *pack, *place, *fill;
    float *weight;
};

/* Merge sort of the n items in `order` by falling weight, ties by index. */
static void sort_falling(const float *w, int32_t *order, int32_t *tmp, int32_t n)
{
    if (n < 2) return;
    int32_t half = n / 2, i = 0, j = half, k = 0;
    sort_falling(w, order, tmp, half);
    sort_falling(w, order + half, tmp, n - half);
    while (i < half && j < n) tmp[k++] = w[order[j]] > w[order[i]] ? order[j++] : order[i++];
    while (i < half) tmp[k++] = order[i++];
    while (j < n) tmp[k++] = order[j++];
    memcpy(order, tmp, (size_t)n * sizeof *order);
}

/* Puts n items into bins of n / bins items each: the heaviest item first, into the lightest bin with room. */
static void balanced_packing(struct eplb *x, const float *w, int32_t n, int32_t bins, int32_t *tmp)
{
    int32_t each = n / bins;
    for (int32_t i = 0; i < n; i++) x->order[i] = i, x->pack[i] = i, x->place[i] = 0;
    if (each == 1) return;
    sort_falling(w, x->order, tmp, n);
    for (int32_t b = 0; b < bins; b++) x->weight[b] = 0, x->fill[b] = 0;
    for (int32_t k = 0; k < n; k++) {
        int32_t i = x->order[k], to = -1;
        for (int32_t b = 0; b < bins; b++)
            if (x->fill[b] < each && (to < 0 || x->weight[b] < x->weight[to])) to = b;
        x->pack[i] = to;
        x->place[i] = x->fill[to]++;
        x->weight[to] += w[i];
    }
}

/* Decides which of the n experts each slot holds, phy [slots]: first every expert once, then again and again
 * the one with the most load per copy. */
static void replicate(const float *w, int32_t n, int32_t slots, int32_t *phy, int32_t *count)
{
    for (int32_t e = 0; e < n; e++) phy[e] = e, count[e] = 1;
    for (int32_t k = n; k < slots; k++) {
        int32_t best = 0;
        for (int32_t e = 1; e < n; e++)
            if (w[e] / (float)count[e] > w[best] / (float)count[best]) best = e;
        phy[k] = best;
        count[best]++;
    }
}

struct shape { int32_t experts, slots, groups, nodes, ranks; };

/* Puts the experts of one node into the slots of its ranks, out.  Experts are numbered within the node. */
static void one_node(struct eplb *x, const float *w, const struct shape *s, int32_t *phy, int32_t *count,
                     float *piece, int32_t *tmp, int32_t *out)
{
    int32_t n = s->experts / s->nodes, slots = s->slots / s->nodes, ranks = s->ranks / s->nodes,
            each = slots / ranks;
    replicate(w, n, slots, phy, count);
    for (int32_t k = 0; k < slots; k++) piece[k] = w[phy[k]] / (float)count[phy[k]];
    balanced_packing(x, piece, slots, ranks, tmp);
    for (int32_t k = 0; k < slots; k++) out[x->pack[k] * each + x->place[k]] = phy[k];
}

/* The whole of EPLB: groups of experts go to nodes, then each node is placed.  mlog2log maps experts in the
 * order of their nodes to experts of the model. */
static void run(struct eplb *x, const float *load, const struct shape *s, int32_t *tmp, int32_t *mlog2log,
                float *moved, int32_t *phy, int32_t *count, float *piece, int32_t *physical)
{
    int32_t size = s->experts / s->groups, per_node = s->groups / s->nodes, n = s->experts / s->nodes,
            slots = s->slots / s->nodes;
    for (int32_t g = 0; g < s->groups; g++) {
        piece[g] = 0;
        for (int32_t k = 0; k < size; k++) piece[g] += load[g * size + k];
    }
    balanced_packing(x, piece, s->groups, s->nodes, tmp);
    for (int32_t g = 0; g < s->groups; g++)
        for (int32_t k = 0; k < size; k++)
            mlog2log[(x->pack[g] * per_node + x->place[g]) * size + k] = g * size + k;
    for (int32_t e = 0; e < s->experts; e++) moved[e] = load[mlog2log[e]];
    for (int32_t node = 0; node < s->nodes; node++) {
        int32_t *out = physical + node * slots;
        one_node(x, moved + node * n, s, phy, count, piece, tmp, out);
        for (int32_t k = 0; k < slots; k++) out[k] = mlog2log[node * n + out[k]];
    }
}

enum moe_code moe_eplb(int32_t *physical, const float *load, int32_t experts, int32_t slots, int32_t groups,
                       int32_t nodes, int32_t ranks, struct moe_err *err)
{
    struct moe_arena a = MOE_ARENA_INIT;
    if (experts < 1 || groups < 1 || nodes < 1 || groups % nodes) groups = nodes = 1; /* the global policy */
    struct shape s = { experts, slots, groups, nodes, ranks };
    if (slots < experts || slots % ranks || ranks % nodes || slots % nodes || experts % groups)
        return moe_fail(
            err, MOE_UNSUPPORTED,
            "EPLB cannot place %d experts in %d slots on %d ranks (it wants as many slots on each rank)",
            (int)experts, (int)slots, (int)ranks);
    struct eplb x = { MOE_NEWN(&a, int32_t, slots), MOE_NEWN(&a, int32_t, slots),
                      MOE_NEWN(&a, int32_t, slots), MOE_NEWN(&a, int32_t, slots),
                      MOE_NEWN(&a, float, slots) };
    int32_t *tmp = MOE_NEWN(&a, int32_t, slots), *mlog2log = MOE_NEWN(&a, int32_t, slots),
            *phy = MOE_NEWN(&a, int32_t, slots);
    int32_t *count = MOE_NEWN(&a, int32_t, slots);
    float *moved = MOE_NEWN(&a, float, slots), *piece = MOE_NEWN(&a, float, slots);
    bool ok = x.order && x.pack && x.place && x.fill && x.weight && tmp && mlog2log && phy && count &&
              moved && piece;
    if (ok) run(&x, load, &s, tmp, mlog2log, moved, phy, count, piece, physical);
    moe_arena_clear(&a);
    return ok ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for EPLB");
}

/* ---- baselines of a whole task ---- */

static enum moe_code eplb_layer(int32_t *slot, const struct moe_plan_task *t, int32_t i, float *load,
                                struct moe_err *err)
{
    const struct moe_routing *r = t->stats;
    for (int32_t e = 0; e < r->experts; e++) {
        int64_t sum = 0;
        for (int32_t w = 0; w < r->n_windows; w++) sum += moe_routing_row(r, w, i)[e];
        load[e] = (float)sum;
    }
    return moe_eplb(slot, load, r->experts, t->slots, 1, 1, t->ranks, err);
}

static void in_order(int32_t *slot, enum moe_baseline kind, const struct moe_plan_task *t)
{
    int32_t k = 0, experts = t->stats->experts;
    for (int32_t r = 0; r < t->ranks; r++) {
        int32_t n = t->slots / t->ranks + (r < t->slots % t->ranks);
        for (int32_t j = 0; j < n; j++, k++)
            slot[k] = (kind == MOE_BASE_TRIVIAL ? k : j * t->ranks + r) % experts;
    }
}

enum moe_code moe_plan_baseline(int32_t *slot, enum moe_baseline kind, const struct moe_plan_task *t,
                                struct moe_err *err)
{
    enum moe_code code = MOE_OK;
    float *load = malloc((size_t)t->stats->experts * sizeof *load);
    if (!load) return moe_fail(err, MOE_NOMEM, "no memory for baselines");
    for (int32_t i = 0; code == MOE_OK && i < t->stats->n_layers; i++) {
        if ((code = moe_cancel_check(t->cancel, err)) != MOE_OK) break;
        if (kind == MOE_BASE_EPLB) code = eplb_layer(slot + (int64_t)i * t->slots, t, i, load, err);
        else in_order(slot + (int64_t)i * t->slots, kind, t);
        moe_progress_add(t->progress, 1);
    }
    free(load);
    return code;
}
