/* SPDX-License-Identifier: Apache-2.0 */
/* The feed-forward half of a layer: dense, or routed experts plus the shared one.
 *
 *   ffn(x) = down(silu(gate x) * (up x));  moe(x) = sum_j w_j ffn_{e_j}(x) + ffn_shared(x), j in top-k order
 *
 * Rows are gathered by expert, so that each expert's weights are read once for a batch.  Where a dispatcher
 * (struct moe_dispatcher) has the routed experts computed, it gets the rows before the shared expert is
 * computed, and returns pointers to the outputs afterwards.  Under NVFP4 activations (forward.h) the gathered
 * rows and the inputs of down are quantized in place, after the observers have seen them. */
#include "model/forward-parts.h"
#include "model/group.h"

#include <string.h>

/* A work item computes this many rows of a product, or this many columns of the sum over experts. */
enum { ROWS = 128, COLS = 1024 };

/* One pass of tokens through the MLPs of a layer.  `common` is the MLP that every token passes, the shared
 * expert or a dense layer's; NULL: there is none.  Its output goes to f->y.  In each parallel loop its work
 * items come first, those of the chosen experts after them.  `list` holds the choices; NULL when they are the
 * router's, where choice i is of token i / k. */
struct routed {
    struct moe_forward *f;
    const struct moe_layer *y;        /* the layer's weights */
    const struct moe_expert *common;
    float *common_gate, *common_up;   /* [T, inter of common] */
    int layer;
    const struct moe_choice *list;
    int64_t tokens;
    int64_t chosen;                   /* the number of choices */
    int64_t active;                   /* the number of experts with a choice */
    int64_t common_blocks, blocks;    /* work items of `common`, and of each expert, in the present loop */
    float *h;                         /* [T, hidden] the states, to which the outputs are added */
};

/* Chooses the experts of token t and their weights from its router logits. */
static void choose_experts(void *ctx, int64_t t, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t n = f->m->config.n_routed_experts, k = f->m->config.num_experts_per_tok;
    moe_route(&f->m->route, f->logits + t * n, r->y->router_bias, f->choose + worker * 2 * n,
              f->experts + t * k, f->weights + t * k);
}

static int32_t expert_of(const struct routed *r, int64_t i)
{
    return r->list ? r->list[i].expert : r->f->experts[i];
}

static const float *input_of(const struct routed *r, int64_t i)
{
    const struct moe_config *c = &r->f->m->config;
    return r->list ? r->list[i].x : r->f->x + i / c->num_experts_per_tok * c->hidden_size;
}

/* Groups the choices by expert, and lists the experts that were chosen at all. */
static void group_choices(struct routed *r)
{
    struct moe_forward *f = r->f;
    int64_t n = f->m->config.n_routed_experts;

    moe_group_count(f->first, n, r->list ? &r->list->expert : f->experts,
                    r->list ? sizeof *r->list : sizeof *f->experts, r->chosen);
    for (int64_t i = 0; i < r->chosen; i++) {
        f->slot[i] = (int32_t)moe_group_place(f->first, expert_of(r, i));
        f->from[f->slot[i]] = input_of(r, i);
    }
    r->active = 0;
    for (int64_t e = 0; e < n; e++)
        if (f->first[e + 1] > f->first[e]) f->active[r->active++] = (int32_t)e;
}

static void gather(void *ctx, int64_t i, int worker)
{
    struct routed *r = ctx;
    int64_t hidden = r->f->m->config.hidden_size;
    (void)worker;
    memcpy(r->f->gathered + i * hidden, r->f->from[i], (size_t)hidden * sizeof(float));
}

/* Copies the inputs of all experts into f->gathered.  Where each expert has at most one row, they are read
 * where they are instead, unless they are to be quantized. */
static void gather_all(struct routed *r)
{
    struct moe_forward *f = r->f;
    bool one_row_each = r->chosen == 1 || (!r->list && r->tokens == 1);
    if (!one_row_each || f->activations != MOE_ACTIVATIONS_FLOAT)
        moe_forward_each(f, r->chosen, r->chosen * f->m->config.hidden_size, gather, r);
}

