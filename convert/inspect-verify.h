/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect-verify.h - whether a model is sound: every byte of its weights is checked, and its
 * tokenizer must open and fit the weights. */
#ifndef MOE_CONVERT_INSPECT_VERIFY_H
#define MOE_CONVERT_INSPECT_VERIFY_H

#include "base/cancel.h"
#include "base/json.h"
#include "base/pool.h"
#include "base/progress.h"
#include "formats/source.h"

/* *verdict: MOE_OK, or MOE_VERIFY when something is wrong; then *why tells the first problem, and the array
 * `problems` gets a sentence for each.  When the check itself fails (memory, reading, cancelled), that is
 * returned with *err, and *verdict is not set.  pool, progress and cancel may be NULL. */
enum moe_code moe_inspect_verify(const struct moe_source *src, struct moe_pool *pool,
                                 struct moe_progress *progress, const struct moe_cancel *cancel,
                                 cJSON *problems, enum moe_code *verdict, struct moe_err *why,
                                 struct moe_err *err);

/* Adds "error" to a report: code, name, message, file and tensor (or null), as --json gives it for a command
 * that failed. */
void moe_inspect_add_error(cJSON *json, enum moe_code code, const struct moe_err *e);

#endif
