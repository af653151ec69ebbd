/* SPDX-License-Identifier: Apache-2.0 */
/* Places the experts of one layer: it decides how many copies each expert gets, puts the copies into the
 * slots of ranks (largest piece first), and adds up the loads.  A piece is the load of one copy: the
 * expert's load divided by its copies. */
#include "runtime/plan/plan-internal.h"

#include <stdlib.h>
#include <string.h>

/* With more ranks than this, `common_load` is not tracked: it would take too much memory. */
enum { COMMON_LOAD_RANKS_MAX = 1024 };
/* The first limit of `common_load`, as a share of the mean load of a rank.  Of an expert with two copies half
 * of that load is new to the rank that is left, so the loss of one rank adds at most half of this share to
 * another one.  Where few ranks cannot keep the limit, packing takes it as a wish, and a search that it holds
 * up raises it (plan-search.c). */
static const double COMMON_LOAD_SHARE = 0.3;

void moe_place_weights(const struct moe_plan_task *t, int32_t row, double *w, double *mean)
{
    const struct moe_routing *r = t->stats;
    int32_t n = 0;
    double total = 0;
    for (int32_t k = 0; k < r->n_windows; k++) {
        double sum = 0;
        for (int32_t e = 0; e < r->experts; e++) sum += (double)moe_routing_row(r, k, row)[e];
        total += sum;
        n += sum > 0;
    }
    total = n ? total / n : 0;
    for (int32_t k = 0; k < r->n_windows; k++) {
        const int64_t *c = moe_routing_row(r, k, row);
        double sum = 0;
        for (int32_t e = 0; e < r->experts; e++) sum += (double)c[e];
        for (int32_t e = 0; e < r->experts; e++)
            w[(int64_t)e * r->n_windows + k] = sum > 0 ? (double)c[e] * (total / sum) : 0;
    }
    *mean = total / t->ranks;
}

/* Allocates all arrays but `w`.  False: there is no memory. */
static bool allocate(struct moe_place *s)
{
    struct moe_arena *a = &s->arena;
    int32_t experts = s->experts, ranks = s->ranks;
    bool tracked = s->floor == 2 && ranks > 2 && ranks <= COMMON_LOAD_RANKS_MAX;
    s->first = MOE_NEWN(a, int32_t, ranks + 1);
    s->slot = MOE_NEWN(a, int32_t, s->slots);
    s->fill = MOE_NEWN(a, int32_t, ranks);
    s->count = MOE_NEWN(a, int32_t, experts);
    s->order = MOE_NEWN(a, int32_t, experts);
    s->had = MOE_NEWN(a, int32_t, experts);
    s->kept = MOE_NEWN(a, int32_t, s->slots);
    s->holders = MOE_NEWN(a, int32_t, ranks);
    s->has = moe_arena_array(a, (int64_t)ranks * experts, 1);
    s->piece = MOE_NEWN(a, double, (int64_t)experts * s->windows);
    s->size = MOE_NEWN(a, double, experts);
    s->load = MOE_NEWN(a, double, (int64_t)ranks * s->windows);
    s->cost = MOE_NEWN(a, double, ranks);
    s->rank_sum = MOE_NEWN(a, int32_t, experts);
    if (tracked) s->common_load = MOE_NEWN(a, double, (int64_t)ranks * ranks);
    return s->first && s->slot && s->fill && s->count && s->order && s->had && s->kept && s->holders &&
           s->has && s->piece && s->size && s->load && s->cost && s->rank_sum &&
           (!tracked || s->common_load);
}

