/* SPDX-License-Identifier: Apache-2.0 */
/* The buffers of a forward pass, its parallel steps that both halves of a layer use, and
 * the pass over all layers. */
#include "model/forward-parts.h"

#include "base/minmax.h"
#include "kernels/many.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- buffers ---- */

/* Allocates all buffers for batches of t tokens; or only counts their bytes (struct moe_aligned). */
static void take_all(struct moe_forward *f, const struct moe_config *c, int64_t t, int threads)
{
    struct moe_aligned *a = &f->owned;
    int64_t k = c->num_experts_per_tok;
    int64_t e = c->n_routed_experts;
    int64_t shared = c->n_shared_experts * c->moe_intermediate_size;
    int64_t inter = t * moe_max_i64(c->intermediate_size, k * c->moe_intermediate_size + shared);
    int64_t widest =
        moe_max_i64(moe_max_i64(c->hidden_size, c->q_lora_rank), c->num_attention_heads * c->v_head_dim);

    f->x = moe_aligned_take(a, t * c->hidden_size, sizeof *f->x);
    f->y = moe_aligned_take(a, t * c->hidden_size, sizeof *f->y);
    f->qa = moe_aligned_take(a, t * c->q_lora_rank, sizeof *f->qa);
    f->q = moe_aligned_take(a, t * c->num_attention_heads * (c->qk_nope_head_dim + c->qk_rope_head_dim),
                            sizeof *f->q);
    f->ckv = moe_aligned_take(a, t * (c->kv_lora_rank + c->qk_rope_head_dim), sizeof *f->ckv);
    f->attn = moe_aligned_take(a, t * c->num_attention_heads * c->v_head_dim, sizeof *f->attn);
    f->cos = moe_aligned_take(a, t * c->qk_rope_head_dim / 2, sizeof *f->cos);
    f->sin = moe_aligned_take(a, t * c->qk_rope_head_dim / 2, sizeof *f->sin);
    f->logits = moe_aligned_take(a, t * e, sizeof *f->logits);
    f->choose = moe_aligned_take(a, 2 * threads * e, sizeof *f->choose);
    f->experts = moe_aligned_take(a, t * k, sizeof *f->experts);
    f->weights = moe_aligned_take(a, t * k, sizeof *f->weights);
    f->slot = moe_aligned_take(a, t * k, sizeof *f->slot);
    f->from = moe_aligned_take(a, t * k, sizeof *f->from);
    f->result = moe_aligned_take(a, t * k, sizeof *f->result);
    f->first = moe_aligned_take(a, e + 1, sizeof *f->first);
    f->active = moe_aligned_take(a, e, sizeof *f->active);
    f->gathered = moe_aligned_take(a, t * moe_max_i64(k * c->hidden_size, widest), sizeof *f->gathered);
    f->quantized = f->gathered;
    f->gate = moe_aligned_take(a, inter, sizeof *f->gate);
    f->up = moe_aligned_take(a, inter, sizeof *f->up);
    f->absorbed =
        moe_aligned_take(a, moe_attention_floats(c, t, f->context, f->mla, threads), sizeof *f->absorbed);
    f->worker_floats = moe_attention_worker_floats(c, f->context, f->mla);
    f->worker = moe_aligned_take(a, threads * f->worker_floats, sizeof *f->worker);
}

uint64_t moe_forward_estimate(const struct moe_config *c, int64_t t, int64_t context, enum moe_mla mla,
                              int threads)
{
    struct moe_forward f = { .owned = { .counting = true }, .mla = mla, .context = context };
    take_all(&f, c, t, threads);
    return f.owned.bytes + sizeof f;
}

enum moe_code moe_forward_open(struct moe_forward **out, const struct moe_model *m, int64_t max_tokens,
                               int64_t context, enum moe_mla mla, struct moe_pool *pool, struct moe_err *err)
{
    struct moe_forward *f = calloc(1, sizeof *f);

    *out = NULL;
    if (!f) return moe_fail(err, MOE_NOMEM, "no memory for a forward pass");
    *f = (struct moe_forward){ .m = m,
                               .k = &f->own,
                               .own = *moe_kernels(),
                               .pool = pool,
                               .mla = mla,
                               .max_tokens = max_tokens,
                               .context = context };
    take_all(f, &m->config, max_tokens, moe_pool_threads(pool));
    if (f->owned.failed) {
        moe_forward_close(&f);
        return moe_fail(err, MOE_NOMEM,
                        "no memory for batches of %lld tokens (try fewer --threads or a smaller --context)",
                        (long long)max_tokens);
    }
    *out = f;
    return MOE_OK;
}

void moe_forward_close(struct moe_forward **f)
{
    if (!*f) return;
    moe_aligned_release(&(*f)->owned);
    free(*f);
    *f = NULL;
}

void moe_forward_model(struct moe_forward *f, const struct moe_model *m) { f->m = m; }

