/* SPDX-License-Identifier: Apache-2.0 */
/* Planning from an old plan: keep what fits, move few slots, or rename the ranks of a fresh plan. */
#include "runtime/plan-internal.h"

#include <stdlib.h>
#include <string.h>

static bool was_there(const struct moe_plan *from, const struct moe_plan_layer *old, int32_t r, int32_t e)
{
    return r < from->ranks && moe_plan_holds(old, r, e);
}

int32_t moe_place_moves(const struct moe_place *s, const struct moe_plan *from, const struct moe_plan_layer *old)
{
    int32_t n = 0;
    for (int32_t r = 0; r < s->ranks; r++)
        for (int32_t k = s->first[r]; k < s->first[r + 1]; k++) n += !was_there(from, old, r, s->slot[k]);
    return n;
}

/* ---- keeping: into the slots of s, -1 where nothing is kept; counts are of what is kept ---- */

static int32_t capacity(const struct moe_place *s, int32_t r) { return s->first[r + 1] - s->first[r]; }

/* Of the kept slots in [first, end), or of all ranks: the one whose expert has most copies above the floor; -1: none has. */
static int32_t most_spare(const struct moe_place *s, int32_t first, int32_t end)
{
    int32_t best = -1;
    for (int32_t k = first; k < end; k++) {
        int32_t e = s->slot[k];
        if (e >= 0 && s->count[e] > s->floor && (best < 0 || s->count[e] > s->count[s->slot[best]])) best = k;
    }
    return best;
}

/* The slots of a rank as they were; where it has fewer than before, experts with most copies go first. */
static void take_over(struct moe_place *s, int32_t r, const struct moe_plan_layer *old)
{
    int32_t first = old->first[r], n = old->first[r + 1] - first, room = r < s->ranks ? capacity(s, r) : 0, k = r < s->ranks ? s->first[r] : 0;
    for (int32_t i = 0; i < n; i++) s->had[i] = old->slot[first + i]; /* no expert is on a rank twice: it fits */
    for (int32_t left = n; left > room; left--) {
        int32_t drop = -1;
        for (int32_t i = 0; i < n; i++)
            if (s->had[i] >= 0 && (drop < 0 || s->count[s->had[i]] >= s->count[s->had[drop]])) drop = i;
        s->count[s->had[drop]]--;
        s->had[drop] = -1;
    }
    for (int32_t i = 0; i < n; i++)
        if (s->had[i] >= 0) s->slot[k++] = s->had[i];
}

static void take_over_all(struct moe_place *s, const struct moe_plan *from, const struct moe_plan_layer *old)
{
    for (int32_t e = 0; e < s->experts; e++) s->count[e] = moe_plan_copies(old, e, NULL);
    for (int32_t k = 0; k < s->slots; k++) s->slot[k] = -1;
    for (int32_t r = s->ranks; r < from->ranks; r++) take_over(s, r, old); /* gone: their copies first */
    for (int32_t r = 0; r < s->ranks && r < from->ranks; r++) take_over(s, r, old);
}

void moe_place_keep(struct moe_place *s, const struct moe_plan *from, const struct moe_plan_layer *old)
{
    int32_t used = 0, need = 0;
    take_over_all(s, from, old);
    for (int32_t e = 0; e < s->experts; e++) {
        used += s->count[e];
        need += s->count[e] < s->floor ? s->floor - s->count[e] : 0;
    }
    for (int32_t k; s->slots - used < need && (k = most_spare(s, 0, s->slots)) >= 0; used--) { /* others have too few */
        s->count[s->slot[k]]--;
        s->slot[k] = -1;
    }
    memcpy(s->kept, s->slot, (size_t)s->slots * sizeof *s->kept);
    memcpy(s->had, s->count, (size_t)s->experts * sizeof *s->had);
    for (int32_t e = 0; e < s->experts; e++) s->count[e] = s->count[e] < s->floor ? s->floor : s->count[e];
    moe_place_more(s, s->slots - used - need);
    moe_place_empty(s);
    for (int32_t r = 0; r < s->ranks; r++)
        for (int32_t k = s->first[r]; k < s->first[r + 1]; k++)
            if (s->kept[k] >= 0) moe_place_put(s, r, s->kept[k]);
    for (int32_t e = 0; e < s->experts; e++)
        for (int32_t c = s->had[e]; c < s->count[e]; c++) moe_place_one(s, e);
    moe_place_loads(s);
}