enum moe_code moe_place_open(struct moe_place **out, const struct moe_plan_task *t, int32_t row,
                             struct moe_err *err)
{
    struct moe_place *s = calloc(1, sizeof *s);
    const struct moe_routing *r = t->stats;
    *out = NULL;
    if (!s) return moe_fail(err, MOE_NOMEM, "no memory to plan a layer");
    *s = (struct moe_place){ .ranks = t->ranks,
                             .experts = r->experts,
                             .windows = r->n_windows,
                             .slots = t->slots,
                             .floor = t->survive + 1,
                             .per_node = t->ranks_per_node > 0 && t->ranks_per_node < t->ranks
                                           ? t->ranks_per_node
                                           : t->ranks,
                             .cancel = t->cancel,
                             .work = 20000000 };
    double *w = MOE_NEWN(&s->arena, double, (int64_t)r->experts * r->n_windows);
    s->w = w;
    if (!w || !allocate(s)) {
        moe_place_close(&s);
        return moe_fail(err, MOE_NOMEM, "no memory to plan a layer");
    }
    moe_place_weights(t, row, w, &s->mean);
    if (s->common_load) s->max_common_load = COMMON_LOAD_SHARE * s->mean;
    for (int32_t k = 0; k < t->ranks; k++)
        s->first[k + 1] = s->first[k] + t->slots / t->ranks + (k < t->slots % t->ranks);
    *out = s;
    return MOE_OK;
}

void moe_place_close(struct moe_place **s)
{
    if (!*s) return;
    moe_arena_clear(&(*s)->arena);
    free(*s);
    *s = NULL;
}

/* ---- how many copies ----
 *
 * Experts are in a heap by load per copy, and the next copy goes to the expert at the top.  This attains the
 * least largest piece that is possible (with s->lose: after that many copies of every expert are lost). */

/* The largest load of e over windows. */
static double largest(const struct moe_place *s, int32_t e)
{
    double m = 0;
    for (int32_t k = 0; k < s->windows; k++)
        m = s->w[(int64_t)e * s->windows + k] > m ? s->w[(int64_t)e * s->windows + k] : m;
    return m;
}

static bool above(const struct moe_place *s, int32_t a, int32_t b)
{
    return s->size[a] > s->size[b] || (s->size[a] >= s->size[b] && a < b);
}

static void sift(const struct moe_place *s, int32_t *heap, int32_t i, int32_t n)
{
    for (int32_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && above(s, heap[c + 1], heap[c])) c++;
        if (!above(s, heap[c], heap[i])) return;
        int32_t x = heap[i];
        heap[i] = heap[c], heap[c] = x;
    }
}

void moe_place_more(struct moe_place *s, int32_t left)
{
    int32_t *heap = s->order, n = s->experts;
    for (int32_t e = 0; e < n; e++) {
        s->size[e] = largest(s, e) / (s->count[e] - s->lose);
        heap[e] = e;
    }
    for (int32_t i = n / 2 - 1; i >= 0; i--) sift(s, heap, i, n);
    while (left > 0 && n > 0) {
        int32_t e = heap[0];
        if (s->count[e] == s->ranks) heap[0] = heap[--n]; /* it is on every rank */
        else {
            s->size[e] = largest(s, e) / (++s->count[e] - s->lose);
            left--;
        }
        sift(s, heap, 0, n);
    }
}

void moe_place_counts(struct moe_place *s)
{
    for (int32_t e = 0; e < s->experts; e++) s->count[e] = s->floor;
    moe_place_more(s, s->slots - s->floor * s->experts);
}

/* ---- what two ranks have in common ----
 *
 * When a rank is lost, the other ranks that hold its experts take over their tokens.  common_load[a][b] is
 * the load that rank b has, once rank a is lost, of the experts that both hold: w / (c - 1) for each such
 * expert of load w with c copies.  max_common_load limits it, so that the load of a lost rank does not fall
 * on one other rank. */

/* The load of e on each rank that still holds it when one rank with a copy is lost. */
static double load_after_loss(const struct moe_place *s, int32_t e)
{
    return s->size[e] * s->count[e] / (s->count[e] - 1);
}

static void clear_common_load(struct moe_place *s)
{
    size_t n = (size_t)s->ranks;
    memset(s->rank_sum, 0, (size_t)s->experts * sizeof *s->rank_sum);
    if (s->common_load) memset(s->common_load, 0, n * n * sizeof *s->common_load);
}

static void change_common_load(struct moe_place *s, int32_t rank, int32_t q, double w)
{
    s->common_load[(int64_t)rank * s->ranks + q] += w;
    s->common_load[(int64_t)q * s->ranks + rank] += w;
}

