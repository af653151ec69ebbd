/* SPDX-License-Identifier: Apache-2.0 */
/* Checks attention over pages (kernels/cuda/attend.h) against attend_pages, attend_merge and attend_finish of
 * AVX2, bit for bit: a chunk less one row, a chunk, a chunk and one row, several chunks; whole and split,
 * which also have to agree; the widths of K2 and odd ones; and scores that no sound model has. */
#include "tests/kernels/cuda-attended.h"

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
        struct moe_cuda_attend a = upload(c, false);
        a.split = split, a.few = few, a.chunks = moe_cuda_attend_chunks(c->pos[0] + 1) + random_below(2);
        if (split) upload_parts(&a);
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
