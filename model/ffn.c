/* The feed-forward half of a layer: dense, or routed experts plus the shared one.
 *
 *   ffn(x) = down(silu(gate x) * (up x));  moe(x) = sum_j w_j ffn_{e_j}(x) + ffn_shared(x), j in top-k order
 *
 * Tokens are gathered by expert, so that each expert's weights are read once for a batch. */
#include "model/forward-internal.h"

#include <math.h>
#include <string.h>

enum { ROWS = 256 }; /* of a matrix that a work item takes */

static void mlp(struct moe_forward *f, const struct moe_expert *e, const float *x, int64_t n, float *out)
{
    int64_t inter = e->gate.rows;
    moe_forward_matmul(f, &e->gate, x, e->gate.cols, n, f->gate);
    moe_forward_matmul(f, &e->up, x, e->up.cols, n, f->up);
    f->k->swiglu(f->gate, f->up, n * inter, f->gate);
    moe_forward_matmul(f, &e->down, f->gate, inter, n, out);
}

/* ---- routed experts ---- */

struct routed { struct moe_forward *f; const struct moe_layer *y; int64_t tokens; int64_t blocks; float *h; };

static void choose(void *ctx, int64_t t, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t n = f->m->config.n_routed_experts, k = f->m->config.num_experts_per_tok;
    moe_route(&f->m->route, f->logits + t * n, r->y->router_bias, f->choose + worker * 2 * n, f->experts + t * k, f->weights + t * k);
}

/* Count, then place: a stable sort of the choices by expert. */
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
}

static void gather(void *ctx, int64_t i, int worker)
{
    struct routed *r = ctx;
    int64_t hidden = r->f->m->config.hidden_size;
    (void)worker;
    memcpy(r->f->gathered + i * hidden, r->f->x + r->f->row[i] * hidden, (size_t)hidden * sizeof(float));
}

/* Rows [item's block] of gate and up of one expert, and their product, for all its tokens. */
static void gate_up(void *ctx, int64_t item, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t e = item / r->blocks, r0 = item % r->blocks * ROWS, at = f->first[e], n = f->first[e + 1] - at;
    const struct moe_expert *x = &r->y->experts[e];
    int64_t inter = x->gate.rows, r1 = r0 + ROWS < inter ? r0 + ROWS : inter, hidden = x->gate.cols;
    (void)worker;
    if (!n) return;
    f->k->matmul(&x->gate, r0, r1, f->gathered + at * hidden, hidden, n, f->gate + at * inter + r0, inter);
    f->k->matmul(&x->up, r0, r1, f->gathered + at * hidden, hidden, n, f->up + at * inter + r0, inter);
    for (int64_t t = at; t < at + n; t++)
        f->k->swiglu(f->gate + t * inter + r0, f->up + t * inter + r0, r1 - r0, f->gate + t * inter + r0);
}

static void down(void *ctx, int64_t item, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t e = item / r->blocks, r0 = item % r->blocks * ROWS, at = f->first[e], n = f->first[e + 1] - at;
    const struct moe_weight *w = &r->y->experts[e].down;
    int64_t r1 = r0 + ROWS < w->rows ? r0 + ROWS : w->rows;
    (void)worker;
    if (n) f->k->matmul(w, r0, r1, f->gate + at * w->cols, w->cols, n, f->gathered + at * w->rows + r0, w->rows);
}

/* h += sum in top-k order + shared. */
static void combine(void *ctx, int64_t t, int worker)
{
    struct routed *r = ctx;
    struct moe_forward *f = r->f;
    int64_t hidden = f->m->config.hidden_size, k = f->m->config.num_experts_per_tok;
    float *h = r->h + t * hidden;
    const float *shared = r->y->shared.gate.data ? f->y + t * hidden : NULL;
    (void)worker;
    for (int64_t i = 0; i < hidden; i++) {
        float sum = 0;
        for (int64_t j = 0; j < k; j++) sum = fmaf(f->weights[t * k + j], f->gathered[f->slot[t * k + j] * hidden + i], sum);
        h[i] += shared ? sum + shared[i] : sum;
    }
}

static int64_t blocks(int64_t rows) { return (rows + ROWS - 1) / ROWS; }

static void experts(struct moe_forward *f, int layer, int64_t tokens, float *h)
{
    const struct moe_config *c = &f->m->config;
    struct routed r = { f, &f->m->layers[layer], tokens, 0, h };
    moe_forward_matmul(f, &r.y->router, f->x, c->hidden_size, tokens, f->logits);
    moe_pool_run(f->pool, tokens, choose, &r);
    if (f->hooks.routed) f->hooks.routed(f->hooks.ctx, layer, tokens, f->experts, f->weights);
    if (r.y->shared.gate.data) mlp(f, &r.y->shared, f->x, tokens, f->y);
    group(&r);
    moe_pool_run(f->pool, tokens * c->num_experts_per_tok, gather, &r);
    r.blocks = blocks(c->moe_intermediate_size);
    moe_pool_run(f->pool, c->n_routed_experts * r.blocks, gate_up, &r);
    r.blocks = blocks(c->hidden_size);
    moe_pool_run(f->pool, c->n_routed_experts * r.blocks, down, &r);
    moe_pool_run(f->pool, tokens, combine, &r);
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
    mlp(f, &y->dense, f->x, tokens, f->y);
    for (int64_t i = 0; i < tokens * hidden; i++) h[i] += f->y[i];
}
