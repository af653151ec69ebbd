/* SPDX-License-Identifier: Apache-2.0 */
/* Compares vector-Jacobian products with central differences of the equations written out in double
 * (plain-forward.h, which test-plain compares with the forward pass), on shapes and stored types of every
 * kind, and a whole layer with the forward pass itself.  Checks that neither batches nor threads nor
 * max_tokens change a bit. */
#undef NDEBUG
#include "quantize/passes/backward-internal.h"
#include "tests/gen/generated.h"
#include "tests/unit/pass.h"
#include "tests/unit/plain-forward.h"

#include <assert.h>
#include <stdio.h>

static long checks;
static struct moe_err err;
static double worst, worst_layer;
#define OK(cond) (assert(cond), checks++)
#define DONE(call) \
    ((call) == MOE_OK ? (void)checks++ \
                      : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, err.msg), abort()))

/* ---- random numbers ---- */

static struct moe_rng rng;

static float *normals(int64_t n, double scale)
{
    float *x = room(n, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(scale * sqrt(-2 * log(1 - moe_rng_next(&rng))) *
                       cos(2 * acos(-1) * moe_rng_next(&rng)));
    return x;
}

/* ---- one function of rows, and what is wanted of it ---- */

struct shape { int64_t n, n_sequences, lengths[8]; }; /* n tokens, in sequences */

/* Whatever the functions below need to know. */
struct at {
    const struct moe_model *m;
    int layer;
    int64_t n;                        /* rows of the whole input */
    const struct moe_expert *mlp;
    const float *weight;              /* [n] */
    const int32_t *experts;           /* [n, k] */
    const int32_t *labels;            /* [n] */
    const struct shape *s;
};

typedef double *function(const struct at *a, const double *x); /* [n, out], malloc'd */

static double inner(const float *v, const double *y, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)v[i] * y[i];
    return s;
}

/* g [n, in] must be J^T v, v [n, out]: <v, J u> by central differences against <g, u> for random u.  The
 * differences are of order 1e-9 off (double, a step of 1e-5 of x), g as float32 rounds: some 1e-6 of its
 * length.  u has independent elements, so <g, u> is about |g|. */
static void check(const char *what, function *f, const struct at *a, const float *x, int64_t in,
                  const float *v, int64_t out, const float *g)
{
    int64_t n = a->n * in;
    double *at = room(n, sizeof *at), length = 0, size = 0;
    for (int64_t i = 0; i < n; i++)
        length += (double)g[i] * (double)g[i], size += (double)x[i] * (double)x[i];
    length = sqrt(length);
    OK(isfinite(length) && length > 0);
    for (int round = 0; round < 3; round++) {
        double step = 1e-5 * sqrt(size / (double)n), difference = 0, product = 0;
        float *u = normals(n, 1);
        for (int side = -1; side <= 1; side += 2) {
            for (int64_t i = 0; i < n; i++) at[i] = (double)x[i] + side * step * (double)u[i];
            double *y = f(a, at);
            difference += side * inner(v, y, a->n * out) / (2 * step);
            free(y);
        }
        for (int64_t i = 0; i < n; i++) product += (double)g[i] * (double)u[i];
        double error = fabs(difference - product) / length;
        if (!(error < 2e-5))
            fprintf(stderr, "%s, layer %d: %.9g by differences, %.9g, |g| %.3g\n", what, a->layer, difference,
                    product, length);
        OK(error < 2e-5);
        worst = fmax(worst, error);
        free(u);
    }
    free(at);
}

/* What a call has added to dx, which was `before`; in place. */
static float *added(float *dx, const float *before, int64_t n)
{
    for (int64_t i = 0; i < n; i++) dx[i] -= before[i];
    return dx;
}

static float *copy(const float *x, int64_t n)
{
    float *y = room(n, sizeof *y);
    memcpy(y, x, (size_t)n * sizeof *y);
    return y;
}

/* ---- norm, MLP, router ---- */

static double *norm_of(const struct at *a, const double *x)
{
    int64_t H = a->m->config.hidden_size;
    return normed(x, H, a->m->layers[a->layer].input_norm, (double)a->m->eps, H, a->n);
}