/* For an expert with two copies `rank_sum` gives the other rank, so that no search is needed. */
void moe_place_common_load_add(struct moe_place *s, int32_t rank, int32_t e, double sign)
{
    if (!s->common_load) return;
    int32_t q = s->rank_sum[e] - (sign < 0 ? rank + 1 : 0) - 1;
    s->rank_sum[e] += sign < 0 ? -(rank + 1) : rank + 1;
    if (s->count[e] == 2 && q >= 0) change_common_load(s, rank, q, sign * load_after_loss(s, e));
    for (q = 0; s->count[e] > 2 && q < s->ranks; q++)
        if (q != rank && moe_place_has(s, q, e)) change_common_load(s, rank, q, sign * load_after_loss(s, e));
}

/* Whether ranks `to` and q may both hold e; they always may when they have no other expert in common. */
static bool may_share(const struct moe_place *s, int32_t to, int32_t q, int32_t e)
{
    double now = s->common_load[(int64_t)to * s->ranks + q];
    return now <= s->max_common_load * 1e-9 || now + load_after_loss(s, e) <= s->max_common_load;
}

bool moe_place_common_load_allows(const struct moe_place *s, int32_t to, int32_t from, int32_t e)
{
    if (!s->common_load || s->count[e] < 2) return true;
    if (s->count[e] == 2) {
        int32_t q = s->rank_sum[e] - (from + 1) - 1;
        return q < 0 || may_share(s, to, q, e);
    }
    for (int32_t q = 0; q < s->ranks; q++)
        if (q != from && q != to && moe_place_has(s, q, e) && !may_share(s, to, q, e)) return false;
    return true;
}

void moe_place_raise_max_common_load(struct moe_place *s, double factor)
{
    /* the value of `common_load` if it were the same for all pairs of ranks and experts had two copies */
    double even = 2 * s->mean / (s->ranks - 1);
    s->max_common_load = factor * (even > s->max_common_load ? even : s->max_common_load);
}

/* ---- packing ---- */

void moe_place_put(struct moe_place *s, int32_t rank, int32_t e)
{
    double cost = 0;
    s->slot[s->first[rank] + s->fill[rank]++] = e;
    moe_place_common_load_add(s, rank, e, 1);
    s->has[(int64_t)rank * s->experts + e] = 1;
    for (int32_t k = 0; k < s->windows; k++) {
        double v = s->load[(int64_t)rank * s->windows + k] += s->w[(int64_t)e * s->windows + k] / s->count[e];
        cost = v > cost ? v : cost;
    }
    s->cost[rank] = cost;
}

static int32_t room(const struct moe_place *s, int32_t r)
{
    return s->first[r + 1] - s->first[r] - s->fill[r];
}

static int32_t on_node(const struct moe_place *s, int32_t node, int32_t e)
{
    int32_t n = 0, end = (node + 1) * s->per_node < s->ranks ? (node + 1) * s->per_node : s->ranks;
    for (int32_t r = node * s->per_node; r < end; r++) n += moe_place_has(s, r, e);
    return n;
}

/* Called when every rank with a free slot holds e already: moves an expert of a rank that lacks e to one of
 * them, and puts e into the slot that becomes free. */
static void make_room(struct moe_place *s, int32_t e)
{
    for (int32_t r = 0; r < s->ranks; r++) {
        if (!room(s, r)) continue;
        for (int32_t q = 0; q < s->ranks; q++) {
            if (moe_place_has(s, q, e)) continue;
            for (int32_t k = s->first[q]; k < s->first[q] + s->fill[q]; k++) {
                int32_t f = s->slot[k];
                if (moe_place_has(s, r, f)) continue;
                moe_place_common_load_add(s, q, f, -1);
                s->has[(int64_t)q * s->experts + f] = 0;
                moe_place_common_load_add(s, q, e, 1);
                s->has[(int64_t)q * s->experts + e] = 1;
                s->slot[k] = e;
                for (int32_t w = 0; w < s->windows; w++)
                    s->load[(int64_t)q * s->windows + w] += s->w[(int64_t)e * s->windows + w] / s->count[e] -
                                                            s->w[(int64_t)f * s->windows + w] / s->count[f];
                moe_place_put(s, r, f);
                return;
            }
        }
    }
}

/* The same as moe_place_common_load_allows(s, to, -1, e), where the first n of s->holders are the ranks that
 * hold e. */
