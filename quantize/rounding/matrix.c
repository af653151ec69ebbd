/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/rounding/matrix.h"

#include "base/minmax.h"
#include "kernels/kernels.h"
#include "kernels/many.h"
#include "kernels/scalar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MULTIPLY_ROWS = 192,   /* rows of a weight that a work item multiplies */
    MULTIPLY_TOKENS = 256, /* tokens of a work item are not split below this */
    SOLVED = 64,           /* outputs whose corrections are solved for at once */
    REPEATED = 2           /* tokens of a text that tell as much as one independent sample */
};

/* ---- statistics ---- */

uint64_t moe_inputs_estimate(int64_t k, bool cross, int64_t outputs)
{
    return moe_hessian_estimate(k) +
           (uint64_t)((cross ? k * k : 0) + (outputs ? k * (outputs + 2 * SOLVED) : 0)) * sizeof(float);
}

enum moe_code moe_inputs_open(struct moe_inputs *s, int64_t k, bool cross, int64_t outputs,
                              struct moe_err *err)
{
    *s = (struct moe_inputs){ .k = k, .outputs = outputs };
    enum moe_code code = moe_hessian_open(&s->hessian, k, err);
    if (code == MOE_OK && ((cross && !(s->cross = malloc((size_t)(k * k) * sizeof *s->cross))) ||
                           (outputs && !(s->correction = malloc((size_t)(k * (outputs + 2 * SOLVED)) *
                                                                sizeof *s->correction)))))
        code = moe_fail(err, MOE_NOMEM, "no memory for the statistics of %lld columns", (long long)k);
    if (code != MOE_OK) moe_inputs_release(s);
    return code;
}

void moe_inputs_release(struct moe_inputs *s)
{
    moe_hessian_release(&s->hessian);
    free(s->cross);
    free(s->correction);
    *s = (struct moe_inputs){ 0 };
}

void moe_inputs_begin(struct moe_inputs *s, int64_t c0, int64_t k)
{
    s->c0 = c0;
    s->k = s->hessian.k = k;
    moe_hessian_clear(&s->hessian);
    if (s->cross) memset(s->cross, 0, (size_t)(k * k) * sizeof *s->cross);
    if (s->correction) memset(s->correction, 0, (size_t)(k * s->outputs) * sizeof *s->correction);
    s->target2 = s->weight1 = s->weight2 = 0;
}

void moe_inputs_add(struct moe_inputs *s, const float *xq, const float *lost, int64_t ldx, int64_t n,
                    struct moe_pool *pool)
{
    moe_hessian_add(&s->hessian, xq + s->c0, ldx, n, pool);
    if (s->cross) moe_gemm(pool, s->k, s->k, n, 1, xq + s->c0, 1, ldx, lost + s->c0, ldx, s->cross, s->k);
}

void moe_inputs_add_targets(struct moe_inputs *s, const float *xq, int64_t ldx, const float *z,
                            const float *weight, int64_t n, struct moe_pool *pool)
{
    for (int64_t i = 0; i < n * s->outputs; i++) s->target2 += (double)z[i] * (double)z[i];
    for (int64_t i = 0; i < n; i++)
        s->weight1 += (double)weight[i], s->weight2 += (double)weight[i] * (double)weight[i];
    moe_gemm(pool, s->k, s->outputs, n, 1, xq + s->c0, 1, ldx, z, s->outputs, s->correction, s->outputs);
}

/* correction = H^-1 correction, SOLVED outputs at a time.  Returns what the regression explains of
 * target2. */
static double regress(struct moe_inputs *s, struct moe_pool *pool)
{
    int64_t k = s->k, all = s->outputs;
    float *x = s->correction + k * all, *was = x + k * SOLVED;
    double explained = 0;
    for (int64_t o = 0, n; o < all; o += n) {
        n = moe_min_i64(SOLVED, all - o);
        for (int64_t i = 0; i < k; i++) memcpy(x + i * n, s->correction + i * all + o, (size_t)n * sizeof *x);
        memcpy(was, x, (size_t)(k * n) * sizeof *x);
        moe_hessian_solve(&s->hessian, x, n, pool);
        for (int64_t i = 0; i < k * n; i++) explained += (double)x[i] * (double)was[i];
        for (int64_t i = 0; i < k; i++) memcpy(s->correction + i * all + o, x + i * n, (size_t)n * sizeof *x);
    }
    return explained;
}