void moe_forward_hooks(struct moe_forward *f, const struct moe_hooks *hooks)
{
    f->hooks = hooks ? *hooks : (struct moe_hooks){ .ctx = NULL };
}

bool moe_forward_has_hooks(const struct moe_forward *f) { return f->hooks.routed || f->hooks.input; }

void moe_forward_dispatcher(struct moe_forward *f, const struct moe_dispatcher *e)
{
    f->dispatcher = e ? *e : (struct moe_dispatcher){ .ctx = NULL };
}

static const char *const activation_words[MOE_ACTIVATIONS_COUNT] = {
    "float", "nvfp4", "nvfp4-four-over-six", "nvfp4-search", "nvfp4-all", "int16"
};

const char *moe_activations_name(enum moe_activations a) { return activation_words[a]; }

int moe_activations_find(const char *word)
{
    for (int a = 0; a < MOE_ACTIVATIONS_COUNT; a++)
        if (!strcmp(word, activation_words[a])) return a;
    return -1;
}

void (*moe_activations_kernel(const struct moe_kernels *k, enum moe_activations a))(const float *x, int64_t n,
                                                                                    float input_scale,
                                                                                    float *out)
{
    if (a == MOE_ACTIVATIONS_NVFP4_46) return k->nvfp4_activations_46;
    return a == MOE_ACTIVATIONS_NVFP4_SEARCH ? k->nvfp4_activations_search : k->nvfp4_activations;
}

void moe_forward_activations(struct moe_forward *f, enum moe_activations a)
{
    /* INT16 is another matmul: activations themselves stay floats */
    f->activations = a == MOE_ACTIVATIONS_INT16 ? MOE_ACTIVATIONS_FLOAT : a;
    f->own = *moe_kernels();
    if (a == MOE_ACTIVATIONS_INT16) f->own.matmul = f->own.matmul_int16;
    f->own.nvfp4_activations = moe_activations_kernel(&f->own, a);
}

void moe_forward_use_gemm(struct moe_forward *f) { f->own.matmul = moe_matmul_many; }

float moe_input_scale(const struct moe_weight *w)
{
    return !(w->input_scale > 0) ? 1 : w->reciprocal ? 1 / w->input_scale : w->input_scale;
}

float moe_forward_gate_up_scale(const struct moe_forward *f, const struct moe_expert *e)
{
    float gate = moe_forward_quantizes(f, &e->gate) ? moe_input_scale(&e->gate) : 0;
    float up = moe_forward_quantizes(f, &e->up) ? moe_input_scale(&e->up) : 0;
    return gate > up ? gate : up;
}

/* ---- parallel pieces ---- */

struct quantize { struct moe_forward *f; const float *x; float scale; int64_t ldx, dim, ldo; float *out; };

static void quantize(void *ctx, int64_t t, int worker)
{
    struct quantize *q = ctx;
    (void)worker;
    q->f->k->nvfp4_activations(q->x + t * q->ldx, q->dim, q->scale, q->out + t * q->ldo);
}

void moe_forward_quantize(struct moe_forward *f, const float *x, int64_t ldx, float scale, int64_t dim,
                          int64_t n, float *out, int64_t ldo)
{
    struct quantize q = { f, x, scale, ldx, dim, ldo, out };
    moe_forward_each(f, n, 8 * n * dim, quantize, &q);
}

struct product {
    struct moe_forward *f;
    const struct moe_weight *w;
    const float *x;
    int64_t ldx, n, rows;
    float *y;
};

static void product(void *ctx, int64_t i, int worker)
{
    struct product *p = ctx;
    int64_t r0 = i * p->rows, r1 = r0 + p->rows < p->w->rows ? r0 + p->rows : p->w->rows;
    (void)worker;
    p->f->k->matmul(p->w, r0, r1, p->x, p->ldx, p->n, p->y + r0, p->w->rows);
}

/* The rows of w in a work item.  There are few, so that no thread waits long for another's last item, yet
 * enough for some microseconds of reading (few tokens) or of arithmetic (many tokens).  The scales of 128
 * rows of NVFP4 share cache lines, so these rows stay together. */
static int64_t piece(const struct moe_forward *f, const struct moe_weight *w, int64_t n)
{
    enum { BYTES = 256 << 10, FEW = 4, MANY_ROWS = 256, TILE_ROWS = 128 };
    int64_t pieces = 4 * moe_pool_threads(f->pool);
    int64_t even = ((w->rows + pieces - 1) / pieces + 15) / 16 * 16;
    int64_t rows = MANY_ROWS;
    if (w->type == MOE_NVFP4) rows = TILE_ROWS;
    else if (n <= FEW)
        rows = moe_max_i64(
            16,
            BYTES / (int64_t)(moe_plane_bytes(w->type, w->layout, MOE_PLANE_DATA, 1, w->cols) + 1) / 16 * 16);
    return rows < even ? rows : even;
}

