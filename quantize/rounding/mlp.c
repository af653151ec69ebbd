/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/rounding/mlp-internal.h"

#include "base/io.h"
#include "base/minmax.h"

#include <math.h>
#include <string.h>

/* ---- a piece of tokens ---- */

/* Rows of `width` values that norm_row norms (with the norm of t) or quantize_row quantizes (under the input
 * scale `scale`), on all threads. */
struct rows {
    const struct moe_mlp *m;
    const float *in;
    float *out;
    int64_t width;
    float scale;
    const struct moe_mlp_tokens *t;
};

static void each_row(const struct moe_mlp *m, int64_t n, int64_t width, void (*fn)(void *, int64_t, int),
                     struct rows *r)
{
    moe_pool_run(n * width > 1 << 16 ? m->pool : NULL, n, fn, r);
}

static void norm_row(void *ctx, int64_t i, int worker)
{
    struct rows *r = ctx;
    (void)worker;
    r->m->k->rmsnorm(r->in + i * r->width, r->t->norm, r->t->eps, r->width, r->out + i * r->width);
}

static void quantize_row(void *ctx, int64_t i, int worker)
{
    struct rows *r = ctx;
    (void)worker;
    moe_activations_kernel(r->m->k, r->m->how.activations)(r->in + i * r->width, r->width, r->scale,
                                                           r->out + i * r->width);
}

/* Reads tokens [first, first + n) and norms them: m->h holds the MLP's inputs. */
static enum moe_code load_tokens(struct moe_mlp *m, const struct moe_mlp_tokens *t, int64_t first, int64_t n,
                                 struct moe_err *err)
{
    struct rows r = { m, m->h, m->h, t->h->width, 0, t };
    MOE_TRY(moe_states_gather(t->h, t->row + first, n, m->h, err));
    each_row(m, n, r.width, norm_row, &r);
    return MOE_OK;
}

/* Rounds the n rows of `in` to NVFP4, under the input scale that this amax gives; out may be in. */
static void quantize_activations(const struct moe_mlp *m, const float *in, int64_t width, int64_t n,
                                 float amax, float *out)
{
    struct rows r = { m, in, out, width, moe_nvfp4_global(amax, MOE_NVFP4_MAX), NULL };
    each_row(m, n, width, quantize_row, &r);
}

/* Computes y = silu(gate x) * (up x) for n rows x; up [n, inter] is scratch. */
static void compute_gate_up(const struct moe_mlp *m, const struct moe_weight w[2], const float *x, int64_t n,
                            float *y, float *up)
{
    moe_matrix_multiply(m->pool, &w[0], x, n, y);
    moe_matrix_multiply(m->pool, &w[1], x, n, up);
    m->k->swiglu(y, up, n * w[0].rows, y);
}

/* Multiplies each row of x by its token's importance. */
static void scale_by_importance(const struct moe_mlp_tokens *t, int64_t first, int64_t n, float *x,
                                int64_t width)
{
    for (int64_t i = 0; t->importance && i < n; i++)
        for (int64_t k = 0; k < width; k++) x[i * width + k] *= t->importance[first + i];
}

static void subtract(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] -= y[i];
}

/* amax: the largest magnitude of some activations.  MOE_NONFINITE when one of them is NaN or Inf. */
static enum moe_code check_finite(float amax, struct moe_err *err)
{
    return isfinite(amax) ? MOE_OK
                          : moe_fail(err, MOE_NONFINITE,
                                     "an activation is NaN or Inf in calibration (the weights may be "
                                     "damaged: moe-inspect --verify)");
}

/* What one call of moe_mlp_quantize works on. */
struct pass {
    struct moe_mlp *m;
    const struct moe_mlp_tokens *t;
    const struct moe_weight *w; /* [3] unquantized */
    const struct moe_weight *q; /* [3] quantized as far as this has come */
    struct moe_mlp_result *r;
    bool two_sided;             /* the output Hessian of gate and up is being summed */
};

/* Calls fn for one piece of tokens after the other: [first, first + n), with their x in m->h.  No piece holds
 * both own and borrowed tokens. */
