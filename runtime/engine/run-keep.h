/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-keep.h - moe-run --keep: keeps weights on a GPU for other processes. */
#ifndef MOE_RUNTIME_ENGINE_RUN_KEEP_H
#define MOE_RUNTIME_ENGINE_RUN_KEEP_H

#include "runtime/engine/run-work.h"

/* Loads the model, says when it is ready, and serves until a signal asks to end, which is no failure; reports
 * on standard error, or in j->json. */
enum moe_code moe_run_keep(struct moe_run_job *j, struct moe_err *err);

#endif