void moe_forward_matmul(struct moe_forward *f, const struct moe_weight *w, const float *x, int64_t ldx,
                        int64_t n, float *y)
{
    struct product p = { f, w, x, ldx, n, piece(f, w, n), y };
    int64_t work = w->rows * w->cols * n;
    if (moe_forward_quantizes(f, w)) {
        moe_forward_quantize(f, x, ldx, moe_input_scale(w), w->cols, n, f->quantized, w->cols);
        p.x = f->quantized, p.ldx = w->cols;
    }
    moe_forward_each(f, (w->rows + p.rows - 1) / p.rows, work, product, &p);
}

struct norm { struct moe_forward *f; const float *x, *w; float eps; int64_t ldx, dim, ldo; float *out; };

static void norm(void *ctx, int64_t t, int worker)
{
    struct norm *n = ctx;
    (void)worker;
    n->f->k->rmsnorm(n->x + t * n->ldx, n->w, n->eps, n->dim, n->out + t * n->ldo);
}

void moe_forward_norm(struct moe_forward *f, const float *x, int64_t ldx, const float *w, float eps,
                      int64_t dim, int64_t n, float *out, int64_t ldo)
{
    struct norm a = { f, x, w, eps, ldx, dim, ldo, out };
    moe_forward_each(f, n, 2 * n * dim, norm, &a);
}

enum { COLS = 1024 }; /* floats that a work item adds */

struct sum { float *h; const float *y; int64_t floats; };

static void add(void *ctx, int64_t i, int worker)
{
    struct sum *s = ctx;
    int64_t from = i * COLS, n = s->floats - from < COLS ? s->floats - from : COLS;
    float *h = s->h + from;
    const float *y = s->y + from;
    (void)worker;
    for (int64_t k = 0; k < n; k++) h[k] += y[k];
}

void moe_forward_add(struct moe_forward *f, float *h, const float *y, int64_t n)
{
    struct sum s = { h, y, n * f->m->config.hidden_size };
    moe_forward_each(f, (s.floats + COLS - 1) / COLS, 8 * s.floats, add, &s);
}

/* ---- the pass ---- */

enum moe_code moe_forward_embed(struct moe_forward *f, const int32_t *tokens, int64_t n, float *h,
                                struct moe_err *err)
{
    const struct moe_config *c = &f->m->config;
    for (int64_t t = 0; t < n; t++) {
        if (tokens[t] < 0 || tokens[t] >= c->vocab_size)
            return moe_fail(err, MOE_MISMATCH, "token %d is outside the model's vocabulary of %lld",
                            tokens[t], (long long)c->vocab_size);
        f->k->dequantize(&f->m->embed, tokens[t], 0, c->hidden_size, h + t * c->hidden_size);
    }
    return MOE_OK;
}

void moe_forward_layer(struct moe_forward *f, int layer, const struct moe_segment *s, int64_t n_segments,
                       float *h)
{
    int64_t tokens = 0;
    for (int64_t i = 0; i < n_segments; i++) {
        MOE_CHECK(s[i].first + s[i].n <= f->context);
        tokens += s[i].n;
    }
    MOE_CHECK(tokens <= f->max_tokens);
    moe_forward_attention(f, layer, s, n_segments, tokens, h);
    moe_forward_ffn(f, layer, tokens, h);
}

enum moe_code moe_forward_check(struct moe_forward *f, int layer, const float *h, int64_t n,
                                struct moe_err *err)
{
    int64_t hidden = f->m->config.hidden_size;
    if (f->code != MOE_OK) {
        *err = f->err;
        return f->code;
    }
    if (isfinite(f->k->amax(h, n * hidden))) return MOE_OK;
    return moe_model_blame(f->m, layer, err);
}

enum moe_code moe_forward_logits(struct moe_forward *f, const float *h, int64_t n, float *logits,
                                 struct moe_err *err)
{
    int64_t hidden = f->m->config.hidden_size;
    for (int64_t t = 0; t < n; t += f->max_tokens) {
        int64_t m = n - t < f->max_tokens ? n - t : f->max_tokens;
        moe_forward_norm(f, h + t * hidden, hidden, f->m->norm, f->m->eps, hidden, m, f->x, hidden);
        moe_forward_matmul(f, &f->m->head, f->x, hidden, m, logits + t * f->m->config.vocab_size);
    }
    return isfinite(f->k->amax(logits, n * f->m->config.vocab_size)) ? MOE_OK
                                                                     : moe_model_blame(f->m, -1, err);
}

enum moe_code moe_forward_run(struct moe_forward *f, const int32_t *tokens, const struct moe_segment *s,
                              int64_t n_segments, float *h, struct moe_err *err)
{
    int64_t n = 0;
    for (int64_t i = 0; i < n_segments; i++) n += s[i].n;
    MOE_TRY(moe_forward_embed(f, tokens, n, h, err));
    for (int l = 0; l < f->m->config.num_hidden_layers; l++) {
        moe_forward_layer(f, l, s, n_segments, h);
        MOE_TRY(moe_forward_check(f, l, h, n, err));
    }
    return MOE_OK;
}