static enum moe_code each_piece(struct pass *p,
                                enum moe_code (*fn)(struct pass *, int64_t first, int64_t n,
                                                    struct moe_err *),
                                struct moe_err *err)
{
    for (int64_t at = 0, n; at < p->t->n; at += n) {
        n = moe_min_i64(MOE_MLP_PIECE, (at < p->t->own ? p->t->own : p->t->n) - at);
        MOE_TRY(load_tokens(p->m, p->t, at, n, err));
        MOE_TRY(fn(p, at, n, err));
    }
    return MOE_OK;
}

/* ---- gate and up ---- */

/* Raises r->amax_x to the largest magnitude of x among the piece's tokens, unless they are borrowed. */
static enum moe_code update_amax_x(struct pass *p, int64_t first, int64_t n, struct moe_err *err)
{
    float amax = p->m->k->amax(p->m->h, n * p->t->h->width);
    if (first >= p->t->own) return check_finite(amax, err);
    p->r->amax_x = fmaxf(p->r->amax_x, amax);
    return check_finite(amax, err);
}

/* Computes m->a = down^T F down, the A of mlp.h; F is the identity if f is NULL.  m->matrix.w and .q are
 * scratch here, since nothing is loaded into them yet. */
static void compute_hessian_at_inputs_of_down(struct moe_mlp *m, const struct moe_weight *down,
                                              const struct moe_output_hessian *f)
{
    int64_t h = down->rows, n = down->cols;
    float *w = m->matrix.w, *fw = f ? m->matrix.q : w;
    for (int64_t i = 0; i < h; i++) m->k->dequantize(down, f ? f->order[i] : i, 0, n, w + i * n);
    if (f) memset(fw, 0, (size_t)(h * n) * sizeof *fw);
    if (f) moe_gemm(m->pool, h, n, h, 1, f->hessian.h, h, 1, w, n, fw, n);
    memset(m->a, 0, (size_t)(n * n) * sizeof *m->a);
    moe_gemm(m->pool, n, n, h, 1, w, 1, n, fw, n, m->a, n);
}

/* The work of compute_derivative_row. */
struct derivatives {
    const struct moe_mlp *m;
    int64_t n;     /* inter */
    float *factor; /* [tokens] */
};

/* Computes the derivatives d of token t (mlp.h), from gate x and up x; and factor[t], the square root of what
 * the token weighs in the Hessian of the columns: d^T diag([A A; A A]) d. */
static void compute_derivative_row(void *ctx, int64_t t, int worker)
{
    struct derivatives *s = ctx;
    int64_t n = s->n;
    const float *g = s->m->gate + t * n, *u = s->m->up + t * n, *a = s->m->a;
    float *d = s->m->d + t * 2 * n;
    double moved = 0;

    (void)worker;
    for (int64_t i = 0; i < n; i++) {
        float sigmoid = 1 / (1 + expf(-g[i]));
        d[i] = sigmoid * (1 + g[i] * (1 - sigmoid)) * u[i];
        d[n + i] = g[i] * sigmoid;
        moved += (double)a[i * n + i] * ((double)d[i] * (double)d[i] + (double)d[n + i] * (double)d[n + i]);
    }
    s->factor[t] = (float)sqrt(moved);
}

/* Adds the d d^T of the piece's tokens to m->gate_up_hessian, and fills factor[]. */
static void add_derivatives(struct pass *p, int64_t first, int64_t n, float factor[MOE_MLP_PIECE])
{
    struct moe_mlp *m = p->m;
    int64_t inter = p->w[0].rows;
    struct derivatives s = { m, inter, factor };
    moe_matrix_multiply(m->pool, &p->w[0], m->h, n, m->gate);
    moe_matrix_multiply(m->pool, &p->w[1], m->h, n, m->up);
    moe_pool_run(n * inter > 1 << 14 ? m->pool : NULL, n, compute_derivative_row, &s);
    scale_by_importance(p->t, first, n, m->d, 2 * inter);
    moe_hessian_add(&m->gate_up_hessian.hessian, m->d, 2 * inter, n, m->pool);
}

