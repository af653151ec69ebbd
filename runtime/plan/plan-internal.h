/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-internal.h - the state of one layer while it is being planned.  Only runtime/plan/
 * includes it; each struct moe_place belongs to one thread. */
#ifndef MOE_RUNTIME_PLAN_PLAN_INTERNAL_H
#define MOE_RUNTIME_PLAN_PLAN_INTERNAL_H

#include "base/arena.h"
#include "base/cancel.h"
#include "base/io.h"
#include "runtime/plan/plan-search.h"

/* Once `cancel` is cancelled, the functions below return early and may leave the layer unfinished: their
 * caller calls moe_cancel_check before it uses the layer. */
struct moe_place {
    int32_t ranks, experts, windows, slots;
    int32_t floor;          /* the least number of copies that an expert may have */
    int32_t per_node;       /* ranks of a node; equal to `ranks` when all are one node */
    const double *w;        /* [experts][windows] loads, scaled as plan-search.h says */
    int32_t *first;         /* [ranks + 1] rank r has slots first[r] to first[r + 1] - 1 */
    int32_t *slot;          /* [slots] the expert in each slot; -1: it is empty */
    int32_t *fill;          /* [ranks] while slots are filled: how many of a rank are filled */
    int32_t *count;         /* [experts] how many copies an expert has */
    uint8_t *has;           /* [ranks][experts] 1: the rank holds a copy of the expert */
    double *piece;          /* [experts][windows] the load of one copy: w / count */
    double *size;           /* [experts] the largest piece of an expert over windows */
    double *load;           /* [ranks][windows] the sum of the pieces on a rank */
    /* [ranks][ranks] the load that one rank has, once the other is lost, of the experts that both hold
     * (plan-place.c); NULL unless the plan is to survive the loss of just one rank */
    double *common_load;
    /* [experts] the sum of (rank + 1) over the ranks that hold the expert: if these are two, it gives one
     * from the other */
    int32_t *rank_sum;
    double max_common_load; /* the largest value that `common_load` may have (plan-place.c) */
    double *cost;           /* [ranks] the largest load of a rank over windows */
    int32_t *order, *had;   /* [experts] scratch */
    int32_t *kept;          /* [slots] scratch */
    int32_t *holders;       /* [ranks] scratch: the ranks that hold one expert */
    double mean;            /* the mean load of a rank */
    const struct moe_cancel *cancel;
    /* moe_place_counts gives out copies so that the largest piece is small after every expert has lost this
     * many of them; at most floor - 1 */
    int32_t lose;
    /* comparisons that the search may still make: since it ends by counting and not by the clock, it gives
     * the same plan on every machine */
    int64_t work;
    struct moe_arena arena;
};

/* Opens the state of one row of the task's statistics, with its loads and without experts in slots.  *s is
 * NULL on failure. */
enum moe_code moe_place_open(struct moe_place **s, const struct moe_plan_task *t, int32_t row,
                             struct moe_err *err);
void moe_place_close(struct moe_place **s);
/* Computes the scaled loads of a row: w [experts][windows], as in struct moe_place; *mean: the mean load of
 * a rank. */
void moe_place_weights(const struct moe_plan_task *t, int32_t row, double *w, double *mean);

/* Decides how many copies each expert gets, so that the largest piece is as small as possible. */
void moe_place_counts(struct moe_place *s);
/* Gives out `left` more copies in the same way. */
void moe_place_more(struct moe_place *s, int32_t left);
/* Puts all copies into slots, largest piece first. */
void moe_place_pack(struct moe_place *s);
/* Empties all slots, for the two functions that follow. */
void moe_place_empty(struct moe_place *s);
/* Puts a copy of e into the next slot of a rank that has a free one and lacks e. */
void moe_place_put(struct moe_place *s, int32_t rank, int32_t e);
/* Puts a copy of e on the rank with the least cost, of those that the rules for nodes and for max_common_load
 * allow; of all ranks with a free slot and without e, if these allow none. */
