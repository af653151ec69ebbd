/* SPDX-License-Identifier: Apache-2.0 */
/* Checks that a GPU rounds activations to NVFP4 as the AVX2 kernels do, bit for bit: with one scale, the
 * better of two and the best of six; for values far below and far above the scale, ties, denormals,
 * infinities and NaN; for rows with one scale and for rows with each its own; in place and not. */
#include "tests/kernels/cuda-harness.h"

#include "kernels/cuda/activations.h"

enum { ROWS = 4, COLS = 640, SCALES = 5 };
static float x[ROWS * (COLS + 4)], got[ROWS * (COLS + 4)], want[COLS];


static float a_scale(void)
{
    static const float scales[] = { 1, 0x1p-126f, 0x1p-140f, 0x1p100f, 1e-3f, 0.0137f, 3.3e-7f, 2.9f, 0 };
    if (random_below(2)) return scales[random_below(9)];
    return ldexpf(1 + fabsf(random_uniform()), -(int)random_below(24));
}

enum kind { PLAIN, QUARTERS, MIDWAY, SUBNORMAL, WILD, ZEROS, SPIKE, BROKEN, KINDS };

/* Value i of a row whose scale is about s: blocks lie from far below the scale to beyond its range.  MIDWAY:
 * where s is a power of two, the scale of a block lies midway between two values of E4M3. */
static float number(enum kind p, int64_t i, float s)
{
    const float by = ldexpf(s > 0 ? s : 1, (int)(i / 16 * 7 % 24) - 12);
    switch (p) {
    case PLAIN: return random_uniform() * by;
    case QUARTERS: return (float)(random_below(49) - 24) * .25f * by;
    case MIDWAY: return i % 16 == 2 ? 6 * (float)(17 + 2 * random_below(8)) / 16 * by : random_uniform() * by;
    case SUBNORMAL: return (float)(random_below(1 << 22) - (1 << 21)) * 0x1p-149f;
    case WILD: return ldexpf(random_uniform(), (int)random_below(200) - 100);
    case ZEROS: return random_below(2) ? 0.f : -0.f;
    case SPIKE: return i % 16 == 3 ? 3e4f * s : random_uniform() * s;
    default: return random_below(100) ? random_uniform() * by : random_below(2) ? NAN : -INFINITY;
    }
}

static void (*kernel_of(enum moe_cuda_act method))(const float *, int64_t, float, float *)
{
    return method == MOE_CUDA_ACT_ONE ? cuda_avx2.nvfp4_activations
         : method == MOE_CUDA_ACT_46  ? cuda_avx2.nvfp4_activations_46
                                      : cuda_avx2.nvfp4_activations_search;
}

struct rows { int64_t n, cols, share, ld; bool own, in_place; };

/* With `own`, row t has scale which[t] of `scales`; else all have scales[0]. */
static void run(enum moe_cuda_act method, const struct rows *r, const float *scales, const int32_t *which)
{
    const size_t bytes = 4 * (size_t)(r->n * r->ld);
    struct moe_cuda_activations a = { .rows = r->n, .n = r->cols, .share = r->share, .ldx = r->ld,
                                      .ldo = r->ld, .method = method };
    a.x = r->in_place ? cuda_inout(x, bytes) : cuda_in(x, bytes);
    a.out = r->in_place ? a.x : cuda_inout(x, bytes); /* what lies between rows has to stay */
    a.input_scale = r->own ? NAN : scales[0];
    if (r->own) {
        a.scales = cuda_in(scales, 4 * SCALES);
        a.which = cuda_in(which, 4 * (size_t)r->n);
    }
    CUDA_LAUNCH(activations, a);
    cuda_get(got, a.out, bytes);
    cuda_free_all();
}

static void compare(enum moe_cuda_act method, const struct rows *r, const float *scales,
                    const int32_t *which)
{
    for (int64_t i = 0; i < r->n * r->ld; i++) {
        const int64_t t = i / r->ld, c = i % r->ld, from = t / r->share * r->ld;
        const float s = scales[which[t]];
        if (c == 0 && s > 0) kernel_of(method)(x + from, r->cols, s, want);
        const float right = c >= r->cols ? x[i] : s > 0 ? want[c] : x[from + c];
        CUDA_CHECK(same_bits(&got[i], &right, 1),
                   "value %" PRId64 " of row %" PRId64 ", %a under %a, becomes %a, and not %a", c, t,
                   (double)x[from + c], (double)s, (double)got[i], (double)right);
    }
}

static void check_kind(enum moe_cuda_act method, enum kind p)
{
    const int64_t cols = 16 * (1 + random_below(COLS / 16)),
                  share = random_below(3) ? 1 : 1 + random_below(ROWS);
    const struct rows r = { .n = 1 + random_below(ROWS),
                            .cols = cols,
                            .share = share,
                            .ld = cols + random_below(4),
                            .own = random_below(2),
                            .in_place = share == 1 && random_below(2) };
    float scales[SCALES];
    int32_t which[ROWS];
    for (int i = 0; i < SCALES; i++) scales[i] = a_scale();
    for (int64_t t = 0; t < r.n; t++) which[t] = r.own ? (int32_t)random_below(SCALES) : 0;
    for (int64_t i = 0; i < r.n * r.ld; i++) x[i] = number(p, i % r.ld, scales[which[i / r.ld]]);
    CUDA_CASE("activations: method %d, kind %d, %" PRId64 " rows of %" PRId64 ", %" PRId64 " of one x%s%s",
              (int)method, (int)p, r.n, cols, share, r.own ? ", each its scale" : "",
              r.in_place ? ", in place" : "");
    run(method, &r, scales, which);
    compare(method, &r, scales, which);
}

static void check(void)
{
    for (int i = 0; i < 30; i++)
        for (int k = 0; k < KINDS; k++)
            for (int method = 0; method < 3; method++) check_kind((enum moe_cuda_act)method, (enum kind)k);
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
