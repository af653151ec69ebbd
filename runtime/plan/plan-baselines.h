/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-baselines.h - baselines (--baseline): placements that other programs would make, compared
 * with a lower bound as the plan is. */
#ifndef MOE_RUNTIME_PLAN_PLAN_BASELINES_H
#define MOE_RUNTIME_PLAN_PLAN_BASELINES_H

#include "runtime/plan/plan-proof.h"

/* "trivial", "round-robin", "eplb". */
const char *moe_baseline_name(enum moe_baseline kind);
/* *set becomes the set of the baselines with these n names, as bits 1 << enum moe_baseline; the name "all"
 * stands for all of them.  MOE_USAGE for an unknown name. */
enum moe_code moe_plan_baselines_parse(unsigned *set, const char *const *asked, size_t n,
                                       struct moe_err *err);
/* MOE_UNSUPPORTED where EPLB is in the set and has no placement for the task; called before any work. */
enum moe_code moe_plan_baselines_check(unsigned set, const struct moe_plan_task *t, struct moe_err *err);

struct moe_baseline_sum {
    double load_max;      /* the fullest rank's load, summed over layers */
    double bound;         /* of moe_plan_baseline_bound; 0: it was not computed */
    double gap;           /* load_max / bound - 1 */
    int32_t lost;         /* experts that are lost with the worst rank, in the worst layer */
    int64_t duplicates;   /* slots that hold an expert that their rank has already */
    double seconds, cpu;  /* time to place it: wall time, processor time */
};
/* Computes the sum over layers of the bounds on placements that need not survive any loss, since baselines
 * need not.  f: the proofs of the plan, whose own bounds are on plans that survive what the task demands. */
enum moe_code moe_plan_baseline_bound(double *bound, const struct moe_plan_task *t,
                                      const struct moe_plan_proofs *f, struct moe_err *err);
/* Places one baseline.  bound: of moe_plan_baseline_bound.  max_load [layers] gets the fullest rank's load of
 * each layer; may be NULL. */
enum moe_code moe_plan_baseline_sum(struct moe_baseline_sum *s, enum moe_baseline kind,
                                    const struct moe_plan_task *t, double bound, double *max_load,
                                    struct moe_err *err);

#endif
