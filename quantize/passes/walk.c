/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/passes/walk.h"

#include "base/io.h"
#include "base/minmax.h"
#include "model/group.h"
#include "quantize/passes/work.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 2048 }; /* tokens of a batch; one sequence where that is longer */

int64_t moe_walk_batch(int64_t sequence)
{
    return sequence >= BATCH ? sequence : BATCH / sequence * sequence;
}

/* ---- whole layers over all tokens ---- */

enum moe_code moe_walk_batches(struct moe_walk *c,
                               enum moe_code (*fn)(struct moe_walk *, int64_t first, int64_t n,
                                                   struct moe_err *),
                               struct moe_err *err)
{
    for (int64_t at = 0, n; at < c->n; at += n) {
        n = moe_min_i64(moe_walk_batch(c->sequence), c->n - at);
        MOE_TRY(fn(c, at, n, err));
        MOE_TRY(moe_cancel_check_resumable(c->cancel, err));
    }
    return MOE_OK;
}

/* Each sequence has a cache from position 0 on.  Only one layer is at work at a time, so all layers of a
 * sequence share one buffer. */
enum moe_code moe_walk_attend(struct moe_walk *c, int64_t first, int64_t n, struct moe_err *err)
{
    struct moe_segment seg[BATCH];
    struct moe_batch b = { .n = n, .segment = seg };
    int64_t pages = moe_latent_pages(c->sequence);

    for (int64_t at = 0; at < n; at += c->sequence, b.n_segments++)
        seg[b.n_segments] = (struct moe_segment){ &c->cache, c->cache.every + b.n_segments * pages, 0,
                                                  moe_min_i64(c->sequence, n - at) };
    MOE_TRY(moe_states_read(&c->h, first, n, c->batch, err));
    moe_forward_put(c->f, c->batch, n);
    moe_forward_attention(c->f, c->layer, &b);
    return moe_forward_get(c->f, c->batch, n, err);
}

struct rows { struct moe_walk *c; int64_t first; };

static void row_importance(void *ctx, int64_t t, int worker)
{
    struct rows *r = ctx;
    int64_t h = r->c->h.width;
    const float *x = r->c->batch + t * h;
    double sum = 0;
    (void)worker;
    for (int64_t i = 0; i < h; i++) sum += (double)x[i] * (double)x[i];
    r->c->importance[r->first + t] = (float)(1 / sqrt(sum / (double)h + 1e-12));
}

static enum moe_code attention_batch(struct moe_walk *c, int64_t first, int64_t n, struct moe_err *err)
{
    struct rows r = { c, first };
    MOE_TRY(moe_walk_attend(c, first, n, err));
    moe_meter_add(c->meter, moe_work_attention(&c->m->config, (double)n, (double)c->sequence));
    moe_pool_run(c->pool, n, row_importance, &r);
    return moe_states_write(&c->h, first, n, c->batch, err);
}

static enum moe_code embed_batch(struct moe_walk *c, int64_t first, int64_t n, struct moe_err *err)
{
    const struct moe_batch b = { .tokens = c->tokens + first, .n = n };
    MOE_TRY(moe_forward_embed(c->f, &b, err));
    MOE_TRY(moe_forward_get(c->f, c->batch, n, err));
    return moe_states_write(&c->h, first, n, c->batch, err);
}

static enum moe_code route_batch(struct moe_walk *c, int64_t first, int64_t n, struct moe_err *err)
{
    int64_t k = c->m->config.num_experts_per_tok;
    MOE_TRY(moe_states_read(&c->h, first, n, c->batch, err));
    moe_meter_add(c->meter, moe_work_router(&c->m->config, (double)n));
    return moe_forward_route(c->f, c->layer, c->batch, n, c->experts + first * k, c->weights + first * k,
                             err);
}

static enum moe_code add_batch(struct moe_walk *c, int64_t first, int64_t n, struct moe_err *err)
{
    MOE_TRY(moe_states_read(&c->h, first, n, c->batch, err));
    for (int64_t at = 0, rows; at < n; at += rows) {
        float *h = c->batch + at * c->h.width;
        rows = moe_min_i64(MOE_WALK_PIECE, n - at);
        MOE_TRY(moe_states_read(&c->sum, first + at, rows, c->piece, err));
        for (int64_t i = 0; i < rows * c->h.width; i++) h[i] += c->piece[i];
    }
    MOE_TRY(moe_model_check(c->m, c->layer, c->batch, n * c->h.width, err));
    return moe_states_write(&c->h, first, n, c->batch, err);
}

