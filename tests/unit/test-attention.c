/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over long contexts on generated models: a token has the same bits however many threads compute
 * it, alone or in a batch, at contexts around the ends of chunks; and it is what the expanded form gives. */
#include "kernels/attend.h"
#include "tests/gen/generated.h"
#include "tests/ok.h"
#include "tests/unit/pass.h"

#include <math.h>

static struct moe_err err;
#define DONE(call) \
    ((call) == MOE_OK ? (void)checks++ \
                      : (fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, err.msg), abort()))

/* The sequences: how many positions each has, of which the last `tail` are computed.  The longest has more
 * chunks than five threads keep partial results of. */
enum { LONGEST = 41 * MOE_CHUNK + 9, SEQUENCES = 15 };
static const struct { int64_t positions, tail; } sequences[SEQUENCES] = {
    { 1, 1 },
    { 300, 1 },
    { MOE_CHUNK - 1, 1 },
    { MOE_CHUNK, 1 },
    { MOE_CHUNK + 1, 1 },
    { 2 * MOE_CHUNK - 1, 1 },
    { 2 * MOE_CHUNK, 1 },
    { 2 * MOE_CHUNK + 1, 3 },
    { 3 * MOE_CHUNK + 77, 1 },
    { 5 * MOE_CHUNK, 2 },
    { 9 * MOE_CHUNK - 64, 1 },
    { LONGEST, 1 },
    { 17 * MOE_CHUNK + 1, 1 },
    { MOE_CHUNK + 40, 90 }, /* more than a slab */
    { 7, 7 },
};

static struct {
    const struct moe_model *m;
    struct passing on; /* whose the cache is; all devices here are this processor */
    struct moe_latent cache;
    struct moe_segment s[SEQUENCES];
    int64_t tokens, hidden;
    float *h, *want; /* of all computed tokens, before and after the layer */
} world;

static float noise(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return (float)(*state >> 8) * 0x1p-23f - 1;
}

static void *room(int64_t n, size_t size)
{
    void *p = malloc((size_t)n * size);
    assert(p);
    return p;
}

static void put_page(const struct moe_latent *c, int32_t page, const float *rows)
{
    c->device->ops->write(c->device, moe_latent_at(c, page, 0), rows, moe_latent_page_bytes(c));
}

/* Sequences whose pages lie backwards in the cache, with rows of random values. */
static void make_sequences(const struct moe_model *m)
{
    int64_t pages = 0;
    uint32_t state = 1;
    world.m = m, world.hidden = m->config.hidden_size, world.tokens = 0;
    for (int i = 0; i < SEQUENCES; i++) pages += moe_latent_pages(sequences[i].positions);
    passing_open(&world.on, m, &(struct moe_cpu_options){ .max_tokens = 1, .context = 1 }, NULL);
    DONE(moe_latent_open(&world.cache, world.on.d, 1, pages, &err));
    int64_t values = MOE_PAGE * world.cache.width;
    float *page = room(values, sizeof *page);
    for (int64_t i = 0; i < pages; i++) {
        for (int64_t k = 0; k < values; k++) page[k] = noise(&state);
        put_page(&world.cache, (int32_t)i, page);
    }
    free(page);
    uint32_t word;
    DONE(world.on.d->ops->wait(world.on.d, &word, &err));
    int32_t *every = world.cache.every;
    for (int64_t i = 0; i < pages; i++) every[i] = (int32_t)(pages - 1 - i);
    for (int i = 0; i < SEQUENCES; i++) {
        world.s[i] = (struct moe_segment){ &world.cache, every, sequences[i].positions - sequences[i].tail,
                                           sequences[i].tail };
        every += moe_latent_pages(sequences[i].positions);
        world.tokens += sequences[i].tail;
    }
    world.h = room(world.tokens * world.hidden, sizeof *world.h);
    world.want = room(world.tokens * world.hidden, sizeof *world.want);
    for (int64_t i = 0; i < world.tokens * world.hidden; i++) world.h[i] = noise(&state);
}

static void free_sequences(void)
{
    moe_latent_release(&world.cache);
    passing_close(&world.on);
    free(world.h), free(world.want);
}

/* The layer for all tokens, which go into h: one token at a time, or all in one batch. */
static void compute(struct moe_pool *pool, enum moe_mla mla, bool batch, float *h)
{
    struct passing on;
    memcpy(h, world.h, (size_t)(world.tokens * world.hidden) * sizeof *h);
    const struct moe_cpu_options o = {
        .max_tokens = batch ? world.tokens : 1, .context = LONGEST, .mla = mla
    };
    passing_open(&on, world.m, &o, pool);
    if (batch) DONE(passing_layer(on.f, 0, world.s, SEQUENCES, h, &err));
    for (int i = 0; i < SEQUENCES && !batch; i++)
        for (int64_t t = 0; t < world.s[i].n; t++, h += world.hidden) {
            struct moe_segment one = world.s[i];
            one.first += t, one.n = 1;
            DONE(passing_layer(on.f, 0, &one, 1, h, &err));
        }
    passing_close(&on);
}

static void check_threads(int threads)
{
    struct moe_pool *pool;
    int64_t n = world.tokens * world.hidden;
    float *h = room(n, sizeof *h);
    DONE(moe_pool_open(&pool, threads, &err));
    for (int batch = 0; batch < 2; batch++) {
        compute(pool, MOE_MLA_ABSORBED, batch, h);
        OK(!memcmp(h, world.want, (size_t)n * sizeof *h));
    }
    moe_pool_close(&pool);
    free(h);
}

/* The expanded form has its own kernel, which knows neither pages nor chunks. */
static double check_expanded(void)
{
    int64_t n = world.tokens * world.hidden;
    float *h = room(n, sizeof *h);
    double most = 0, scale = 0;
    compute(NULL, MOE_MLA_EXPANDED, true, h);
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)h[i] - (double)world.want[i]));
        scale = fmax(scale, fabs((double)world.want[i]));
    }
    OK(most < 2e-5 * scale);
    free(h);
    return most / scale;
}

static void check_generated(const char *options)
{
    struct moe_source *src;
    struct moe_model *m;
    generate("1", options);
    DONE(moe_source_open(&src, dir, &err));
    DONE(moe_model_open(&m, src, 0, &err));
    make_sequences(m);
    compute(NULL, MOE_MLA_ABSORBED, false, world.want);
    for (int threads = 1; threads <= 3; threads++) check_threads(threads);
    check_threads(5);
    printf("  largest difference to the expanded form %.2g\n", check_expanded());
    free_sequences();
    moe_model_close(&m);
    moe_source_close(&src);
    generated_end();
}

int main(int argc, char **argv)
{
    generated_begin(argc, argv);
    check_generated("--q-lora 40 --experts 4 --top-k 2 --dense 1 --heads 5 --kv-lora 128");
    check_generated("--q-lora 40 --experts 4 --top-k 2 --dense 1 --heads 33 --kv-lora 40");
    printf("test-attention: %ld checks\n", checks);
    return 0;
}
