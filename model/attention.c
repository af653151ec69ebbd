/* SPDX-License-Identifier: Apache-2.0 */
/* Multi-head latent attention (DeepSeek-V2, 2024, section 2.1; DeepSeek-V3, 2024), in two forms that give the
 * same result up to rounding.
 *
 * Of a token x, with rms() the weighted RMS norm and a curly bracket for concatenation:
 *
 *   qa = rms(Wqa x),  q = Wqb qa,  q[h] = {q_nope, q_pe} of head h
 *   ckv = Wkva x,     c = rms(ckv[0 : kv_lora_rank]),  k_pe = ckv[kv_lora_rank :]
 *
 * q_pe and k_pe are rotated by the token's position.  The cache keeps c and k_pe of every token.  Per head,
 * with p = softmax(s) over the tokens up to the query's own:
 *
 *   absorbed:  q_lat = Wuk[h]^T q_nope,  s = scale (q_lat . c + q_pe . k_pe),
 *              o_lat = sum p c,          o[h] = Wuv[h] o_lat
 *   expanded:  k = {Wuk[h] c, k_pe},     s = scale (q . k),
 *              o[h] = sum p (Wuv[h] c)
 *
 * Wuk[h] is the first qk_nope_head_dim rows of the head's part of kv_b, Wuv[h] the v_head_dim rows after
 * them.  Under NVFP4 activations c is quantized, being the input of kv_b, and the cache keeps the values of
 * the quantized c, which both forms read. */
#include "model/forward-parts.h"

#include <string.h>

enum { BLOCK = 16 }; /* queries of one head in a work item of absorbed attention */

struct attention {
    struct moe_forward *f;
    const struct moe_layer *y;
    int layer;
    const struct moe_segment *s;
    int64_t n_segments, tokens, heads, nope, rope, v, kl, width;
};

static struct attention describe(struct moe_forward *f, int layer, const struct moe_segment *s,
                                 int64_t n_segments, int64_t tokens)
{
    const struct moe_config *c = &f->m->config;

    return (struct attention){ f,
                               &f->m->layers[layer],
                               layer,
                               s,
                               n_segments,
                               tokens,
                               c->num_attention_heads,
                               c->qk_nope_head_dim,
                               c->qk_rope_head_dim,
                               c->v_head_dim,
                               c->kv_lora_rank,
                               c->kv_lora_rank + c->qk_rope_head_dim };
}

int64_t moe_attention_worker_floats(const struct moe_config *c, int64_t context, enum moe_mla mla)
{
    int64_t width = c->kv_lora_rank + c->qk_rope_head_dim;
    int64_t n = context + BLOCK * (width + c->kv_lora_rank);
    if (mla == MOE_MLA_EXPANDED)
        n += context * (c->qk_nope_head_dim + c->qk_rope_head_dim + c->v_head_dim + c->qk_nope_head_dim);
    return n + 64;
}

/* ---- projections and the cache ---- */

/* For token t: rotates its queries, and writes its latent and its rotated key into the cache. */
static void rotate_and_store(void *ctx, int64_t t, int worker)
{
    struct attention *a = ctx;
    struct moe_forward *f = a->f;
    int64_t half = a->rope / 2, qd = a->nope + a->rope, i = t;
    const struct moe_segment *s = a->s;

    (void)worker;
    while (i >= s->n) i -= (s++)->n;
    int64_t pos = s->first + i;
    float *cs = f->cos + t * half;
    float *sn = f->sin + t * half;
    float *ckv = f->ckv + t * a->width;
    float *row = s->kv->layer[a->layer] + pos * a->width;
    moe_rope_angles(&f->m->rope, f->m->inv_freq, pos, cs, sn);
    for (int64_t h = 0; h < a->heads; h++) f->k->rope(f->q + (t * a->heads + h) * qd + a->nope, cs, sn, half);
    f->k->rmsnorm(ckv, a->y->kv_a_norm, f->m->lora_eps, a->kl, row);
    memcpy(row + a->kl, ckv + a->kl, (size_t)a->rope * sizeof *row);
    f->k->rope(row + a->kl, cs, sn, half);
}

/* Computes the queries of all tokens and their rows of the cache. */
static void project(struct attention *a)
{
    struct moe_forward *f = a->f;
    const struct moe_config *c = &f->m->config;

    moe_forward_observe(f, a->layer, MOE_ROLE_KV_A, f->x, c->hidden_size, a->tokens);
    if (c->q_lora_rank) {
        moe_forward_matmul(f, &a->y->q_a, f->x, c->hidden_size, a->tokens, f->qa);
        moe_forward_norm(f, f->qa, c->q_lora_rank, a->y->q_a_norm, f->m->lora_eps, c->q_lora_rank, a->tokens,
                         f->qa, c->q_lora_rank);
        moe_forward_observe(f, a->layer, MOE_ROLE_Q_B, f->qa, c->q_lora_rank, a->tokens);
        moe_forward_matmul(f, &a->y->q_b, f->qa, c->q_lora_rank, a->tokens, f->q);
    } else {
        moe_forward_matmul(f, &a->y->q, f->x, c->hidden_size, a->tokens, f->q);
    }
    moe_forward_matmul(f, &a->y->kv_a, f->x, c->hidden_size, a->tokens, f->ckv);
    moe_forward_each(f, a->tokens, a->tokens * (a->heads * a->rope + a->width + 512 * a->rope),
                     rotate_and_store, a);
    for (int64_t i = 0; i < a->n_segments; i++) {
        float *rows = a->s[i].kv->layer[a->layer] + a->s[i].first * a->width;
        moe_forward_observe(f, a->layer, MOE_ROLE_KV_B, rows, a->width, a->s[i].n);
        if (moe_forward_quantizes(f, &a->y->kv_b))
            moe_forward_quantize(f, rows, a->width, moe_input_scale(&a->y->kv_b), a->kl, a->s[i].n, rows,
                                 a->width);
    }
}