/* Multiplies the correction by c (matrix.h, moe_inputs_end). */
static void shrink(struct moe_inputs *s, double explained)
{
    double n = s->weight2 > 0 ? s->weight1 * s->weight1 / s->weight2 / REPEATED : 0;
    double k = (double)s->k;
    double c = 0;
    if (n > k && explained > 0) c = 1 - k * (s->target2 - explained) / ((n - k) * explained);
    if (!(c > 0)) c = 0;
    if (c > 1) c = 1;
    for (int64_t i = 0; i < s->k * s->outputs; i++)
        s->correction[i] = c > 0 ? (float)c * s->correction[i] : 0;
}

static void transpose(float *x, int64_t k)
{
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < i; j++) {
            float t = x[i * k + j];
            x[i * k + j] = x[j * k + i];
            x[j * k + i] = t;
        }
}

enum moe_code moe_inputs_end(struct moe_inputs *s, const struct moe_matrix_method *how, struct moe_pool *pool,
                             struct moe_err *err)
{
    if (how->diagonal) return moe_hessian_diagonal(&s->hessian, how->damp, err);
    MOE_TRY(moe_hessian_factor(&s->hessian, how->damp, pool, err));
    if (s->correction) shrink(s, s->target2 > 0 ? regress(s, pool) : 0);
    if (!s->cross) return MOE_OK;
    moe_hessian_solve(&s->hessian, s->cross, s->k, pool);
    transpose(s->cross, s->k);
    return MOE_OK;
}

/* ---- memory ---- */

uint64_t moe_matrix_estimate(int64_t rows, int64_t k)
{
    return (uint64_t)(2 * rows * k + moe_round_scratch(rows, k)) * sizeof(float) + (uint64_t)(rows * k / 16);
}

enum moe_code moe_matrix_open(struct moe_matrix *m, int64_t rows, int64_t k,
                              const struct moe_matrix_method *how, struct moe_pool *pool, struct moe_err *err)
{
    size_t n = (size_t)(rows * k);
    *m = (struct moe_matrix){ .how = *how, .pool = pool };
    m->w = malloc(n * sizeof *m->w);
    m->q = malloc(n * sizeof *m->q);
    m->scratch = malloc((size_t)moe_round_scratch(rows, k) * sizeof *m->scratch);
    m->scale = malloc(n / 16 + 1);
    if (m->w && m->q && m->scratch && m->scale) return MOE_OK;
    moe_matrix_release(m);
    return moe_fail(err, MOE_NOMEM, "no memory to round %lld x %lld weights", (long long)rows, (long long)k);
}

void moe_matrix_release(struct moe_matrix *m)
{
    free(m->w);
    free(m->q);
    free(m->scratch);
    free(m->scale);
    *m = (struct moe_matrix){ 0 };
}

/* ---- products ---- */

struct product { const struct moe_weight *w; const float *x; int64_t n, tokens; float *y; };

static void product(void *ctx, int64_t item, int worker)
{
    struct product *p = ctx;
    int64_t down = (p->w->rows + MULTIPLY_ROWS - 1) / MULTIPLY_ROWS;
    int64_t r0 = item % down * MULTIPLY_ROWS;
    int64_t t = item / down * p->tokens;
    (void)worker;
    moe_matmul_many(p->w, r0, moe_min_i64(r0 + MULTIPLY_ROWS, p->w->rows), p->x + t * p->w->cols, p->w->cols,
                    moe_min_i64(p->tokens, p->n - t), p->y + t * p->w->rows + r0, p->w->rows);
}

void moe_matrix_multiply(struct moe_pool *pool, const struct moe_weight *w, const float *x, int64_t n,
                         float *y)
{
    int64_t down = (w->rows + MULTIPLY_ROWS - 1) / MULTIPLY_ROWS, tokens = n;
    while (tokens > MULTIPLY_TOKENS && (n + tokens - 1) / tokens * down < 4 * moe_pool_threads(pool))
        tokens = (tokens + 1) / 2;
    struct product p = { w, x, n, tokens, y };
    if (n > 0) moe_pool_run(pool, (n + tokens - 1) / tokens * down, product, &p);
}

