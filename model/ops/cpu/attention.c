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
#include "base/minmax.h"
#include "model/ops/cpu/cpu-internal.h"

#include <string.h>

/* SLAB: tokens whose queries are absorbed at once: each head's part of kv_b is read once for all of them.
 * SLOTS: chunks for each thread whose results wait for their merge. */
enum { SLAB = 64, SLOTS = 8 };

struct attention {
    struct moe_host *d;
    const struct moe_layer *y;
    int layer;
    float *q, *ckv;                   /* [T, heads, nope + rope]; [T, kl + rope], of append alone */
    float *out;                       /* [T, heads, v], of attend alone */
    const struct moe_segment *s; int64_t n_segments;
    int64_t tokens, heads, nope, rope, v, kl, width;
};

static struct attention describe(struct moe_device *device, int layer, struct moe_addr q)
{
    struct moe_host *d = moe_cpu_of(device);
    const struct moe_config *c = moe_cpu_config(d);

    return (struct attention){ .d = d,
                               .y = &device->model->layers[layer],
                               .layer = layer,
                               .q = moe_cpu_at(q),
                               .s = d->batch.segment,
                               .n_segments = d->batch.n_segments,
                               .tokens = d->batch.n,
                               .heads = c->num_attention_heads,
                               .nope = c->qk_nope_head_dim,
                               .rope = c->qk_rope_head_dim,
                               .v = c->v_head_dim,
                               .kl = c->kv_lora_rank,
                               .width = c->kv_lora_rank + c->qk_rope_head_dim };
}

static int64_t chunks_of(int64_t rows) { return (rows + MOE_CHUNK - 1) / MOE_CHUNK; }

/* How many chunks of a slab can wait for their merge, for batches of t tokens. */
static int64_t slots_of(int64_t t, int64_t context, int threads)
{
    return threads > 1 ? moe_min_i64(SLOTS * threads, moe_min_i64(t, SLAB) * chunks_of(context)) : 0;
}

int64_t moe_attention_floats(const struct moe_config *c, int64_t t, int64_t context, enum moe_mla mla,
                             int threads)
{
    int64_t query = c->kv_lora_rank + c->qk_rope_head_dim, result = c->kv_lora_rank + 2;
    if (mla == MOE_MLA_EXPANDED) return 0;
    return c->num_attention_heads *
           (moe_min_i64(t, SLAB) * (query + result) + slots_of(t, context, threads) * result);
}

int64_t moe_attention_worker_floats(const struct moe_config *c, int64_t context, enum moe_mla mla)
{
    if (mla == MOE_MLA_ABSORBED) return c->num_attention_heads * (c->kv_lora_rank + 3) + 64;
    return context * (2 * c->qk_nope_head_dim + c->qk_rope_head_dim + c->v_head_dim + 1) + 64;
}

/* ---- projections and the cache ---- */

/* The row of a position in a segment's cache. */
static float *row_at(const struct attention *a, const struct moe_segment *s, int64_t pos)
{
    float *page = moe_cpu_at(moe_latent_at(s->cache, s->page[pos / MOE_PAGE], a->layer));
    return page + pos % MOE_PAGE * a->width;
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
    struct moe_host *d = a->d;
    int64_t half = a->rope / 2, qd = a->nope + a->rope, i = t;
    const struct moe_segment *s = a->s;

    (void)worker;
    while (i >= s->n) i -= (s++)->n;
    int64_t pos = s->first + i;
    float *cs = d->cos + t * half;
    float *sn = d->sin + t * half;
    float *ckv = a->ckv + t * a->width;
    float *row = row_at(a, s, pos);
    moe_rope_angles(&d->device.model->rope, d->device.model->inv_freq, pos, cs, sn);
    for (int64_t h = 0; h < a->heads; h++) d->k->rope(a->q + (t * a->heads + h) * qd + a->nope, cs, sn, half);
    d->k->rmsnorm(ckv, a->y->kv_a_norm, d->device.model->lora_eps, a->kl, row);
    memcpy(row + a->kl, ckv + a->kl, (size_t)a->rope * sizeof *row);
    d->k->rope(row + a->kl, cs, sn, half);
}

/* Shows the rows that were just written to the observer, and quantizes them where kv_b wants that. */
static void finish_rows(struct attention *a, const struct moe_segment *s)
{
    for (int64_t pos = s->first, n; pos < s->first + s->n; pos += n) {
        float *rows = row_at(a, s, pos);
        n = run_at(a, s, pos, s->first + s->n);
        moe_cpu_observe(a->d, a->layer, MOE_ROLE_KV_B, rows, a->width, n);
        if (moe_cpu_quantizes(a->d, &a->y->kv_b))
            moe_cpu_quantize(a->d, rows, a->width, moe_input_scale(&a->y->kv_b), a->kl, n, rows, a->width);
    }
}

