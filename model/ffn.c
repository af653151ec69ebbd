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
 * expert or a dense layer's; NULL: there is none.  Its output goes to f->y.  In each parallel loop the work
 * items of `common` come first, those of the chosen experts after them.  A choice is a pair of a token and an
 * expert that it chose.  `list` holds the choices of moe_forward_experts; it is NULL when the choices are the
 * router's in f->experts, of which choice i is of token i / k. */
struct pass {
    struct moe_forward *f;
    const struct moe_layer *y;        /* the layer's weights */
    const struct moe_expert *common;
    float *common_gate, *common_up;   /* [T, inter of common] */
    int layer;
    const struct moe_choice *list;
    int64_t tokens;
    int64_t chosen;                   /* the number of choices */
    int64_t active;                   /* the number of experts that some token chose */
    int64_t common_blocks, blocks;    /* work items of `common`, and of each expert, in the present loop */
    float *h;                         /* [T, hidden] the states, to which the outputs are added */
};

/* Chooses the experts of token t and their weights from its router logits. */
static void choose_experts(void *ctx, int64_t t, int worker)
{
    struct pass *p = ctx;
    struct moe_forward *f = p->f;
    int64_t n = f->m->config.n_routed_experts, k = f->m->config.num_experts_per_tok;
    moe_route(&f->m->route, f->logits + t * n, p->y->router_bias, f->choose + worker * 2 * n,
              f->experts + t * k, f->weights + t * k);
}

static int32_t expert_of(const struct pass *p, int64_t i)
{
    return p->list ? p->list[i].expert : p->f->experts[i];
}

static const float *input_of(const struct pass *p, int64_t i)
{
    const struct moe_config *c = &p->f->m->config;
    return p->list ? p->list[i].x : p->f->x + i / c->num_experts_per_tok * c->hidden_size;
}

/* Groups the choices by expert, and lists the experts that were chosen at all. */
static void group_choices(struct pass *p)
{
    struct moe_forward *f = p->f;
    int64_t n = f->m->config.n_routed_experts;

    moe_group_count(f->first, n, p->list ? &p->list->expert : f->experts,
                    p->list ? sizeof *p->list : sizeof *f->experts, p->chosen);
    for (int64_t i = 0; i < p->chosen; i++) {
        f->slot[i] = (int32_t)moe_group_place(f->first, expert_of(p, i));
        f->from[f->slot[i]] = input_of(p, i);
    }
    p->active = 0;
    for (int64_t e = 0; e < n; e++)
        if (f->first[e + 1] > f->first[e]) f->active[p->active++] = (int32_t)e;
}

static void gather(void *ctx, int64_t i, int worker)
{
    struct pass *p = ctx;
    int64_t hidden = p->f->m->config.hidden_size;
    (void)worker;
    memcpy(p->f->gathered + i * hidden, p->f->from[i], (size_t)hidden * sizeof(float));
}

/* Copies the inputs of all experts into f->gathered.  Where each expert has at most one row, they are read
 * where they are instead, unless they are to be quantized. */
static void gather_all(struct pass *p)
{
    struct moe_forward *f = p->f;
    bool one_row_each = p->chosen == 1 || (!p->list && p->tokens == 1);
    if (!one_row_each || f->activations != MOE_ACTIVATIONS_FLOAT)
        moe_forward_each(f, p->chosen, p->chosen * f->m->config.hidden_size, gather, p);
}

/* The inputs of an expert whose n gathered rows begin at `at`.  A single row is read where it was before
 * gathering, unless it is to be quantized. */
static const float *rows_of(const struct moe_forward *f, int64_t at, int64_t n)
{
    return n == 1 && f->activations == MOE_ACTIVATIONS_FLOAT ? f->from[at]
                                                             : f->gathered + at * f->m->config.hidden_size;
}

/* Shows the input of gate and up of one expert to the hook; show_down does the same for down. */
static void show_gate(void *ctx, int64_t i, int worker)
{
    struct pass *p = ctx;
    struct moe_forward *f = p->f;
    int64_t e = f->active[i], at = f->first[e], n = f->first[e + 1] - at;
    (void)worker;
    f->hooks.input(f->hooks.ctx, p->layer, MOE_ROLE_EXPERT_GATE, (int)e, rows_of(f, at, n),
                   f->m->config.hidden_size, n);
}

static void show_down(void *ctx, int64_t i, int worker)
{
    struct pass *p = ctx;
    struct moe_forward *f = p->f;
    int64_t e = f->active[i];
    int64_t at = f->first[e];
    int64_t n = f->first[e + 1] - at;
    int64_t inter = p->y->experts[e].gate.rows;
    (void)worker;
    f->hooks.input(f->hooks.ctx, p->layer, MOE_ROLE_EXPERT_DOWN, (int)e, f->gate + at * inter, inter, n);
}