static void check_norm(struct moe_backward *b, const struct at *a)
{
    int64_t H = a->m->config.hidden_size;
    float *x = normals(a->n * H, 0.7), *v = normals(a->n * H, 1), *dx = room(a->n * H, sizeof *dx);
    moe_backward_norm(b, x, a->m->layers[a->layer].input_norm, a->m->eps, H, H, a->n, v, dx);
    check("norm", norm_of, a, x, H, v, H, dx);
    free(x), free(v), free(dx);
}

static double *mlp_of(const struct at *a, const double *x)
{
    double *y = plain_mlp(a->mlp, x, a->n);
    for (int64_t i = 0; i < a->n * a->mlp->down.rows; i++)
        y[i] *= a->weight ? (double)a->weight[i / a->mlp->down.rows] : 1;
    return y;
}

static void check_mlp(struct moe_backward *b, struct at a, const struct moe_expert *e, bool weighted)
{
    int64_t H = a.m->config.hidden_size;
    float *x = normals(a.n * H, 1), *v = normals(a.n * H, 1), *dot = room(a.n, sizeof *dot),
          *weight = normals(a.n, 1);
    float *before = normals(a.n * H, 1e-6), *dx = copy(before, a.n * H);
    double *exact = room(a.n * H, sizeof *exact), off = 0, size = 0;
    const struct moe_weight w[3] = { e->gate, e->up, e->down };
    for (int64_t i = 0; i < a.n * H; i++) exact[i] = (double)x[i];
    a.mlp = e;
    double *y = mlp_of(&a, exact); /* of weight 1 */
    a.weight = weighted ? weight : NULL;
    moe_backward_mlp(b, w, x, a.n, v, a.weight, dx, dot);
    check("mlp", mlp_of, &a, x, H, v, H, added(dx, before, a.n * H));
    for (int64_t t = 0; t < a.n; t++) {
        double want = inner(v + t * H, y + t * H, H);
        off += (want - (double)dot[t]) * (want - (double)dot[t]), size += want * want;
    }
    OK(off < 1e-10 * size);
    free(x), free(v), free(dot), free(weight), free(before), free(dx), free(exact), free(y);
}

/* The weights of a constant choice. */
static double *router_of(const struct at *a, const double *x)
{
    const struct moe_config *c = &a->m->config;
    int64_t E = c->n_routed_experts, k = c->num_experts_per_tok;
    double *logits = times(&a->m->layers[a->layer].router, x, a->n), *y = room(a->n * k, sizeof *y);
    for (int64_t t = 0; t < a->n; t++) {
        double sum = 0;
        for (int64_t j = 0; j < k; j++)
            sum += y[t * k + j] = 1 / (1 + exp(-logits[t * E + a->experts[t * k + j]]));
        for (int64_t j = 0; j < k; j++)
            y[t * k + j] *= c->routed_scaling_factor / (c->norm_topk_prob ? sum : 1);
    }
    free(logits);
    return y;
}

static void check_router(struct moe_backward *b, struct at a)
{
    int64_t H = a.m->config.hidden_size, k = a.m->config.num_experts_per_tok,
            E = a.m->config.n_routed_experts;
    float *x = normals(a.n * H, 1), *v = normals(a.n * k, 1), *dx = room(a.n * H, sizeof *dx);
    int32_t *experts = room(a.n * k, sizeof *experts);
    /* k different experts for each token */
    for (int64_t i = 0; i < a.n * k; i++) experts[i] = (int32_t)((i / k * 5 + i % k) % E);
    a.experts = experts;
    moe_backward_router(b, a.layer, x, a.n, experts, v, dx);
    check("router", router_of, &a, x, H, v, k, dx);
    free(x), free(v), free(dx), free(experts);
}

/* ---- head ---- */

static double *logits_of(const struct moe_model *m, const double *x, int64_t n)
{
    struct plain p = { .m = m, .n = n, .h = room(n * m->config.hidden_size, sizeof *p.h) };
    memcpy(p.h, x, (size_t)(n * m->config.hidden_size) * sizeof *x);
    double *y = plain_logits(&p);
    plain_end(&p);
    return y;
}

/* -log p of each row's label. */
static double *head_of(const struct at *a, const double *x)
{
    int64_t V = a->m->config.vocab_size;
    double *logits = logits_of(a->m, x, a->n), *y = room(a->n, sizeof *y);
    for (int64_t t = 0; t < a->n; t++) {
        double sum = 0;
        for (int64_t i = 0; i < V; i++) sum += exp(logits[t * V + i]);
        y[t] = log(sum) - logits[t * V + a->labels[t]];
    }
    free(logits);
    return y;
}

