/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/rounding/round.h"

#include "base/minmax.h"
#include "kernels/kernels.h"
#include "kernels/scalar.h"

#include <string.h>

enum {
    WIDE = 128,   /* columns of a block */
    DEEP = 16,    /* rows of a block */
    TILE_M = 192, /* rows and columns of a product's work item */
    TILE_N = 384
};

/* ---- products on all threads ---- */

struct product {
    int64_t m, n, k, ai, ap, bp, ldc; /* as of moe_gemm */
    int64_t across;                   /* tiles in a row of c */
    float alpha;
    const float *a, *b;
    float *c;
};

static void product_tile(void *ctx, int64_t item, int worker)
{
    const struct product *p = ctx;
    int64_t i = item / p->across * TILE_M, j = item % p->across * TILE_N;
    (void)worker;
    moe_kernels()->gemm(moe_min_i64(TILE_M, p->m - i), moe_min_i64(TILE_N, p->n - j), p->k, p->alpha,
                        p->a + i * p->ai, p->ai, p->ap, p->b + j, p->bp, p->c + i * p->ldc + j, p->ldc);
}

void moe_gemm(struct moe_pool *pool, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t ai,
              int64_t ap, const float *b, int64_t bp, float *c, int64_t ldc)
{
    struct product p = { m, n, k, ai, ap, bp, ldc, (n + TILE_N - 1) / TILE_N, alpha, a, b, c };
    int64_t down = (m + TILE_M - 1) / TILE_M;
    if (m > 0 && n > 0 && k > 0)
        moe_pool_run(down * p.across > 1 ? pool : NULL, down * p.across, product_tile, &p);
}

/* ---- scratch ---- */

struct work {
    const struct moe_round *r;
    const struct moe_kernels *k;
    struct moe_pool *pool;
    int64_t cols, n;
    /* [n, K].  While feedback runs: the targets (W with the errors of later columns fed back) and, in blocks
     * that are rounded, the targets minus Q, which is P = E L.  While descent runs: Z = (Q - W) H. */
    float *a;
    float *e;                /* [n, WIDE]: the errors of the columns at hand; in descent, their changes */
    float *t;                /* [DEEP, WIDE]: the targets of a row */
    float *f;                /* [DEEP, WIDE]: the feedback of later rows; in descent, the gradients */
};

int64_t moe_round_scratch(int64_t rows, int64_t k) { return rows * (k + WIDE) + 2 * DEEP * WIDE + 64; }

/* ---- feedback ---- */

/* Rounds rows [i0, i0 + m) of columns [c, c + n), from the last row to the first.  A row's targets are
 * those of its columns (x->a) plus, where there is an output Hessian, the errors left in later rows, fed
 * back through M. */
static void round_block(struct work *x, int64_t i0, int64_t m, int64_t c, int64_t n)
{
    const struct moe_hessian *h = x->r->columns, *g = x->r->rows;
    int64_t k = x->cols, later = x->n - i0 - m;

    memset(x->f, 0, sizeof(float) * DEEP * WIDE);
    if (g && later)
        x->k->gemm(m, n, later, 1, g->l + (i0 + m) * g->k + i0, 1, g->k, x->a + (i0 + m) * k + c, k, x->f,
                   WIDE);
    for (int64_t i = m - 1; i >= 0; i--) {
        float *t = x->t;
        float *f = x->f + i * WIDE;
        float *a = x->a + (i0 + i) * k + c;
        float *q = x->r->q + (i0 + i) * k + c;
        float *e = x->e + (i0 + i) * WIDE;
        const float *w = x->r->w + (i0 + i) * k + c;
        for (int64_t p = i + 1; g && p < m; p++) {
            float l = g->l[(i0 + p) * g->k + i0 + i];
            const float *left = x->a + (i0 + p) * k + c;
            for (int64_t j = 0; j < n; j++) f[j] += l * left[j];
        }
        for (int64_t j = 0; j < n; j++) t[j] = a[j] + f[j];
        x->k->nvfp4_feedback(h->l + c * (h->k + 1), h->k, h->d + c, n, w, t, x->r->global, q,
                             x->r->scale + ((i0 + i) * k + c) / 16);
        for (int64_t j = 0; j < n; j++) {
            e[j] = w[j] - q[j];
            a[j] = t[j] - f[j] - q[j];
        }
    }
}

/* Columns [c, c + n) of all rows, in work items of DEEP rows; used only where rows are independent. */
struct blocks { struct work *x; int64_t c, n; };

static void round_rows(void *ctx, int64_t item, int worker)
{
    struct blocks *b = ctx;
    struct work own = *b->x;
    float space[2 * DEEP * WIDE];
    (void)worker;
    own.t = space;
    own.f = space + DEEP * WIDE;
    round_block(&own, item * DEEP, moe_min_i64(DEEP, own.n - item * DEEP), b->c, b->n);
}