/* The inputs of an expert whose n gathered rows begin at `at`.  A single row is read where it was before
 * gathering, unless it is to be quantized. */
static const float *rows_of(const struct moe_forward *f, int64_t at, int64_t n)
{
    return n == 1 && f->activations == MOE_ACTIVATIONS_FLOAT ? f->from[at]
                                                             : f->gathered + at * f->m->config.hidden_size;
}

static void show_gate(void *ctx, int64_t i, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t e = f->active[i], at = f->first[e], n = f->first[e + 1] - at;
    (void)worker;
    f->hooks.input(f->hooks.ctx, r->layer, MOE_ROLE_EXPERT_GATE, (int)e, rows_of(f, at, n),
                   f->m->config.hidden_size, n);
}

static void show_down(void *ctx, int64_t i, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t e = f->active[i];
    int64_t at = f->first[e];
    int64_t n = f->first[e + 1] - at;
    int64_t inter = r->y->experts[e].gate.rows;
    (void)worker;
    f->hooks.input(f->hooks.ctx, r->layer, MOE_ROLE_EXPERT_DOWN, (int)e, f->gate + at * inter, inter, n);
}

/* Quantizes the input of gate and up of one expert; quantize_down does the same for down. */
static void quantize_gate(void *ctx, int64_t i, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t e = f->active[i], at = f->first[e], hidden = f->m->config.hidden_size;
    float scale = moe_forward_gate_up_scale(f, &r->y->experts[e]);
    float *x = f->gathered + at * hidden;
    (void)worker;
    if (scale > 0) f->k->nvfp4_activations(x, (f->first[e + 1] - at) * hidden, scale, x);
}

static void quantize_down(void *ctx, int64_t i, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t e = f->active[i], at = f->first[e];
    const struct moe_weight *w = &r->y->experts[e].down;
    float *x = f->gate + at * w->cols;
    (void)worker;
    if (moe_forward_quantizes(f, w))
        f->k->nvfp4_activations(x, (f->first[e + 1] - at) * w->cols, moe_input_scale(w), x);
}

/* Computes rows block * ROWS to + ROWS of silu(gate x) * (up x), for n tokens, into `gate`. */
static void compute_gate_up_rows(const struct moe_forward *f, const struct moe_expert *e, int64_t block,
                                 const float *in, int64_t n, float *gate, float *up)
{
    int64_t inter = e->gate.rows;
    int64_t hidden = e->gate.cols;
    int64_t r0 = block * ROWS;
    int64_t r1 = r0 + ROWS < inter ? r0 + ROWS : inter;
    f->k->matmul(&e->gate, r0, r1, in, hidden, n, gate + r0, inter);
    f->k->matmul(&e->up, r0, r1, in, hidden, n, up + r0, inter);
    for (int64_t t = 0; t < n; t++)
        f->k->swiglu(gate + t * inter + r0, up + t * inter + r0, r1 - r0, gate + t * inter + r0);
}

static void compute_gate_up(void *ctx, int64_t item, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    (void)worker;
    if (item < r->common_blocks) {
        compute_gate_up_rows(f, r->common, item, f->x, r->tokens, r->common_gate, r->common_up);
        return;
    }
    item -= r->common_blocks;
    int64_t e = f->active[item / r->blocks], at = f->first[e], n = f->first[e + 1] - at;
    const struct moe_expert *x = &r->y->experts[e];
    compute_gate_up_rows(f, x, item % r->blocks, rows_of(f, at, n), n, f->gate + at * x->gate.rows,
                         f->up + at * x->gate.rows);
}

static void compute_down_rows(const struct moe_forward *f, const struct moe_weight *w, int64_t block,
                              const float *in, int64_t n, float *out)
{
    int64_t r0 = block * ROWS, r1 = r0 + ROWS < w->rows ? r0 + ROWS : w->rows;
    f->k->matmul(w, r0, r1, in, w->cols, n, out + r0, w->rows);
}

