/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/checkkern-activations.h - checks that the variants of nvfp4_activations* give ref's bits,
 * and that ref gives what the rules of kernels.def say. */
#ifndef CHECKKERN_ACTIVATIONS_H
#define CHECKKERN_ACTIVATIONS_H

#include "tests/kernels/checkkern.h"

typedef void activations_fn(const float *x, int64_t n, float input_scale, float *out);

/* Against ref, into another buffer and in place. */
static void compare_activations(activations_fn *fn, activations_fn *ref, const float *x, int64_t n,
                                float scale)
{
    float *want = guarded_floats(n), *got = guarded_floats(n), *place = guarded_floats(n);
    memcpy(place, x, 4 * (size_t)n);
    ref(x, n, scale, want);
    fn(x, n, scale, got);
    fn(place, n, scale, place);
    for (int64_t i = 0; i < n; i++)
        CHECK((moe_f32_bits(want[i]) == moe_f32_bits(got[i]) &&
               moe_f32_bits(want[i]) == moe_f32_bits(place[i])) ||
                  (isnan(want[i]) && isnan(got[i]) && isnan(place[i])),
              "[%" PRId64 "] of %a under %a: %a, in place %a, ref %a", i, (double)x[i], (double)scale,
              (double)got[i], (double)place[i], (double)want[i]);
}

/* The e4m3 value nearest to `want`, found by trying all codes. */
static float nearest_scale(float want)
{
    float s = 0;
    for (int c = 0; c <= 126; c++) {
        float e = moe_e4m3_to_f32((uint8_t)c);
        double d = fabs((double)e - (double)want), best = fabs((double)s - (double)want);
        if (d < best || (d == best && c % 2 == 0)) s = e;
    }
    return s;
}

/* Whether out is the block x under that scale: no e2m1 code is nearer for any element. */
static bool is_nearest(const float *x, float s, float scale, const float *out)
{
    float r = s * scale > 0 ? 1 / (s * scale) : 0;
    for (int i = 0; i < 16; i++) {
        double a = fabs((double)x[i]) * (double)r,
               got = s * scale > 0 ? fabs((double)out[i]) / (double)(s * scale) : 0, least = INFINITY;
        for (int c = 0; c < 8; c++) least = fmin(least, fabs((double)moe_e2m1_to_f32((uint8_t)c) - a));
        if (s > 0 ? !(fabs(got - a) <= least + 1e-6 * a) : out[i] != 0) return false;
        if (signbit(out[i]) != signbit(x[i])) return false;
    }
    return true;
}

/* The squared error of a block under that scale, every element on its nearest code. */
static double least_lost(const float *x, float s, float scale)
{
    double sum = 0;
    for (int i = 0; i < 16; i++) {
        double a = fabs((double)x[i]), least = a;
        for (int c = 0; c < 8; c++)
            least = fmin(least, fabs((double)(moe_e2m1_to_f32((uint8_t)c) * (s * scale)) - a));
        sum += least * least;
    }
    return sum;
}

static void check_meaning(const float *x, float scale, const float *out)
{
    float s = nearest_scale((1 / scale) * (variants[REF].k.amax(x, 16) * (1 / 6.0f)));
    CHECK(is_nearest(x, s, scale, out), "scale %a * %a: %a ...", (double)s, (double)scale, (double)out[0]);
}

/* out is one of the two blocks that the rule allows, and no worse than the other. */
static void check_meaning_46(const float *x, float scale, const float *out)
{
    scale *= 448 / 256.0f;
    float amax = variants[REF].k.amax(x, 16), six = nearest_scale((1 / scale) * (amax * (1 / 6.0f))),
          four = nearest_scale((1 / scale) * (amax * (1 / 4.0f)));
    double lost = 0, none = 0;
    CHECK(is_nearest(x, six, scale, out) || is_nearest(x, four, scale, out),
          "neither scale %a nor %a (* %a): %a ...", (double)six, (double)four, (double)scale, (double)out[0]);
    variants[REF].k.sqerr(x, out, 16, &lost, &none);
    double least = fmin(least_lost(x, six, scale), least_lost(x, four, scale));
    CHECK(lost <= least * (1 + 1e-5), "scales %a, %a * %a: %g lost, %g at least", (double)six, (double)four,
          (double)scale, lost, least);
}

