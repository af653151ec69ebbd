/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/check.h - checks of a model as a whole that are made before long work starts. */
#ifndef MOE_MODEL_REWRITE_CHECK_H
#define MOE_MODEL_REWRITE_CHECK_H

#include "base/notes.h"
#include "formats/source.h"

/* Opens the tiktoken tokenizer beside the weights, and fails when it cannot be read or has more tokens than
 * the embedding has rows (MOE_MISMATCH).  A model without a tiktoken.model passes. */
enum moe_code moe_check_vocabulary(const struct moe_source *src, struct moe_err *err);

/* Notes when files of a checkpoint hold copies of tensors that the index does not name and that are therefore
 * not used: how many, and the name and the file of the first. */
void moe_tell_superseded(const struct moe_notes *to, const struct moe_source *src);

/* Warns when the model has no file of a tokenizer, because a checkpoint made from it has none either. */
void moe_warn_no_tokenizer(const struct moe_notes *to, const struct moe_source *src);

#endif
