/* SPDX-License-Identifier: Apache-2.0 */
/* Compares the forward pass with golden values made by other code, and with itself: batches, threads, forms
 * of attention. */
#undef NDEBUG
#include "base/io.h"
#include "formats/checkpoint/safetensors.h"
#include "kernels/kernels.h"
#include "runtime/engine/engine.h"
#include "tests/unit/pass.h"

#include <assert.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int checks;
#define CHECK(c) (checks++, (c) ? (void)0 : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #c), exit(1)))
#define OK(call) \
    do { \
        enum moe_code c_ = (call); \
        if (c_) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, err.msg); \
            exit(1); \
        } \
        checks++; \
    } while (0)

static struct moe_err err;

/* ---- goldens ---- */

static struct moe_st_header golden;
static struct moe_arena arena;
static char *bytes;

static const struct moe_st_entry *find(int prompt, const char *what, int layer)
{
    char name[64];
    if (layer < 0) snprintf(name, sizeof name, "prompt%d.%s", prompt, what);
    else snprintf(name, sizeof name, "prompt%d.%s.%d", prompt, what, layer);
    for (int64_t i = 0; i < golden.n; i++)
        if (!strcmp(golden.entries[i].name, name)) return &golden.entries[i];
    fprintf(stderr, "no golden '%s'\n", name);
    exit(1);
}

static const void *data(int prompt, const char *what, int layer)
{
    return bytes + find(prompt, what, layer)->offset;
}

static void open_golden(const char *path)
{
    int fd;
    uint64_t size;
    size_t n;
    OK(moe_open_read(path, &fd, &size, &err));
    OK(moe_st_read(fd, path, size, &arena, &golden, &err));
    close(fd);
    OK(moe_read_file(path, 1 << 28, &bytes, &n, &err));
}

static float value(const void *p, int64_t i)
{
    float v;
    memcpy(&v, (const char *)p + 4 * i, 4);
    return v;
}

/* ---- one prompt, layer by layer ---- */

struct seen { int32_t *experts; float *weights; int64_t at, k; };

static void routed(void *ctx, int layer, int64_t tokens, const int32_t *experts, const float *weights)
{
    struct seen *s = ctx;
    (void)layer;
    memcpy(s->experts + s->at * s->k, experts, (size_t)(tokens * s->k) * 4);
    memcpy(s->weights + s->at * s->k, weights, (size_t)(tokens * s->k) * 4);
    s->at += tokens;
}

static double largest_logit_error;

static void check_prompt(struct moe_engine *e, int prompt)
{
    const struct moe_config *c = &e->model->config;
    const struct moe_st_entry *t = find(prompt, "tokens", -1);
    int64_t n = t->shape[0], h = c->hidden_size, k = c->num_experts_per_tok, v = c->vocab_size;
    int32_t *ids = malloc((size_t)n * 4);
    float *x = malloc((size_t)(n * h) * 4), *logits = malloc((size_t)(n * v) * 4);
    struct seen s = { malloc((size_t)(n * k) * 4), malloc((size_t)(n * k) * 4), 0, k };
    memcpy(ids, bytes + t->offset, (size_t)n * 4);
    const struct moe_batch b = { .tokens = ids, .n = n };
    OK(moe_forward_embed(e->forward, &b, &err));
    OK(moe_forward_get(e->forward, x, n, &err));
    moe_forward_hooks(e->forward, &(struct moe_hooks){ .ctx = &s, .routed = routed });
    struct moe_latent cache;
    OK(moe_latent_open(&cache, e->device, c->num_hidden_layers, moe_latent_pages(n), &err));
    for (int l = 0; l < c->num_hidden_layers; l++) {
        struct moe_segment seg = { &cache, cache.every, 0, n };
        s.at = 0;
        OK(passing_layer(e->forward, l, &seg, 1, x, &err));
        const void *want = data(prompt, "hidden", l);
        double most = 0, scale = 0;
        for (int64_t i = 0; i < n * h; i++) {
            most = fmax(most, fabs((double)x[i] - (double)value(want, i)));
            scale = fmax(scale, fabs((double)value(want, i)));
        }
        CHECK(most <= 2e-4 * scale);
        if (!moe_layer_is_moe(c, l)) continue;
        CHECK(s.at == n);
        CHECK(!memcmp(s.experts, data(prompt, "experts", l), (size_t)(n * k) * 4));
        for (int64_t i = 0; i < n * k; i++)
            CHECK(fabs((double)s.weights[i] - (double)value(data(prompt, "expert_weights", l), i)) < 1e-4);
    }
    OK(passing_logits(e->forward, x, n, logits, &err));
    const void *want = data(prompt, "logits", -1);
    double most = 0, scale = 0;
    for (int64_t i = 0; i < n * v; i++) {
        most = fmax(most, fabs((double)logits[i] - (double)value(want, i)));
        scale = fmax(scale, fabs((double)value(want, i)));
    }
    if (most / scale > largest_logit_error) largest_logit_error = most / scale;
    CHECK(most <= 2e-4 * scale);
    moe_forward_hooks(e->forward, NULL);
    moe_latent_release(&cache);
    free(ids);
    free(x);
    free(logits);
    free(s.experts);
    free(s.weights);
}

