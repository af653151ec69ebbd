/* tests/checkkern-form.h - checks of what calibration computes with: the general product, rounding against a quadratic form. */
#ifndef CHECKKERN_FORM_H
#define CHECKKERN_FORM_H

#include "tests/checkkern.h"
#include "tests/checkkern-vector.h"

/* Each chain of up to 256 fma is off by 256 U of the sum of magnitudes, the products by alpha and sums of the k / 256 + 1 chains by 2 U each
 * of what is there by then, ref by U. */
static double gemm_bound(int64_t k, double size, double c) { return (double)(k < 256 ? k : 256) * U * size + (double)(2 * (k / 256 + 1) + 1) * U * (size + fabs(c)) + 0x1p-140; }

static void check_gemm(const struct variant *v)
{
    for (int round = 0; round < 60; round++) {
        int64_t m = 1 + below(round % 10 == 9 ? 220 : 30), n = 1 + below(round % 7 == 6 ? 420 : 60), k = below(round % 5 == 4 ? 700 : 40);
        bool t = below(2);
        int64_t lda = (t ? m : k) + below(4), ai = t ? 1 : lda, ap = t ? lda : 1, bp = n + below(4), ldc = n + below(4);
        float alpha = below(3) == 0 ? -1 : below(2) ? 1 : .37f;
        int64_t na = m * ai + k * ap, nb = (k ? k - 1 : 0) * bp + n, nc = (m - 1) * ldc + n;
        float *a = floats(na), *b = floats(nb), *c = floats(nc), *want = floats(nc), *got = floats(nc), *other = floats(nc);
        enum pattern p = (enum pattern)(below(2) ? NORMAL : below(2) ? UNIFORM : DENORMAL);
        fill(a, na, p), fill(b, nb, NORMAL), fill(c, nc, NORMAL);
        snprintf(now_case, sizeof now_case, "%" PRId64 " x %" PRId64 " x %" PRId64 ", %s", m, n, k, pattern_name[p]);
        memcpy(want, c, sizeof *c * (size_t)nc), memcpy(got, c, sizeof *c * (size_t)nc), memcpy(other, c, sizeof *c * (size_t)nc);
        variants[0].k.gemm(m, n, k, alpha, a, ai, ap, b, bp, want, ldc);
        v->k.gemm(m, n, k, alpha, a, ai, ap, b, bp, got, ldc);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                double size = 0, x = want[i * ldc + j], y = got[i * ldc + j];
                for (int64_t q = 0; q < k; q++) size += fabs((double)a[i * ai + q * ap] * (double)b[q * bp + j] * (double)alpha);
                CHECK(fabs(x - y) <= gemm_bound(k, size, (double)c[i * ldc + j]), "[%" PRId64 ",%" PRId64 "]: %a, ref %a", i, j, y, x);
            }
        for (int64_t i = 0; i < m; i++) /* what lies between rows stays */
            for (int64_t j = n; j < ldc && i < m - 1; j++) CHECK(same_bits(&c[i * ldc + j], &got[i * ldc + j], 1), "wrote past a row");
        if (v == &variants[2]) {
            variants[1].k.gemm(m, n, k, alpha, a, ai, ap, b, bp, other, ldc);
            CHECK(same_bits(other, got, nc), "avx2 and avx512 differ");
        }
        done();
    }
}

static bool equal(const float *a, const float *b, int64_t n) /* -0 is 0 */
{
    for (int64_t i = 0; i < n; i++)
        if (a[i] != b[i]) return false;
    return true;
}