static bool holders_allow(const struct moe_place *s, int32_t to, int32_t e, int32_t n)
{
    if (!s->common_load || s->count[e] < 2) return true;
    for (int32_t i = 0; i < n; i++)
        if (!may_share(s, to, s->holders[i], e)) return false;
    return true;
}

void moe_place_put_on_best_rank(struct moe_place *s, int32_t e)
{
    int32_t best = -1, crowd = 0, holders = 0;
    bool nodes = s->per_node < s->ranks;
    for (int32_t r = 0; s->common_load && r < s->ranks; r++)
        if (moe_place_has(s, r, e)) s->holders[holders++] = r;
    for (int32_t r = 0; r < s->ranks; r++) {
        if (!room(s, r) || moe_place_has(s, r, e)) continue;
        /* prefer nodes with few copies of e, then ranks whose values of `common_load` stay below the limit */
        int32_t c = (nodes ? 2 * on_node(s, r / s->per_node, e) : 0) + !holders_allow(s, r, e, holders);
        if (best < 0 || c < crowd || (c == crowd && s->cost[r] < s->cost[best])) best = r, crowd = c;
    }
    if (best < 0) make_room(s, e);
    else moe_place_put(s, best, e);
}

void moe_place_empty(struct moe_place *s)
{
    memset(s->fill, 0, (size_t)s->ranks * sizeof *s->fill);
    memset(s->has, 0, (size_t)s->ranks * (size_t)s->experts);
    memset(s->load, 0, (size_t)s->ranks * (size_t)s->windows * sizeof *s->load);
    memset(s->cost, 0, (size_t)s->ranks * sizeof *s->cost);
    clear_common_load(s);
    for (int32_t e = 0; e < s->experts; e++) s->size[e] = largest(s, e) / s->count[e];
}

void moe_place_pack(struct moe_place *s)
{
    int32_t *order = s->order, n = s->experts;
    moe_place_empty(s); /* this computes `size`, too */
    for (int32_t e = 0; e < n; e++) order[e] = e;
    for (int32_t i = n / 2 - 1; i >= 0; i--) sift(s, order, i, n);
    while (n > 0) {
        int32_t e = order[0];
        for (int32_t c = 0; c < s->count[e] && !moe_is_cancelled(s->cancel); c++)
            moe_place_put_on_best_rank(s, e);
        order[0] = order[--n];
        sift(s, order, 0, n);
    }
    if (!moe_is_cancelled(s->cancel)) moe_place_loads(s); /* else some slots may be empty */
}

/* ---- loads, added up in the order of slots so that the same slots always give the same loads ---- */

void moe_place_loads(struct moe_place *s)
{
    memset(s->has, 0, (size_t)s->ranks * (size_t)s->experts);
    memset(s->count, 0, (size_t)s->experts * sizeof *s->count);
    for (int32_t k = 0; k < s->slots; k++) s->count[s->slot[k]]++;
    for (int32_t e = 0; e < s->experts; e++) {
        s->size[e] = 0;
        for (int32_t k = 0; k < s->windows; k++) {
            double p = s->w[(int64_t)e * s->windows + k] / s->count[e];
            s->piece[(int64_t)e * s->windows + k] = p;
            s->size[e] = p > s->size[e] ? p : s->size[e];
        }
    }
    for (int32_t r = 0; r < s->ranks; r++) {
        s->cost[r] = 0;
        for (int32_t w = 0; w < s->windows; w++) {
            double sum = 0;
            for (int32_t k = s->first[r]; k < s->first[r + 1]; k++)
                sum += s->piece[(int64_t)s->slot[k] * s->windows + w];
            s->load[(int64_t)r * s->windows + w] = sum;
            s->cost[r] = sum > s->cost[r] ? sum : s->cost[r];
        }
    }
    clear_common_load(s);
    for (int32_t r = 0; r < s->ranks; r++)
        for (int32_t k = s->first[r]; k < s->first[r + 1]; k++) {
            moe_place_common_load_add(s, r, s->slot[k], 1);
            s->has[(int64_t)r * s->experts + s->slot[k]] = 1;
        }
}

double moe_place_max(const struct moe_place *s, int32_t *rank)
{
    int32_t best = 0;
    for (int32_t r = 1; r < s->ranks; r++)
        if (s->cost[r] > s->cost[best]) best = r;
    if (rank) *rank = best;
    return s->cost[best];
}