/* Step 1 of round.h. */
static void feed_back(struct work *x)
{
    const struct moe_hessian *h = x->r->columns;
    int64_t k = x->cols, deep = (x->n + DEEP - 1) / DEEP;

    memcpy(x->a, x->r->w, (size_t)(x->n * k) * sizeof *x->a);
    for (int64_t end = k; end > 0;) {
        int64_t c = (end - 1) / WIDE * WIDE;
        struct blocks b = { x, c, end - c };
        if (!x->r->rows) moe_pool_run(x->pool, deep, round_rows, &b);
        for (int64_t i = deep - 1; x->r->rows && i >= 0; i--)
            round_block(x, i * DEEP, moe_min_i64(DEEP, x->n - i * DEEP), c, end - c);
        if (!h->diagonal)
            moe_gemm(x->pool, x->n, c, end - c, 1, x->e, WIDE, 1, h->l + c * h->k, h->k, x->a, k);
        end = c;
    }
}

/* ---- descent ---- */

/* Descent over rows [i0, i0 + m) of columns [c, c + n), first row to last.  The kernel gets the gradient
 * of row i divided by G_ii.  What changes in row i moves its own row of Z, and adds G_pi times that to
 * the gradient of each later row p. */
static void descend_block(struct work *x, int64_t i0, int64_t m, int64_t c, int64_t n)
{
    const struct moe_hessian *h = x->r->columns, *g = x->r->rows;
    int64_t k = x->cols;
    float step[WIDE / 16], moved[WIDE];

    memset(x->f, 0, sizeof(float) * DEEP * WIDE);
    if (g) x->k->gemm(m, n, x->n, 1, g->h + i0 * g->k, g->k, 1, x->a + c, k, x->f, WIDE);
    for (int64_t i = 0; i < m; i++) {
        float *f = x->f + i * WIDE;
        float *z = x->a + (i0 + i) * k + c;
        float *d = x->e + (i0 + i) * WIDE;
        float scale = g ? 1 / g->h[(i0 + i) * (g->k + 1)] : 0;
        const uint8_t *code = x->r->scale + ((i0 + i) * k + c) / 16;
        for (int64_t j = 0; j < n; j++) moved[j] = f[j] = g ? f[j] * scale : z[j];
        for (int64_t j = 0; j < n / 16; j++) step[j] = moe_e4m3_to_f32(code[j]) * x->r->global;
        memset(d, 0, (size_t)n * sizeof *d);
        x->k->nvfp4_descend(h->h + c * (h->k + 1), h->k, n, step, x->r->q + (i0 + i) * k + c, f, d);
        for (int64_t j = 0; j < n; j++) z[j] += moved[j] = f[j] - moved[j];
        for (int64_t p = i + 1; g && p < m; p++) {
            float w = g->h[(i0 + p) * g->k + i0 + i], *other = x->f + p * WIDE;
            for (int64_t j = 0; j < n; j++) other[j] += w * moved[j];
        }
    }
}

static void descend_rows(void *ctx, int64_t item, int worker)
{
    struct blocks *b = ctx;
    struct work own = *b->x;
    float space[DEEP * WIDE];
    (void)worker;
    own.f = space;
    descend_block(&own, item * DEEP, moe_min_i64(DEEP, own.n - item * DEEP), b->c, b->n);
}

/* One sweep of step 2 of round.h. */
static void sweep(struct work *x)
{
    const struct moe_hessian *h = x->r->columns;
    int64_t k = x->cols, deep = (x->n + DEEP - 1) / DEEP;
    for (int64_t c = 0; c < k; c += WIDE) {
        int64_t n = moe_min_i64(WIDE, k - c);
        struct blocks b = { x, c, n };
        if (!x->r->rows) moe_pool_run(x->pool, deep, descend_rows, &b);
        for (int64_t i = 0; x->r->rows && i < deep; i++)
            descend_block(x, i * DEEP, moe_min_i64(DEEP, x->n - i * DEEP), c, n);
        moe_gemm(x->pool, x->n, c, n, 1, x->e, WIDE, 1, h->h + c * h->k, h->k, x->a, k);
        moe_gemm(x->pool, x->n, k - c - n, n, 1, x->e, WIDE, 1, h->h + c * h->k + c + n, h->k, x->a + c + n,
                 k);
    }
}

/* Sets x->a to Z = (Q - W) H. */
static void gradient(struct work *x)
{
    const struct moe_hessian *h = x->r->columns;
    int64_t k = x->cols;
    memset(x->a, 0, (size_t)(x->n * k) * sizeof *x->a);
    for (int64_t c = 0; c < k; c += WIDE) {
        int64_t n = moe_min_i64(WIDE, k - c);
        for (int64_t i = 0; i < x->n; i++)
            for (int64_t j = 0; j < n; j++)
                x->e[i * WIDE + j] = x->r->q[i * k + c + j] - x->r->w[i * k + c + j];
        moe_gemm(x->pool, x->n, k, n, 1, x->e, WIDE, 1, h->h + c * h->k, h->k, x->a, k);
    }
}

void moe_round_run(const struct moe_round *r, struct moe_pool *pool)
{
    struct work x = { .r = r, .k = moe_kernels(), .pool = pool, .cols = r->columns->k, .n = r->n };
    x.a = r->scratch;
    x.e = x.a + x.n * x.cols;
    x.t = x.e + x.n * WIDE;
    x.f = x.t + DEEP * WIDE;
    feed_back(&x);
    if (!r->sweeps || r->columns->diagonal) return;
    gradient(&x);
    for (int i = 0; i < r->sweeps; i++) sweep(&x);
}
