/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-search.h - finds a placement, and computes lower bounds on the load of every placement.
 *
 * Loads.  A window is one set of statistics.  The counts of a layer in a window are scaled to the mean of
 * that layer's windows, so that a window weighs the same however long it was.  The load of a rank in a window
 * is the sum over its slots of tokens(e) / copies(e), where e is the expert in the slot: the copies of an
 * expert have equal shares.  The search minimises the largest load over ranks and windows.  Layers do not
 * depend on each other, so any number of threads gives the same plan. */
#ifndef MOE_RUNTIME_PLAN_PLAN_SEARCH_H
#define MOE_RUNTIME_PLAN_PLAN_SEARCH_H

#include "base/cancel.h"
#include "base/pool.h"
#include "base/progress.h"
#include "formats/routing.h"
#include "runtime/plan/plan.h"

struct moe_plan_task {
    /* slots: of a layer, over all ranks; a rank has floor(slots / ranks), the first slots % ranks ranks have
     * one more */
    int32_t ranks, slots;
    int32_t survive;                /* every expert lies on more ranks than this */
    /* 0 or >= ranks: all ranks are one node; else the copies of an expert go to different nodes as far as
     * there are nodes */
    int32_t ranks_per_node;
    const struct moe_routing *stats;/* one row for each layer, with its number (moe_routing_bind) */
    const struct moe_plan *from;    /* NULL, or the plan to start from, for the same layers and experts */
    /* with `from`: slots are moved until a layer's largest load is at most (1 + target) x its bound */
    double target;
    struct moe_progress *progress;  /* NULL, or told of each layer; it must not be counting anything else */
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};

/* MOE_USAGE, with the numbers, when no such plan exists: for example when slots are fewer than
 * (survive + 1) x experts or more than ranks x experts.  MOE_MISMATCH when `from` has other experts or
 * layers. */
enum moe_code moe_plan_task_check(const struct moe_plan_task *t, struct moe_err *err);
/* Searches for a plan; *p is NULL on failure.  This function, moe_plan_baseline, moe_plan_bounds and
 * moe_plan_prove fail with the code of t->cancel once that is cancelled. */
enum moe_code moe_plan_search(struct moe_plan **p, const struct moe_plan_task *t, struct moe_pool *pool,
                              struct moe_err *err);

/* Baselines: placements for the same task to compare a plan with.  TRIVIAL puts experts into the slots in
 * order; ROUND_ROBIN deals them out to the ranks in order; EPLB is DeepSeek's, with its global policy, slot
 * by slot what DeepSeek's code gives (moe_eplb has the hierarchical policy too).  They ignore survive, nodes
 * and old plans, and take the sum of all windows.  They may put an expert on a rank twice, so the result is
 * no plan but a list of slots, slot [layers][slots].  MOE_UNSUPPORTED where there is no such placement: EPLB
 * needs slots divisible by ranks. */
enum moe_baseline { MOE_BASE_TRIVIAL, MOE_BASE_ROUND_ROBIN, MOE_BASE_EPLB, MOE_BASE_COUNT };
enum moe_code moe_plan_baseline(int32_t *slot, enum moe_baseline kind, const struct moe_plan_task *t,
                                struct moe_err *err);
/* EPLB of one layer, from load [experts] to physical [slots], the expert of each slot.  groups, nodes: as in
 * DeepSeek's eplb.py, hierarchical where groups % nodes == 0, else global.  Ties go to the lowest index, as
 * there. */
enum moe_code moe_eplb(int32_t *physical, const float *load, int32_t experts, int32_t slots, int32_t groups,
                       int32_t nodes, int32_t ranks, struct moe_err *err);
/* Computes load [ranks] of any list of slots for row i of the statistics, with equal shares.  w: the window;
 * -1: the largest load over windows. */
enum moe_code moe_plan_slot_loads(const struct moe_plan_task *t, int32_t i, int32_t w, const int32_t *slot,
                                  double *load, struct moe_err *err);

/* Lower bounds on the largest load of a layer: no placement for the task has less with equal shares.
 * plan-bound.c says what each kind is. */
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
    double of[MOE_BOUND_COUNT]; /* by kind; 0: the kind does not apply */
    /* on the largest load when the worst rank is lost, for any split; 0 unless survive >= 1 */
    double after_loss;
    double best;                /* the largest in `of` */
    enum moe_bound_kind kind;   /* the first kind that attains best */
};
/* Computes the bounds for row i of the statistics, except MOE_BOUND_EXACT, which moe_plan_prove adds. */
enum moe_code moe_plan_bounds(struct moe_bounds *b, const struct moe_plan_task *t, int32_t i,
                              struct moe_err *err);

#endif
