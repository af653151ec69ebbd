/* SPDX-License-Identifier: Apache-2.0 */
/* Exchange: lowers the load of the fullest rank by swaps and by changing copies, until the goal is reached or
 * nothing helps.
 *
 * Each step takes the fullest rank A and makes the best swap of one slot of A for one of another rank B.
 * Where no such swap helps, it makes the best swap of two slots of A for two of B.  Where that does not help
 * either, it changes copies: a slot of any rank, whose expert has copies to spare, gets another expert, so
 * that pieces on A get smaller or fewer.  After a step every cost that it changes is below the old cost of A,
 * so the steps come to an end. */
#include "runtime/plan/plan-internal.h"

/* Swaps of two slots are tried for ranks with fewer slots than this; their partners may have one more. */
enum { DOUBLES = 17 };

struct step {
    double cost;          /* after the step, the largest cost of the ranks that it changes */
    int32_t n;            /* how many slots of each rank are swapped; 0: no step was found */
    int32_t a[2], b[2];   /* these slots */
    int32_t e;            /* a change of copies: slot b[0] gets expert e; -1: a swap */
};

/* Whether the rule for nodes lets a copy of e come to rank r from rank `from` (-1: a new copy): not when
 * another rank of r's node holds e, unless the copy comes from this node. */
static bool node_takes(const struct moe_place *s, int32_t r, int32_t from, int32_t e)
{
    if (s->per_node >= s->ranks || (from >= 0 && r / s->per_node == from / s->per_node)) return true;
    int32_t first = r / s->per_node * s->per_node,
            end = first + s->per_node < s->ranks ? first + s->per_node : s->ranks;
    for (int32_t q = first; q < end; q++)
        if (moe_place_has(s, q, e)) return false;
    return true;
}

static bool may_swap(const struct moe_place *s, int32_t a, int32_t b, int32_t e, int32_t f)
{
    return !moe_place_has(s, b, e) && !moe_place_has(s, a, f) && node_takes(s, b, a, e) &&
           node_takes(s, a, b, f) && moe_place_common_load_allows(s, b, a, e) &&
           moe_place_common_load_allows(s, a, b, f);
}

/* ---- one for one ---- */

/* Rank a gives e and gets f, so that d, the difference of their pieces, goes from a to b: both must come out
 * below the best cost that was found so far. */
static void pairs_one_window(const struct moe_place *s, int32_t a, int32_t b, struct step *best)
{
    double ca = s->cost[a], cb = s->cost[b];
    for (int32_t i = s->first[a]; i < s->first[a + 1]; i++) {
        int32_t e = s->slot[i];
        double pe = s->piece[e];
        for (int32_t j = s->first[b]; j < s->first[b + 1]; j++) {
            double d = pe - s->piece[s->slot[j]];
            if (ca - d >= best->cost || cb + d >= best->cost || !may_swap(s, a, b, e, s->slot[j])) continue;
            *best = (struct step){ ca - d > cb + d ? ca - d : cb + d, 1, { i, 0 }, { j, 0 }, -1 };
        }
    }
}

static void pairs_with(const struct moe_place *s, int32_t a, int32_t b, struct step *best)
{
    if (s->windows == 1) {
        pairs_one_window(s, a, b, best);
        return;
    }
    for (int32_t i = s->first[a]; i < s->first[a + 1]; i++) {
        int32_t e = s->slot[i];
        if (moe_place_has(s, b, e)) continue;
        for (int32_t j = s->first[b]; j < s->first[b + 1]; j++) {
            int32_t f = s->slot[j];
            double x = moe_place_cost_with(s, a, e, f);
            if (x >= best->cost) continue;
            double y = moe_place_cost_with(s, b, f, e), m = x > y ? x : y;
            if (m < best->cost && may_swap(s, a, b, e, f))
                *best = (struct step){ m, 1, { i, 0 }, { j, 0 }, -1 };
        }
    }
}

static struct step best_pair(struct moe_place *s, int32_t a, double below)
{
    struct step best = { .cost = below };
    for (int32_t b = 0; b < s->ranks; b++)
        if (b != a && s->cost[b] < best.cost) {
            pairs_with(s, a, b, &best);
            s->work -= (int64_t)(s->first[a + 1] - s->first[a]) * (s->first[b + 1] - s->first[b]) *
                       s->windows;
        }
    return best;
}

/* ---- two for two ---- */

