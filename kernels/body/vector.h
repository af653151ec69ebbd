/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/vector.h - sums, norms, activations and attention over float32.  Included once by each
 * kernels/<isa>/vector.c, after its lanes.h. */
#include "base/minmax.h"
#include "kernels/body/exp.h"
#include "kernels/scalar.h"

#include <math.h>

/* ---- sums ---- */

/* R dot products of a with b, b + ldb, ...  By the reduction order one dot product is one chain of fma, so
 * several at once hide its latency. */
LANE void dots(int R, const float *a, const float *b, int64_t ldb, int64_t n, float *out)
{
    vf sum[8];
    int64_t k = 0;
    EACH(i, R) sum[i] = vf_zero();
    for (; k + 16 <= n; k += 16) {
        vf v = vf_load(a + k);
        EACH(i, R) sum[i] = vf_fma(v, vf_load(b + i * ldb + k), sum[i]);
    }
    if (k < n)
        EACH(i, R) sum[i] = vf_fma(vf_loadn(a + k, n - k), vf_loadn(b + i * ldb + k, n - k), sum[i]);
    EACH(i, R) out[i] = vf_fold(sum[i]);
}

float VARIANT(dot)(const float *a, const float *b, int64_t n)
{
    float d;
    dots(1, a, b, 0, n, &d);
    return d;
}

/* Without their sign bit floats compare as integers do, with Inf and NaN on top. */
float VARIANT(amax)(const float *x, int64_t n)
{
    const vi sign = vi_set(0x7fffffff);
    vi most[4] = { vi_set(0), vi_set(0), vi_set(0), vi_set(0) };
    int64_t i = 0;
    for (; i + 64 <= n; i += 64)
        EACH(j, 4) most[j] = vi_max(most[j], vi_and(vi_bits(vf_load(x + i + 16 * j)), sign));
    for (; i < n; i += 16) most[0] = vi_max(most[0], vi_and(vi_bits(load_to(x + i, n - i)), sign));
    return moe_f32_from_bits(vi_fold_max(vi_max(vi_max(most[0], most[1]), vi_max(most[2], most[3]))));
}

/* The larger of `most` and of the two bf16 magnitudes in each lane at p, as the upper halves of float32. */
LANE vi amax_pairs(vi most, const void *p)
{
    const vi upper = vi_set(0x7fff0000);
    vi u = vi_bits(vf_load(p));
    return vi_max(most, vi_max(vi_and(vi_shl(u, 16), upper), vi_and(u, upper)));
}

float VARIANT(amax_bf16)(const uint8_t *x, int64_t n)
{
    vi most[4] = { vi_set(0), vi_set(0), vi_set(0), vi_set(0) };
    uint8_t rest[64] = { 0 };
    int64_t i = 0;
    for (; i + 128 <= n; i += 128)
        EACH(j, 4) most[j] = amax_pairs(most[j], x + 2 * i + 64 * j);
    for (; i + 32 <= n; i += 32) most[0] = amax_pairs(most[0], x + 2 * i);
    if (i < n) memcpy(rest, x + 2 * i, 2 * (size_t)(n - i));
    most[1] = amax_pairs(most[1], rest);
    return moe_f32_from_bits(vi_fold_max(vi_max(vi_max(most[0], most[1]), vi_max(most[2], most[3]))));
}

void VARIANT(sqerr)(const float *x, const float *y, int64_t n, double *num, double *den)
{
    vd a = vd_zero(), b = vd_zero();
    for (int64_t i = 0; i < n; i += 16) {
        vd v = vd_of(load_to(x + i, n - i)), d = vd_sub(v, vd_of(load_to(y + i, n - i)));
        a = vd_fma(d, d, a);
        b = vd_fma(v, v, b);
    }
    *num += vd_fold(a);
    *den += vd_fold(b);
}

/* The sum is made in float32, and again in double where that overflows (values above 1e19). */
static double sum_of_squares(const float *x, int64_t n)
{
    double sum = (double)VARIANT(dot)(x, x, n), none = 0;
    if (isfinite(sum)) return sum;
    sum = 0;
    VARIANT(sqerr)(x, x, n, &none, &sum);
    return sum;
}

void VARIANT(rmsnorm)(const float *x, const float *w, float eps, int64_t n, float *out)
{
    vf scale = vf_set((float)(1 / sqrt(sum_of_squares(x, n) / (double)n + (double)eps)));
    for (int64_t i = 0; i < n; i += 16)
        store_to(out + i, n - i, vf_mul(vf_mul(load_to(x + i, n - i), scale), load_to(w + i, n - i)));
}

/* ---- exponentials ---- */

void VARIANT(exp)(const float *x, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i += 16) store_to(out + i, n - i, exp_lanes(load_to(x + i, n - i)));
}

void VARIANT(sigmoid)(const float *x, int64_t n, float *out)
{
    const vf one = vf_set(1);
    for (int64_t i = 0; i < n; i += 16) {
        vf e = exp_lanes(vf_sub(vf_zero(), load_to(x + i, n - i)));
        store_to(out + i, n - i, vf_div(one, vf_add(one, e)));
    }
}

