/* SPDX-License-Identifier: Apache-2.0 */
/* Copies on different nodes: no expert of two copies or more shall have all of them in one node.
 *
 * Packing avoids that as long as other nodes have room, and may run out of it.  Each step here frees one
 * expert e whose copies all lie in node N: a copy of e changes places with an expert f of another node, or e
 * gets a slot there of an f that has copies to spare.  f must not be caught itself then: it has two copies
 * outside of N, or one copy in all.  Such an f exists whenever the nodes other than N have as many slots as
 * there are experts (else each would have one copy there at most, and e has none), so what can be held is
 * held.  Of all steps that do it the one with the least largest load is taken.  Later steps of the search
 * keep it so: moe_place_spares says which copies they may take away. */
#include "runtime/plan/plan-internal.h"

#include <string.h>

struct step {
    double cost;      /* the largest load of a rank that changes */
    int32_t slot, at; /* slot `at`, of another node, gets e; `slot` gets what was there, -1: nothing does */
};

/* Do the copies of e, without that on rank `gone` (-1: with all), lie in two nodes or more? */
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

/* Of every expert: copies outside of the node. */
static void count_outside(struct moe_place *s, int32_t node)
{
    memset(s->had, 0, (size_t)s->experts * sizeof *s->had);
    for (int32_t r = 0; r < s->ranks; r++)
        for (int32_t k = s->first[r]; r / s->per_node != node && k < s->first[r + 1]; k++)
            s->had[s->slot[k]]++;
}

/* e on rank a and f in slot `at` of rank b change places. */
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

/* Slot `at` gets e instead of f: only where no two slots can change places. */
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
