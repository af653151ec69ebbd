/* SPDX-License-Identifier: Apache-2.0 */
/* The feed-forward half of a layer: dense, or routed experts plus the shared one.
 *
 *   ffn(x) = down(silu(gate x) * (up x));  moe(x) = sum_j w_j ffn_{e_j}(x) + ffn_shared(x), j in top-k order
 *
 * Rows are gathered by expert, so that each expert's weights are read once for a batch.  Under NVFP4
 * activations the gathered rows and the inputs of down are quantized in place, after the observers have seen
 * them. */
#include "model/group.h"
#include "model/ops/cpu/cpu-internal.h"

#include <string.h>

/* A work item computes this many rows of a product, or this many columns of the sum over experts. */
enum { ROWS = 128, COLS = 1024 };

/* One pass of tokens through the MLPs of a layer.  `common` is the MLP that every token passes, the shared
 * expert or a dense layer's; NULL: there is none.  In each parallel loop the work items of `common` come
 * first, those of the chosen experts after them.  A choice is a pair of a token and an expert that it chose.
 * `list` holds the choices of moe_cpu_serve; it is NULL when the choices are the router's in `experts`, of
 * which choice i is of token i / k. */
struct pass {
    struct moe_host *d;
    const struct moe_layer *y;        /* the layer's weights */
    int layer;
    int64_t tokens;
    float *x;                         /* [T, H]: the input of `common` and of the router's choices */
    const struct moe_expert *common;
    float *common_gate, *common_up;   /* [T, inter of common] */
    float *common_out;                /* [T, H] */
    int64_t chosen;                   /* the number of choices */
    const struct moe_choice *list;
    const int32_t *experts;           /* [chosen] */
    int32_t *slot;                    /* [chosen]: the index of a choice's row among the gathered rows */
    float *gathered;                  /* [chosen, H]: the inputs of the experts, then their outputs */
    int64_t active;                   /* the number of experts that some token chose */
    int64_t common_blocks, blocks;    /* work items of `common`, and of each expert, in the present loop */
};

static int32_t expert_of(const struct pass *p, int64_t i)
{
    return p->list ? p->list[i].expert : p->experts[i];
}

static const float *input_of(const struct pass *p, int64_t i)
{
    const struct moe_config *c = moe_cpu_config(p->d);
    return p->list ? p->list[i].x : p->x + i / c->num_experts_per_tok * c->hidden_size;
}

/* Groups the choices by expert, and lists the experts that were chosen at all. */
static void group_choices(struct pass *p)
{
    struct moe_host *d = p->d;
    int64_t n = d->device.model->config.n_routed_experts;

    moe_group_count(d->first, n, p->list ? &p->list->expert : p->experts,
                    p->list ? sizeof *p->list : sizeof *p->experts, p->chosen);
    for (int64_t i = 0; i < p->chosen; i++) {
        p->slot[i] = (int32_t)moe_group_place(d->first, expert_of(p, i));
        d->from[p->slot[i]] = input_of(p, i);
    }
    p->active = 0;
    for (int64_t e = 0; e < n; e++)
        if (d->first[e + 1] > d->first[e]) d->active[p->active++] = (int32_t)e;
}

static void gather(void *ctx, int64_t i, int worker)
{
    struct pass *p = ctx;
    int64_t hidden = p->d->device.model->config.hidden_size;
    (void)worker;
    memcpy(p->gathered + i * hidden, p->d->from[i], (size_t)hidden * sizeof(float));
}

/* Copies the inputs of all experts into p->gathered.  Where each expert has at most one row, they are read
 * where they are instead, unless they are to be quantized. */
static void gather_all(struct pass *p)
{
    struct moe_host *d = p->d;
    bool one_row_each = p->chosen == 1 || (!p->list && p->tokens == 1);
    if (!one_row_each || d->activations != MOE_ACTIVATIONS_FLOAT)
        moe_cpu_each(d, p->chosen, p->chosen * d->device.model->config.hidden_size, gather, p);
}

/* The inputs of an expert whose n gathered rows begin at `at`.  A single row is read where it was before
 * gathering, unless it is to be quantized. */
static const float *rows_of(const struct pass *p, int64_t at, int64_t n)
{
    return n == 1 && p->d->activations == MOE_ACTIVATIONS_FLOAT
             ? p->d->from[at]
             : p->gathered + at * moe_cpu_config(p->d)->hidden_size;
}

