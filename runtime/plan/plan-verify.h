/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-verify.h - checks what a plan claims (loads, bounds, losses) against its slots and the
 * statistics.
 *
 * Shares no code with the planner: it reads plan.json by itself and computes every number in its own way
 * (tests/cli/t-plan.sh checks that neither includes the other).  tests/readers/verifyplan.py does the same
 * once more, in Python's standard library. */
#ifndef MOE_RUNTIME_PLAN_PLAN_VERIFY_H
#define MOE_RUNTIME_PLAN_PLAN_VERIFY_H

#include "base/cancel.h"
#include "base/json.h"
#include "base/progress.h"
#include "formats/routing.h"

struct moe_plan_checked {
    bool same_statistics;   /* those the plan was made from: only then are loads and bounds compared */
    bool had_statistics;
    int64_t claims;         /* numbers compared */
    int32_t unproven;       /* exact bounds too large to be found again */
    double load_max, load_mean; /* sums over layers, recomputed */
    int32_t lost_worst, copies_min;
    int32_t ranks_per_node, lost_worst_node; /* 0: one node */
};

/* `root`: the JSON of the file at `path`.  `stats`: windows in order, or NULL (structure and coverage only);
 * `from`: the old plan, or NULL (moves are then not checked).  Problems are appended as "layer N: what" to
 * the array.  MOE_VERIFY when there are any, with the first in *err; MOE_CORRUPT for what is no plan at all.
 * progress (may be NULL) is told of each layer; cancel (may be NULL) ends it early. */
enum moe_code moe_plan_verify(struct moe_plan_checked *out, const char *path, const cJSON *root,
                              const struct moe_routing *const *stats, int n_stats, const cJSON *from,
                              cJSON *problems, struct moe_progress *progress,
                              const struct moe_cancel *cancel, struct moe_err *err);

#endif
