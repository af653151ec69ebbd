/* SPDX-License-Identifier: Apache-2.0 */
/* Multi-head latent attention in the absorbed form (the formulas are in model/ops/cpu/attention.c): a slab of
 * tokens at a time, whose queries go into the space of latents, over the cache, and back. */
#include "base/minmax.h"
#include "kernels/cuda/absorb.h"
#include "kernels/cuda/activations.h"
#include "kernels/cuda/append.h"
#include "kernels/cuda/attend-fast.h"
#include "kernels/cuda/attend.h"
#include "kernels/cuda/dense.h"
#include "model/ops/cuda/cuda-internal.h"

static bool is_bf16(const struct moe_cuda *d) { return d->device.latents == MOE_LATENT_BF16; }

/* The rows of a layer as the tokens from `t0` of the batch have them. */
static struct moe_cuda_latents latents(const struct moe_cuda *d, int layer, int64_t t0)
{
    const struct moe_latent *c = d->batch.segment->cache;
    return (struct moe_cuda_latents){ .rows = moe_latent_at(c, 0, layer).at,
                                      .page = d->in.pages,
                                      .segment = d->in.segment + (uint64_t)t0 * sizeof(int32_t),
                                      .pos = d->in.pos + (uint64_t)t0 * sizeof(int32_t),
                                      .page_step = c->layers * MOE_PAGE * c->width,
                                      .table = d->table,
                                      .width = c->width };
}

/* ---- the cache ---- */

/* Quantizes the latents that were just written, of float32, where kv_b wants that, one run of rows after the
 * other. */
static void quantize_latents(struct moe_cuda *d, int layer)
{
    const struct moe_cuda_matrix *kv_b = &d->weights.layers[layer].kv_b;
    int64_t kl = moe_cuda_config(d)->kv_lora_rank;
    if (!moe_cuda_quantizes(d, kv_b)) return;
    for (int64_t i = 0; i < d->batch.n_segments; i++) {
        const struct moe_segment *s = &d->batch.segment[i];
        for (int64_t pos = s->first, n; pos < s->first + s->n; pos += n) {
            n = moe_min_i64(MOE_PAGE - pos % MOE_PAGE, s->first + s->n - pos);
            uint64_t at = moe_latent_at(s->cache, s->page[pos / MOE_PAGE], layer).at +
                          (uint64_t)(pos % MOE_PAGE * s->cache->width) * sizeof(float);
            struct moe_cuda_activations a = { .x = at,
                                              .out = at,
                                              .rows = n,
                                              .n = kl,
                                              .share = 1,
                                              .ldx = s->cache->width,
                                              .ldo = s->cache->width,
                                              .input_scale = kv_b->input_scale };
            moe_cuda_quantize_rows(d, &a);
        }
    }
}

void moe_cuda_op_append(struct moe_device *device, int layer, struct moe_addr q, struct moe_addr ckv)
{
    struct moe_cuda *d = moe_cuda_of(device);
    const struct moe_config *c = moe_cuda_config(d);
    const struct moe_cuda_append a = { .cache = latents(d, layer, 0),
                                       .q = q.at,
                                       .ckv = ckv.at,
                                       .norm = d->weights.layers[layer].kv_a_norm,
                                       .cosine = d->in.cosine,
                                       .sine = d->in.sine,
                                       .n = d->batch.n,
                                       .heads = c->num_attention_heads,
                                       .nope = c->qk_nope_head_dim,
                                       .rope = c->qk_rope_head_dim,
                                       .kl = c->kv_lora_rank,
                                       .eps = device->model->lora_eps,
                                       .bf16 = is_bf16(d) };
    MOE_CUDA_LAUNCH(d, append, a);
    quantize_latents(d, layer);
}

void moe_cuda_op_copy(struct moe_device *device, const struct moe_latent *c, const struct moe_page_copy *copy)
{
    struct moe_cuda *d = moe_cuda_of(device);
    const struct moe_cuda_copy_page a = { .from = moe_latent_at(c, copy->from, 0).at,
                                          .to = moe_latent_at(c, copy->to, 0).at,
                                          .layers = c->layers,
                                          .layer_step = MOE_PAGE * c->width,
                                          .rows = copy->rows,
                                          .width = c->width,
                                          .bf16 = is_bf16(d) };
    if (copy->rows > 0) MOE_CUDA_LAUNCH(d, copy_page, a);
}

/* ---- attention ---- */

/* Tokens [t0, t0 + n) of the batch, at most MOE_CUDA_SLAB. */
struct slab { struct moe_cuda *d; int layer; int64_t t0, n; uint64_t q, out; };

static void absorb(const struct slab *s)
{
    struct moe_cuda *d = s->d;
    const struct moe_config *c = moe_cuda_config(d);
    int64_t heads = c->num_attention_heads, width = c->qk_nope_head_dim + c->qk_rope_head_dim;
    const struct moe_cuda_absorb a = { .w = d->weights.layers[s->layer].kv_b.w,
                                       .q = s->q + (uint64_t)(s->t0 * heads * width) * sizeof(float),
                                       .out = d->at.query,
                                       .n = s->n,
                                       .heads = heads,
                                       .nope = c->qk_nope_head_dim,
                                       .rope = c->qk_rope_head_dim,
                                       .head_rows = c->qk_nope_head_dim + c->v_head_dim };
    moe_cuda_launch(d, moe_cuda_absorb_kernel(&a), moe_cuda_absorb_grid(&a), &a, sizeof a);
}

