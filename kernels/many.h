/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/many.h - many rows of a stored weight dequantized, and its product with many tokens. */
#ifndef MOE_KERNELS_MANY_H
#define MOE_KERNELS_MANY_H

#include "formats/dtype.h"

/* Rows [r0,r1) of w, dequantized to out [r1 - r0][cols].  Results of more than 16 MiB, which no core's
 * second-level cache will hold until they are read, are made by dequantize_nt. */
void moe_dequantize_many(const struct moe_weight *w, int64_t r0, int64_t r1, float *out);

/* What matmul of kernels.def computes, added in another order: panels of w are dequantized and go through
 * gemm.
 *
 *   y[t*ldy + (r - r0)] = sum_k W[r][k] * x[t*ldx + k] for r in [r0,r1), t in [0,n): of each 256 columns the
 *   sum by fma from 0, ascending; then these sums are added, ascending.
 *
 * A result depends on its row of W and its row of x alone.  This is near gemm's speed from some hundred
 * tokens on, and slower than matmul below some thirty.  Needs half a MiB of stack. */
void moe_matmul_many(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                     int64_t n, float *y, int64_t ldy);

#endif
