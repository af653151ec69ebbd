/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the optimum of a small layer by branch and bound.  Experts are placed by falling load; each is tried
 * on every set of ranks that have room.  A branch is cut off where the load of a rank is no better than that
 * of the best placement known.  Empty ranks with equally many slots are interchangeable, so that only the
 * first of them is tried. */
#include "runtime/plan/plan-internal.h"

#include <string.h>

/* Layers with more ranks or experts are not tried; NODES: how many partial placements are visited at most. */
enum { RANKS = 6, EXPERTS = 12, NODES = 300000 };

struct search {
    struct moe_place *s;
    int32_t order[EXPERTS];
    unsigned chosen[EXPERTS], best[EXPERTS];
    double load[RANKS];
    int32_t room[RANKS];
    double max;
    int64_t nodes;
    bool found;
};

/* Whether this set of ranks is tried: of interchangeable ranks it must take the first ones. */
static bool canonical(const struct search *x, unsigned set)
{
    for (int r = 1; r < x->s->ranks; r++)
        for (int q = 0; q < r; q++)
            if (!(set >> q & 1) && set >> r & 1 && x->load[q] == 0 && x->load[r] == 0 &&
                x->room[q] == x->room[r] && x->room[q] == x->s->first[q + 1] - x->s->first[q] &&
                x->room[r] == x->s->first[r + 1] - x->s->first[r])
                return false;
    return true;
}

/* Places expert number `at` and those behind it in every way that may be better than x->max. */
static void visit(struct search *x, int32_t at)
{
    const struct moe_place *s = x->s;
    int32_t room = 0, rest = s->experts - at;
    double max = 0;
    if (x->nodes-- <= 0) return;
    if (moe_is_cancelled(s->cancel)) x->nodes = 0;
    for (int r = 0; r < s->ranks; r++) room += x->room[r], max = x->load[r] > max ? x->load[r] : max;
    if (!rest) {
        if (room) return;
        x->max = max;
        x->found = true;
        memcpy(x->best, x->chosen, sizeof x->best);
        return;
    }
    if (room < rest * s->floor || room > rest * s->ranks) return;
    int32_t e = x->order[at];
    for (unsigned set = 1; set < 1u << s->ranks; set++) {
        int32_t n = __builtin_popcount(set), r;
        double part = s->w[e] / n;
        if (n < s->floor || n > room - (rest - 1) * s->floor) continue;
        for (r = 0; r < s->ranks; r++)
            if (set >> r & 1 && (!x->room[r] || x->load[r] + part >= x->max * (1 - 1e-12))) break;
        if (r < s->ranks || !canonical(x, set)) continue;
        double keep[RANKS];
        memcpy(keep, x->load, sizeof keep);
        for (r = 0; r < s->ranks; r++)
            if (set >> r & 1) x->load[r] += part, x->room[r]--;
        x->chosen[at] = set;
        visit(x, at + 1);
        memcpy(x->load, keep, sizeof keep);
        for (r = 0; r < s->ranks; r++)
            if (set >> r & 1) x->room[r]++;
        if (x->nodes <= 0) return;
    }
}

static void adopt(struct moe_place *s, const struct search *x)
{
    memset(s->fill, 0, (size_t)s->ranks * sizeof *s->fill);
    for (int32_t i = 0; i < s->experts; i++)
        for (int r = 0; r < s->ranks; r++)
            if (x->best[i] >> r & 1) s->slot[s->first[r] + s->fill[r]++] = x->order[i];
    moe_place_loads(s);
}

bool moe_place_exact(struct moe_place *s, double *optimum)
{
    if (s->windows > 1 || s->ranks > RANKS || s->experts > EXPERTS || s->per_node < s->ranks) return false;
    struct search x = { .s = s, .max = moe_place_max(s, NULL), .nodes = NODES };
    for (int32_t e = 0; e < s->experts; e++) {
        int32_t i = e;
        for (; i > 0 && s->w[x.order[i - 1]] < s->w[e]; i--) x.order[i] = x.order[i - 1];
        x.order[i] = e;
    }
    for (int r = 0; r < s->ranks; r++) x.room[r] = s->first[r + 1] - s->first[r];
    visit(&x, 0);
    if (x.found) adopt(s, &x);
    *optimum = moe_place_max(s, NULL);
    return x.nodes > 0;
}
