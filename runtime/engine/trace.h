/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/trace.h - writes what a forward pass computes for a prompt into a safetensors file, to
 * compare it with what other code computes.
 *
 * The file holds, for T tokens, hidden size H, k experts a token and vocabulary V:
 *
 *     tokens            [T] I32
 *     hidden.L          [T, H] F32, the residual stream after layer L
 *     experts.L         [T, k] I32, for each MoE layer L
 *     expert_weights.L  [T, k] F32, likewise
 *     logits            [T, V] F32
 *
 * Each layer is computed for all tokens before the next one, so memory holds [T, H] and the buffers of one
 * batch. */
#ifndef MOE_RUNTIME_ENGINE_TRACE_H
#define MOE_RUNTIME_ENGINE_TRACE_H

#include "base/file-kind.h"
#include "runtime/engine/engine.h"

/* How a trace is recognized, so that one may replace another. */
extern const struct moe_file_kind moe_trace_kind;

/* Computes ids [n], n > 0, and writes the file, which appears whole or not at all.  MOE_USAGE when n is 0 or
 * larger than the context, MOE_EXISTS when `path` is a file of another kind, MOE_NOMEM, or what writing and
 * computing fail with. */
enum moe_code moe_trace(struct moe_engine *e, const int32_t *ids, int64_t n, const char *path,
                        struct moe_err *err);

#endif
