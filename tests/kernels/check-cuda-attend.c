/* SPDX-License-Identifier: Apache-2.0 */
/* Checks attention over pages (kernels/cuda/attend.h) against attend_pages, attend_merge and attend_finish of
 * AVX2, bit for bit: a chunk less one row, a chunk, a chunk and one row, several chunks; whole and split,
 * which also have to agree; the widths of K2 and odd ones; and scores that no sound model has. */
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

/* The result of token t by AVX2: out [heads, kl]. */
static void want_of(const struct attended *c, int64_t t, float *out)
{
    const int64_t rows = c->pos[t] + 1, h = c->heads;
    float *max = room(h), *sum = room(h), *max2 = room(h), *sum2 = room(h), *o2 = room(h * c->kl);
    int32_t *seen = malloc(sizeof *seen * (size_t)h);
    assert(seen);
    for (int64_t at = 0; at < rows; at += MOE_CHUNK) {
        const int64_t here = rows - at < MOE_CHUNK ? rows - at : MOE_CHUNK;
        const float *page[MOE_CHUNK_PAGES];
        for (int64_t i = 0; i * MOE_PAGE < here; i++) page[i] = page_of(c, t, at / MOE_PAGE + i);
        for (int64_t i = 0; i < h; i++) seen[i] = (int32_t)here;
        cuda_avx2.attend_pages(c->q + t * h * c->width, c->width, seen, h, page, c->width, c->width, c->kl,
                               c->scale, at ? max2 : max, at ? sum2 : sum, at ? o2 : out, c->kl);
        if (at) cuda_avx2.attend_merge(h, c->kl, max, sum, out, c->kl, max2, sum2, o2, c->kl);
    }
    cuda_avx2.attend_finish(h, c->kl, sum, out, c->kl);
    free(max), free(sum), free(max2), free(sum2), free(o2), free(seen);
}

static struct moe_cuda_attend upload(const struct attended *c)
{
    const size_t f = sizeof(float), n = (size_t)c->n;
    struct moe_cuda_attend a = { .n = c->n, .heads = c->heads, .kl = c->kl, .scale = c->scale };
    const uint64_t cache = cuda_in(c->cache, f * (size_t)(c->pages * c->page_step));
    a.cache = (struct moe_cuda_latents){ .rows = cache + f * (uint64_t)c->layer,
                                         .page = cuda_in(c->page, 4 * (size_t)c->pages),
                                         .segment = cuda_in(c->segment, 4 * n),
                                         .pos = cuda_in(c->pos, 4 * n),
                                         .page_step = c->page_step, .table = c->table, .width = c->width };
    a.q = cuda_in(c->q, f * n * (size_t)(c->heads * c->width));
    a.out = cuda_out(f * n * (size_t)(c->heads * c->kl));
    return a;
}

static void check_case(struct attended *c, const char *pattern)
{
    const int64_t each = c->heads * c->kl, floats = c->n * each;
    float *want = room(floats), *got = room(floats);
    for (int64_t t = 0; t < c->n; t++) want_of(c, t, want + t * each);
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t split = i & 1, few = i >> 1;
        CUDA_CASE("attend: %d tokens, %d rows, %d heads of %d, values of %d, %s, %s%s", (int)c->n,
                  c->pos[0] + 1, (int)c->heads, (int)c->width, (int)c->kl, pattern,
                  split ? "split" : "whole", few ? ", 8 heads a block" : "");
        struct moe_cuda_attend a = upload(c);
        a.split = split, a.few = few, a.chunks = moe_cuda_attend_chunks(c->pos[0] + 1) + random_below(2);
        const size_t results = sizeof(float) * (size_t)(c->n * a.chunks * c->heads);
        if (split) a.max = cuda_out(results), a.sum = cuda_out(results), a.part =
            cuda_out(results * (size_t)c->kl);
        cuda_launch(moe_cuda_attend_kernel(&a), moe_cuda_attend_grid(&a), &a, sizeof a);
        if (split) CUDA_LAUNCH(attend_merge, a);
        cuda_get(got, a.out, sizeof *got * (size_t)floats);
        cuda_compare("out", want, got, floats);
        cuda_free_all();
    }
    free(want), free(got);
}

