/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-report.h - what moe-plan tells people: five sentences, and tables of proofs
 * and of the model of memory and time (docs/reference/placement.md says what each number means
 * and what to do about it). */
#ifndef MOE_RUNTIME_PLAN_PLAN_REPORT_H
#define MOE_RUNTIME_PLAN_PLAN_REPORT_H

#include "runtime/plan/plan-baselines.h"
#include "runtime/plan/plan-model.h"
#include "runtime/plan/plan-proof.h"
#include "runtime/plan/plan-text.h"

/* eplb: how EPLB would place; NULL: it cannot.  measured: the loads are those of
 * statistics, not of experts that are taken to be equally busy. */
void moe_report_balance(struct moe_text *t, const struct moe_plan_task *task, const struct moe_plan_proofs *f,
                        const struct moe_baseline_sum *eplb, bool measured);
void moe_report_losses(struct moe_text *t, const struct moe_plan_task *task, const struct moe_plan_proofs *f);
void moe_report_memory(struct moe_text *t, const struct moe_step *s, const struct moe_step_task *task);
void moe_report_speed(struct moe_text *t, const struct moe_step *s, const struct moe_step_task *task);
/* from: the old plan's path; anything may be in its name. */
void moe_report_moves(struct moe_text *t, const struct moe_plan_task *task, const struct moe_plan_proofs *f,
                      double expert_bytes, const char *from);

/* One line a layer, then the sums, then what the columns are. */
void moe_report_layers(struct moe_text *t, const struct moe_plan_task *task, const struct moe_plan_proofs *f);
/* the head */
void moe_report_steps(struct moe_text *t, const struct moe_gpu *g, int64_t batch, int64_t context,
                      int64_t prefill, const char *kv_type);
/* a line */
void moe_report_step(struct moe_text *t, const struct moe_step *s, int32_t ranks, int32_t slots);

#endif