/* Groups the choices of all tokens by expert; those of an expert stay in the order of the tokens. */
static void group_choices(struct moe_walk *c)
{
    int64_t k = c->m->config.num_experts_per_tok, n = c->n * k;
    moe_group_count(c->first, c->m->config.n_routed_experts, c->experts, sizeof *c->experts, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = moe_group_place(c->first, c->experts[i]);
        c->row[at] = (int32_t)(i / k);
        c->row_weight[at] = c->weights[i];
        c->row_importance[at] = c->weights[i] * c->importance[i / k];
    }
}

struct moe_mlp_tokens moe_walk_all(const struct moe_walk *c)
{
    return (struct moe_mlp_tokens){ .h = &c->h,
                                    .norm = c->m->layers[c->layer].post_norm,
                                    .eps = c->m->eps,
                                    .row = c->all,
                                    .importance = c->importance,
                                    .n = c->n,
                                    .own = c->n };
}

/* The MLP that all tokens pass: the dense or the shared one.  Its weights' data is NULL if there is none. */
static const struct moe_expert *common_mlp(const struct moe_layer *y)
{
    return y->moe ? &y->shared : &y->dense;
}

/* Adds the outputs of the common MLP m for all tokens to c->sum, some tokens at a time so that progress is
 * shown. */
static enum moe_code common_forward(struct moe_walk *c, const struct moe_expert *m, struct moe_err *err)
{
    const struct moe_weight w[3] = { m->gate, m->up, m->down };

    for (int64_t at = 0, n; at < c->n; at += n) {
        struct moe_mlp_tokens t = moe_walk_all(c);
        n = moe_min_i64(8 * BATCH, c->n - at);
        t.row += at;
        t.importance += at;
        t.n = t.own = n;
        t.clip = c->clip;
        MOE_TRY(moe_mlp_forward(c->mlp, w, &t, &c->sum, err));
        moe_meter_add(c->meter, moe_work_mlp(w[0].cols, w[0].rows, (double)n));
        MOE_TRY(moe_cancel_check_resumable(c->cancel, err));
    }
    return MOE_OK;
}

/* Takes all tokens through the layer up to its routed experts. */
static enum moe_code begin_layer(struct moe_walk *c, struct moe_err *err)
{
    const struct moe_layer *y = &c->m->layers[c->layer];

    moe_cpu_use(c->device, c->m);
    if (c->before[0]) MOE_TRY(c->before[0](c->ctx, err));
    double from = moe_now();
    MOE_TRY(moe_walk_batches(c, attention_batch, err));
    c->seconds[0] += moe_now() - from;
    from = moe_now();
    if (y->moe) {
        MOE_TRY(moe_walk_batches(c, route_batch, err));
        group_choices(c);
    }
    MOE_TRY(moe_states_zero(&c->sum, err));
    c->seconds[1] += moe_now() - from;
    if (c->before[1]) MOE_TRY(c->before[1](c->ctx, err));
    if (common_mlp(y)->gate.data) {
        from = moe_now();
        MOE_TRY(common_forward(c, common_mlp(y), err));
        c->seconds[2] += moe_now() - from;
    }
    c->routed = true;
    return MOE_OK;
}

/* Tells the kernel that the mapped pages of a layer's weights, but for its routed experts, are not needed any
 * more; layer -1: those of the embedding, the last norm and the head. */
static void drop_mapped(const struct moe_walk *c, int layer)
{
    for (int64_t i = 0; i < c->src->n_tensors; i++)
        for (int p = 0;
             c->src->tensors[i].layer == layer && c->src->tensors[i].expert < 0 && p < MOE_PLANE_COUNT; p++)
            moe_source_drop(c->src, &c->src->tensors[i].plane[p]);
}

enum moe_code moe_walk_next(struct moe_walk *c, struct moe_err *err)
{
    MOE_TRY(moe_walk_batches(c, add_batch, err));
    drop_mapped(c, c->layer);
    memset(c->seconds, 0, sizeof c->seconds);
    c->routed = false;
    c->layer++;
    return MOE_OK;
}

enum moe_code moe_walk_pass_dense_layer(struct moe_walk *c, struct moe_err *err)
{
    MOE_CHECK(!c->m->layers[c->layer].moe);
    MOE_TRY(begin_layer(c, err));
    return moe_walk_next(c, err);
}

