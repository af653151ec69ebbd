/* SPDX-License-Identifier: Apache-2.0 */
/* The feed-forward part of a layer: router, shared expert or dense MLP, routed experts, and their sum.
 *
 * The rows of routed experts stand in the order of the choices throughout: choice c = t k + j is row c of
 * at.gate, at.up and the outputs.  Products take their work from the lists that `group` makes on the GPU. */
#include "base/minmax.h"
#include "kernels/cuda/activations.h"
#include "kernels/cuda/combine.h"
#include "kernels/cuda/dense.h"
#include "kernels/cuda/group.h"
#include "kernels/cuda/nvfp4.h"
#include "kernels/cuda/route.h"
#include "kernels/cuda/swiglu.h"
#include "kernels/cuda/tiles.h"
#include "model/ops/cuda/cuda-internal.h"

/* ---- the router ---- */

/* Shows the choices to the observer: they must be in host memory, so the host waits. */
static void show_choices(struct moe_cuda *d, int layer, const struct moe_choices *c)
{
    uint64_t bytes = (uint64_t)(d->batch.n * moe_cuda_config(d)->num_experts_per_tok) * 4;
    moe_cuda_read(d, d->experts, c->experts.at, bytes);
    moe_cuda_read(d, d->chosen, c->weights.at, bytes);
    if (d->code == MOE_OK) d->code = moe_gpu_wait(d->gpu, &d->err);
    if (d->code == MOE_OK) d->hooks.routed(d->hooks.ctx, layer, d->batch.n, d->experts, d->chosen);
}

void moe_cuda_op_route(struct moe_device *device, int layer, struct moe_addr x, const struct moe_choices *c)
{
    struct moe_cuda *d = moe_cuda_of(device);
    const struct moe_router *r = &device->model->route;
    const struct moe_cuda_layer *y = &d->weights.layers[layer];
    const struct moe_cuda_route a = { .logits = d->at.router,
                                      .bias = y->router_bias,
                                      .experts = c->experts.at,
                                      .weights = c->weights.at,
                                      .n = d->batch.n,
                                      .n_experts = (int32_t)r->n_experts,
                                      .top_k = (int32_t)r->top_k,
                                      .n_group = (int32_t)r->n_group,
                                      .topk_group = (int32_t)r->topk_group,
                                      .norm_topk_prob = r->norm_topk_prob,
                                      .scale = r->scale };
    moe_cuda_product_exact(d, &y->router, x.at, d->batch.n, d->at.router);
    MOE_CUDA_LAUNCH(d, route, a);
    if (d->hooks.routed) show_choices(d, layer, c);
}

/* ---- gate and up ---- */

/* Whether one launch computes gate, up and SwiGLU. */
static bool is_fused(const struct moe_cuda_mlp *m)
{
    return moe_cuda_is_nvfp4(&m->gate) && moe_cuda_is_nvfp4(&m->up) &&
           m->gate.w.reciprocal == m->up.w.reciprocal;
}

/* at.gate [n] = swiglu(at.gate, at.up). */
static void gate_values(struct moe_cuda *d, int64_t n)
{
    const struct moe_cuda_swiglu a = { .gate = d->at.gate, .up = d->at.up, .out = d->at.gate, .n = n };
    MOE_CUDA_LAUNCH(d, swiglu, a);
}

/* ---- the MLP of all tokens ---- */

static void common(struct moe_cuda *d, const struct moe_cuda_mlp *m, uint64_t x, uint64_t y)
{
    int64_t n = d->batch.n, inter = m->gate.w.rows;
    float scale = moe_cuda_gate_scale(d, m);
    if (scale > 0) moe_cuda_quantize(d, x, scale, m->gate.w.cols, n, x);
    moe_cuda_prepare(d, &m->gate, x, n);
    if (is_fused(m)) {
        struct moe_cuda_nvfp4 a = {
            .y = { d->at.gate }, .ldy = inter, .tokens = n, .flags = MOE_CUDA_NVFP4_SWIGLU
        };
        const struct moe_cuda_matrix both[] = { m->gate, m->up };
        moe_cuda_nvfp4(d, both, 2, &a, moe_cuda_nvfp4_tokens(d, n));
    } else {
        moe_cuda_multiply(d, &m->gate, x, n, d->at.gate);
        if (!moe_cuda_read_alike(d, &m->gate, &m->up)) moe_cuda_prepare(d, &m->up, x, n);
        moe_cuda_multiply(d, &m->up, x, n, d->at.up);
        gate_values(d, n * inter);
    }
    moe_cuda_product(d, &m->down, d->at.gate, n, y);
}

/* ---- routed experts ---- */

struct routed {
    struct moe_cuda *d;
    const struct moe_cuda_experts *x;
    const struct moe_choices *c;
    int64_t tokens, k, chosen;
};

