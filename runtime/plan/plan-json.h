/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-json.h - writes a plan as JSON: the report of --json, and plan.json. */
#ifndef MOE_RUNTIME_PLAN_PLAN_JSON_H
#define MOE_RUNTIME_PLAN_PLAN_JSON_H

#include "runtime/plan/plan-assess.h"

/* Adds the members of a report, as --json gives them (docs/reference/placement.md), to an empty object: of
 * the plan, or, where none was searched for, of the best that any could reach.  moe_json_whole tells whether
 * memory ran out. */
void moe_assessment_json(cJSON *json, const struct moe_assessment *a);
/* Writes the plan.json of a plan that was searched for as text.  The caller frees *text, which is NULL on
 * failure.  batch: as in moe_planning_search. */
enum moe_code moe_planning_print(const struct moe_planning *p, int64_t batch, char **text,
                                 struct moe_err *err);
/* Writes that text to a file, which appears whole or not at all.  MOE_EXISTS when there is one, without
 * force. */
enum moe_code moe_planning_write(const struct moe_planning *p, int64_t batch, const char *path, bool force,
                                 struct moe_err *err);

#endif