/* The labels are where the row's own number of the stream falls in the cumulative distribution. */
static void check_labels(const struct at *a, const float *x, uint64_t seed, int64_t first)
{
    int64_t V = a->m->config.vocab_size, H = a->m->config.hidden_size;
    double *exact = room(a->n * H, sizeof *exact);
    struct moe_rng r = { seed };
    for (int64_t i = 0; i < a->n * H; i++) exact[i] = (double)x[i];
    for (int64_t i = 0; i < first; i++) moe_rng_next(&r);
    double *logits = logits_of(a->m, exact, a->n);
    for (int64_t t = 0; t < a->n; t++) {
        double sum = 0, before = 0, u = moe_rng_next(&r);
        OK(a->labels[t] >= 0 && a->labels[t] < V);
        for (int64_t i = 0; i < V; i++) sum += exp(logits[t * V + i]);
        for (int64_t i = 0; i < a->labels[t]; i++) before += exp(logits[t * V + i]) / sum;
        OK(before - 1e-5 <= u && u <= before + exp(logits[t * V + a->labels[t]]) / sum + 1e-5);
    }
    free(logits), free(exact);
}

static void check_head(struct moe_backward *b, struct at a)
{
    int64_t H = a.m->config.hidden_size;
    a.n = a.n < 40 ? a.n : 40;
    float *x = normals(a.n * H, 1), *dx = normals(a.n * H, 1), *v = room(a.n, sizeof *v);
    int32_t *labels = room(a.n, sizeof *labels);
    for (int64_t i = 0; i < a.n; i++) v[i] = 1;
    DONE(moe_backward_head(b, x, a.n, 1000, 99, dx, labels, &err));
    a.labels = labels;
    check("head", head_of, &a, x, H, v, 1, dx);
    check_labels(&a, x, 99, 1000);
    x[a.n * H - 3] = NAN;
    OK(moe_backward_head(b, x, a.n, 1000, 99, dx, NULL, &err) == MOE_NONFINITE);
    free(x), free(dx), free(v), free(labels);
}

/* ---- attention ---- */

static double *attention_of(const struct at *a, const double *x)
{
    int64_t H = a->m->config.hidden_size, t = 0;
    double *y = room(a->n * H, sizeof *y);
    for (int64_t i = 0; i < a->s->n_sequences; t += a->s->lengths[i++]) {
        struct plain p = { .m = a->m, .n = a->s->lengths[i], .h = room(a->s->lengths[i] * H, sizeof *p.h) };
        memcpy(p.h, x + t * H, (size_t)(p.n * H) * sizeof *x);
        plain_attention(&p, a->layer);
        memcpy(y + t * H, p.h, (size_t)(p.n * H) * sizeof *x);
        plain_end(&p);
    }
    return y;
}

/* Without the residual, which would hide an error of what is small beside it. */
static double *attention_alone(const struct at *a, const double *x)
{
    double *y = attention_of(a, x);
    for (int64_t i = 0; i < a->n * a->m->config.hidden_size; i++) y[i] -= x[i];
    return y;
}

static void check_attention(struct moe_backward *b, const struct at *a)
{
    int64_t H = a->m->config.hidden_size;
    float *x = normals(a->n * H, 1), *v = normals(a->n * H, 1), *dx = copy(v, a->n * H);
    moe_backward_attention(b, a->layer, x, a->s->lengths, a->s->n_sequences, dx);
    check("attention with its residual", attention_of, a, x, H, v, H, dx);
    check("attention alone", attention_alone, a, x, H, v, H, added(dx, v, a->n * H));
    free(x), free(v), free(dx);
}

/* ---- a whole layer, and the forward pass itself ---- */

struct pass {
    const struct moe_model *m;
    struct passing on;
    struct moe_forward *f;
    struct moe_latent cache[8];
    struct moe_segment segment[8];
    int32_t *experts;
    float *weights;
};

static void routed(void *ctx, int layer, int64_t tokens, const int32_t *experts, const float *weights)
{
    struct pass *p = ctx;
    size_t n = (size_t)(tokens * p->m->config.num_experts_per_tok);
    (void)layer;
    memcpy(p->experts, experts, n * sizeof *experts);
    memcpy(p->weights, weights, n * sizeof *weights);
}

