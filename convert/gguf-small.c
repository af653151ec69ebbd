/* SPDX-License-Identifier: Apache-2.0 */
/* convert/gguf-small.c - weights whose scales are too small for the F16 numbers of ggml's Q6_K and Q4_0.
 *
 * Below 2^-14 an F16 has fewer and fewer bits, below 2^-25 none: an expert whose weights are small would be
 * rounded away.  The type of a tensor is part of the file's head, so it has to be known before the first
 * weight is written: what rounding will cost is estimated from how often each scale occurs, which takes the
 * scales alone.  What it does cost is measured while the weights are packed. */
#include "convert/gguf-internal.h"

#include "kernels/scales.h"

#include <math.h>

enum { POWER_LEAST = -64, POWER_MOST = 320 }; /* of what the values of a float32 could be multiplied by */

void moe_gguf_count_scales(const struct moe_tensor *t, const uint8_t *scales, size_t n, uint64_t count[256])
{
    if (t->type == MOE_NVFP4)
        for (size_t i = 0; i < n; i++) count[scales[i] & 0x7f]++;
    else /* BF16 or F16, two bytes each */
        for (int64_t i = 0; 2 * i + 1 < (int64_t)n; i++)
            count[moe_f32_bits(moe_scale_value(moe_dtypes[t->type].scale, scales, i)) >> 23 & 0xff]++;
}

/* The squared error of v > 0 as an F16. */
static double rounding(double v)
{
    double d = v - moe_gguf_f16(v);
    return d * d;
}

/* Of a block scale s times the factor as a multiple of Q6_K's d, the largest d that is tried: s
 * over twice its mantissa. */
static double q6_k_error(double s, double factor)
{
    int e;
    double per = 2 * floor(16 * frexp(s, &e));
    return rounding(s * factor / per) * per * per;
}

/* Of a BF16 scale with this exponent: the step there may be that of the number itself, or wider. */
static double q4_0_error(double least)
{
    double step = 0x1p-24;
    if (least * 0x1p-7 >= step) return 0;
    return least < step / 4 ? least * least : step * step / 12;
}

/* Whether a weight times 2^power is held to MOE_GGUF_ERROR_MOST. */
static bool holds(const struct moe_tensor *t, const uint64_t count[256], int power)
{
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
    if (moe_dtypes[t->type].scale == MOE_SCALE_F16) return 0; /* they are F16 numbers; larger ones are, too */
    while (c < 255 && !count[c]) c++;
    /* 2^(c - 127) has 7 bits below it, and 2^-24 is the last of an F16; 0: smaller still */
    return c ? 110 - c : POWER_MOST;
}

int moe_gguf_least_power(const struct moe_tensor *t, const uint64_t count[256])
{
    /* F16's grid above a power of two holds what that below it holds */
    int least = POWER_LEAST, most = POWER_MOST;
    /* F16 scales as they are lose nothing, however small */
    if (moe_dtypes[t->type].scale == MOE_SCALE_F16) most = 0;
    if (holds(t, count, least)) return least;
    while (most - least > 1) {
        int middle = least + (most - least) / 2;
        if (holds(t, count, middle)) most = middle;
        else least = middle;
    }
    return most;
}
