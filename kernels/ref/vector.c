/* SPDX-License-Identifier: Apache-2.0 */
/* Sums, norms, activations and attention over float32 vectors, in double. */
#include "kernels/scalar.h"
#include "kernels/variants.h"

#include <math.h>

float moe_dot_ref(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return (float)sum;
}

float moe_amax_ref(const float *x, int64_t n)
{
    uint32_t most = 0; /* bits without the sign: NaN is above Inf, and Inf above everything finite */
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = moe_f32_bits(x[i]) & 0x7fffffff;
        if (u > most) most = u;
    }
    return moe_f32_from_bits(most);
}

float moe_amax_bf16_ref(const uint8_t *x, int64_t n)
{
    uint16_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        uint16_t u = moe_load_le16(x + 2 * i) & 0x7fff;
        if (u > most) most = u;
    }
    return moe_bf16_to_f32(most);
}

/* Adds 16 partial sums by halves, as the reduction order of kernels.def does. */
static double fold(const double s[16])
{
    double a[8];
    for (int i = 0; i < 8; i++) a[i] = s[i] + s[i + 8];
    for (int i = 0; i < 4; i++) a[i] += a[i + 4];
    for (int i = 0; i < 2; i++) a[i] += a[i + 2];
    return a[0] + a[1];
}

void moe_sqerr_ref(const float *x, const float *y, int64_t n, double *num, double *den)
{
    double a[16] = { 0 }, b[16] = { 0 };
    for (int64_t i = 0; i < n; i++) {
        double d = (double)x[i] - (double)y[i];
        a[i % 16] = fma(d, d, a[i % 16]);
        b[i % 16] = fma((double)x[i], (double)x[i], b[i % 16]);
    }
    *num += fold(a);
    *den += fold(b);
}

void moe_rmsnorm_ref(const float *x, const float *w, float eps, int64_t n, float *out)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    double scale = 1 / sqrt(sum / (double)n + (double)eps);
    for (int64_t i = 0; i < n; i++) out[i] = (float)((double)x[i] * scale * (double)w[i]);
}

void moe_swiglu_ref(const float *g, const float *u, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = (float)((double)g[i] / (1 + exp(-(double)g[i])) * (double)u[i]);
}

void moe_exp_ref(const float *x, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = (float)exp((double)x[i]);
}

void moe_sigmoid_ref(const float *x, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = (float)(1 / (1 + exp(-(double)x[i])));
}

void moe_softmax_ref(float *x, int64_t n)
{
    float most = x[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > most) most = x[i];
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)most);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(exp((double)x[i] - (double)most) / sum);
}

void moe_rope_ref(float *x, const float *cos, const float *sin, int64_t pairs)
{
    for (int64_t i = 0; i < pairs; i++) {
        double a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = (float)(a * (double)cos[i] - b * (double)sin[i]);
        x[2 * i + 1] = (float)(b * (double)cos[i] + a * (double)sin[i]);
    }
}

void moe_attend_ref(const float *q, const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t n,
                    int64_t dk, int64_t dv, float scale, float *s, float *out)
{
    for (int64_t j = 0; j < n; j++) s[j] = scale * moe_dot_ref(q, k + j * ldk, dk);
    moe_softmax_ref(s, n);
    for (int64_t i = 0; i < dv; i++) {
        double sum = 0;
        for (int64_t j = 0; j < n; j++) sum += (double)s[j] * (double)v[j * ldv + i];
        out[i] = (float)sum;
    }
}

double moe_peak_ref(int64_t rounds, float *sink)
{
    float s[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < 8; i++) s[i] = s[i] * 0.999f + 0.001f;
    *sink = s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
    return 8 * (double)rounds;
}

/* Plain C has no instruction for products of bf16 or of bytes, so their peaks are 0. */
double moe_peak_bf16_ref(int64_t rounds, float *sink) { return *sink = 0, 0 * (double)rounds; }
double moe_peak_vnni_ref(int64_t rounds, float *sink) { return *sink = 0, 0 * (double)rounds; }
