/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/digits.h - rows of float32 in the form that products with NVFP4 weights read (nvfp4.h).
 *
 * By the reduction order of NVFP4 products (kernels.def) each block of 16 values of a row becomes 24-bit
 * integers X = x * 2^(23 - e).  Here X is split into two digits of 12 bits,
 *
 *     X = 4096 h + l,   h in [-2040, 2040],   l in [-2048, 2047],
 *
 * and 16 h and 16 l are stored as float16, which holds them exactly.  The factor of a block takes away the
 * 16 and what products scale codes by: it is 2^(e - 13) where these are 2^-14 times their value, and
 * 2^(e - 27) where they have it (codes.h).  It is NaN where a value of the block is NaN or Inf, so that all
 * results of the row become NaN.
 *
 * With bits = 16 (matmul_int16 of kernels.def) X is 256 times the 16-bit integer; all else is the same.
 *
 * A row has moe_cuda_digit_groups(n) groups of 256 columns.  Blocks past the end of the row are 0.
 *   digits   1024 bytes a group: 8 pairs of blocks of 128 bytes.  In a pair stand block 0 and 1; in a block
 *            the h and then the l; in each the columns 0-7 and then 8-15; and 8 columns are 16 bytes, in the
 *            order in which products take codes out of a word of 32 bits (codes.h).
 *   factors  16 float32 a group, of its blocks in order. */
#ifndef MOE_KERNELS_CUDA_DIGITS_H
#define MOE_KERNELS_CUDA_DIGITS_H

#include "kernels/cuda/common.h"

/* Groups of a row of n values: a multiple of 2, because products take 512 columns at a time. */
MOE_CUDA_BOTH int64_t moe_cuda_digit_groups(int64_t n) { return (n + 511) / 512 * 2; }
/* Bytes of the digits, and of the factors, of `rows` rows of n values. */
static inline int64_t moe_cuda_digit_bytes(int64_t rows, int64_t n)
{
    return rows * moe_cuda_digit_groups(n) * 1024;
}
static inline int64_t moe_cuda_factor_bytes(int64_t rows, int64_t n)
{
    return rows * moe_cuda_digit_groups(n) * 64;
}

/* Rows t in [0, rows) of n values at x + t * ldx -> digits and factors, rows side by side. n is a multiple of
 * 16. x, digits and factors are multiples of 16 bytes, ldx of 4 values. */
struct moe_cuda_digits {
    MOE_CU(const float) x;
    MOE_CU(uint8_t) digits;
    MOE_CU(float) factors;
    int64_t rows, n, ldx;
    int32_t bits;    /* 24, or 16 */
    uint32_t unused; /* 0 */
};
static_assert(sizeof(struct moe_cuda_digits) == 56, "host and device agree on the arguments of digits");

/* A thread a block of 16 values. */
static inline struct moe_cuda_grid moe_cuda_digits_grid(const struct moe_cuda_digits *a)
{
    int64_t blocks = a->rows * moe_cuda_digit_groups(a->n) * 16;
    struct moe_cuda_grid g = { moe_cuda_blocks(blocks, 128), 1, 1, 128, 0 };
    return g;
}

#endif