/* ---- itself ---- */

static struct moe_engine *engine(const char *path, int threads, enum moe_mla mla, struct moe_pool **pool)
{
    struct moe_engine *e;
    struct moe_engine_options o = { .tokenizer = true, .mla = mla };
    OK(moe_pool_open(pool, threads, &err));
    OK(moe_engine_open(&e, path, &o, *pool, &err));
    return e;
}

/* The last token's logits, the prompt cut into pieces of `piece` tokens. */
static void run_cut(struct moe_engine *e, const int32_t *ids, int64_t n, int64_t piece, float *logits)
{
    const struct moe_config *c = &e->model->config;
    struct moe_latent cache;
    OK(moe_latent_open(&cache, e->device, c->num_hidden_layers, moe_latent_pages(n), &err));
    for (int64_t i = 0; i < n; i += piece) {
        int64_t m = i + piece < n ? piece : n - i;
        const struct moe_segment s = { &cache, cache.every, i, m };
        const struct moe_batch b = { ids + i, m, &s, 1 };
        const int32_t last = (int32_t)(m - 1);
        OK(moe_forward_run(e->forward, &b, &err));
        moe_forward_logits(e->forward, &last, 1, logits);
        OK(moe_forward_wait(e->forward, &err));
    }
    moe_latent_release(&cache);
}

static void check_cuts(const char *path)
{
    enum { N = 61 };
    int32_t ids[N];
    struct moe_pool *pool;
    struct moe_engine *e = engine(path, 1, MOE_MLA_ABSORBED, &pool);
    size_t v = (size_t)e->model->config.vocab_size;
    float *a = malloc(v * 4), *b = malloc(v * 4);
    for (int i = 0; i < N; i++) ids[i] = (i * 37 + 11) % 1000;
    run_cut(e, ids, N, N, a);
    for (int piece = 1; piece <= 17; piece += 8) {
        run_cut(e, ids, N, piece, b);
        CHECK(!memcmp(a, b, v * 4)); /* the same bits, however the prompt is cut */
    }
    /* two sequences in one batch */
    struct moe_latent other, own;
    OK(moe_latent_open(&other, e->device, e->model->config.num_hidden_layers, 1, &err));
    OK(moe_latent_open(&own, e->device, e->model->config.num_hidden_layers, 1, &err));
    int32_t both[7 + N];
    for (int i = 0; i < 7; i++) both[i] = 900 - i;
    memcpy(both + 7, ids, sizeof ids);
    struct moe_segment s[2] = { { &other, other.every, 0, 7 }, { &own, own.every, 0, N } };
    const struct moe_batch two = { both, 7 + N, s, 2 };
    const int32_t last = 7 + N - 1;
    OK(moe_forward_run(e->forward, &two, &err));
    moe_forward_logits(e->forward, &last, 1, b);
    OK(moe_forward_wait(e->forward, &err));
    CHECK(!memcmp(a, b, v * 4));
    moe_latent_release(&other);
    moe_latent_release(&own);
    for (int threads = 2; threads <= 7; threads += 5) {
        struct moe_pool *q;
        struct moe_engine *f = engine(path, threads, MOE_MLA_ABSORBED, &q);
        run_cut(f, ids, N, N, b);
        CHECK(!memcmp(a, b, v * 4));
        moe_engine_close(&f);
        moe_pool_close(&q);
    }
    struct moe_pool *q;
    struct moe_engine *f = engine(path, 2, MOE_MLA_EXPANDED, &q);
    double most = 0, scale = 0;
    run_cut(f, ids, N, N, b);
    for (size_t i = 0; i < v; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i])), scale = fmax(scale, fabs((double)a[i]));
    CHECK(most <= 1e-4 * scale); /* plain and absorbed differ in rounding only */
    moe_engine_close(&f);
    moe_pool_close(&q);
    moe_engine_close(&e);
    moe_pool_close(&pool);
    free(a);
    free(b);
}

int main(void)
{
    struct moe_pool *pool;
    open_golden("tests/data/tiny-k2/golden.safetensors");
    for (int i = 0; i < 4; i++) {
        int mla = i % 2;
        pass_checked = i / 2;
        struct moe_engine *e =
            engine("tests/data/tiny-k2/bf16", 2, mla ? MOE_MLA_EXPANDED : MOE_MLA_ABSORBED, &pool);
        for (int p = 0; p < 3; p++) check_prompt(e, p);
        moe_engine_close(&e);
        moe_pool_close(&pool);
    }
    for (int i = 0; i < 2; i++) {
        pass_checked = i;
        check_cuts("tests/data/tiny-k2/bf16");
        check_cuts("tests/data/tiny-k2/int4");
    }
    free(bytes);
    moe_arena_clear(&arena);
    printf("test-model: %d checks (%s), largest logit error %.2g of the largest logit\n", checks,
           moe_kernels_name(), largest_logit_error);
    return 0;
}