void moe_place_put_on_best_rank(struct moe_place *s, int32_t e);
/* Computes count, piece, size, load, cost, has, rank_sum and common_load from slot. */
void moe_place_loads(struct moe_place *s);
/* Gives experts whose copies all lie in one node a copy in another node, as far as possible
 * (plan-nodes.c). */
void moe_place_nodes(struct moe_place *s);
/* Whether the copies of e, without the one on rank `gone` (-1: all), lie in two nodes or more. */
bool moe_place_spread(const struct moe_place *s, int32_t e, int32_t gone);
/* Whether the copy of e on this rank may be removed: the others still lie in two nodes or more, or only one
 * is left, or all lie in one node now. */
bool moe_place_spares(const struct moe_place *s, int32_t rank, int32_t e);
/* Exchanges slots until the largest cost is at most goal, no step lowers it, or `work` is used up
 * (plan-exchange.c). */
void moe_place_exchange(struct moe_place *s, double goal);
/* Whether rank `to` may get a copy of e without a value of `common_load` above max_common_load.  from: the
 * rank that the copy leaves; -1: it is a new copy. */
bool moe_place_common_load_allows(const struct moe_place *s, int32_t to, int32_t from, int32_t e);
/* Updates `common_load` and `rank_sum` when e comes to `rank` (sign 1) or leaves it (sign -1).  Called before
 * `has` changes. */
void moe_place_common_load_add(struct moe_place *s, int32_t rank, int32_t e, double sign);
/* Raises max_common_load by this factor at least. */
void moe_place_raise_max_common_load(struct moe_place *s, double factor);
/* The largest cost; *rank (may be NULL) is the rank that has it. */
double moe_place_max(const struct moe_place *s, int32_t *rank);

static inline bool moe_place_has(const struct moe_place *s, int32_t r, int32_t e)
{
    return s->has[(int64_t)r * s->experts + e];
}

static inline int32_t moe_place_rank_of(const struct moe_place *s, int32_t slot)
{
    int32_t r = 0;
    while (s->first[r + 1] <= slot) r++;
    return r;
}

/* The cost of rank r with expert `in` instead of `out`, both with the pieces that they have now. */
static inline double moe_place_cost_with(const struct moe_place *s, int32_t r, int32_t out, int32_t in)
{
    double max = 0;
    for (int32_t w = 0; w < s->windows; w++) {
        double v = s->load[(int64_t)r * s->windows + w] - s->piece[(int64_t)out * s->windows + w] +
                   s->piece[(int64_t)in * s->windows + w];
        max = v > max ? v : max;
    }
    return max;
}

/* Fills all slots from an old plan: experts stay on their ranks as far as these have room, and the other
 * slots get copies as in a fresh plan. */
void moe_place_keep(struct moe_place *s, const struct moe_plan *from, const struct moe_plan_layer *old);
/* Changes few slots of `old` until the largest cost is at most goal or about `work` comparisons are made.
 * old NULL: it may change any slots. */
enum moe_code moe_place_refine(struct moe_place *s, const struct moe_plan_layer *old, double goal,
                               int64_t work, struct moe_err *err);
/* Renames ranks with equally many slots, so that as many experts as possible stay where they were. */
enum moe_code moe_place_relabel(struct moe_place *s, const struct moe_plan *from,
                                const struct moe_plan_layer *old, struct moe_err *err);
/* How many slots hold an expert that was not on their rank in the old plan. */
int32_t moe_place_moves(const struct moe_place *s, const struct moe_plan *from,
                        const struct moe_plan_layer *old);
/* Orders the slots of each rank by expert, except that experts of the old plan keep their slots.  from, old:
 * NULL without an old plan. */
void moe_place_order(struct moe_place *s, const struct moe_plan *from, const struct moe_plan_layer *old);

/* Searches for the optimum of a small layer by branch and bound (plan-exact.c).  s becomes the best placement
 * that was found, if that is better than s was.  True: *optimum is proven to be the least largest cost.
 * False: the layer is too large, or the search was cut short. */
bool moe_place_exact(struct moe_place *s, double *optimum);

#endif
