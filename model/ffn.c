/* The feed-forward half of a layer: dense, or routed experts plus the shared one.
 *
 *   ffn(x) = down(silu(gate x) * (up x));  moe(x) = sum_j w_j ffn_{e_j}(x) + ffn_shared(x), j in top-k order
 *
 * Tokens are gathered by expert, so that each expert's weights are read once for a batch. */
#include "model/forward-internal.h"

#include <string.h>

enum { ROWS = 256, COLS = 1024 }; /* of a matrix, and of a sum over experts, that a work item takes */

struct activation { struct moe_forward *f; int64_t inter; };

static void activate(void *ctx, int64_t t, int worker)
{
    struct activation *a = ctx;
    float *g = a->f->gate + t * a->inter;
    (void)worker;
    a->f->k->swiglu(g, a->f->up + t * a->inter, a->inter, g);
}

/* A dense or shared MLP over all tokens of f->x, into f->y. */
static void mlp(struct moe_forward *f, int layer, enum moe_role gate, const struct moe_expert *e, int64_t n)
{
    struct activation a = { f, e->gate.rows };
    moe_forward_saw(f, layer, gate, f->x, e->gate.cols, n);
    moe_forward_matmul(f, &e->gate, f->x, e->gate.cols, n, f->gate);
    moe_forward_matmul(f, &e->up, f->x, e->up.cols, n, f->up);
    moe_forward_each(f, n, 16 * n * a.inter, activate, &a);
    moe_forward_saw(f, layer, (enum moe_role)(gate + 2), f->gate, a.inter, n);
    moe_forward_matmul(f, &e->down, f->gate, a.inter, n, f->y);
}

/* ---- routed experts ---- */

struct routed { struct moe_forward *f; const struct moe_layer *y; int layer; int64_t tokens, blocks, active; float *h; };

static void choose(void *ctx, int64_t t, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t n = f->m->config.n_routed_experts, k = f->m->config.num_experts_per_tok;
    moe_route(&f->m->route, f->logits + t * n, r->y->router_bias, f->choose + worker * 2 * n, f->experts + t * k, f->weights + t * k);
}

/* Count, then place: a stable sort of the choices by expert; and the list of experts that were chosen at all. */
static void group(struct routed *r)
{
    struct moe_forward *f = r->f;
    int64_t n = f->m->config.n_routed_experts, k = f->m->config.num_experts_per_tok;
    memset(f->first, 0, (size_t)(n + 1) * sizeof *f->first);
    for (int64_t i = 0; i < r->tokens * k; i++) f->first[f->experts[i] + 1]++;
    for (int64_t e = 0; e < n; e++) f->first[e + 1] += f->first[e];
    for (int64_t i = 0; i < r->tokens * k; i++) {
        f->slot[i] = (int32_t)f->first[f->experts[i]]++;
        f->row[f->slot[i]] = (int32_t)(i / k);
    }
    for (int64_t e = n; e > 0; e--) f->first[e] = f->first[e - 1];
    f->first[0] = 0;
    r->active = 0;
    for (int64_t e = 0; e < n; e++)
        if (f->first[e + 1] > f->first[e]) f->active[r->active++] = (int32_t)e;
}

static void gather(void *ctx, int64_t i, int worker)
{
    struct routed *r = ctx;
    int64_t hidden = r->f->m->config.hidden_size;
    (void)worker;
    memcpy(r->f->gathered + i * hidden, r->f->x + r->f->row[i] * hidden, (size_t)hidden * sizeof(float));
}

static void show_expert(void *ctx, int64_t i, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t e = f->active[i], at = f->first[e], n = f->first[e + 1] - at, hidden = f->m->config.hidden_size, inter = r->y->experts[e].gate.rows;
    (void)worker;
    f->hooks.input(f->hooks.ctx, r->layer, MOE_ROLE_EXPERT_GATE, (int)e, f->gathered + at * hidden, hidden, n);
    f->hooks.input(f->hooks.ctx, r->layer, MOE_ROLE_EXPERT_DOWN, (int)e, f->gate + at * inter, inter, n);
}

