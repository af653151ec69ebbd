/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/rounding/mlp.h"

#include "base/io.h"
#include "base/minmax.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Tokens are read in pieces of this many: a multiple of the depth that the kernel gemm sums at once. */
enum { PIECE = 1024 };

struct moe_mlp {
    int64_t hidden, inter; /* the widths for which it has room */
    struct moe_mlp_method how;
    struct moe_matrix matrix;
    struct moe_pool *pool;
    const struct moe_kernels *k;
    struct moe_inputs x; /* statistics of the inputs of gate and up */
    struct moe_inputs y; /* statistics of the inputs of down */
    struct moe_output_hessian gate_up_hessian; /* over the rows of gate and up together */
    float *a; /* [inter, inter]: down^T F down */

    /* Of the piece at hand, [PIECE, hidden]: the MLP's inputs; the same in NVFP4; its outputs. */
    float *h, *hq, *out;

    /* [PIECE, inter]: gate x and up x of the unquantized weights, then of the quantized ones.  gate and gq
     * then become silu(gate x) * (up x), the inputs of down. */
    float *gate, *up, *gq, *uq;

    float *d; /* [PIECE, 2 inter]: the derivatives d of mlp.h */
    uint8_t *codes[3], *scales[3];

    void *owned[20]; /* what take() has allocated */
    int n_owned;
    uint64_t bytes;  /* the bytes of that; if `counting`, what it would have allocated */
    bool forward_only;
    bool counting;   /* take() only counts */
    bool failed;     /* an allocation has failed */
};

/* ---- memory ---- */

static void *take(struct moe_mlp *m, int64_t n, size_t size)
{
    size_t bytes = ((size_t)n * size + 127) / 64 * 64;
    m->bytes += bytes;
    if (m->counting) return NULL;
    void *p = m->n_owned < (int)(sizeof m->owned / sizeof *m->owned) ? aligned_alloc(64, bytes) : NULL;
    if (p) m->owned[m->n_owned++] = p;
    else m->failed = true;
    return p;
}

/* Whether gate and up get an output Hessian.  Wide MLPs do not: it would be the larger part of all memory. */
static bool is_two_sided(const struct moe_mlp_method *how, int64_t inter)
{
    return how->matrix.two_sided && !how->matrix.diagonal && 2 * inter <= MOE_SLICE_COLUMNS;
}

static void take_all(struct moe_mlp *m)
{
    int64_t h = m->hidden, n = m->inter;
    bool two_sided = is_two_sided(&m->how, n);

    m->h = take(m, PIECE * h, sizeof(float));
    m->out = take(m, PIECE * h, sizeof(float));
    m->gate = take(m, PIECE * n, sizeof(float));
    m->up = take(m, PIECE * n, sizeof(float));
    if (m->forward_only) return;
    m->hq = take(m, m->how.activations ? PIECE * h : 0, sizeof(float));
    m->gq = take(m, PIECE * n, sizeof(float));
    m->uq = take(m, PIECE * n, sizeof(float));
    m->a = take(m, two_sided ? n * n : 0, sizeof(float));
    m->d = take(m, two_sided ? PIECE * 2 * n : 0, sizeof(float));
    for (int i = 0; i < 3; i++) {
        m->codes[i] = take(m, h * n / 2, 1);
        m->scales[i] = take(m, h * n / 16, 1);
    }
}

/* The width of the first slice of k columns. */
static int64_t slice_columns(int64_t k) { return moe_min_i64(k, MOE_SLICE_COLUMNS); }
static bool crosses(const struct moe_mlp_method *how) { return how->matrix.fit && !how->matrix.diagonal; }
/* The number of outputs of down that get a correction; 0: none do.  Only a down of one slice of columns gets
 * one, since each of several slices would give the whole correction. */
static int64_t corrected_outputs(const struct moe_mlp_method *how, int64_t hidden, int64_t inter)
{
    return how->corrects && !how->matrix.diagonal && inter <= MOE_SLICE_COLUMNS ? hidden : 0;
}

/* The rows, and in *k the columns, with which moe_matrix_open allocates enough for one slice of columns of
 * gate and up together, [2 inter, hidden], or of down, [hidden, inter]. */
static int64_t matrix_rows(int64_t hidden, int64_t inter, int64_t *k)
{
    int64_t x = slice_columns(hidden);
    int64_t y = slice_columns(inter);
    int64_t values = moe_max_i64(2 * inter * x, hidden * y);
    *k = moe_min_i64(x, y);
    return (values + *k - 1) / *k;
}

