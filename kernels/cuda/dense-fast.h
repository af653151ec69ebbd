/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/dense-fast.h - products with BF16, F16 and FP8 weights by tensor cores with sums in float32:
 * those of dense.h, with other bits.
 *
 * y[t*ldy + r] = sum_k W[r][k] x[t][k] of tokens t in [0, n) and all rows r of W. x comes as halves, two
 * terms of each value (halves.h): of the kind BF16 for BF16 weights, F16 for F16, FP8 for FP8.
 *
 * dense_fast_8, _32, _64 and _128 are the same product for blocks of up to so many tokens.  The order of sums
 * is the same for all of them, and for every n and `split`, so that a result depends on its own row of W and
 * its own row of x alone.  It has the same bits on GPUs whose tensor cores sum as tests/shim/cuda/mma.c says:
 * - w is the stored code as bfloat16 or float16, without the scale of FP8; h and l are the terms of x.
 * - The columns of a row are taken in groups of 64.  A group's sum c is made of eight sums of 16 products
 *   each, one on top of the other; the first begins at 0.  Four are of w l and columns [0, 16), [16, 32),
 *   [32, 48) and [48, 64) of the group, then four of w h and the same columns.  Each is that of mma.m16n8k16
 *   (tests/shim/cuda/mma.c states its rounding).
 * - With g groups, part p in [0, 8) has the groups [p q, (p + 1) q) that there are, q being g / 8 rounded up.
 *   Its sum s_p begins at 0; for each group in ascending order s_p = s_p + c, rounded to nearest, or for FP8
 *   s_p = fma(c, scale, s_p) with the scale of the group's columns.
 * - s = 0; for each part in ascending order s = s + s_p.  y = s * the factor of x's row.
 *
 * Columns past the end of a row count as zeros.  How far y is from the exact product, with a = sum |W x| and
 * m the largest magnitude of x in its row, or 2^-97:
 *     |y - W x| <= (e + 2^-17 + (q + 9) 2^-24) a + 2^-38 m sum |W|
 * where e is what x loses: 2^-17 of bfloat16, 2^-22 of float16; the rest is what the tensor core cuts, and
 * the roundings of s.  Products and sums beyond float32 become Inf or NaN; x is scaled to 2^15 at most, so
 * for this W has to be beyond 2^100. */
#ifndef MOE_KERNELS_CUDA_DENSE_FAST_H
#define MOE_KERNELS_CUDA_DENSE_FAST_H

#include "kernels/cuda/halves.h"
#include "kernels/cuda/weight.h"

#include <stdbool.h>

enum {
    MOE_CUDA_DENSE_FAST_ROWS = 128,  /* of W, of a block */
    MOE_CUDA_DENSE_FAST_PARTS = 8,
    MOE_CUDA_DENSE_FAST_TILES = 1024 /* the most tiles (blocks without `split`) whose parts are split */
};

struct moe_cuda_dense_fast {
    struct moe_cuda_weight w;
    MOE_CU(const uint8_t) halves;  /* [n] rows of w.cols values */
    MOE_CU(const float) factors;   /* [n] */
    MOE_CU(float) y;
    MOE_CU(float) part;            /* where split > 1: [8][n][w.rows], undefined before and after */
    MOE_CU(int32_t) done;          /* where split > 1: [tiles], 0 before and after */
    int64_t n, ldy;
    int32_t split;                 /* 1, 2, 4 or 8: so many blocks share the parts of a tile */
    uint32_t unused;               /* 0 */
};
static_assert(sizeof(struct moe_cuda_dense_fast) == 128, "host and device agree on the arguments");

/* Whether these kernels compute products with w: rows begin at multiples of 16 bytes. */
static inline bool moe_cuda_dense_fast_has(const struct moe_cuda_weight *w)
{
    return ((w->codes == MOE_CUDA_BF16 || w->codes == MOE_CUDA_F16) && w->cols % 8 == 0) ||
           (w->codes == MOE_CUDA_FP8 && w->cols % 16 == 0);
}
/* The kind of halves for it. */
static inline enum moe_cuda_halves_kind moe_cuda_dense_fast_kind(const struct moe_cuda_weight *w)
{
    return w->codes == MOE_CUDA_BF16 ? MOE_CUDA_HALVES_BF16
           : w->codes == MOE_CUDA_F16 ? MOE_CUDA_HALVES_F16
                                      : MOE_CUDA_HALVES_FP8;
}

/* Which kernel is for n tokens: 8, 32, 64 or 128 of them a block. */
static inline int moe_cuda_dense_fast_tokens(int64_t n)
{
    return n <= 8 ? 8 : n <= 32 ? 32 : n <= 64 ? 64 : 128;
}
static inline enum moe_cuda_kernel moe_cuda_dense_fast_kernel(int64_t n)
{
    const int tokens = moe_cuda_dense_fast_tokens(n);
    return tokens == 8    ? MOE_CUDA_dense_fast_8
           : tokens == 32 ? MOE_CUDA_dense_fast_32
           : tokens == 64 ? MOE_CUDA_dense_fast_64
                          : MOE_CUDA_dense_fast_128;
}

/* Shared memory: a ring of slots, each for a group of 64 columns of a block's rows of W and of x, and the
 * totals of the parts.  With 8 or 32 tokens two blocks fit a multiprocessor. */
MOE_CUDA_BOTH int moe_cuda_dense_fast_ring(int tokens)
{
    return tokens == 8 ? 6 : tokens == 32 ? 4 : tokens == 64 ? 5 : 3;
}
MOE_CUDA_BOTH int moe_cuda_dense_fast_slot(uint32_t codes, int tokens)
{
    return MOE_CUDA_DENSE_FAST_ROWS * (codes == MOE_CUDA_FP8 ? 64 : 128) + tokens * 256;
}

/* The `split` that fills a GPU, where `floats` is what `part` has room for. */
static inline int32_t moe_cuda_dense_fast_split(const struct moe_cuda_dense_fast *a, int multiprocessors,
                                                int64_t floats)
{
    const int tokens = moe_cuda_dense_fast_tokens(a->n), room = multiprocessors * (tokens <= 32 ? 2 : 1);
    const int64_t tiles = ((a->n + tokens - 1) / tokens) *
                          ((a->w.rows + MOE_CUDA_DENSE_FAST_ROWS - 1) / MOE_CUDA_DENSE_FAST_ROWS);
    int32_t split = 1;
    if (tiles > MOE_CUDA_DENSE_FAST_TILES || MOE_CUDA_DENSE_FAST_PARTS * a->n * a->w.rows > floats) return 1;
    while (split < MOE_CUDA_DENSE_FAST_PARTS && 2 * split * tiles <= room) split *= 2;
    return split;
}

/* Blocks that share rows of W come one after the other. */
static inline struct moe_cuda_grid moe_cuda_dense_fast_grid(const struct moe_cuda_dense_fast *a)
{
    const int tokens = moe_cuda_dense_fast_tokens(a->n);
    const int bytes = moe_cuda_dense_fast_ring(tokens) * moe_cuda_dense_fast_slot(a->w.codes, tokens) +
                      MOE_CUDA_DENSE_FAST_ROWS * tokens * 4;
    struct moe_cuda_grid g = { moe_cuda_blocks(a->n, tokens),
                               moe_cuda_blocks(a->w.rows, MOE_CUDA_DENSE_FAST_ROWS), (uint32_t)a->split, 256,
                               (uint32_t)bytes };
    return g;
}

#endif
