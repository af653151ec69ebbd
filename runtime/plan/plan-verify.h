/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-verify.h - the verifier: it checks what a plan claims (loads, bounds, losses) against the
 * plan's slots and the statistics.
 *
 * The verifier shares no code with the planner: it reads plan.json by itself and computes every number in its
 * own way (tests/cli/t-plan.sh checks that neither includes the other).  tests/readers/verifyplan.py is a
 * second verifier, in Python with its standard library alone. */
#ifndef MOE_RUNTIME_PLAN_PLAN_VERIFY_H
#define MOE_RUNTIME_PLAN_PLAN_VERIFY_H

#include "base/cancel.h"
#include "base/json.h"
#include "base/progress.h"
#include "formats/routing.h"

struct moe_plan_checked {
    bool same_statistics;   /* they are those of the plan: only then are loads and bounds compared */
    bool had_statistics;    /* statistics were given */
    int64_t claims;         /* how many numbers of the plan were compared */
    int32_t unproven;       /* bounds claimed as exact, of layers that are too large to search again */
    double load_max, load_mean; /* sums over layers, as the verifier computes them */
    int32_t lost_worst, copies_min;          /* of the worst layer, as in struct moe_plan_proofs */
    int32_t ranks_per_node, lost_worst_node; /* ranks_per_node 0: all ranks are one node */
};

/* Verifies a plan.  root: the JSON of the file at `path`, which messages name.  stats [n_stats]: the
 * statistics in order; none: loads and bounds are not checked.  from: the JSON of the old plan; NULL: moves
 * are not checked.  Problems are appended as sentences ("layer N: ...") to the array `problems`.  MOE_VERIFY
 * when there are any, with the first one in *err; MOE_CORRUPT when the JSON is no plan at all.  progress (may
 * be NULL) is told of each layer; cancel (may be NULL) ends the work early. */
enum moe_code moe_plan_verify(struct moe_plan_checked *out, const char *path, const cJSON *root,
                              const struct moe_routing *const *stats, int n_stats, const cJSON *from,
                              cJSON *problems, struct moe_progress *progress,
                              const struct moe_cancel *cancel, struct moe_err *err);

#endif