/* Rows of one block: targets that earlier feedback moved away from the weights. */
static void check_nvfp4_feedback(const struct variant *v)
{
    for (int round = 0; round < 200; round++) {
        int64_t n = 1 + below(40), ld = n + below(5), ldl = 16 + below(20), all = 15 * ld + n;
        enum pattern p = (enum pattern)(round % PATTERNS);
        float *l = floats(15 * ldl + 16), *d = floats(16), *w = floats(all), *a = floats(all), *q[2] = { floats(all), floats(all) }, *cost[2] = { floats(n), floats(n) };
        uint8_t *scale[2] = { buf((size_t)n, 0), buf((size_t)n, 1) };
        float global = p == DENORMAL ? 0x1p-126f : ldexpf(1, (int)below(12) - 14);
        fill(l, 15 * ldl + 16, UNIFORM), fill(d, 16, UNIFORM), fill(w, all, p), fill(a, all, NORMAL);
        for (int64_t i = 0; i < 15 * ldl + 16; i++) l[i] *= round & 1 ? .3f : 0;
        for (int i = 0; i < 16; i++) d[i] = fabsf(d[i]) + 1e-3f;
        for (int64_t i = 0; i < all; i++) a[i] = w[i] + (round & 1 ? a[i] * .01f * fabsf(w[i]) : 0);
        for (int64_t r = 0; r < n; r++) scale[0][r] = scale[1][r] = below(5) ? 0 : (uint8_t)(1 + below(126));
        snprintf(now_case, sizeof now_case, "%" PRId64 " rows, %s", n, pattern_name[p]);
        for (int k = 0; k < 2; k++) {
            memset(q[k], 0, sizeof(float) * (size_t)all);
            if (k && round % 3 == 0) memcpy(q[k], a, sizeof(float) * (size_t)all); /* in place */
            (k ? v : variants)->k.nvfp4_feedback(l, ldl, d, w, k && round % 3 == 0 ? q[k] : a, ld, n, global, q[k], scale[k], cost[k]);
        }
        for (int64_t r = 0; r < n; r++) {
            CHECK(scale[0][r] == scale[1][r], "row %" PRId64 ": scale %d, ref %d", r, scale[1][r], scale[0][r]);
            for (int j = 0; j < 16; j++) CHECK(q[0][j * ld + r] == q[1][j * ld + r], "row %" PRId64 ", column %d: %a, ref %a", r, j, (double)q[1][j * ld + r], (double)q[0][j * ld + r]);
        }
        CHECK(equal(cost[0], cost[1], n), "costs differ from ref's");
        done();
    }
}

/* A diagonally dominant form, as a damped Gram matrix is not always; the arithmetic does not ask for more. */
static void check_nvfp4_descend(const struct variant *v)
{
    for (int round = 0; round < 120; round++) {
        int64_t b = 16 * (1 + below(8)), n = 1 + below(40), ld = n + below(5), ldh = b + below(5), all = (b - 1) * ld + n;
        float *h = floats((b - 1) * ldh + b), *s = floats((b / 16 - 1) * ld + n);
        float *q[2] = { floats(all), floats(all) }, *g[2] = { floats(all), floats(all) }, *d[2] = { floats(all), floats(all) };
        for (int64_t i = 0; i < b; i++)
            for (int64_t j = 0; j <= i; j++) h[i * ldh + j] = h[j * ldh + i] = i == j ? 1 + fabsf(normal()) : .1f * normal();
        for (int64_t i = 0; i < (b / 16 - 1) * ld + n; i++) s[i] = ldexpf(1 + fabsf(uniform()), (int)below(5) - 3);
        for (int64_t i = 0; i < all; i++) {
            float step = s[i / ld / 16 * ld + (i % ld < n ? i % ld : 0)];
            q[0][i] = q[1][i] = moe_e2m1_to_f32((uint8_t)below(16)) * step;
            g[0][i] = g[1][i] = (round & 1 ? 2.0f : .2f) * normal();
            d[0][i] = d[1][i] = 0;
        }
        snprintf(now_case, sizeof now_case, "%" PRId64 " columns, %" PRId64 " rows", b, n);
        for (int k = 0; k < 2; k++) (k ? v : variants)->k.nvfp4_descend(h, ldh, b, s, q[k], g[k], d[k], ld, n);
        CHECK(equal(q[0], q[1], all), "values differ from ref's");
        CHECK(equal(g[0], g[1], all), "gradients differ from ref's");
        CHECK(equal(d[0], d[1], all), "changes differ from ref's");
        done();
    }
}

#endif
