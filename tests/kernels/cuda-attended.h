/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/cuda-attended.h - inputs of attention over pages, for the checks of exact and of fast
 * kernels. */
#ifndef CUDA_ATTENDED_H
#define CUDA_ATTENDED_H

#include "tests/kernels/cuda-harness.h"

#include "kernels/cuda/attend.h"

enum { SEGMENTS = 2, LAYERS = 2, MOST = 16 };

/* Tokens of up to SEGMENTS sequences, and a cache whose pages lie in any order. */
struct attended {
    int64_t n, heads, kl, width, table, pages;
    int32_t *page, segment[MOST], pos[MOST];
    float scale, *cache, *q;
    int64_t layer, page_step;      /* floats */
};

static float *room(int64_t n)
{
    float *x = calloc((size_t)n + 1, sizeof *x);
    assert(x);
    return x;
}

static const float *page_of(const struct attended *c, int64_t t, int64_t i)
{
    return c->cache + c->layer + c->page[c->segment[t] * c->table + i] * c->page_step;
}

static struct attended make(int64_t n, int64_t heads, int64_t kl, int64_t rope, int64_t longest,
                            enum pattern p)
{
    struct attended c = { .n = n, .heads = heads, .kl = kl, .width = kl + rope };
    c.table = (longest + MOE_PAGE - 1) / MOE_PAGE + random_below(2), c.pages = SEGMENTS * c.table;
    c.page_step = LAYERS * MOE_PAGE * c.width, c.layer = random_below(LAYERS) * MOE_PAGE * c.width;
    c.scale = 1 / sqrtf((float)c.width);
    c.page = malloc(sizeof *c.page * (size_t)c.pages);
    assert(c.page && n <= MOST);
    for (int32_t i = 0; i < c.pages; i++) {
        int64_t j = random_below(i + 1);
        c.page[i] = c.page[j], c.page[j] = i;
    }
    for (int64_t t = 0; t < n; t++) {
        c.segment[t] = (int32_t)random_below(SEGMENTS);
        c.pos[t] = (int32_t)(t == 0 ? longest - 1 : random_below(longest));
    }
    c.cache = room(c.pages * c.page_step), c.q = room(n * heads * c.width);
    fill(c.cache, c.pages * c.page_step, p), fill(c.q, n * heads * c.width, p == OUTLIER ? NORMAL : p);
    return c;
}

static void release(struct attended *c) { free(c->page), free(c->cache), free(c->q); }

/* The arguments for c, with `out` as an output.  bf16: the cache, whose values then must be some of bfloat16,
 * is stored as such. */
static struct moe_cuda_attend upload(const struct attended *c, bool bf16)
{
    const size_t n = (size_t)c->n, values = (size_t)(c->pages * c->page_step);
    struct moe_cuda_attend a = { .n = c->n, .heads = c->heads, .kl = c->kl, .scale = c->scale };
    uint16_t *stored = malloc(sizeof *stored * (values + 1));
    assert(stored);
    for (size_t i = 0; i < values; i++) stored[i] = moe_f32_to_bf16(c->cache[i]);
    const size_t size = bf16 ? sizeof *stored : sizeof *c->cache;
    const uint64_t cache = cuda_in(bf16 ? (const void *)stored : c->cache, size * values);
    free(stored);
    a.cache = (struct moe_cuda_latents){ .rows = cache + size * (uint64_t)c->layer,
                                         .page = cuda_in(c->page, 4 * (size_t)c->pages),
                                         .segment = cuda_in(c->segment, 4 * n),
                                         .pos = cuda_in(c->pos, 4 * n),
                                         .page_step = c->page_step, .table = c->table, .width = c->width };
    a.q = cuda_in(c->q, sizeof(float) * n * (size_t)(c->heads * c->width));
    a.out = cuda_out(sizeof(float) * n * (size_t)(c->heads * c->kl));
    return a;
}

/* Room for what `chunks` chunks a token leave for their merge. */
static void upload_parts(struct moe_cuda_attend *a)
{
    const size_t results = sizeof(float) * (size_t)(a->n * a->chunks * a->heads);
    a->max = cuda_out(results), a->sum = cuda_out(results), a->part = cuda_out(results * (size_t)a->kl);
}

#endif
