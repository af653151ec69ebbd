/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/attend.h - attention over the latent cache in the attention order of kernels.def, bit for bit:
 * the middle of moe_ops.attend on a GPU.
 *
 * Token t in [0, n) has `heads` queries q [n, heads, width] and sees the rows of its positions up to its own,
 * pos[t].  A row's first `width` values are the key, the first kl of these the value.
 *
 *     out [n, heads, kl] = the result of each query: o * (1 / l)
 *
 * Two ways lead there, with the same bits.
 * - Whole (split 0): a block computes all chunks of a token for some heads, one after the other, and writes
 *   `out`.
 * - Split (split 1): a block computes one chunk, and writes m, l and o of it into max, sum [n, chunks, heads]
 *   and part [n, chunks, heads, kl]; attend_merge then merges each token's chunks in ascending order into
 *   `out`.  `chunks` is at least the number of chunks of every token; more cost a block that ends at once.
 *
 * All is float32; q, part and out at multiples of 16 bytes.  kl is at most 512 and width at most 640. */
#ifndef MOE_KERNELS_CUDA_ATTEND_H
#define MOE_KERNELS_CUDA_ATTEND_H

#include "kernels/cuda/latents.h"

struct moe_cuda_attend {
    struct moe_cuda_latents cache;
    MOE_CU(const float) q;
    MOE_CU(float) max;             /* max, sum, part: for a split */
    MOE_CU(float) sum;
    MOE_CU(float) part;
    MOE_CU(float) out;
    int64_t n, heads, kl, chunks;
    float scale;                   /* what scores are multiplied by */
    uint32_t split;
    uint32_t few;                  /* whether blocks have 8 heads, not 16: attend_8 */
    uint32_t unused;               /* 0 */
};
static_assert(sizeof(struct moe_cuda_attend) == 144, "the host and the device agree on attend's arguments");

enum {
    MOE_CUDA_ATTEND_THREADS = 256, /* of a block; of attend_8 half as many */
    MOE_CUDA_ATTEND_HEADS = 16,
    MOE_CUDA_ATTEND_KL = 512,      /* the largest kl */
    MOE_CUDA_ATTEND_WIDTH = 640,   /* the largest width */
    /* A piece of a page in shared memory: 64 columns of all its rows, or 8 rows of kl columns. */
    MOE_CUDA_ATTEND_COLS = 64,
    MOE_CUDA_ATTEND_ROWS = 8,
    MOE_CUDA_ATTEND_PIECE = 4 * MOE_PAGE * MOE_CUDA_ATTEND_COLS,  /* bytes */
    MOE_CUDA_ATTEND_STAGES = 3
};

/* Floats from query to query in shared memory: half warps that read queries 8 apart use different banks. */
#define MOE_CUDA_ATTEND_QUERY(width) (((width) + 15) / 16 * 16 + 2)

/* Chunks of a token that sees `rows` rows. */
static inline int64_t moe_cuda_attend_chunks(int64_t rows) { return (rows + MOE_CHUNK - 1) / MOE_CHUNK; }

/* Whether to split, for n tokens of which the longest has `chunks` chunks, on a GPU with so many
 * multiprocessors: where whole tokens would not fill it.  A merge reads what it merges once. */
static inline uint32_t moe_cuda_attend_split(int64_t n, int64_t heads, int64_t chunks, int64_t processors)
{
    int64_t blocks = n * ((heads + MOE_CUDA_ATTEND_HEADS - 1) / MOE_CUDA_ATTEND_HEADS);
    return chunks > 1 && blocks < 2 * processors;
}

/* Whether to give blocks 8 heads: where even so each can have a multiprocessor of its own.  `chunks`: of a
 * split, else 1. */
static inline uint32_t moe_cuda_attend_few(int64_t n, int64_t heads, int64_t chunks, int64_t processors)
{
    return n * chunks * ((heads + MOE_CUDA_ATTEND_HEADS / 2 - 1) / (MOE_CUDA_ATTEND_HEADS / 2)) <= processors;
}
static inline enum moe_cuda_kernel moe_cuda_attend_kernel(const struct moe_cuda_attend *a)
{
    return a->few ? MOE_CUDA_attend_8 : MOE_CUDA_attend;
}

/* Floats of max, sum and part together; 0 where nothing is split. */
static inline int64_t moe_cuda_attend_floats(const struct moe_cuda_attend *a)
{
    return a->split ? a->n * a->chunks * a->heads * (a->kl + 2) : 0;
}

/* Tokens with the longest rows would be best first; they come in the batch's order.  x: chunks. */
static inline struct moe_cuda_grid moe_cuda_attend_grid(const struct moe_cuda_attend *a)
{
    uint32_t heads = MOE_CUDA_ATTEND_HEADS >> a->few;
    uint32_t floats = heads * (MOE_CUDA_ATTEND_QUERY((uint32_t)a->cache.width) + MOE_PAGE + 2);
    struct moe_cuda_grid g = { a->split ? (uint32_t)a->chunks : 1,
                               moe_cuda_blocks(a->heads, heads), (uint32_t)a->n, 16 * heads,
                               MOE_CUDA_ATTEND_STAGES * MOE_CUDA_ATTEND_PIECE + 4 * floats };
    return g;
}

/* A block a query. */
static inline struct moe_cuda_grid moe_cuda_attend_merge_grid(const struct moe_cuda_attend *a)
{
    struct moe_cuda_grid g = { (uint32_t)a->heads, (uint32_t)a->n, 1, 128, 0 };
    return g;
}

#endif
