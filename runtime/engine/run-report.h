/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-report.h - the results of a moe-run, printed for people or added to the JSON object that
 * --json prints.
 *
 * `json` (may be NULL) is always filled in, but for the answers to prompts, which may be large and are there
 * under --json alone; text for people is printed only where o->run.json is false. */
#ifndef MOE_RUNTIME_ENGINE_RUN_REPORT_H
#define MOE_RUNTIME_ENGINE_RUN_REPORT_H

#include "runtime/engine/handover.h"
#include "runtime/engine/prompts.h"
#include "runtime/engine/ranks.h"
#include "runtime/engine/run-options.h"
#include "runtime/engine/score.h"

#include <stdio.h>

/* Prints generated text by moe_print_text; a function for moe_generate.text, which ignores ctx. */
void moe_run_print(void *ctx, const char *s, size_t n);

/* Warns when --activations asks for NVFP4 and the model has no NVFP4 weight, or has NVFP4 weights without
 * calibrated input scales. */
void moe_run_warn_activations(const struct moe_run_args *o, const struct moe_source *s);

/* Reports one sequence, whose text has been printed already.  prompt: its number of prompt tokens; seconds:
 * of loading, prefill and decoding. */
void moe_run_report_generated(const struct moe_run_args *o, cJSON *json, const struct moe_generated *g,
                              int64_t prompt, const double seconds[3]);
/* Warns, where an answer to q ended because the context was full, if memory made the context smaller than the
 * model's.  True: it has warned. */
bool moe_run_warn_context(const struct moe_run_args *o, const struct moe_config *c,
                          const struct moe_request *q, const struct moe_generated *g);
/* Reports the answers to all prompts in the order of the file, each behind a heading, and warns of those that
 * were lost with their rank, and of the first that moe_run_warn_context warns of.  With --jsonl the answers
 * of several ranks are printed as records; those of one rank were printed as they ended.  Fails with what
 * moe_print_record fails with. */
/* The error of the first request that has ended with one, or MOE_OK. */
enum moe_code moe_run_first_error(const struct moe_prompts *p, const struct moe_results *r,
                                  struct moe_err *err);
enum moe_code moe_run_report_prompts(const struct moe_run_args *o, const struct moe_config *c,
                                     const struct moe_prompts *p, const struct moe_results *r, cJSON *json,
                                     struct moe_err *err);
/* Prints the answer to the prompt whose first sequence is `first`, as a line of JSON.  Fails with what
 * moe_print_record fails with, and MOE_NOMEM. */
enum moe_code moe_run_print_record(const struct moe_prompts *p, const struct moe_results *r, int64_t first,
                                   struct moe_err *err);
/* Reports the score of a text, on `out`; sorts sums->all. */
void moe_run_report_score(const struct moe_run_args *o, struct moe_score_sums *sums, int64_t window,
                          FILE *out, cJSON *json);
/* Prints the rows of moe_bench_all as a table. */
void moe_run_print_bench(FILE *out, const cJSON *rows);

/* How weights came onto GPU `gpu`: a line for people, or the object `load`. */
void moe_run_report_load(const struct moe_run_args *o, const struct moe_load_result *l, int gpu, cJSON *json);
/* Adds where the model was computed, and how it came there: device and, of a GPU, load. */
void moe_run_device_json(const struct moe_run_args *o, const struct moe_engine *e, cJSON *json);

#endif