static void pass_begin(struct pass *p, const struct moe_model *m, const struct shape *s)
{
    int64_t k = m->config.num_experts_per_tok;
    *p = (struct pass){ .m = m,
                        .experts = room(s->n * k, sizeof *p->experts),
                        .weights = room(s->n * k, sizeof *p->weights) };
    const struct moe_cpu_options o = { .max_tokens = s->n, .context = s->n, .mla = MOE_MLA_EXPANDED };
    passing_open(&p->on, m, &o, NULL);
    p->f = p->on.f;
    for (int64_t i = 0; i < s->n_sequences; i++) {
        DONE(moe_latent_open(&p->cache[i], p->on.d, m->config.num_hidden_layers,
                             moe_latent_pages(s->lengths[i]), &err));
        p->segment[i] = (struct moe_segment){ &p->cache[i], p->cache[i].every, 0, s->lengths[i] };
    }
    moe_forward_hooks(p->f, &(struct moe_hooks){ .ctx = p, .routed = routed });
}

static void pass_end(struct pass *p)
{
    for (int i = 0; i < 8; i++) moe_latent_release(&p->cache[i]);
    passing_close(&p->on);
    free(p->experts), free(p->weights);
}

static void pass_attention(struct pass *p, int layer, const struct shape *s, float *h)
{
    const struct moe_batch b = { NULL, s->n, p->segment, s->n_sequences };
    moe_forward_put(p->f, h, s->n);
    moe_forward_attention(p->f, layer, &b);
    DONE(moe_forward_get(p->f, h, s->n, &err));
}

/* What a caller does with the pieces: takes the gradient dh backward through `layer`, whose input is h. */
static void layer_back(struct moe_backward *b, struct pass *p, int layer, const struct shape *s,
                       const float *h, float *dh)
{
    const struct moe_config *c = &p->m->config;
    const struct moe_layer *y = &p->m->layers[layer];
    int64_t H = c->hidden_size, k = c->num_experts_per_tok, n = s->n;
    float *h1 = copy(h, n * H), *x = room(n * H, sizeof *x), *dx = room(n * H, sizeof *dx),
          *dot = room(n * k, sizeof *dot);
    pass_attention(p, layer, s, h1);
    moe_backward_recompute_norm(b, h1, y->post_norm, p->m->eps, H, H, n, x);
    const struct moe_expert *all = y->moe ? &y->shared : &y->dense;
    if (all->gate.data)
        moe_backward_mlp(b, (struct moe_weight[3]){ all->gate, all->up, all->down }, x, n, dh, NULL, dx,
                         NULL);
    for (int64_t i = 0; i < n * k && y->moe; i++) {
        const struct moe_expert *e = &y->experts[p->experts[i]];
        int64_t t = i / k * H;
        moe_backward_mlp(b, (struct moe_weight[3]){ e->gate, e->up, e->down }, x + t, 1, dh + t,
                         p->weights + i, dx + t, dot + i);
    }
    if (y->moe) moe_backward_router(b, layer, x, n, p->experts, dot, dx);
    moe_backward_norm(b, h1, y->post_norm, p->m->eps, H, H, n, dx, dh);
    moe_backward_attention(b, layer, h, s->lengths, s->n_sequences, dh);
    free(h1), free(x), free(dx), free(dot);
}

/* Differences of float32 results: with steps of 1/256 of h both rounding (some 1e-6 / step) and curvature
 * (step squared) stay near 1e-4 of a gradient.  Only tokens whose experts are the same on both sides are
 * checked. */
