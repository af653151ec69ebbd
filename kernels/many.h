/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/many.h - dequantizes many rows of a stored weight, and multiplies it by many tokens at once. */
#ifndef MOE_KERNELS_MANY_H
#define MOE_KERNELS_MANY_H

#include "formats/dtype.h"

/* Dequantizes rows [r0,r1) of w to out [r1 - r0][cols].  A result of more than 16 MiB, which a core's
 * second-level cache would not hold until it is read, is stored past the caches (dequantize_nt of
 * kernels.def). */
void moe_dequantize_many(const struct moe_weight *w, int64_t r0, int64_t r1, float *out);

/* Computes what matmul of kernels.def computes, but adds in another order: panels of w are dequantized, and
 * gemm multiplies them.
 *
 *   y[t*ldy + (r - r0)] = sum_k W[r][k] * x[t*ldx + k] for r in [r0,r1), t in [0,n).  Each 256 columns are
 *   summed by fma from 0, ascending; then these sums are added, ascending.
 *
 * A result depends on its row of W and its row of x alone.  From some hundred tokens on, the function is
 * about as fast as gemm; below some thirty, it is slower than matmul.  It needs half a MiB of stack. */
void moe_matmul_many(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                     int64_t n, float *y, int64_t ldy);

#endif
