/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-report.h - the report of moe-plan for people: five sentences, and tables of proofs and of
 * the model of memory and time (docs/reference/placement.md says what each number means and what to do about
 * it). */
#ifndef MOE_RUNTIME_PLAN_PLAN_REPORT_H
#define MOE_RUNTIME_PLAN_PLAN_REPORT_H

#include "base/buffer.h"
#include "runtime/plan/plan-assess.h"

/* Adds the report on a plan, which is compared with EPLB where the assessment has placed EPLB, or, without a
 * plan, on the best that any could reach.  layers: add a line for each layer, what its columns mean, and the
 * table of the model. */
void moe_assessment_text(struct moe_buffer *t, const struct moe_assessment *a, bool layers);

#endif
