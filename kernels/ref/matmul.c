/* SPDX-License-Identifier: Apache-2.0 */
/* Products with a stored weight, one value at a time, summed in double. */
#include "kernels/scalar.h"
#include "kernels/variants.h"

#include <float.h>

enum { PIECE = 256 }; /* columns that are dequantized at once */

void moe_matmul_ref(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                    int64_t n, float *y, int64_t ldy)
{
    for (int64_t r = r0; r < r1; r++)
        for (int64_t t = 0; t < n; t++) {
            double sum = 0;
            for (int64_t k = 0; k < w->cols; k += PIECE) {
                float v[PIECE];
                int64_t m = w->cols - k < PIECE ? w->cols - k : PIECE;
                moe_dequantize_ref(w, r, k, m, v);
                for (int64_t i = 0; i < m; i++) sum += (double)v[i] * (double)x[t * ldx + k + i];
            }
            y[t * ldy + (r - r0)] = (float)sum;
        }
}

/* Rounds a block of 16 values to fixed-point of 16 bits, and gives them as doubles (matmul_int16 of
 * kernels.def, which defines e, its limits and the factor 1.004). */
static void round_to_fixed16(const float *x, double *out)
{
    float most = 0; /* the largest magnitude; NaN once a value is NaN or Inf */
    int e = 129;    /* of a largest magnitude that the factor makes overflow */
    for (int i = 0; i < 16; i++) {
        most = fmaxf(most, fabsf(x[i]));
        if (!isfinite(x[i])) most = NAN;
        if (isnan(most)) break;
    }
    if (most * 1.004f <= FLT_MAX) frexp((double)(most * 1.004f), &e);
    if (most == 0 || e < -96) e = -96;
    for (int i = 0; i < 16; i++)
        out[i] = isnan(most) ? NAN : ldexp(rint(ldexp((double)x[i], 15 - e)), e - 15);
}

void moe_matmul_int16_ref(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                          int64_t n, float *y, int64_t ldy)
{
    if (w->type != MOE_NVFP4) {
        moe_matmul_ref(w, r0, r1, x, ldx, n, y, ldy);
        return;
    }
    for (int64_t r = r0; r < r1; r++)
        for (int64_t t = 0; t < n; t++) {
            double sum = 0, f[16];
            for (int64_t k = 0; k < w->cols; k += 16) {
                float v[16];
                moe_dequantize_ref(w, r, k, 16, v);
                round_to_fixed16(x + t * ldx + k, f);
                for (int i = 0; i < 16; i++) sum += (double)v[i] * f[i];
            }
            y[t * ldy + (r - r0)] = (float)sum;
        }
}

void moe_matmul_t_ref(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, float *y)
{
    for (int64_t k = 0; k < w->cols; k += PIECE) {
        double sum[PIECE] = { 0 };
        int64_t m = w->cols - k < PIECE ? w->cols - k : PIECE;
        for (int64_t r = r0; r < r1; r++) {
            float v[PIECE];
            moe_dequantize_ref(w, r, k, m, v);
            for (int64_t i = 0; i < m; i++) sum[i] += (double)x[r - r0] * (double)v[i];
        }
        for (int64_t i = 0; i < m; i++) y[k + i] = (float)sum[i];
    }
}
