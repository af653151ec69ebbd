/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-report.h - what moe-plan tells people: five sentences, and tables of proofs
 * and of the model of memory and time (docs/reference/placement.md says what each number means
 * and what to do about it). */
#ifndef MOE_RUNTIME_PLAN_PLAN_REPORT_H
#define MOE_RUNTIME_PLAN_PLAN_REPORT_H

#include "runtime/plan/plan-assess.h"
#include "runtime/plan/plan-text.h"

/* Of a plan, which is compared with EPLB where the assessment placed that, or of what any could reach.
 * layers: with a line for each layer, what the columns are, and the model's table. */
void moe_assessment_text(struct moe_text *t, const struct moe_assessment *a, bool layers);

#endif
