/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-search.h - finding a placement, and the bounds that say how good any can be.
 *
 * Loads.  A window is one set of statistics; each layer's counts in a window are scaled to the mean of that
 * layer's windows, so that a window weighs the same however long it was.  A rank's load in a window is the
 * sum over its slots of tokens(e) / copies(e): equal shares.  What is minimised is the largest load over
 * ranks and windows.  Layers do not depend on each other, so any number of threads gives the same plan. */
#ifndef MOE_RUNTIME_PLAN_PLAN_SEARCH_H
#define MOE_RUNTIME_PLAN_PLAN_SEARCH_H

#include "base/cancel.h"
#include "base/pool.h"
#include "base/progress.h"
#include "formats/routing.h"
#include "runtime/plan/plan.h"

struct moe_plan_task {
    /* slots a layer, over all ranks: rank r has floor(slots / ranks), the first slots % ranks one more */
    int32_t ranks, slots;
    int32_t survive;                /* every expert on more ranks than this */
    /* 0 or >= ranks: one node; else copies of an expert go to different nodes as far as there are nodes */
    int32_t ranks_per_node;
    const struct moe_routing *stats;/* one row a layer, numbered (moe_routing_bind) */
    const struct moe_plan *from;    /* NULL, or the plan to start from, for the same layers and experts */
    /* with `from`: slots are moved until a layer's largest load is at most (1 + target) x its bound */
    double target;
    struct moe_progress *progress;  /* NULL, or told of each layer; nothing may have begun in it */
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};

/* MOE_USAGE, with the numbers, when no such plan exists: slots below (survive + 1) x experts
 * or above ranks x experts. */
enum moe_code moe_plan_task_check(const struct moe_plan_task *t, struct moe_err *err);
/* Ends with the code of t->cancel once that is cancelled; so does all that follows, and moe_plan_prove. */
enum moe_code moe_plan_search(struct moe_plan **p, const struct moe_plan_task *t, struct moe_pool *pool,
                              struct moe_err *err);

/* Baselines for comparison, for the same task: experts in order, dealt out in order, and DeepSeek's EPLB (its
 * global policy, bit for bit; the hierarchical one is moe_eplb).  They know nothing of survive, nodes or old
 * plans, of one window (the sum), and EPLB may put an expert on a rank
 * twice: so these are lists of slots, [layers][slots], not plans.  MOE_UNSUPPORTED where it cannot be: EPLB
 * wants slots divisible by ranks. */
enum moe_baseline { MOE_BASE_TRIVIAL, MOE_BASE_ROUND_ROBIN, MOE_BASE_EPLB, MOE_BASE_COUNT };
enum moe_code moe_plan_baseline(int32_t *slot, enum moe_baseline kind, const struct moe_plan_task *t,
                                struct moe_err *err);
/* EPLB of one layer: load[experts] -> physical[slots], with groups and nodes as published (groups % nodes ==
 * 0: hierarchical).  Ties as in its
 * code: lowest index. */
enum moe_code moe_eplb(int32_t *physical, const float *load, int32_t experts, int32_t slots, int32_t groups,
                       int32_t nodes, int32_t ranks, struct moe_err *err);
/* Loads of ranks, [ranks] for window w (-1: the largest over windows), of any list of slots of
 * layer row i, equal shares. */
enum moe_code moe_plan_slot_loads(const struct moe_plan_task *t, int32_t i, int32_t w, const int32_t *slot,
                                  double *load, struct moe_err *err);

/* Lower bounds on the largest load of a layer, for any placement of the task: no plan
 * has less with equal shares. */
enum moe_bound_kind {
    MOE_BOUND_MEAN,
    MOE_BOUND_PIECE,
    MOE_BOUND_PIGEONHOLE,
    MOE_BOUND_PACKING,
    MOE_BOUND_EXACT,
    MOE_BOUND_COUNT
};
const char *moe_bound_name(enum moe_bound_kind k); /* "mean" "piece" "pigeonhole" "packing" "exact" */
struct moe_bounds {
    double of[MOE_BOUND_COUNT]; /* 0: does not apply */
    /* on the largest load of the worst loss of one rank, for any split; 0 unless survive >= 1 */
    double after_loss;
    double best;
    enum moe_bound_kind kind;   /* the first that attains best */
};
enum moe_code moe_plan_bounds(struct moe_bounds *b, const struct moe_plan_task *t, int32_t i,
                              struct moe_err *err);

#endif