/* ---- moving few: excess is what ranks have above the goal, all together; each step is the one that takes away most of it for each slot moved ---- */

enum { WORK = 40000000 }; /* comparisons for a layer: more than what 384 experts in 432 slots on 72 ranks take */
enum { FULLEST = 8 }; /* ranks looked at for a step: all of those above the goal would make little difference, and take their number in time */

struct drift {
    struct moe_place *s;
    const uint8_t *was;   /* [ranks][experts] in the old plan */
    int32_t *hold;        /* [experts][ranks]: ranks that hold it, count[e] of them */
    double *more, *less;  /* [experts] one window: how a piece changes with a copy more, a copy less */
    double *most;         /* [experts] the most excess that a copy more can take from the ranks that hold it */
    double goal;
    double gain, score;   /* of the best step */
    int64_t work;         /* what is left of WORK */
    int32_t a, b, e;      /* slots a and b change places (e < 0), or slot b gets expert e */
};

static double above(double cost, double goal) { return cost > goal ? cost - goal : 0; }

static int32_t is_new(const struct drift *d, int32_t r, int32_t e) { return !d->was[(int64_t)r * d->s->experts + e]; }
static bool holds(const struct drift *d, int32_t r, int32_t e) { return d->s->has[(int64_t)r * d->s->experts + e]; }

/* Cost of rank r with `out` gone and `in` come, both at their pieces of now. */
static double cost_with(const struct moe_place *s, int32_t r, int32_t out, int32_t in)
{
    double m = 0;
    for (int32_t k = 0; k < s->windows; k++) {
        double v = s->load[(int64_t)r * s->windows + k] - s->piece[(int64_t)out * s->windows + k] + s->piece[(int64_t)in * s->windows + k];
        m = v > m ? v : m;
    }
    return m;
}

static void consider(struct drift *d, double gain, int32_t moves, int32_t a, int32_t b, int32_t e)
{
    double score = moves > 0 ? gain / moves : gain * 1e6; /* back where it was: nothing is moved */
    if (gain <= d->goal * 1e-9 || score <= d->score * (1 + 1e-12)) return;
    d->gain = gain;
    d->score = score;
    d->a = a;
    d->b = b;
    d->e = e;
}

/* As in plan-exchange.c: with nodes, copies stay on different ones. */
static bool node_takes(const struct drift *d, int32_t r, int32_t from, int32_t e)
{
    const struct moe_place *s = d->s;
    if (s->per_node >= s->ranks || (from >= 0 && r / s->per_node == from / s->per_node)) return true;
    for (int32_t i = 0; i < s->count[e]; i++) {
        int32_t q = d->hold[(int64_t)e * s->ranks + i];
        if (q != from && q / s->per_node == r / s->per_node) return false;
    }
    return true;
}

