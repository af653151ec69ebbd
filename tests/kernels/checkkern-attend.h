/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/checkkern-attend.h - attention over pages: every variant against ref within a bound, and the
 * vector variants against the attention order of kernels.def written out one operation after the other, bit
 * for bit. */
#ifndef CHECKKERN_ATTEND_H
#define CHECKKERN_ATTEND_H

#include "checkkern-vector.h"
#include "kernels/attend.h"

/* ---- the order of kernels.def, in scalars ---- */

static float order_exp(float x)
{
    static const float c[] = { 1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, .5f };
    if (isnan(x)) return x;
    x = x < -105 ? -105 : x > 90 ? 90 : x;
    float k = fmaf(x, 0x1.715476p0f, 0x1.8p23f) - 0x1.8p23f;
    float r = fmaf(k, 0x1.bd0106p-13f, fmaf(k, -0x1.63p-1f, x)), p = 1.f / 5040;
    for (int i = 0; i < 5; i++) p = fmaf(p, r, c[i]);
    int a = (int)floorf(k / 2);
    return ldexpf(ldexpf(fmaf(p, r * r, r) + 1, a), (int)k - a);
}

/* Sixteen partial sums, by halves. */
static float order_fold(const float s[16])
{
    float t[16];
    memcpy(t, s, sizeof t);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) t[i] += t[i + half];
    return t[0];
}

static float order_dot(const float *a, const float *b, int64_t n)
{
    float s[16] = { 0 };
    for (int64_t i = 0; i < n; i++) s[i % 16] = fmaf(a[i], b[i], s[i % 16]);
    return order_fold(s);
}

struct partial { float max, sum, o[640]; };

static void order_page(struct partial *p, const float *q, const float *k, int64_t ldk, int64_t rows,
                       int64_t dk, int64_t dv, float scale)
{
    float e[MOE_PAGE], most = p->max, s[16] = { 0 };
    for (int64_t j = 0; j < rows; j++) {
        e[j] = scale * order_dot(q, k + j * ldk, dk);
        if (e[j] > most) most = e[j];
    }
    float f = order_exp(p->max - most);
    for (int64_t j = 0; j < rows; j++) s[j % 16] += e[j] = order_exp(e[j] - most);
    p->sum = fmaf(p->sum, f, order_fold(s));
    p->max = most;
    for (int64_t i = 0; i < dv; i++) {
        p->o[i] *= f;
        for (int64_t j = 0; j < rows; j++) p->o[i] = fmaf(e[j], k[j * ldk + i], p->o[i]);
    }
}

static void order_merge(struct partial *a, const struct partial *b, int64_t dv)
{
    float most = a->max > b->max ? a->max : b->max;
    float f = order_exp(a->max - most), f2 = order_exp(b->max - most);
    a->sum = fmaf(b->sum, f2, a->sum * f);
    a->max = most;
    for (int64_t i = 0; i < dv; i++) a->o[i] = fmaf(b->o[i], f2, a->o[i] * f);
}

/* ---- cases ---- */

/* n queries of dk values, over a cache of `rows` rows of ldk in pages that lie anywhere; a query sees the
 * first seen[i] rows of the cache. */
struct paged {
    int64_t n, rows, dk, dv, ldq, ldk;
    float scale;
    float *q;
    const float *page[4 * MOE_CHUNK_PAGES];
    int32_t *seen;
};

/* The last page ends where its last row does, at a guard page. */
static struct paged paged_case(int i, enum pattern p)
{
    struct paged a = { .n = 1 + random_below(i % 3 ? 9 : 150), .dk = 1 + random_below(i % 2 ? 600 : 70) };
    a.rows = i % 4 ? 1 + random_below(200) : 1 + random_below(3 * MOE_CHUNK);
    if (i % 7 == 6) a.rows = MOE_CHUNK * (1 + random_below(3)) + random_below(3) - 1;
    if (a.rows * a.n * a.dk > 3000000) a.n = 1 + random_below(3);
    a.dv = 1 + random_below(a.dk), a.ldq = a.dk + random_below(4), a.ldk = a.dk + random_below(4);
    a.scale = 1 / sqrtf((float)a.dk);
    a.q = guarded_floats((a.n - 1) * a.ldq + a.dk);
    fill(a.q, (a.n - 1) * a.ldq + a.dk, p);
    a.seen = guarded_buffer(sizeof *a.seen * (size_t)a.n, 0);
    for (int64_t j = 0; j < a.n; j++)
        a.seen[j] = (int32_t)(i % 2 ? a.rows : 1 + random_below(a.rows));
    a.seen[random_below(a.n)] = (int32_t)a.rows;
    int64_t pages = (a.rows + MOE_PAGE - 1) / MOE_PAGE, last = a.rows - (pages - 1) * MOE_PAGE;
    float *full = pages > 1 ? guarded_floats((pages - 1) * MOE_PAGE * a.ldk) : NULL;
    float *tail = guarded_floats((last - 1) * a.ldk + a.dk);
    if (full) fill(full, (pages - 1) * MOE_PAGE * a.ldk, p);
    fill(tail, (last - 1) * a.ldk + a.dk, p);
    for (int64_t j = 0; j < pages - 1; j++) a.page[j] = full + (pages - 2 - j) * MOE_PAGE * a.ldk;
    a.page[pages - 1] = tail;
    return a;
}