enum moe_code moe_walk_to_experts(struct moe_walk *c, int layer, struct moe_err *err)
{
    while (c->layer < layer) MOE_TRY(moe_walk_pass_dense_layer(c, err));
    return c->routed ? MOE_OK : begin_layer(c, err);
}

enum moe_code moe_walk_pass_layer_by_source(struct moe_walk *c, struct moe_err *err)
{
    struct moe_shard_unit u;
    if (!c->m->layers[c->layer].moe) return moe_walk_pass_dense_layer(c, err);
    MOE_TRY(moe_walk_to_experts(c, c->layer, err));
    MOE_TRY(moe_walk_unit(c, c->layer, &u, err));
    enum moe_code code = moe_walk_experts(c, &u, NULL, NULL, err);
    moe_unit_release(&u);
    return code == MOE_OK ? moe_walk_next(c, err) : code;
}

/* ---- open and close ---- */

/* The largest inner width of any MLP. */
static int64_t widest(const struct moe_config *c)
{
    int64_t shared = moe_max_i64(c->moe_intermediate_size, c->n_shared_experts * c->moe_intermediate_size);
    return moe_has_dense_layers(c) ? moe_max_i64(shared, c->intermediate_size) : shared;
}

static const struct moe_mlp_method forward_only = { .matrix = { .diagonal = true } };

uint64_t moe_walk_twin_estimate(const struct moe_source *src, int64_t n, bool in_files)
{
    uint64_t states = in_files ? 0 : 2 * (uint64_t)(n * src->config.hidden_size) * sizeof(float);
    return states + (uint64_t)n * (uint64_t)src->config.num_experts_per_tok * 20 + (uint64_t)n * 8;
}

uint64_t moe_walk_estimate(const struct moe_source *src, int64_t n, int64_t sequence, bool in_files,
                           int threads)
{
    const struct moe_config *g = &src->config;
    int64_t batch = moe_min_i64(moe_walk_batch(sequence), n);
    int64_t qd = g->qk_nope_head_dim + g->qk_rope_head_dim;
    int64_t width = g->kv_lora_rank + g->qk_rope_head_dim;
    uint64_t bytes = moe_walk_twin_estimate(src, n, in_files);

    /* For each token of a batch: its state, here and on the device, the norm of it and what attention adds;
     * the projections' outputs; the cache; the router's logits.  The device's own buffers for MLPs are never
     * touched, since MLPs go through moe_mlp_forward. */
    int64_t token = 4 * g->hidden_size + g->q_lora_rank + g->num_attention_heads * (qd + g->v_head_dim) +
                    width + g->qk_rope_head_dim + g->n_routed_experts;
    int64_t sequences = (batch + sequence - 1) / sequence;
    bytes += (uint64_t)batch * (uint64_t)token * sizeof(float);
    bytes += moe_latent_estimate(g, MOE_LATENT_F32, 1,
                                 sequences * moe_latent_pages(moe_min_i64(sequence, batch)));
    bytes += (uint64_t)threads * (uint64_t)moe_min_i64(sequence, n) *
             (uint64_t)(g->qk_nope_head_dim + qd + g->v_head_dim + 1) * sizeof(float);
    return bytes + moe_mlp_forward_estimate(g->hidden_size, widest(g));
}

static void *array(int64_t n, size_t size) { return calloc((size_t)n + 1, size); }

/* The buffers for one layer's work.  A twin has those of the other walk. */
static enum moe_code take_buffers(struct moe_walk *c, struct moe_err *err)
{
    const struct moe_config *g = &c->src->config;
    int64_t s = c->sequence, batch = moe_walk_batch(s), sequences = (batch + s - 1) / s;
    const struct moe_cpu_options o = {
        .max_tokens = batch, .context = s, .mla = MOE_MLA_EXPANDED, .many = true
    };
    MOE_TRY(moe_cpu_open(&c->device, c->m, &o, c->pool, err));
    MOE_TRY(moe_forward_open(&c->f, c->device, err));
    MOE_TRY(moe_mlp_open(&c->mlp, g->hidden_size, widest(g), &forward_only, true, c->pool, err));
    MOE_TRY(moe_latent_open(&c->cache, c->device, 1, sequences * moe_latent_pages(s), err));
    c->batch = array(batch * g->hidden_size, sizeof *c->batch);
    c->piece = array(MOE_WALK_PIECE * g->hidden_size, sizeof *c->piece);
    return c->batch && c->piece
             ? MOE_OK
             : moe_fail(err, MOE_NOMEM, "no memory for %lld calibration tokens at once", (long long)batch);
}

