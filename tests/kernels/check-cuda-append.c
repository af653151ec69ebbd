/* SPDX-License-Identifier: Apache-2.0 */
/* Checks what a batch adds to the latent cache (kernels/cuda/append.h) against rmsnorm and rope of AVX2, bit
 * for bit, and that no other row of the cache changes; then copies of rows from page to page. */
#include "tests/kernels/cuda-harness.h"
#include "tests/kernels/cuda-mma.h"

#include "kernels/cuda/append.h"

enum { PAGES = 7, SEGMENTS = 3, TABLE = 2, LAYERS = 2 };

/* The places of n tokens: block tables of SEGMENTS sequences whose pages lie anywhere, and a place of its own
 * for each token. */
struct places { int32_t page[SEGMENTS * TABLE], segment[16], pos[16]; };

static struct places random_places(int64_t n)
{
    struct places p;
    int32_t order[PAGES];
    for (int i = 0; i < PAGES; i++) {
        int j = (int)random_below(i + 1);
        order[i] = order[j], order[j] = i;
    }
    memcpy(p.page, order, sizeof p.page);
    for (int64_t t = 0; t < n; t++) {
        p.segment[t] = (int32_t)(t % SEGMENTS);
        p.pos[t] = (int32_t)(t / SEGMENTS * 13 + random_below(13) + t % SEGMENTS * 35);
    }
    return p;
}

static int64_t row_of(const struct places *p, int64_t t)
{
    return (int64_t)p->page[p->segment[t] * TABLE + p->pos[t] / MOE_PAGE] * LAYERS * MOE_PAGE +
           p->pos[t] % MOE_PAGE;
}

static float *random_floats(int64_t n, enum pattern p)
{
    float *x = malloc(sizeof *x * (size_t)n + 1);
    assert(x);
    fill(x, n, p);
    return x;
}

static void compare_array(const char *what, const float *want, uint64_t at, int64_t n)
{
    float *got = malloc(sizeof *got * (size_t)n);
    assert(got);
    cuda_get(got, at, sizeof *got * (size_t)n);
    cuda_compare(what, want, got, n);
    free(got);
}

/* A cache of n values, of which those of x are as near as its type allows: of bfloat16 x is rounded. */
static uint64_t upload_cache(float *x, int64_t n, bool bf16)
{
    if (!bf16) return cuda_inout(x, sizeof *x * (size_t)n);
    uint16_t *stored = malloc(sizeof *stored * (size_t)n);
    assert(stored);
    for (int64_t i = 0; i < n; i++) stored[i] = moe_f32_to_bf16(x[i]), x[i] = moe_bf16_to_f32(stored[i]);
    const uint64_t at = cuda_inout(stored, sizeof *stored * (size_t)n);
    free(stored);
    return at;
}
static void compare_cache(const float *want, uint64_t at, int64_t n, bool bf16)
{
    if (!bf16) {
        compare_array("cache", want, at, n);
        return;
    }
    uint16_t *stored = malloc(sizeof *stored * (size_t)n);
    float *got = malloc(sizeof *got * (size_t)n);
    assert(stored && got);
    cuda_get(stored, at, sizeof *stored * (size_t)n);
    for (int64_t i = 0; i < n; i++) got[i] = moe_bf16_to_f32(stored[i]);
    cuda_compare("cache", want, got, n);
    free(stored), free(got);
}