/* ---- absorbed: a work item is a head and a block of queries ---- */

/* The segment of token t of the batch, and the token's position. */
static const struct moe_segment *find(const struct attention *a, int64_t t, int64_t *pos)
{
    const struct moe_segment *s = a->s;
    while (t >= s->n) t -= (s++)->n;
    *pos = s->first + t;
    return s;
}

static void absorbed(void *ctx, int64_t item, int worker)
{
    struct attention *a = ctx;
    struct moe_forward *f = a->f;
    int64_t h = item % a->heads;
    int64_t t0 = item / a->heads * BLOCK;
    int64_t n = a->tokens - t0 < BLOCK ? a->tokens - t0 : BLOCK;
    int64_t qd = a->nope + a->rope, r0 = h * (a->nope + a->v);
    float *q = f->worker + worker * f->worker_floats;
    float *o = q + BLOCK * a->width;
    float *scores = o + BLOCK * a->kl;

    for (int64_t i = 0; i < n; i++) {
        const float *from = f->q + ((t0 + i) * a->heads + h) * qd;
        int64_t pos;
        const struct moe_segment *s = find(a, t0 + i, &pos);
        const float *cache = s->kv->layer[a->layer];
        f->k->matmul_t(&a->y->kv_b, r0, r0 + a->nope, from, q + i * a->width);
        memcpy(q + i * a->width + a->kl, from + a->nope, (size_t)a->rope * sizeof *q);
        f->k->attend(q + i * a->width, cache, a->width, cache, a->width, pos + 1, a->width, a->kl,
                     f->m->softmax_scale, scores, o + i * a->kl);
    }
    f->k->matmul(&a->y->kv_b, r0 + a->nope, r0 + a->nope + a->v, o, a->kl, n,
                 f->attn + (t0 * a->heads + h) * a->v, a->heads * a->v);
}

/* The multiply-adds of absorbed attention over the batch, about. */
static int64_t absorbed_work(const struct attention *a)
{
    int64_t scores = 0;
    for (int64_t i = 0; i < a->n_segments; i++) scores += a->s[i].n * (a->s[i].first + a->s[i].n);
    return a->heads * (a->tokens * (a->nope + a->v) * a->kl + scores * (a->width + a->kl));
}

/* ---- expanded: a work item is a head of a segment ---- */

static void expanded(void *ctx, int64_t item, int worker)
{
    struct attention *a = ctx;
    struct moe_forward *f = a->f;
    int64_t h = item % a->heads;
    int64_t qd = a->nope + a->rope;
    int64_t r0 = h * (a->nope + a->v);
    int64_t t0 = 0;

    for (int64_t i = 0; i < item / a->heads; i++) t0 += a->s[i].n;
    const struct moe_segment *s = &a->s[item / a->heads];
    const float *cache = s->kv->layer[a->layer];
    int64_t n = s->first + s->n;
    float *k = f->worker + worker * f->worker_floats;
    float *v = k + n * qd;
    float *nope = v + n * a->v;
    float *scores = nope + n * a->nope;
    f->k->matmul(&a->y->kv_b, r0, r0 + a->nope, cache, a->width, n, nope, a->nope);
    f->k->matmul(&a->y->kv_b, r0 + a->nope, r0 + a->nope + a->v, cache, a->width, n, v, a->v);
    for (int64_t j = 0; j < n; j++) {
        memcpy(k + j * qd, nope + j * a->nope, (size_t)a->nope * sizeof *k);
        memcpy(k + j * qd + a->nope, cache + j * a->width + a->kl, (size_t)a->rope * sizeof *k);
    }
    for (int64_t i = 0; i < s->n; i++)
        f->k->attend(f->q + ((t0 + i) * a->heads + h) * qd, k, qd, v, a->v, s->first + i + 1, qd, a->v,
                     f->m->softmax_scale, scores, f->attn + ((t0 + i) * a->heads + h) * a->v);
}

void moe_forward_attention(struct moe_forward *f, int layer, const struct moe_segment *s, int64_t n_segments,
                           int64_t tokens, float *h)
{
    struct attention a = describe(f, layer, s, n_segments, tokens);
    int64_t hidden = f->m->config.hidden_size;
    moe_forward_norm(f, h, hidden, a.y->input_norm, f->m->eps, hidden, tokens, f->x, hidden);
    project(&a);
    if (f->mla == MOE_MLA_EXPANDED) moe_pool_run(f->pool, n_segments * a.heads, expanded, &a);
    else moe_forward_each(f, (tokens + BLOCK - 1) / BLOCK * a.heads, absorbed_work(&a), absorbed, &a);
    moe_forward_observe(f, layer, MOE_ROLE_O, f->attn, a.heads * a.v, tokens);
    moe_forward_matmul(f, &a.y->o, f->attn, a.heads * a.v, tokens, f->y);
    moe_forward_add(f, h, f->y, tokens);
}
