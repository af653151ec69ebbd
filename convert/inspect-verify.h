/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect-verify.h - whether a model is sound: every byte of its weights is read, and its
 * tokenizer has to be of use. */
#ifndef MOE_CONVERT_INSPECT_VERIFY_H
#define MOE_CONVERT_INSPECT_VERIFY_H

#include "base/cancel.h"
#include "base/json.h"
#include "base/pool.h"
#include "base/progress.h"
#include "formats/source.h"

/* *verdict: MOE_OK, or MOE_VERIFY when something is wrong; then *why says the first of it, and `problems`, an
 * array, has got a sentence for each.  What kept it from finding out is returned, in *err, and *verdict is
 * left alone.  pool, progress and cancel may be NULL. */
enum moe_code moe_inspect_verify(const struct moe_source *src, struct moe_pool *pool,
                                 struct moe_progress *progress, const struct moe_cancel *cancel,
                                 cJSON *problems, enum moe_code *verdict, struct moe_err *why,
                                 struct moe_err *err);

/* Adds "error" to an answer: code, name, message, file and tensor (or null), as --json has it for a command
 * that fails. */
void moe_inspect_add_error(cJSON *json, enum moe_code code, const struct moe_err *e);

#endif
