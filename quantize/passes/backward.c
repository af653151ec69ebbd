/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/passes/backward-internal.h"

#include "base/minmax.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS = 128,  /* rows of w in a work item of a product */
    TOKENS = 384 /* tokens in a work item of a transposed product */
};

static int64_t block_count(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* ---- buffers ---- */

/* One call of moe_backward_mlp for at most max_tokens tokens, with that function's w, weight and dot. */
struct mlp {
    struct moe_backward *b;
    const struct moe_weight *w;
    const float *weight;
    /* [n, inter]: gate x, then its gradient; up x, then its gradient; down^T dy.  dot [n], or NULL. */
    float *gate, *up, *da, *dot;
    int64_t inter;
    struct moe_backward_product forward[2]; /* gate x and up x */
    struct moe_backward_transposed back;    /* down^T dy */
    struct moe_backward_transposed in[2];   /* the gradients with respect to the inputs of gate and of up */
};

static int64_t widest_mlp(const struct moe_config *c)
{
    return moe_max_i64(c->intermediate_size, c->moe_intermediate_size * moe_max_i64(c->n_shared_experts, 1));
}

/* Takes the arrays of n tokens out of the room, or only counts them where the room has no memory. */
static void take_mlp_buffers(struct mlp *m, struct moe_backward_room *r, int64_t n, int64_t inter)
{
    m->gate = moe_backward_take(r, n * inter);
    m->up = moe_backward_take(r, n * inter);
    m->da = moe_backward_take(r, n * inter);
}

/* The floats of moe_backward.rows: as many as the part that needs most. */
static int64_t row_floats(const struct moe_config *c, int64_t tokens)
{
    struct moe_backward_room r = { 0 };
    take_mlp_buffers(&(struct mlp){ 0 }, &r, tokens, widest_mlp(c));
    return moe_max_i64(
        r.used, moe_max_i64(moe_backward_head_floats(c, tokens), moe_backward_attention_floats(c, tokens)));
}

/* The floats of one worker's memory: as many as the part that needs most. */
static int64_t worker_floats(const struct moe_config *c, int64_t sequence)
{
    int64_t n = moe_max_i64(MOE_BACKWARD_DEPTH * MOE_BACKWARD_COLS,
                            moe_backward_attention_worker_floats(c, sequence));
    return (moe_max_i64(n, c->num_experts_per_tok * (c->hidden_size + 1)) + 15) / 16 * 16;
}

/* The bytes of a buffer of so many floats: a multiple of 64, as aligned_alloc needs, and never 0. */
static size_t buffer_bytes(int64_t floats) { return ((size_t)floats * sizeof(float) + 127) / 64 * 64; }

uint64_t moe_backward_touched_bytes(const struct moe_config *c, int64_t rows, int64_t attention_rows,
                                    int64_t sequence, int threads)
{
    struct moe_backward_room r = { 0 };
    int64_t inter = c->moe_layer_freq > 1 ? widest_mlp(c)
                                          : c->moe_intermediate_size * moe_max_i64(c->n_shared_experts, 1);
    take_mlp_buffers(&(struct mlp){ 0 }, &r, rows, inter);
    int64_t floats = moe_max_i64(r.used, moe_max_i64(moe_backward_head_floats(c, rows),
                                                     moe_backward_attention_floats(c, attention_rows)));
    return sizeof(struct moe_backward) + buffer_bytes(floats) +
           buffer_bytes(threads * worker_floats(c, sequence));
}

enum moe_code moe_backward_open(struct moe_backward **out, const struct moe_model *m, int64_t max_tokens,
                                int64_t sequence, struct moe_pool *pool, struct moe_err *err)
{
    MOE_CHECK(max_tokens > 0 && sequence > 0 && sequence <= max_tokens);
    struct moe_backward *b = calloc(1, sizeof *b);
    *out = NULL;
    if (!b) return moe_fail(err, MOE_NOMEM, "no memory for a backward pass");
    *b = (struct moe_backward){ .m = m,
                                .k = moe_kernels(),
                                .pool = pool,
                                .max_tokens = max_tokens,
                                .sequence = sequence,
                                .worker_floats = worker_floats(&m->config, sequence) };
    b->rows = aligned_alloc(64, buffer_bytes(row_floats(&m->config, max_tokens)));
    b->worker = aligned_alloc(64, buffer_bytes(moe_pool_threads(pool) * b->worker_floats));
    if (!b->rows || !b->worker) {
        moe_backward_close(&b);
        return moe_fail(err, MOE_NOMEM,
                        "no memory for gradients of %lld tokens (try fewer --threads or smaller batches)",
                        (long long)max_tokens);
    }
    *out = b;
    return MOE_OK;
}

void moe_backward_close(struct moe_backward **b)
{
    if (!*b) return;
    free((*b)->rows);
    free((*b)->worker);
    free(*b);
    *b = NULL;
}

void moe_backward_observe(struct moe_backward *b, const struct moe_backward_observer *o)
{
    b->observer = o ? *o : (struct moe_backward_observer){ .ctx = NULL };
}

/* ---- products ---- */

int64_t moe_backward_product_items(const struct moe_backward_product *p)
{
    return block_count(p->w->rows, ROWS);
}

void moe_backward_product_item(const struct moe_backward_product *p, int64_t item)
{
    int64_t r0 = item * ROWS, r1 = moe_min_i64(r0 + ROWS, p->w->rows);
    p->b->k->matmul(p->w, r0, r1, p->x, p->ldx, p->n, p->y + r0, p->ldy);
}

static void run_product_item(void *ctx, int64_t item, int worker)
{
    (void)worker;
    moe_backward_product_item(ctx, item);
}

void moe_backward_product(struct moe_backward *b, const struct moe_weight *w, const float *x, int64_t ldx,
                          int64_t n, float *y)
{
    struct moe_backward_product p = { b, w, x, ldx, n, y, w->rows };
    moe_backward_each(b, moe_backward_product_items(&p), w->rows * w->cols * n, run_product_item, &p);
}

int64_t moe_backward_transposed_items(const struct moe_backward_transposed *t)
{
    return block_count(t->w->cols, MOE_BACKWARD_COLS) * block_count(t->n, TOKENS);
}

/* Adds to one tile of dx, or computes it if t->fresh: some columns of some tokens. */
void moe_backward_transposed_item(const struct moe_backward_transposed *t, int64_t item, int worker)
{
    const struct moe_kernels *k = t->b->k;
    int64_t tiles = block_count(t->w->cols, MOE_BACKWARD_COLS);
    int64_t c0 = item % tiles * MOE_BACKWARD_COLS;
    int64_t cols = moe_min_i64(t->w->cols - c0, MOE_BACKWARD_COLS);
    int64_t t0 = item / tiles * TOKENS, n = moe_min_i64(t->n - t0, TOKENS);
    float *w = t->b->worker + worker * t->b->worker_floats, *dx = t->dx + t0 * t->lddx + c0;
    for (int64_t i = 0; i < n && t->fresh; i++) memset(dx + i * t->lddx, 0, (size_t)cols * sizeof *dx);
    for (int64_t r = t->r0; r < t->r1; r += MOE_BACKWARD_DEPTH) {
        int64_t depth = moe_min_i64(t->r1 - r, MOE_BACKWARD_DEPTH);
        for (int64_t i = 0; i < depth; i++) k->dequantize(t->w, r + i, c0, cols, w + i * cols);
        k->gemm(n, cols, depth, 1, t->dy + t0 * t->lddy + r - t->r0, t->lddy, 1, w, cols, dx, t->lddx);
    }
}

static void run_transposed_item(void *ctx, int64_t item, int worker)
{
    moe_backward_transposed_item(ctx, item, worker);
}

void moe_backward_transposed(const struct moe_backward_transposed *t)
{
    struct moe_backward_transposed copy = *t;
    moe_backward_each(t->b, moe_backward_transposed_items(t), (t->r1 - t->r0) * t->w->cols * t->n,
                      run_transposed_item, &copy);
}

/* ---- norm ---- */

/* The parameters of moe_backward_norm or moe_backward_recompute_norm. */
struct norm {
    struct moe_backward *b;
    const float *x, *w;
    float eps;
    int64_t dim, ld;
    const float *dy;
    float *dx;
};

/* Norms row t as the forward pass did. */
static void recompute_norm_row(void *ctx, int64_t t, int worker)
{
    struct norm *n = ctx;
    (void)worker;
    n->b->k->rmsnorm(n->x + t * n->ld, n->w, n->eps, n->dim, n->dx + t * n->ld);
}

void moe_backward_recompute_norm(struct moe_backward *b, const float *x, const float *w, float eps,
                                 int64_t dim, int64_t ld, int64_t n, float *out)
{
    struct norm a = { b, x, w, eps, dim, ld, NULL, out };
    moe_backward_each(b, n, 2 * n * dim, recompute_norm_row, &a);
}

/* Adds the gradient of row t; the formula is in backward.h. */
static void add_norm_row(void *ctx, int64_t t, int worker)
{
    struct norm *n = ctx;
    const float *x = n->x + t * n->ld, *dy = n->dy + t * n->ld, *w = n->w;
    float *dx = n->dx + t * n->ld;
    double squares = 0, dot = 0, dim = (double)n->dim;
    (void)worker;
    for (int64_t i = 0; i < n->dim; i++) {
        squares += (double)x[i] * (double)x[i];
        dot += (double)dy[i] * (double)w[i] * (double)x[i];
    }
    double r = 1 / sqrt(squares / dim + (double)n->eps), c = dot * r * r * r / dim;
    for (int64_t i = 0; i < n->dim; i++)
        dx[i] += (float)(r * (double)w[i] * (double)dy[i] - c * (double)x[i]);
}

void moe_backward_norm(struct moe_backward *b, const float *x, const float *w, float eps, int64_t dim,
                       int64_t ld, int64_t n, const float *dy, float *dx)
{
    struct norm a = { b, x, w, eps, dim, ld, dy, dx };
    moe_backward_each(b, n, 8 * n * dim, add_norm_row, &a);
}

/* ---- MLP ---- */

/* Computes one item of gate x, up x or down^T dy, which do not depend on each other. */
static void compute_mlp_products(void *ctx, int64_t item, int worker)
{
    struct mlp *m = ctx;
    int64_t forward = moe_backward_product_items(&m->forward[0]);
    if (item < 2 * forward) moe_backward_product_item(&m->forward[item / forward], item % forward);
    else moe_backward_transposed_item(&m->back, item - 2 * forward, worker);
}

/* Computes token t's element of m->dot, and puts the gradients at the outputs of gate and up in place of
 * these outputs. */
static void compute_mlp_row(void *ctx, int64_t t, int worker)
{
    struct mlp *m = ctx;
    float *g = m->gate + t * m->inter;
    float *u = m->up + t * m->inter;
    float *da = m->da + t * m->inter;
    float weight = m->weight ? m->weight[t] : 1;
    double dot = 0;

    (void)worker;
    for (int64_t i = 0; i < m->inter; i++) {
        float s = 1 / (1 + expf(-g[i])), silu = g[i] * s, d = weight * da[i];
        dot += (double)da[i] * (double)silu * (double)u[i];
        g[i] = d * u[i] * (s + silu * (1 - s));
        u[i] = d * silu;
    }
    if (m->dot) m->dot[t] = (float)dot;
}

/* Adds one item of the gradients with respect to the inputs of gate and of up, in this order, to dx. */
static void add_mlp_inputs(void *ctx, int64_t item, int worker)
{
    struct mlp *m = ctx;
    moe_backward_transposed_item(&m->in[0], item, worker);
    moe_backward_transposed_item(&m->in[1], item, worker);
}

/* Takes at most max_tokens rows backward through the MLP (moe_backward_mlp). */
static void run_mlp_backward(struct moe_backward *b, const struct moe_weight *w, const float *x, int64_t n,
                             const float *dy, const float *weight, float *dx, float *dot)
{
    int64_t inter = w[0].rows, hidden = w[0].cols;
    struct mlp m = { .b = b, .w = w, .weight = weight, .dot = dot, .inter = inter };
    struct moe_backward_room room = { b->rows, 0 };

    take_mlp_buffers(&m, &room, n, inter);
    m.forward[0] = (struct moe_backward_product){ b, &w[0], x, hidden, n, m.gate, inter };
    m.forward[1] = (struct moe_backward_product){ b, &w[1], x, hidden, n, m.up, inter };
    m.back = (struct moe_backward_transposed){ b, &w[2], 0, hidden, dy, hidden, n, m.da, inter, true };
    m.in[0] = (struct moe_backward_transposed){ b, &w[0], 0, inter, m.gate, inter, n, dx, hidden, false };
    m.in[1] = (struct moe_backward_transposed){ b, &w[1], 0, inter, m.up, inter, n, dx, hidden, false };
    int64_t items = 2 * moe_backward_product_items(&m.forward[0]) + moe_backward_transposed_items(&m.back);
    int64_t work = hidden * inter * n;
    moe_backward_each(b, items, 3 * work, compute_mlp_products, &m);
    moe_backward_each(b, n, 32 * n * inter, compute_mlp_row, &m);
    moe_backward_show(b, MOE_ROLE_GATE, m.gate, inter, n);
    moe_backward_show(b, MOE_ROLE_UP, m.up, inter, n);
    moe_backward_each(b, moe_backward_transposed_items(&m.in[0]), 2 * work, add_mlp_inputs, &m);
}

void moe_backward_mlp(struct moe_backward *b, const struct moe_weight w[3], const float *x, int64_t n,
                      const float *dy, const float *weight, float *dx, float *dot)
{
    int64_t hidden = w[0].cols;
    MOE_CHECK(w[0].rows <= widest_mlp(&b->m->config) && w[1].rows == w[0].rows && w[2].cols == w[0].rows &&
              w[2].rows == hidden && w[1].cols == hidden);
    for (int64_t t = 0; t < n; t += b->max_tokens)
        run_mlp_backward(b, w, x + t * hidden, moe_min_i64(n - t, b->max_tokens), dy + t * hidden,
                         weight ? weight + t : NULL, dx + t * hidden, dot ? dot + t : NULL);
}

/* ---- router ---- */

/* The parameters of moe_backward_router. */
struct router {
    struct moe_backward *b;
    const struct moe_weight *w;
    const float *x;
    const int32_t *experts;
    const float *dweight;
    float *dx;
};

/* Adds the gradient of token t; the formula is in backward.h.  score is its s, d its ds_j s_j (1 - s_j). */
static void add_router_row(void *ctx, int64_t t, int worker)
{
    struct router *r = ctx;
    struct moe_backward *b = r->b;
    int64_t hidden = r->w->cols, k = b->m->config.num_experts_per_tok;
    const int32_t *experts = r->experts + t * k;
    const float *x = r->x + t * hidden, *dw = r->dweight + t * k;
    float *rows = b->worker + worker * b->worker_floats;
    float *score = rows + k * hidden;
    float *dx = r->dx + t * hidden;
    double sum = 0, mean = 0;

    for (int64_t j = 0; j < k; j++) {
        b->k->dequantize(r->w, experts[j], 0, hidden, rows + j * hidden);
        score[j] = 1 / (1 + expf(-b->k->dot(rows + j * hidden, x, hidden)));
        sum += (double)score[j];
        mean += (double)dw[j] * (double)score[j];
    }
    double scale = (double)b->m->route.scale;
    if (b->m->route.norm_topk_prob) scale /= sum + 1e-20, mean /= sum + 1e-20;
    else mean = 0;
    for (int64_t j = 0; j < k; j++) {
        float d = (float)(scale * ((double)dw[j] - mean) * (double)score[j] * (1 - (double)score[j]));
        const float *row = rows + j * hidden;
        for (int64_t i = 0; i < hidden; i++) dx[i] += d * row[i];
    }
}

void moe_backward_router(struct moe_backward *b, int layer, const float *x, int64_t n, const int32_t *experts,
                         const float *dweight, float *dx)
{
    struct router r = { b, &b->m->layers[layer].router, x, experts, dweight, dx };
    MOE_CHECK(b->m->layers[layer].moe);
    moe_backward_each(b, n, 3 * n * b->m->config.num_experts_per_tok * r.w->cols, add_router_row, &r);
}