static void swaps(struct drift *d, int32_t a, int32_t b)
{
    struct moe_place *s = d->s;
    d->work -= (int64_t)capacity(s, a) * capacity(s, b) * s->windows;
    double over_a = above(s->cost[a], d->goal), over_b = above(s->cost[b], d->goal), before = over_a + over_b, ca = s->cost[a], cb = s->cost[b];
    for (int32_t i = s->first[a]; i < s->first[a + 1]; i++) {
        int32_t e = s->slot[i], e_was = is_new(d, a, e), e_is = is_new(d, b, e);
        if (holds(d, b, e)) continue;
        for (int32_t j = s->first[b]; j < s->first[b + 1]; j++) {
            int32_t f = s->slot[j];
            double gain, x = s->size[e] - s->size[f];
            if (s->windows == 1) {
                if (x <= 0) continue;
                gain = before - above(ca - x, d->goal) - above(cb + x, d->goal);
            } else gain = before - above(cost_with(s, a, e, f), d->goal) - above(cost_with(s, b, f, e), d->goal);
            if (gain <= d->score || holds(d, a, f)) continue; /* even if it took one move */
            int32_t moves = e_is + is_new(d, a, f) - e_was - is_new(d, b, f);
            if (gain > 0 && node_takes(d, b, a, e) && node_takes(d, a, b, f)) consider(d, gain, moves, i, j, -1);
        }
    }
}

/* The excess of the ranks that change when a slot of rank r gets e instead of f, less that before. */
static double copy_change_one_window(const struct drift *d, int32_t r, int32_t f, int32_t e)
{
    const struct moe_place *s = d->s;
    const int32_t *he = d->hold + (int64_t)e * s->ranks, *hf = d->hold + (int64_t)f * s->ranks;
    double goal = d->goal, change = above(s->cost[r] - s->size[f] + s->size[e] + d->more[e], goal) - above(s->cost[r], goal);
    for (int32_t i = 0; i < s->count[e]; i++) {
        double now = s->cost[he[i]];
        change += above(now + d->more[e] + (holds(d, he[i], f) ? d->less[f] : 0), goal) - above(now, goal);
    }
    for (int32_t i = 0; i < s->count[f]; i++)
        if (hf[i] != r && !holds(d, hf[i], e)) change += above(s->cost[hf[i]] + d->less[f], goal) - above(s->cost[hf[i]], goal);
    return change;
}

static double copy_change(const struct drift *d, int32_t r, int32_t f, int32_t e)
{
    const struct moe_place *s = d->s;
    double change = 0;
    if (s->windows == 1) return copy_change_one_window(d, r, f, e);
    for (int side = 0; side < 2; side++) {
        int32_t x = side ? f : e;
        for (int32_t i = -1 + side; i < s->count[x]; i++) {
            int32_t q = i < 0 ? r : d->hold[(int64_t)x * s->ranks + i];
            if ((side && (q == r || holds(d, q, e))) || (!side && i >= 0 && q == r)) continue; /* each rank once */
            double m = 0;
            for (int32_t k = 0; k < s->windows; k++) {
                double we = s->w[(int64_t)e * s->windows + k], wf = s->w[(int64_t)f * s->windows + k], v = s->load[(int64_t)q * s->windows + k];
                if (holds(d, q, e)) v += we / (s->count[e] + 1) - we / s->count[e];
                else if (q == r) v += we / (s->count[e] + 1);
                if (q == r) v -= wf / s->count[f];
                else if (holds(d, q, f)) v += wf / (s->count[f] - 1) - wf / s->count[f];
                m = v > m ? v : m;
            }
            change += above(m, d->goal) - above(s->cost[q], d->goal);
        }
    }
    return change;
}

static void copy(struct drift *d, int32_t r, int32_t k, int32_t e)
{
    struct moe_place *s = d->s;
    int32_t f = s->slot[k];
    if (e == f || s->count[f] <= s->floor || s->count[e] >= s->ranks || d->most[e] + above(s->cost[r], d->goal) <= d->score) return;
    if (holds(d, r, e) || !node_takes(d, r, -1, e)) return;
    d->work -= (int64_t)(s->count[e] + s->count[f]) * s->windows;
    consider(d, -copy_change(d, r, f, e), is_new(d, r, e) - is_new(d, r, f), -1, k, e);
}

/* The fullest ranks above the goal, falling. */
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

