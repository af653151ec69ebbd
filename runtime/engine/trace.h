/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/trace.h - everything a forward pass computes for a prompt, as a safetensors file to
 * compare with other code.
 *
 * tokens [T] I32; for each layer L hidden.L [T, H] F32 (the residual stream after it) and, with
 * routed experts, experts.L [T, k] I32 and expert_weights.L [T, k] F32; logits [T, V] F32.  Layers
 * run one at a time over all tokens: memory is [T, H] plus one batch.  The engine then holds the
 * prompt, as after moe_engine_prefill. */
#ifndef MOE_RUNTIME_ENGINE_TRACE_H
#define MOE_RUNTIME_ENGINE_TRACE_H

#include "base/file-kind.h"
#include "runtime/engine/engine.h"

extern const struct moe_file_kind moe_trace_kind;

enum moe_code moe_trace(struct moe_engine *e, const int32_t *ids, int64_t n, const char *path,
                        struct moe_err *err);

#endif
