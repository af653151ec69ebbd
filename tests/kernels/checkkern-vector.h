/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/checkkern-vector.h - checks of sums, norms, activations and attention.  U is the unit
 * roundoff of float32; the bounds count roundings, each off by at most U of its result.  avx512 is compared
 * with avx2, too: these two have to give the same bits. */
#ifndef CHECKKERN_VECTOR_H
#define CHECKKERN_VECTOR_H

#include "tests/kernels/checkkern-weight.h"
#include "tests/kernels/checkkern.h"

#define U 0x1p-24

/* Each of `got` has to be within rel * U * |want| + absolute of its `want`, and NaN or Inf where that is. */
static void compare(const float *want, const float *got, int64_t n, double rel, double absolute)
{
    for (int64_t i = 0; i < n; i++) {
        bool ok = isnan(want[i]) ? isnan(got[i])
                : isinf(want[i])
                    ? got[i] == want[i]
                    : fabs((double)got[i] - (double)want[i]) <= rel * U * fabs((double)want[i]) + absolute;
        CHECK(ok, "[%" PRId64 "]: %a, ref %a", i, (double)got[i], (double)want[i]);
    }
}

/* Sets what a failed CHECK says of the case. */
static void describe(int64_t n, enum pattern p)
{
    snprintf(now_case, sizeof now_case, "%" PRId64 " values, %s", n, pattern_name[p]);
}

/* The size for round i: 0 to 69 first (but at least `least`), then random larger ones. */
static int64_t round_size(int i, int64_t least)
{
    return i < 70 ? (i < least ? least : i) : least + random_below(2000);
}

static void check_dot(const struct variant *v)
{
    for (int i = 0; i < 300; i++) {
        int64_t n = round_size(i, 0);
        enum pattern p = (enum pattern)(i % PATTERNS);
        float *a = guarded_floats(n), *b = guarded_floats(n), other;
        double size = 0;
        fill(a, n, p), fill(b, n, (enum pattern)random_below(PATTERNS));
        describe(n, p);
        for (int64_t k = 0; k < n; k++) size += fabs((double)a[k] * (double)b[k]);
        float want = variants[REF].k.dot(a, b, n), got = v->k.dot(a, b, n);
        CHECK(fabs((double)want - (double)got) <= dot_bound(n, size), "%g, ref %g", (double)got,
              (double)want);
        other = v == &variants[AVX512] ? variants[AVX2].k.dot(a, b, n) : got;
        CHECK(same_bits(&other, &got, 1), "avx2 and avx512 differ");
        free_buffers();
    }
}

static void check_amax(const struct variant *v)
{
    for (int i = 0; i < 400; i++) {
        int64_t n = round_size(i % 200, 0);
        float *x = guarded_floats(n);
        fill(x, n, (enum pattern)(i % PATTERNS));
        for (int j = random_below(4) == 0 ? 3 : 0; n && j; j--)
            x[random_below(n)] = j == 1 ? NAN : j == 2 ? INFINITY : -INFINITY;
        if (n && random_below(3) == 0) x[n - 1] = -7e37f;
        describe(n, (enum pattern)(i % PATTERNS));
        float want = variants[REF].k.amax(x, n), got = v->k.amax(x, n);
        CHECK(moe_f32_bits(want) == moe_f32_bits(got), "%g, ref %g", (double)got, (double)want);
        free_buffers();
    }
}

static void check_amax_bf16(const struct variant *v)
{
    for (int i = 0; i < 400; i++) {
        int64_t n = round_size(i % 200, 0);
        uint8_t *x = guarded_buffer(2 * (size_t)n, (size_t)random_below(4));
        /* any bits; in three of four rounds no NaN */
        for (int64_t k = 0; k < 2 * n; k++)
            x[k] = (uint8_t)(k % 2 && i % 4 ? random_bits() & 0xbf : random_bits());
        if (n && i % 4 == 1) memcpy(x + 2 * random_below(n), &(uint16_t){ 0xff80 }, 2);
        if (n && i % 8 == 2) memcpy(x + 2 * (n - 1), &(uint16_t){ 0x7f7f }, 2);
        snprintf(now_case, sizeof now_case, "n %" PRId64, n);
        float want = variants[REF].k.amax_bf16(x, n), got = v->k.amax_bf16(x, n);
        CHECK(moe_f32_bits(want) == moe_f32_bits(got), "%g, ref %g", (double)got, (double)want);
        free_buffers();
    }
}

