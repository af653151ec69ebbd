/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/halves.h - rows of float32 as float16 or bfloat16, the form in which fast products read them
 * (nvfp4-fast.h, dense-fast.h).
 *
 * A row of n values has one factor, a power of two f: with m the largest magnitude of the row and
 * 2^e <= max(m, 2^-97) < 2^(e+1), f = 2^(e - 14).  Stored is v = x / f, which lies within (-2^15, 2^15), each
 * term rounded to nearest:
 *
 *   CODES      one float16.  What is lost of x is at most 2^-11 |x| + 2^-25 f.
 *   CODES2, F16, FP8
 *              two float16, h = v rounded and l = v - h rounded; lost is at most 2^-22 |x| + 2^-25 f.
 *   BF16       the same with bfloat16; lost is at most 2^-17 |x|.
 *
 * Where a value is NaN or Inf the row's factor is NaN, and all values are stored as 0: so every result that
 * the row takes part in becomes NaN.
 *
 * A row takes moe_cuda_halves_pitch(kind, n) bytes, columns past its end are 0.  The order of columns is that
 * in which products take them.
 *   CODES      each 8 columns in the order in which codes of four bits come out of a word of 32 bits
 *              (codes.h), which depends on the GPU that the kernels are compiled for.
 *   CODES2     groups of 64 columns, each 64 h and then 64 l; a term has them in the order of CODES.
 *   the others groups of 64 columns, each 64 h and then 64 l.  A term has two halves of 32 columns, and of a
 *              half lane t in [0, 4) of a product has eight values side by side: with BF16 and F16 columns
 *              2t, 2t + 1, 2t + 8, 2t + 9, 2t + 16, .., and with FP8 4t, .., 4t + 3, 4t + 16, .., 4t + 19. */
#ifndef MOE_KERNELS_CUDA_HALVES_H
#define MOE_KERNELS_CUDA_HALVES_H

#include "kernels/cuda/common.h"

enum moe_cuda_halves_kind {
    MOE_CUDA_HALVES_CODES, MOE_CUDA_HALVES_CODES2, MOE_CUDA_HALVES_BF16, MOE_CUDA_HALVES_F16,
    MOE_CUDA_HALVES_FP8
};

/* Columns of a row, with those that fill it up. */
MOE_CUDA_BOTH int64_t moe_cuda_halves_columns(int64_t n) { return (n + 255) / 256 * 256; }
/* Bytes from row to row. */
MOE_CUDA_BOTH int64_t moe_cuda_halves_pitch(uint32_t kind, int64_t n)
{
    return moe_cuda_halves_columns(n) * (kind == MOE_CUDA_HALVES_CODES ? 2 : 4);
}

/* Rows t in [0, rows) of n values at x + t * ldx -> halves and factors[t].  x, ldx and n have no alignment
 * but that of a float; halves is a multiple of 16 bytes. */
struct moe_cuda_halves {
    MOE_CU(const float) x;
    MOE_CU(uint8_t) halves;
    MOE_CU(float) factors;         /* [rows] */
    int64_t rows, n, ldx;
    uint32_t kind;                 /* enum moe_cuda_halves_kind */
    uint32_t unused;               /* 0 */
};
static_assert(sizeof(struct moe_cuda_halves) == 56, "host and device agree on the arguments of halves");

/* A block a row. */
static inline struct moe_cuda_grid moe_cuda_halves_grid(const struct moe_cuda_halves *a)
{
    struct moe_cuda_grid g = { (uint32_t)a->rows, 1, 1, 256, 0 };
    return g;
}

#endif
