/* SPDX-License-Identifier: Apache-2.0 */
/* Tests Hessians and rounding: factors against double arithmetic, the error under the Hessian against other
 * ways to round, extreme statistics. */
#undef NDEBUG
#include "kernels/kernels.h"
#include "kernels/scalar.h"
#include "quantize/rounding/matrix.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct moe_err err = MOE_ERR_INIT;
static void must_succeed(enum moe_code code)
{
    if (code != MOE_OK) fprintf(stderr, "%s\n", err.msg);
    assert(code == MOE_OK);
}

static uint64_t state = 88172645463325252ULL;
static double uniform(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (double)(state >> 11) * 0x1p-53;
}
static double normal(void) { return sqrt(-2 * log(uniform() + 1e-300)) * cos(6.283185307179586 * uniform()); }

static float *random_numbers(int64_t n)
{
    float *x = malloc((size_t)n * sizeof *x);
    assert(x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)normal();
    return x;
}

/* Correlated inputs: a few directions and noise, some columns ten times the others. */
static float *random_inputs(int64_t n, int64_t k)
{
    float *x = random_numbers(n * k), *basis = random_numbers(4 * k);
    for (int64_t t = 0; t < n; t++) {
        double w[4] = { 3 * normal(), 2 * normal(), normal(), normal() };
        for (int64_t i = 0; i < k; i++) {
            for (int b = 0; b < 4; b++) x[t * k + i] += (float)(w[b] * (double)basis[b * k + i]);
            if (i % 17 == 3) x[t * k + i] *= 10;
        }
    }
    free(basis);
    return x;
}

static void fill_hessian(struct moe_hessian *f, int64_t n, struct moe_pool *pool)
{
    float *x = random_inputs(n, f->k);
    moe_hessian_clear(f);
    moe_hessian_add(f, x, f->k, n, pool);
    free(x);
}

/* L D L^T is H, and solving with it undoes a multiplication by H. */
static void test_factor(struct moe_pool *pool)
{
    static const int64_t sizes[] = { 16, 96, 208, 400 };
    for (int s = 0; s < 4; s++) {
        int64_t k = sizes[s];
        struct moe_hessian f;
        must_succeed(moe_hessian_open(&f, k, &err));
        fill_hessian(&f, 3 * k, pool);
        must_succeed(moe_hessian_factor(&f, .01, pool, &err));
        double worst = 0, size = 0;
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j <= i; j++) {
                double sum = 0;
                for (int64_t p = 0; p <= j; p++)
                    sum += (double)f.l[i * k + p] * (double)f.d[p] * (double)f.l[j * k + p];
                worst = fmax(worst, fabs(sum - (double)f.h[i * k + j]));
                size = fmax(size, fabs((double)f.h[i * k + j]));
                assert(f.h[i * k + j] == f.h[j * k + i] && (i == j || f.l[j * k + i] == 0));
            }
        assert(worst <= 2e-5 * size);
        float *x = random_numbers(k * 5), *y = malloc((size_t)(k * 5) * sizeof *y);
        memset(y, 0, (size_t)(k * 5) * sizeof *y);
        moe_gemm(pool, k, 5, k, 1, f.h, k, 1, x, 5, y, 5);
        moe_hessian_solve(&f, y, 5, pool);
        for (int64_t i = 0; i < k * 5; i++) assert(fabs((double)y[i] - (double)x[i]) < .05);
        free(x), free(y);
        moe_hessian_release(&f);
    }
}

/* tr(G E H E^T) in double. */
static double weighted_error(const struct moe_hessian *h, const struct moe_hessian *g, const float *w,
                             const float *q, int64_t n)
{
    int64_t k = h->k;
    double *eh = calloc((size_t)(n * k), sizeof *eh), total = 0;
    assert(eh);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++) {
            double e = (double)w[i * k + j] - (double)q[i * k + j];
            for (int64_t l = 0; l < k; l++) eh[i * k + l] += e * (double)h->h[j * k + l];
        }
    for (int64_t i = 0; i < n; i++)
        for (int64_t p = 0; p < n; p++) {
            double m = g ? (double)g->h[i * g->k + p] : i == p;
            for (int64_t j = 0; m != 0 && j < k; j++)
                total += m * eh[i * k + j] * ((double)w[p * k + j] - (double)q[p * k + j]);
        }
    free(eh);
    return total;
}

