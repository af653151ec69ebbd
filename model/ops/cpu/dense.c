/* SPDX-License-Identifier: Apache-2.0 */
/* Operations of which each row depends on one row alone: embeddings, norms, products, logits, sampling. */
#include "base/minmax.h"
#include "model/ops/cpu/cpu-internal.h"

#include <math.h>

/* ---- products ---- */

struct quantize { struct moe_host *d; const float *x; float scale; int64_t ldx, dim, ldo; float *out; };

static void quantize_row(void *ctx, int64_t t, int worker)
{
    struct quantize *q = ctx;
    (void)worker;
    q->d->k->nvfp4_activations(q->x + t * q->ldx, q->dim, q->scale, q->out + t * q->ldo);
}

void moe_cpu_quantize(struct moe_host *d, const float *x, int64_t ldx, float scale, int64_t dim, int64_t n,
                      float *out, int64_t ldo)
{
    struct quantize q = { d, x, scale, ldx, dim, ldo, out };
    moe_cpu_each(d, n, 8 * n * dim, quantize_row, &q);
}

struct product { struct moe_host *d; const struct moe_weight *w; const float *x; int64_t n, rows; float *y; };

static void compute_rows(void *ctx, int64_t i, int worker)
{
    struct product *p = ctx;
    int64_t r0 = i * p->rows, r1 = moe_min_i64(r0 + p->rows, p->w->rows);
    (void)worker;
    p->d->k->matmul(p->w, r0, r1, p->x, p->w->cols, p->n, p->y + r0, p->w->rows);
}

/* The rows of w in a work item.  There are few, so that no thread waits long for another's last item, yet
 * enough for some microseconds of reading (few tokens) or of arithmetic (many tokens).  The scales of 128
 * rows of NVFP4 share cache lines, so these rows stay together. */
static int64_t piece(const struct moe_host *d, const struct moe_weight *w, int64_t n)
{
    enum { BYTES = 256 << 10, FEW = 4, MANY_ROWS = 256, TILE_ROWS = 128 };
    int64_t pieces = 4 * moe_pool_threads(d->pool);
    int64_t even = ((w->rows + pieces - 1) / pieces + 15) / 16 * 16;
    int64_t row = (int64_t)moe_plane_bytes(w->type, w->layout, MOE_PLANE_DATA, 1, w->cols) + 1;
    if (w->type == MOE_NVFP4) return moe_min_i64(TILE_ROWS, even);
    return moe_min_i64(n <= FEW ? moe_max_i64(16, BYTES / row / 16 * 16) : MANY_ROWS, even);
}

void moe_cpu_matmul(struct moe_host *d, const struct moe_weight *w, const float *x, int64_t n, float *y)
{
    struct product p = { d, w, x, n, piece(d, w, n), y };
    if (moe_cpu_quantizes(d, w)) {
        moe_cpu_quantize(d, x, w->cols, moe_input_scale(w), w->cols, n, d->quantized, w->cols);
        p.x = d->quantized;
    }
    moe_cpu_each(d, (w->rows + p.rows - 1) / p.rows, w->rows * w->cols * n, compute_rows, &p);
}

static const struct moe_weight *weight_of(const struct moe_layer *y, enum moe_role role)
{
    switch (role) {
    case MOE_ROLE_Q_A: return &y->q_a;
    case MOE_ROLE_Q_B: return &y->q_b;
    case MOE_ROLE_Q: return &y->q;
    case MOE_ROLE_KV_A: return &y->kv_a;
    default: MOE_CHECK(role == MOE_ROLE_O); return &y->o;
    }
}

void moe_cpu_linear(struct moe_device *device, int layer, enum moe_role role, struct moe_addr x,
                    struct moe_addr y)
{
    struct moe_host *d = moe_cpu_of(device);
    const struct moe_weight *w = weight_of(&device->model->layers[layer], role);
    /* what goes into q_a or q goes into kv_a, too, and is shown there */
    if (role != MOE_ROLE_Q_A && role != MOE_ROLE_Q)
        moe_cpu_observe(d, layer, role, moe_cpu_at(x), w->cols, d->batch.n);
    moe_cpu_matmul(d, w, moe_cpu_at(x), d->batch.n, moe_cpu_at(y));
}

