/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/rounding/hessian.h"

#include "base/minmax.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TILE = 192, /* rows and columns of a tile, which is one work item */
    PANEL = 96  /* columns that are factored at once */
};

static int64_t tiles(int64_t k) { return (k + TILE - 1) / TILE; }

static size_t matrix_bytes(int64_t k) { return ((size_t)k * (size_t)k * sizeof(float) + 127) / 64 * 64; }
static size_t vector_bytes(int64_t k) { return ((size_t)k * sizeof(float) + 127) / 64 * 64; }

uint64_t moe_hessian_estimate(int64_t k) { return 2 * matrix_bytes(k) + vector_bytes(k); }

enum moe_code moe_hessian_open(struct moe_hessian *f, int64_t k, struct moe_err *err)
{
    *f = (struct moe_hessian){ .k = k };
    f->h = f->memory[0] = aligned_alloc(64, matrix_bytes(k));
    f->l = f->memory[1] = aligned_alloc(64, matrix_bytes(k));
    f->d = f->memory[2] = aligned_alloc(64, vector_bytes(k));
    if (f->h && f->l && f->d) {
        moe_hessian_clear(f);
        return MOE_OK;
    }
    moe_hessian_release(f);
    return moe_fail(err, MOE_NOMEM, "no memory for the statistics of %lld columns", (long long)k);
}

void moe_hessian_release(struct moe_hessian *f)
{
    for (int i = 0; i < 3; i++) free(f->memory[i]);
    *f = (struct moe_hessian){ 0 };
}

void moe_hessian_clear(struct moe_hessian *f) { memset(f->h, 0, (size_t)f->k * (size_t)f->k * sizeof *f->h); }

/* Row and column, in tiles, of tile i.  The tiles on and below the diagonal are numbered row by row. */
static void tile_at(int64_t i, int64_t *row, int64_t *col)
{
    int64_t r = (int64_t)((sqrt(8.0 * (double)i + 1) - 1) / 2);
    while (r * (r + 1) / 2 > i) r--;
    while ((r + 1) * (r + 2) / 2 <= i) r++;
    *row = r;
    *col = i - r * (r + 1) / 2;
}

/* ---- the Gram matrix ---- */

struct gram { struct moe_hessian *f; const float *x; int64_t ldx, n; };

static void gram_tile(void *ctx, int64_t i, int worker)
{
    struct gram *g = ctx;
    int64_t r, c, k = g->f->k;
    (void)worker;
    tile_at(i, &r, &c);
    r *= TILE, c *= TILE;
    moe_kernels()->gemm(moe_min_i64(TILE, k - r), moe_min_i64(TILE, k - c), g->n, 1, g->x + r, 1, g->ldx,
                        g->x + c, g->ldx, g->f->h + r * k + c, k);
}

void moe_hessian_add(struct moe_hessian *f, const float *x, int64_t ldx, int64_t n, struct moe_pool *pool)
{
    struct gram g = { f, x, ldx, n };
    int64_t t = tiles(f->k);
    moe_pool_run(t > 1 ? pool : NULL, t * (t + 1) / 2, gram_tile, &g);
}

/* ---- damping ---- */

/* Copies what is below the diagonal to above it. */
static void mirror(struct moe_hessian *f)
{
    for (int64_t i = 0; i < f->k; i++)
        for (int64_t j = 0; j < i; j++) f->h[j * f->k + i] = f->h[i * f->k + j];
}

/* f->mean = the mean of the diagonal. */
static enum moe_code measure(struct moe_hessian *f, struct moe_err *err)
{
    double sum = 0;
    for (int64_t i = 0; i < f->k; i++) sum += (double)f->h[i * f->k + i];
    f->mean = sum / (double)f->k;
    return isfinite(f->mean) ? MOE_OK
                             : moe_fail(err, MOE_NONFINITE, "an activation is NaN or Inf in calibration");
}

static void add_diagonal(struct moe_hessian *f, double x)
{
    for (int64_t i = 0; i < f->k; i++) f->h[i * f->k + i] = (float)((double)f->h[i * f->k + i] + x);
}

/* ---- Cholesky factorization of l (lower triangle) in place: blocked, right-looking ---- */

