/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-assess.h - assesses a plan: its memory and time by the model of plan-model.h, and the
 * placements of other programs to compare with.  Without a plan, it assesses the best that any plan could
 * reach. */
#ifndef MOE_RUNTIME_PLAN_PLAN_ASSESS_H
#define MOE_RUNTIME_PLAN_PLAN_ASSESS_H

#include "runtime/plan/plan-baselines.h"
#include "runtime/plan/plan-make.h"

/* Numbers of ranks and slots for which the model is computed besides the plan's own. */
struct moe_plan_size { int32_t ranks, slots; };
struct moe_plan_sizes { struct moe_plan_size *v; int32_t n; }; /* free() v */
/* Reads a list such as "8,16x400,72": ranks (with just enough slots) or ranks x slots.  text NULL: an empty
 * list.  MOE_USAGE for another form, and for slots that cannot hold the copies of the task's experts. */
enum moe_code moe_plan_sizes_parse(struct moe_plan_sizes *s, const char *text, const struct moe_plan_task *t,
                                   struct moe_err *err);

struct moe_assessment {
    /* the caller owns the first four, which must outlive this */
    const struct moe_planning *p;
    const struct moe_step_options *with;
    const struct moe_gpu *gpu;
    const struct moe_plan_sizes *sizes;
    double bound, mean;                    /* sums over layers: bound on the load; mean load */
    struct moe_step_task task;             /* the model's input for the plan, and its output */
    struct moe_step step;
    unsigned asked, placed;                /* sets of bits 1 << enum moe_baseline: asked for; placed */
    double baseline_bound;                 /* of moe_plan_baseline_bound, when any baseline was placed */
    struct moe_baseline_sum baseline[MOE_BASE_COUNT];
    double *max_load[MOE_BASE_COUNT];      /* [layers] the fullest rank's load of each one that was placed */
};

/* Assesses p->plan; NULL: no plan was searched for, and then no baseline is placed either.  asked: baselines
 * to place.  eplb: place EPLB too where that is possible, because the sentences of plan-report.h compare with
 * it.  The caller closes *a, also on failure. */
enum moe_code moe_assess(struct moe_assessment *a, const struct moe_planning *p,
                         const struct moe_step_options *with, const struct moe_gpu *gpu,
                         const struct moe_plan_sizes *sizes, unsigned asked, bool eplb, struct moe_err *err);
void moe_assessment_close(struct moe_assessment *a);

/* Computes the model for other ranks and slots, with perfect balance. */
void moe_assess_size(const struct moe_assessment *a, struct moe_plan_size size, struct moe_step *s);

#endif