uint64_t moe_mlp_estimate(int64_t hidden, int64_t inter, const struct moe_mlp_method *how)
{
    struct moe_mlp m = { .hidden = hidden, .inter = inter, .counting = true, .how = *how };
    int64_t k, rows = matrix_rows(hidden, inter, &k);
    take_all(&m);
    return m.bytes + moe_inputs_estimate(slice_columns(hidden), false, 0) +
           moe_inputs_estimate(slice_columns(inter), crosses(how), corrected_outputs(how, hidden, inter)) +
           moe_matrix_estimate(rows, k) +
           (is_two_sided(how, inter) ? moe_output_hessian_estimate(2 * inter) : 0);
}

uint64_t moe_mlp_forward_estimate(int64_t hidden, int64_t inter)
{
    struct moe_mlp m = { .hidden = hidden, .inter = inter, .counting = true, .forward_only = true };
    take_all(&m);
    return m.bytes;
}

enum moe_code moe_mlp_open(struct moe_mlp **out, int64_t hidden, int64_t inter,
                           const struct moe_mlp_method *how, bool forward_only, struct moe_pool *pool,
                           struct moe_err *err)
{
    struct moe_mlp *m = calloc(1, sizeof *m);
    int64_t k, rows = matrix_rows(hidden, inter, &k);

    *out = NULL;
    if (!m) return moe_fail(err, MOE_NOMEM, "no memory for calibration");
    *m = (struct moe_mlp){ .hidden = hidden,
                           .inter = inter,
                           .how = *how,
                           .forward_only = forward_only,
                           .pool = pool,
                           .k = moe_kernels() };
    take_all(m);
    enum moe_code code = m->failed ? moe_fail(err, MOE_NOMEM, "no memory to calibrate MLPs of %lld x %lld",
                                              (long long)hidden, (long long)inter)
                                   : MOE_OK;
    if (code == MOE_OK && forward_only) {
        *out = m;
        return MOE_OK;
    }
    if (code == MOE_OK) code = moe_matrix_open(&m->matrix, rows, k, &how->matrix, pool, err);
    if (code == MOE_OK) code = moe_inputs_open(&m->x, slice_columns(hidden), false, 0, err);
    if (code == MOE_OK)
        code = moe_inputs_open(&m->y, slice_columns(inter), crosses(how),
                               corrected_outputs(how, hidden, inter), err);
    if (code == MOE_OK && is_two_sided(how, inter))
        code = moe_output_hessian_open(&m->gate_up_hessian, 2 * inter, err);
    if (code != MOE_OK) moe_mlp_close(&m);
    *out = m;
    return code;
}

void moe_mlp_close(struct moe_mlp **m)
{
    if (!*m) return;
    moe_matrix_release(&(*m)->matrix);
    moe_inputs_release(&(*m)->x);
    moe_inputs_release(&(*m)->y);
    moe_output_hessian_release(&(*m)->gate_up_hessian);
    for (int i = 0; i < (*m)->n_owned; i++) free((*m)->owned[i]);
    free(*m);
    *m = NULL;
}

/* ---- a piece of tokens ---- */

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

static void activation_row(void *ctx, int64_t i, int worker)
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

/* out = the n rows of `in` rounded to NVFP4, under the input scale that this amax gives; out may be in. */
static void activations(const struct moe_mlp *m, const float *in, int64_t width, int64_t n, float amax,
                        float *out)
{
    struct rows r = { m, in, out, width, moe_nvfp4_global(amax, MOE_NVFP4_MAX), NULL };
    each_row(m, n, width, activation_row, &r);
}

/* y = silu(gate x) * (up x) for n rows x; up [n, inter] is scratch. */
static void gate_up(const struct moe_mlp *m, const struct moe_weight w[2], const float *x, int64_t n,
                    float *y, float *up)
{
    moe_matrix_multiply(m->pool, &w[0], x, n, y);
    moe_matrix_multiply(m->pool, &w[1], x, n, up);
    m->k->swiglu(y, up, n * w[0].rows, y);
}

/* Multiplies each row of x by its token's importance. */
static void weigh(const struct moe_mlp_tokens *t, int64_t first, int64_t n, float *x, int64_t width)
{
    for (int64_t i = 0; t->importance && i < n; i++)
        for (int64_t k = 0; k < width; k++) x[i * width + k] *= t->importance[first + i];
}