/* ---- norms and sums ---- */

/* h += add, unless NULL; out = rms(h) w.  row: which rows of h are normed; NULL: all, in order. */
struct norm { struct moe_host *d; float *h; const float *add, *w; float eps; int64_t dim; float *out;
              const int32_t *row; };

static void norm_row(void *ctx, int64_t t, int worker)
{
    struct norm *n = ctx;
    float *h = n->h + (n->row ? n->row[t] : t) * n->dim;
    (void)worker;
    for (int64_t i = 0; n->add && i < n->dim; i++) h[i] += n->add[t * n->dim + i];
    n->d->k->rmsnorm(h, n->w, n->eps, n->dim, n->out + t * n->dim);
}

void moe_cpu_norm(struct moe_device *device, int layer, enum moe_norm which, struct moe_addr h,
                  struct moe_addr add, struct moe_addr out)
{
    struct moe_host *d = moe_cpu_of(device);
    const struct moe_model *m = device->model;
    const struct moe_layer *y = which == MOE_NORM_FINAL ? NULL : &m->layers[layer];
    const float *const w[] = { y ? y->input_norm : NULL, y ? y->post_norm : NULL, y ? y->q_a_norm : NULL,
                               m->norm };
    bool lora = which == MOE_NORM_Q_A;
    struct norm n = { .d = d,
                      .h = moe_cpu_at(h),
                      .add = moe_cpu_at(add),
                      .w = w[which],
                      .eps = lora ? m->lora_eps : m->eps,
                      .dim = lora ? m->config.q_lora_rank : m->config.hidden_size,
                      .out = moe_cpu_at(out) };
    moe_cpu_each(d, d->batch.n, 2 * d->batch.n * n.dim, norm_row, &n);
}

/* ---- the ends of the pass ---- */

void moe_cpu_embed(struct moe_device *device, struct moe_addr h)
{
    struct moe_host *d = moe_cpu_of(device);
    int64_t hidden = moe_cpu_config(d)->hidden_size;
    float *to = moe_cpu_at(h);
    for (int64_t t = 0; t < d->batch.n; t++)
        d->k->dequantize(&device->model->embed, d->batch.tokens[t], 0, hidden, to + t * hidden);
}

void moe_cpu_logits(struct moe_device *device, const int32_t *row, int64_t n, struct moe_addr h,
                    struct moe_addr logits)
{
    struct moe_host *d = moe_cpu_of(device);
    const struct moe_model *m = device->model;
    int64_t hidden = m->config.hidden_size;
    struct norm a = {
        .d = d, .h = moe_cpu_at(h), .w = m->norm, .eps = m->eps, .dim = hidden, .out = d->x, .row = row
    };
    MOE_CHECK(n <= device->max_tokens);
    moe_cpu_each(d, n, 2 * n * hidden, norm_row, &a);
    moe_cpu_matmul(d, &m->head, d->x, n, moe_cpu_at(logits));
}

struct sampling { struct moe_host *d; const struct moe_drawing *w; int64_t vocab; const float *logits;
                  int32_t *ids; };

static void sample_row(void *ctx, int64_t i, int worker)
{
    struct sampling *s = ctx;
    int64_t v = moe_cpu_config(s->d)->vocab_size;
    s->ids[i] = moe_sample(&s->w[i].sampler, s->w[i].draw, s->logits + i * v, s->vocab,
                           s->d->order + worker * v, s->d->p + worker * v);
}

void moe_cpu_sample(struct moe_device *device, const struct moe_drawing *w, int64_t n, int64_t vocab,
                    struct moe_addr logits, struct moe_addr ids)
{
    struct moe_host *d = moe_cpu_of(device);
    struct sampling s = { d, w, vocab, moe_cpu_at(logits), moe_cpu_at(ids) };
    moe_cpu_each(d, n, 16 * n * vocab, sample_row, &s);
}

void moe_cpu_check(struct moe_device *device, struct moe_addr x, int64_t n)
{
    struct moe_host *d = moe_cpu_of(device);
    if (!isfinite(d->k->amax(moe_cpu_at(x), n))) d->word |= MOE_WORD_NONFINITE;
}
