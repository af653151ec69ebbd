/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect-gguf.h - what a GGUF file is, as JSON and for people: moe-inspect FILE.gguf. */
#ifndef MOE_CONVERT_INSPECT_GGUF_H
#define MOE_CONVERT_INSPECT_GGUF_H

#include "base/json.h"

/* {"kind": "gguf", "version", "architecture", "name", "tensors", "bytes", "types": {TYPE: {"tensors",
 *  "bytes"}}, "metadata": {KEY: value, of an array {"type", "count", "first"}}, "verified": null, "problems":
 *  []}; and, unless `pattern` is NULL, "tensor_list" of those whose
 * names match it ("": all): [{"name", "type", "shape", "bytes", "offset"}], shape as ggml counts, the
 * contiguous dimension first.
 * text: the same is printed for people, all metadata where there is a pattern, else the first keys. */
enum moe_code moe_inspect_gguf(const char *path, const char *pattern, bool text, cJSON **out,
                               struct moe_err *err);

#endif
