/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/many.h - many rows of a stored weight decoded, and its product for many tokens at once. */
#ifndef MOE_KERNELS_MANY_H
#define MOE_KERNELS_MANY_H

#include "formats/dtype.h"

/* Rows [r0,r1) to out [r1 - r0, cols], float32: by `dequantize`, or by `dequantize_nt` where they take more
 * than 16 MiB, which no core's second-level cache will hold when they are read. */
void moe_dequantize_many(const struct moe_weight *w, int64_t r0, int64_t r1, float *out);

/* What kernels.def's matmul computes, in another order of summation: panels of w are decoded to float32, to
 * `dequantize`, and go through `gemm`.
 *
 *   y[t*ldy + (r - r0)] = sum_k W[r][k] * x[t*ldx + k] for r in [r0,r1), t in [0,n): for each 256 columns a
 *   sum by fma from 0, ascending, then these added up.
 *
 * A result depends on its row of W and its row of x alone.  Near gemm's speed from some hundred tokens on,
 * slower than matmul below some thirty.  Needs half a MiB of stack. */
void moe_matmul_many(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                     int64_t n, float *y, int64_t ldy);

#endif