static void check_sqerr(const struct variant *v)
{
    for (int i = 0; i < 300; i++) {
        int64_t n = round_size(i, 0);
        float *x = guarded_floats(n), *y = guarded_floats(n);
        double want[2] = { .5, 7 }, got[2] = { .5, 7 };
        fill(x, n, (enum pattern)(i % PATTERNS)), fill(y, n, (enum pattern)random_below(PATTERNS));
        describe(n, (enum pattern)(i % PATTERNS));
        variants[REF].k.sqerr(x, y, n, &want[0], &want[1]);
        v->k.sqerr(x, y, n, &got[0], &got[1]);
        CHECK(!memcmp(want, got, sizeof want), "%a %a, ref %a %a", got[0], got[1], want[0], want[1]);
        free_buffers();
    }
}

/* The sum of squares is off by (n/16 + 5) U, and its root by half of that; the scale, two products and ref
 * add 4 U. */
static void check_rmsnorm(const struct variant *v)
{
    for (int i = 0; i < 300; i++) {
        int64_t n = round_size(i, 1);
        float *x = guarded_floats(n), *w = guarded_floats(n), *want = guarded_floats(n),
              *got = guarded_floats(n), *other = guarded_floats(n);
        float eps = random_below(2) ? 1e-6f : 1e-5f, huge = 0x1p-40f * powf(2, (float)random_below(110));
        fill(x, n, (enum pattern)(i % PATTERNS)), fill(w, n, (enum pattern)random_below(2));
        for (int64_t k = 0; i % 4 == 3 && k < n; k++) x[k] *= huge; /* squares beyond float32 */
        describe(n, (enum pattern)(i % PATTERNS));
        variants[REF].k.rmsnorm(x, w, eps, n, want);
        if (v == &variants[AVX512]) variants[AVX2].k.rmsnorm(x, w, eps, n, other);
        memcpy(got, x, sizeof *x * (size_t)n);
        v->k.rmsnorm(i & 1 ? got : x, w, eps, n, got);
        compare(want, got, n, (double)(n / 16 + 6) / 2 + 4, 0x1p-147);
        if (v == &variants[AVX512]) CHECK(same_bits(other, got, n), "avx2 and avx512 differ");
        free_buffers();
    }
}

/* e^-|g| is within 4 U (2 units in the last place); below the normal numbers within 2^-149, which |g| < 105
 * multiplies.  The sum 1 + e passes at most 4 U on to the quotient.  Product, sum, quotient, product and ref
 * add 5 U: 14 U suffice for all. */
static void check_swiglu(const struct variant *v)
{
    static const float special[] = { 0,      -0.f,   INFINITY, -INFINITY, NAN,  88.72f, 88.73f, -87.33f,
                                     -88.7f, -88.8f, -103.9f,  -104.1f,   -110, -1e30f, 1e30f,  1e-40f };
    for (int i = 0; i < 300; i++) {
        int64_t n = round_size(i, 0);
        float *g = guarded_floats(n), *u = guarded_floats(n), *want = guarded_floats(n),
              *got = guarded_floats(n), *other = guarded_floats(n), most = 1;
        fill(g, n, (enum pattern)(i % PATTERNS)), fill(u, n, (enum pattern)random_below(2));
        for (int64_t k = 0; k < n; k++) {
            if (i % 3 == 0) g[k] *= 40;
            if (i % 4 == 0 && random_below(4) == 0) g[k] = special[random_below(16)];
            most = fmaxf(most, fabsf(u[k]));
        }
        describe(n, (enum pattern)(i % PATTERNS));
        variants[REF].k.swiglu(g, u, n, want);
        if (v == &variants[AVX512]) variants[AVX2].k.swiglu(g, u, n, other);
        memcpy(got, i & 1 ? g : u, sizeof *g * (size_t)n);
        v->k.swiglu(i & 1 ? got : g, i & 1 ? u : got, n, got);
        compare(want, got, n, 14, 0x1p-142 * (double)most);
        if (v == &variants[AVX512]) CHECK(same_bits(other, got, n), "avx2 and avx512 differ");
        free_buffers();
    }
}