/* Shows the input of gate and up of one expert to the hook; show_down does the same for down. */
static void show_gate(void *ctx, int64_t i, int worker)
{
    struct pass *p = ctx;
    struct moe_host *d = p->d;
    int64_t e = d->active[i], at = d->first[e], n = d->first[e + 1] - at;
    (void)worker;
    d->hooks.input(d->hooks.ctx, p->layer, MOE_ROLE_EXPERT_GATE, (int)e, rows_of(p, at, n),
                   d->device.model->config.hidden_size, n);
}

static void show_down(void *ctx, int64_t i, int worker)
{
    struct pass *p = ctx;
    struct moe_host *d = p->d;
    int64_t e = d->active[i];
    int64_t at = d->first[e];
    int64_t n = d->first[e + 1] - at;
    int64_t inter = p->y->experts[e].gate.rows;
    (void)worker;
    d->hooks.input(d->hooks.ctx, p->layer, MOE_ROLE_EXPERT_DOWN, (int)e, d->gate + at * inter, inter, n);
}

/* The input scale that gate and up of an MLP share; 0: their input is not quantized. */
static float gate_up_scale(const struct moe_host *d, const struct moe_expert *e)
{
    float gate = moe_cpu_quantizes(d, &e->gate) ? moe_input_scale(&e->gate) : 0;
    float up = moe_cpu_quantizes(d, &e->up) ? moe_input_scale(&e->up) : 0;
    return gate > up ? gate : up;
}

/* Quantizes the input of gate and up of one expert; quantize_down does the same for down. */
static void quantize_gate(void *ctx, int64_t i, int worker)
{
    struct pass *p = ctx;
    struct moe_host *d = p->d;
    int64_t e = d->active[i], at = d->first[e], hidden = d->device.model->config.hidden_size;
    float scale = gate_up_scale(d, &p->y->experts[e]);
    float *x = p->gathered + at * hidden;
    (void)worker;
    if (scale > 0) d->k->nvfp4_activations(x, (d->first[e + 1] - at) * hidden, scale, x);
}

static void quantize_down(void *ctx, int64_t i, int worker)
{
    struct pass *p = ctx;
    struct moe_host *d = p->d;
    int64_t e = d->active[i], at = d->first[e];
    const struct moe_weight *w = &p->y->experts[e].down;
    float *x = d->gate + at * w->cols;
    (void)worker;
    if (moe_cpu_quantizes(d, w))
        d->k->nvfp4_activations(x, (d->first[e + 1] - at) * w->cols, moe_input_scale(w), x);
}

/* Computes rows [block * ROWS, (block + 1) * ROWS) of silu(gate x) * (up x), for n tokens, into `gate`. */
static void compute_gate_up_rows(const struct moe_host *d, const struct moe_expert *e, int64_t block,
                                 const float *in, int64_t n, float *gate, float *up)
{
    int64_t inter = e->gate.rows;
    int64_t hidden = e->gate.cols;
    int64_t r0 = block * ROWS;
    int64_t r1 = r0 + ROWS < inter ? r0 + ROWS : inter;
    d->k->matmul(&e->gate, r0, r1, in, hidden, n, gate + r0, inter);
    d->k->matmul(&e->up, r0, r1, in, hidden, n, up + r0, inter);
    for (int64_t t = 0; t < n; t++)
        d->k->swiglu(gate + t * inter + r0, up + t * inter + r0, r1 - r0, gate + t * inter + r0);
}

static void compute_gate_up(void *ctx, int64_t item, int worker)
{
    struct pass *p = ctx;
    struct moe_host *d = p->d;
    (void)worker;
    if (item < p->common_blocks) {
        compute_gate_up_rows(d, p->common, item, p->x, p->tokens, p->common_gate, p->common_up);
        return;
    }
    item -= p->common_blocks;
    int64_t e = d->active[item / p->blocks], at = d->first[e], n = d->first[e + 1] - at;
    const struct moe_expert *x = &p->y->experts[e];
    compute_gate_up_rows(d, x, item % p->blocks, rows_of(p, at, n), n, d->gate + at * x->gate.rows,
                         d->up + at * x->gate.rows);
}

static void compute_down_rows(const struct moe_host *d, const struct moe_weight *w, int64_t block,
                              const float *in, int64_t n, float *out)
{
    int64_t r0 = block * ROWS, r1 = r0 + ROWS < w->rows ? r0 + ROWS : w->rows;
    d->k->matmul(w, r0, r1, in, w->cols, n, out + r0, w->rows);
}