/* Computed with e = exp(-|g|), which cannot overflow: g / (1 + e), or g * e / (1 + e) for a negative g. */
void VARIANT(swiglu)(const float *g, const float *u, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i += 16) {
        vf v = load_to(g + i, n - i), e = exp_lanes(vf_sub(vf_zero(), vf_abs(v)));
        vf top = vf_mul(v, vf_blend(vf_lt(v, vf_zero()), e, vf_set(1)));
        store_to(out + i, n - i, vf_mul(vf_div(top, vf_add(vf_set(1), e)), load_to(u + i, n - i)));
    }
}

void VARIANT(softmax)(float *x, int64_t n)
{
    vf most = vf_set(largest(x, n)), sum = vf_zero();
    for (int64_t i = 0; i < n; i += 16) {
        vf e = exp_lanes(vf_sub(load_to(x + i, n - i), most));
        if (n - i < 16) e = vf_blend(vm_first(n - i), e, vf_zero());
        sum = vf_add(sum, e);
        store_to(x + i, n - i, e);
    }
    sum = vf_set(vf_fold(sum));
    for (int64_t i = 0; i < n; i += 16) store_to(x + i, n - i, vf_div(load_to(x + i, n - i), sum));
}

/* ---- attention ---- */

void VARIANT(rope)(float *x, const float *cos, const float *sin, int64_t pairs)
{
    for (int64_t i = 0; i < pairs; i += 8) {
        int64_t m = moe_min_i64(8, pairs - i);
        vf v = load_to(x + 2 * i, 2 * m);
        store_to(x + 2 * i, 2 * m,
                 vf_fmaddsub(v, vf_twice(cos + i, m), vf_mul(vf_swap(v), vf_twice(sin + i, m))));
    }
}

/* out[i] = the sum over j of s[j] * v[j*ldv + i], for C times 16 columns, of which m exist. */
LANE void weighted(int C, const float *s, const float *v, int64_t ldv, int64_t n, int64_t m, float *out)
{
    vf sum[8];
    EACH(c, C) sum[c] = vf_zero();
    for (int64_t j = 0; j < n; j++)
        EACH(c, C) sum[c] = vf_fma(vf_set(s[j]), load_to(v + j * ldv + 16 * c, m - 16 * c), sum[c]);
    EACH(c, C) store_to(out + 16 * c, m - 16 * c, sum[c]);
}

void VARIANT(attend)(const float *q, const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t n,
                     int64_t dk, int64_t dv, float scale, float *s, float *out)
{
    int64_t j = 0, i = 0;
    for (; j + 4 <= n; j += 4) dots(4, q, k + j * ldk, ldk, dk, s + j);
    for (; j < n; j++) dots(1, q, k + j * ldk, ldk, dk, s + j);
    for (j = 0; j < n; j += 16) store_to(s + j, n - j, vf_mul(vf_set(scale), load_to(s + j, n - j)));
    VARIANT(softmax)(s, n);
    for (; i + 16 * ATTEND_WIDE <= dv; i += 16 * ATTEND_WIDE)
        weighted(ATTEND_WIDE, s, v + i, ldv, n, 16 * ATTEND_WIDE, out + i);
    for (; i < dv; i += 16) weighted(1, s, v + i, ldv, n, moe_min_i64(16, dv - i), out + i);
}

/* Runs as many chains of fma as hide its latency and fit the registers: 12 of zmm, or 6 of two ymm each.  No
 * two lanes start alike, or a compiler would compute one for both. */
double VARIANT(peak)(int64_t rounds, float *sink)
{
    static const float ramp[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    vf a = vf_set(0.999f), b = vf_set(0.001f), s0 = vf_load(ramp), s1 = vf_add(s0, vf_set(16)),
       s2 = vf_add(s0, vf_set(32));
    vf s3 = vf_add(s0, vf_set(48)), s4 = vf_add(s0, vf_set(64)), s5 = vf_add(s0, vf_set(80));
#if defined(__AVX512F__)
    vf s6 = vf_add(s0, vf_set(96)), s7 = vf_add(s1, vf_set(96)), s8 = vf_add(s2, vf_set(96)),
       s9 = vf_add(s3, vf_set(96));
    vf s10 = vf_add(s4, vf_set(96)), s11 = vf_add(s5, vf_set(96));
#endif
    for (int64_t r = 0; r < rounds; r++) {
        s0 = vf_fma(s0, a, b), s1 = vf_fma(s1, a, b), s2 = vf_fma(s2, a, b), s3 = vf_fma(s3, a, b),
        s4 = vf_fma(s4, a, b), s5 = vf_fma(s5, a, b);
#if defined(__AVX512F__)
        s6 = vf_fma(s6, a, b), s7 = vf_fma(s7, a, b), s8 = vf_fma(s8, a, b), s9 = vf_fma(s9, a, b),
        s10 = vf_fma(s10, a, b), s11 = vf_fma(s11, a, b);
#endif
    }
    vf sum = vf_add(vf_add(vf_add(s0, s1), vf_add(s2, s3)), vf_add(s4, s5));
#if defined(__AVX512F__)
    sum = vf_add(sum, vf_add(vf_add(vf_add(s6, s7), vf_add(s8, s9)), vf_add(s10, s11)));
    const int chains = 12;
#else
    const int chains = 6;
#endif
    *sink = vf_fold(sum);
    return 16.0 * chains * (double)rounds;
}
