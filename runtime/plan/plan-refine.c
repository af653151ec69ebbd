/* SPDX-License-Identifier: Apache-2.0 */
/* Refines a placement by changing few slots of an old plan.  The excess of a rank is its load above the goal;
 * the search lowers the sum of the excess of all ranks.  Each step is the one that removes most excess for
 * each slot that changes: it swaps two slots, or gives a slot of one expert to another one.
 *
 * A step changes few ranks, so the best swap of two ranks is kept until one of them changes.  For a slot
 * that gets another expert an upper bound of what it can remove is computed first, which is fast: it is the
 * excess of its own rank and of the ranks that hold the new expert.  Without an old plan all steps cost the
 * same. */
#include "runtime/plan/plan-internal.h"

#include <string.h>

enum {
    /* A step considers this many of the fullest ranks.  To consider all ranks above the goal would take
     * longer and make little difference. */
    FULLEST = 8,
};

/* Slots a and b change places (e < 0), or slot b gets expert e.  score: the excess that the step removes for
 * each slot that it moves; 0: there is no step. */
struct step {
    double score;
    int32_t a, b, e;
};

/* The best swap of two ranks, a and b, as it was when their versions were of_a and of_b. */
struct kept {
    struct step best;
    uint32_t of_a, of_b;
};

struct refine {
    struct moe_place *s;
    uint8_t *was;         /* [ranks][experts] 1: the rank held the expert in the old plan */
    int32_t *hold;        /* [experts][ranks] the ranks that hold an expert, count[e] of them */
    double *share;        /* [experts][windows] the piece of an expert if it had one copy more */
    double *up;           /* [experts][windows] how much larger that is than its piece now (below 0) */
    double *down;         /* the same with one copy less (above 0); up and down have a last row of zeros */
    double *gain;         /* [experts] the excess that would go from its ranks if it had one copy more */
    double *over;         /* [ranks] the excess of a rank */
    int32_t *top;         /* [ranks] the window in which its load is largest */
    uint32_t *version;    /* [ranks] incremented when its experts or their pieces change */
    struct kept *kept;    /* [FULLEST][ranks] the best swaps of a rank with every other rank */
    int32_t row[FULLEST]; /* which rank each row of `kept` is for; -1: none */
    int32_t *spare;       /* [slots] slots whose expert has more copies than it must have */
    int32_t n_spare;
    double goal;
    struct step best;     /* the best step that was found so far */
    int64_t work;         /* comparisons that are left */
    struct moe_arena arena;
};

static double above(double cost, double goal) { return cost > goal ? cost - goal : 0; }

/* 1 when e would be new on rank r, compared with the old plan. */
static int32_t is_new(const struct refine *d, int32_t r, int32_t e)
{
    return !d->was[(int64_t)r * d->s->experts + e];
}

/* The excess of rank r with the loads plus - minus + change added; change may be NULL. */
static double over_with(const struct refine *d, int32_t r, const double *plus, const double *minus,
                        const double *change)
{
    const struct moe_place *s = d->s;
    const double *load = s->load + (int64_t)r * s->windows;
    double m = 0;
    for (int32_t k = 0; k < s->windows; k++) {
        double v = load[k] + plus[k] - minus[k];
        if (change) v += change[k];
        m = v > m ? v : m;
    }
    return above(m, d->goal);
}

/* A lower bound of that: the excess in the window that is the worst one now.  It is computed fast, and shows
 * of most steps that they are of no use. */
static double over_at_top(const struct refine *d, int32_t r, const double *plus, const double *minus)
{
    int32_t k = d->top[r];
    return above(d->s->load[(int64_t)r * d->s->windows + k] + plus[k] - minus[k], d->goal);
}

/* The row of expert e in a table [experts][windows]. */
static const double *of(const struct moe_place *s, const double *table, int32_t e)
{
    return table + (int64_t)e * s->windows;
}

/* The factor on the score of a step that moves no slot in the end, since experts return to old ranks. */
static const double FREE = 1e6;

/* The excess that a step with so many moves must remove to be better than the best one known. */
static double wanted(const struct refine *d, const struct step *best, int32_t moves)
{
    double least = best->score * (1 + 1e-12);
    least = moves > 0 ? least * moves : least / FREE;
    return least > d->goal * 1e-9 ? least : d->goal * 1e-9;
}