/* Adds the piece to the statistics of the inputs of gate and up. */
static enum moe_code add_gate_up_inputs(struct pass *p, int64_t first, int64_t n, struct moe_err *err)
{
    struct moe_mlp *m = p->m;
    int64_t width = p->t->h->width;
    float *x = m->h, factor[MOE_MLP_PIECE];
    if (!m->how.activations && !m->x.c0) MOE_TRY(update_amax_x(p, first, n, err));
    if (p->two_sided) add_derivatives(p, first, n, factor);
    if (m->how.activations) {
        quantize_activations(m, m->h, width, n, p->r->amax_x, m->hq);
        x = m->hq;
    }
    scale_by_importance(p->t, first, n, x, width);
    for (int64_t t = 0; p->two_sided && t < n; t++)
        for (int64_t i = 0; i < width; i++) x[t * width + i] *= factor[t];
    moe_inputs_add(&m->x, x, NULL, width, n, m->pool);
    return MOE_OK;
}

/* m->gate_up_hessian holds C = sum of d d^T.  Makes it G = C o [A A; A A] and factors it. */
static enum moe_code finish_gate_up_hessian(struct moe_mlp *m, int64_t inter, struct moe_err *err)
{
    float *h = m->gate_up_hessian.hessian.h;
    int64_t k = 2 * inter;
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j <= i; j++) h[i * k + j] *= m->a[i % inter * inter + j % inter];
    return moe_output_hessian_finish(&m->gate_up_hessian, m->how.matrix.damp_rows, m->pool, err);
}

/* ---- down ---- */

/* Computes the inputs of down for the piece at hand: those of the unquantized MLP into m->gate, those of the
 * quantized one into m->gq. */
static void compute_inputs_of_down(struct pass *p, int64_t n)
{
    struct moe_mlp *m = p->m;
    const float *x = m->h;
    compute_gate_up(m, p->w, m->h, n, m->gate, m->up);
    if (m->how.activations && p->q[0].type == MOE_NVFP4) {
        quantize_activations(m, m->h, p->t->h->width, n, p->r->amax_x, m->hq);
        x = m->hq;
    }
    compute_gate_up(m, p->q, x, n, m->gq, m->uq);
}

/* Computes down's inputs for the piece, and raises r->amax_y to the largest magnitude of the quantized MLP's,
 * unless the tokens are borrowed. */
static enum moe_code update_amax_y(struct pass *p, int64_t first, int64_t n, struct moe_err *err)
{
    struct moe_mlp *m = p->m;
    compute_inputs_of_down(p, n);
    float amax = m->k->amax(m->gq, n * p->w[2].cols);
    if (first >= p->t->own) return check_finite(amax, err);
    p->r->amax_y = fmaxf(p->r->amax_y, amax);
    return check_finite(amax, err);
}

/* Adds the targets of the piece's tokens, whose inputs of down are in m->gq, already weighed: their shares of
 * the residual. */
static enum moe_code add_targets(struct pass *p, int64_t first, int64_t n, struct moe_err *err)
{
    struct moe_mlp *m = p->m;
    const struct moe_mlp_tokens *t = p->t;
    float weight[MOE_MLP_PIECE];
    int64_t h = t->h->width;

    MOE_TRY(moe_states_gather(t->residual, t->row + first, n, m->out, err));
    for (int64_t i = 0; i < n; i++) {
        float root = t->importance ? t->importance[first + i] : 1;
        float f = root * t->share[first + i];
        weight[i] = root * root;
        for (int64_t j = 0; j < h; j++) m->out[i * h + j] *= f;
    }
    moe_inputs_add_targets(&m->y, m->gq, p->w[2].cols, m->out, weight, n, m->pool);
    return MOE_OK;
}

