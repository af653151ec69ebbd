/* SPDX-License-Identifier: Apache-2.0 */
/* Checks moe_cuda_halves of two terms, and the products moe_cuda_dense_fast_*: bit for bit against their
 * order of sums in plain C, by whichever kernel and however many blocks; against the exact product within
 * the bound that kernels/cuda/dense-fast.h states. */
#include "tests/kernels/cuda-mma.h"
#include "tests/kernels/cuda-weight.h"

#include "kernels/cuda/dense-fast.h"
#include "kernels/scales.h"

/* ---- halves ---- */

/* The column of position i of a row of halves, by the words of kernels/cuda/halves.h. */
static int64_t column_at(enum moe_cuda_halves_kind kind, int64_t i)
{
    const int64_t half = i / 32 * 32, t = i % 32 / 8, v = i % 8;
    return kind == MOE_CUDA_HALVES_FP8 ? half + 4 * t + v / 4 * 16 + v % 4 : half + 2 * t + v / 2 * 8 + v % 2;
}
static float round_half(enum moe_cuda_halves_kind kind, float v)
{
    return kind == MOE_CUDA_HALVES_BF16 ? round_bf16(v) : round_f16(v);
}

static void check_halves(void)
{
    static const char *const name[] = { "", "", "bf16", "f16", "fp8" };
    for (int i = 0; i < 3 * PATTERNS; i++) {
        const enum moe_cuda_halves_kind kind = (enum moe_cuda_halves_kind)(MOE_CUDA_HALVES_BF16 + i % 3);
        struct moe_cuda_halves a = { .rows = 2, .n = 1 + random_below(600), .kind = kind };
        const int64_t columns = moe_cuda_halves_columns(a.n), pitch = moe_cuda_halves_pitch(kind, a.n) / 2;
        float x[2 * 610];
        uint16_t got[2 * 2 * 768];
        a.ldx = a.n + random_below(10);
        fill(x, a.ldx + a.n, (enum pattern)(i / 3));
        a.x = cuda_in(x, sizeof *x * (size_t)(a.ldx + a.n));
        a.halves = cuda_out(sizeof *got * 2 * (size_t)pitch);
        a.factors = cuda_out(2 * sizeof(float));
        CUDA_CASE("halves: %s, %" PRId64 " columns, %s", name[kind], a.n, pattern_name[i / 3]);
        CUDA_LAUNCH(halves, a);
        cuda_get(got, a.halves, sizeof *got * 2 * (size_t)pitch);
        for (int64_t t = 0; t < 2; t++) {
            float factor, want = halves_factor(x + t * a.ldx, a.n);
            cuda_get(&factor, a.factors + (uint64_t)t * 4, sizeof factor);
            cuda_compare("factor", &want, &factor, 1);
            for (int64_t at = 0; at < columns; at++) {
                const int64_t c = column_at(kind, at);
                const uint16_t *h = got + t * pitch + at / 64 * 128 + at % 64;
                float v = c < a.n && !isnan(want) ? x[t * a.ldx + c] / want : 0, high = round_half(kind, v);
                float first = kind == MOE_CUDA_HALVES_BF16 ? moe_bf16_to_f32(h[0]) : moe_f16_to_f32(h[0]);
                float rest = kind == MOE_CUDA_HALVES_BF16 ? moe_bf16_to_f32(h[64]) : moe_f16_to_f32(h[64]);
                CUDA_CHECK(first == high && rest == round_half(kind, v - high),
                           "column %" PRId64 " is %a + %a, and has to be %a", c, (double)first, (double)rest,
                           (double)v);
            }
        }
        cuda_free_all();
    }
}

/* ---- the reference ---- */

/* The code of W[row][col] as a number, without a scale. */
static float code_at(const struct moe_weight *w, int64_t row, int64_t col)
{
    const uint8_t *p = w->data;
    const int64_t i = row * w->cols + col;
    return w->type == MOE_BF16  ? moe_bf16_to_f32(moe_load_le16(p + 2 * i))
           : w->type == MOE_F16 ? moe_f16_to_f32(moe_load_le16(p + 2 * i))
                                : moe_e4m3_to_f32(p[i]);
}
static float scale_at(const struct moe_weight *w, int64_t row, int64_t col)
{
    const int64_t i = row / 128 * ((w->cols + 127) / 128) + col / 128;
    return w->scale ? moe_scale_value(moe_dtypes[w->type].scale, w->scale, i) : 1;
}

