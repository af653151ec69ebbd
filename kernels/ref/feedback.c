/* SPDX-License-Identifier: Apache-2.0 */
/* NVFP4 rounding of a row so that a quadratic form of its errors is small.  The order of operations is the
 * one that kernels.def gives; all are in float32, unlike in other files of ref/, so that the
 * other levels can give the same bits. */
#include "kernels/scalar.h"
#include "kernels/variants.h"

#include <math.h>

/* A block of 16 under scale code c, with the names of kernels.def: gives its values q, errors e and targets
 * t, and returns the cost. */
static float try_code(const float *l, int64_t ldl, const float *d, const float *w, const float *a,
                      float global, uint8_t c, float q[16], float e[16], float t[16])
{
    float s = moe_e4m3_to_f32(c) * global, cost = 0;
    for (int j = 15; j >= 0; j--) {
        t[j] = a[j];
        for (int i = 15; i > j; i--) t[j] = fmaf(e[i], l[i * ldl + j], t[j]);
        q[j] = moe_e2m1_to_f32(moe_f32_to_e2m1(t[j] / s)) * s;
        e[j] = w[j] - q[j];
        cost = fmaf(d[j] * (t[j] - q[j]), t[j] - q[j], cost);
    }
    return cost;
}

void moe_nvfp4_feedback_ref(const float *l, int64_t ldl, const float *d, int64_t b, const float *w, float *a,
                            float global, float *q, uint8_t *scale)
{
    for (int64_t j0 = b - 16; j0 >= 0; j0 -= 16) {
        float amax = 0, least = INFINITY;
        float v[16], e[16], t[16];
        for (int j = 0; j < 16; j++) amax = fmaxf(amax, fabsf(a[j0 + j]));

        int c = moe_f32_to_ue4m3(amax / (6.0f * global));
        int low = c < 3 ? 1 : c - 2;
        int high = c < 14 ? c + 12 : c > 120 ? 126 : c + 6;
        int best = amax > 0 ? low : 0x38; /* 0x38 is the code of 1 */
        for (int k = low; amax > 0 && k <= high; k++) {
            float x = try_code(l + j0 * ldl + j0, ldl, d + j0, w + j0, a + j0, global, (uint8_t)k, v, e, t);
            if (x < least) least = x, best = k;
        }

        scale[j0 / 16] = (uint8_t)best;
        try_code(l + j0 * ldl + j0, ldl, d + j0, w + j0, a + j0, global, (uint8_t)best, q + j0, e, t);
        for (int j = 0; j < 16; j++) a[j0 + j] = t[j];
        for (int i = 15; i >= 0; i--)
            for (int64_t k = 0; k < j0; k++) a[k] = fmaf(e[i], l[(j0 + i) * ldl + k], a[k]);
    }
}

void moe_nvfp4_descend_ref(const float *h, int64_t ldh, int64_t b, const float *s, float *q, float *g,
                           float *d)
{
    for (int64_t j = 0; j < b; j++) {
        float t = q[j] - g[j] / h[j * ldh + j];
        float to = moe_e2m1_to_f32(moe_f32_to_e2m1(t / s[j / 16])) * s[j / 16];
        float x = to - q[j];
        if (x == 0) continue;
        q[j] = to;
        d[j] += x;
        for (int64_t k = 0; k < b; k++) g[k] = fmaf(x, h[j * ldh + k], g[k]);
    }
}