static void check_layer(struct moe_backward *b, const struct moe_model *m, int layer, const struct shape *s)
{
    int64_t H = m->config.hidden_size, k = m->config.num_experts_per_tok, N = s->n * H, kept = 0;
    float *h = normals(N, 1), *u = normals(N, 1), *v = normals(N, 1), *side[2];
    int32_t *chosen = room(s->n * k, sizeof *chosen);
    bool *same = room(s->n, sizeof *same);
    struct pass p;
    pass_begin(&p, m, s);
    side[0] = copy(h, N);
    DONE(passing_layer(p.f, layer, p.segment, s->n_sequences, side[0], &err));
    free(side[0]);
    memcpy(chosen, p.experts, (size_t)(s->n * k) * sizeof *chosen);
    float *weights = copy(p.weights, s->n * k);
    memset(same, 1, (size_t)s->n);
    for (int i = 0; i < 2; i++) {
        side[i] = copy(h, N);
        for (int64_t j = 0; j < N; j++) side[i][j] += (i ? 1.0f : -1.0f) / 256 * u[j];
        DONE(passing_layer(p.f, layer, p.segment, s->n_sequences, side[i], &err));
        for (int64_t t = 0; t < s->n && m->layers[layer].moe; t++)
            same[t] = same[t] && !memcmp(p.experts + t * k, chosen + t * k, (size_t)k * sizeof *chosen);
    }
    memcpy(p.experts, chosen, (size_t)(s->n * k) * sizeof *chosen);
    memcpy(p.weights, weights, (size_t)(s->n * k) * sizeof *weights);
    for (int64_t t = 0; t < s->n; t++) {
        kept += same[t];
        if (!same[t]) memset(v + t * H, 0, (size_t)H * sizeof *v);
    }
    OK(kept > s->n / 2);
    double difference = 0, product = 0, length = 0;
    for (int64_t j = 0; j < N; j++)
        difference += (double)v[j] * ((double)side[1][j] - (double)side[0][j]) * 128;
    layer_back(b, &p, layer, s, h, v);
    for (int64_t j = 0; j < N; j++)
        product += (double)v[j] * (double)u[j], length += (double)v[j] * (double)v[j];
    double error = fabs(difference - product) / sqrt(length);
    if (!(error < 2e-3))
        fprintf(stderr, "layer %d: %.9g by differences, %.9g, |g| %.3g\n", layer, difference, product,
                sqrt(length));
    OK(error < 2e-3);
    worst_layer = fmax(worst_layer, error);
    pass_end(&p);
    free(h), free(u), free(v), free(side[0]), free(side[1]), free(chosen), free(same), free(weights);
}

/* ---- gradients at the outputs of projections: dy^T x must be the gradient of the weight ---- */

struct saw {
    const struct moe_model *m;
    int layer;
    float *x[MOE_ROLE_COUNT], *dy[MOE_ROLE_COUNT];
    int64_t nx[MOE_ROLE_COUNT], ny[MOE_ROLE_COUNT];
};

static void keep(float **to, int64_t *have, int64_t width, const float *x, int64_t ld, int64_t n)
{
    *to = realloc(*to, (size_t)((*have + n) * width) * sizeof **to);
    assert(*to);
    for (int64_t t = 0; t < n; t++) memcpy(*to + (*have + t) * width, x + t * ld, (size_t)width * sizeof *x);
    *have += n;
}

static void saw_input(void *ctx, int layer, enum moe_role role, int expert, const float *x, int64_t ldx,
                      int64_t n)
{
    struct saw *s = ctx;
    int64_t rows, cols;
    (void)expert;
    if (moe_tensor_shape(&s->m->config, role, layer, &rows, &cols))
        keep(&s->x[role], &s->nx[role], cols, x, ldx, n);
}

static void saw_output(void *ctx, enum moe_role role, const float *dy, int64_t ldy, int64_t n)
{
    struct saw *s = ctx;
    int64_t rows, cols;
    OK(moe_tensor_shape(&s->m->config, role, s->layer, &rows, &cols));
    keep(&s->dy[role], &s->ny[role], rows, dy, ldy, n);
}

/* w moved a thousandth either way, in float32: v . f changes by sum dy (w+ - w-) x,
 * up to the step's square. */
