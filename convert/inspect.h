/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect.h - what a model is, as JSON: the keys of moe-inspect (cli.md). */
#ifndef MOE_CONVERT_INSPECT_H
#define MOE_CONVERT_INSPECT_H

#include "base/json.h"
#include "formats/source.h"

/* The summary, without "verified" and "problems".  Of a staged part, tensors, bytes and types are those that are there. */
enum moe_code moe_inspect_summary(const struct moe_source *src, cJSON **out, struct moe_err *err);

/* An array of tensors whose name matches `pattern` (PCRE2; "": all): a checkpoint's as its files name them, {"name", "type",
 * "shape", "bytes", "file", "offset", "skipped"}, a container's by canonical name. */
enum moe_code moe_inspect_tensors(const struct moe_source *src, const char *pattern, cJSON **out, struct moe_err *err);

/* An array, one row for each layer with experts: {"layer", "experts", "file", "alignment", "extent_offset", "extent_bytes",
 * "expert_bytes_min", "expert_bytes_max", "types"}; the extents null in a checkpoint. */
enum moe_code moe_inspect_experts(const struct moe_source *src, cJSON **out, struct moe_err *err);

/* Base64 of `n` bytes; free() it; NULL when out of memory. */
char *moe_base64(const void *data, size_t n);

#endif
