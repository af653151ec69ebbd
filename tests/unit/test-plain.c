/* SPDX-License-Identifier: Apache-2.0 */
/* Compares the forward pass with the equations written out in double (plain-forward.h), on shapes that the
 * fixture does not have: no q_lora, expert groups, no YaRN, no or two shared experts, no dense layer, every
 * source layout; and with NVFP4 activations.  Checks what hooks are given. */
#undef NDEBUG
#include "tests/gen/generated.h"
#include "tests/unit/pass.h"
#include "tests/unit/plain-forward.h"

#include <assert.h>
#include <stdio.h>

enum { N = 21 };

static long checks;
static struct moe_err err;
#define OK(cond) (assert(cond), checks++)
#define DONE(call) \
    ((call) == MOE_OK ? (void)checks++ \
                      : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, err.msg), abort()))

static double worst;

/* ---- what the hooks saw of the layer at hand ---- */

struct seen {
    const struct moe_model *m;
    int32_t experts[N * 64];
    float weights[N * 64];
    int64_t tokens, rows[MOE_ROLE_COUNT], calls;
    int64_t per_expert[1024];
    bool bad;
};

/* struct moe_hooks.routed: keeps the choices of the next `tokens` tokens of the layer. */
static void routed(void *ctx, int layer, int64_t tokens, const int32_t *experts, const float *weights)
{
    struct seen *s = ctx;
    size_t k = (size_t)s->m->config.num_experts_per_tok;
    (void)layer;
    memcpy(s->experts + (size_t)s->tokens * k, experts, (size_t)tokens * k * sizeof *experts);
    memcpy(s->weights + (size_t)s->tokens * k, weights, (size_t)tokens * k * sizeof *weights);
    s->tokens += tokens;
}

/* struct moe_hooks.input: counts and checks the inputs of the projections.  The forward pass runs with one
 * thread, so that the counters need no lock. */
static void input(void *ctx, int layer, enum moe_role role, int expert, const float *x, int64_t ldx,
                  int64_t n)
{
    struct seen *s = ctx;
    int64_t rows, cols;
    s->rows[role] += n;
    s->calls++;
    if (!moe_tensor_shape(&s->m->config, role, layer, &rows, &cols) || ldx < cols || n < 1) s->bad = true;
    if ((role == MOE_ROLE_EXPERT_GATE || role == MOE_ROLE_EXPERT_DOWN) != (expert >= 0)) s->bad = true;
    if (role == MOE_ROLE_EXPERT_GATE) s->per_expert[expert] += n;
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < cols; i++)
            if (!isfinite(x[t * ldx + i])) s->bad = true;
}

static void check_seen(const struct seen *s, int layer)
{
    const struct moe_config *c = &s->m->config;
    bool moe = moe_layer_is_moe(c, layer);
    int64_t chosen = moe ? N * c->num_experts_per_tok : 0, count[1024] = { 0 };
    OK(!s->bad && s->tokens == (moe ? N : 0));
    OK(s->rows[MOE_ROLE_KV_A] == N && s->rows[MOE_ROLE_O] == N && s->rows[MOE_ROLE_KV_B] == N);
    OK(s->rows[MOE_ROLE_Q_B] == (c->q_lora_rank ? N : 0));
    OK(s->rows[MOE_ROLE_GATE] == (moe ? 0 : N) && s->rows[MOE_ROLE_DOWN] == s->rows[MOE_ROLE_GATE]);
    OK(s->rows[MOE_ROLE_SHARED_GATE] == (moe && c->n_shared_experts ? N : 0) &&
       s->rows[MOE_ROLE_SHARED_DOWN] == s->rows[MOE_ROLE_SHARED_GATE]);
    OK(s->rows[MOE_ROLE_EXPERT_GATE] == chosen && s->rows[MOE_ROLE_EXPERT_DOWN] == chosen);
    for (int64_t i = 0; i < chosen; i++) count[s->experts[i]]++;
    for (int64_t e = 0; e < c->n_routed_experts; e++) OK(count[e] == s->per_expert[e]);
}

/* ---- one model ---- */

/* The largest difference, relative to the largest |b|. */
static double relative_error(const float *a, const double *b, int64_t n)
{
    double most = 0, scale = 1e-30;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)a[i] - b[i])), scale = fmax(scale, fabs(b[i]));
    return most / scale;
}