/* Makes the list of work from the choices. */
static void group(const struct routed *r)
{
    struct moe_cuda *d = r->d;
    const struct moe_cuda_group a = { .ids = r->c->experts.at,
                                      .resident = r->x->resident,
                                      .word = d->at.word,
                                      .first = d->at.sorted,
                                      .pair = d->at.pair,
                                      .token = d->at.token,
                                      .items = d->at.items,
                                      .item_count = d->at.counts,
                                      .pairs = (int32_t)r->chosen,
                                      .k = (int32_t)r->k,
                                      .experts = (int32_t)moe_cuda_config(d)->n_routed_experts,
                                      .bit = MOE_CUDA_WORD_ABSENT };
    MOE_CUDA_LAUNCH(d, group, a);
    const struct moe_cuda_tiles tiles = { .first = d->at.sorted,
                                          .items = d->at.tiles,
                                          .item_count = d->at.tile_counts,
                                          .pairs = a.pairs,
                                          .experts = a.experts };
    if (d->o.fast) MOE_CUDA_LAUNCH(d, tiles, tiles);
}

/* A list of work for products of NVFP4 weights: its items have more than `above` pairs, at most `tokens`. */
struct list { uint64_t items, count; int64_t most; int tokens, above; };

static int lists_of(const struct moe_cuda *d) { return d->o.fast ? MOE_CUDA_TILE_LISTS : MOE_CUDA_BUCKETS; }

static struct list list_at(const struct routed *r, int i)
{
    const struct moe_cuda *d = r->d;
    const uint64_t items = (uint64_t)i * (uint64_t)r->chosen * sizeof(struct moe_cuda_item);
    const uint64_t count = (uint64_t)i * sizeof(int32_t);
    int64_t experts = moe_cuda_config(d)->n_routed_experts;
    if (d->o.fast)
        return (struct list){ .items = d->at.tiles + items,
                              .count = d->at.tile_counts + count,
                              .most = moe_cuda_tiles_most(r->chosen, experts, i),
                              .tokens = moe_cuda_tile_pairs(i),
                              .above = i ? moe_cuda_tile_pairs(i - 1) : 0 };
    return (struct list){ .items = d->at.items + items,
                          .count = d->at.counts + count,
                          .most = moe_cuda_group_most(r->chosen, experts, i),
                          .tokens = 2 << i,
                          .above = 2 * i };
}

/* Products of NVFP4 weights with the lists of work: `how` says which digits they take, what becomes of the
 * results, and by `in` which row belongs to a sorted pair. */
static void multiply_items(const struct routed *r, const struct moe_cuda_matrix *m, int matrices,
                           const struct moe_cuda_nvfp4 *how)
{
    struct moe_cuda *d = r->d;
    for (int i = 0; i < lists_of(d); i++) {
        const struct list l = list_at(r, i);
        struct moe_cuda_nvfp4 a = *how;
        if (l.most <= 0 || r->tokens <= l.above) continue; /* the pairs of an item are of as many tokens */
        a.stride = r->x->stride;
        a.items = l.items;
        a.item_count = l.count;
        a.out = d->at.pair;
        a.ldy = m->w.rows;
        a.most = l.most;
        moe_cuda_nvfp4(d, m, matrices, &a, l.tokens);
    }
}

/* The same with a weight of another type and with x itself. */
static void multiply_others(const struct routed *r, const struct moe_cuda_matrix *m, uint64_t x, uint64_t in,
                            uint64_t y)
{
    struct moe_cuda *d = r->d;
    int64_t experts = moe_cuda_config(d)->n_routed_experts;
    for (int b = 0; b < MOE_CUDA_BUCKETS && r->tokens > 2 * b; b++) {
        uint64_t before = (uint64_t)b * (uint64_t)r->chosen * sizeof(struct moe_cuda_item);
        const struct moe_cuda_dense a = { .w = m->w,
                                          .x = x,
                                          .y = y,
                                          .list = d->at.items + before,
                                          .count = d->at.counts + (uint64_t)b * sizeof(int32_t),
                                          .in = in,
                                          .out = d->at.pair,
                                          .n = moe_min_i64(r->tokens, 2 << b),
                                          .ldx = m->w.cols,
                                          .ldy = m->w.rows,
                                          .rows = m->w.rows,
                                          .items = moe_cuda_group_most(r->chosen, experts, b),
                                          .stride = r->x->stride };
        if (a.items > 0) moe_cuda_launch(d, moe_cuda_dense_kernel(&a), moe_cuda_dense_grid(&a), &a, sizeof a);
    }
}

/* A product of every choice with its expert's weight.  per_token: x and at.digits have a row for each token,
 * else one for each choice. */
static void multiply(const struct routed *r, const struct moe_cuda_matrix *m, uint64_t x, bool per_token,
                     uint64_t y)
{
    uint64_t in = per_token ? r->d->at.token : r->d->at.pair;
    const struct moe_cuda_nvfp4 how = { .in = in, .y = { y } };
    if (moe_cuda_is_nvfp4(m)) multiply_items(r, m, 1, &how);
    else multiply_others(r, m, x, in, y);
}

