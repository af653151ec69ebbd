/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/cuda-mma.h - one result of mma.m16n8k16 of float16 or bfloat16 in plain C, for the references
 * of fast products; and float16.
 *
 * The rounding is that of tests/shim/cuda/mma.c, stated in doubles: products are exact, and each has the sum
 * of its operands' exponents; all 16 and c are cut toward zero 25 bits below the largest exponent, added
 * exactly, and the sum is rounded toward zero to float32. */
#ifndef CUDA_MMA_H
#define CUDA_MMA_H

#include "kernels/scalar.h"

#include <math.h>
#include <stdint.h>

/* The operands as floats; `least`: the smallest exponent of their type, -14 or -126. */
static inline int exponent_of(float v, int least)
{
    int e = v == 0 ? least : ilogbf(v);
    return e < least ? least : e;
}

static inline float mma_sum(const float *a, const float *b, float c, int least)
{
    double sum = 0, plain = (double)c;
    int most = c == 0 ? -133 : exponent_of(c, -126), e[16];
    for (int k = 0; k < 16; k++) plain += (double)a[k] * (double)b[k];
    if (!isfinite(plain)) return (float)plain;
    for (int k = 0; k < 16; k++) {
        e[k] = a[k] == 0 || b[k] == 0 ? -133 : exponent_of(a[k], least) + exponent_of(b[k], least);
        most = e[k] > most ? e[k] : most;
    }
    const double unit = ldexp(1, most - 25);
    for (int k = 0; k < 16; k++) sum += trunc((double)a[k] * (double)b[k] / unit);
    sum = (sum + trunc((double)c / unit)) * unit;
    if (sum == 0) return 0;
    if (fabs(sum) >= 0x1p128) return sum < 0 ? -INFINITY : INFINITY;
    float f = (float)sum; /* to nearest; one step back where that was away from zero */
    if (fabs((double)f) > fabs(sum)) f = nextafterf(f, 0);
    return f;
}

/* x rounded to float16, to nearest, ties to even.  x is smaller than 2^16 - 2^4. */
static inline float round_f16(float x)
{
    if (x == 0) return x;
    int e = ilogbf(x);
    const float unit = ldexpf(1, (e < -14 ? -14 : e) - 10);
    return rintf(x / unit) * unit;
}
static inline float round_bf16(float x) { return moe_bf16_to_f32(moe_f32_to_bf16(x)); }

/* The factor of a row of halves (kernels/cuda/halves.h). */
static inline float halves_factor(const float *x, int64_t n)
{
    float most = 0x1p-97f;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return NAN;
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    }
    return ldexpf(1, ilogbf(most) - 14);
}

#endif