/* What a query sees of the chunk whose first row is `at`. */
static int32_t seen_of(int32_t seen, int64_t at)
{
    return seen <= at ? 0 : seen - at > MOE_CHUNK ? MOE_CHUNK : (int32_t)(seen - at);
}

/* All chunks of a case by one variant; max, sum [n] and o [n, dv] are the result after the merges. */
static void attend_all(const struct moe_kernels *k, const struct paged *a, float *max, float *sum, float *o)
{
    size_t n = (size_t)a->n;
    float *max2 = calloc(n, 4), *sum2 = calloc(n, 4), *o2 = calloc(n * (size_t)a->dv, 4);
    int32_t *seen = calloc(n, sizeof *seen);
    assert(max2 && sum2 && o2 && seen);
    for (int64_t at = 0; at < a->rows; at += MOE_CHUNK) {
        for (int64_t i = 0; i < a->n; i++) seen[i] = seen_of(a->seen[i], at);
        k->attend_pages(a->q, a->ldq, seen, a->n, a->page + at / MOE_PAGE, a->ldk, a->dk, a->dv, a->scale,
                        at ? max2 : max, at ? sum2 : sum, at ? o2 : o, a->dv);
        if (at) k->attend_merge(a->n, a->dv, max, sum, o, a->dv, max2, sum2, o2, a->dv);
    }
    free(max2), free(sum2), free(o2), free(seen);
}

/* The same of one query, by the order above. */
static void order_attend(const struct paged *a, int64_t i, struct partial *p)
{
    for (int64_t at = 0; at < a->seen[i]; at += MOE_CHUNK) {
        struct partial c = { -INFINITY, 0, { 0 } };
        for (int64_t row = at; row < a->seen[i] && row < at + MOE_CHUNK; row += MOE_PAGE) {
            int64_t rows = a->seen[i] - row < MOE_PAGE ? a->seen[i] - row : MOE_PAGE;
            order_page(&c, a->q + i * a->ldq, a->page[row / MOE_PAGE], a->ldk, rows, a->dk, a->dv, a->scale);
        }
        if (at) order_merge(p, &c, a->dv);
        else *p = c;
    }
}

static const float *paged_row(const struct paged *a, int64_t j)
{
    return a->page[j / MOE_PAGE] + j % MOE_PAGE * a->ldk;
}

/* Compares the output got [dv] of query i with ref's.  Scores are off by at most d, the largest |scale| times
 * dot_bound plus 2 U |score|; so weights are off by a factor of at most e^(2d), by 4 units for each
 * exponential and by one for each page, chunk, sum and product: n U for n rows, relative to the sum of the
 * weights times |v|. */
static void compare_paged(const struct paged *a, int64_t i, const float *got, const float *want)
{
    double d = 0, total = 0, most = -INFINITY;
    double *size = calloc((size_t)a->dv, sizeof *size), *s = calloc((size_t)a->seen[i], sizeof *s);
    assert(size && s);
    for (int64_t j = 0; j < a->seen[i]; j++) {
        double all = 0;
        for (int64_t c = 0; c < a->dk; c++) {
            double x = (double)a->q[i * a->ldq + c] * (double)paged_row(a, j)[c];
            s[j] += x, all += fabs(x);
        }
        s[j] *= (double)a->scale;
        most = fmax(most, s[j]);
        d = fmax(d, (double)a->scale * (dot_bound(a->dk, all) + 2 * U * all));
    }
    for (int64_t j = 0; j < a->seen[i]; j++) {
        double w = exp(s[j] - most);
        total += w;
        for (int64_t c = 0; c < a->dv; c++) size[c] += w * fabs((double)paged_row(a, j)[c]);
    }
    double rel = expm1(2 * d) + (softmax_units(a->seen[i]) + 2 * (double)a->seen[i]) * U;
    for (int64_t c = 0; c < a->dv; c++)
        CHECK(fabs((double)got[c] - (double)want[c]) <= rel * size[c] / total + (double)a->seen[i] * 0x1p-140,
              "query %" PRId64 " [%" PRId64 "]: %g, ref %g", i, c, (double)got[c], (double)want[c]);
    free(size), free(s);
}

