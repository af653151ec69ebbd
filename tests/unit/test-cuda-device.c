/* SPDX-License-Identifier: Apache-2.0 */
/* Tests a GPU as a device (model/ops/cuda/cuda.h) beside the processor: layers of hostile states in batches
 * of many shapes, bit for bit; graphs; what memory it takes; that nothing is left whichever call of the
 * driver fails.
 *
 * By the stand-in for the driver that lies beside it, or with MOE_TEST_GPU=1 on the GPU of this machine,
 * where nothing is made to fail. */
#include "tests/ok.h"
#include "model/forward.h"
#include "runtime/engine/engine.h"
#include "tests/shim/cuda/open.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct moe_err err = MOE_ERR_INIT;
static bool real; /* on the GPU of this machine */

static uint64_t seed = 1;
static uint64_t next(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return seed >> 33;
}

/* A state that a layer may get: mostly of its usual size, and some values tiny, large, zero or subnormal. */
static float hostile(void)
{
    float x = (float)(int64_t)(next() % 2001) / 1000 - 1;
    switch (next() % 40) {
    case 0: return 0;
    case 1: return -0.f;
    case 2: return x * 1e-41f;
    case 3: return x * 1e6f;
    case 4: return x * 1e-9f;
    default: return x;
    }
}

static struct moe_engine *open_engine(const char *path, bool cuda, int64_t context)
{
    struct moe_engine *e;
    const struct moe_engine_options o = { .context = context, .batch = 192, .cuda = cuda };
    enum moe_code code = moe_engine_open(&e, path, &o, NULL, &err);
    if (code != MOE_OK) fprintf(stderr, "%s: %s\n", path, err.msg);
    OK(code == MOE_OK);
    return e;
}

/* ---- layers ---- */

/* How a batch is made of two sequences: positions before it, and tokens in it. */
struct shape { int64_t first[2], n[2]; };
enum { PAGES = 24 };

/* The states of a batch after a layer, and the rows of the cache that it wrote. */
struct outcome { float *h, *rows; };

static void run_layer(struct moe_engine *e, int layer, const struct shape *s, const float *before,
                      const float *h, struct outcome *out)
{
    const struct moe_config *c = &e->model->config;
    struct moe_latent cache;
    int64_t n = s->n[0] + s->n[1], hidden = c->hidden_size;
    OK(moe_latent_open(&cache, e->device, c->num_hidden_layers, PAGES, &err) == MOE_OK);
    const int32_t page[2][PAGES / 2] = { { 5, 0, 23, 6, 8, 19, 10, 9, 12, 13, 18, 15 },
                                         { 7, 2, 1, 4, 16, 17, 14, 11, 20, 21, 22, 3 } };
    uint64_t bytes = cache.bytes;
    e->device->ops->write(e->device, cache.rows, before, bytes);
    const struct moe_segment segment[] = { { &cache, page[0], s->first[0], s->n[0] },
                                           { &cache, page[1], s->first[1], s->n[1] } };
    const struct moe_batch b = { NULL, n, segment, s->n[1] ? 2 : 1 };
    OK(n <= e->batch && moe_latent_pages(s->first[0] + s->n[0]) <= PAGES / 2);
    out->h = malloc((size_t)(n * hidden) * sizeof *h);
    out->rows = malloc(bytes);
    moe_forward_put(e->forward, h, n);
    moe_forward_layer(e->forward, layer, &b);
    e->device->ops->read(e->device, out->rows, cache.rows, bytes);
    OK(moe_forward_get(e->forward, out->h, n, &err) == MOE_OK);
    moe_latent_release(&cache);
}

static bool same_layer(struct moe_engine *cpu, struct moe_engine *gpu, int layer, const struct shape *s)
{
    const struct moe_config *c = &cpu->model->config;
    int64_t values = (s->n[0] + s->n[1]) * c->hidden_size;
    size_t bytes = (size_t)moe_latent_estimate(c, MOE_LATENT_F32, c->num_hidden_layers, PAGES) -
                   PAGES * sizeof(int32_t);
    float *before = malloc(bytes), *h = malloc((size_t)values * sizeof *h);
    struct outcome a, b;
    for (size_t i = 0; i < bytes / sizeof *before; i++) before[i] = hostile();
    for (int64_t i = 0; i < values; i++) h[i] = hostile();
    run_layer(cpu, layer, s, before, h, &a);
    run_layer(gpu, layer, s, before, h, &b);
    bool same = !memcmp(a.h, b.h, (size_t)values * sizeof *h) && !memcmp(a.rows, b.rows, bytes);
    free(a.h);
    free(a.rows);
    free(b.h);
    free(b.rows);
    free(before);
    free(h);
    return same;
}