/* Rows [item's block] of gate and up of one expert, and their product, for all its tokens. */
static void gate_up(void *ctx, int64_t item, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t e = f->active[item / r->blocks], r0 = item % r->blocks * ROWS, at = f->first[e], n = f->first[e + 1] - at;
    const struct moe_expert *x = &r->y->experts[e];
    int64_t inter = x->gate.rows, r1 = r0 + ROWS < inter ? r0 + ROWS : inter, hidden = x->gate.cols;
    (void)worker;
    f->k->matmul(&x->gate, r0, r1, f->gathered + at * hidden, hidden, n, f->gate + at * inter + r0, inter);
    f->k->matmul(&x->up, r0, r1, f->gathered + at * hidden, hidden, n, f->up + at * inter + r0, inter);
    for (int64_t t = at; t < at + n; t++)
        f->k->swiglu(f->gate + t * inter + r0, f->up + t * inter + r0, r1 - r0, f->gate + t * inter + r0);
}

static void down(void *ctx, int64_t item, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t e = f->active[item / r->blocks], r0 = item % r->blocks * ROWS, at = f->first[e], n = f->first[e + 1] - at;
    const struct moe_weight *w = &r->y->experts[e].down;
    int64_t r1 = r0 + ROWS < w->rows ? r0 + ROWS : w->rows;
    (void)worker;
    f->k->matmul(w, r0, r1, f->gate + at * w->cols, w->cols, n, f->gathered + at * w->rows + r0, w->rows);
}

/* h += (sum of weight * output in top-k order) + shared, for a block of columns: each product and each sum rounded. */
static void combine(void *ctx, int64_t item, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t hidden = f->m->config.hidden_size, k = f->m->config.num_experts_per_tok, t = item / r->blocks, c0 = item % r->blocks * COLS;
    int64_t n = hidden - c0 < COLS ? hidden - c0 : COLS;
    float sum[COLS] = { 0 }, *h = r->h + t * hidden + c0;
    (void)worker;
    for (int64_t j = 0; j < k; j++) {
        const float *y = f->gathered + f->slot[t * k + j] * hidden + c0, w = f->weights[t * k + j];
        for (int64_t i = 0; i < n; i++) sum[i] += w * y[i];
    }
    const float *shared = r->y->shared.gate.data ? f->y + t * hidden + c0 : NULL;
    for (int64_t i = 0; i < n && shared; i++) sum[i] += shared[i];
    for (int64_t i = 0; i < n; i++) h[i] += sum[i];
}

static int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

static void experts(struct moe_forward *f, int layer, int64_t tokens, float *h)
{
    const struct moe_config *c = &f->m->config;
    struct routed r = { .f = f, .y = &f->m->layers[layer], .layer = layer, .tokens = tokens, .h = h };
    int64_t chosen = tokens * c->num_experts_per_tok, work = chosen * c->moe_intermediate_size * c->hidden_size;
    moe_forward_matmul(f, &r.y->router, f->x, c->hidden_size, tokens, f->logits);
    moe_forward_each(f, tokens, tokens * c->n_routed_experts * (64 + c->num_experts_per_tok), choose, &r);
    if (f->hooks.routed) f->hooks.routed(f->hooks.ctx, layer, tokens, f->experts, f->weights);
    if (r.y->shared.gate.data) mlp(f, layer, MOE_ROLE_SHARED_GATE, &r.y->shared, tokens);
    group(&r);
    moe_forward_each(f, chosen, chosen * c->hidden_size, gather, &r);
    r.blocks = blocks(c->moe_intermediate_size, ROWS);
    moe_forward_each(f, r.active * r.blocks, 2 * work, gate_up, &r);
    if (f->hooks.input) moe_pool_run(f->pool, r.active, show_expert, &r); /* before down writes over what was gathered */
    r.blocks = blocks(c->hidden_size, ROWS);
    moe_forward_each(f, r.active * r.blocks, work, down, &r);
    r.blocks = blocks(c->hidden_size, COLS);
    moe_forward_each(f, tokens * r.blocks, 16 * chosen * c->hidden_size, combine, &r);
}

void moe_forward_ffn(struct moe_forward *f, int layer, int64_t tokens, float *h)
{
    const struct moe_layer *y = &f->m->layers[layer];
    int64_t hidden = f->m->config.hidden_size;
    moe_forward_norm(f, h, hidden, y->post_norm, f->m->eps, hidden, tokens, f->x, hidden);
    if (y->moe) {
        experts(f, layer, tokens, h);
        return;
    }
    mlp(f, layer, MOE_ROLE_GATE, &y->dense, tokens);
    moe_forward_add(f, h, f->y, tokens);
}