static void subtract(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] -= y[i];
}

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
    bool two_sided;                       /* gate and up get an output Hessian, and it is being summed */
};

/* Calls fn for one piece of tokens after the other, with their x in m->h.  No piece holds both own and
 * borrowed tokens. */
static enum moe_code each_piece(struct pass *p,
                                enum moe_code (*fn)(struct pass *, int64_t first, int64_t n,
                                                    struct moe_err *),
                                struct moe_err *err)
{
    for (int64_t at = 0, n; at < p->t->n; at += n) {
        n = moe_min_i64(PIECE, (at < p->t->own ? p->t->own : p->t->n) - at);
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

/* m->a = down^T F down, where F is the identity if f is NULL.  m->matrix.w and .q are scratch here:
 * nothing is loaded into them yet. */
static void output_hessian(struct moe_mlp *m, const struct moe_weight *down,
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

struct derivatives {
    const struct moe_mlp *m;
    int64_t n;     /* inter */
    float *factor; /* [tokens] */
};

/* The derivatives d of token t (mlp.h), from gate x and up x; and factor[t], the square root of what the
 * token weighs in the Hessian of the columns: d^T diag([A A; A A]) d. */
static void derivative_row(void *ctx, int64_t t, int worker)
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
static void add_derivatives(struct pass *p, int64_t first, int64_t n, float factor[PIECE])
{
    struct moe_mlp *m = p->m;
    int64_t inter = p->w[0].rows;
    struct derivatives s = { m, inter, factor };
    moe_matrix_multiply(m->pool, &p->w[0], m->h, n, m->gate);
    moe_matrix_multiply(m->pool, &p->w[1], m->h, n, m->up);
    moe_pool_run(n * inter > 1 << 14 ? m->pool : NULL, n, derivative_row, &s);
    weigh(p->t, first, n, m->d, 2 * inter);
    moe_hessian_add(&m->gate_up_hessian.hessian, m->d, 2 * inter, n, m->pool);
}

/* Adds the piece to the statistics of the inputs of gate and up. */
static enum moe_code add_x(struct pass *p, int64_t first, int64_t n, struct moe_err *err)
{
    struct moe_mlp *m = p->m;
    int64_t width = p->t->h->width;
    float *x = m->h, factor[PIECE];
    if (!m->how.activations && !m->x.c0) MOE_TRY(update_amax_x(p, first, n, err));
    if (p->two_sided) add_derivatives(p, first, n, factor);
    if (m->how.activations) activations(m, m->h, width, n, p->r->amax_x, x = m->hq);
    weigh(p->t, first, n, x, width);
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
static void inputs_of_down(struct pass *p, int64_t n)
{
    struct moe_mlp *m = p->m;
    const float *x = m->h;
    gate_up(m, p->w, m->h, n, m->gate, m->up);
    if (m->how.activations && p->q[0].type == MOE_NVFP4)
        activations(m, m->h, p->t->h->width, n, p->r->amax_x, m->hq), x = m->hq;
    gate_up(m, p->q, x, n, m->gq, m->uq);
}

/* Computes down's inputs for the piece, and raises r->amax_y to the largest magnitude of the quantized MLP's,
 * unless the tokens are borrowed. */
static enum moe_code update_amax_y(struct pass *p, int64_t first, int64_t n, struct moe_err *err)
{
    struct moe_mlp *m = p->m;
    inputs_of_down(p, n);
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
    float weight[PIECE];
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
static enum moe_code add_y(struct pass *p, int64_t first, int64_t n, struct moe_err *err)
{
    struct moe_mlp *m = p->m;
    int64_t k = p->w[2].cols;
    if (m->how.activations || m->y.c0) inputs_of_down(p, n);
    else MOE_TRY(update_amax_y(p, first, n, err));
    /* m->gate becomes what the rounding of gate and up has changed.  What quantized activations change is
     * not in it: fitting down to that noise loses more than it gains. */
    subtract(m->gate, m->gq, n * k);
    if (m->how.activations) activations(m, m->gq, k, n, p->r->amax_y, m->gq);
    weigh(p->t, first, n, m->gate, k);
    weigh(p->t, first, n, m->gq, k);
    moe_inputs_add(&m->y, m->gq, m->gate, k, n, m->pool);
    return p->t->residual && m->y.correction && first < p->t->own ? add_targets(p, first, n, err) : MOE_OK;
}

/* ---- one side: gate and up, or down; a slice of columns at a time ---- */

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

/* For each slice of columns: sums its statistics over all tokens, by `add`, and rounds it. */
static enum moe_code round_side(struct pass *p, struct moe_inputs *s, const struct weights *c,
                                const struct moe_output_hessian *rows, float *global,
                                enum moe_code (*add)(struct pass *, int64_t, int64_t, struct moe_err *),
                                struct moe_err *err)
{
    struct moe_mlp *m = p->m;
    int64_t cols = c->w[0]->cols;
    double *seconds = p->r->seconds;

    for (int64_t c0 = 0; c0 < cols; c0 += MOE_SLICE_COLUMNS) {
        double from = moe_now(), then;
        moe_inputs_begin(s, c0, moe_min_i64(MOE_SLICE_COLUMNS, cols - c0));
        MOE_TRY(each_piece(p, add, err));
        seconds[0] += (then = moe_now()) - from;
        MOE_TRY(moe_inputs_end(s, &m->how.matrix, m->pool, err));
        if (p->two_sided) MOE_TRY(finish_gate_up_hessian(m, p->w[0].rows, err));
        seconds[1] += (from = moe_now()) - then;
        MOE_TRY(round_slice(p, s, c, rows, global, err));
        seconds[2] += moe_now() - from;
        p->two_sided = false;
    }
    return MOE_OK;
}

/* ---- the whole ---- */

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
    int64_t n = moe_min_i64(PIECE, p->t->own), h = p->t->h->width;
    if (!n) return MOE_OK;
    MOE_TRY(load_tokens(m, p->t, 0, n, err));
    gate_up(m, p->w, m->h, n, m->gate, m->up);
    gate_up(m, p->q, m->h, n, m->gq, m->uq);
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
                      is_two_sided(&m->how, w->w[0].rows) && w->quantize[0] && w->quantize[1] &&
                          w->w[0].cols <= MOE_SLICE_COLUMNS };

    *r = (struct moe_mlp_result){ 0 };
    struct weights gate_and_up = select_weights(&p, w, 0, 1), down = select_weights(&p, w, 2, 2);
    bool rows = p.two_sided;
    m->gate_up_hessian.hessian.k = 2 * w->w[0].rows;
    if (rows) {
        moe_hessian_clear(&m->gate_up_hessian.hessian);
        output_hessian(m, &w->w[2], f);
    }
    if (m->how.activations) MOE_TRY(each_piece(&p, update_amax_x, err));
    if (gate_and_up.n)
        MOE_TRY(round_side(&p, &m->x, &gate_and_up, rows ? &m->gate_up_hessian : NULL, &r->global[0], add_x,
                           err));
    r->global[1] = r->global[0];
    for (int i = 0; i < 2; i++)
        if (w->quantize[i]) q[i] = as_quantized(&w->w[i], &r->rounded[i], r->global[i]);
    if (m->how.activations) MOE_TRY(each_piece(&p, update_amax_y, err));
    p.two_sided = false;
    if (down.n)
        MOE_TRY(round_side(&p, &m->y, &down, m->how.matrix.diagonal ? NULL : f, &r->global[2], add_y, err));
    if (down.n) q[2] = as_quantized(&w->w[2], &r->rounded[2], r->global[2]);
    return measure_error(&p, err);
}

enum moe_code moe_mlp_forward(struct moe_mlp *m, const struct moe_weight w[3], const struct moe_mlp_tokens *t,
                              struct moe_states *out, struct moe_err *err)
{
    int64_t h = t->h->width;
    for (int64_t at = 0, n; at < t->own; at += n) {
        n = moe_min_i64(PIECE, t->own - at);
        MOE_TRY(load_tokens(m, t, at, n, err));
        gate_up(m, w, m->h, n, m->gate, m->up);
        if (t->clip) moe_clip_count(&t->clip[0], m->h, h, h, n);
        if (t->clip) moe_clip_count(&t->clip[1], m->gate, w[0].rows, w[0].rows, n);
        moe_matrix_multiply(m->pool, &w[2], m->gate, n, m->out);
        MOE_TRY(check_finite(m->k->amax(m->out, n * h), err));
        MOE_TRY(moe_states_add(out, t->row + at, n, m->out, t->weight ? t->weight + at : NULL, m->h, err));
    }
    return MOE_OK;
}
