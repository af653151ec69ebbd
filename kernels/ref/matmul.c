/* Products with a stored weight, one value at a time. */
#include "kernels/variants.h"

enum { PIECE = 256 };

void moe_matmul_ref(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx, int64_t n, float *y, int64_t ldy)
{
    for (int64_t r = r0; r < r1; r++)
        for (int64_t t = 0; t < n; t++) {
            double sum = 0;
            for (int64_t k = 0; k < w->cols; k += PIECE) {
                float v[PIECE];
                int64_t m = w->cols - k < PIECE ? w->cols - k : PIECE;
                moe_decode_ref(w, r, k, m, v);
                for (int64_t i = 0; i < m; i++) sum += (double)v[i] * (double)x[t * ldx + k + i];
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
            moe_decode_ref(w, r, k, m, v);
            for (int64_t i = 0; i < m; i++) sum[i] += (double)x[r - r0] * (double)v[i];
        }
        for (int64_t i = 0; i < m; i++) y[k + i] = (float)sum[i];
    }
}