static void round_weight(const struct moe_hessian *h, const struct moe_hessian *g, const float *w, int64_t n,
                         int sweeps, float *q, uint8_t *scale, struct moe_pool *pool)
{
    int64_t k = h->k;
    float amax = moe_kernels()->amax(w, n * k),
          *scratch = malloc((size_t)moe_round_scratch(n, k) * sizeof *scratch);
    struct moe_round r = { h, g, sweeps, moe_nvfp4_global(amax, MOE_NVFP4_SEARCH), n, w, q, scale, scratch };
    assert(scratch);
    moe_round_run(&r, pool);
    for (int64_t i = 0; i < n * k; i++) { /* every value is on its grid */
        float s = moe_e4m3_to_f32(scale[i / 16]) * r.global;
        assert(q[i] == moe_e2m1_to_f32(moe_f32_to_e2m1(q[i] / s)) * s);
    }
    free(scratch);
}

/* Rounds by the best of all scales without the Hessian, as --method search does. */
static void round_by_search(const float *w, int64_t n, float *q)
{
    float global = moe_nvfp4_global(moe_kernels()->amax(w, n), MOE_NVFP4_SEARCH);
    uint8_t *codes = malloc((size_t)n / 2), *scales = malloc((size_t)n / 16);
    assert(codes && scales);
    moe_kernels()->nvfp4_quantize(MOE_NVFP4_SEARCH, w, n, global, codes, scales);
    for (int64_t i = 0; i < n; i++)
        q[i] = moe_e2m1_to_f32(codes[i / 2] >> 4 * (i & 1) & 15) * (moe_e4m3_to_f32(scales[i / 16]) * global);
    free(codes), free(scales);
}

/* Feedback at least halves the error of search; descent never makes it larger; rows that matter together
 * gain from an output Hessian. */
static void test_error(struct moe_pool *pool)
{
    for (int round = 0; round < 3; round++) {
        int64_t k = 64 + 80 * round, n = 48 + 32 * round;
        struct moe_hessian h, g;
        must_succeed(moe_hessian_open(&h, k, &err)), must_succeed(moe_hessian_open(&g, n, &err));
        fill_hessian(&h, 4 * k, pool), fill_hessian(&g, 4 * n, pool);
        must_succeed(moe_hessian_factor(&h, .01, pool, &err)),
            must_succeed(moe_hessian_factor(&g, .01, pool, &err));
        float *w = random_numbers(n * k), *q = random_numbers(n * k), *plain = random_numbers(n * k);
        uint8_t *scale = malloc((size_t)(n * k / 16));
        double e[2][4];
        for (int two_sided = 0; two_sided < 2; two_sided++) {
            const struct moe_hessian *m = two_sided ? &g : NULL;
            round_by_search(w, n * k, plain);
            e[two_sided][0] = weighted_error(&h, m, w, plain, n);
            for (int s = 0; s < 3; s++) {
                round_weight(&h, m, w, n, s * 2, q, scale, pool);
                e[two_sided][1 + s] = weighted_error(&h, m, w, q, n);
                if (s == 0 && two_sided) { /* against rounding that knows nothing of the rows */
                    round_weight(&h, NULL, w, n, 4, plain, scale, pool);
                    assert(e[1][1] < .8 * weighted_error(&h, &g, w, plain, n));
                }
            }
            assert(e[two_sided][1] < .5 * e[two_sided][0]);
            assert(e[two_sided][2] < e[two_sided][1] && e[two_sided][3] <= e[two_sided][2] * 1.00001);
        }
        free(w), free(q), free(plain), free(scale);
        moe_hessian_release(&h), moe_hessian_release(&g);
    }
}

/* One input ten thousand times the others, dead inputs, no input at all, zero weights: the result is
 * finite, on the grid, and no worse than search under the Hessian. */
static void test_extremes(struct moe_pool *pool)
{
    enum { K = 96, N = 32 };
    for (int what = 0; what < 4; what++) {
        struct moe_hessian h;
        must_succeed(moe_hessian_open(&h, K, &err));
        float *x = random_inputs(300, K), *w = random_numbers(N * K), *q = random_numbers(N * K),
              *plain = random_numbers(N * K);
        uint8_t scale[N * K / 16];
        for (int64_t t = 0; t < 300; t++)
            for (int64_t i = 0; i < K; i++) {
                if (what == 0 && i == 40) x[t * K + i] *= 1e4f;
                if (what == 1 && i % 3) x[t * K + i] = 0;
                if (what == 2) x[t * K + i] = 0;
            }
        if (what == 3) memset(w, 0, sizeof(float) * 16 * K / 2);
        moe_hessian_clear(&h);
        moe_hessian_add(&h, x, K, 300, pool);
        must_succeed(moe_hessian_factor(&h, .01, pool, &err));
        round_weight(&h, NULL, w, N, 4, q, scale, pool);
        round_by_search(w, N * K, plain);
        double mine = weighted_error(&h, NULL, w, q, N), other = weighted_error(&h, NULL, w, plain, N);
        assert(isfinite(mine) && mine <= other * 1.02);
        if (what == 3)
            for (int i = 0; i < 16 * K / 2; i++) assert(q[i] == 0);
        free(x), free(w), free(q), free(plain);
        moe_hessian_release(&h);
    }
    struct moe_hessian h;
    must_succeed(moe_hessian_open(&h, 32, &err));
    float x[32] = { NAN };
    moe_hessian_add(&h, x, 32, 1, pool);
    assert(moe_hessian_factor(&h, .01, pool, &err) == MOE_NONFINITE);
    moe_hessian_release(&h);
}