static void check_weight(function *f, const struct at *a, const float *at, const float *v,
                         struct moe_weight *w, const float *dy, const float *x)
{
    struct moe_weight was = *w;
    int64_t cells = w->rows * w->cols, H = a->m->config.hidden_size;
    double *value = decoded(w), *exact = room(a->n * H, sizeof *exact), size = 0, difference = 0, product = 0,
           length = 0, moved = 0;
    float *side[2] = { normals(cells, 1), room(cells, sizeof *side[1]) };
    for (int64_t i = 0; i < cells; i++) size += value[i] * value[i];
    size = 1e-3 * sqrt(size / (double)cells);
    for (int64_t i = 0; i < cells; i++) {
        float step = (float)size * side[0][i];
        side[0][i] = (float)(value[i] + (double)step);
        side[1][i] = (float)(value[i] - (double)step);
    }
    for (int64_t i = 0; i < a->n * H; i++) exact[i] = (double)at[i];
    for (int i = 0; i < 2; i++) {
        *w = (struct moe_weight){
            .type = MOE_F32, .rows = was.rows, .cols = was.cols, .data = (const uint8_t *)side[i]
        };
        double *y = f(a, exact);
        difference += (i ? -1 : 1) * inner(v, y, a->n * H);
        free(y);
    }
    *w = was;
    for (int64_t r = 0; r < was.rows; r++)
        for (int64_t c = 0; c < was.cols; c++) {
            double g = 0, step = (double)side[0][r * was.cols + c] - (double)side[1][r * was.cols + c];
            for (int64_t t = 0; t < a->n; t++)
                g += (double)dy[t * was.rows + r] * (double)x[t * was.cols + c];
            product += g * step, length += g * g, moved += step * step;
        }
    double error = fabs(difference - product) / sqrt(length * moved / (double)cells);
    if (!(error < 1e-3))
        fprintf(stderr, "weight [%d, %d]: %.9g by differences, %.9g\n", (int)was.rows, (int)was.cols,
                difference, product);
    OK(length > 0 && error < 1e-3);
    free(value), free(exact), free(side[0]), free(side[1]);
}

static void check_outputs(struct moe_backward *b, struct moe_model *m, int layer, const struct shape *s)
{
    struct moe_layer *y = &m->layers[layer];
    struct moe_expert *e = y->moe ? &y->experts[0] : &y->dense;
    struct {
        enum moe_role role, input;
        struct moe_weight *w;
    } all[] = { { MOE_ROLE_Q_A, MOE_ROLE_KV_A, &y->q_a },
                { MOE_ROLE_Q_B, MOE_ROLE_Q_B, &y->q_b },
                { MOE_ROLE_Q, MOE_ROLE_KV_A, &y->q },
                { MOE_ROLE_KV_A, MOE_ROLE_KV_A, &y->kv_a },
                { MOE_ROLE_KV_B, MOE_ROLE_KV_B, &y->kv_b } };
    struct at a = { .m = m, .layer = layer, .n = s->n, .s = s, .mlp = e };
    int64_t N = s->n * m->config.hidden_size;
    float *h = normals(N, 1), *v = normals(N, 1), *out = copy(h, N), *dh = copy(v, N),
          *weight = normals(s->n, 1);
    struct saw saw = { .m = m, .layer = layer };
    struct pass p;
    pass_begin(&p, m, s);
    moe_forward_hooks(p.f, &(struct moe_hooks){ .ctx = &saw, .input = saw_input });
    pass_attention(&p, layer, s, out);
    moe_backward_observe(b, &(struct moe_backward_observer){ &saw, saw_output });
    moe_backward_attention(b, layer, h, s->lengths, s->n_sequences, dh);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        OK(saw.ny[all[i].role] == (all[i].w->data ? s->n : 0));
        if (!all[i].w->data) continue;
        OK(saw.nx[all[i].input] == s->n);
        check_weight(attention_of, &a, h, v, all[i].w, saw.dy[all[i].role], saw.x[all[i].input]);
    }
    a.weight = weight;
    if (!y->moe) { /* roles by whose shape the rows are kept */
        moe_backward_mlp(b, (struct moe_weight[3]){ e->gate, e->up, e->down }, h, s->n, v, weight, dh, NULL);
        OK(saw.ny[MOE_ROLE_GATE] == s->n && saw.ny[MOE_ROLE_UP] == s->n);
        check_weight(mlp_of, &a, h, v, &e->gate, saw.dy[MOE_ROLE_GATE], h);
        check_weight(mlp_of, &a, h, v, &e->up, saw.dy[MOE_ROLE_UP], h);
    }
    moe_backward_observe(b, NULL);
    for (int i = 0; i < MOE_ROLE_COUNT; i++) free(saw.x[i]), free(saw.dy[i]);
    pass_end(&p);
    free(h), free(v), free(out), free(dh), free(weight);
}

/* ---- one model ---- */