static void check_append(enum pattern pattern, bool bf16)
{
    const int64_t n = 1 + random_below(12), heads = 1 + random_below(20), nope = random_below(20),
                  half = 1 + random_below(40), kl = 1 + random_below(random_below(2) ? 40 : 1500);
    const int64_t width = kl + 2 * half, qs = n * heads * (nope + 2 * half), rows = PAGES * LAYERS * MOE_PAGE;
    struct places p = random_places(n);
    float *q = random_floats(qs, pattern), *ckv = random_floats(n * width, pattern);
    float *cache = random_floats(rows * width, UNIFORM), *norm = random_floats(kl, NORMAL);
    float *cs = random_floats(n * half, UNIFORM), *sn = random_floats(n * half, UNIFORM);
    const float huge = random_below(3) ? 1 : 1e25f;
    for (int64_t i = 0; i < n * width; i++) ckv[i] *= huge;
    CUDA_CASE("append: %d tokens, %d heads of %d + %d, latents of %d, %s times %g%s", (int)n, (int)heads,
              (int)nope, 2 * (int)half, (int)kl, pattern_name[pattern], (double)huge,
              bf16 ? ", bfloat16" : "");
    struct moe_cuda_append a = { .n = n, .heads = heads, .nope = nope, .rope = 2 * half, .kl = kl,
                                 .eps = 1e-6f, .bf16 = bf16 };
    const uint64_t at = upload_cache(cache, rows * width, bf16), size = bf16 ? 2 : 4;
    const int64_t layer = random_below(LAYERS) * MOE_PAGE * width;
    a.cache = (struct moe_cuda_latents){ .rows = at + size * (uint64_t)layer,
                                         .page = cuda_in(p.page, sizeof p.page),
                                         .segment = cuda_in(p.segment, 4 * (size_t)n),
                                         .pos = cuda_in(p.pos, 4 * (size_t)n),
                                         .page_step = LAYERS * MOE_PAGE * width, .table = TABLE,
                                         .width = width };
    a.q = cuda_inout(q, 4 * (size_t)qs), a.ckv = cuda_in(ckv, 4 * (size_t)(n * width));
    a.norm = cuda_in(norm, 4 * (size_t)kl);
    a.cosine = cuda_in(cs, 4 * (size_t)(n * half)), a.sine = cuda_in(sn, 4 * (size_t)(n * half));
    CUDA_LAUNCH(append, a);

    for (int64_t t = 0; t < n; t++) {
        float *row = cache + layer + row_of(&p, t) * width;
        for (int64_t h = 0; h < heads; h++)
            cuda_avx2.rope(q + (t * heads + h) * (nope + 2 * half) + nope, cs + t * half, sn + t * half,
                           half);
        cuda_avx2.rmsnorm(ckv + t * width, norm, 1e-6f, kl, row);
        memcpy(row + kl, ckv + t * width + kl, 4 * (size_t)(2 * half));
        cuda_avx2.rope(row + kl, cs + t * half, sn + t * half, half);
        for (int64_t i = 0; bf16 && i < width; i++) row[i] = round_bf16(row[i]);
    }
    compare_array("q", q, a.q, qs);
    compare_cache(cache, at, rows * width, bf16);
    cuda_free_all();
    free(q), free(ckv), free(cache), free(norm), free(cs), free(sn);
}

static void check_copy(bool bf16)
{
    const int64_t width = 1 + random_below(600), n = random_below(3) ? 1 + random_below(MOE_PAGE) : MOE_PAGE;
    const int64_t floats = 3 * LAYERS * MOE_PAGE * width, step = MOE_PAGE * width;
    float *cache = random_floats(floats, WITH_INF);
    const int64_t from = random_below(3), to = (from + 1) % 3;
    const uint64_t at = upload_cache(cache, floats, bf16);
    const int64_t size = bf16 ? 2 : 4;
    CUDA_CASE("copy_page: %" PRId64 " rows of %" PRId64, n, width);
    struct moe_cuda_copy_page a = { .from = at + (uint64_t)(from * LAYERS * step * size),
                                    .to = at + (uint64_t)(to * LAYERS * step * size),
                                    .layers = LAYERS, .layer_step = step, .rows = n, .width = width,
                                    .bf16 = bf16 };
    CUDA_LAUNCH(copy_page, a);
    for (int64_t l = 0; l < LAYERS; l++)
        memcpy(cache + (to * LAYERS + l) * step, cache + (from * LAYERS + l) * step, 4 * (size_t)(n * width));
    compare_cache(cache, at, floats, bf16);
    cuda_free_all();
    free(cache);
}

static void check(void)
{
    for (int i = 0; i < 18; i++) check_append((enum pattern)(i % PATTERNS), i % 4 == 3 || i == 7);
    for (int i = 0; i < 6; i++) check_copy(i % 2);
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