static void check_choice(const struct seen *s, const struct plain *p)
{
    int64_t k = p->m->config.num_experts_per_tok;
    for (int64_t t = 0; t < p->n; t++) {
        if (p->gap[t] < 1e-5) continue; /* float32 may order these two otherwise */
        OK(!memcmp(s->experts + t * k, p->experts + t * k, (size_t)k * sizeof *p->experts));
        for (int64_t j = 0; j < k; j++)
            OK(fabs((double)s->weights[t * k + j] - p->weights[t * k + j]) < 1e-4);
    }
}

/* ---- NVFP4 activations ---- */

/* Makes an input scale for weights that have none: the largest input of a projection so far, divided by
 * 6 * 448. */
static void measure(void *ctx, int layer, enum moe_role role, int expert, const float *x, int64_t ldx,
                    int64_t n)
{
    struct moe_layer *y = &((struct moe_model *)ctx)->layers[layer];
    struct moe_expert *mlp = expert >= 0                                    ? &y->experts[expert]
                           : role == MOE_ROLE_GATE || role == MOE_ROLE_DOWN ? &y->dense
                                                                            : &y->shared;
    struct moe_weight *to[3] = { NULL, NULL, NULL };
    switch (role) {
    case MOE_ROLE_KV_A: to[0] = &y->kv_a, to[1] = &y->q_a, to[2] = &y->q; break;
    case MOE_ROLE_Q_B: to[0] = &y->q_b; break;
    case MOE_ROLE_KV_B: to[0] = &y->kv_b; break;
    case MOE_ROLE_O: to[0] = &y->o; break;
    case MOE_ROLE_DOWN: case MOE_ROLE_SHARED_DOWN: case MOE_ROLE_EXPERT_DOWN: to[0] = &mlp->down; break;
    default: to[0] = &mlp->gate, to[1] = &mlp->up; break;
    }
    for (int i = 0; i < 3 && to[i]; i++) {
        if (!to[i]->data || to[i]->cols % 16) continue;
        for (int64_t t = 0; t < n; t++) {
            /* up's is larger than gate's */
            float scale = moe_kernels()->amax(x + t * ldx, to[i]->cols) / (6 * 448) * (1 + (float)i / 8);
            if (scale > to[i]->input_scale) to[i]->input_scale = scale;
        }
    }
}

static void calibrate(struct moe_model *m)
{
    const struct moe_config *c = &m->config;
    int32_t ids[N];
    struct passing p;
    struct moe_latent cache;
    for (int i = 0; i < N; i++) ids[i] = (int32_t)((i * 131 + 7) % c->vocab_size);
    passing_open(&p, m, &(struct moe_cpu_options){ .max_tokens = N, .context = 64 }, NULL);
    DONE(moe_latent_open(&cache, p.d, c->num_hidden_layers, moe_latent_pages(N), &err));
    moe_forward_hooks(p.f, &(struct moe_hooks){ .ctx = m, .input = measure });
    const struct moe_segment all = { &cache, cache.every, 0, N };
    const struct moe_batch b = { ids, N, &all, 1 };
    DONE(moe_forward_run(p.f, &b, &err));
    DONE(moe_forward_wait(p.f, &err));
    moe_latent_release(&cache);
    passing_close(&p);
}

/* Adds to *right how many tokens of a layer's output [n, hidden] agree with the equations.  Float32 may round
 * an input beside a tie the other way, which shows in that token, or through its latent in those after it:
 * most tokens must be right, the others near. */
static void check_quantized(const float *h, const double *want, int64_t hidden, int64_t n, int64_t *right)
{
    for (int64_t t = 0; t < n; t++) {
        double e = relative_error(h + t * hidden, want + t * hidden, hidden);
        *right += e < 2e-5;
        OK(e < 0.1);
    }
}

/* Compares the forward pass with the equations, both with quantized inputs, layer by layer from the same
 * hidden states.  Hooks get the inputs before they are quantized. */