static void test_layers(const char *path, int64_t context, const struct shape *shape, int n)
{
    struct moe_engine *cpu = open_engine(path, false, context), *gpu = open_engine(path, true, context);
    int layers = (int)cpu->model->config.num_hidden_layers;
    for (int i = 0; i < n; i++)
        for (int l = 0; l < layers; l += layers > 2 && i ? layers - 1 : 1) {
            bool same = same_layer(cpu, gpu, l, &shape[i]);
            if (!same) fprintf(stderr, "%s: layer %d, shape %d\n", path, l, i);
            OK(same);
        }
    moe_engine_close(&cpu);
    moe_engine_close(&gpu);
}

/* ---- steps ---- */

static enum moe_code step(struct moe_engine *e, const struct moe_latent *cache, int64_t at, int64_t n,
                          float *logits)
{
    static const int32_t ids[] = { 1, 2, 3, 4, 5, 6, 7, 0, 1, 3, 5, 7, 2, 4, 6, 0,
                                   7, 6, 5, 4, 3, 2, 1, 0, 0, 2, 4, 6, 1, 3, 5, 7 };
    const struct moe_segment s = { cache, cache->every, at, n };
    const struct moe_batch b = { ids + at % 8, n, &s, 1 };
    const int32_t last = (int32_t)n - 1;
    MOE_TRY(moe_forward_run(e->forward, &b, &err));
    moe_forward_logits(e->forward, &last, 1, logits);
    return moe_forward_wait(e->forward, &err);
}

/* Steps of the same number of rows are one graph; there are fewer graphs than such numbers here. */
static void test_graphs(const char *path)
{
    struct moe_engine *cpu = open_engine(path, false, 0), *gpu = open_engine(path, true, 0);
    const struct moe_config *c = &cpu->model->config;
    struct moe_latent on, off;
    float a[8], b[8];
    OK(c->vocab_size == 8);
    OK(moe_latent_open(&on, gpu->device, c->num_hidden_layers, 2, &err) == MOE_OK);
    OK(moe_latent_open(&off, cpu->device, c->num_hidden_layers, 2, &err) == MOE_OK);
    for (int64_t n = 1, at = 0; n <= 24; n += 7)
        for (int i = 0; i < 4; i++, at = (at + n) % 40) {
            OK(step(gpu, &on, at, n, a) == MOE_OK && step(cpu, &off, at, n, b) == MOE_OK);
            OK(!memcmp(a, b, sizeof a));
        }
    const struct moe_cuda_counts counts = moe_cuda_counts(gpu->device);
    OK(counts.graphs >= 4 && counts.graph_launches >= 8);
    moe_latent_release(&on);
    moe_latent_release(&off);
    moe_engine_close(&cpu);
    moe_engine_close(&gpu);
}

/* A NaN in the states is found, and said to be nobody's in an undamaged model. */
static void test_nan(const char *path)
{
    struct moe_engine *e = open_engine(path, true, 0);
    int64_t n = 3 * e->model->config.hidden_size;
    float *h = calloc((size_t)n, sizeof *h);
    moe_forward_put(e->forward, h, 3);
    OK(moe_forward_get(e->forward, h, 3, &err) == MOE_OK);
    h[n - 1] = NAN;
    moe_forward_put(e->forward, h, 3);
    FAILS(MOE_NONFINITE, moe_forward_get(e->forward, h, 3, &err));
    h[n - 1] = 1;
    moe_forward_put(e->forward, h, 3);
    OK(moe_forward_get(e->forward, h, 3, &err) == MOE_OK);
    free(h);
    moe_engine_close(&e);
}

/* ---- memory ---- */

