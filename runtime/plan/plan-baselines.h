/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-baselines.h - placements that others would make, held against the same bound
 * as the plan: --baseline. */
#ifndef MOE_RUNTIME_PLAN_PLAN_BASELINES_H
#define MOE_RUNTIME_PLAN_PLAN_BASELINES_H

#include "base/json.h"
#include "base/cli/opt.h"
#include "runtime/plan/plan-proof.h"
#include "runtime/plan/plan-text.h"

/* Before any work: MOE_USAGE for a name that there is not, MOE_UNSUPPORTED where EPLB has no placement. */
enum moe_code moe_plan_baselines_check(const struct moe_strlist *asked, const struct moe_plan_task *t,
                                       struct moe_err *err);

struct moe_baseline_sum {
    double load_max;      /* the fullest rank's load, summed over layers */
    double bound;         /* moe_plan_baseline_bound; 0: not asked for */
    double gap;           /* load_max / bound - 1 */
    int32_t lost;         /* experts of a layer that are lost with the worst rank */
    int64_t duplicates;   /* slots that hold an expert that their rank has already */
    double seconds, cpu;  /* to place: wall, and of the processor */
};
/* The sum of the bounds on plans that need not survive anything, as these need not.  f: of the plan; its own
 * bounds are on plans that survive what the task says. */
enum moe_code moe_plan_baseline_bound(double *bound, const struct moe_plan_task *t,
                                      const struct moe_plan_proofs *f, struct moe_err *err);
/* One of them; max_load: [layers] the fullest rank's load of each, or NULL. */
enum moe_code moe_plan_baseline_sum(struct moe_baseline_sum *s, enum moe_baseline kind,
                                    const struct moe_plan_task *t, double bound, double *max_load,
                                    struct moe_err *err);

/* A line of text and an object of json's "baselines" for each that is asked for; nothing when
 * none is. f: of the plan. */
enum moe_code moe_plan_baselines(const struct moe_strlist *asked, const struct moe_plan_task *t,
                                 const struct moe_plan_proofs *f, double bound, struct moe_text *text,
                                 cJSON *json, struct moe_err *err);

#endif
