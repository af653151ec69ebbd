/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan-report.h - what moe-plan tells people: tables of proofs and of the model of memory and time. */
#ifndef MOE_RUNTIME_PLAN_REPORT_H
#define MOE_RUNTIME_PLAN_REPORT_H

#include "runtime/plan-model.h"
#include "runtime/plan-proof.h"
#include "runtime/plan-text.h"

/* One line a layer, then the sums; with an old plan what is to be moved. */
void moe_report_layers(struct moe_text *t, const struct moe_plan_task *task, const struct moe_plan_proofs *f, double expert_bytes);
void moe_report_steps(struct moe_text *t, const struct moe_gpu *g, int64_t batch, int64_t context, int64_t prefill, const char *kv_type); /* the head */
void moe_report_step(struct moe_text *t, const struct moe_step *s, int32_t ranks, int32_t slots);                                        /* a line */

#endif
