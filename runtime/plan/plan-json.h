/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-json.h - what is known of a plan as JSON: the report for machines, and plan.json. */
#ifndef MOE_RUNTIME_PLAN_PLAN_JSON_H
#define MOE_RUNTIME_PLAN_PLAN_JSON_H

#include "runtime/plan/plan-assess.h"

/* The members of a report, as --json gives them (docs/reference/placement.md), added to an empty object: of a
 * plan, or of what any could reach.  moe_json_whole tells whether memory ran out. */
void moe_assessment_json(cJSON *json, const struct moe_assessment *a);
/* plan.json of a plan that was searched for, as text; free() it.  batch: as in moe_planning_search. */
enum moe_code moe_planning_print(const struct moe_planning *p, int64_t batch, char **text,
                                 struct moe_err *err);
/* The same as a file, which appears whole.  MOE_EXISTS without force. */
enum moe_code moe_planning_write(const struct moe_planning *p, int64_t batch, const char *path, bool force,
                                 struct moe_err *err);

#endif
