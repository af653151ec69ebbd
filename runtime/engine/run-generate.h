/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-generate.h - the completion of the single prompt of a moe-run.
 *
 * The text is printed to standard output while it is generated (runtime/engine/run-report.h).  The rank's own
 * thread calls these. */
#ifndef MOE_RUNTIME_ENGINE_RUN_GENERATE_H
#define MOE_RUNTIME_ENGINE_RUN_GENERATE_H

#include "runtime/engine/ranks.h"
#include "runtime/engine/run-options.h"

/* The request that the options ask for, but for its prompt: that of every line of --prompts which says
 * nothing else.  The result points into *o. */
struct moe_request moe_run_request(const struct moe_run_args *o);
/* Computes the prompt (with --trace by moe_trace), generates the text behind it, and reports on standard
 * output and in `json`.  loaded: seconds that opening the model took, for the report. */
enum moe_code moe_run_generate(const struct moe_run_args *o, struct moe_engine *e, double loaded,
                               cJSON *json, struct moe_err *err);

#endif
