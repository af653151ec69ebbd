/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-generate.h - one prompt, gone on from.
 *
 * Text goes to standard output while it comes (runtime/engine/run-report.h). One thread,
 * the rank's, calls these. */
#ifndef MOE_RUNTIME_ENGINE_RUN_GENERATE_H
#define MOE_RUNTIME_ENGINE_RUN_GENERATE_H

#include "runtime/engine/ranks.h"
#include "runtime/engine/run-options.h"

/* How tokens are drawn, and where generation ends; it points into the options. */
struct moe_generate moe_run_settings(const struct moe_run_options *o);

/* The prompt, computed (or traced: --trace) and gone on from; reported to standard output and in `json`.
 * loaded: seconds that opening the model took. */
enum moe_code moe_run_generate(const struct moe_run_options *o, struct moe_engine *e, double loaded,
                               cJSON *json, struct moe_err *err);

#endif
