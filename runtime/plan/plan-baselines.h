/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-baselines.h - placements that other programs would make, compared with the same bound
 * as the plan: --baseline. */
#ifndef MOE_RUNTIME_PLAN_PLAN_BASELINES_H
#define MOE_RUNTIME_PLAN_PLAN_BASELINES_H

#include "runtime/plan/plan-proof.h"

/* "trivial", "round-robin", "eplb". */
const char *moe_baseline_name(enum moe_baseline kind);
/* The set of n names, "all" among them: bits 1 << enum moe_baseline.  MOE_USAGE for an unknown name. */
enum moe_code moe_plan_baselines_parse(unsigned *set, const char *const *asked, size_t n,
                                       struct moe_err *err);
/* Before any work: MOE_UNSUPPORTED where EPLB is in the set and has no placement. */
enum moe_code moe_plan_baselines_check(unsigned set, const struct moe_plan_task *t, struct moe_err *err);

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

#endif
