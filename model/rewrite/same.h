/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/same.h - is what an earlier run wrote of this very source? Beyond its identity
 * (formats/container/identity.h), which samples: tensors of units that are done are held against the hash
 * taken while they streamed, and the small files of a complete container against the source's. */
#ifndef MOE_MODEL_REWRITE_SAME_H
#define MOE_MODEL_REWRITE_SAME_H

#include "base/cancel.h"
#include "formats/container/container.h"

/* Read one tensor of a finished unit again, whole, and compare it with its line in the unit's journal: the
 * one in the middle of those of at most 64 MiB.  MOE_MISMATCH naming the tensor.  A unit without lines (of
 * a container) passes. */
enum moe_code moe_same_unit(const struct moe_source *src, const struct moe_writer *w, const char *unit,
                            const struct moe_cancel *cancel, struct moe_err *err);

/* The files in tokenizer/ and hf/ of the container `made` are those that a run over src would put there.
 * MOE_MISMATCH naming the first that is not. */
enum moe_code moe_same_files(const struct moe_source *src, const struct moe_source *made,
                             struct moe_err *err);

#endif