void moe_cpu_append(struct moe_device *device, int layer, struct moe_addr q, struct moe_addr ckv)
{
    struct attention a = describe(device, layer, q);
    a.ckv = moe_cpu_at(ckv);
    moe_cpu_each(a.d, a.tokens, a.tokens * (a.heads * a.rope + a.width + 512 * a.rope), rotate_and_store, &a);
    for (int64_t i = 0; i < a.n_segments; i++) finish_rows(&a, &a.s[i]);
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

/* Results of attention before their division, as the attention order defines them: o [rows, kl], and max and
 * sum [rows], where a row is a head of a token, or of a chunk of a token. */
struct results { float *o, *max, *sum; };

/* Tokens [t0, t0 + n) of the batch: their queries q [n, heads, width] and their results [n, heads].
 *
 * A token that takes much of the slab's time is split into chunks, which different threads compute.  The
 * first chunk's result is the beginning of the token's; that of each further chunk waits in a slot, a row for
 * each head, and is merged from there in ascending order.  Where chunks are more than slots, one range of
 * chunks is computed and merged after the other.  A token that is not split needs no slots.  Work items are
 * tokens or chunks, divided further by heads into `parts` where there are few. */
struct slab {
    struct attention *a;
    int64_t t0, n, parts;
    float *q;
    struct results all, slot;
    int threads;                    /* how many compute it */
    int64_t whole;                  /* how many tokens are not split */
    int64_t slots, chunk[SLAB + 1]; /* chunk[i]: how many chunks the tokens before i are split into */
    int64_t c0, c1, i0;             /* the range of chunks at hand; the first token that has one of them */
};

/* The queries of head h in the space of latents. */
static void absorb(void *ctx, int64_t h, int worker)
{
    const struct slab *b = ctx;
    const struct attention *a = b->a;
    int64_t qd = a->nope + a->rope, r0 = h * (a->nope + a->v);
    (void)worker;
    for (int64_t i = 0; i < b->n; i++) {
        const float *from = a->q + ((b->t0 + i) * a->heads + h) * qd;
        float *q = b->q + (i * a->heads + h) * a->width;
        a->d->k->matmul_t(&a->y->kv_b, r0, r0 + a->nope, from, q);
        memcpy(q + a->kl, from + a->nope, (size_t)a->rope * sizeof *q);
    }
}

/* The results from row `row` on. */
static struct results from_row(const struct attention *a, struct results r, int64_t row)
{
    return (struct results){ r.o + row * a->kl, r.max + row, r.sum + row };
}

/* The result of n queries of one token over the rows of one chunk, of which the token sees those before
 * `rows`.  seen: [n]. */
static void attend_chunk(const struct attention *a, const struct moe_segment *s, int64_t chunk, int64_t rows,
                         const float *q, int64_t n, int32_t *seen, struct results to)
{
    int64_t at = chunk * MOE_CHUNK, here = moe_min_i64(MOE_CHUNK, rows - at);
    float scale = a->d->device.model->softmax_scale;
    const float *page[MOE_CHUNK_PAGES];
    for (int64_t i = 0; i * MOE_PAGE < here; i++) page[i] = row_at(a, s, at + i * MOE_PAGE);
    for (int64_t i = 0; i < n; i++) seen[i] = (int32_t)here;
    a->d->k->attend_pages(q, a->width, seen, n, page, a->width, a->width, a->kl, scale, to.max, to.sum, to.o,
                          a->kl);
}

static void merge(const struct attention *a, int64_t n, struct results to, struct results next)
{
    a->d->k->attend_merge(n, a->kl, to.max, to.sum, to.o, a->kl, next.max, next.sum, next.o, a->kl);
}

/* The token and the heads [h0, h0 + n) of a work item, the token's cache and the rows that it sees. */
struct item { int64_t token, h0, n, rows; const struct moe_segment *s; };

static struct item item_of(const struct slab *b, int64_t token, int64_t part)
{
    struct item t = { .token = token, .h0 = b->a->heads * part / b->parts };
    t.n = b->a->heads * (part + 1) / b->parts - t.h0;
    t.s = find(b->a, b->t0 + token, &t.rows);
    t.rows++;
    return t;
}

/* Computes some heads of a token, unless it is split. */
static void attend_whole(void *ctx, int64_t i, int worker)
{
    const struct slab *b = ctx;
    const struct attention *a = b->a;
    struct item t = item_of(b, i / b->parts, i % b->parts);
    if (b->chunk[t.token] < b->chunk[t.token + 1]) return;
    int64_t row = t.token * a->heads + t.h0;
    struct results to = from_row(a, b->all, row), next;
    next.o = a->d->worker + worker * a->d->worker_floats;
    next.max = next.o + t.n * a->kl, next.sum = next.max + t.n;
    int32_t *seen = (int32_t *)(void *)(next.sum + t.n);
    for (int64_t c = 0; c < chunks_of(t.rows); c++) {
        attend_chunk(a, t.s, c, t.rows, b->q + row * a->width, t.n, seen, c ? next : to);
        if (c) merge(a, t.n, to, next);
    }
    a->d->k->attend_finish(t.n, a->kl, to.sum, to.o, a->kl);
}

/* Computes some heads of a chunk. */
static void attend_part(void *ctx, int64_t i, int worker)
{
    const struct slab *b = ctx;
    const struct attention *a = b->a;
    int64_t c = b->c0 + i / b->parts, token = b->i0;
    while (b->chunk[token + 1] <= c) token++;
    struct item t = item_of(b, token, i % b->parts);
    int64_t row = token * a->heads + t.h0, nth = c - b->chunk[token];
    int32_t *seen = (int32_t *)(void *)(a->d->worker + worker * a->d->worker_floats);
    struct results to = nth ? from_row(a, b->slot, (c - b->c0) * a->heads + t.h0) : from_row(a, b->all, row);
    attend_chunk(a, t.s, nth, t.rows, b->q + row * a->width, t.n, seen, to);
}

/* Merges what attend_part left of some heads of a token. */
static void merge_part(void *ctx, int64_t i, int worker)
{
    const struct slab *b = ctx;
    const struct attention *a = b->a;
    struct item t = item_of(b, b->i0 + i / b->parts, i % b->parts);
    int64_t first = b->chunk[t.token], last = b->chunk[t.token + 1];
    struct results to = from_row(a, b->all, t.token * a->heads + t.h0);
    (void)worker;
    for (int64_t c = moe_max_i64(first + 1, b->c0); c < moe_min_i64(last, b->c1); c++)
        merge(a, t.n, to, from_row(a, b->slot, (c - b->c0) * a->heads + t.h0));
    if (first < last && last <= b->c1) a->d->k->attend_finish(t.n, a->kl, to.sum, to.o, a->kl);
}

/* From the outputs of head h in the space of latents to its outputs. */
static void unabsorb(void *ctx, int64_t h, int worker)
{
    const struct slab *b = ctx;
    const struct attention *a = b->a;
    int64_t r0 = h * (a->nope + a->v) + a->nope;
    (void)worker;
    a->d->k->matmul(&a->y->kv_b, r0, r0 + a->v, b->all.o + h * a->kl, a->heads * a->kl, b->n,
                    a->out + (b->t0 * a->heads + h) * a->v, a->heads * a->v);
}

/* Into how many parts the heads of n tokens or chunks are divided.  Every thread gets four items, of 16 heads
 * or more, since heads that are computed together share each row of the cache; or two, however few heads. */
static int64_t parts_of(const struct slab *b, int64_t n)
{
    int64_t heads = b->a->heads, threads = b->threads, most = moe_min_i64(heads, (2 * threads + n - 1) / n);
    return threads == 1 ? 1 : moe_max_i64(most, moe_min_i64(4 * threads / n, heads / 16));
}

/* Decides by how many threads a slab is computed, and which of its tokens are split: those that take more
 * than a quarter of a thread's share. */
static void divide(struct slab *b)
{
    const struct attention *a = b->a;
    int64_t rows[SLAB], all = 0, chunks = 0;
    for (int64_t i = 0; i < b->n; i++) {
        find(a, b->t0 + i, &rows[i]);
        all += ++rows[i], chunks += chunks_of(rows[i]);
    }
    b->whole = 0;
    b->threads = moe_cpu_threads(a->d, a->heads * all * (a->width + a->kl));
    for (int64_t i = 0; i < b->n; i++) {
        int64_t n = chunks_of(rows[i]);
        bool split = n > 1 && b->threads > 1 && 4 * b->threads * n > chunks;
        b->chunk[i + 1] = b->chunk[i] + (split ? n : 0);
        b->whole += !split;
    }
}

/* The attention of a slab, in the space of latents. */
static void attend(struct slab *b)
{
    struct moe_host *d = b->a->d;
    struct moe_pool *pool = b->threads > 1 ? d->pool : NULL;
    if (b->whole) {
        b->parts = parts_of(b, b->whole);
        moe_pool_run(pool, b->n * b->parts, attend_whole, b);
    }
    b->i0 = 0;
    for (b->c0 = 0; b->c0 < b->chunk[b->n]; b->c0 = b->c1) {
        b->c1 = moe_min_i64(b->c0 + b->slots, b->chunk[b->n]);
        while (b->chunk[b->i0 + 1] <= b->c0) b->i0++;
        int64_t n = b->c1 - b->c0, tokens = 1;
        while (b->chunk[b->i0 + tokens] < b->c1) tokens++;
        b->parts = parts_of(b, n);
        moe_pool_run(pool, n * b->parts, attend_part, b);
        b->parts = parts_of(b, tokens);
        moe_cpu_each(d, tokens * b->parts, 8 * n * b->a->heads * b->a->kl, merge_part, b);
    }
}

static struct results results_at(const struct attention *a, float *at, int64_t rows)
{
    return (struct results){ at, at + rows * a->kl, at + rows * a->kl + rows };
}

static void absorbed(struct attention *a)
{
    struct moe_host *d = a->d;
    int64_t rows = moe_min_i64(d->device.max_tokens, SLAB) * a->heads;
    struct slab b = { .a = a, .q = d->absorbed };
    b.slots = slots_of(d->device.max_tokens, d->device.context, moe_pool_threads(d->pool));
    b.all = results_at(a, b.q + rows * a->width, rows);
    b.slot = results_at(a, b.all.sum + rows, b.slots * a->heads);
    for (; b.t0 < a->tokens; b.t0 += b.n) {
        b.n = moe_min_i64(SLAB, a->tokens - b.t0);
        int64_t fixed = a->heads * b.n * a->kl;
        moe_cpu_each(d, a->heads, fixed * a->nope, absorb, &b);
        divide(&b);
        attend(&b);
        moe_cpu_each(d, a->heads, fixed * a->v, unabsorb, &b);
    }
}

/* ---- expanded: a work item is a head of a segment ---- */

static void expanded(void *ctx, int64_t item, int worker)
{
    struct attention *a = ctx;
    struct moe_host *d = a->d;
    int64_t h = item % a->heads;
    int64_t qd = a->nope + a->rope;
    int64_t r0 = h * (a->nope + a->v);
    int64_t t0 = 0;

    for (int64_t i = 0; i < item / a->heads; i++) t0 += a->s[i].n;
    const struct moe_segment *s = &a->s[item / a->heads];
    int64_t n = s->first + s->n;
    float *k = d->worker + worker * d->worker_floats;
    float *v = k + n * qd;
    float *nope = v + n * a->v;
    float *scores = nope + n * a->nope;
    for (int64_t j = 0, rows; j < n; j += rows) {
        const float *cache = row_at(a, s, j);
        rows = run_at(a, s, j, n);
        d->k->matmul(&a->y->kv_b, r0, r0 + a->nope, cache, a->width, rows, nope + j * a->nope, a->nope);
        d->k->matmul(&a->y->kv_b, r0 + a->nope, r0 + a->nope + a->v, cache, a->width, rows, v + j * a->v,
                     a->v);
    }
    for (int64_t j = 0; j < n; j++) {
        memcpy(k + j * qd, nope + j * a->nope, (size_t)a->nope * sizeof *k);
        memcpy(k + j * qd + a->nope, row_at(a, s, j) + a->kl, (size_t)a->rope * sizeof *k);
    }
    for (int64_t i = 0; i < s->n; i++)
        d->k->attend(a->q + ((t0 + i) * a->heads + h) * qd, k, qd, v, a->v, s->first + i + 1, qd, a->v,
                     d->device.model->softmax_scale, scores, a->out + ((t0 + i) * a->heads + h) * a->v);
}

void moe_cpu_attend(struct moe_device *device, int layer, struct moe_addr q, struct moe_addr out)
{
    struct attention a = describe(device, layer, q);
    a.out = moe_cpu_at(out);
    if (a.d->o.mla == MOE_MLA_EXPANDED) moe_pool_run(a.d->pool, a.n_segments * a.heads, expanded, &a);
    else absorbed(&a);
}