static struct step step_of(double gain, int32_t moves, int32_t a, int32_t b, int32_t e)
{
    return (struct step){ moves > 0 ? gain / moves : gain * FREE, a, b, e };
}

/* The same as node_takes in plan-exchange.c. */
static bool node_takes(const struct refine *d, int32_t r, int32_t from, int32_t e)
{
    const struct moe_place *s = d->s;
    if (s->per_node >= s->ranks || (from >= 0 && r / s->per_node == from / s->per_node)) return true;
    for (int32_t i = 0; i < s->count[e]; i++) {
        int32_t q = d->hold[(int64_t)e * s->ranks + i];
        if (q != from && q / s->per_node == r / s->per_node) return false;
    }
    return true;
}

/* ---- swaps ---- */

/* The excess that a swap of e on rank a for f on rank b removes; perhaps 0 where that is at most `least`. */
static double swap_gain(const struct refine *d, int32_t a, int32_t b, int32_t e, int32_t f, double least)
{
    const struct moe_place *s = d->s;
    if (s->windows == 1) {
        double x = s->size[e] - s->size[f];
        if (x <= 0) return 0;
        return d->over[a] + d->over[b] - above(s->cost[a] - x, d->goal) - above(s->cost[b] + x, d->goal);
    }
    const double *pe = of(s, s->piece, e), *pf = of(s, s->piece, f);
    double bound = d->over[a] + d->over[b];
    if (bound - over_at_top(d, a, pf, pe) - over_at_top(d, b, pe, pf) <= least) return 0;
    double gain = bound - over_with(d, a, pf, pe, NULL);
    return gain <= least ? 0 : gain - over_with(d, b, pe, pf, NULL);
}

static struct step best_swap(const struct refine *d, int32_t a, int32_t b)
{
    const struct moe_place *s = d->s;
    struct step best = { 0 };
    for (int32_t i = s->first[a]; i < s->first[a + 1]; i++) {
        int32_t e = s->slot[i], change = is_new(d, b, e) - is_new(d, a, e);
        if (moe_place_has(s, b, e)) continue;
        for (int32_t j = s->first[b]; j < s->first[b + 1]; j++) {
            int32_t f = s->slot[j];
            int32_t moves = change + is_new(d, a, f) - is_new(d, b, f);
            double least = wanted(d, &best, moves);
            if (d->over[a] + d->over[b] <= least) continue;
            double gain = swap_gain(d, a, b, e, f, least);
            if (gain <= least || moe_place_has(s, a, f) || !node_takes(d, b, a, e) || !node_takes(d, a, b, f))
                continue;
            best = step_of(gain, moves, i, j, -1);
        }
    }
    return best;
}

/* The row of `kept` for rank a, which is one of the n fullest. */
static struct kept *row_of(struct refine *d, int32_t a, const int32_t *fullest, int32_t n)
{
    int32_t row = -1;
    for (int32_t i = 0; i < FULLEST && row < 0; i++)
        if (d->row[i] == a) row = i;
    for (int32_t i = 0; i < FULLEST && row < 0; i++) {
        bool used = false;
        for (int32_t k = 0; k < n; k++) used |= d->row[i] == fullest[k];
        if (used) continue;
        row = i;
        d->row[i] = a;
        memset(d->kept + (int64_t)i * d->s->ranks, 0,
               (size_t)d->s->ranks * sizeof *d->kept); /* no version is 0 */
    }
    return d->kept + (int64_t)row * d->s->ranks;
}

static void swaps(struct refine *d, int32_t a, struct kept *row)
{
    const struct moe_place *s = d->s;
    for (int32_t b = 0; b < s->ranks; b++) {
        if (b == a) continue;
        if (row[b].of_a != d->version[a] || row[b].of_b != d->version[b]) {
            row[b] = (struct kept){ best_swap(d, a, b), d->version[a], d->version[b] };
            d->work -=
                (int64_t)(s->first[a + 1] - s->first[a]) * (s->first[b + 1] - s->first[b]) * s->windows;
        }
        if (row[b].best.score > d->best.score * (1 + 1e-12)) d->best = row[b].best;
    }
}

/* ---- copies ---- */