static void check_functions(struct moe_model *m, unsigned flags, struct moe_pool *pool, const struct shape *s)
{
    struct moe_backward *b;
    struct moe_kernels table;
    int64_t longest = 0;
    for (int64_t i = 0; i < s->n_sequences; i++) longest = s->lengths[i] > longest ? s->lengths[i] : longest;
    DONE(moe_backward_open(&b, m, longest + 2, longest, pool, &err)); /* not all fits at once */
    moe_kernels_init(&table, flags);
    b->k = &table;
    for (int l = 0; l < m->config.num_hidden_layers; l++) {
        const struct moe_layer *y = &m->layers[l];
        struct at a = { .m = m, .layer = l, .n = s->n, .s = s };
        if (l == 0) check_norm(b, &a), check_head(b, a);
        check_attention(b, &a);
        if (!y->moe) {
            check_mlp(b, a, &y->dense, false);
            continue;
        }
        check_mlp(b, a, &y->experts[1], true);
        if (y->shared.gate.data) check_mlp(b, a, &y->shared, false);
        check_router(b, a);
    }
    moe_backward_close(&b);
    OK(!b);
    DONE(moe_backward_open(&b, m, s->n, longest, pool, &err));
    for (int l = 0; l < m->config.num_hidden_layers; l++) check_layer(b, m, l, s);
    moe_backward_close(&b);
    DONE(moe_backward_open(&b, m, longest + 2, longest, pool, &err));
    if (s->n < 100) check_outputs(b, m, 0, s);
    moe_backward_close(&b);
}

/* ---- the same bits whatever the threads and the batches ---- */

/* Call every function in calls of `part` sequences; their results lie one after another in out. */
static int64_t everything(const struct moe_model *m, int threads, int64_t max_tokens, const struct shape *s,
                          int64_t part, float *out)
{
    const struct moe_config *c = &m->config;
    int64_t H = c->hidden_size, k = c->num_experts_per_tok, longest = 0, at = 0, t = 0;
    const struct moe_layer *y = &m->layers[c->num_hidden_layers - 1];
    const struct moe_weight w[3] = { y->experts[0].gate, y->experts[0].up, y->experts[0].down };
    struct moe_backward *b;
    struct moe_pool *pool;
    int32_t *experts = room(s->n * k, sizeof *experts);
    for (int64_t i = 0; i < s->n * k; i++) experts[i] = (int32_t)(i % k);
    for (int64_t i = 0; i < s->n_sequences; i++) longest = s->lengths[i] > longest ? s->lengths[i] : longest;
    rng = (struct moe_rng){ 77 };
    float *x = normals(s->n * H, 1), *v = normals(s->n * H, 1), *dw = normals(s->n * k, 1);
    DONE(moe_pool_open(&pool, threads, &err));
    DONE(moe_backward_open(&b, m, max_tokens, longest, pool, &err));
    float *dx = out, *dot = dx + s->n * H, *dr = dot + s->n, *dn = dr + s->n * H, *dh = dn + s->n * H,
          *da = dh + s->n * H;
    at = 5 * s->n * H + s->n;
    memset(out, 0, (size_t)at * sizeof *out);
    memcpy(da, v, (size_t)(s->n * H) * sizeof *da);
    for (int64_t i = 0; i < s->n_sequences; i += part) {
        int64_t n = 0;
        for (int64_t q = i; q < i + part && q < s->n_sequences; q++) n += s->lengths[q];
        moe_backward_mlp(b, w, x + t * H, n, v + t * H, dw + t, dx + t * H, dot + t);
        moe_backward_router(b, (int)c->num_hidden_layers - 1, x + t * H, n, experts + t * k, dw + t * k,
                            dr + t * H);
        moe_backward_norm(b, x + t * H, y->post_norm, m->eps, H, H, n, v + t * H, dn + t * H);
        DONE(moe_backward_head(b, x + t * H, n, 7 + t, 3, dh + t * H, NULL, &err));
        moe_backward_attention(b, 0, x + t * H, s->lengths + i,
                               i + part < s->n_sequences ? part : s->n_sequences - i, da + t * H);
        t += n;
    }
    OK(t == s->n);
    moe_backward_close(&b);
    moe_pool_close(&pool);
    free(x), free(v), free(dw), free(experts);
    return at;
}