/* The result has the same bits for any number of threads and for any pieces in which the tokens come. */
static void test_threads(void)
{
    enum { K = 400, N = 80, T = 1024 };
    float *x = random_inputs(T, K), *w = random_numbers(N * K), *q[3];
    uint8_t *scale[3];
    for (int i = 0; i < 3; i++) {
        struct moe_pool *pool;
        struct moe_hessian h, g;
        static const int threads[] = { 1, 2, 7 };
        must_succeed(moe_pool_open(&pool, threads[i], &err));
        must_succeed(moe_hessian_open(&h, K, &err)), must_succeed(moe_hessian_open(&g, N, &err));
        for (int at = 0; at < T; at += T >> i) moe_hessian_add(&h, x + at * K, K, T >> i, pool);
        moe_hessian_add(&g, x, K, 512, pool);
        must_succeed(moe_hessian_factor(&h, .01, pool, &err)),
            must_succeed(moe_hessian_factor(&g, .01, pool, &err));
        q[i] = random_numbers(N * K);
        scale[i] = malloc(N * K / 16);
        round_weight(&h, &g, w, N, 2, q[i], scale[i], pool);
        assert(!i || (!memcmp(q[0], q[i], sizeof(float) * N * K) && !memcmp(scale[0], scale[i], N * K / 16)));
        moe_hessian_release(&h), moe_hessian_release(&g);
        moe_pool_close(&pool);
    }
    for (int i = 0; i < 3; i++) free(q[i]), free(scale[i]);
    free(x), free(w);
}

/* Inputs that quantizing changed: moving a weight before rounding loses less of the output than not moving
 * it. */
static void test_fit(struct moe_pool *pool)
{
    enum { K = 64, N = 32, T = 512 };
    float *x = random_inputs(T, K), *xq = malloc(sizeof(float) * T * K),
          *lost = malloc(sizeof(float) * T * K), *w = random_numbers(N * K);
    double error[2];
    assert(xq && lost);
    for (int i = 0; i < T * K; i++) xq[i] = .9f * x[i] + .05f * x[(i * 7) % (T * K)], lost[i] = x[i] - xq[i];
    struct moe_weight weight = { .type = MOE_F32, .rows = N, .cols = K, .data = (const uint8_t *)w };
    const struct moe_weight *weights[1] = { &weight };
    for (int fit = 0; fit < 2; fit++) {
        struct moe_matrix_method how = { .fit = fit, .sweeps = 2, .damp = .01 };
        struct moe_inputs s;
        struct moe_matrix m;
        uint8_t codes[N * K / 2], scales[N * K / 16];
        struct moe_rounded r = { codes, scales, 0, 0 }, *out[1] = { &r };
        must_succeed(moe_inputs_open(&s, K, true, 0, &err)),
            must_succeed(moe_matrix_open(&m, N, K, &how, pool, &err));
        moe_inputs_begin(&s, 0, K);
        moe_inputs_add(&s, xq, lost, K, T, pool);
        must_succeed(moe_inputs_end(&s, &how, pool, &err));
        float global = moe_nvfp4_global(moe_matrix_load(&m, &s, weights, 1, NULL), MOE_NVFP4_SEARCH);
        must_succeed(moe_matrix_round(&m, &s, weights, 1, NULL, global, out, &err));
        struct moe_weight got = {
            .type = MOE_NVFP4, .rows = N, .cols = K, .data = codes, .scale = scales, .global = global
        };
        float *y = malloc(sizeof(float) * T * N), *yq = malloc(sizeof(float) * T * N);
        double den = 0;
        error[fit] = 0;
        assert(y && yq && r.den > 0 && r.num > 0);
        moe_matrix_multiply(pool, &weight, x, T, y);
        moe_matrix_multiply(pool, &got, xq, T, yq);
        moe_kernels()->sqerr(y, yq, T * N, &error[fit], &den);
        free(y), free(yq);
        moe_inputs_release(&s), moe_matrix_release(&m);
    }
    assert(error[1] < .7 * error[0]);
    free(x), free(xq), free(lost), free(w);
}

