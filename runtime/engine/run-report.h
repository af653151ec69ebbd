/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-report.h - what moe-run says of what it did: as text to `out`,
 * or into its JSON object. */
#ifndef MOE_RUNTIME_ENGINE_RUN_REPORT_H
#define MOE_RUNTIME_ENGINE_RUN_REPORT_H

#include "runtime/engine/handover.h"
#include "runtime/engine/prompts.h"
#include "runtime/engine/ranks.h"
#include "runtime/engine/run-options.h"
#include "runtime/engine/score.h"

#include <stdio.h>

/* Generated text, as it comes (moe_generate.text): moe_print_text. */
void moe_run_print(void *ctx, const char *s, size_t n);

/* NVFP4 activations on a model that has nothing to quantize, or nobody measured how
 * large its activations are. */
void moe_run_warn_activations(const struct moe_run_options *o, const struct moe_source *s);

/* One sequence, whose text was printed as it came; seconds: load, prefill, decode. */
void moe_run_report_generated(const struct moe_run_options *o, cJSON *json, const struct moe_generated *g,
                              int64_t prompt, const double seconds[3]);
/* Texts in order, each behind a heading and with a line end; what is lost is named. */
void moe_run_report_prompts(const struct moe_run_options *o, const struct moe_prompts *p,
                            const struct moe_results *r, cJSON *json);
void moe_run_report_score(const struct moe_run_options *o, struct moe_score_sums *sums, int64_t window,
                          FILE *out, cJSON *json);
/* The rows of moe_bench_model. */
void moe_run_print_bench(FILE *out, const cJSON *rows);

#endif
