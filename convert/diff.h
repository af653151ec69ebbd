/* SPDX-License-Identifier: Apache-2.0 */
/* convert/diff.h - how two models differ: tensor by tensor, in what is stored and in the values that this
 * stands for. */
#ifndef MOE_CONVERT_DIFF_H
#define MOE_CONVERT_DIFF_H

#include "base/cancel.h"
#include "base/json.h"
#include "base/pool.h"
#include "base/progress.h"
#include "formats/source.h"

/* Compares a (the first model) with b (the second).  *out, which the caller deletes:
 *
 *   {"same": bool, "values_same": bool,
 *    "tensors_same", "tensors_different", and of the latter "tensors_only_first", "tensors_only_second",
 *    "tensors_shape", "tensors_type", "tensors_values": counts,
 *    "relative_error": number,
 *    "types": [{"type", "type_second", "tensors", "relative_error"}],
 *    "worst": [{"tensor", "type", "type_second", "relative_error", "weights", "weights_different",
 *               "not_finite", "max_difference", "row", "column", "first", "second"}],
 *    "differences": ["tensor: what"],
 *    "config": ["key: value, value in the second"]}
 *
 * Two tensors are the same when their types, shapes, codes, scales, global scales and input scales are equal.
 * It does not matter whether scales are stored in tiles or row by row, nor whether an input scale of 1 is
 * stored or missing.  Other tensors of the same shape are compared by value: relative_error is
 * sqrt(sum (a - b)^2 / sum a^2) over the values that are finite in both models; Inf (null in JSON) when all
 * values of the first are 0 and those of the second are not.  Such a tensor counts in tensors_type when its
 * types differ, else in tensors_values, even when all values are equal.  "types" has a row for each pair of
 * types among these tensors, and the "relative_error" of the whole is over all of them.
 *
 * worst: the `top` tensors (0 to MOE_DIFF_TOP_MAX) with the largest error; those with a value that is
 * finite in just one of the two models come first.  differences: at most 1000.  same: no tensor and no config
 * key differs; values_same: no value, no shape and no set of tensors does.
 *
 * Two containers are compared by their hashes first, all else by reading it in pieces, so memory is a few MB
 * a thread.  The result does not depend on threads.  pool, progress and cancel may be NULL. */
enum { MOE_DIFF_TOP_MAX = 1000 };
enum moe_code moe_inspect_diff(const struct moe_source *a, const struct moe_source *b, int64_t top,
                               struct moe_pool *pool, struct moe_progress *progress,
                               const struct moe_cancel *cancel, cJSON **out, struct moe_err *err);

#endif
