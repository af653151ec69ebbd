/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/emit.h - one tensor from a source into a shard, streamed by rows: copied,
 * decoded or quantized to NVFP4.
 *
 * A struct moe_emit is one worker's buffers: one thread at a time. */
#ifndef MOE_MODEL_REWRITE_EMIT_H
#define MOE_MODEL_REWRITE_EMIT_H

#include "formats/container/container.h"
#include "kernels/nvfp4.h"

struct moe_emit;

/* Bytes one worker holds for this source. */
uint64_t moe_emit_estimate(const struct moe_source *src);
enum moe_code moe_emit_open(struct moe_emit **e, const struct moe_source *src, struct moe_err *err);
void moe_emit_close(struct moe_emit **e); /* NULL-safe; nulls */

/* Where its time went, waiting included: seconds[MOE_EMIT_PHASES], since it was opened. */
enum moe_emit_phase {
    MOE_EMIT_READ,
    MOE_EMIT_HASH,
    MOE_EMIT_DECODE,
    MOE_EMIT_QUANTIZE,
    MOE_EMIT_ERROR,
    MOE_EMIT_WRITE,
    MOE_EMIT_PHASES
};
const double *moe_emit_seconds(const struct moe_emit *e);

struct moe_emitted {
    uint64_t source_hash[MOE_PLANE_COUNT]; /* XXH3-64 of the planes as the source stores them */
    double num, den;                       /* sum of (w - w')^2 and of w^2, when quantized */
};

/* Pass 1 of quantizing: the largest |value|, MOE_NONFINITE naming the element when there is a NaN or
 * Inf.  Fills source_hash. */
enum moe_code moe_emit_amax(struct moe_emit *e, const struct moe_tensor *in, float *amax,
                            struct moe_emitted *d, struct moe_err *err);

/* Pass 2, reading what pass 1 left in the page cache: codes, scales (tile order), global and input scale into
 * tensor `at` of the shard; fills num and den. */
enum moe_code moe_emit_nvfp4(struct moe_emit *e, const struct moe_tensor *in, enum moe_nvfp4_method method,
                             float global, float input_scale, struct moe_shard_writer *w, int64_t at,
                             struct moe_emitted *d, struct moe_err *err);

/* Codes that somebody else chose: scales [rows, cols / 16] in rows; the input scale is set
 * later, by moe_emit_input. */
struct moe_coded;
enum moe_code moe_emit_coded(struct moe_emit *e, const struct moe_tensor *in, const struct moe_coded *c,
                             struct moe_shard_writer *w, int64_t at, struct moe_emitted *d,
                             struct moe_err *err);
enum moe_code moe_emit_input(struct moe_shard_writer *w, int64_t at, float input_scale, struct moe_err *err);

/* The same type: bytes as they are, NVFP4 scales moved into tiles, a missing input scale written as 1.0.
 * Checked for NaN and Inf on the way.  Fills source_hash. */
enum moe_code moe_emit_copy(struct moe_emit *e, const struct moe_tensor *in, struct moe_shard_writer *w,
                            int64_t at, struct moe_emitted *d, struct moe_err *err);

/* To F32 (exact) or BF16 (nearest, ties to even).  Fills source_hash, num and den. */
enum moe_code moe_emit_decoded(struct moe_emit *e, const struct moe_tensor *in, int type,
                               struct moe_shard_writer *w, int64_t at, struct moe_emitted *d,
                               struct moe_err *err);

#endif