/* out is one of the blocks that six scales give, and no worse than the others. */
static void check_meaning_search(const float *x, float scale, const float *out)
{
    static const int off[] = { -1, 0, 1, 4, 5, 6 };
    scale *= 448 / 256.0f;
    float six = nearest_scale((1 / scale) * (variants[REF].k.amax(x, 16) * (1 / 6.0f)));
    double lost = 0, none = 0, least = INFINITY;
    bool one = variants[REF].k.amax(x, 16) > 0 ? false : is_nearest(x, 0, scale, out);
    int c = 0;
    while (moe_e4m3_to_f32((uint8_t)c) < six) c++;
    for (int i = 0; i < 6; i++) {
        int k = c + off[i] < 1 ? 1 : c + off[i] > 126 ? 126 : c + off[i];
        float s = moe_e4m3_to_f32((uint8_t)k);
        one = one || is_nearest(x, s, scale, out);
        least = fmin(least, least_lost(x, s, scale));
    }
    CHECK(one, "none of the scales about code %d (* %a): %a ...", c, (double)scale, (double)out[0]);
    variants[REF].k.sqerr(x, out, 16, &lost, &none);
    CHECK(lost <= least * (1 + 1e-5), "code %d, * %a: %g lost, %g at least", c, (double)scale, lost, least);
}

/* Difficult rows of every pattern against ref; then some blocks against what the rules say (`meaning`). */
static void check_activations(activations_fn *fn, activations_fn *ref,
                              void (*meaning)(const float *x, float scale, const float *out))
{
    static const float scales[] = { 1, 0x1p-126f, 0x1p-140f, 0x1p100f, 1e-3f, 0.0137f, 3.3e-7f, 2.9f };
    static float x[16], out[16];
    for (int i = 0; i < 600; i++) {
        int64_t n = 16 * random_below(40);
        enum pattern p = (enum pattern)(i % PATTERNS);
        float *in = guarded_floats(n),
              scale = random_below(2) ? scales[random_below(8)]
                                      : ldexpf(1 + fabsf(random_uniform()), -(int)random_below(24));
        fill(in, n, p);
        for (int64_t k = 0; k < n; k++) /* blocks from far below the scale to clipped */
            if (i % 3 == 0) in[k] *= ldexpf(scale, (int)(k / 16 * 7 % 24) - 12);
        for (int j = random_below(5) ? 0 : 2; n && j; j--) in[random_below(n)] = j == 1 ? NAN : -INFINITY;
        snprintf(now_case, sizeof now_case, "%" PRId64 " values, %s", n, pattern_name[p]);
        compare_activations(fn, ref, in, n, scale);
        free_buffers();
    }
    for (int i = 0; i < 2000; i++) {
        float scale = ldexpf(1 + fabsf(random_uniform()), -(int)random_below(20));
        fill(x, 16, (enum pattern)(i % 2 ? NORMAL : TIES));
        for (int k = 0; k < 16; k++) x[k] *= ldexpf(scale, (int)(i % 26) - 13);
        snprintf(now_case, sizeof now_case, "meaning %d", i);
        fn(x, 16, scale, out);
        meaning(x, scale, out);
    }
}

static void check_nvfp4_activations(const struct variant *v)
{
    check_activations(v->k.nvfp4_activations, variants[REF].k.nvfp4_activations, check_meaning);
}
static void check_nvfp4_activations_46(const struct variant *v)
{
    check_activations(v->k.nvfp4_activations_46, variants[REF].k.nvfp4_activations_46, check_meaning_46);
}
static void check_nvfp4_activations_search(const struct variant *v)
{
    check_activations(v->k.nvfp4_activations_search, variants[REF].k.nvfp4_activations_search,
                      check_meaning_search);
}

#endif