static void compute_down(void *ctx, int64_t item, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    (void)worker;
    if (item < r->common_blocks) {
        compute_down_rows(f, &r->common->down, item, r->common_gate, r->tokens, f->y);
        return;
    }
    item -= r->common_blocks;
    int64_t e = f->active[item / r->blocks], at = f->first[e], n = f->first[e + 1] - at;
    const struct moe_weight *w = &r->y->experts[e].down;
    compute_down_rows(f, w, item % r->blocks, f->gate + at * w->cols, n, f->gathered + at * w->rows);
}

/* Adds the layer's output to a block of columns of one token's state: h += (sum of weight * output in top-k
 * order) + shared.  Each product and each sum is rounded. */
static void add_weighted_sum(void *ctx, int64_t item, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t hidden = f->m->config.hidden_size;
    int64_t k = f->m->config.num_experts_per_tok;
    int64_t t = item / r->blocks;
    int64_t c0 = item % r->blocks * COLS;
    int64_t n = hidden - c0 < COLS ? hidden - c0 : COLS;
    float sum[COLS] = { 0 }, *h = r->h + t * hidden + c0;

    (void)worker;
    for (int64_t j = 0; j < k; j++) {
        const float *from = f->dispatcher.combine ? f->result[t * k + j]
                                                 : f->gathered + f->slot[t * k + j] * hidden;
        const float *y = from + c0, w = f->weights[t * k + j];
        for (int64_t i = 0; i < n; i++) sum[i] += w * y[i];
    }
    const float *shared = r->y->shared.gate.data ? f->y + t * hidden + c0 : NULL;
    for (int64_t i = 0; i < n && shared; i++) sum[i] += shared[i];
    for (int64_t i = 0; i < n; i++) h[i] += sum[i];
}