static void compare_quantized(struct moe_model *m, enum moe_activations mode, enum moe_mla mla)
{
    const struct moe_config *c = &m->config;
    int64_t hidden = c->hidden_size, right = 0, unquantized_right = 0;
    int32_t ids[N];
    float *h = room(N * hidden, sizeof *h), *alone = room(N * hidden, sizeof *alone);
    struct passing quantized, unquantized;
    struct moe_latent cache;
    struct plain p;
    struct moe_cpu_options o = { .max_tokens = N, .context = 64, .mla = mla };
    for (int i = 0; i < N; i++) ids[i] = (int32_t)((i * 131 + 7) % c->vocab_size);
    plain_begin(&p, m, ids, N);
    plain_activations = mode;
    passing_open(&unquantized, m, &o, NULL);
    o.activations = mode;
    passing_open(&quantized, m, &o, NULL);
    struct moe_forward *f = quantized.f;
    DONE(moe_latent_open(&cache, quantized.d, c->num_hidden_layers, moe_latent_pages(N), &err));
    for (int l = 0; l < c->num_hidden_layers; l++) {
        static struct seen s;
        struct moe_segment first = { &cache, cache.every, 0, N - 1 };
        struct moe_segment last = { &cache, cache.every, N - 1, 1 };
        for (int64_t i = 0; i < N * hidden; i++) alone[i] = h[i] = (float)p.h[i];
        memset(&s, 0, sizeof s);
        s.m = m;
        moe_forward_hooks(f, &(struct moe_hooks){ &s, routed, input });
        const struct moe_segment all = { &cache, cache.every, 0, N };
        DONE(passing_layer(f, l, &first, 1, h, &err));
        DONE(passing_layer(f, l, &last, 1, h + (N - 1) * hidden, &err)); /* one token: nothing to gather */
        check_seen(&s, l);
        moe_forward_hooks(f, NULL);
        DONE(passing_layer(f, l, &all, 1, alone, &err));
        /* neither the batch nor a hook changes anything */
        OK(!memcmp(h, alone, (size_t)(N * hidden) * sizeof *h));
        plain_layer(&p, l);
        check_quantized(h, p.h, hidden, N, &right);
        for (int64_t i = 0; i < N * hidden; i++) alone[i] = h[i];
        DONE(passing_layer(unquantized.f, l, &all, 1, alone, &err));
        plain_activations = mode;
        for (int64_t t = 0; t < N; t++)
            unquantized_right += relative_error(alone + t * hidden, p.h + t * hidden, hidden) < 2e-5;
    }
    plain_activations = MOE_ACTIVATIONS_FLOAT;
    int64_t all = N * c->num_hidden_layers;
    printf("  quantized activations: %d of %d tokens as the equations say, %d without them\n", (int)right,
           (int)all, (int)unquantized_right);
    OK(right > all * 3 / 4 && unquantized_right < all / 10);
    plain_end(&p);
    free(h), free(alone);
    moe_latent_release(&cache);
    passing_close(&quantized);
    passing_close(&unquantized);
}

/* Compares every layer and the logits with the equations.  The batch is cut in two, so that the second part
 * reads the first one's cache. */
static void compare(const struct moe_model *m, unsigned flags, enum moe_mla mla, double lora_eps)
{
    const struct moe_config *c = &m->config;
    int32_t ids[N];
    float *h = room(N * c->hidden_size, sizeof *h), *logits = room(N * c->vocab_size, sizeof *logits);
    struct passing pass;
    struct moe_kernels table;
    struct moe_latent cache;
    struct plain p;
    OK((m->head.data == m->embed.data) == c->tie_word_embeddings && m->head.rows == c->vocab_size &&
       m->head.cols == c->hidden_size);
    OK(c->n_routed_experts <= 1024 && c->num_experts_per_tok <= 64);
    OK(fabs((double)m->lora_eps - (lora_eps > 0 ? lora_eps : c->rms_norm_eps)) < 1e-12);
    for (int i = 0; i < N; i++) ids[i] = (int32_t)((i * 131 + 7) % c->vocab_size);
    plain_begin(&p, m, ids, N);
    moe_kernels_init(&table, flags);
    const struct moe_cpu_options o = { .max_tokens = N, .context = 64, .mla = mla, .kernels = &table };
    passing_open(&pass, m, &o, NULL);
    struct moe_forward *f = pass.f;
    DONE(moe_latent_open(&cache, pass.d, c->num_hidden_layers, moe_latent_pages(N), &err));
    const struct moe_batch b = { .tokens = ids, .n = N };
    DONE(moe_forward_embed(f, &b, &err));
    DONE(moe_forward_get(f, h, N, &err));
    for (int l = 0; l < c->num_hidden_layers; l++) {
        static struct seen s;
        struct moe_segment first = { &cache, cache.every, 0, 13 }, rest = { &cache, cache.every, 13, N - 13 };
        memset(&s, 0, sizeof s);
        s.m = m;
        moe_forward_hooks(f, &(struct moe_hooks){ &s, routed, input });
        DONE(passing_layer(f, l, &first, 1, h, &err));
        DONE(passing_layer(f, l, &rest, 1, h + 13 * c->hidden_size, &err));
        plain_layer(&p, l);
        check_seen(&s, l);
        if (moe_layer_is_moe(c, l)) check_choice(&s, &p);
        OK(relative_error(h, p.h, N * c->hidden_size) < 2e-5);
    }
    DONE(passing_logits(f, h, N, logits, &err));
    double *want = plain_logits(&p), error = relative_error(logits, want, N * c->vocab_size);
    OK(error < 2e-5);
    worst = fmax(worst, error);
    free(want), free(h), free(logits);
    plain_end(&p);
    moe_latent_release(&cache);
    passing_close(&pass);
}