static void launch_attend(struct moe_cuda *d, const struct moe_cuda_attend *a)
{
    if (d->o.fast) {
        const bool bf16 = is_bf16(d);
        moe_cuda_launch(d, moe_cuda_attend_fast_kernel(a, bf16), moe_cuda_attend_fast_grid(a, bf16), a,
                        sizeof *a);
        if (a->chunks > 1) MOE_CUDA_LAUNCH(d, attend_fast_merge, *a);
    } else {
        moe_cuda_launch(d, moe_cuda_attend_kernel(a), moe_cuda_attend_grid(a), a, sizeof *a);
        if (a->split) MOE_CUDA_LAUNCH(d, attend_merge, *a);
    }
}

/* Attention of tokens [t, t + n) of the slab, n being at most what the memory for a merge holds. */
static void attend_some(const struct slab *s, struct moe_cuda_attend *a, int64_t t)
{
    struct moe_cuda *d = s->d;
    uint64_t rows = (uint64_t)(t * a->heads), partial = (uint64_t)(a->n * a->chunks * a->heads);
    a->cache = latents(d, s->layer, s->t0 + t);
    a->q = d->at.query + rows * (uint64_t)a->cache.width * sizeof(float);
    a->out = d->at.latent + rows * (uint64_t)a->kl * sizeof(float);
    a->part = d->at.part;
    a->max = a->part + partial * (uint64_t)a->kl * sizeof(float);
    a->sum = a->max + partial * sizeof(float);
    launch_attend(d, a);
}

/* Sets how many chunks there are at most, for tokens that see up to `rows` rows, and how the work is divided
 * among blocks; returns whether there are results to merge. */
static bool divide(const struct slab *s, struct moe_cuda_attend *a, int64_t rows)
{
    int64_t processors = moe_gpu_info(s->d->gpu)->multiprocessors;
    if (s->d->o.fast) {
        a->chunks = moe_cuda_attend_fast_most(rows);
        a->few = moe_cuda_attend_fast_few(a, is_bf16(s->d), processors);
        return a->chunks > 1;
    }
    a->chunks = moe_cuda_attend_chunks(rows);
    a->split = moe_cuda_attend_split(s->n, a->heads, a->chunks, processors);
    a->few = moe_cuda_attend_few(s->n, a->heads, a->split ? a->chunks : 1, processors);
    return a->split;
}

static void attend(const struct slab *s)
{
    struct moe_cuda *d = s->d;
    int64_t fit = s->n, pages = 1;
    for (int64_t t = s->t0; t < s->t0 + s->n; t++)
        while (pages * MOE_PAGE <= d->first[t]) pages *= 2; /* many steps have the same */
    struct moe_cuda_attend a = { .cache.width = d->batch.segment->cache->width,
                                 .n = s->n,
                                 .heads = moe_cuda_config(d)->num_attention_heads,
                                 .kl = moe_cuda_config(d)->kv_lora_rank,
                                 .scale = d->device.model->softmax_scale };
    if (divide(s, &a, moe_min_i64(pages * MOE_PAGE, d->device.context)))
        fit = d->part_floats / (a.chunks * a.heads * (a.kl + 2));
    for (int64_t t = 0; t < s->n; t += a.n) {
        a.n = moe_min_i64(fit, s->n - t);
        attend_some(s, &a, t);
    }
}

/* From the outputs of each head in the space of latents to its outputs. */
static void unabsorb(const struct slab *s)
{
    struct moe_cuda *d = s->d;
    const struct moe_config *c = moe_cuda_config(d);
    int64_t heads = c->num_attention_heads, v = c->v_head_dim;
    const struct moe_cuda_dense a = { .w = d->weights.layers[s->layer].kv_b.w,
                                      .x = d->at.latent,
                                      .y = s->out + (uint64_t)(s->t0 * heads * v) * sizeof(float),
                                      .n = s->n,
                                      .ldx = heads * c->kv_lora_rank,
                                      .ldy = heads * v,
                                      .row0 = c->qk_nope_head_dim,
                                      .rows = v,
                                      .row_step = c->qk_nope_head_dim + v,
                                      .items = heads,
                                      .x_step = c->kv_lora_rank,
                                      .y_step = v };
    moe_cuda_launch(d, moe_cuda_dense_kernel(&a), moe_cuda_dense_grid(&a), &a, sizeof a);
}

void moe_cuda_op_attend(struct moe_device *device, int layer, struct moe_addr q, struct moe_addr out)
{
    struct moe_cuda *d = moe_cuda_of(device);
    struct slab s = { .d = d, .layer = layer, .q = q.at, .out = out.at };
    for (; s.t0 < d->batch.n; s.t0 += s.n) {
        s.n = moe_min_i64(MOE_CUDA_SLAB, d->batch.n - s.t0);
        absorb(&s);
        attend(&s);
        unabsorb(&s);
    }
}