/* Quantizes the input of gate and up of one expert; quantize_down does the same for down. */
static void quantize_gate(void *ctx, int64_t i, int worker)
{
    struct pass *p = ctx;
    struct moe_forward *f = p->f;
    int64_t e = f->active[i], at = f->first[e], hidden = f->m->config.hidden_size;
    float scale = moe_forward_gate_up_scale(f, &p->y->experts[e]);
    float *x = f->gathered + at * hidden;
    (void)worker;
    if (scale > 0) f->k->nvfp4_activations(x, (f->first[e + 1] - at) * hidden, scale, x);
}

static void quantize_down(void *ctx, int64_t i, int worker)
{
    struct pass *p = ctx;
    struct moe_forward *f = p->f;
    int64_t e = f->active[i], at = f->first[e];
    const struct moe_weight *w = &p->y->experts[e].down;
    float *x = f->gate + at * w->cols;
    (void)worker;
    if (moe_forward_quantizes(f, w))
        f->k->nvfp4_activations(x, (f->first[e + 1] - at) * w->cols, moe_input_scale(w), x);
}

/* Computes rows [block * ROWS, (block + 1) * ROWS) of silu(gate x) * (up x), for n tokens, into `gate`. */
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
    struct pass *p = ctx;
    struct moe_forward *f = p->f;
    (void)worker;
    if (item < p->common_blocks) {
        compute_gate_up_rows(f, p->common, item, f->x, p->tokens, p->common_gate, p->common_up);
        return;
    }
    item -= p->common_blocks;
    int64_t e = f->active[item / p->blocks], at = f->first[e], n = f->first[e + 1] - at;
    const struct moe_expert *x = &p->y->experts[e];
    compute_gate_up_rows(f, x, item % p->blocks, rows_of(f, at, n), n, f->gate + at * x->gate.rows,
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
    struct pass *p = ctx;
    struct moe_forward *f = p->f;
    (void)worker;
    if (item < p->common_blocks) {
        compute_down_rows(f, &p->common->down, item, p->common_gate, p->tokens, f->y);
        return;
    }
    item -= p->common_blocks;
    int64_t e = f->active[item / p->blocks], at = f->first[e], n = f->first[e + 1] - at;
    const struct moe_weight *w = &p->y->experts[e].down;
    compute_down_rows(f, w, item % p->blocks, f->gate + at * w->cols, n, f->gathered + at * w->rows);
}

/* Adds the layer's output to a block of columns of one token's state: h += (sum of weight * output in top-k
 * order) + shared.  Each product and each sum is rounded. */
static void add_weighted_sum(void *ctx, int64_t item, int worker)
{
    struct pass *p = ctx;
    struct moe_forward *f = p->f;
    int64_t hidden = f->m->config.hidden_size;
    int64_t k = f->m->config.num_experts_per_tok;
    int64_t t = item / p->blocks;
    int64_t c0 = item % p->blocks * COLS;
    int64_t n = hidden - c0 < COLS ? hidden - c0 : COLS;
    float sum[COLS] = { 0 }, *h = p->h + t * hidden + c0;

    (void)worker;
    for (int64_t j = 0; j < k; j++) {
        const float *from = f->dispatcher.combine ? f->result[t * k + j]
                                                 : f->gathered + f->slot[t * k + j] * hidden;
        const float *y = from + c0, w = f->weights[t * k + j];
        for (int64_t i = 0; i < n; i++) sum[i] += w * y[i];
    }
    const float *shared = p->y->shared.gate.data ? f->y + t * hidden + c0 : NULL;
    for (int64_t i = 0; i < n && shared; i++) sum[i] += shared[i];
    for (int64_t i = 0; i < n; i++) h[i] += sum[i];
}