/* Adds the piece to the statistics of the inputs of down. */
static enum moe_code add_down_inputs(struct pass *p, int64_t first, int64_t n, struct moe_err *err)
{
    struct moe_mlp *m = p->m;
    int64_t k = p->w[2].cols;
    if (m->how.activations || m->y.c0) compute_inputs_of_down(p, n);
    else MOE_TRY(update_amax_y(p, first, n, err));
    /* m->gate becomes what the rounding of gate and up has changed.  What quantized activations change is
     * not in it: fitting down to that noise loses more than it gains. */
    subtract(m->gate, m->gq, n * k);
    if (m->how.activations) quantize_activations(m, m->gq, k, n, p->r->amax_y, m->gq);
    scale_by_importance(p->t, first, n, m->gate, k);
    scale_by_importance(p->t, first, n, m->gq, k);
    moe_inputs_add(&m->y, m->gq, m->gate, k, n, m->pool);
    return p->t->residual && m->y.correction && first < p->t->own ? add_targets(p, first, n, err) : MOE_OK;
}

/* ---- rounding gate and up, or down: a slice of columns at a time ---- */

/* The weights that are rounded together. */
struct weights {
    const struct moe_weight *w[2];
    struct moe_rounded *out[2];
    float amax; /* the largest magnitude in them, as stored */
    int n;
};

/* Collects those of weights i0 to i1 that are to be quantized. */
static struct weights select_weights(struct pass *p, const struct moe_mlp_weights *w, int i0, int i1)
{
    struct weights c = { .n = 0 };
    for (int i = i0; i <= i1; i++) {
        if (!w->quantize[i]) continue;
        p->r->rounded[i].codes = p->m->codes[i];
        p->r->rounded[i].scales = p->m->scales[i];
        c.amax = fmaxf(c.amax, w->amax[i]);
        c.w[c.n] = &w->w[i];
        c.out[c.n++] = &p->r->rounded[i];
    }
    return c;
}

/* Rounds the slice of columns at hand.  All slices of a weight share one global scale, which the first
 * one sets.  Where there are several, it is large enough for the whole weight as stored, too. */
static enum moe_code round_slice(struct pass *p, const struct moe_inputs *s, const struct weights *c,
                                 const struct moe_output_hessian *rows, float *global, struct moe_err *err)
{
    float amax = moe_matrix_load(&p->m->matrix, s, c->w, c->n, rows);
    if (!s->c0)
        *global = moe_nvfp4_global(s->k < c->w[0]->cols ? fmaxf(amax, c->amax) : amax, MOE_NVFP4_SEARCH);
    return moe_matrix_round(&p->m->matrix, s, c->w, c->n, rows, *global, c->out, err);
}

/* For each slice of columns: sums its statistics over all tokens, by `add`, and rounds it.  Sets *global, and
 * adds to the seconds of statistics, factoring and rounding. */
static enum moe_code round_by_slices(struct pass *p, struct moe_inputs *s, const struct weights *c,
                                     const struct moe_output_hessian *rows, float *global,
                                     enum moe_code (*add)(struct pass *, int64_t, int64_t, struct moe_err *),
                                     struct moe_err *err)
{
    struct moe_mlp *m = p->m;
    int64_t cols = c->w[0]->cols;
    double *seconds = p->r->seconds;

    for (int64_t c0 = 0; c0 < cols; c0 += MOE_SLICE_COLUMNS) {
        double begin = moe_now();
        moe_inputs_begin(s, c0, moe_min_i64(MOE_SLICE_COLUMNS, cols - c0));
        MOE_TRY(each_piece(p, add, err));
        double summed = moe_now();
        MOE_TRY(moe_inputs_end(s, &m->how.matrix, m->pool, err));
        if (p->two_sided) MOE_TRY(finish_gate_up_hessian(m, p->w[0].rows, err));
        double factored = moe_now();
        MOE_TRY(round_slice(p, s, c, rows, global, err));
        seconds[0] += summed - begin;
        seconds[1] += factored - summed;
        seconds[2] += moe_now() - factored;
        p->two_sided = false;
    }
    return MOE_OK;
}

/* ---- the whole ---- */

/* The quantized weight that r holds, of the shape of w. */
static struct moe_weight as_quantized(const struct moe_weight *w, const struct moe_rounded *r, float global)
{
    return (struct moe_weight){ .type = MOE_NVFP4,
                                .layout = MOE_LAYOUT_LINEAR,
                                .rows = w->rows,
                                .cols = w->cols,
                                .data = r->codes,
                                .scale = r->scales,
                                .global = global };
}

