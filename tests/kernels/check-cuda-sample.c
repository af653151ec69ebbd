/* SPDX-License-Identifier: Apache-2.0 */
/* Checks that a GPU draws the tokens that moe_sample draws: for vocabularies of one id and of many, for ties,
 * infinities and logits that all weigh nothing, and for every way to cut tokens off. */
#include "tests/kernels/cuda-harness.h"

#include "kernels/cuda/sample.h"
#include "kernels/sample.h"

enum { ROWS = 8, MOST = 163840 };
static float logits[ROWS * (MOST + 3)], scratch[MOST];
static int32_t order[MOST];

static float one_of(const float *v, int64_t n) { return v[random_below(n)]; }

/* ---- inputs ---- */

enum kind { WIDE, NARROW, STEPS, EQUAL, TWO, HOLES, NOTHING, OVER, HUGE_ONES, TINY, PEAK, KINDS };
static const char *const name_of[] = { "wide",    "narrow", "steps", "equal", "two",  "holes",
                                       "nothing", "over",   "huge",  "tiny",  "peak" };

/* The sum of three uniform numbers: many ids near the middle, few far above it. */
static float bell(void)
{
    return (float)(.5 * (double)(random_uniform() + random_uniform() + random_uniform()));
}

static float logit(enum kind p, int64_t i)
{
    switch (p) {
    case WIDE: return 20 * bell();
    case NARROW: return bell() * .01f;
    case STEPS: return floorf(6 * bell()) * .5f;
    case EQUAL: return -3;
    case TWO: return random_below(2) ? 1.f : 1.25f;
    case HOLES: return random_below(3) ? -INFINITY : 8 * bell();
    case NOTHING: return -INFINITY;
    case OVER: return random_below(9) ? bell() : INFINITY;
    case HUGE_ONES: return bell() * 2e38f;
    case TINY:
        if (random_below(2)) return random_below(2) ? 0.f : -0.f;
        return (float)(random_below(5) - 2) * 0x1p-149f;
    default: return i % 977 == 5 ? 30 : bell();
    }
}

static struct moe_cuda_drawing drawing(int64_t n)
{
    static const float temperature[] = { 1, 1, .6f, 1.7f, 0, -1, 1e-3f, 1e-38f, 0x1p-149f, 100, 3e38f };
    static const float top_p[] = { 0, 0, 1, .95f, .5f, .1f, 1e-12f, .999999f, 0x1.fffffep-1f };
    static const float min_p[] = { 0, 0, .02f, .5f, 1, 1.5f };
    const int64_t top_k[] = { 0, 0, 1, 2, 40, n - 1, n, n + 1, 1 + random_below(n), -1 };
    const uint64_t draw[] = { 0, UINT64_MAX, 1, (uint64_t)1 << 63 };
    struct moe_cuda_drawing d = { one_of(temperature, 11), one_of(top_p, 9), one_of(min_p, 6), 0,
                                  top_k[random_below(10)], draw[random_below(4)] };
    if (random_below(4)) d.draw = moe_draw(7, 0, random_below(1 << 30));
    return d;
}

/* ---- the check ---- */

static void run(int64_t rows, int64_t n, int64_t ld, const struct moe_cuda_drawing *d, int32_t *ids)
{
    const size_t chunks = (size_t)(rows * moe_cuda_sample_chunks(n));
    struct moe_cuda_sample a = { .rows = rows, .n = n, .ld = ld };
    a.logits = cuda_in(logits, sizeof(float) * (size_t)((rows - 1) * ld + n));
    a.drawing = cuda_in(d, sizeof *d * (size_t)rows);
    a.ids = cuda_out(sizeof *ids * (size_t)rows);
    a.most = cuda_out(sizeof(uint64_t) * chunks);
    a.weight = cuda_out(sizeof(uint64_t) * chunks * MOE_CUDA_SAMPLE_PARTS);
    a.count = cuda_out(sizeof(uint32_t) * chunks * MOE_CUDA_SAMPLE_PARTS);
    cuda_launch(MOE_CUDA_sample_max, moe_cuda_sample_chunk_grid(&a), &a, sizeof a);
    cuda_launch(MOE_CUDA_sample_weigh, moe_cuda_sample_chunk_grid(&a), &a, sizeof a);
    CUDA_LAUNCH(sample_pick, a);
    cuda_get(ids, a.ids, sizeof *ids * (size_t)rows);
    cuda_free_all();
}

/* Draws from rows of logits as d [rows] says, and compares. */
static void compare(const char *what, int64_t rows, int64_t n, int64_t ld, const struct moe_cuda_drawing *d)
{
    int32_t got[ROWS];
    run(rows, n, ld, d, got);
    for (int64_t r = 0; r < rows; r++) {
        const struct moe_sampler s = { d[r].temperature, d[r].top_p, d[r].min_p, d[r].top_k };
        int32_t want = moe_sample(&s, d[r].draw, logits + r * ld, n, order, scratch);
        CUDA_CASE("sample: %s logits, %" PRId64 " ids, temperature %a, top_p %a, min_p %a, top_k %" PRId64
                  ", draw %" PRIx64, what, n, (double)s.temperature, (double)s.top_p, (double)s.min_p,
                  s.top_k, d[r].draw);
        CUDA_CHECK(want == got[r], "row %" PRId64 " gives id %d, and has to give %d", r, got[r], want);
    }
}

static void check_kind(int64_t rows, int64_t n, enum kind p)
{
    const int64_t ld = n + random_below(4);
    struct moe_cuda_drawing d[ROWS];
    for (int64_t i = 0; i < rows * ld; i++) logits[i] = logit(p, i % ld);
    for (int64_t r = 0; r < rows; r++) d[r] = drawing(n);
    compare(name_of[p], rows, n, ld, d);
}

/* Nothing is cut off, so that the token can be anywhere. */
static void check_uncut(int64_t n)
{
    struct moe_cuda_drawing d[ROWS];
    for (int64_t i = 0; i < ROWS * n; i++) logits[i] = 2 * bell();
    for (int64_t r = 0; r < ROWS; r++)
        d[r] = (struct moe_cuda_drawing){ .temperature = 1.2f, .draw = moe_draw(1, 0, r) };
    compare("uncut", ROWS, n, n, d);
}

/* The last id that top_p leaves is of a part of the sum that is below 1: one logit weighs 2^40, one about
 * 2^16, and the others 1 each, so that top_p, which is 2^-24 below 1, ends among them. */
static void check_last(void)
{
    const int64_t n = 70002;
    const struct moe_cuda_drawing d = { .temperature = 1, .top_p = 0x1.fffffep-1f, .draw = UINT64_MAX };
    for (int64_t i = 0; i < n; i++) logits[i] = i == 9 ? 0 : i == 99 ? -16.6f : -27.5f;
    compare("last", 1, n, n, &d);
}

static void check(void)
{
    static const int64_t sizes[] = { 1, 2, 3, 31, 64, 100, 300, 1000 };
    /* a chunk, its neighbours, and more ids than a list has room for */
    static const int64_t large[] = { 2048, 2049, 4095, 4096, 4097, 9000 };
    for (int i = 0; i < 2 * 8; i++)
        for (int k = 0; k < KINDS; k++) check_kind(1 + random_below(3), sizes[i % 8], (enum kind)k);
    for (int i = 0; i < 2 * 6; i++)
        for (int k = 0; k < KINDS; k++) check_kind(1, large[i % 6], (enum kind)k);
    check_uncut(4097);
    check_uncut(20000);
    check_last();
    check_kind(2, MOST, WIDE);
    check_kind(1, MOST, STEPS);
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
