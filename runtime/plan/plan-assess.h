/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-assess.h - what a plan means: memory and time by the model of plan-model.h, and
 * placements that others would make beside it.  Without a plan, what any could reach at best. */
#ifndef MOE_RUNTIME_PLAN_PLAN_ASSESS_H
#define MOE_RUNTIME_PLAN_PLAN_ASSESS_H

#include "runtime/plan/plan-baselines.h"
#include "runtime/plan/plan-make.h"

/* Numbers of ranks and slots that the model is computed for beside the plan's. */
struct moe_plan_size { int32_t ranks, slots; };
struct moe_plan_sizes { struct moe_plan_size *v; int32_t n; }; /* free() v */
/* "8,16,72" or "8x384,72x432", ranks or ranks x slots; NULL is none.  MOE_USAGE, also for slots that do not
 * hold the copies of the task's experts. */
enum moe_code moe_plan_sizes_parse(struct moe_plan_sizes *s, const char *text, const struct moe_plan_task *t,
                                   struct moe_err *err);

struct moe_assessment {
    /* the caller's, as are the next three: they live as long as this */
    const struct moe_planning *p;
    const struct moe_step_options *with;
    const struct moe_gpu *gpu;
    const struct moe_plan_sizes *sizes;
    double bound, mean;                    /* sums over layers: of the plan, or of any */
    struct moe_step_task task;             /* the model's input and output for the plan */
    struct moe_step step;
    unsigned asked, placed;                /* bits 1 << enum moe_baseline: asked for; placed */
    double baseline_bound;                 /* moe_plan_baseline_bound, when one was placed */
    struct moe_baseline_sum baseline[MOE_BASE_COUNT];
    double *max_load[MOE_BASE_COUNT];         /* [layers] of each that was placed: the fullest rank's load */
};

/* p->plan may be NULL: nobody searched.  asked: baselines to place; eplb: place EPLB's too, where it can be,
 * since the sentences of plan-report.h compare with it.  *a is to be closed, also on failure. */
enum moe_code moe_assess(struct moe_assessment *a, const struct moe_planning *p,
                         const struct moe_step_options *with, const struct moe_gpu *gpu,
                         const struct moe_plan_sizes *sizes, unsigned asked, bool eplb, struct moe_err *err);
void moe_assessment_close(struct moe_assessment *a);

/* The model for other ranks and slots, balanced perfectly. */
void moe_assess_size(const struct moe_assessment *a, struct moe_plan_size size, struct moe_step *s);

#endif
