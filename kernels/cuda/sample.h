/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/sample.h - draws a token from each row of logits: moe_sample (kernels/sample.h) on a GPU,
 * with the same id for every row that has no NaN.
 *
 * Row r in [0, rows) of logits begins ld floats after the one before and has n values; drawing [rows] says
 * how each token is drawn, and ids [rows] gets the tokens.  Whether a row is drawn or its largest logit
 * taken, and whether tokens are cut off, is known on the device alone: so all three kernels are launched
 * for every batch, one after the other, with the same arguments, and return early where there is nothing to
 * do.
 *
 * sample_max    the largest logit of each chunk of a row
 * sample_weigh  what each chunk weighs, and how many ids it has, by how far they are below the largest
 * sample_pick   the token
 *
 * Weights are whole numbers, so sums of them are the same in every order.
 *
 * Scratch memory, undefined before and after: most [rows, chunks], weight [rows, chunks,
 * MOE_CUDA_SAMPLE_PARTS] and count, of the same shape, with chunks = moe_cuda_sample_chunks(n).  Addresses
 * are multiples of the size of their type. */
#ifndef MOE_KERNELS_CUDA_SAMPLE_H
#define MOE_KERNELS_CUDA_SAMPLE_H

#include "kernels/cuda/common.h"

/* struct moe_drawing of model/ops/ops.h, as it lies in memory. */
struct moe_cuda_drawing {
    float temperature, top_p, min_p;
    uint32_t unused;
    int64_t top_k;
    uint64_t draw;
};
static_assert(sizeof(struct moe_cuda_drawing) == 32, "the host and the device agree on a drawing");

/* The ids of a chunk.  A row has at most 2^23 values (moe_sample), so at most 2,048 chunks. */
enum { MOE_CUDA_SAMPLE_CHUNK = 4096, MOE_CUDA_SAMPLE_PARTS = 8 };

struct moe_cuda_sample {
    MOE_CU(const float) logits;
    MOE_CU(const struct moe_cuda_drawing) drawing;
    MOE_CU(int32_t) ids;
    MOE_CU(uint64_t) most;
    MOE_CU(uint64_t) weight;
    MOE_CU(uint32_t) count;
    int64_t rows, n, ld;
};
static_assert(sizeof(struct moe_cuda_sample) == 72,
              "the host and the device agree on the arguments of sample");

static inline int64_t moe_cuda_sample_chunks(int64_t n)
{
    return (n + MOE_CUDA_SAMPLE_CHUNK - 1) / MOE_CUDA_SAMPLE_CHUNK;
}

/* Of sample_max and sample_weigh: a block a chunk. */
static inline struct moe_cuda_grid moe_cuda_sample_chunk_grid(const struct moe_cuda_sample *a)
{
    struct moe_cuda_grid g = { (uint32_t)(a->rows * moe_cuda_sample_chunks(a->n)), 1, 1, 256, 0 };
    return g;
}

/* Of sample_pick: a block a row. */
static inline struct moe_cuda_grid moe_cuda_sample_pick_grid(const struct moe_cuda_sample *a)
{
    struct moe_cuda_grid g = { (uint32_t)a->rows, 1, 1, 512, 0 };
    return g;
}

#endif
