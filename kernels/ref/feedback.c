/* NVFP4 rounding against a quadratic form, one row at a time: the order of kernels.def, in float32. */
#include "kernels/scalar.h"
#include "kernels/variants.h"

#include <math.h>

struct block { const float *l, *d, *w, *a; int64_t ldl, ld; };

/* The 16 values of row r under scale code `c`; returns the cost. */
static float try_code(const struct block *b, int64_t r, float global, uint8_t c, float q[16])
{
    float s = moe_e4m3_to_f32(c) * global, e[16], cost = 0;
    for (int j = 15; j >= 0; j--) {
        float t = b->a[j * b->ld + r];
        for (int i = 15; i > j; i--) t = fmaf(b->l[i * b->ldl + j], e[i], t);
        q[j] = moe_e2m1_to_f32(moe_f32_to_e2m1(t / s)) * s;
        e[j] = b->w[j * b->ld + r] - q[j];
        cost = fmaf(b->d[j] * (t - q[j]), t - q[j], cost);
    }
    return cost;
}

void moe_nvfp4_feedback_ref(const float *l, int64_t ldl, const float *d, const float *w, const float *a, int64_t ld, int64_t n, float global,
                            float *q, uint8_t *scale, float *cost)
{
    const struct block b = { l, d, w, a, ldl, ld };
    for (int64_t r = 0; r < n; r++) {
        float amax = 0, v[16], best[16];
        for (int j = 0; j < 16; j++) amax = fmaxf(amax, fabsf(a[j * ld + r]));
        int c = moe_f32_to_ue4m3(amax / (6.0f * global)), last = c < 14 ? c + 12 : c + 6, first = c - 2;
        if (scale[r]) first = last = scale[r];
        else if (!(amax > 0)) first = last = 0x38;
        cost[r] = INFINITY;
        for (int k = first < 1 ? 1 : first; k <= last && k <= 126; k++) {
            float x = try_code(&b, r, global, (uint8_t)k, v);
            if (!(x < cost[r]) && k > (first < 1 ? 1 : first)) continue;
            cost[r] = x, scale[r] = (uint8_t)k;
            for (int j = 0; j < 16; j++) best[j] = v[j];
        }
        for (int j = 0; j < 16; j++) q[j * ld + r] = best[j];
    }
}

void moe_nvfp4_descend_ref(const float *h, int64_t ldh, int64_t b, const float *s, float *q, float *g, float *d, int64_t ld, int64_t n)
{
    for (int64_t r = 0; r < n; r++)
        for (int64_t j = 0; j < b; j++) {
            float step = s[j / 16 * ld + r], *at = &q[j * ld + r];
            float t = *at - g[j * ld + r] / h[j * ldh + j], to = moe_e2m1_to_f32(moe_f32_to_e2m1(t / step)) * step, x = to - *at;
            if (x == 0) continue;
            *at = to;
            d[j * ld + r] += x;
            for (int64_t k = 0; k < b; k++) g[k * ld + r] = fmaf(x, h[j * ldh + k], g[k * ld + r]);
        }
}
