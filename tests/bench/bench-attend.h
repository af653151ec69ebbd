/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench-attend.h - times the attention of one generated token at Kimi K2's widths, 64 heads over
 * latents of 512 + 64, through the forward pass of one layer whose other parts are next to nothing.
 *
 * A row's floor is the larger of two: reading the cache once, and its multiply-adds. */
#ifndef BENCH_ATTEND_H
#define BENCH_ATTEND_H

#include "model/forward.h"
#include "model/ops/cpu/cpu.h"
#include "tests/bench/bench-files.h"

struct attending {
    struct moe_source *source;
    struct moe_model *m;
    struct moe_latent cache;
    struct moe_forward *f;        /* that the next token is computed by */
    const int32_t *page;          /* the sequence's block table */
    int64_t positions;
    float *h;
};

static void attend_token(void *ctx)
{
    struct attending *a = ctx;
    for (int64_t i = 0; i < a->m->config.hidden_size; i++) a->h[i] = (float)(i % 7) - 3;
    const struct moe_segment s = { &a->cache, a->page, a->positions - 1, 1 };
    const struct moe_batch b = { NULL, 1, &s, 1 };
    struct moe_err err;
    moe_forward_put(a->f, a->h, 1);
    moe_forward_layer(a->f, 0, &b);
    assert(moe_forward_get(a->f, a->h, 1, &err) == MOE_OK);
}

/* The least seconds of each of two ways, which take turns: so a busy moment meets both. */
static void take_turns(double (*clock)(void), struct attending *a, const int32_t *const page[2],
                       double least[2])
{
    least[0] = least[1] = INFINITY;
    for (int i = 0; i < (quick ? 2 : 60); i++) {
        double t = clock();
        a->page = page[i % 2];
        attend_token(a);
        least[i % 2] = fmin(least[i % 2], clock() - t);
    }
}

static void put_attention(struct attending *a, struct moe_forward *one, struct moe_forward *all)
{
    double read = (double)a->positions * (double)a->cache.width * 4;
    double flops = 2. * 64 * (double)a->positions * (512 + 64 + 512);
    char what[64], cores[16];
    snprintf(what, sizeof what, "attention over %lld positions", (long long)a->positions);
    snprintf(cores, sizeof cores, "%d cores", machine.threads);
    a->page = a->cache.every, a->f = one;
    double alone = least_seconds(cpu_now, attend_token, a);
    double floor = fmax(read / machine.read, flops / machine.fma);
    put_row(&(struct row){ what, "1 core", alone, read, flops * 1e-9, "GFLOPS",
                           floor > flops / machine.fma ? "plain read" : "multiply-add", floor / alone,
                           AIM_SHARE, .75 });
    a->f = all;
    double t = least_seconds(moe_now, attend_token, a);
    put_row(&(struct row){ what, cores, t, read, flops * 1e-9, "GFLOPS", "one core's speed", alone / t,
                           AIM_SHARE, .85 * machine.threads });
}

/* Pages that lie in memory in any order against pages that follow each other. */
static void put_shuffled(struct attending *a, struct moe_forward *one)
{
    int64_t pages = moe_latent_pages(a->positions);
    int32_t *any = get_memory((size_t)pages * sizeof *any);
    const int32_t *page[2] = { a->cache.every, any };
    double least[2];
    char what[64];
    snprintf(what, sizeof what, "the same, its %d pages in any order", (int)pages);
    for (int64_t i = 0; i < pages; i++) any[i] = (int32_t)i;
    for (int64_t i = pages - 1; i > 0; i--) {
        int64_t j = random_bits() % (i + 1);
        int32_t other = any[i];
        any[i] = any[j], any[j] = other;
    }
    a->f = one;
    take_turns(cpu_now, a, page, least);
    put_row(&(struct row){ what, "1 core", least[1], 0, 0, NULL, "pages in order", least[0] / least[1],
                           AIM_SHARE, .98 });
    free(any);
}

static void make_attending(struct attending *a)
{
    char command[3 * PATH_MAX], path[PATH_MAX];
    struct moe_err err;
    snprintf(path, sizeof path, "%s/attend", bench_dir);
    snprintf(command, sizeof command,
             "'%s/genmodel' -o '%s' --layers 1 --dense 1 --hidden 64 --dense-inter 64 --inter 32 --heads 64 "
             "--q-lora 0 --kv-lora 512 --nope 16 --rope 64 --v 16 --vocab 300 --experts 2 --top-k 1",
             gen_dir, path);
    assert(system(command) == 0);
    assert(moe_source_open(&a->source, path, &err) == MOE_OK);
    assert(moe_model_open(&a->m, a->source, 0, &err) == MOE_OK);
    a->h = get_memory((size_t)a->m->config.hidden_size * sizeof *a->h);
}

/* Fills the cache, which belongs to one device and is read by the other: both are this processor. */
static void fill_cache(struct attending *a, struct moe_device *d, int64_t positions)
{
    struct moe_err err;
    assert(moe_latent_open(&a->cache, d, 1, moe_latent_pages(positions), &err) == MOE_OK);
    int64_t n = MOE_PAGE * a->cache.width;
    float *page = get_memory((size_t)n * sizeof *page);
    for (int64_t p = 0; p < a->cache.pages; p++) {
        for (int64_t i = 0; i < n; i++) page[i] = random_normal();
        d->ops->write(d, moe_latent_at(&a->cache, (int32_t)p, 0), page, (uint64_t)n * sizeof *page);
    }
    free(page);
}

static void bench_attention(void)
{
    const int64_t positions[] = { quick ? 600 : 2048, quick ? 1200 : 8192, quick ? 2400 : 32768 };
    struct attending a = { .positions = 0 };
    struct moe_device *alone, *together;
    struct moe_forward *one, *all;
    struct moe_err err;
    const struct moe_cpu_options o = { .max_tokens = 1, .context = positions[2] };
    put_heading("attention of one token, 64 heads");
    make_attending(&a);
    assert(moe_cpu_open(&alone, a.m, &o, NULL, &err) == MOE_OK);
    assert(moe_cpu_open(&together, a.m, &o, machine.pool, &err) == MOE_OK);
    assert(moe_forward_open(&one, alone, &err) == MOE_OK && moe_forward_open(&all, together, &err) == MOE_OK);
    fill_cache(&a, alone, positions[2]);
    for (int i = 0; i < 3; i++) {
        a.positions = positions[i];
        put_attention(&a, one, all);
        put_shuffled(&a, one);
    }
    moe_forward_close(&one), moe_forward_close(&all);
    moe_latent_release(&a.cache);
    moe_device_close(&alone), moe_device_close(&together);
    moe_model_close(&a.m);
    moe_source_close(&a.source);
    free(a.h);
}

#endif