static void check_same(const struct moe_model *m, const struct shape *s)
{
    int64_t room_for = 8 * s->n * m->config.hidden_size, longest = 0;
    float *first = room(room_for, sizeof *first), *other = room(room_for, sizeof *other);
    for (int64_t i = 0; i < s->n_sequences; i++) longest = s->lengths[i] > longest ? s->lengths[i] : longest;
    int64_t n = everything(m, 1, s->n, s, s->n_sequences, first);
    OK(n <= room_for);
    const struct {
        int threads;
        int64_t max_tokens, part;
    } ways[] = {
        { 2, s->n, 8 }, { 7, s->n, 8 }, { 7, longest, 8 }, { 2, s->n + 9, 1 }, { 1, longest + 1, 2 }
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        OK(everything(m, ways[i].threads, ways[i].max_tokens, s, ways[i].part, other) == n);
        OK(!memcmp(first, other, (size_t)n * sizeof *first));
    }
    free(first), free(other);
}

static void check_memory(const struct moe_model *m)
{
    const struct moe_config *c = &m->config;
    struct moe_backward *b;
    uint64_t least = moe_backward_touched_bytes(c, 4000, 4000, 1000, 1);
    OK(least > 4000 * 3 * sizeof(float) * (uint64_t)c->hidden_size);
    OK(moe_backward_touched_bytes(c, 8000, 8000, 1000, 1) > least);
    OK(moe_backward_touched_bytes(c, 4000, 4000, 2000, 1) > least);
    OK(moe_backward_touched_bytes(c, 4000, 4000, 1000, 2) > least);
    OK(moe_backward_open(&b, m, (int64_t)1 << 38, 16, NULL, &err) == MOE_NOMEM && !b);
}

/* ---- models ---- */

static void check_model(const char *path, double lora_eps, const struct shape *s)
{
    struct moe_source *src;
    struct moe_model *m;
    struct moe_pool *pool;
    unsigned all = moe_cpu_flags(), levels[2] = { 0, all };
    rng = (struct moe_rng){ 5 };
    DONE(moe_source_open(&src, path, &err));
    DONE(moe_model_open(&m, src, lora_eps, &err));
    DONE(moe_pool_open(&pool, 2, &err));
    for (int i = 0; i < 2; i++) check_functions(m, levels[i], i ? pool : NULL, s);
    if (m->layers[m->config.num_hidden_layers - 1].moe) check_same(m, s);
    check_memory(m);
    moe_pool_close(&pool);
    moe_model_close(&m);
    moe_source_close(&src);
}

/* Generates a model with these options and checks it. */
static void check_generated(const char *options, double lora_eps, const struct shape *s)
{
    generate("2", options);
    check_model(dir, lora_eps, s);
    generated_end();
}

int main(int argc, char **argv)
{
    const struct shape few = { 21, 4, { 1, 9, 4, 7 } };
    struct shape many = { 430, 4, { 150, 1, 200, 79 } };
    const char *san = getenv("MOE_SAN"); /* sanitizers take eight times as long */
    if (san && *san) many = (struct shape){ 270, 4, { 90, 1, 130, 49 } };
    generated_begin(argc, argv);
    check_generated("--q-lora 40 --experts 6 --top-k 2 --format f32", 0, &few);
    check_generated("--preset k2-thinking --q-lora 64 --experts 6 --top-k 3", 1e-6, &few);
    check_generated("--preset moonlight --experts 12 --top-k 3 --groups 4,2 --dense 0", 0, &few);
    check_generated("--q-lora 24 --experts 6 --top-k 2 --shared 0 --tied", 0, &few);
    if (!san || !*san) check_generated("--q-lora 40 --experts 6 --top-k 2 --format fp8", 0, &few);
    if (!san || !*san) check_generated("--q-lora 40 --experts 6 --top-k 2 --format int4", 0, &few);
    check_generated("--q-lora 40 --experts 6 --top-k 2 --format nvfp4", 0, &few);
    check_generated(
        "--q-lora 40 --experts 4 --top-k 2 --hidden 320 --inter 288 --dense-inter 320 --heads 5 --vocab 4500",
        0, &many);
    (void)plain_begin, (void)plain_layer; /* for whole passes, which are test-plain's */
    check_model("tests/data/tiny-k2/bf16", 0, &few);
    printf("test-backward: %ld checks, largest error %.2g of a gradient; of a layer by differences in "
           "float32 %.2g\n",
           checks, worst, worst_layer);
    return 0;
}
