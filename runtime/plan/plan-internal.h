/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-internal.h - one layer while it is being planned; for runtime/plan/ alone. */
#ifndef MOE_RUNTIME_PLAN_PLAN_INTERNAL_H
#define MOE_RUNTIME_PLAN_PLAN_INTERNAL_H

#include "base/arena.h"
#include "base/cancel.h"
#include "base/io.h"
#include "runtime/plan/plan-search.h"

/* Loops over ranks, slots and steps end when moe_is_cancelled: a layer that is then no good is given to
 * nobody, because whoever runs them calls moe_cancel_check before using it. */
struct moe_place {
    int32_t ranks, experts, windows, slots;
    int32_t floor;          /* copies each expert has at least */
    int32_t per_node;       /* ranks a node; ranks: one node */
    const double *w;        /* [experts][windows] load, scaled */
    int32_t *first;         /* [ranks + 1] */
    int32_t *slot;          /* [slots]; -1: empty */
    int32_t *fill;          /* [ranks] slots in use, while filling */
    int32_t *count;         /* [experts] */
    uint8_t *has;           /* [ranks][experts] */
    double *piece;          /* [experts][windows] w / count */
    double *size;           /* [experts] the largest of them over windows */
    double *load;           /* [ranks][windows] */
    /* [ranks][ranks] load of the experts whose only two copies lie there; NULL unless
     * one rank is to be survived */
    double *pair;
    /* [experts] sum of rank + 1 over the ranks that hold it: tells the other of two */
    int32_t *home;
    double max_pair;       /* what a pair may have: when one of the two is lost, the other has all of it */
    double *cost;           /* [ranks] the largest over windows */
    int32_t *order, *had;   /* [experts] scratch */
    int32_t *kept;          /* [slots] scratch */
    int32_t *holders;       /* [ranks] scratch: the ranks that hold one expert */
    double mean;
    const struct moe_cancel *cancel;
    /* copies are given so that pieces stay small with this many of each lost; at most floor - 1 */
    int32_t lose;
    int64_t work;           /* evaluations left: the search ends by counting, not by the clock */
    struct moe_arena arena;
};

enum moe_code moe_place_open(struct moe_place **s, const struct moe_plan_task *t, int32_t row,
                             struct moe_err *err);
void moe_place_close(struct moe_place **s);
/* The scaled loads of a row: w [experts][windows], as struct moe_place has it; *mean the
 * load of a rank on average. */
void moe_place_weights(const struct moe_plan_task *t, int32_t row, double *w, double *mean);

void moe_place_counts(struct moe_place *s);                 /* copies of each expert: least largest piece */
void moe_place_more(struct moe_place *s, int32_t left);      /* so many more of them */
void moe_place_pack(struct moe_place *s);                   /* longest piece first */
void moe_place_empty(struct moe_place *s);                  /* no slot in use; then: */
/* into the next slot of a rank with room that lacks it */
void moe_place_put(struct moe_place *s, int32_t rank, int32_t e);
void moe_place_one(struct moe_place *s, int32_t e);         /* where the cost is least */
/* piece, size, load, cost, has from slot and count */
void moe_place_loads(struct moe_place *s);
/* With nodes: experts whose copies all lie in one get one elsewhere, as far as that can be (plan-nodes.c). */
void moe_place_nodes(struct moe_place *s);
bool moe_place_spread(const struct moe_place *s, int32_t e, int32_t gone);
/* May the copy of e on this rank go, and the others still be in two nodes, if they are now? */
bool moe_place_spares(const struct moe_place *s, int32_t rank, int32_t e);
/* until the largest cost is at most goal, or nothing helps */
void moe_place_exchange(struct moe_place *s, double goal);
/* May expert e, coming to rank `to`, share it with the other rank that has it (but `from`,
 * which it leaves; -1: none)? */
bool moe_place_pair_takes(const struct moe_place *s, int32_t to, int32_t from, int32_t e);
/* e, not yet or no longer there, with its other rank */
void moe_place_pair_add(struct moe_place *s, int32_t rank, int32_t e, double sign);
void moe_place_loosen(struct moe_place *s, double by);      /* ranks may have more in common */
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

/* From an old plan: what fits of it stays where it was, the rest is filled. */
void moe_place_keep(struct moe_place *s, const struct moe_plan *from, const struct moe_plan_layer *old);
/* Move few slots until the largest cost is at most goal, by about `work` comparisons; without `old`, any. */
enum moe_code moe_place_refine(struct moe_place *s, const struct moe_plan_layer *old, double goal,
                               int64_t work, struct moe_err *err);
/* Rename ranks with equally many slots so that most experts stay where they were. */
enum moe_code moe_place_relabel(struct moe_place *s, const struct moe_plan *from,
                                const struct moe_plan_layer *old, struct moe_err *err);
int32_t moe_place_moves(const struct moe_place *s, const struct moe_plan *from,
                        const struct moe_plan_layer *old);
/* Slots in order: by expert, but what stays from `old` keeps its place. */
void moe_place_order(struct moe_place *s, const struct moe_plan *from, const struct moe_plan_layer *old);

/* The optimum where the instance is small, by branch and bound: true when it was proven, s then
 * holds it if it is better. */
bool moe_place_exact(struct moe_place *s, double *optimum);

#endif
