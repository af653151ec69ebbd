/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/checkkern-calibration.h - checks of the kernels of calibration: the general matrix product,
 * and rounding that looks at the Hessian of a layer's error. */
#ifndef CHECKKERN_CALIBRATION_H
#define CHECKKERN_CALIBRATION_H

#include "tests/kernels/checkkern-vector.h"
#include "tests/kernels/checkkern.h"

/* The bound on the error of one element; size: the sum of the magnitudes of its products, c: its old value.
 * U is the unit roundoff.  Each chain of up to 256 fma is off by at most 256 U of `size`.  Each of the
 * k / 256 + 1 chains adds 2 U of the sum so far, for its product with alpha and for the addition; ref adds
 * U. */
static double gemm_bound(int64_t k, double size, double c)
{
    return (double)(k < 256 ? k : 256) * U * size + (double)(2 * (k / 256 + 1) + 1) * U * (size + fabs(c)) +
           0x1p-140;
}

static void check_gemm(const struct variant *v)
{
    for (int round = 0; round < 60; round++) {
        int64_t m = 1 + random_below(round % 10 == 9 ? 220 : 30),
                n = 1 + random_below(round % 7 == 6 ? 420 : 60), k = random_below(round % 5 == 4 ? 700 : 40);
        bool t = random_below(2);
        int64_t lda = (t ? m : k) + random_below(4), ai = t ? 1 : lda, ap = t ? lda : 1,
                bp = n + random_below(4), ldc = n + random_below(4);
        float alpha = random_below(3) == 0 ? -1 : random_below(2) ? 1 : .37f;
        int64_t na = m * ai + k * ap, nb = (k ? k - 1 : 0) * bp + n, nc = (m - 1) * ldc + n;
        float *a = guarded_floats(na), *b = guarded_floats(nb), *c = guarded_floats(nc),
              *want = guarded_floats(nc), *got = guarded_floats(nc), *other = guarded_floats(nc);
        enum pattern p = (enum pattern)(random_below(2) ? NORMAL : random_below(2) ? UNIFORM : DENORMAL);
        fill(a, na, p), fill(b, nb, NORMAL), fill(c, nc, NORMAL);
        snprintf(now_case, sizeof now_case, "%" PRId64 " x %" PRId64 " x %" PRId64 ", %s", m, n, k,
                 pattern_name[p]);
        memcpy(want, c, sizeof *c * (size_t)nc), memcpy(got, c, sizeof *c * (size_t)nc),
            memcpy(other, c, sizeof *c * (size_t)nc);
        variants[REF].k.gemm(m, n, k, alpha, a, ai, ap, b, bp, want, ldc);
        v->k.gemm(m, n, k, alpha, a, ai, ap, b, bp, got, ldc);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                double size = 0, x = want[i * ldc + j], y = got[i * ldc + j];
                for (int64_t q = 0; q < k; q++)
                    size += fabs((double)a[i * ai + q * ap] * (double)b[q * bp + j] * (double)alpha);
                CHECK(fabs(x - y) <= gemm_bound(k, size, (double)c[i * ldc + j]),
                      "[%" PRId64 ",%" PRId64 "]: %a, ref %a", i, j, y, x);
            }
        for (int64_t i = 0; i < m; i++) /* what lies between rows stays */
            for (int64_t j = n; j < ldc && i < m - 1; j++)
                CHECK(same_bits(&c[i * ldc + j], &got[i * ldc + j], 1), "wrote past a row");
        if (v == &variants[AVX512]) {
            variants[AVX2].k.gemm(m, n, k, alpha, a, ai, ap, b, bp, other, ldc);
            CHECK(same_bits(other, got, nc), "avx2 and avx512 differ");
        }
        free_buffers();
    }
}

/* Whether a and b are equal; -0 equals 0. */
static bool equal(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (a[i] != b[i]) return false;
    return true;
}

/* In half of the rounds targets differ from the weights, as feedback from earlier blocks makes them; in the
 * others there is no feedback. */
