/* SPDX-License-Identifier: Apache-2.0 */
/* Multiplies by an NVFP4 weight with dot products of int8 quadruples (AVX512_VNNI), and looks codes up by
 * byte permutations (AVX512_VBMI).  The results have the bits of the avx512 level. */
#include "kernels/avx512/fp4.h"
#include "kernels/scalar.h"

#include "kernels/body/fp4.h"

void moe_matmul_avx512dot(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                          int64_t n, float *y, int64_t ldy)
{
    if (w->type == MOE_NVFP4) fp4_product(&(struct fp4){ w, x, y, ldx, ldy, r0, 3 }, r1, n);
    else moe_matmul_avx512(w, r0, r1, x, ldx, n, y, ldy);
}

void moe_matmul_int16_avx512dot(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x,
                                int64_t ldx, int64_t n, float *y, int64_t ldy)
{
    if (w->type == MOE_NVFP4) fp4_product(&(struct fp4){ w, x, y, ldx, ldy, r0, 2 }, r1, n);
    else moe_matmul_avx512(w, r0, r1, x, ldx, n, y, ldy);
}