/* What an engine takes of the GPU is no more than what it counted. */
static void test_memory(const char *path)
{
    uint64_t before, after;
    OK(moe_gpu_free_bytes(0, &before, &err) == MOE_OK);
    struct moe_engine *e = open_engine(path, true, 0);
    OK(moe_gpu_free_bytes(0, &after, &err) == MOE_OK);
    const struct moe_config *c = &e->model->config;
    uint64_t room = moe_cuda_room(e->device), taken = before - after;
    uint64_t buffers = moe_cuda_estimate(c, MOE_ACTIVATIONS_FLOAT, e->batch, e->context);
    uint64_t weights = before - before / 64 - room;
    OK(taken <= weights + buffers + moe_forward_estimate(c, e->batch) + 16 * 4096);
    OK(taken > weights / 2);
    moe_engine_close(&e);
    OK(moe_gpu_free_bytes(0, &after, &err) == MOE_OK && after == before);
}

/* ---- failures ---- */

/* Opens a model on the GPU, and makes three steps, whose last logits are those of the first call. */
static enum moe_code use(const char *path, const struct moe_cancel *cancel)
{
    static float want[8];
    static bool known;
    struct moe_engine *e;
    struct moe_latent cache = { .device = NULL };
    float logits[8];
    const struct moe_engine_options o = { .context = 64, .batch = 4, .cuda = true, .cancel = cancel };
    enum moe_code code = moe_engine_open(&e, path, &o, NULL, &err);
    if (code == MOE_OK)
        code = moe_latent_open(&cache, e->device, e->model->config.num_hidden_layers, 1, &err);
    for (int64_t i = 0; code == MOE_OK && i < 3; i++) code = step(e, &cache, i, 1, logits);
    if (code != MOE_OK) OK(code == err.code && err.msg[0]);
    else OK(!known || !memcmp(logits, want, sizeof want));
    if (code == MOE_OK) memcpy(want, logits, sizeof want), known = true;
    if (cache.device) moe_latent_release(&cache);
    moe_engine_close(&e);
    return code;
}

/* Each call of the driver fails once, in the first steps of a program that has opened the driver before. */
static void test_failures(const char *path, int result)
{
    long failed = 0, borne = 0, calls = 2;
    OK(use(path, NULL) == MOE_OK);
    for (long n = 1; n < calls; n += n < 150 ? 1 : 11) {
        long before = standin_calls();
        standin_fail("any", n, result);
        enum moe_code code = use(path, NULL);
        standin_fail("any", 0, 0);
        OK(standin_left() == 0);
        OK(code == MOE_OK || code == MOE_DEVICE || code == MOE_NOMEM);
        if (code != MOE_OK) failed++;
        else borne++, calls = standin_calls() - before; /* the call was a wish, or there were fewer */
        if (code != MOE_OK && calls <= n + 1) calls = n + 12;
    }
    OK(failed > 100);
    printf("%ld failures of the driver with result %d, and %ld that were borne\n", failed, result, borne);
    OK(use(path, NULL) == MOE_OK);
}

static void test_cancel(const char *path)
{
    struct moe_cancel cancel = { 0 };
    moe_cancel_request(&cancel, MOE_SIGINT);
    FAILS(MOE_SIGINT, use(path, &cancel));
    OK(real || standin_left() == 0);
}

int main(void)
{
    static const char small[] = "tests/data/golden-v1.moe", fixture[] = "tests/data/tiny-k2/int4";
    static const struct shape few[] = { { { 0, 0 }, { 1, 0 } }, { { 63, 20 }, { 2, 1 } },
                                        { { 5, 64 }, { 9, 8 } }, { { 30, 0 }, { 40, 60 } } };
    /* in the first a sequence has two chunks of attention, in the second a slab ends within a sequence */
    static const struct shape deep[] = { { { 700, 2 }, { 2, 3 } }, { { 30, 0 }, { 90, 50 } } };
    real = getenv("MOE_TEST_GPU") != NULL;
    if (!real && !standin_open()) return 77;
    test_layers(small, 0, few, 4);
    test_layers(fixture, 768, deep, 2);
    test_graphs(small);
    test_nan(small);
    if (!real) test_memory(small);
    test_cancel(small);
    if (!real) test_failures(small, 999);
    OK(real || standin_left() == 0);
    printf("test-cuda-device: %ld checks\n", checks);
    return 0;
}