static void check_model(const char *path, double lora_eps)
{
    struct moe_source *src;
    struct moe_model *m;
    unsigned all = moe_cpu_flags(), levels[3] = { 0, MOE_CPU_AVX2, MOE_CPU_AVX2 | MOE_CPU_AVX512 };
    DONE(moe_source_open(&src, path, &err));
    DONE(moe_model_open(&m, src, lora_eps, &err));
    for (int i = 0; i < 3; i++)
        if ((levels[i] & all) == levels[i])
            for (int mla = 0; mla < 2; mla++) {
                pass_checked = (i + mla) % 2;
                compare(m, levels[i], mla ? MOE_MLA_EXPANDED : MOE_MLA_ABSORBED, lora_eps);
            }
    bool is_nvfp4 = m->layers[m->config.num_hidden_layers - 1].moe &&
                    m->layers[m->config.num_hidden_layers - 1].experts[0].gate.type == MOE_NVFP4;
    if (is_nvfp4) compare_quantized(m, MOE_ACTIVATIONS_NVFP4, MOE_MLA_ABSORBED);
    else calibrate(m);
    for (int mla = 0; mla < 2 && !is_nvfp4; mla++)
        compare_quantized(m, MOE_ACTIVATIONS_NVFP4_ALL, mla ? MOE_MLA_EXPANDED : MOE_MLA_ABSORBED);
    moe_model_close(&m);
    moe_source_close(&src);
}

/* Generates a model with these options and checks it. */
static void check_generated(const char *options, double lora_eps)
{
    generate("3", options);
    check_model(dir, lora_eps);
    generated_end();
}

int main(int argc, char **argv)
{
    generated_begin(argc, argv);
    check_generated("--q-lora 40 --experts 6 --top-k 2", 0);
    check_generated("--preset k2-thinking --q-lora 64 --experts 6 --top-k 2", 1e-6);
    check_generated("--preset moonlight --experts 12 --top-k 3 --groups 4,2 --dense 0", 0);
    check_generated("--q-lora 24 --experts 16 --top-k 6 --groups 8,3 --shared 0 --dense 2", 0);
    check_generated("--q-lora 40 --experts 5 --top-k 5 --format f32 --prefix language_model", 0);
    check_generated("--q-lora 40 --experts 6 --top-k 2 --format fp8", 0);
    check_generated("--q-lora 40 --experts 6 --top-k 2 --format int4", 0);
    check_generated("--q-lora 40 --experts 6 --top-k 2 --format nvfp4", 0);
    check_generated("--q-lora 40 --experts 6 --top-k 2 --format nvfp4-ct", 0);
    check_generated("--q-lora 40 --experts 6 --top-k 2 --layers 1 --dense 0", 0);
    check_generated("--q-lora 40 --experts 6 --top-k 2 --layers 2 --tied", 0);
    check_generated("--q-lora 40 --experts 4 --top-k 2 --layers 1 --dense 1", 0);
    check_model("tests/data/tiny-k2/bf16", 0);
    printf("test-plain: %ld checks, largest error %.2g of the largest logit\n", checks, worst);
    return 0;
}
