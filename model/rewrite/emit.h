/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/emit.h - writes one tensor of a source into a shard, streamed by rows: copied, decoded or
 * quantized to NVFP4.
 *
 * A struct moe_emit is the buffers of one worker; one thread at a time may use it.  Where an output tensor is
 * meant, `w` is the shard's writer and `at` the index of the tensor in the shard.  Errors: MOE_NONFINITE,
 * naming the tensor and the value's row and column, when the source holds a NaN or Inf; MOE_CORRUPT when a
 * plane of a container does not match its hash; and those of reading and writing. */
#ifndef MOE_MODEL_REWRITE_EMIT_H
#define MOE_MODEL_REWRITE_EMIT_H

#include "formats/container/container.h"
#include "kernels/nvfp4.h"

struct moe_emit;

/* Bytes of memory that one worker takes for this source. */
uint64_t moe_emit_estimate(const struct moe_source *src);
enum moe_code moe_emit_open(struct moe_emit **e, const struct moe_source *src, struct moe_err *err);
void moe_emit_close(struct moe_emit **e); /* NULL-safe; nulls */

/* The phases of a worker's time; moe_emit_seconds gives the seconds [MOE_EMIT_PHASES] that each took since
 * moe_emit_open, waiting included. */
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

/* The first pass of quantizing: reads the tensor and sets *amax to its largest |value| and
 * d->source_hash. */
enum moe_code moe_emit_amax(struct moe_emit *e, const struct moe_tensor *in, float *amax,
                            struct moe_emitted *d, struct moe_err *err);

/* The second pass, which finds the tensor in the page cache: writes codes, block scales (as tiles), global
 * scale and input scale; sets d->num and d->den.  `global` as from moe_nvfp4_global. */
enum moe_code moe_emit_nvfp4(struct moe_emit *e, const struct moe_tensor *in, enum moe_nvfp4_method method,
                             float global, float input_scale, struct moe_shard_writer *w, int64_t at,
                             struct moe_emitted *d, struct moe_err *err);

/* Writes the codes, block scales and global scale that a code chooser chose (rewrite.h); moe_emit_input
 * writes the input scale later. */
struct moe_chosen_codes;
enum moe_code moe_emit_chosen(struct moe_emit *e, const struct moe_tensor *in,
                              const struct moe_chosen_codes *c, struct moe_shard_writer *w, int64_t at,
                              struct moe_emitted *d, struct moe_err *err);
enum moe_code moe_emit_input(struct moe_shard_writer *w, int64_t at, float input_scale, struct moe_err *err);

/* Copies a tensor that keeps its type: the bytes stay as they are, but NVFP4 block scales are moved into
 * tiles and a missing input scale is written as 1.0.  Sets d->source_hash. */
enum moe_code moe_emit_copy(struct moe_emit *e, const struct moe_tensor *in, struct moe_shard_writer *w,
                            int64_t at, struct moe_emitted *d, struct moe_err *err);

/* Decodes to `type`, F32 (exact) or BF16 (to nearest, ties to even).  Sets source_hash, num and den. */
enum moe_code moe_emit_decoded(struct moe_emit *e, const struct moe_tensor *in, int type,
                               struct moe_shard_writer *w, int64_t at, struct moe_emitted *d,
                               struct moe_err *err);

#endif