/* The excess that goes from the other ranks with e or f when a slot of rank r gets e instead of f. */
static double copy_gain(const struct refine *d, int32_t r, int32_t f, int32_t e)
{
    const struct moe_place *s = d->s;
    const int32_t *he = d->hold + (int64_t)e * s->ranks, *hf = d->hold + (int64_t)f * s->ranks;
    const double *more = of(s, d->up, e), *less = of(s, d->down, f), *none = of(s, d->up, s->experts);
    double gain = 0;
    for (int32_t i = 0; i < s->count[e]; i++)
        gain += d->over[he[i]] - over_with(d, he[i], more, none, moe_place_has(s, he[i], f) ? less : NULL);
    for (int32_t i = 0; i < s->count[f]; i++)
        if (hf[i] != r && !moe_place_has(s, hf[i], e))
            gain += d->over[hf[i]] - over_with(d, hf[i], less, none, NULL);
    return gain;
}

/* Tries to give slot k of rank r to e. */
static void copy(struct refine *d, int32_t r, int32_t k, int32_t e)
{
    struct moe_place *s = d->s;
    int32_t f = s->slot[k];
    int32_t moves = is_new(d, r, e) - is_new(d, r, f);
    double bound = d->gain[e] + d->over[r], least = wanted(d, &d->best, moves);
    const double *put = of(s, d->share, e), *out = of(s, s->piece, f);
    if (bound <= least || bound - over_at_top(d, r, put, out) <= least) return;
    if (e == f || s->count[e] >= s->ranks || moe_place_has(s, r, e)) return;
    double here = d->over[r] - over_with(d, r, put, out, NULL);
    d->work -= s->windows;
    if (d->gain[e] + here <= least || !node_takes(d, r, -1, e)) return;
    d->work -= (int64_t)(s->count[e] + s->count[f]) * s->windows;
    double gain = here + copy_gain(d, r, f, e);
    if (gain > least && moe_place_spares(s, r, f)) d->best = step_of(gain, moves, -1, k, e);
}

static void copies(struct refine *d, int32_t a)
{
    const struct moe_place *s = d->s;
    for (int32_t k = s->first[a]; k < s->first[a + 1]; k++)
        for (int32_t e = 0; e < s->experts && s->count[s->slot[k]] > s->floor; e++) copy(d, a, k, e);
    for (int32_t i = 0, r = 0; i < d->n_spare; i++) {
        while (s->first[r + 1] <= d->spare[i]) r++;
        for (int32_t j = s->first[a]; r != a && j < s->first[a + 1]; j++) copy(d, r, d->spare[i], s->slot[j]);
    }
}

/* ---- steps ---- */

/* Stores the fullest ranks, those above the goal alone, by falling cost; returns how many. */
static int32_t fullest_ranks(const struct moe_place *s, double goal, int32_t out[FULLEST])
{
    int32_t n = 0;
    for (int32_t r = 0; r < s->ranks; r++) {
        int32_t i = n < FULLEST ? n : FULLEST - 1;
        if (s->cost[r] <= goal || (n == FULLEST && s->cost[r] <= s->cost[out[i]])) continue;
        for (; i > 0 && s->cost[out[i - 1]] < s->cost[r]; i--) out[i] = out[i - 1];
        out[i] = r;
        n += n < FULLEST;
    }
    return n;
}

static void copy_sizes(struct refine *d, int32_t e)
{
    const struct moe_place *s = d->s;
    double c = s->count[e];
    for (int32_t k = 0; k < s->windows; k++) {
        int64_t at = (int64_t)e * s->windows + k;
        d->share[at] = s->w[at] / (c + 1);
        d->up[at] = d->share[at] - s->piece[at];
        d->down[at] = c > 1 ? s->w[at] / (c - 1) - s->piece[at] : 0;
    }
}

/* Computes over, top, hold, spare and gain for the slots as they are now. */
static void look(struct refine *d)
{
    struct moe_place *s = d->s;
    const double *none = of(s, d->up, s->experts);
    memset(s->had, 0, (size_t)s->experts * sizeof *s->had);
    d->n_spare = 0;
    for (int32_t r = 0; r < s->ranks; r++) {
        d->over[r] = above(s->cost[r], d->goal);
        d->top[r] = 0;
        for (int32_t k = 1; k < s->windows; k++)
            if (s->load[(int64_t)r * s->windows + k] > s->load[(int64_t)r * s->windows + d->top[r]])
                d->top[r] = k;
        for (int32_t k = s->first[r]; k < s->first[r + 1]; k++) {
            int32_t e = s->slot[k];
            d->hold[(int64_t)e * s->ranks + s->had[e]++] = r;
            if (s->count[e] > s->floor) d->spare[d->n_spare++] = k;
        }
    }
    for (int32_t e = 0; e < s->experts; e++) {
        d->gain[e] = 0;
        for (int32_t i = 0; i < s->count[e]; i++) {
            int32_t q = d->hold[(int64_t)e * s->ranks + i];
            if (d->over[q] > 0) d->gain[e] += d->over[q] - over_with(d, q, of(s, d->up, e), none, NULL);
        }
    }
}

