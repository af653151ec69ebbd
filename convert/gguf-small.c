/* SPDX-License-Identifier: Apache-2.0 */
/* convert/gguf-small.c - weights whose scales are too small for the F16 numbers of ggml's Q6_K and Q4_0.
 *
 * Below 2^-14 an F16 has fewer and fewer bits, and below 2^-25 it is 0, so the weights of an expert that are
 * small would be lost.  The type of a tensor is part of the file's head and must be known before the first
 * weight is written.  So the error of rounding the scales is estimated beforehand from how often each scale
 * occurs, without reading codes.  The true error is measured while the weights are packed. */
#include "convert/gguf-internal.h"

#include "kernels/scales.h"

#include <math.h>

enum { POWER_LEAST = -64, POWER_MOST = 320 }; /* the powers of two that are tried */

void moe_gguf_count_scales(const struct moe_tensor *t, const uint8_t *scales, size_t n, uint64_t count[256])
{
    if (t->type == MOE_NVFP4)
        for (size_t i = 0; i < n; i++) count[scales[i] & 0x7f]++;
    else /* BF16 or F16, two bytes each */
        for (int64_t i = 0; 2 * i + 1 < (int64_t)n; i++)
            count[moe_f32_bits(moe_scale_value(moe_dtypes[t->type].scale, scales, i)) >> 23 & 0xff]++;
}

/* The squared error of v > 0 as an F16. */
static double f16_error(double v)
{
    double d = v - moe_gguf_round_f16(v);
    return d * d;
}

/* The squared error of the block scale s * factor as a multiple of Q6_K's d, under the largest d that
 * moe_gguf_pack_q6_k tries: s * factor over twice the mantissa (8 to 15) of s. */
static double q6_k_error(double s, double factor)
{
    int e;
    double per = 2 * floor(16 * frexp(s, &e));
    return f16_error(s * factor / per) * per * per;
}

/* The expected squared error of a BF16 scale from `least`, a power of two, to 2 * least as an F16 of step
 * 2^-24: 0 where BF16's own step is no smaller, the square of the scale where it becomes 0, else that of
 * rounding to this step. */
static double q4_0_error(double least)
{
    double step = 0x1p-24;
    if (least * 0x1p-7 >= step) return 0;
    return least < step / 4 ? least * least : step * step / 12;
}

/* Whether the expected relative error of a weight times 2^power, whose scales occur count[] times each, is at
 * most MOE_GGUF_ERROR_MOST. */
static bool is_accurate(const struct moe_tensor *t, const uint64_t count[256], int power)
{
    /* c is the code of an NVFP4 scale (127 is NaN), or the exponent of another one (255 is Inf or NaN) */
    double num = 0, den = 0, global = (double)t->global;
    double factor = ldexp(t->type != MOE_NVFP4 ? 1 : fabs(t->reciprocal ? 1 / global : global), power);
    for (int c = 1; c < (t->type == MOE_NVFP4 ? 127 : 255); c++) {
        double n = (double)count[c];
        double v = t->type == MOE_NVFP4 ? (double)moe_e4m3_to_f32((uint8_t)c) : ldexp(1, c - 127);
        if (!count[c]) continue;
        num += n * (t->type == MOE_NVFP4 ? q6_k_error(v, factor) : q4_0_error(v * factor));
        den += n * v * v * factor * factor;
    }
    return num <= MOE_GGUF_ERROR_MOST * MOE_GGUF_ERROR_MOST * den;
}

int moe_gguf_exact_power(const struct moe_tensor *t, const uint64_t count[256])
{
    int c = 0;
    if (moe_dtypes[t->type].scale == MOE_SCALE_F16) return 0; /* F16 scales are exact at this and more */
    while (c < 255 && !count[c]) c++;
    /* c is the smallest exponent.  BF16 has 7 bits below 2^(c - 127), of which the last must not be below
     * 2^-24, the last of F16.  c = 0 is a subnormal, whose bits are smaller still. */
    return c ? 110 - c : POWER_MOST;
}

int moe_gguf_least_power(const struct moe_tensor *t, const uint64_t count[256])
{
    /* A larger power never increases the error, so a binary search finds the least. */
    int least = POWER_LEAST, most = POWER_MOST;
    /* F16 scales are exact without a power, however small they are */
    if (moe_dtypes[t->type].scale == MOE_SCALE_F16) most = 0;
    if (is_accurate(t, count, least)) return least;
    while (most - least > 1) {
        int middle = least + (most - least) / 2;
        if (is_accurate(t, count, middle)) most = middle;
        else least = middle;
    }
    return most;
}