static void check_shapes(void)
{
    static const int64_t rows[] = { 1, 63, 64, 65, MOE_CHUNK - 1, MOE_CHUNK, MOE_CHUNK + 1,
                                    2 * MOE_CHUNK + 77 };
    for (int i = 0; i < 24; i++) {
        const enum pattern p = (enum pattern)(i % PATTERNS);
        const int64_t longest = rows[i % 8], kl = 1 + random_below(i % 3 ? 40 : 130), rope = random_below(40);
        struct attended c = make(1 + random_below(3), 1 + random_below(20), kl, rope, longest, p);
        check_case(&c, pattern_name[p]);
        release(&c);
    }
    /* the widths of K2 and of a tiny model */
    struct attended k2 = make(1, 17, 512, 64, 150, NORMAL), tiny = make(2, 4, 64, 16, 700, UNIFORM);
    check_case(&k2, "normal"), check_case(&tiny, "uniform");
    release(&k2), release(&tiny);
}

/* Pages whose scores are NaN, Inf, or -Inf alone; and zeros of both signs as the largest. */
static void check_broken(void)
{
    static const float first[] = { NAN, INFINITY, -INFINITY, -0.f }, second[] = { 1, 1, -INFINITY, 0 };
    for (int i = 0; i < 4; i++) {
        struct attended c = make(1, 2, 3, 1, 70, ZERO);
        c.scale = 1;
        for (int64_t h = 0; h < 2; h++) c.q[h * 4] = 1, c.q[h * 4 + 3] = h ? -1 : 1;
        float *page = (float *)(uintptr_t)page_of(&c, 0, random_below(2));
        for (int64_t r = 0; r < MOE_PAGE; r++) page[r * 4] = r % 2 ? second[i] : first[i];
        check_case(&c, "broken");
        release(&c);
    }
}

/* How work is divided, on a GPU of 132 multiprocessors with K2's 64 heads. */
static void check_division(void)
{
    static const struct { int64_t n, chunks; uint32_t split, few; } of[] = {
        { 1, 1, 0, 1 },   { 1, 4, 1, 1 },    { 1, 16, 1, 1 },  { 1, 17, 1, 0 },  { 2, 8, 1, 1 },
        { 32, 16, 1, 0 }, { 65, 16, 1, 0 },  { 66, 16, 0, 0 }, { 16, 1, 0, 1 },  { 17, 1, 0, 0 } };
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        const uint32_t split = moe_cuda_attend_split(of[i].n, 64, of[i].chunks, 132);
        const uint32_t few = moe_cuda_attend_few(of[i].n, 64, split ? of[i].chunks : 1, 132);
        CUDA_CASE("attend: %d sequences of %d chunks", (int)of[i].n, (int)of[i].chunks);
        CUDA_CHECK(split == of[i].split && few == of[i].few, "split %u, few %u", split, few);
        struct moe_cuda_attend a = { .n = of[i].n, .heads = 64, .kl = 512, .chunks = of[i].chunks,
                                     .split = split, .few = few, .cache.width = 576 };
        const struct moe_cuda_grid g = moe_cuda_attend_grid(&a);
        CUDA_CHECK(g.x == (split ? of[i].chunks : 1) && g.y * (g.threads / 16) == 64 && g.z == of[i].n,
                   "a grid of %u x %u x %u", g.x, g.y, g.z);
        CUDA_CHECK(g.shared <= 227 << 10, "%u bytes of shared memory", g.shared);
    }
}

static void check(void)
{
    check_division();
    check_shapes();
    check_broken();
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