static void compute_down(void *ctx, int64_t item, int worker)
{
    struct pass *p = ctx;
    struct moe_host *d = p->d;
    (void)worker;
    if (item < p->common_blocks) {
        compute_down_rows(d, &p->common->down, item, p->common_gate, p->tokens, p->common_out);
        return;
    }
    item -= p->common_blocks;
    int64_t e = d->active[item / p->blocks], at = d->first[e], n = d->first[e + 1] - at;
    const struct moe_weight *w = &p->y->experts[e].down;
    compute_down_rows(d, w, item % p->blocks, d->gate + at * w->cols, n, p->gathered + at * w->rows);
}

static int64_t block_count(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* Computes `common` and the chosen experts, these from and to the gathered rows.  There are two parallel
 * loops, gate and up, then down; each covers all these MLPs.  `gate` is the role of the gate of `common`. */
static void compute_mlps(struct pass *p, enum moe_role gate)
{
    struct moe_host *d = p->d;
    const struct moe_config *c = moe_cpu_config(d);
    int64_t hidden = c->hidden_size, inter = p->common ? p->common->gate.rows : 0;
    int64_t work = hidden * (p->tokens * inter + p->chosen * c->moe_intermediate_size);
    bool quantize = d->activations != MOE_ACTIVATIONS_FLOAT;
    float scale = quantize && p->common ? gate_up_scale(d, p->common) : 0;

    if (p->common) moe_cpu_observe(d, p->layer, gate, p->x, hidden, p->tokens);
    if (d->hooks.input) moe_pool_run(d->pool, p->active, show_gate, p);
    if (scale > 0) moe_cpu_quantize(d, p->x, hidden, scale, hidden, p->tokens, p->x, hidden);
    if (quantize) moe_cpu_each(d, p->active, 8 * p->chosen * hidden, quantize_gate, p);
    p->common_blocks = block_count(inter, ROWS);
    p->blocks = block_count(c->moe_intermediate_size, ROWS);
    moe_cpu_each(d, p->common_blocks + p->active * p->blocks, 2 * work, compute_gate_up, p);
    if (p->common)
        moe_cpu_observe(d, p->layer, (enum moe_role)(gate + 2), p->common_gate, inter, p->tokens);
    if (d->hooks.input) moe_pool_run(d->pool, p->active, show_down, p);
    if (p->common && moe_cpu_quantizes(d, &p->common->down))
        moe_cpu_quantize(d, p->common_gate, inter, moe_input_scale(&p->common->down), inter, p->tokens,
                             p->common_gate, inter);
    if (quantize) moe_cpu_each(d, p->active, 8 * p->chosen * c->moe_intermediate_size, quantize_down, p);
    p->common_blocks = p->common ? block_count(hidden, ROWS) : 0;
    p->blocks = block_count(hidden, ROWS);
    moe_cpu_each(d, p->common_blocks + p->active * p->blocks, work, compute_down, p);
}

/* ---- operations ---- */

struct routing { struct moe_host *d; const float *bias; int32_t *experts; float *weights; };

/* Chooses the experts of token t and their weights from its router logits. */
static void choose_experts(void *ctx, int64_t t, int worker)
{
    struct routing *r = ctx;
    const struct moe_model *m = r->d->device.model;
    int64_t n = m->config.n_routed_experts, k = m->config.num_experts_per_tok;
    moe_route(&m->route, r->d->router + t * n, r->bias, r->d->choose + worker * 2 * n, r->experts + t * k,
              r->weights + t * k);
}

void moe_cpu_route(struct moe_device *device, int layer, struct moe_addr x, const struct moe_choices *c)
{
    struct moe_host *d = moe_cpu_of(device);
    const struct moe_config *g = moe_cpu_config(d);
    const struct moe_layer *y = &device->model->layers[layer];
    struct routing r = { d, y->router_bias, moe_cpu_at(c->experts), moe_cpu_at(c->weights) };
    int64_t n = d->batch.n;
    moe_cpu_matmul(d, &y->router, moe_cpu_at(x), n, d->router);
    moe_cpu_each(d, n, n * g->n_routed_experts * (64 + g->num_experts_per_tok), choose_experts, &r);
    if (d->hooks.routed) d->hooks.routed(d->hooks.ctx, layer, n, r.experts, r.weights);
}

void moe_cpu_mlps(struct moe_device *device, int layer, struct moe_addr x, const struct moe_choices *c,
                  struct moe_addr y)
{
    struct moe_host *d = moe_cpu_of(device);
    const struct moe_config *g = moe_cpu_config(d);
    const struct moe_layer *w = &device->model->layers[layer];
    const struct moe_expert *common = w->moe ? &w->shared : &w->dense;
    struct pass p = { .d = d,
                      .y = w,
                      .layer = layer,
                      .tokens = d->batch.n,
                      .x = moe_cpu_at(x),
                      .common = common->gate.data ? common : NULL,
                      .common_out = moe_cpu_at(y) };
    if (c) {
        p.chosen = p.tokens * g->num_experts_per_tok;
        p.experts = moe_cpu_at(c->experts);
        p.slot = moe_cpu_at(c->slot);
        p.gathered = moe_cpu_at(c->rows);
        group_choices(&p);
        gather_all(&p);
    }
    /* in d->gate and d->up the rows of the common MLP lie behind those of the routed experts */
    p.common_gate = d->gate + p.chosen * g->moe_intermediate_size;
    p.common_up = d->up + p.chosen * g->moe_intermediate_size;
    compute_mlps(&p, w->moe ? MOE_ROLE_SHARED_GATE : MOE_ROLE_GATE);
}

/* Copies the output of choice i to where the caller of moe_cpu_serve wants it. */
static void scatter(void *ctx, int64_t i, int worker)
{
    struct pass *p = ctx;
    int64_t hidden = moe_cpu_config(p->d)->hidden_size;
    (void)worker;
    memcpy(p->list[i].y, p->gathered + p->slot[i] * hidden, (size_t)hidden * sizeof(float));
}

void moe_cpu_serve(struct moe_device *device, int layer, const struct moe_choice *list, int64_t n)
{
    struct moe_host *d = moe_cpu_of(device);
    const struct moe_config *g = moe_cpu_config(d);
    struct pass p = { .d = d,
                      .y = &device->model->layers[layer],
                      .layer = layer,
                      .list = list,
                      .chosen = n,
                      .slot = d->slot,
                      .gathered = d->served };
    MOE_CHECK(n <= device->max_tokens * g->num_experts_per_tok && p.y->moe && d->o.serves);
    group_choices(&p);
    gather_all(&p);
    compute_mlps(&p, MOE_ROLE_SHARED_GATE);
    moe_cpu_each(d, n, n * g->hidden_size, scatter, &p);
}

/* ---- combine ---- */

struct sum {
    const float *weights, *rows; const int32_t *slot; /* NULL: there are no routed experts */
    const float *y;                                   /* NULL: there is no common MLP */
    float *h;
    int64_t hidden, k, blocks;
};

/* Adds to a block of columns of one token's state.  Each product and each sum is rounded. */
static void add_block(void *ctx, int64_t item, int worker)
{
    struct sum *s = ctx;
    int64_t t = item / s->blocks;
    int64_t c0 = item % s->blocks * COLS;
    int64_t n = s->hidden - c0 < COLS ? s->hidden - c0 : COLS;
    float sum[COLS] = { 0 }, *h = s->h + t * s->hidden + c0;
    const float *y = s->y ? s->y + t * s->hidden + c0 : NULL;

    (void)worker;
    if (!s->slot) {
        for (int64_t i = 0; i < n; i++) h[i] += y[i];
        return;
    }
    for (int64_t j = t * s->k; j < (t + 1) * s->k; j++) {
        const float *row = s->rows + s->slot[j] * s->hidden + c0, w = s->weights[j];
        for (int64_t i = 0; i < n; i++) sum[i] += w * row[i];
    }
    for (int64_t i = 0; i < n && y; i++) sum[i] += y[i];
    for (int64_t i = 0; i < n; i++) h[i] += sum[i];
}

void moe_cpu_combine(struct moe_device *device, const struct moe_choices *c, struct moe_addr y,
                     struct moe_addr h)
{
    struct moe_host *d = moe_cpu_of(device);
    const struct moe_config *g = moe_cpu_config(d);
    struct sum s = { .y = moe_cpu_at(y),
                     .h = moe_cpu_at(h),
                     .hidden = g->hidden_size,
                     .k = g->num_experts_per_tok,
                     .blocks = block_count(g->hidden_size, COLS) };
    int64_t n = d->batch.n;
    MOE_CHECK(c || y.at);
    if (c) {
        s.weights = moe_cpu_at(c->weights);
        s.rows = moe_cpu_at(c->rows);
        s.slot = moe_cpu_at(c->slot);
    }
    moe_cpu_each(d, n * s.blocks, (c ? 16 * s.k : 8) * n * s.hidden, add_block, &s);
}