static bool best_step(struct drift *d)
{
    struct moe_place *s = d->s;
    d->score = 0;
    memset(s->had, 0, (size_t)s->experts * sizeof *s->had);
    for (int32_t r = 0; r < s->ranks; r++)
        for (int32_t k = s->first[r]; k < s->first[r + 1]; k++) {
            int32_t e = s->slot[k];
            d->hold[(int64_t)e * s->ranks + s->had[e]++] = r;
        }
    for (int32_t e = 0; e < s->experts; e++) {
        double c = s->count[e], w = s->size[e] * c;
        d->more[e] = w / (c + 1) - w / c;
        d->less[e] = c > 1 ? w / (c - 1) - w / c : 0;
        d->most[e] = 0;
        for (int32_t i = 0; i < s->count[e]; i++) {
            double over = above(s->cost[d->hold[(int64_t)e * s->ranks + i]], d->goal);
            d->most[e] += s->windows > 1 || over < -d->more[e] ? over : -d->more[e];
        }
    }
    int32_t fullest[FULLEST], n = fullest_ranks(s, d->goal, fullest);
    for (int32_t i = 0; i < n && !moe_is_stopping(); i++) {
        int32_t a = fullest[i];
        for (int32_t b = 0; b < s->ranks; b++)
            if (b != a) swaps(d, a, b);
        for (int32_t k = s->first[a]; k < s->first[a + 1]; k++)
            for (int32_t e = 0; e < s->experts && s->count[s->slot[k]] > s->floor; e++) copy(d, a, k, e);
        for (int32_t r = 0; r < s->ranks; r++)
            for (int32_t k = s->first[r]; r != a && k < s->first[r + 1]; k++)
                for (int32_t j = s->first[a]; s->count[s->slot[k]] > s->floor && j < s->first[a + 1]; j++) copy(d, r, k, s->slot[j]);
    }
    return d->score > 0;
}

enum moe_code moe_place_drift(struct moe_place *s, const struct moe_plan *from, const struct moe_plan_layer *old, double goal, struct moe_err *err)
{
    uint8_t *was = calloc((size_t)s->ranks * (size_t)s->experts, 1);
    int32_t *hold = malloc((size_t)s->ranks * (size_t)s->experts * sizeof *hold);
    double *change = malloc(3 * (size_t)s->experts * sizeof *change);
    struct drift d = { .s = s, .was = was, .hold = hold, .goal = goal, .work = WORK, .more = change, .less = change ? change + s->experts : NULL,
                       .most = change ? change + 2 * s->experts : NULL };
    bool ok = was && hold && change;
    for (int32_t k = 0; ok && k < old->slots; k++)
        if (old->copy_rank[k] < s->ranks) was[(int64_t)old->copy_rank[k] * s->experts + old->slot[old->copy_slot[k]]] = 1;
    for (int32_t steps = 4 * s->slots; ok && steps > 0 && d.work > 0 && !moe_is_stopping(); steps--) {
        if (moe_place_max(s, NULL) <= goal || !best_step(&d)) break;
        if (d.e >= 0) s->slot[d.b] = d.e;
        else {
            int32_t x = s->slot[d.a];
            s->slot[d.a] = s->slot[d.b];
            s->slot[d.b] = x;
        }
        moe_place_loads(s);
    }
    free(was);
    free(hold);
    free(change);
    (void)from;
    return ok ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory to plan from an old plan");
}

/* ---- renaming: ranks with equally many slots, so that most experts stay: an assignment problem ---- */

enum { RELABEL_MAX = 512 }; /* its time grows with the cube */

