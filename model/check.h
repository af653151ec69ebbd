/* SPDX-License-Identifier: Apache-2.0 */
/* model/check.h - checks that need more than one part of a model, before long work starts. */
#ifndef MOE_MODEL_CHECK_H
#define MOE_MODEL_CHECK_H

#include "formats/source.h"

/* The tokenizer beside the weights, when there is one, belongs to them: readable, and not larger than the embedding.
 * MOE_MISMATCH otherwise.  A model without tokenizer files passes. */
enum moe_code moe_check_vocabulary(const struct moe_source *src, struct moe_err *err);

#endif