static void check_attend_pages(const struct variant *v)
{
    for (int t = 0; t < 90; t++) {
        enum pattern p = t % 5 == 4 ? TIES : t % 11 == 10 ? OUTLIER : (enum pattern)(t % 2);
        struct paged a = paged_case(t, p);
        float *max = guarded_floats(a.n), *sum = guarded_floats(a.n), *o = guarded_floats(a.n * a.dv);
        float *wmax = guarded_floats(a.n), *wsum = guarded_floats(a.n), *want = guarded_floats(a.n * a.dv);
        snprintf(now_case, sizeof now_case, "%" PRId64 " queries of %" PRId64 ", %" PRId64
                 " rows with %" PRId64 " values, %s", a.n, a.dk, a.rows, a.dv, pattern_name[p]);
        attend_all(&variants[0].k, &a, wmax, wsum, want);
        attend_all(&v->k, &a, max, sum, o);
        for (int64_t i = 0; i < a.n && v != &variants[0]; i++) {
            struct partial c;
            order_attend(&a, i, &c);
            CHECK(same_bits(&c.max, max + i, 1) && same_bits(&c.sum, sum + i, 1) &&
                  same_bits(c.o, o + i * a.dv, a.dv), "query %" PRId64 " leaves the attention order", i);
        }
        variants[0].k.attend_finish(a.n, a.dv, wsum, want, a.dv);
        v->k.attend_finish(a.n, a.dv, sum, o, a.dv);
        for (int64_t i = 0; i < a.n && p != OUTLIER; i++)
            compare_paged(&a, i, o + i * a.dv, want + i * a.dv);
        free_buffers();
    }
}

/* A page whose scores are what no sound model has: NaN, Inf, and nothing but -Inf. */
static void check_attend_broken(const struct variant *v)
{
    static const struct { float first, second; bool nan; } of[] = {
        { NAN, 1, true }, { INFINITY, 1, true }, { -INFINITY, -INFINITY, true }, { -INFINITY, 1, false } };
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        float q = 1, row[2] = { of[i].first, of[i].second }, max, sum, o;
        const float *page = row;
        int32_t seen = 2;
        snprintf(now_case, sizeof now_case, "scores of %g and %g", (double)row[0], (double)row[1]);
        v->k.attend_pages(&q, 1, &seen, 1, &page, 1, 1, 0, 1, &max, &sum, &o, 1);
        CHECK(isnan(sum) == of[i].nan, "the sum is %g", (double)sum);
        if (!of[i].nan) CHECK(sum == 1 && max == 1, "the sum is %g under %g", (double)sum, (double)max);
    }
}

static void check_exp(const struct variant *v)
{
    for (int i = 0; i < 200; i++) {
        int64_t n = 1 + random_below(100);
        float *x = guarded_floats(n), *e = guarded_floats(n), *s = guarded_floats(n);
        float *want = guarded_floats(n), *wants = guarded_floats(n);
        for (int64_t k = 0; k < n; k++)
            x[k] = random_below(20) ? random_uniform() * (float)(1 << random_below(8))
                 : random_below(2)  ? INFINITY
                                    : -INFINITY;
        if (i % 8 == 7) x[random_below(n)] = NAN;
        snprintf(now_case, sizeof now_case, "%" PRId64 " values", n);
        variants[0].k.exp(x, n, want), variants[0].k.sigmoid(x, n, wants);
        v->k.exp(x, n, e), v->k.sigmoid(x, n, s);
        for (int64_t k = 0; k < n; k++) {
            CHECK(isnan(x[k]) ? isnan(e[k]) && isnan(s[k])
                              : e[k] == want[k] || fabs((double)e[k] - (double)want[k]) <=
                                    5 * U * (double)want[k] + 0x1p-148,
                  "exp(%a): %a, ref %a", (double)x[k], (double)e[k], (double)want[k]);
            CHECK(isnan(x[k]) || fabs((double)s[k] - (double)wants[k]) <= 7 * U * (double)wants[k] + 0x1p-125,
                  "sigmoid(%a): %a, ref %a", (double)x[k], (double)s[k], (double)wants[k]);
            if (v == &variants[0]) continue;
            float o = order_exp(x[k]), so = 1 / (1 + order_exp(-x[k]));
            CHECK(same_bits(&o, e + k, 1) && same_bits(&so, s + k, 1), "%a leaves the order", (double)x[k]);
        }
        free_buffers();
    }
}

#endif
