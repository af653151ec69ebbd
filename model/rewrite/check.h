/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/check.h - checks that need more than one part of a model, before long work starts. */
#ifndef MOE_MODEL_REWRITE_CHECK_H
#define MOE_MODEL_REWRITE_CHECK_H

#include "base/notes.h"
#include "formats/source.h"

/* The tokenizer beside the weights, when there is one, belongs to them: readable, and not larger than the
 * embedding.  MOE_MISMATCH otherwise.  A model without tokenizer files passes. */
enum moe_code moe_check_vocabulary(const struct moe_source *src, struct moe_err *err);

/* A notice when files of a checkpoint hold copies of a tensor that do not count, which says how many, names
 * one and the file that it is in. */
void moe_tell_superseded(const struct moe_notes *to, const struct moe_source *src);

/* A warning when the model has no file of a tokenizer: a checkpoint that is made of it has none, either. */
void moe_warn_no_tokenizer(const struct moe_notes *to, const struct moe_source *src);

#endif