/* x - max is off by U |x - max|, which is at most 104 U, as beyond that the result is 0.  The exponential
 * adds 4 U. The sum passes on the mean of these errors, where ln n bounds the mean of |x - max|, and adds
 * (n/16 + 5) U. The quotient and ref add 2 U.  Results below the normal numbers are within 2^-149. */
static double softmax_units(int64_t n) { return 105 + log((double)n) + (double)(n / 16) + 16; }

static void check_softmax(const struct variant *v)
{
    for (int i = 0; i < 400; i++) {
        int64_t n = round_size(i % 200, 1);
        float *x = guarded_floats(n), *want = guarded_floats(n), *other = guarded_floats(n);
        fill(x, n, (enum pattern)(i % PATTERNS));
        for (int64_t k = 0; k < n; k++) {
            if (i % 3 == 0) x[k] *= 50;
            if (i % 5 == 0 && random_below(3) == 0) x[k] = -INFINITY;
            if (i % 40 == 1 && random_below(9) == 0) x[k] = NAN;
            if (i % 40 == 2) x[k] = -INFINITY;
            if (i % 40 == 3 && random_below(9) == 0) x[k] = INFINITY;
        }
        describe(n, (enum pattern)(i % PATTERNS));
        memcpy(want, x, sizeof *x * (size_t)n), memcpy(other, x, sizeof *x * (size_t)n);
        variants[REF].k.softmax(want, n);
        if (v == &variants[AVX512]) variants[AVX2].k.softmax(other, n);
        v->k.softmax(x, n);
        compare(want, x, n, softmax_units(n), 0x1p-147);
        if (v == &variants[AVX512]) CHECK(same_bits(other, x, n), "avx2 and avx512 differ");
        free_buffers();
    }
    for (int i = 0; i < 20000; i++) { /* e^x nearly alone: of [0, x] softmax makes e / (1 + e) */
        float x[2] = { 0, -(float)random_below(1 << 24) * 0x1p-17f }, want[2] = { 0, x[1] };
        snprintf(now_case, sizeof now_case, "exp(%a)", (double)x[1]);
        variants[REF].k.softmax(want, 2), v->k.softmax(x, 2);
        compare(want, x, 2, 10, 0x1p-148);
    }
}

/* A result is a product and an fma, each off by at most U of its size, and ref is off by U. */
static void check_rope(const struct variant *v)
{
    for (int i = 0; i < 200; i++) {
        int64_t n = i < 40 ? i : random_below(300);
        float *x = guarded_floats(2 * n), *c = guarded_floats(n), *s = guarded_floats(n),
              *want = guarded_floats(2 * n), *other = guarded_floats(2 * n), *old = guarded_floats(2 * n);
        fill(x, 2 * n, (enum pattern)(i % PATTERNS));
        for (int64_t k = 0; k < n; k++) {
            double a = 4 * (double)random_uniform();
            c[k] = (float)cos(a), s[k] = (float)sin(a);
        }
        describe(2 * n, (enum pattern)(i % PATTERNS));
        memcpy(want, x, sizeof *x * 2 * (size_t)n), memcpy(other, want, sizeof *x * 2 * (size_t)n),
            memcpy(old, want, sizeof *x * 2 * (size_t)n);
        variants[REF].k.rope(want, c, s, n);
        if (v == &variants[AVX512]) variants[AVX2].k.rope(other, c, s, n);
        v->k.rope(x, c, s, n);
        for (int64_t k = 0; k < 2 * n; k++) {
            double size = fabs((double)old[k] * (double)c[k / 2]) +
                          fabs((double)old[k ^ 1] * (double)s[k / 2]);
            CHECK(fabs((double)x[k] - (double)want[k]) <= 3 * U * size + 0x1p-148,
                  "[%" PRId64 "]: %a, ref %a", k, (double)x[k], (double)want[k]);
        }
        if (v == &variants[AVX512]) CHECK(same_bits(other, x, 2 * n), "avx2 and avx512 differ");
        free_buffers();
    }
}

