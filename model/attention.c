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

#include "base/minmax.h"

#include <string.h>

/* Tokens whose queries are absorbed at once: each head's part of kv_b is read once for all of them. */
enum { SLAB = 64 };

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

int64_t moe_attention_floats(const struct moe_config *c, int64_t t, enum moe_mla mla)
{
    int64_t query = 2 * c->kv_lora_rank + c->qk_rope_head_dim; /* and its output */
    return mla == MOE_MLA_ABSORBED ? moe_min_i64(t, SLAB) * c->num_attention_heads * query : 0;
}

int64_t moe_attention_worker_floats(const struct moe_config *c, int64_t context, enum moe_mla mla)
{
    if (mla == MOE_MLA_ABSORBED) return c->num_attention_heads * (c->kv_lora_rank + 5) + 64;
    return context * (2 * c->qk_nope_head_dim + c->qk_rope_head_dim + c->v_head_dim + 1) + 64;
}

/* ---- projections and the cache ---- */

/* The row of a position in a segment's cache. */
static float *row_at(const struct attention *a, const struct moe_segment *s, int64_t pos)
{
    return moe_latent_at(s->cache, s->page[pos / MOE_PAGE], a->layer) + pos % MOE_PAGE * a->width;
}

/* How many rows of positions from `pos` up to `end` lie in memory one after the other. */
static int64_t run_at(const struct attention *a, const struct moe_segment *s, int64_t pos, int64_t end)
{
    int64_t next = (pos / MOE_PAGE + 1) * MOE_PAGE;
    while (next < end && row_at(a, s, next) == row_at(a, s, next - 1) + a->width) next += MOE_PAGE;
    return moe_min_i64(next, end) - pos;
}

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
    float *row = row_at(a, s, pos);
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
        const struct moe_segment *s = &a->s[i];
        for (int64_t pos = s->first, n; pos < s->first + s->n; pos += n) {
            float *rows = row_at(a, s, pos);
            n = run_at(a, s, pos, s->first + s->n);
            moe_forward_observe(f, a->layer, MOE_ROLE_KV_B, rows, a->width, n);
            if (moe_forward_quantizes(f, &a->y->kv_b))
                moe_forward_quantize(f, rows, a->width, moe_input_scale(&a->y->kv_b), a->kl, n, rows,
                                     a->width);
        }
    }
}

/* ---- absorbed: a slab of tokens at a time ---- */

/* The segment of token t of the batch, and the token's position. */
static const struct moe_segment *find(const struct attention *a, int64_t t, int64_t *pos)
{
    const struct moe_segment *s = a->s;
    while (t >= s->n) t -= (s++)->n;
    *pos = s->first + t;
    return s;
}

/* Tokens [t0, t0 + n) of the batch.  q [n, heads, width], o [n, heads, kl]; heads are divided into `parts`
 * work items a token. */
struct slab { struct attention *a; int64_t t0, n, parts; float *q, *o; };

/* The queries of head h in the space of latents. */
static void absorb(void *ctx, int64_t h, int worker)
{
    const struct slab *b = ctx;
    const struct attention *a = b->a;
    int64_t qd = a->nope + a->rope, r0 = h * (a->nope + a->v);
    (void)worker;
    for (int64_t i = 0; i < b->n; i++) {
        const float *from = a->f->q + ((b->t0 + i) * a->heads + h) * qd;
        float *q = b->q + (i * a->heads + h) * a->width;
        a->f->k->matmul_t(&a->y->kv_b, r0, r0 + a->nope, from, q);
        memcpy(q + a->kl, from + a->nope, (size_t)a->rope * sizeof *q);
    }
}

/* Attention of n queries of one token, which sees `rows` positions: chunk by chunk, in the attention order.
 * room: [n, kl + 5]. */