/* The sum of a group: w and the terms of x, [64]. */
static float sum_of_group(const float *w, const float *h, const float *l, int least)
{
    float c = 0;
    for (int k = 0; k < 64; k += 16) c = mma_sum(w + k, l + k, c, least);
    for (int k = 0; k < 64; k += 16) c = mma_sum(w + k, h + k, c, least);
    return c;
}

/* y of a row of W and a row of x, as the header says. */
static float want_of(const struct moe_weight *w, int64_t row, const float *x)
{
    const enum moe_cuda_halves_kind kind = w->type == MOE_BF16 ? MOE_CUDA_HALVES_BF16 : MOE_CUDA_HALVES_F16;
    const int64_t groups = (w->cols + 63) / 64, each = (groups + 7) / 8;
    const float factor = halves_factor(x, w->cols);
    float s = 0;
    for (int64_t p = 0; p < 8; p++) {
        float part = 0;
        for (int64_t g = p * each; g < (p + 1) * each && g < groups; g++) {
            float v[64], h[64], l[64];
            for (int64_t i = 0; i < 64; i++) {
                const int64_t c = g * 64 + i;
                const float of = c < w->cols && !isnan(factor) ? x[c] / factor : 0;
                v[i] = c < w->cols ? code_at(w, row, c) : 0;
                h[i] = round_half(kind, of), l[i] = round_half(kind, of - h[i]);
            }
            const float c = sum_of_group(v, h, l, w->type == MOE_BF16 ? -126 : -14);
            const bool scaled = moe_dtype_like(w->type) == MOE_FP8_B128;
            part = scaled ? fmaf(c, scale_at(w, row, g * 64), part) : part + c;
        }
        s = s + part;
    }
    return s * factor;
}

static void check_bound(const struct moe_weight *w, int64_t row, const float *x, double y)
{
    const int64_t each = ((w->cols + 63) / 64 + 7) / 8;
    double exact = 0, sum = 0, weights = 0, most = 0x1p-97;
    for (int64_t c = 0; c < w->cols; c++) {
        const double v = (double)code_at(w, row, c) * (double)scale_at(w, row, c);
        exact += v * (double)x[c], sum += fabs(v * (double)x[c]);
        weights += fabs(v), most = fmax(most, fabs((double)x[c]));
    }
    const double lost = w->type == MOE_BF16 ? 0x1p-17 : 0x1p-22;
    const double bound = (lost + 0x1p-17 + (double)(each + 9) * 0x1p-24) * sum + 0x1p-38 * most * weights;
    CUDA_CHECK(!isfinite(y) || !isfinite(sum) || fabs(y - exact) <= bound + 0x1p-149,
               "%g instead of %g is off by more than %g", y, exact, bound);
}

/* ---- products ---- */

static void launch(struct moe_cuda_dense_fast *a, const float *x, float *y)
{
    const size_t floats = (size_t)((a->n - 1) * a->ldy + a->w.rows);
    struct moe_cuda_halves h = { .rows = a->n, .n = a->w.cols, .ldx = a->w.cols };
    const struct moe_cuda_grid grid = moe_cuda_dense_fast_grid(a);
    const size_t tiles = (size_t)grid.x * grid.y;
    int32_t *done = calloc(tiles, sizeof *done);
    assert(done);
    h.kind = moe_cuda_dense_fast_kind(&a->w);
    h.x = cuda_in(x, sizeof *x * (size_t)(a->n * a->w.cols));
    h.halves = a->halves = cuda_out((size_t)(a->n * moe_cuda_halves_pitch(h.kind, h.n)));
    h.factors = a->factors = cuda_out(sizeof(float) * (size_t)a->n);
    CUDA_LAUNCH(halves, h);
    if (a->split > 1) {
        a->part = cuda_out(sizeof(float) * 8 * (size_t)(a->n * a->w.rows));
        a->done = cuda_inout(done, sizeof *done * tiles);
    }
    a->y = cuda_inout(y, sizeof *y * floats);
    cuda_launch(moe_cuda_dense_fast_kernel(a->n), grid, a, sizeof *a);
    cuda_get(y, a->y, sizeof *y * floats);
    if (a->split > 1) cuda_get(done, a->done, sizeof *done * tiles);
    for (size_t i = 0; i < tiles; i++) CUDA_CHECK(!done[i], "tile %zu is not ready for the next launch", i);
    free(done);
}