/* ---- rounding ---- */

/* Which of the weights the row at place i belongs to (returned), and which of that weight's rows it is. */
static int find_row(const struct moe_weight *const *w, const struct moe_output_hessian *g, int64_t i,
                    int64_t *row)
{
    *row = g ? g->order[i] : i;
    if (*row < w[0]->rows) return 0;
    *row -= w[0]->rows;
    return 1;
}

float moe_matrix_load(struct moe_matrix *m, const struct moe_inputs *s, const struct moe_weight *const *w,
                      int n, const struct moe_output_hessian *g)
{
    int64_t k = s->k, row;

    m->rows = w[0]->rows + (n > 1 ? w[1]->rows : 0);
    for (int64_t i = 0; i < m->rows; i++) {
        int which = find_row(w, g, i, &row);
        moe_kernels()->dequantize(w[which], row, s->c0, k, m->w + i * k);
    }
    if (s->cross && m->how.fit && !m->how.diagonal) {
        memcpy(m->q, m->w, (size_t)(m->rows * k) * sizeof *m->q);
        moe_gemm(m->pool, m->rows, k, k, 1, m->q, k, 1, s->cross, k, m->w, k);
    }
    for (int64_t i = 0; s->correction && s->target2 > 0 && i < m->rows; i++) {
        const float *correction = s->correction + (g ? g->order[i] : i);
        for (int64_t j = 0; j < k; j++) m->w[i * k + j] += correction[j * s->outputs];
    }
    return moe_kernels()->amax(m->w, m->rows * k);
}

/* Packs the codes of the values q [k], which are e2m1 values times scale * global: two to a byte, the even
 * column in the low nibble.  A zero of either sign has code 0. */
static void pack(const float *q, const uint8_t *scale, float global, int64_t k, uint8_t *codes)
{
    for (int64_t b = 0; b < k / 16; b++) {
        float step = moe_e4m3_to_f32(scale[b]) * global;
        for (int i = 0; i < 16; i += 2) {
            float lo = q[16 * b + i], hi = q[16 * b + i + 1];
            codes[8 * b + i / 2] = (uint8_t)((lo != 0 ? moe_f32_to_e2m1(lo / step) : 0) |
                                             (hi != 0 ? moe_f32_to_e2m1(hi / step) : 0) << 4);
        }
    }
}

enum moe_code moe_matrix_round(struct moe_matrix *m, const struct moe_inputs *s,
                               const struct moe_weight *const *w, int n, const struct moe_output_hessian *g,
                               float global, struct moe_rounded *const *out, struct moe_err *err)
{
    int64_t k = s->k, row;
    struct moe_round r = { .columns = &s->hessian,
                           .rows = g ? &g->hessian : NULL,
                           .sweeps = m->how.sweeps,
                           .global = global,
                           .n = m->rows,
                           .w = m->w,
                           .q = m->q,
                           .scale = m->scale,
                           .scratch = m->scratch };

    moe_round_run(&r, m->pool);
    for (int64_t i = 0; i < m->rows; i++) {
        int which = find_row(w, g, i, &row);
        int64_t at = row * w[which]->cols + s->c0;
        struct moe_rounded *o = out[which];
        pack(m->q + i * k, m->scale + i * k / 16, global, k, o->codes + at / 2);
        memcpy(o->scales + at / 16, m->scale + i * k / 16, (size_t)k / 16);
        moe_kernels()->dequantize(w[which], row, s->c0, k, m->w + i * k);
        moe_kernels()->sqerr(m->w + i * k, m->q + i * k, k, &o->num, &o->den);
    }
    for (int i = 0; i < n; i++)
        if (!isfinite(out[i]->num))
            return moe_fail(err, MOE_NONFINITE,
                            "rounding gave a NaN or Inf (the statistics of calibration are unusable)");
    return MOE_OK;
}