/* Outputs with a target beside their own value: the part that the inputs predict is added to the weight in
 * the output Hessian's order, and the part that is chance is not. */
static void test_targets(struct moe_pool *pool)
{
    enum { K = 32, N = 80, T = 1024 };
    float *x = random_numbers(T * K), *b = random_numbers(N * K), *noise = random_numbers(T * N),
          *z = malloc(sizeof(float) * T * N), *w = random_numbers(N * K), weight[T];
    struct moe_weight source = { .type = MOE_F32, .rows = N, .cols = K, .data = (const uint8_t *)w },
                      wanted = { .type = MOE_F32, .rows = N, .cols = K, .data = (const uint8_t *)b };
    const struct moe_weight *weights[1] = { &source };
    struct moe_output_hessian g;
    assert(z);
    for (int i = 0; i < T; i++) weight[i] = 1;
    must_succeed(moe_output_hessian_open(&g, N, &err));
    for (int i = 0; i < N * N; i++) g.hessian.h[i] = i % (N + 1) ? 0 : (float)(1 + i / (N + 1) * 7 % N);
    must_succeed(moe_output_hessian_finish(&g, .001, pool, &err));
    for (int round = 0; round < 4; round++) { /* all of it foretold; half; nothing; too few rows to tell */
        struct moe_matrix_method how = { .damp = 1e-6 };
        struct moe_inputs s;
        struct moe_matrix m;
        int64_t rows = round == 3 ? K : T;
        double square = 0, size = 0;
        moe_matrix_multiply(pool, &wanted, x, T, z);
        /* rows of b have a length of 5.6 */
        for (int i = 0; i < T * N; i++) z[i] = (round == 2 ? 0 : z[i]) + (round ? 5.6f * noise[i] : 0);
        must_succeed(moe_inputs_open(&s, K, false, N, &err)),
            must_succeed(moe_matrix_open(&m, N, K, &how, pool, &err));
        moe_inputs_begin(&s, 0, K);
        moe_inputs_add(&s, x, NULL, K, rows, pool);
        moe_inputs_add_targets(&s, x, K, z, weight, rows, pool);
        must_succeed(moe_inputs_end(&s, &how, pool, &err));
        moe_matrix_load(&m, &s, weights, 1, &g);
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < K; j++) {
                double moved = (double)m.w[i * K + j] - (double)w[g.order[i] * K + j],
                       want = (double)b[g.order[i] * K + j];
                square += (moved - (round < 2 ? want : 0)) * (moved - (round < 2 ? want : 0));
                size += want * want;
            }
        }
        assert(round == 0   ? square < 1e-4 * size
               : round == 1 ? square < .04 * size
               : round == 2 ? square < .01 * size
                            : square == 0);
        moe_inputs_release(&s), moe_matrix_release(&m);
    }
    moe_output_hessian_release(&g);
    free(x), free(b), free(noise), free(z), free(w);
}

/* The smallest power of two with which no block scale is above 448. */
static void test_global(void)
{
    for (int e = -100; e < 110; e++) {
        float edge = ldexpf(2688, e);
        assert(moe_nvfp4_global(edge, MOE_NVFP4_SEARCH) == ldexpf(1, e));
        assert(moe_nvfp4_global(nextafterf(edge, INFINITY), MOE_NVFP4_SEARCH) == ldexpf(1, e + 1));
        assert(moe_nvfp4_global(ldexpf(1345, e), MOE_NVFP4_SEARCH) == ldexpf(1, e));
    }
    assert(moe_nvfp4_global(0, MOE_NVFP4_SEARCH) == 0x1p-126f &&
           moe_nvfp4_global(0x1p-149f, MOE_NVFP4_SEARCH) == 0x1p-126f);
    assert(moe_nvfp4_global(0x1.fffffep127f, MOE_NVFP4_SEARCH) == 0x1p117f);
    assert(moe_nvfp4_global(1, MOE_NVFP4_MAX) == 1 / 2688.0f &&
           moe_nvfp4_global(1, MOE_NVFP4_FOUR_OVER_SIX) == 1 / 1536.0f);
}

int main(void)
{
    struct moe_pool *pool;
    must_succeed(moe_pool_open(&pool, 2, &err));
    test_global();
    test_factor(pool);
    test_error(pool);
    test_extremes(pool);
    test_fit(pool);
    test_targets(pool);
    test_threads();
    moe_pool_close(&pool);
    puts("test-round: global scales, factors, errors under forms of columns and rows, extremes, moved "
         "weights and corrections of outputs, threads");
    return 0;
}
