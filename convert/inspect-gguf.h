/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect-gguf.h - what is in the head of a GGUF file, as JSON and for people: moe-inspect
 * FILE.gguf. */
#ifndef MOE_CONVERT_INSPECT_GGUF_H
#define MOE_CONVERT_INSPECT_GGUF_H

#include "base/json.h"

/* Sets *out, which the caller deletes, to
 *
 *   {"kind": "gguf", "version", "architecture", "name", "tensors", "bytes",
 *    "types": {TYPE: {"tensors", "bytes"}},
 *    "metadata": {KEY: value, or for an array {"type", "count", "first"}},
 *    "verified": null, "problems": [],
 *    "tensor_list": [{"name", "type", "shape", "bytes", "offset"}]}
 *
 * tensor_list: the tensors whose names match `pattern` ("": all); it is missing when pattern is NULL.  shape
 * is in ggml's order, the contiguous dimension first.  text: the same is printed for people too, with all
 * metadata when there is a pattern, else with the first keys. */
enum moe_code moe_inspect_gguf(const char *path, const char *pattern, bool text, cJSON **out,
                               struct moe_err *err);

#endif
