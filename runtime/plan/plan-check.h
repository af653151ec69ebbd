/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-check.h - verifies a plan's file: reads it with the statistics and the older plan from
 * which it was made, and reports what the verifier found.  The verifier itself (plan-verify.h) opens no
 * file. */
#ifndef MOE_RUNTIME_PLAN_PLAN_CHECK_H
#define MOE_RUNTIME_PLAN_PLAN_CHECK_H

#include "base/buffer.h"
#include "runtime/plan/plan-inputs.h"
#include "runtime/plan/plan-verify.h"

struct moe_plan_check {
    const char *plan;               /* path of a plan.json; one of the paths may be "-": standard input */
    const char *const *stats;       /* n_stats paths of statistics; none: loads and bounds are not compared */
    size_t n_stats;
    int32_t windows;                /* how many windows of a file to keep apart, as when the plan was made */
    const char *from;               /* path of the older plan from which it was made, or NULL */
    struct moe_progress *progress;  /* NULL, or told of each layer */
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};

/* Appends each problem as a sentence to the JSON array `problems`.  MOE_OK: there is none; MOE_VERIFY: there
 * are some; both set *out.  With any other code (a file cannot be read, for example) nothing is known about
 * the plan. */
enum moe_code moe_plan_check_file(struct moe_plan_checked *out, const struct moe_plan_check *q,
                                  cJSON *problems, struct moe_err *err);
/* Verifies a plan that was read already, without statistics and without an older plan.  *err has the first
 * problem. */
enum moe_code moe_plan_check_alone(const struct moe_plan_text *plan, struct moe_progress *progress,
                                   const struct moe_cancel *cancel, struct moe_err *err);

/* Adds the members same_statistics (null where there were no statistics), claims, copies_min,
 * experts_lost_worst, experts_lost_worst_node, and with statistics load_max and load_mean. */
void moe_plan_checked_json(cJSON *json, const struct moe_plan_checked *c);
/* Adds one line about a plan without problems. */
void moe_plan_checked_text(struct moe_buffer *t, const struct moe_plan_checked *c);

#endif