/* n tokens; of these `seen` are compared, and of each `each`-th row of W. */
static void check_product(int type, int64_t n, int64_t rows, int64_t cols, int split, bool any)
{
    const enum pattern pattern = (enum pattern)random_below(PATTERNS);
    struct moe_weight w = random_weight(type, rows, cols, any);
    struct moe_cuda_dense_fast a = { .w = cuda_weight(&w), .n = n, .ldy = rows + random_below(3) };
    const int64_t floats = (n - 1) * a.ldy + rows;
    a.split = split;
    float *x = malloc(sizeof *x * (size_t)(n * cols)), *y = malloc(sizeof *y * (size_t)floats);
    assert(x && y);
    for (int64_t t = 0; t < n; t++) fill(x + t * cols, cols, t % 3 == 2 ? NORMAL : pattern);
    for (int64_t i = 0; i < floats; i++) y[i] = 77;
    CUDA_CASE("dense_fast_%d: %s [%d x %d], %d tokens, split %d, %s%s", moe_cuda_dense_fast_tokens(n),
              moe_dtype_name(type), (int)rows, (int)cols, (int)n, split, pattern_name[pattern],
              any ? ", any codes" : "");
    launch(&a, x, y);
    const int64_t by = n > 40 ? 13 : n > 8 ? 5 : 1, step = rows > 60 ? 3 : 1;
    for (int64_t t = random_below(by); t < n; t += by)
        for (int64_t r = random_below(step); r < rows; r += step) {
            const float want = want_of(&w, r, x + t * cols);
            cuda_compare("y", &want, y + t * a.ldy + r, 1);
            if (!any) check_bound(&w, r, x + t * cols, (double)want);
        }
    for (int64_t i = 0; i < floats; i++)
        CUDA_CHECK(i % a.ldy < rows || same_bits(y + i, &(float){ 77 }, 1), "a value is written beside y");
    cuda_free_all();
    random_weight_free(&w);
    free(x), free(y);
}

/* Which kernel serves how many tokens, and how products are divided. */
static void check_division(void)
{
    for (int64_t n = 1; n < 300; n += 1 + n / 9)
        for (int64_t rows = 1; rows < 200000; rows += rows * 2) {
            struct moe_cuda_dense_fast a = { .w = { .rows = rows, .codes = MOE_CUDA_BF16 }, .n = n };
            CUDA_CASE("dense_fast: %" PRId64 " tokens, %" PRId64 " rows", n, rows);
            a.split = moe_cuda_dense_fast_split(&a, 132, 8 * n * rows);
            const struct moe_cuda_grid g = moe_cuda_dense_fast_grid(&a);
            const int tokens = moe_cuda_dense_fast_tokens(n), room = tokens <= 32 ? 264 : 132;
            CUDA_CHECK(g.x * tokens >= n && g.y * 128 >= rows, "a grid of %u x %u", g.x, g.y);
            CUDA_CHECK(g.shared <= (tokens <= 32 ? 113u : 226u) << 10, "%u bytes of shared memory", g.shared);
            CUDA_CHECK(a.split == 1 || (int)(g.x * g.y) * a.split <= room, "split %d", a.split);
            CUDA_CHECK(a.split == 8 || (int)(g.x * g.y) * a.split * 2 > room, "split %d", a.split);
            CUDA_CHECK(moe_cuda_dense_fast_split(&a, 132, 8 * n * rows - 1) == 1, "no room for parts");
        }
    static const struct moe_cuda_weight without[] = { { .codes = MOE_CUDA_F32, .cols = 64 },
                                                      { .codes = MOE_CUDA_BF16, .cols = 20 },
                                                      { .codes = MOE_CUDA_FP8, .cols = 24 } };
    for (int i = 0; i < 3; i++) CUDA_CHECK(!moe_cuda_dense_fast_has(&without[i]), "type or row %d", i);
}

static void check(void)
{
    static const uint8_t types[] = { MOE_BF16, MOE_F16, MOE_FP8_B128, MOE_BF16, MOE_FP8_B128_BF16,
                                     MOE_FP8_B128_E8M0 };
    static const int16_t rows[] = { 1, 31, 64, 128, 144, 260 }, cols[] = { 16, 48, 64, 144, 272, 528, 1040 },
                         least[] = { 1, 9, 33, 65 }, most[] = { 8, 32, 64, 140 };
    check_division();
    check_halves();
    for (int i = 0; i < 36; i++) {
        const int k = i % 4 == 3 && i % 8 != 3 ? 0 : i % 4; /* fewer of the largest */
        const int64_t n = least[k] + random_below(most[k] - least[k] + 1);
        check_product(types[i % 6], n, rows[random_below(6)], cols[random_below(7)],
                      1 << (random_below(2) ? 0 : random_below(4)), i % 7 == 6);
    }
    check_product(MOE_BF16, 3, 40, 8 * (1 + random_below(30)), 1, false);
    check_product(MOE_BF16, 2, 20, 2048, 4, false); /* parts of several groups */
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
