/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-check.h - verifying a plan's file: reading it with the statistics and the older plan that
 * belong to it, and telling what the verifier found.  The verifier itself (plan-verify.h) opens no file. */
#ifndef MOE_RUNTIME_PLAN_PLAN_CHECK_H
#define MOE_RUNTIME_PLAN_PLAN_CHECK_H

#include "runtime/plan/plan-inputs.h"
#include "runtime/plan/plan-text.h"
#include "runtime/plan/plan-verify.h"

struct moe_plan_check {
    const char *plan;               /* path of a plan.json; "-": standard input, which may stand once below */
    const char *const *stats;       /* n_stats paths of statistics; none: loads and bounds are not compared */
    size_t n_stats;
    int32_t windows;                /* how many of a file to keep apart, as when the plan was made */
    const char *from;               /* path of the plan that it was made from, or NULL */
    struct moe_progress *progress;  /* NULL, or told of each layer */
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};

/* Each problem is appended as a sentence to the JSON array `problems`.  MOE_OK, when there are none, and
 * MOE_VERIFY fill *out.  Another code, as of a file that cannot be read, says nothing of the plan. */
enum moe_code moe_plan_check_file(struct moe_plan_checked *out, const struct moe_plan_check *q,
                                  cJSON *problems, struct moe_err *err);
/* Of a plan that was read, as far as it tells by itself: without statistics and without an older plan.  The
 * first problem is in *err. */
enum moe_code moe_plan_check_alone(const struct moe_plan_text *plan, struct moe_progress *progress,
                                   const struct moe_cancel *cancel, struct moe_err *err);

/* same_statistics (null where there were none), claims, copies_min, experts_lost_worst,
 * experts_lost_worst_node, and with statistics load_max and load_mean. */
void moe_plan_checked_json(cJSON *json, const struct moe_plan_checked *c);
/* One line, of a plan without a problem. */
void moe_plan_checked_text(struct moe_text *t, const struct moe_plan_checked *c);

#endif
