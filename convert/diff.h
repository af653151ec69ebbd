/* SPDX-License-Identifier: Apache-2.0 */
/* convert/diff.h - how two models differ: tensor by tensor, as they are stored and in
 * the values they stand for. */
#ifndef MOE_CONVERT_DIFF_H
#define MOE_CONVERT_DIFF_H

#include "base/cancel.h"
#include "base/json.h"
#include "base/pool.h"
#include "base/progress.h"
#include "formats/source.h"

/* {"same", "values_same": bool; "tensors_same", "tensors_different", and of these
 * "tensors_only_first", "tensors_only_second",
 *  "tensors_shape", "tensors_type", "tensors_values": counts; "relative_error": number;
 *  "types": [{"type", "type_second", "tensors", "relative_error"}], of those compared by value;
 *  "worst": [{"tensor", "type", "type_second", "relative_error", "weights",
 *  "weights_different", "not_finite",
 *             "max_difference", "row", "column", "first", "second"}];
 *  "differences": ["tensor: what"]; "config": ["key: value, value in the second"]}
 *
 * Two tensors are the same when type, shape, codes, scales and global scales are; where scales lie in tiles
 * in one and row by row in the other does not count, nor does an input scale of 1 that is not written.  Of
 * others with the same shape the values
 * are compared: relative_error is sqrt(sum (a - b)^2 / sum a^2), a of the first model, over the values that
 * are finite in both; Inf (null in JSON) when the first is all zeros and the second not.  A tensor counts in
 * tensors_type when its types differ, else in tensors_values, even where all values are equal.  The total is
 * over all tensors that were compared by value.
 * worst: the `top` (0 to MOE_DIFF_TOP_MAX) with the largest error, those with values that are not finite in
 * one model only first; differences: at most
 * 1000.  same: not one tensor or config key differs; values_same: no value, shape or tensor does.
 *
 * Two containers are compared by their hashes first, anything else by reading, in pieces: memory is a few MB
 * a thread.  The result does not depend on threads.  pool, progress and cancel may be NULL. */
enum { MOE_DIFF_TOP_MAX = 1000 };
enum moe_code moe_inspect_diff(const struct moe_source *a, const struct moe_source *b, int64_t top,
                               struct moe_pool *pool, struct moe_progress *progress,
                               const struct moe_cancel *cancel, cJSON **out, struct moe_err *err);

#endif