static enum moe_code take_choices(struct moe_walk *c, struct moe_err *err)
{
    int64_t n = c->n;
    int64_t e = c->src->config.n_routed_experts;
    int64_t k = c->src->config.num_experts_per_tok;

    c->experts = array(n * k, sizeof *c->experts);
    c->weights = array(n * k, sizeof *c->weights);
    c->importance = array(n, sizeof *c->importance);
    c->first = array(e + 1, sizeof *c->first);
    c->row = array(n * k, sizeof *c->row);
    c->row_weight = array(n * k, sizeof *c->row_weight);
    c->row_importance = array(n * k, sizeof *c->row_importance);
    c->all = array(n, sizeof *c->all);
    c->stored = array(c->src->n_tensors, sizeof *c->stored);
    if (!(c->experts && c->weights && c->importance && c->first && c->row && c->row_weight &&
          c->row_importance && c->all && c->stored))
        return moe_fail(err, MOE_NOMEM, "no memory for %lld calibration tokens", (long long)n);
    for (int64_t i = 0; i < n; i++) c->all[i] = (int32_t)i;
    for (int64_t i = 0; i < c->src->n_tensors; i++) c->stored[i] = c->src->tensors[i].type;
    return MOE_OK;
}

static enum moe_code begin_walk(struct moe_walk *c, const char *states, struct moe_err *err)
{
    int64_t width = c->src->config.hidden_size;
    MOE_TRY(moe_model_open(&c->m, c->src, 0, err));
    if (!c->twin) MOE_TRY(take_buffers(c, err));
    MOE_TRY(moe_states_open(&c->h, c->n, width, states, err));
    MOE_TRY(moe_states_open(&c->sum, c->n, width, states, err));
    MOE_TRY(take_choices(c, err));
    moe_cpu_use(c->device, c->m);
    MOE_TRY(moe_walk_batches(c, embed_batch, err));
    drop_mapped(c, -1);
    return MOE_OK;
}

enum moe_code moe_walk_open(struct moe_walk *c, struct moe_source *src, const int32_t *tokens, int64_t n,
                            int64_t sequence, const char *states, struct moe_pool *pool,
                            const struct moe_cancel *cancel, struct moe_err *err)
{
    *c = (struct moe_walk){ .src = src,
                            .pool = pool,
                            .cancel = cancel,
                            .tokens = tokens,
                            .n = n,
                            .sequence = sequence,
                            .h = { .fd = -1 },
                            .sum = { .fd = -1 } };
    enum moe_code code = begin_walk(c, states, err);
    if (code != MOE_OK) moe_walk_close(c);
    return code;
}

enum moe_code moe_walk_twin(struct moe_walk *c, const struct moe_walk *w, const char *states,
                            struct moe_err *err)
{
    *c = (struct moe_walk){ .src = w->src,
                            .pool = w->pool,
                            .cancel = w->cancel,
                            .tokens = w->tokens,
                            .n = w->n,
                            .sequence = w->sequence,
                            .h = { .fd = -1 },
                            .sum = { .fd = -1 },
                            .twin = true,
                            .device = w->device,
                            .f = w->f,
                            .mlp = w->mlp,
                            .batch = w->batch,
                            .piece = w->piece,
                            .cache = w->cache,
                            .meter = w->meter };
    enum moe_code code = begin_walk(c, states, err);
    if (code != MOE_OK) moe_walk_close(c);
    return code;
}

void moe_walk_close(struct moe_walk *c)
{
    void *owned[] = { c->experts,    c->weights,        c->importance, c->first, c->row,
                      c->row_weight, c->row_importance, c->all,        c->stored };
    if (!c->twin) {
        moe_mlp_close(&c->mlp);
        moe_forward_close(&c->f);
        moe_latent_release(&c->cache);
        moe_device_close(&c->device);
        free(c->batch);
        free(c->piece);
    }
    moe_states_close(&c->h);
    moe_states_close(&c->sum);
    moe_model_close(&c->m);
    moe_stored_expert_release(&c->raw);
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    *c = (struct moe_walk){ .h = { .fd = -1 }, .sum = { .fd = -1 } };
}