/* Factors a diagonal block of n <= PANEL columns, in double.  inv gets the transposed inverse of its factor.
 * False: a pivot is zero or negative. */
static bool factor_block(float *l, int64_t ld, int64_t n, float *inv)
{
    double a[PANEL][PANEL], b[PANEL][PANEL] = { { 0 } };

    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) a[i][j] = (double)l[i * ld + j];
    for (int64_t j = 0; j < n; j++) {
        for (int64_t p = 0; p < j; p++) a[j][j] -= a[j][p] * a[j][p];
        if (!(a[j][j] > 0)) return false;
        a[j][j] = sqrt(a[j][j]);
        for (int64_t i = j + 1; i < n; i++) {
            for (int64_t p = 0; p < j; p++) a[i][j] -= a[i][p] * a[j][p];
            a[i][j] /= a[j][j];
        }
    }
    for (int64_t j = 0; j < n; j++) {
        b[j][j] = 1 / a[j][j];
        for (int64_t i = j + 1; i < n; i++) {
            double s = 0;
            for (int64_t p = j; p < i; p++) s += a[i][p] * b[p][j];
            b[i][j] = -s / a[i][i];
        }
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            if (j <= i) l[i * ld + j] = (float)a[i][j];
            inv[j * PANEL + i] = j <= i ? (float)b[i][j] : 0;
        }
    return true;
}

/* The step that factors columns [p, p + n). */
struct factor {
    float *l;
    int64_t k, p, n;
    const float *inv; /* of factor_block */
    float *across; /* [n, k]: the panel below the block, transposed */
};

/* Multiplies a tile of the panel's rows below the block by the inverse of the block's factor. */
static void panel_rows(void *ctx, int64_t i, int worker)
{
    struct factor *f = ctx;
    int64_t r = f->p + f->n + i * TILE, m = moe_min_i64(TILE, f->k - r);
    float out[TILE * PANEL] = { 0 };
    (void)worker;
    moe_kernels()->gemm(m, f->n, f->n, 1, f->l + r * f->k + f->p, f->k, 1, f->inv, PANEL, out, f->n);
    for (int64_t a = 0; a < m; a++)
        for (int64_t b = 0; b < f->n; b++)
            f->l[(r + a) * f->k + f->p + b] = f->across[b * f->k + r + a] = out[a * f->n + b];
}

/* Subtracts the panel's product with itself from a tile of the trailing matrix. */
static void trail_tile(void *ctx, int64_t i, int worker)
{
    struct factor *f = ctx;
    int64_t r, c, from = f->p + f->n;
    (void)worker;
    tile_at(i, &r, &c);
    r = from + r * TILE, c = from + c * TILE;
    moe_kernels()->gemm(moe_min_i64(TILE, f->k - r), moe_min_i64(TILE, f->k - c), f->n, -1,
                        f->l + r * f->k + f->p, f->k, 1, f->across + c, f->k, f->l + r * f->k + c, f->k);
}

static bool cholesky(float *l, int64_t k, float *across, struct moe_pool *pool)
{
    float inv[PANEL * PANEL];
    for (int64_t p = 0; p < k; p += PANEL) {
        struct factor f = { l, k, p, moe_min_i64(PANEL, k - p), inv, across };
        if (!factor_block(l + p * k + p, k, f.n, inv)) return false;
        int64_t t = tiles(k - p - f.n);
        moe_pool_run(t > 1 ? pool : NULL, t, panel_rows, &f);
        moe_pool_run(t > 1 ? pool : NULL, t * (t + 1) / 2, trail_tile, &f);
    }
    return true;
}

/* From the Cholesky factor to L and D: each column of l is divided by its diagonal element, whose square
 * is the column's D.  What is above the diagonal becomes 0. */
static void make_unit(struct moe_hessian *f)
{
    int64_t k = f->k;
    for (int64_t j = 0; j < k; j++) f->d[j] = f->l[j * k + j];
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j < i; j++) f->l[i * k + j] /= f->d[j];
        f->l[i * k + i] = 1;
        memset(f->l + i * k + i + 1, 0, (size_t)(k - i - 1) * sizeof *f->l);
    }
    for (int64_t j = 0; j < k; j++) f->d[j] *= f->d[j];
}

