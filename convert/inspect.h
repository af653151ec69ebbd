/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect.h - what a model is, as JSON: the keys of moe-inspect --json, which its man page explains.
 *
 * The caller deletes *out; after a failure there is nothing to delete. */
#ifndef MOE_CONVERT_INSPECT_H
#define MOE_CONVERT_INSPECT_H

#include "base/json.h"
#include "formats/source.h"

/* The summary, without "verified" and "problems".  For a staged part, tensors, bytes and types count only
 * what was staged. */
enum moe_code moe_inspect_summary(const struct moe_source *src, cJSON **out, struct moe_err *err);

/* Adds to a summary: context_length, rope, heads, LoRA ranks and head sizes, dense_layers, shared_experts,
 * expert_groups, tokenizer, end_tokens, quantization.  A tokenizer that cannot be read is no failure;
 * "tokenizer" then tells the problem. */
enum moe_code moe_inspect_model(const struct moe_source *src, cJSON *j, struct moe_err *err);

/* An array with a row for the tensors outside the layers ("layer": null) and one for each layer: {"layer",
 * "kind": "model" | "dense" | "experts", "types": {TYPE: {"tensors", "bytes"}}, "relative_error": {"gate",
 * "up", "down"} of the run that quantized it, or null}. */
enum moe_code moe_inspect_layers(const struct moe_source *src, cJSON **out, struct moe_err *err);

/* Adds "types" of t[0..n) to an object; false without memory. */
bool moe_inspect_add_types(cJSON *into, const struct moe_tensor *t, int64_t n);

/* An array of the tensors whose name matches `pattern` (PCRE2; "": all): {"name", "type", "shape", "bytes",
 * "file", "offset"}.  A checkpoint's are those of its files, and have "skipped" too (why one is not used, or
 * null); a container's have canonical names. */
enum moe_code moe_inspect_tensors(const struct moe_source *src, const char *pattern, cJSON **out,
                                  struct moe_err *err);

/* An array with a row for each layer with experts: {"layer", "experts", "file", "alignment", "extent_offset",
 * "extent_bytes", "expert_bytes_min", "expert_bytes_max", "types"}; file, alignment and extents are null in a
 * checkpoint. */
enum moe_code moe_inspect_experts(const struct moe_source *src, cJSON **out, struct moe_err *err);

/* Base64 of `n` bytes, which the caller frees; NULL without memory. */
char *moe_base64(const void *data, size_t n);

#endif