static void check_nvfp4_feedback(const struct variant *v)
{
    for (int round = 0; round < 400; round++) {
        int64_t b = 16 * (1 + random_below(9)), ldl = b + random_below(5), all = (b - 1) * ldl + b;
        enum pattern p = (enum pattern)(round % PATTERNS);
        float *l = guarded_floats(all), *d = guarded_floats(b), *w = guarded_floats(b),
              *a[2] = { guarded_floats(b), guarded_floats(b) },
              *q[2] = { guarded_floats(b), guarded_floats(b) };
        uint8_t *scale[2] = { guarded_buffer((size_t)b / 16, 0), guarded_buffer((size_t)b / 16, 1) };
        float global = p == DENORMAL ? 0x1p-126f : ldexpf(1, (int)random_below(12) - 14);
        fill(l, all, UNIFORM), fill(d, b, UNIFORM), fill(w, b, p), fill(a[0], b, NORMAL);
        for (int64_t i = 0; i < all; i++) l[i] *= round & 1 ? .3f : 0;
        for (int64_t i = 0; i < b; i++)
            d[i] = fabsf(d[i]) + 1e-3f,
            a[0][i] = a[1][i] = w[i] + (round & 1 ? a[0][i] * .01f * fabsf(w[i]) : 0);
        if (random_below(4) == 0) memset(w, 0, 64), memset(a[0], 0, 64), memset(a[1], 0, 64);
        snprintf(now_case, sizeof now_case, "%" PRId64 " columns, %s", b, pattern_name[p]);
        for (int k = 0; k < 2; k++)
            (k ? v : variants)->k.nvfp4_feedback(l, ldl, d, b, w, a[k], global, q[k], scale[k]);
        CHECK(!memcmp(scale[0], scale[1], (size_t)b / 16), "scales differ from ref's");
        CHECK(equal(q[0], q[1], b), "values differ from ref's");
        CHECK(equal(a[0], a[1], b), "targets differ from ref's");
        free_buffers();
    }
}

/* The Hessian h is symmetric with a large diagonal.  A damped Gram matrix has more structure, but the
 * arithmetic does not need it. */
static void check_nvfp4_descend(const struct variant *v)
{
    for (int round = 0; round < 200; round++) {
        int64_t b = 16 * (1 + random_below(8)), ldh = b + random_below(5);
        float *h = guarded_floats((b - 1) * ldh + b), *s = guarded_floats(b / 16),
              *q[2] = { guarded_floats(b), guarded_floats(b) },
              *g[2] = { guarded_floats(b), guarded_floats(b) },
              *d[2] = { guarded_floats(b), guarded_floats(b) };
        for (int64_t i = 0; i < b; i++)
            for (int64_t j = 0; j <= i; j++)
                h[i * ldh + j] = h[j * ldh + i] = i == j ? 1 + fabsf(random_normal()) : .1f * random_normal();
        for (int64_t i = 0; i < b / 16; i++)
            s[i] = ldexpf(1 + fabsf(random_uniform()), (int)random_below(5) - 3);
        for (int64_t i = 0; i < b; i++) {
            q[0][i] = q[1][i] = moe_e2m1_to_f32((uint8_t)random_below(16)) * s[i / 16];
            g[0][i] = g[1][i] = (round & 1 ? 2.0f : .2f) * random_normal();
            d[0][i] = d[1][i] = 0;
        }
        snprintf(now_case, sizeof now_case, "%" PRId64 " columns", b);
        for (int k = 0; k < 2; k++) (k ? v : variants)->k.nvfp4_descend(h, ldh, b, s, q[k], g[k], d[k]);
        CHECK(equal(q[0], q[1], b), "values differ from ref's");
        CHECK(equal(g[0], g[1], b), "gradients differ from ref's");
        CHECK(equal(d[0], d[1], b), "changes differ from ref's");
        free_buffers();
    }
}

#endif