static bool best_step(struct refine *d)
{
    struct moe_place *s = d->s;
    int32_t fullest[FULLEST], n = fullest_ranks(s, d->goal, fullest);
    d->best = (struct step){ 0 };
    look(d);
    for (int32_t i = 0; i < n && !moe_is_cancelled(s->cancel); i++)
        swaps(d, fullest[i], row_of(d, fullest[i], fullest, n));
    for (int32_t i = 0; i < n && !moe_is_cancelled(s->cancel); i++) copies(d, fullest[i]);
    return d->best.score > 0;
}

/* Notes that the loads of the ranks that hold e change. */
static void touch(struct refine *d, int32_t e)
{
    for (int32_t i = 0; i < d->s->count[e]; i++) d->version[d->hold[(int64_t)e * d->s->ranks + i]]++;
}

static void take(struct refine *d)
{
    struct moe_place *s = d->s;
    const struct step *t = &d->best;
    int32_t b = moe_place_rank_of(s, t->b), f = s->slot[t->b];
    d->version[b]++;
    if (t->e >= 0) {
        touch(d, t->e);
        touch(d, f);
        s->slot[t->b] = t->e;
    } else {
        d->version[moe_place_rank_of(s, t->a)]++;
        s->slot[t->b] = s->slot[t->a];
        s->slot[t->a] = f;
    }
    for (int32_t r = 0; r < s->ranks && s->per_node < s->ranks; r++)
        d->version[r]++; /* node_takes looks at all ranks of a node */
    moe_place_loads(s);
    if (t->e < 0) return;
    copy_sizes(d, t->e);
    copy_sizes(d, f);
}

static bool open_refine(struct refine *d, struct moe_place *s)
{
    struct moe_arena *a = &d->arena;
    int64_t cells = (int64_t)s->ranks * s->experts,
            sizes = ((int64_t)s->experts + 1) * s->windows; /* with a last row of zeros */
    d->was = moe_arena_array(a, cells, 1);
    d->hold = MOE_NEWN(a, int32_t, cells);
    d->share = MOE_NEWN(a, double, sizes);
    d->up = MOE_NEWN(a, double, sizes);
    d->down = MOE_NEWN(a, double, sizes);
    d->gain = MOE_NEWN(a, double, s->experts);
    d->over = MOE_NEWN(a, double, s->ranks);
    d->top = MOE_NEWN(a, int32_t, s->ranks);
    d->version = MOE_NEWN(a, uint32_t, s->ranks);
    d->kept = MOE_NEWN(a, struct kept, (int64_t)FULLEST * s->ranks);
    d->spare = MOE_NEWN(a, int32_t, s->slots);
    return d->was && d->hold && d->share && d->up && d->down && d->gain && d->over && d->top && d->version &&
           d->kept && d->spare;
}

enum moe_code moe_place_refine(struct moe_place *s, const struct moe_plan_layer *old, double goal,
                               int64_t work, struct moe_err *err)
{
    struct refine d = { .s = s, .goal = goal, .work = work };
    bool ok = open_refine(&d, s);
    for (int32_t i = 0; i < FULLEST; i++) d.row[i] = -1;
    for (int32_t r = 0; ok && r < s->ranks; r++) d.version[r] = 1;
    for (int32_t e = 0; ok && e < s->experts; e++) copy_sizes(&d, e);
    for (int32_t k = 0; ok && old && k < old->slots; k++)
        if (old->copy_rank[k] < s->ranks)
            d.was[(int64_t)old->copy_rank[k] * s->experts + old->slot[old->copy_slot[k]]] = 1;
    for (int32_t steps = 4 * s->slots; ok && steps > 0 && d.work > 0; steps--) {
        if (moe_is_cancelled(s->cancel)) break;
        if (moe_place_max(s, NULL) <= goal || !best_step(&d)) break;
        take(&d);
    }
    moe_arena_clear(&d.arena);
    return ok ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory to plan from an old plan");
}