static void attend(const struct attention *a, const struct moe_segment *s, int64_t rows, const float *q,
                   int64_t n, float *o, float *room)
{
    float *o2 = room, *max = o2 + n * a->kl, *sum = max + n, *max2 = sum + n, *sum2 = max2 + n;
    int32_t *seen = (int32_t *)(void *)(sum2 + n);
    const float *page[MOE_CHUNK_PAGES];

    for (int64_t at = 0; at < rows; at += MOE_CHUNK) {
        int64_t here = moe_min_i64(MOE_CHUNK, rows - at);
        for (int64_t i = 0; i * MOE_PAGE < here; i++) page[i] = row_at(a, s, at + i * MOE_PAGE);
        for (int64_t i = 0; i < n; i++) seen[i] = (int32_t)here;
        a->f->k->attend_pages(q, a->width, seen, n, page, a->width, a->width, a->kl, a->f->m->softmax_scale,
                              at ? max2 : max, at ? sum2 : sum, at ? o2 : o, a->kl);
        if (at) a->f->k->attend_merge(n, a->kl, max, sum, o, a->kl, max2, sum2, o2, a->kl);
    }
    a->f->k->attend_finish(n, a->kl, sum, o, a->kl);
}

static void attend_heads(void *ctx, int64_t item, int worker)
{
    const struct slab *b = ctx;
    const struct attention *a = b->a;
    int64_t i = item / b->parts, part = item % b->parts, pos;
    int64_t h0 = a->heads * part / b->parts, h1 = a->heads * (part + 1) / b->parts, q = i * a->heads + h0;
    const struct moe_segment *s = find(a, b->t0 + i, &pos);
    attend(a, s, pos + 1, b->q + q * a->width, h1 - h0, b->o + q * a->kl,
           a->f->worker + worker * a->f->worker_floats);
}

/* From the outputs of head h in the space of latents to its outputs. */
static void unabsorb(void *ctx, int64_t h, int worker)
{
    const struct slab *b = ctx;
    const struct attention *a = b->a;
    int64_t r0 = h * (a->nope + a->v) + a->nope;
    (void)worker;
    a->f->k->matmul(&a->y->kv_b, r0, r0 + a->v, b->o + h * a->kl, a->heads * a->kl, b->n,
                    a->f->attn + (b->t0 * a->heads + h) * a->v, a->heads * a->v);
}

/* The multiply-adds of the attention of the tokens of a slab, about. */
static int64_t attend_work(const struct slab *b)
{
    int64_t rows = 0, pos;
    for (int64_t i = 0; i < b->n; i++) {
        find(b->a, b->t0 + i, &pos);
        rows += pos + 1;
    }
    return b->a->heads * rows * (b->a->width + b->a->kl);
}

static void absorbed(struct attention *a)
{
    struct moe_forward *f = a->f;
    struct slab b = { .a = a, .q = f->absorbed };
    b.o = b.q + moe_min_i64(f->max_tokens, SLAB) * a->heads * a->width;
    for (; b.t0 < a->tokens; b.t0 += b.n) {
        b.n = moe_min_i64(SLAB, a->tokens - b.t0);
        b.parts = moe_min_i64(a->heads, (2 * moe_pool_threads(f->pool) + b.n - 1) / b.n);
        int64_t fixed = a->heads * b.n * a->kl;
        moe_forward_each(f, a->heads, fixed * a->nope, absorb, &b);
        moe_forward_each(f, b.n * b.parts, attend_work(&b), attend_heads, &b);
        moe_forward_each(f, a->heads, fixed * a->v, unabsorb, &b);
    }
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
    int64_t n = s->first + s->n;
    float *k = f->worker + worker * f->worker_floats;
    float *v = k + n * qd;
    float *nope = v + n * a->v;
    float *scores = nope + n * a->nope;
    for (int64_t j = 0, rows; j < n; j += rows) {
        const float *cache = row_at(a, s, j);
        rows = run_at(a, s, j, n);
        f->k->matmul(&a->y->kv_b, r0, r0 + a->nope, cache, a->width, rows, nope + j * a->nope, a->nope);
        f->k->matmul(&a->y->kv_b, r0 + a->nope, r0 + a->nope + a->v, cache, a->width, rows, v + j * a->v,
                     a->v);
    }
    for (int64_t j = 0; j < n; j++) {
        memcpy(k + j * qd, nope + j * a->nope, (size_t)a->nope * sizeof *k);
        memcpy(k + j * qd + a->nope, row_at(a, s, j) + a->kl, (size_t)a->rope * sizeof *k);
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
    else absorbed(&a);
    moe_forward_observe(f, layer, MOE_ROLE_O, f->attn, a.heads * a.v, tokens);
    moe_forward_matmul(f, &a.y->o, f->attn, a.heads * a.v, tokens, f->y);
    moe_forward_add(f, h, f->y, tokens);
}
