/* SPDX-License-Identifier: Apache-2.0 */
/* Spreads copies over nodes: an expert with two copies or more shall not have all of them in one node.
 *
 * Packing observes this rule as long as other nodes have room, which may run out.  Each step here mends it
 * for one expert e whose copies all lie in one node N: a copy of e changes places with an expert f of another
 * node, or e gets a slot of another node whose expert f has copies to spare.  The step must not break the
 * rule for f: f must have two copies outside of N, or one copy in all.  Such an f exists whenever the nodes
 * other than N have at least as many slots as there are experts (else every expert would have at most one
 * copy there, and e none), so the rule is kept wherever that is possible.  Of all such steps the one with the
 * least largest load is taken.  The steps of the search that follow keep the rule: moe_place_spares says
 * which copies they may remove. */
#include "runtime/plan/plan-internal.h"

#include <string.h>

struct step {
    double cost;      /* the largest load of the ranks that the step changes */
    int32_t slot, at; /* slot `at` of another node gets e; `slot` (-1: none) gets the expert that was there */
};

bool moe_place_spread(const struct moe_place *s, int32_t e, int32_t gone)
{
    int32_t node = -1;
    for (int32_t r = 0; r < s->ranks; r++) {
        if (r == gone || !moe_place_has(s, r, e)) continue;
        if (node >= 0 && r / s->per_node != node) return true;
        node = r / s->per_node;
    }
    return false;
}

bool moe_place_spares(const struct moe_place *s, int32_t rank, int32_t e)
{
    if (s->per_node >= s->ranks || s->count[e] < 3) return true;
    return moe_place_spread(s, e, rank) || !moe_place_spread(s, e, -1);
}

/* s->had gets, for every expert, how many of its copies lie outside of the node. */
static void count_outside(struct moe_place *s, int32_t node)
{
    memset(s->had, 0, (size_t)s->experts * sizeof *s->had);
    for (int32_t r = 0; r < s->ranks; r++)
        for (int32_t k = s->first[r]; r / s->per_node != node && k < s->first[r + 1]; k++)
            s->had[s->slot[k]]++;
}

/* Tries to let e and f, the expert in slot `at` of rank b, change places. */
static void try_swaps(const struct moe_place *s, int32_t e, int32_t b, int32_t at, struct step *best)
{
    int32_t f = s->slot[at], node = s->holders[0] / s->per_node;
    if (s->count[f] > 1 && s->had[f] < 2) return;
    for (int32_t i = 0, a; i < s->count[e]; i++) {
        a = s->holders[i];
        if (moe_place_has(s, a, f) || a / s->per_node != node) continue;
        double x = moe_place_cost_with(s, a, e, f), y = moe_place_cost_with(s, b, f, e), cost = x > y ? x : y;
        if (best->at >= 0 && best->slot >= 0 && cost >= best->cost) continue;
        int32_t k = s->first[a];
        while (s->slot[k] != e) k++;
        *best = (struct step){ cost, k, at };
    }
}

/* Tries to give slot `at` of rank b to e instead of f, if no two slots can change places. */
static void try_copy(const struct moe_place *s, int32_t e, int32_t b, int32_t at, struct step *best)
{
    int32_t f = s->slot[at];
    if ((best->at >= 0 && best->slot >= 0) || s->count[f] <= s->floor || s->count[f] < 3) return;
    double cost = moe_place_cost_with(s, b, f, e);
    if (best->at >= 0 && cost >= best->cost) return;
    if (moe_place_spread(s, f, b)) *best = (struct step){ cost, -1, at };
}

static bool best_step(struct moe_place *s, int32_t e, struct step *best)
{
    int32_t n = 0;
    for (int32_t r = 0; r < s->ranks; r++)
        if (moe_place_has(s, r, e)) s->holders[n++] = r;
    int32_t node = s->holders[0] / s->per_node;
    count_outside(s, node);
    *best = (struct step){ 0, -1, -1 };
    for (int32_t b = 0; b < s->ranks && !moe_is_cancelled(s->cancel); b++)
        for (int32_t k = s->first[b]; b / s->per_node != node && k < s->first[b + 1]; k++) {
            try_swaps(s, e, b, k, best);
            try_copy(s, e, b, k, best);
        }
    return best->at >= 0;
}

void moe_place_nodes(struct moe_place *s)
{
    for (int32_t e = 0; s->per_node < s->ranks && e < s->experts && !moe_is_cancelled(s->cancel); e++) {
        struct step t;
        if (s->count[e] < 2 || moe_place_spread(s, e, -1) || !best_step(s, e, &t)) continue;
        int32_t f = s->slot[t.at];
        s->slot[t.at] = e;
        if (t.slot >= 0) s->slot[t.slot] = f;
        moe_place_loads(s);
    }
}
