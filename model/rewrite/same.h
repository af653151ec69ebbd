/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/same.h - checks for --resume that an earlier run wrote from this very source.
 *
 * The source's identity (formats/container/identity.h) only samples its weights.  So in addition one tensor
 * of each finished unit is read whole and compared with the hash that was taken when it was written, and the
 * small files of a complete container are compared with the source's. */
#ifndef MOE_MODEL_REWRITE_SAME_H
#define MOE_MODEL_REWRITE_SAME_H

#include "base/cancel.h"
#include "formats/container/container.h"

/* Reads one tensor of a finished unit, the middle one of those that have at most 64 MiB, and compares its
 * hash with that in the unit's journal; MOE_MISMATCH names the tensor.  A unit without such hashes, whose
 * source is a container, passes. */
enum moe_code moe_check_same_unit(const struct moe_source *src, const struct moe_writer *w, const char *unit,
                                  const struct moe_cancel *cancel, struct moe_err *err);

/* MOE_MISMATCH when the files in tokenizer/ and hf/ of the container `made` are not those that a run over src
 * would write; the message names the first that differs. */
enum moe_code moe_check_same_files(const struct moe_source *src, const struct moe_source *made,
                                   struct moe_err *err);

#endif
