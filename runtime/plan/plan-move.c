/* SPDX-License-Identifier: Apache-2.0 */
/* Plans from an old plan: it keeps the slots that fit, or renames the ranks of a fresh plan so that few
 * experts move. */
#include "runtime/plan/plan-internal.h"

#include <stdlib.h>
#include <string.h>

static bool was_there(const struct moe_plan *from, const struct moe_plan_layer *old, int32_t r, int32_t e)
{
    return r < from->ranks && moe_plan_holds(old, r, e);
}

int32_t moe_place_moves(const struct moe_place *s, const struct moe_plan *from,
                        const struct moe_plan_layer *old)
{
    int32_t n = 0;
    for (int32_t r = 0; r < s->ranks; r++)
        for (int32_t k = s->first[r]; k < s->first[r + 1]; k++) n += !was_there(from, old, r, s->slot[k]);
    return n;
}

/* ---- keeping old slots: s->slot gets the experts that are kept, -1 elsewhere; s->count counts them ---- */

static int32_t capacity(const struct moe_place *s, int32_t r) { return s->first[r + 1] - s->first[r]; }

/* Of the slots in [first, end) that are kept, the one whose expert has the most copies; -1: none has more
 * than the floor. */
static int32_t most_spare(const struct moe_place *s, int32_t first, int32_t end)
{
    int32_t best = -1;
    for (int32_t k = first; k < end; k++) {
        int32_t e = s->slot[k];
        if (e >= 0 && s->count[e] > s->floor && (best < 0 || s->count[e] > s->count[s->slot[best]])) best = k;
    }
    return best;
}

/* Keeps the slots of one rank.  Where it has fewer slots than before, the experts with the most copies are
 * dropped first. */
static void take_over(struct moe_place *s, int32_t r, const struct moe_plan_layer *old)
{
    int32_t first = old->first[r], n = old->first[r + 1] - first, room = r < s->ranks ? capacity(s, r) : 0,
            k = r < s->ranks ? s->first[r] : 0;
    /* a rank holds no expert twice, so n is at most the length of s->had */
    for (int32_t i = 0; i < n; i++) s->had[i] = old->slot[first + i];
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
    for (int32_t r = s->ranks; r < from->ranks; r++) take_over(s, r, old); /* these ranks are gone */
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
    /* experts with too few copies need slots: take them from experts with copies to spare */
    for (int32_t k; s->slots - used < need && (k = most_spare(s, 0, s->slots)) >= 0; used--) {
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
        for (int32_t c = s->had[e]; c < s->count[e]; c++) moe_place_put_on_best_rank(s, e);
    moe_place_loads(s);
}

/* ---- renaming ranks that have equally many slots, so that most experts stay: an assignment problem ---- */

enum { RELABEL_MAX = 512 }; /* more ranks are not renamed: the time grows with the cube of their number */

/* Assigns each row of cost [n][n] to a column so that the sum of the costs is least: match[j] becomes the row
 * of column j.  It is the Hungarian method with potentials u and v; rows are added one by one.  All other
 * arrays are [n + 1]. */
static void assign(const int32_t *cost, int32_t n, int32_t *match, int64_t *u, int64_t *v, int64_t *low,
                   int32_t *way, bool *used, const struct moe_cancel *cancel)
{
    for (int32_t j = 0; j <= n; j++) match[j] = -1, v[j] = 0;
    for (int32_t row = 0; row < n && !moe_is_cancelled(cancel); row++) {
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

enum moe_code moe_place_relabel(struct moe_place *s, const struct moe_plan *from,
                                const struct moe_plan_layer *old, struct moe_err *err)
{
    int32_t n = s->ranks, bad = 1 << 20;
    if (n > RELABEL_MAX || s->per_node < n) return MOE_OK;
    struct moe_arena a = MOE_ARENA_INIT;
    int32_t *cost = MOE_NEWN(&a, int32_t, (int64_t)n * n), *match = MOE_NEWN(&a, int32_t, n + 1),
            *way = MOE_NEWN(&a, int32_t, n + 1);
    int64_t *u = MOE_NEWN(&a, int64_t, n + 1), *v = MOE_NEWN(&a, int64_t, n + 1),
            *low = MOE_NEWN(&a, int64_t, n + 1);
    bool *used = MOE_NEWN(&a, bool, n + 1);
    bool ok = cost && match && way && u && v && low && used;
    if (ok) {
        for (int32_t i = 0; i < n; i++) /* row: a rank of the fresh plan; column: its new number */
            for (int32_t j = 0; j < n; j++) {
                int32_t *c = &cost[(int64_t)i * n + j];
                *c = capacity(s, i) == capacity(s, j) ? 0 : bad;
                for (int32_t k = s->first[i]; k < s->first[i + 1]; k++)
                    *c += !was_there(from, old, j, s->slot[k]);
            }
        assign(cost, n, match, u, v, low, way, used, s->cancel);
    }
    if (ok && !moe_is_cancelled(s->cancel)) {
        memcpy(s->kept, s->slot, (size_t)s->slots * sizeof *s->kept);
        for (int32_t j = 0; j < n; j++)
            memcpy(s->slot + s->first[j], s->kept + s->first[match[j]],
                   (size_t)capacity(s, j) * sizeof *s->slot);
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
            if (moe_place_has(s, r, old->slot[old->first[r] + k]))
                s->slot[at + k] = old->slot[old->first[r] + k];
        for (int32_t e = 0; e < s->experts; e++) {
            bool placed = !moe_place_has(s, r, e);
            for (int32_t k = s->first[r]; !placed && k < s->first[r + 1]; k++) placed = s->slot[k] == e;
            if (placed) continue;
            while (s->slot[at] >= 0) at++;
            s->slot[at] = e;
        }
    }
}