static int64_t block_count(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* Computes `common`, from f->x to f->y, and the chosen experts, from their gathered rows to f->gathered.
 * There are two parallel loops, gate and up, then down; each covers all these MLPs.  `gate` is the role of
 * the gate of `common`. */
static void compute_mlps(struct pass *p, enum moe_role gate)
{
    struct moe_forward *f = p->f;
    const struct moe_config *c = &f->m->config;
    int64_t hidden = c->hidden_size, inter = p->common ? p->common->gate.rows : 0;
    int64_t work = hidden * (p->tokens * inter + p->chosen * c->moe_intermediate_size);
    bool quantize = f->activations != MOE_ACTIVATIONS_FLOAT;
    float scale = quantize && p->common ? moe_forward_gate_up_scale(f, p->common) : 0;

    if (p->common) moe_forward_observe(f, p->layer, gate, f->x, hidden, p->tokens);
    if (f->hooks.input) moe_pool_run(f->pool, p->active, show_gate, p);
    if (scale > 0) moe_forward_quantize(f, f->x, hidden, scale, hidden, p->tokens, f->x, hidden);
    if (quantize) moe_forward_each(f, p->active, 8 * p->chosen * hidden, quantize_gate, p);
    p->common_blocks = block_count(inter, ROWS);
    p->blocks = block_count(c->moe_intermediate_size, ROWS);
    moe_forward_each(f, p->common_blocks + p->active * p->blocks, 2 * work, compute_gate_up, p);
    if (p->common)
        moe_forward_observe(f, p->layer, (enum moe_role)(gate + 2), p->common_gate, inter, p->tokens);
    if (f->hooks.input) moe_pool_run(f->pool, p->active, show_down, p);
    if (p->common && moe_forward_quantizes(f, &p->common->down))
        moe_forward_quantize(f, p->common_gate, inter, moe_input_scale(&p->common->down), inter, p->tokens,
                             p->common_gate, inter);
    if (quantize) moe_forward_each(f, p->active, 8 * p->chosen * c->moe_intermediate_size, quantize_down, p);
    p->common_blocks = p->common ? block_count(hidden, ROWS) : 0;
    p->blocks = block_count(hidden, ROWS);
    moe_forward_each(f, p->common_blocks + p->active * p->blocks, work, compute_down, p);
}

/* Copies the output of choice i to where the caller of moe_forward_experts wants it. */
static void scatter(void *ctx, int64_t i, int worker)
{
    struct pass *p = ctx;
    int64_t hidden = p->f->m->config.hidden_size;
    (void)worker;
    memcpy(p->list[i].y, p->f->gathered + p->f->slot[i] * hidden, (size_t)hidden * sizeof(float));
}

void moe_forward_experts(struct moe_forward *f, int layer, const struct moe_choice *list, int64_t n)
{
    int64_t hidden = f->m->config.hidden_size;
    struct pass p = { .f = f, .y = &f->m->layers[layer], .layer = layer, .list = list, .chosen = n };
    MOE_CHECK(n <= f->max_tokens * f->m->config.num_experts_per_tok && p.y->moe);
    group_choices(&p);
    gather_all(&p);
    compute_mlps(&p, MOE_ROLE_SHARED_GATE);
    moe_forward_each(f, n, n * hidden, scatter, &p);
}

/* The dispatcher has the routed experts computed; this rank computes the shared expert meanwhile.  False
 * after a failure, which moe_forward_check will return. */
static bool dispatch(struct pass *p)
{
    struct moe_forward *f = p->f;
    p->chosen = 0;
    if (f->code == MOE_OK)
        f->code = f->dispatcher.dispatch(f->dispatcher.ctx, p->layer, p->tokens, f->x, f->experts, &f->err);
    if (f->code == MOE_OK) compute_mlps(p, MOE_ROLE_SHARED_GATE);
    if (f->code == MOE_OK) f->code = f->dispatcher.combine(f->dispatcher.ctx, f->result, &f->err);
    return f->code == MOE_OK;
}

/* Computes the feed-forward half of a MoE layer from its input f->x, and adds it to h. */
static void compute_moe_layer(struct moe_forward *f, int layer, int64_t tokens, float *h)
{
    const struct moe_config *c = &f->m->config;
    const struct moe_layer *y = &f->m->layers[layer];
    int64_t chosen = tokens * c->num_experts_per_tok;
    /* in f->gate and f->up the rows of the shared expert lie behind so many floats of the routed experts */
    int64_t behind = chosen * c->moe_intermediate_size;
    struct pass p = { .f = f,
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
                     &p);
    if (f->hooks.routed) f->hooks.routed(f->hooks.ctx, layer, tokens, f->experts, f->weights);
    if (f->dispatcher.dispatch) {
        if (!dispatch(&p)) return;
    } else {
        group_choices(&p);
        gather_all(&p);
        compute_mlps(&p, MOE_ROLE_SHARED_GATE);
    }
    p.blocks = block_count(c->hidden_size, COLS);
    moe_forward_each(f, tokens * p.blocks, 16 * chosen * c->hidden_size, add_weighted_sum, &p);
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
    struct pass p = { .f = f,
                      .y = y,
                      .common = &y->dense,
                      .common_gate = f->gate,
                      .common_up = f->up,
                      .layer = layer,
                      .tokens = tokens,
                      .h = h };
    compute_mlps(&p, MOE_ROLE_GATE);
    moe_forward_add(f, h, f->y, tokens);
}
