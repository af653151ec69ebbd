/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/nvfp4-fast.h - products with NVFP4 weights by float16 tensor cores with sums in float32: those
 * of nvfp4.h, for many rows of x and with other bits.
 *
 * nvfp4_fast_8, _16, _32 and _64 take items of up to so many pairs, and the arguments of nvfp4 (nvfp4.h).
 * There, `digits` and `factors` are the halves and factors of rows of x (halves.h, CODES); digits_out is 0.
 * nvfp4_terms_8, _16 and _32 are nearer to the exact product: they take two terms of x (CODES2).
 *
 * The order of sums is the same for every kernel of a name and for every item, so that a result depends on
 * its own row of W and its own row of x alone.  It has the same bits on GPUs whose tensor cores sum as
 * tests/shim/cuda/mma.c says; check-cuda-probe asks a GPU whether they do:
 * - w = 2^-7 * code * scale, exact in float16; x is the stored half, of which there may be two, h and l.
 * - The columns of a row are taken in groups of 64.  A group is four sums of 16 products
 *   each, one on top of the other; the first begins at 0.  Of columns c in [0, 32) of the group the first sum
 *   has those with c % 4 < 2, the second the others; the third and the fourth are the same of columns
 *   [32, 64).  With two terms these four are of w l, and four more of w h are put on top of them.  A sum of
 *   16 products is that of mma.m16n8k16 (tests/shim/cuda/mma.c states its rounding).
 * - s = 0; for each group in ascending order s = s + its sum, rounded to nearest.
 * - y = (s * (128 * factor)) * global, or, with RECIPROCAL, / global.  SwiGLU is that of kernels.def.
 *
 * Columns past the end of a row count as zeros.  How far y is from the exact product, with a = sum |W x|, m
 * the largest magnitude of x in its row and g the number of groups:
 *     |y - W x| <= (e + 2^-17 + g 2^-24) a + 2^-38 m sum |W|
 * where e is what x loses, 2^-11 with one term and 2^-22 with two; the rest is what the tensor core cuts, and
 * the roundings of s. */
#ifndef MOE_KERNELS_CUDA_NVFP4_FAST_H
#define MOE_KERNELS_CUDA_NVFP4_FAST_H

#include "kernels/cuda/halves.h"
#include "kernels/cuda/nvfp4.h"
#include "kernels/cuda/tiles.h"

/* What a block computes at a time are 128 rows of W for the pairs of an item, `step` columns at a time, which
 * lie in a ring in shared memory: codes, scales, and rows of x.  width: the most pairs of an item times the
 * terms of x. */
enum { MOE_CUDA_FAST_ROWS = 128 };
MOE_CUDA_BOTH int moe_cuda_fast_step(int width) { return width > 32 ? 128 : 256; }
MOE_CUDA_BOTH int moe_cuda_fast_ring(int width) { return width == 32 ? 3 : 4; }
MOE_CUDA_BOTH int moe_cuda_fast_step_bytes(int width)
{
    return moe_cuda_fast_step(width) * (MOE_CUDA_FAST_ROWS / 2 + MOE_CUDA_FAST_ROWS / 16 + 2 * width);
}

static inline struct moe_cuda_grid moe_cuda_fast_grid(const struct moe_cuda_nvfp4 *a, int tokens, int terms)
{
    int64_t items = a->items ? a->most : (a->tokens + tokens - 1) / tokens;
    int64_t work = items * ((a->rows + MOE_CUDA_FAST_ROWS - 1) / MOE_CUDA_FAST_ROWS);
    struct moe_cuda_grid g = { (uint32_t)(work < a->blocks ? work : a->blocks), 1, 1, 256,
                               (uint32_t)(moe_cuda_fast_ring(tokens * terms) *
                                          moe_cuda_fast_step_bytes(tokens * terms)) };
    return g;
}
/* tokens: of the kernel nvfp4_fast_<tokens>, or nvfp4_terms_<tokens>. */
static inline struct moe_cuda_grid moe_cuda_nvfp4_fast_grid(const struct moe_cuda_nvfp4 *a, int tokens)
{
    return moe_cuda_fast_grid(a, tokens, 1);
}
static inline struct moe_cuda_grid moe_cuda_nvfp4_terms_grid(const struct moe_cuda_nvfp4 *a, int tokens)
{
    return moe_cuda_fast_grid(a, tokens, 2);
}

#endif
