/* SPDX-License-Identifier: Apache-2.0 */
/* tests/gen/genmodel-values.h - the numbers of a generated model.  Included once, by genmodel.c.
 *
 * A weight is a pure function of (seed, canonical tensor name, row, column): the layout, the prefix, the
 * number of shards and threads do not enter, so that every format stores (its rounding of) the same model.
 *
 *     w[r][c] = sigma * row(r) * column(c) * t      t: Student's t with 4 degrees of freedom, unit variance,
 *                                                      cut at the 2^-17 quantile (15 sigma)
 *
 * row() and column() are log-normal, and one column in 256 is an outlier channel, four times as large; the
 * columns of tensors that read the residual stream have the same outlier channels in the whole model. */
#include "kernels/scalar.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}
static uint64_t mix2(uint64_t key, uint64_t i) { return mix(key + (i + 1) * 0x9e3779b97f4a7c15u); }
static uint64_t mix_text(uint64_t key, const char *s)
{
    for (; *s; s++) key = mix2(key, (unsigned char)*s);
    return key;
}

/* Nearly normal: the sum of four uniform 16-bit numbers, unit variance, within +-3.5. */
static double normal_of(uint64_t h)
{
    double sum = 0;
    for (int i = 0; i < 4; i++) sum += (double)(h >> 16 * i & 0xffff) + 0.5;
    return (sum / 65536 - 2) * sqrt(3.0);
}

/* Quantiles of Student's t, 4 degrees of freedom (closed form), divided by its deviation sqrt(2). */
static float t_table[65536];
static void t_table_fill(void)
{
    for (int i = 0; i < 65536; i++) {
        double p = (i + 0.5) / 65536, a = sqrt(4 * p * (1 - p));
        double q = sqrt(fmax(cos(acos(a) / 3) / a - 1, 0)) * 2 / sqrt(2.0);
        t_table[i] = (float)(i < 32768 ? -q : q);
    }
}

/* The standard normal's upper quantile: x with P(N > x) = p. */
static double normal_above(double p)
{
    double lo = -8, hi = 8;
    for (int i = 0; i < 60; i++) {
        double mid = (lo + hi) / 2;
        if (0.5 * erfc(mid / sqrt(2.0)) > p) lo = mid; else hi = mid;
    }
    return (lo + hi) / 2;
}

static float row_scale(uint64_t key, int64_t r)
{
    return (float)exp(0.15 * normal_of(mix2(key ^ 0x726f77, (uint64_t)r)));
}

static void column_scales(uint64_t key, int64_t cols, float *out)
{
    for (int64_t c = 0; c < cols; c++) {
        uint64_t h = mix2(key ^ 0x636f6c, (uint64_t)c);
        out[c] = (float)exp(0.2 * normal_of(h) - 0.07) * (mix(h) % 256 ? 1.0f : 4.0f);
    }
}

static void fill_row(uint64_t key, int64_t r, int64_t cols, float sigma, const float *column, float *out)
{
    uint64_t rk = mix2(key, (uint64_t)r);
    float s = sigma * row_scale(key, r);
    int64_t c = 0;
    for (; c + 4 <= cols; c += 4) {
        uint64_t h = mix2(rk, (uint64_t)c);
        for (int j = 0; j < 4; j++) out[c + j] = s * column[c + j] * t_table[h >> 16 * j & 0xffff];
    }
    uint64_t h = mix2(rk, (uint64_t)c);
    for (int j = 0; c + j < cols; j++) out[c + j] = s * column[c + j] * t_table[h >> 16 * j & 0xffff];
}

/* ---- hostile experts: what a quantizer may meet.  By expert % HOSTILE_KINDS; see the
 * cases ------------------- */

enum { HOSTILE_KINDS = 12 };

/* Codes halfway between two E2M1 values under a scale that is a power of two; `top`
 * is the tensor's amax / 6. */
static void tie_block(uint64_t h, bool first, float top, float *v)
{
    static const float tie[8] = { .25f, .75f, 1.25f, 1.75f, 2.5f, 3.5f, 5, 6 };
    float s = ldexpf(1, (int)(h % 14) - 6) * 0x1p-10f;
    for (int j = 0; j < 16; j++) {
        uint64_t g = mix2(h, (uint64_t)j);
        v[j] = (g & 8 ? -s : s) * tie[j ? g & 7 : 7];
    }
    if (first) v[0] = 6 * top * 0x1p-10f;
}