/* The cost of rank r with the experts in[0], in[1] instead of out[0], out[1]. */
static double two_cost(const struct moe_place *s, int32_t r, const int32_t *out, const int32_t *in)
{
    double m = 0;
    for (int32_t k = 0; k < s->windows; k++) {
        int32_t W = s->windows;
        double v = s->load[(int64_t)r * W + k] - s->piece[(int64_t)out[0] * W + k] -
                   s->piece[(int64_t)out[1] * W + k] + s->piece[(int64_t)in[0] * W + k] +
                   s->piece[(int64_t)in[1] * W + k];
        m = v > m ? v : m;
    }
    return m;
}

static void doubles_one_window(const struct moe_place *s, int32_t a, int32_t b, struct step *best)
{
    int32_t n = s->first[b + 1] - s->first[b], at = s->first[b];
    const int32_t *slot = s->slot;
    double ca = s->cost[a], cb = s->cost[b], pb[DOUBLES];
    for (int32_t j = 0; j < n; j++) pb[j] = s->piece[slot[at + j]];
    for (int32_t i = s->first[a]; i < s->first[a + 1]; i++)
        for (int32_t i2 = i + 1; i2 < s->first[a + 1]; i2++) {
            double pe = s->piece[slot[i]] + s->piece[slot[i2]];
            if (moe_place_has(s, b, slot[i]) || moe_place_has(s, b, slot[i2])) continue;
            for (int32_t j = 0; j < n; j++)
                for (int32_t j2 = j + 1; j2 < n; j2++) {
                    double d = pe - pb[j] - pb[j2];
                    if (ca - d >= best->cost || cb + d >= best->cost) continue;
                    if (!may_swap(s, a, b, slot[i], slot[at + j]) ||
                        !may_swap(s, a, b, slot[i2], slot[at + j2]))
                        continue;
                    *best = (struct step){
                        ca - d > cb + d ? ca - d : cb + d, 2, { i, i2 }, { at + j, at + j2 }, -1
                    };
                }
        }
}

static void doubles_with(const struct moe_place *s, int32_t a, int32_t b, struct step *best)
{
    if (s->windows == 1) {
        doubles_one_window(s, a, b, best);
        return;
    }
    for (int32_t i = s->first[a]; i < s->first[a + 1]; i++)
        for (int32_t i2 = i + 1; i2 < s->first[a + 1]; i2++) {
            int32_t e[2] = { s->slot[i], s->slot[i2] };
            if (moe_place_has(s, b, e[0]) || moe_place_has(s, b, e[1])) continue;
            for (int32_t j = s->first[b]; j < s->first[b + 1]; j++)
                for (int32_t j2 = j + 1; j2 < s->first[b + 1]; j2++) {
                    int32_t f[2] = { s->slot[j], s->slot[j2] };
                    double x = two_cost(s, a, e, f);
                    if (x >= best->cost) continue;
                    double y = two_cost(s, b, f, e), m = x > y ? x : y;
                    if (m < best->cost && may_swap(s, a, b, e[0], f[0]) && may_swap(s, a, b, e[1], f[1]))
                        *best = (struct step){ m, 2, { i, i2 }, { j, j2 }, -1 };
                }
        }
}

/* Sorts the ranks by rising cost into s->fill, which only packing needs otherwise. */
static void sort_ranks(struct moe_place *s)
{
    for (int32_t r = 0; r < s->ranks; r++) {
        int32_t i = r;
        for (; i > 0 && s->cost[s->fill[i - 1]] > s->cost[r]; i--) s->fill[i] = s->fill[i - 1];
        s->fill[i] = r;
    }
}

/* The best swap of two slots of a.  Partners are tried from the emptiest rank on, until a swap reaches the
 * goal. */
static struct step best_double(struct moe_place *s, int32_t a, double below, double goal)
{
    struct step best = { .cost = below };
    int32_t n = s->first[a + 1] - s->first[a];
    if (n < 2 || n > DOUBLES - 1) return best; /* a rank has at most one slot more than another */
    sort_ranks(s);
    for (int32_t i = 0; i < s->ranks && best.cost > goal && !moe_is_cancelled(s->cancel); i++) {
        int32_t b = s->fill[i];
        if (b == a || s->cost[b] >= best.cost) continue;
        doubles_with(s, a, b, &best);
        s->work -= (int64_t)n * n * n * n / 4 * s->windows;
    }
    return best;
}

/* ---- one copy more of e and one less of f: a slot that holds f gets e ---- */

