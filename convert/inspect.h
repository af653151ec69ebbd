/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect.h - what a model is, as JSON: the keys of moe-inspect --json (its man page). */
#ifndef MOE_CONVERT_INSPECT_H
#define MOE_CONVERT_INSPECT_H

#include "base/json.h"
#include "formats/source.h"

/* The summary, without "verified" and "problems".  Of a staged part, tensors, bytes and types
 * are those that are there. */
enum moe_code moe_inspect_summary(const struct moe_source *src, cJSON **out, struct moe_err *err);

/* Adds what else people ask of a model: context_length, rope, heads, ranks and head sizes, dense_layers,
 * shared_experts, expert_groups, tokenizer, end_tokens, quantization.  A tokenizer that cannot be read is
 * no failure: it says why. */
enum moe_code moe_inspect_model(const struct moe_source *src, cJSON *j, struct moe_err *err);

/* An array, one row for what lies outside of layers ("layer": null) and one for each layer: {"layer", "kind":
 * "model" | "dense" | "experts", "types": {TYPE: {"tensors", "bytes"}}, "relative_error": {"gate", "up",
 * "down"} of the run that quantized it, or null}. */
enum moe_code moe_inspect_layers(const struct moe_source *src, cJSON **out, struct moe_err *err);

/* Adds "types" of t[0..n) to an object; false: no memory. */
bool moe_inspect_add_types(cJSON *into, const struct moe_tensor *t, int64_t n);

/* An array of tensors whose name matches `pattern` (PCRE2; "": all): a checkpoint's as its files name them,
 * {"name", "type", "shape", "bytes", "file", "offset", "skipped"}, a container's by canonical name. */
enum moe_code moe_inspect_tensors(const struct moe_source *src, const char *pattern, cJSON **out,
                                  struct moe_err *err);

/* An array, one row for each layer with experts: {"layer", "experts", "file", "alignment", "extent_offset",
 * "extent_bytes", "expert_bytes_min", "expert_bytes_max", "types"}; the extents null in a checkpoint. */
enum moe_code moe_inspect_experts(const struct moe_source *src, cJSON **out, struct moe_err *err);

/* Base64 of `n` bytes; free() it; NULL when out of memory. */
char *moe_base64(const void *data, size_t n);

#endif