/* Computes the error of the MLP's output over the first piece of tokens, with activations as computed. */
static enum moe_code measure_error(struct pass *p, struct moe_err *err)
{
    struct moe_mlp *m = p->m;
    int64_t n = moe_min_i64(MOE_MLP_PIECE, p->t->own), h = p->t->h->width;
    if (!n) return MOE_OK;
    MOE_TRY(load_tokens(m, p->t, 0, n, err));
    compute_gate_up(m, p->w, m->h, n, m->gate, m->up);
    compute_gate_up(m, p->q, m->h, n, m->gq, m->uq);
    moe_matrix_multiply(m->pool, &p->w[2], m->gate, n, m->out);
    moe_matrix_multiply(m->pool, &p->q[2], m->gq, n, m->h);
    m->k->sqerr(m->out, m->h, n * h, &p->r->out_num, &p->r->out_den);
    return MOE_OK;
}

enum moe_code moe_mlp_quantize(struct moe_mlp *m, const struct moe_mlp_weights *w,
                               const struct moe_mlp_tokens *t, const struct moe_output_hessian *f,
                               struct moe_mlp_result *r, struct moe_err *err)
{
    struct moe_weight q[3] = { w->w[0], w->w[1], w->w[2] };
    struct pass p = { m,
                      t,
                      w->w,
                      q,
                      r,
                      moe_mlp_is_two_sided(&m->how, w->w[0].rows) && w->quantize[0] && w->quantize[1] &&
                          w->w[0].cols <= MOE_SLICE_COLUMNS };

    *r = (struct moe_mlp_result){ 0 };
    struct weights gate_and_up = select_weights(&p, w, 0, 1), down = select_weights(&p, w, 2, 2);
    m->gate_up_hessian.hessian.k = 2 * w->w[0].rows;
    if (p.two_sided) {
        moe_hessian_clear(&m->gate_up_hessian.hessian);
        compute_hessian_at_inputs_of_down(m, &w->w[2], f);
    }
    if (m->how.activations) MOE_TRY(each_piece(&p, update_amax_x, err));
    if (gate_and_up.n)
        MOE_TRY(round_by_slices(&p, &m->x, &gate_and_up, p.two_sided ? &m->gate_up_hessian : NULL,
                                &r->global[0], add_gate_up_inputs, err));
    r->global[1] = r->global[0];
    for (int i = 0; i < 2; i++)
        if (w->quantize[i]) q[i] = as_quantized(&w->w[i], &r->rounded[i], r->global[i]);
    if (m->how.activations) MOE_TRY(each_piece(&p, update_amax_y, err));
    p.two_sided = false;
    if (down.n)
        MOE_TRY(round_by_slices(&p, &m->y, &down, m->how.matrix.diagonal ? NULL : f, &r->global[2],
                                add_down_inputs, err));
    if (down.n) q[2] = as_quantized(&w->w[2], &r->rounded[2], r->global[2]);
    return measure_error(&p, err);
}

enum moe_code moe_mlp_forward(struct moe_mlp *m, const struct moe_weight w[3], const struct moe_mlp_tokens *t,
                              struct moe_states *out, struct moe_err *err)
{
    int64_t h = t->h->width;
    for (int64_t at = 0, n; at < t->own; at += n) {
        n = moe_min_i64(MOE_MLP_PIECE, t->own - at);
        MOE_TRY(load_tokens(m, t, at, n, err));
        compute_gate_up(m, w, m->h, n, m->gate, m->up);
        if (t->clip) moe_clip_count(&t->clip[0], m->h, h, h, n);
        if (t->clip) moe_clip_count(&t->clip[1], m->gate, w[0].rows, w[0].rows, n);
        moe_matrix_multiply(m->pool, &w[2], m->gate, n, m->out);
        MOE_TRY(check_finite(m->k->amax(m->out, n * h), err));
        MOE_TRY(moe_states_add(out, t->row + at, n, m->out, t->weight ? t->weight + at : NULL, m->h, err));
    }
    return MOE_OK;
}