/* The cost of rank r when a slot of rank `at` that holds f gets e. */
static double changed_cost(const struct moe_place *s, int32_t r, int32_t at, int32_t f, int32_t e)
{
    double m = 0;
    for (int32_t k = 0; k < s->windows; k++) {
        double we = s->w[(int64_t)e * s->windows + k], wf = s->w[(int64_t)f * s->windows + k],
               v = s->load[(int64_t)r * s->windows + k];
        double e_more = we / (s->count[e] + 1), f_less = wf / (s->count[f] - 1);
        if (r == at) v += e_more - wf / s->count[f];
        else {
            if (moe_place_has(s, r, e)) v += e_more - we / s->count[e];
            if (moe_place_has(s, r, f)) v += f_less - wf / s->count[f];
        }
        m = v > m ? v : m;
    }
    return m;
}

/* The largest cost after that change, over the ranks that it changes; or any cost of `below` or more, when it
 * is not less. */
static double copy_cost(const struct moe_place *s, int32_t at, int32_t f, int32_t e, double below)
{
    double m = changed_cost(s, at, at, f, e);
    for (int32_t r = 0; r < s->ranks && m < below; r++)
        if (r != at && (moe_place_has(s, r, e) || moe_place_has(s, r, f))) {
            double v = changed_cost(s, r, at, f, e);
            m = v > m ? v : m;
        }
    return m;
}

static void try_copy(struct moe_place *s, int32_t at, int32_t slot, int32_t e, struct step *best)
{
    int32_t f = s->slot[slot];
    if (e == f || s->count[f] <= s->floor || s->count[e] >= s->ranks) return;
    if (moe_place_has(s, at, e) || !node_takes(s, at, -1, e)) return;
    double m = copy_cost(s, at, f, e, best->cost);
    s->work -= s->windows * 8;
    if (m < best->cost && moe_place_spares(s, at, f)) *best = (struct step){ m, 1, { 0, 0 }, { slot, 0 }, e };
}

static struct step best_copy(struct moe_place *s, int32_t a, double below)
{
    struct step best = { .cost = below };
    for (int32_t k = s->first[a]; k < s->first[a + 1]; k++)
        for (int32_t e = 0; e < s->experts; e++) try_copy(s, a, k, e, &best);
    for (int32_t r = 0; r < s->ranks && !moe_is_cancelled(s->cancel); r++)
        for (int32_t k = s->first[r]; r != a && k < s->first[r + 1]; k++)
            for (int32_t i = s->first[a]; s->count[s->slot[k]] > s->floor && i < s->first[a + 1]; i++)
                try_copy(s, r, k, s->slot[i], &best);
    return best;
}

/* ---- steps ---- */

/* Adds up the load of rank r anew. */
static void reload(struct moe_place *s, int32_t r)
{
    s->cost[r] = 0;
    for (int32_t w = 0; w < s->windows; w++) {
        double sum = 0;
        for (int32_t k = s->first[r]; k < s->first[r + 1]; k++)
            sum += s->piece[(int64_t)s->slot[k] * s->windows + w];
        s->load[(int64_t)r * s->windows + w] = sum;
        s->cost[r] = sum > s->cost[r] ? sum : s->cost[r];
    }
}

static void take(struct moe_place *s, const struct step *t)
{
    if (t->e >= 0) {
        s->slot[t->b[0]] = t->e;
        moe_place_loads(s);
        return;
    }
    int32_t a = moe_place_rank_of(s, t->a[0]), b = moe_place_rank_of(s, t->b[0]);
    for (int32_t i = 0; i < t->n; i++) {
        int32_t e = s->slot[t->a[i]], f = s->slot[t->b[i]];
        s->slot[t->a[i]] = f;
        s->slot[t->b[i]] = e;
        moe_place_common_load_add(s, a, e, -1);
        moe_place_common_load_add(s, b, f, -1);
        s->has[(int64_t)a * s->experts + e] = s->has[(int64_t)b * s->experts + f] = 0;
        moe_place_common_load_add(s, a, f, 1);
        moe_place_common_load_add(s, b, e, 1);
        s->has[(int64_t)a * s->experts + f] = s->has[(int64_t)b * s->experts + e] = 1;
    }
    reload(s, a);
    reload(s, b);
}

void moe_place_exchange(struct moe_place *s, double goal)
{
    for (int32_t a; s->work > 0 && !moe_is_cancelled(s->cancel) && moe_place_max(s, &a) > goal;) {
        double below = s->cost[a] * (1 - 1e-9);
        struct step t = best_pair(s, a, below);
        if (!t.n) t = best_double(s, a, below, goal);
        if (!t.n) t = best_copy(s, a, below);
        if (!t.n) return;
        take(s, &t);
    }
}