/* Scores are off by at most d, the largest |scale| dot_bound + 2 U |score|.  So the weights are off by a
 * factor of at most e^(2d), besides what softmax adds, and the weighted sum adds n U: all relative to the sum
 * of weight |value|, where w holds ref's weights and x the values. */
static void check_attend(const struct variant *v)
{
    for (int i = 0; i < 120; i++) {
        int64_t n = i < 24 ? i + 1 : 1 + random_below(150), dk = 1 + random_below(i % 2 ? 600 : 70),
                dv = 1 + random_below(i % 2 ? 530 : 70), ldk = dk + random_below(4),
                ldv = dv + random_below(4);
        float *q = guarded_floats(dk), *k = guarded_floats((n - 1) * ldk + dk),
              *x = guarded_floats((n - 1) * ldv + dv), scale = 1 / sqrtf((float)dk),
              *got = guarded_floats(dv);
        float *want = guarded_floats(dv), *s = guarded_floats(n), *w = guarded_floats(n),
              *other = guarded_floats(dv);
        enum pattern p = i % 5 == 4 ? TIES : (enum pattern)(i % 2);
        fill(q, dk, p), fill(k, (n - 1) * ldk + dk, p),
            fill(x, (n - 1) * ldv + dv, (enum pattern)random_below(PATTERNS));
        snprintf(now_case, sizeof now_case, "%" PRId64 " keys of %" PRId64 ", values of %" PRId64 ", %s", n,
                 dk, dv, pattern_name[p]);
        variants[REF].k.attend(q, k, ldk, x, ldv, n, dk, dv, scale, w, want);
        if (v == &variants[AVX512]) variants[AVX2].k.attend(q, k, ldk, x, ldv, n, dk, dv, scale, s, other);
        v->k.attend(q, k, ldk, x, ldv, n, dk, dv, scale, s, got);
        double d = 0;
        for (int64_t j = 0; j < n; j++) {
            double size = 0;
            for (int64_t c = 0; c < dk; c++) size += fabs((double)q[c] * (double)k[j * ldk + c]);
            d = fmax(d, (double)scale * (dot_bound(dk, size) + 2 * U * size));
        }
        double rel = expm1(2 * d) + (softmax_units(n) + (double)n) * U;
        for (int64_t c = 0; c < dv; c++) {
            double size = 0;
            for (int64_t j = 0; j < n; j++) size += (double)w[j] * fabs((double)x[j * ldv + c]);
            CHECK(fabs((double)got[c] - (double)want[c]) <= rel * size + (double)n * 0x1p-147,
                  "[%" PRId64 "]: %g, ref %g", c, (double)got[c], (double)want[c]);
        }
        if (v == &variants[AVX512]) CHECK(same_bits(other, got, dv), "avx2 and avx512 differ");
        free_buffers();
    }
}

/* The kernels called peak return how many multiply-adds they did, and set a number that depends on all of
 * them.  peak_bf16 and peak_vnni do some only where the processor has the instruction, and else return 0. */
static void check_peak(const struct variant *v)
{
    unsigned flags = v == &variants[AVX512DOT] ? moe_cpu_flags() : 0;
    float sum = NAN;
    snprintf(now_case, sizeof now_case, "1000 rounds");
    CHECK(v->k.peak(1000, &sum) >= 8000 && isfinite(sum), "peak");
    for (int i = 0; i < 2; i++) {
        double done = (i ? v->k.peak_vnni : v->k.peak_bf16)(1000, &sum);
        CHECK(isfinite(sum) && (flags & (i ? MOE_CPU_VNNI : MOE_CPU_BF16) ? done >= 16000 : done == 0),
              "peak_%s: %g", i ? "vnni" : "bf16", done);
    }
}

#endif