enum moe_code moe_hessian_factor(struct moe_hessian *f, double damp, struct moe_pool *pool,
                                 struct moe_err *err)
{
    size_t n = (size_t)f->k * (size_t)f->k;
    float *across = malloc((size_t)(PANEL * f->k) * sizeof *across);

    if (!across) return moe_fail(err, MOE_NOMEM, "no memory to factor %lld columns", (long long)f->k);
    mirror(f);
    enum moe_code code = measure(f, err);
    double mean = f->mean > 0 ? f->mean : 1, added = damp * mean;
    bool done = false;
    if (code == MOE_OK) add_diagonal(f, f->mean > 0 ? added : 1);
    for (int i = 0; code == MOE_OK && !done && i < 10; i++) {
        memcpy(f->l, f->h, n * sizeof *f->l);
        done = cholesky(f->l, f->k, across, pool);
        if (done) break;
        add_diagonal(f, 9 * added);
        added *= 10;
    }
    free(across);
    MOE_TRY(code);
    if (!done)
        return moe_fail(
            err, MOE_NONFINITE,
            "the activations of calibration have no usable statistics (a layer's weights may be damaged)");
    make_unit(f);
    f->diagonal = false;
    return MOE_OK;
}

enum moe_code moe_hessian_diagonal(struct moe_hessian *f, double damp, struct moe_err *err)
{
    int64_t k = f->k;
    MOE_TRY(measure(f, err));
    memset(f->l, 0, (size_t)k * (size_t)k * sizeof *f->l);
    for (int64_t i = 0; i < k; i++) {
        float x = f->mean > 0 ? (float)((double)f->h[i * k + i] + damp * f->mean) : 1;
        memset(f->h + i * k, 0, (size_t)k * sizeof *f->h);
        f->h[i * k + i] = f->d[i] = x;
        f->l[i * k + i] = 1;
    }
    f->diagonal = true;
    return MOE_OK;
}

/* ---- solving ---- */

enum { COLUMNS = 64 }; /* columns of y of a work item */

struct solve { const struct moe_hessian *f; float *y; int64_t n; };

/* Solves L z = y, then L^T x = D^-1 z, for some columns of y, PANEL rows at a time.  First the rows of the
 * panel are solved one after the other; then their part is subtracted from all rows beyond the panel at
 * once. */
static void solve_columns(void *ctx, int64_t item, int worker)
{
    struct solve *s = ctx;
    const float *l = s->f->l;
    int64_t k = s->f->k, n = moe_min_i64(COLUMNS, s->n - item * COLUMNS), ld = s->n;
    float *y = s->y + item * COLUMNS;

    (void)worker;
    for (int64_t p = 0; p < k; p += PANEL) {
        int64_t end = moe_min_i64(p + PANEL, k);
        for (int64_t i = p + 1; i < end; i++)
            moe_kernels()->gemm(1, n, i - p, -1, l + i * k + p, k, 1, y + p * ld, ld, y + i * ld, ld);
        if (end < k)
            moe_kernels()->gemm(k - end, n, end - p, -1, l + end * k + p, k, 1, y + p * ld, ld, y + end * ld,
                                ld);
    }
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < n; j++) y[i * ld + j] /= s->f->d[i];
    for (int64_t end = k; end > 0;) {
        int64_t p = (end - 1) / PANEL * PANEL;
        for (int64_t i = end - 2; i >= p; i--)
            moe_kernels()->gemm(1, n, end - i - 1, -1, l + (i + 1) * k + i, 1, k, y + (i + 1) * ld, ld,
                                y + i * ld, ld);
        if (p) moe_kernels()->gemm(p, n, end - p, -1, l + p * k, 1, k, y + p * ld, ld, y, ld);
        end = p;
    }
}

void moe_hessian_solve(const struct moe_hessian *f, float *y, int64_t n, struct moe_pool *pool)
{
    struct solve s = { f, y, n };
    moe_pool_run(pool, (n + COLUMNS - 1) / COLUMNS, solve_columns, &s);
}