static void hostile_block(int expert, int part, uint64_t h, bool first, float *v)
{
    int shift = (int)(h >> 32 & 0xffff);
    switch (expert % HOSTILE_KINDS) {
    case 0: /* blocks of zeros of either sign between ordinary ones */
        for (int j = 0; j < 16 && h % 4 == 0; j++) v[j] = h & 16 ? -0.0f : 0.0f;
        return;
    case 1: /* one of the three tensors is all zero */
    case 2: /* all three are */
        for (int j = 0; j < 16 && (part == 0 || expert % HOSTILE_KINDS == 2); j++) v[j] = 0;
        return;
    case 3: /* around and below FLT_MIN */
        for (int j = 0; j < 16; j++) v[j] *= 0x1p-122f;
        return;
    case 4: tie_block(h, first, 448, v); return; /* exact ties under the global of max ... */
    case 5: tie_block(h, first, 256, v); return; /* ... and of four-over-six */
    case 6: /* huge outliers */
        if (h % 64 == 0) v[h >> 8 & 15] *= 4096;
        return;
    case 7: /* every block its own magnitude */
        for (int j = 0; j < 16; j++) v[j] = ldexpf(v[j], -(shift % 40));
        return;
    case 8: /* block scales that are subnormal e4m3 numbers */
        for (int j = 0; j < 16 && !first; j++) v[j] = ldexpf(v[j], -8 - shift % 10);
        if (first) v[0] = 1;
        return;
    case 9: /* near the top of float32 */
        for (int j = 0; j < 16; j++) v[j] = fminf(fmaxf(v[j] * 0x1p126f, -3e38f), 3e38f);
        if (first) v[0] = 3e38f;
        return;
    case 10: /* one large value among tiny ones of both signs, which round to 0 and -0 */
        for (int j = 0; j < 16; j++)
            v[j] = j == (int)(h & 15) ? 1.0f : mix2(h, (uint64_t)j) % 8 ? v[j] * 1e-3f : -0.0f;
        return;
    case 11: /* one magnitude in the whole block */
        for (int j = 0; j < 16; j++) v[j] = ldexpf(mix2(h, (uint64_t)j) & 1 ? 1.0f : -1.0f, -(shift % 24));
        return;
    }
}

/* ---- the encodings; kernels/scalar.h has those of one value ---- */

/* Signed E4M3, nearest, ties to even, saturating at 448. */
static uint8_t to_e4m3(float v)
{
    float a = fminf(fabsf(v), 448.0f);
    uint8_t sign = signbit(v) ? 0x80 : 0;
    if (a < 0x1p-6f) return (uint8_t)(sign | (uint8_t)lrintf(a * 512.0f));
    uint32_t u = moe_f32_bits(a);
    u += 0x7ffff + (u >> 20 & 1);
    return (uint8_t)(sign | (uint8_t)((u >> 20) - (120u << 3)));
}

/* `rows` <= 128 rows of blocks of 128 columns -> codes, and one row of scales. */
static void encode_fp8(const float *v, int64_t rows, int64_t cols, uint8_t *codes, float *scales)
{
    for (int64_t b = 0; b * 128 < cols; b++) {
        int64_t c1 = b * 128 + 128 < cols ? b * 128 + 128 : cols;
        float amax = 0;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = b * 128; c < c1; c++) amax = fmaxf(amax, fabsf(v[r * cols + c]));
        float s = amax > 0 ? fmaxf(amax / 448, FLT_MIN) : 1.0f;
        scales[b] = s;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = b * 128; c < c1; c++) codes[r * cols + c] = to_e4m3(v[r * cols + c] / s);
    }
}

static void encode_int4(const float *v, int64_t n, uint8_t *codes, uint8_t *scales)
{
    for (int64_t g = 0; g < n / 32; g++, v += 32) {
        float amax = 0;
        for (int j = 0; j < 32; j++) amax = fmaxf(amax, fabsf(v[j]));
        uint16_t b = moe_f32_to_bf16(amax / 7);
        if (!b) b = 0x3f80;
        float s = moe_bf16_to_f32(b);
        memcpy(scales + 2 * g, &b, 2);
        for (int j = 0; j < 32; j += 2) {
            int lo = (int)fmaxf(fminf(rintf(v[j] / s), 7), -7) + 8,
                hi = (int)fmaxf(fminf(rintf(v[j + 1] / s), 7), -7) + 8;
            codes[g * 16 + j / 2] = (uint8_t)(lo | hi << 4);
        }
    }
}

/* By plain max; `reciprocal`: the global divides. */
static void encode_nvfp4(const float *v, int64_t n, float global, bool reciprocal, uint8_t *codes,
                         uint8_t *scales)
{
    for (int64_t b = 0; b < n / 16; b++, v += 16) {
        float amax = 0;
        for (int j = 0; j < 16; j++) amax = fmaxf(amax, fabsf(v[j]));
        float x = reciprocal ? amax / 6 * global : amax / (6 * global);
        scales[b] = moe_f32_to_ue4m3(x > 0 ? x : 1.0f);
        float s = moe_e4m3_to_f32(scales[b]);
        s = reciprocal ? s / global : s * global;
        for (int j = 0; j < 16; j += 2)
            codes[b * 8 + j / 2] = (uint8_t)(moe_f32_to_e2m1(v[j] / s) | moe_f32_to_e2m1(v[j + 1] / s) << 4);
    }
}
