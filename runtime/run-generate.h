/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/run-generate.h - one prompt, gone on from.
 *
 * Text goes to standard output while it comes (runtime/run-report.h). One thread, the rank's, calls these. */
#ifndef MOE_RUNTIME_RUN_GENERATE_H
#define MOE_RUNTIME_RUN_GENERATE_H

#include "runtime/ranks.h"
#include "runtime/run-options.h"

/* How tokens are drawn, and where generation ends; it points into the options. */
struct moe_generate moe_run_settings(const struct moe_run_options *o);

/* The prompt, computed (or traced: --trace) and gone on from; reported to standard output and in `json`. loaded:
 * seconds that opening the model took. */
enum moe_code moe_run_generate(const struct moe_run_options *o, struct moe_engine *e, double loaded, cJSON *json,
                               struct moe_err *err);

#endif