/* n x n costs; match[j] gets the row of column j (Hungarian method with potentials, rows added one by one). */
static void assign(const int32_t *cost, int32_t n, int32_t *match, int64_t *u, int64_t *v, int64_t *low, int32_t *way, bool *used)
{
    for (int32_t j = 0; j <= n; j++) match[j] = -1, v[j] = 0;
    for (int32_t row = 0; row < n && !moe_is_stopping(); row++) {
        int32_t at = n;
        match[n] = row;
        u[row] = 0;
        for (int32_t j = 0; j <= n; j++) low[j] = INT64_MAX, used[j] = false;
        do {
            int32_t i = match[at], next = -1;
            int64_t delta = INT64_MAX;
            used[at] = true;
            for (int32_t j = 0; j < n; j++) {
                if (used[j]) continue;
                int64_t c = cost[(int64_t)i * n + j] - u[i] - v[j];
                if (c < low[j]) low[j] = c, way[j] = at;
                if (low[j] < delta) delta = low[j], next = j;
            }
            for (int32_t j = 0; j <= n; j++) {
                if (used[j]) u[match[j]] += delta, v[j] -= delta;
                else low[j] -= delta;
            }
            at = next;
        } while (match[at] >= 0);
        while (at != n) {
            match[at] = match[way[at]];
            at = way[at];
        }
    }
}

enum moe_code moe_place_relabel(struct moe_place *s, const struct moe_plan *from, const struct moe_plan_layer *old, struct moe_err *err)
{
    int32_t n = s->ranks, bad = 1 << 20;
    if (n > RELABEL_MAX || s->per_node < n) return MOE_OK;
    struct moe_arena a = MOE_ARENA_INIT;
    int32_t *cost = MOE_NEWN(&a, int32_t, (int64_t)n * n), *match = MOE_NEWN(&a, int32_t, n + 1), *way = MOE_NEWN(&a, int32_t, n + 1);
    int64_t *u = MOE_NEWN(&a, int64_t, n + 1), *v = MOE_NEWN(&a, int64_t, n + 1), *low = MOE_NEWN(&a, int64_t, n + 1);
    bool *used = MOE_NEWN(&a, bool, n + 1);
    bool ok = cost && match && way && u && v && low && used;
    if (ok) {
        for (int32_t i = 0; i < n; i++) /* row: a rank of the fresh plan; column: the name it gets */
            for (int32_t j = 0; j < n; j++) {
                int32_t *c = &cost[(int64_t)i * n + j];
                *c = capacity(s, i) == capacity(s, j) ? 0 : bad;
                for (int32_t k = s->first[i]; k < s->first[i + 1]; k++) *c += !was_there(from, old, j, s->slot[k]);
            }
        assign(cost, n, match, u, v, low, way, used);
    }
    if (ok && !moe_is_stopping()) {
        memcpy(s->kept, s->slot, (size_t)s->slots * sizeof *s->kept);
        for (int32_t j = 0; j < n; j++) memcpy(s->slot + s->first[j], s->kept + s->first[match[j]], (size_t)capacity(s, j) * sizeof *s->slot);
        moe_place_loads(s);
    }
    moe_arena_clear(&a);
    return ok ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory to plan from an old plan");
}

/* ---- the order of slots ---- */

void moe_place_order(struct moe_place *s, const struct moe_plan *from, const struct moe_plan_layer *old)
{
    memcpy(s->kept, s->slot, (size_t)s->slots * sizeof *s->kept);
    for (int32_t k = 0; k < s->slots; k++) s->slot[k] = -1;
    for (int32_t r = 0; r < s->ranks; r++) {
        int32_t at = s->first[r], n = old && r < from->ranks ? old->first[r + 1] - old->first[r] : 0;
        for (int32_t k = 0; k < n && k < capacity(s, r); k++)
            if (s->has[(int64_t)r * s->experts + old->slot[old->first[r] + k]]) s->slot[at + k] = old->slot[old->first[r] + k];
        for (int32_t e = 0; e < s->experts; e++) {
            bool placed = !s->has[(int64_t)r * s->experts + e];
            for (int32_t k = s->first[r]; !placed && k < s->first[r + 1]; k++) placed = s->slot[k] == e;
            if (placed) continue;
            while (s->slot[at] >= 0) at++;
            s->slot[at] = e;
        }
    }
}