static int64_t block_count(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* Computes `common`, from f->x to f->y, and the chosen experts, from their gathered rows to f->gathered.
 * There are two parallel loops, gate and up, then down; each covers all these MLPs. */
static void compute_mlps(struct routed *r, enum moe_role gate)
{
    struct moe_forward *f = r->f;
    const struct moe_config *c = &f->m->config;
    int64_t hidden = c->hidden_size, inter = r->common ? r->common->gate.rows : 0;
    int64_t work = hidden * (r->tokens * inter + r->chosen * c->moe_intermediate_size);
    bool quantize = f->activations != MOE_ACTIVATIONS_FLOAT;
    float scale = quantize && r->common ? moe_forward_gate_up_scale(f, r->common) : 0;

    if (r->common) moe_forward_observe(f, r->layer, gate, f->x, hidden, r->tokens);
    if (f->hooks.input) moe_pool_run(f->pool, r->active, show_gate, r);
    if (scale > 0) moe_forward_quantize(f, f->x, hidden, scale, hidden, r->tokens, f->x, hidden);
    if (quantize) moe_forward_each(f, r->active, 8 * r->chosen * hidden, quantize_gate, r);
    r->common_blocks = block_count(inter, ROWS);
    r->blocks = block_count(c->moe_intermediate_size, ROWS);
    moe_forward_each(f, r->common_blocks + r->active * r->blocks, 2 * work, compute_gate_up, r);
    if (r->common)
        moe_forward_observe(f, r->layer, (enum moe_role)(gate + 2), r->common_gate, inter, r->tokens);
    if (f->hooks.input) moe_pool_run(f->pool, r->active, show_down, r);
    if (r->common && moe_forward_quantizes(f, &r->common->down))
        moe_forward_quantize(f, r->common_gate, inter, moe_input_scale(&r->common->down), inter, r->tokens,
                             r->common_gate, inter);
    if (quantize) moe_forward_each(f, r->active, 8 * r->chosen * c->moe_intermediate_size, quantize_down, r);
    r->common_blocks = r->common ? block_count(hidden, ROWS) : 0;
    r->blocks = block_count(hidden, ROWS);
    moe_forward_each(f, r->common_blocks + r->active * r->blocks, work, compute_down, r);
}

/* Copies the output of choice i to where the caller of moe_forward_experts wants it. */
static void scatter(void *ctx, int64_t i, int worker)
{
    struct routed *r = ctx;
    int64_t hidden = r->f->m->config.hidden_size;
    (void)worker;
    memcpy(r->list[i].y, r->f->gathered + r->f->slot[i] * hidden, (size_t)hidden * sizeof(float));
}

void moe_forward_experts(struct moe_forward *f, int layer, const struct moe_choice *list, int64_t n)
{
    int64_t hidden = f->m->config.hidden_size;
    struct routed r = { .f = f, .y = &f->m->layers[layer], .layer = layer, .list = list, .chosen = n };
    MOE_CHECK(n <= f->max_tokens * f->m->config.num_experts_per_tok && r.y->moe);
    group_choices(&r);
    gather_all(&r);
    compute_mlps(&r, MOE_ROLE_SHARED_GATE);
    moe_forward_each(f, n, n * hidden, scatter, &r);
}

/* The dispatcher has the routed experts computed; this rank computes the shared expert meanwhile.  False
 * after a failure, which moe_forward_check will return. */
static bool dispatch(struct routed *r)
{
    struct moe_forward *f = r->f;
    r->chosen = 0;
    if (f->code == MOE_OK)
        f->code = f->dispatcher.dispatch(f->dispatcher.ctx, r->layer, r->tokens, f->x, f->experts, &f->err);
    if (f->code == MOE_OK) compute_mlps(r, MOE_ROLE_SHARED_GATE);
    if (f->code == MOE_OK) f->code = f->dispatcher.combine(f->dispatcher.ctx, f->result, &f->err);
    return f->code == MOE_OK;
}

/* Computes the feed-forward half of a MoE layer from its input f->x, and adds it to h. */
static void compute_moe_layer(struct moe_forward *f, int layer, int64_t tokens, float *h)
{
    const struct moe_config *c = &f->m->config;
    const struct moe_layer *y = &f->m->layers[layer];
    int64_t chosen = tokens * c->num_experts_per_tok;
    int64_t behind = chosen * c->moe_intermediate_size;
    struct routed r = { .f = f,
                        .y = y,
                        .common = y->shared.gate.data ? &y->shared : NULL,
                        .common_gate = f->gate + behind,
                        .common_up = f->up + behind,
                        .layer = layer,
                        .tokens = tokens,
                        .chosen = chosen,
                        .h = h };

    moe_forward_matmul(f, &y->router, f->x, c->hidden_size, tokens, f->logits);
    moe_forward_each(f, tokens, tokens * c->n_routed_experts * (64 + c->num_experts_per_tok), choose_experts,
                     &r);
    if (f->hooks.routed) f->hooks.routed(f->hooks.ctx, layer, tokens, f->experts, f->weights);
    if (f->dispatcher.dispatch) {
        if (!dispatch(&r)) return;
    } else {
        group_choices(&r);
        gather_all(&r);
        compute_mlps(&r, MOE_ROLE_SHARED_GATE);
    }
    r.blocks = block_count(c->hidden_size, COLS);
    moe_forward_each(f, tokens * r.blocks, 16 * chosen * c->hidden_size, add_weighted_sum, &r);
}

void moe_forward_ffn(struct moe_forward *f, int layer, int64_t tokens, float *h)
{
    const struct moe_layer *y = &f->m->layers[layer];
    int64_t hidden = f->m->config.hidden_size;

    moe_forward_norm(f, h, hidden, y->post_norm, f->m->eps, hidden, tokens, f->x, hidden);
    if (y->moe) {
        compute_moe_layer(f, layer, tokens, h);
        return;
    }
    struct routed r = { .f = f,
                        .y = y,
                        .common = &y->dense,
                        .common_gate = f->gate,
                        .common_up = f->up,
                        .layer = layer,
                        .tokens = tokens,
                        .h = h };
    compute_mlps(&r, MOE_ROLE_GATE);
    moe_forward_add(f, h, f->y, tokens);
}