/* The input of each choice, quantized under its expert's scale, into at.quantized. */
static void quantize_choices(const struct routed *r, uint64_t x)
{
    struct moe_cuda *d = r->d;
    int64_t hidden = moe_cuda_config(d)->hidden_size;
    struct moe_cuda_activations a = { .x = x,
                                      .out = d->at.quantized,
                                      .scales = r->x->gate_scale,
                                      .which = r->c->experts.at,
                                      .rows = r->chosen,
                                      .n = hidden,
                                      .share = r->k,
                                      .ldx = hidden,
                                      .ldo = hidden };
    moe_cuda_quantize_rows(d, &a);
}

/* Whether gate and up leave at.acted for `down`, and not at.gate. */
static bool leaves_digits(const struct routed *r)
{
    const struct moe_cuda_mlp *m = &r->x->mlp;
    return !r->d->o.fast && is_fused(m) && moe_cuda_is_nvfp4(&m->down) && !r->x->down_scale &&
           m->gate.w.rows % 16 == 0;
}

/* at.gate [choices, inter], or at.acted, = what goes into `down`. */
static void gate_and_up(const struct routed *r, uint64_t x)
{
    struct moe_cuda *d = r->d;
    const struct moe_cuda_mlp *m = &r->x->mlp;
    bool per_token = !r->x->gate_scale;
    if (!per_token) {
        quantize_choices(r, x);
        x = d->at.quantized;
    }
    if (moe_cuda_is_nvfp4(&m->gate) || moe_cuda_is_nvfp4(&m->up))
        moe_cuda_make_digits(d, x, per_token ? r->tokens : r->chosen, m->gate.w.cols);
    if (is_fused(m)) {
        const struct moe_cuda_matrix both[] = { m->gate, m->up };
        struct moe_cuda_nvfp4 how = { .in = per_token ? d->at.token : d->at.pair,
                                      .flags = MOE_CUDA_NVFP4_SWIGLU };
        if (leaves_digits(r)) how.digits_out = d->at.acted, how.factors_out = d->at.acted_factors;
        else how.y[0] = d->at.gate;
        multiply_items(r, both, 2, &how);
        return;
    }
    multiply(r, &m->gate, x, per_token, d->at.gate);
    multiply(r, &m->up, x, per_token, d->at.up);
    gate_values(d, r->chosen * m->gate.w.rows);
}

static void down(const struct routed *r)
{
    struct moe_cuda *d = r->d;
    const struct moe_cuda_matrix *m = &r->x->mlp.down;
    if (leaves_digits(r)) {
        const struct moe_cuda_nvfp4 how = { .in = d->at.pair,
                                            .digits = d->at.acted,
                                            .factors = d->at.acted_factors,
                                            .y = { r->c->rows.at } };
        multiply_items(r, m, 1, &how);
        return;
    }
    if (r->x->down_scale) {
        struct moe_cuda_activations a = { .x = d->at.gate,
                                          .out = d->at.gate,
                                          .scales = r->x->down_scale,
                                          .which = r->c->experts.at,
                                          .rows = r->chosen,
                                          .n = m->w.cols,
                                          .share = 1,
                                          .ldx = m->w.cols,
                                          .ldo = m->w.cols };
        moe_cuda_quantize_rows(d, &a);
    }
    if (moe_cuda_is_nvfp4(m)) moe_cuda_make_digits(d, d->at.gate, r->chosen, m->w.cols);
    multiply(r, m, d->at.gate, false, r->c->rows.at);
}

void moe_cuda_op_mlps(struct moe_device *device, int layer, struct moe_addr x, const struct moe_choices *c,
                      struct moe_addr y)
{
    struct moe_cuda *d = moe_cuda_of(device);
    const struct moe_cuda_layer *w = &d->weights.layers[layer];
    struct routed r = {
        .d = d, .x = &w->experts, .c = c, .tokens = d->batch.n, .k = moe_cuda_config(d)->num_experts_per_tok
    };
    r.chosen = r.tokens * r.k;
    if (c) { /* first: the MLP of all tokens may change x */
        group(&r);
        gate_and_up(&r, x.at);
        down(&r);
    }
    if (w->common.gate.w.data) common(d, &w->common, x.at, y.at);
}

/* ---- combine ---- */

void moe_cuda_op_combine(struct moe_device *device, const struct moe_choices *c, struct moe_addr y,
                         struct moe_addr h)
{
    struct moe_cuda *d = moe_cuda_of(device);
    const struct moe_cuda_combine a = { .rows = c ? c->rows.at : 0,
                                        .weights = c ? c->weights.at : 0,
                                        .common = y.at,
                                        .h = h.at,
                                        .tokens = d->batch.n,
                                        .n = moe_cuda_config(d)->hidden_size,
                                        .k = moe_cuda_config(d)->num_experts_per_tok };
    MOE_CHECK(c || y.at);
    MOE_CUDA_LAUNCH(d, combine, a);
}
