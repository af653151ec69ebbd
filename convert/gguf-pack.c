/* SPDX-License-Identifier: Apache-2.0 */
/* convert/gguf-pack.c - rows of 4-bit codes in ggml's block formats: codes are moved, and none is changed. */
#include "convert/gguf-internal.h"

#include "kernels/scalar.h"

#include <math.h>
#include <string.h>

/* Spreads 8 nibbles, the first one lowest, to the low halves of 8 bytes. */
static uint64_t spread(uint32_t v)
{
    uint64_t x = v;
    x = (x | x << 16) & 0x0000ffff0000ffffu;
    x = (x | x << 8) & 0x00ff00ff00ff00ffu;
    return (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
}

static void store64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
}

/* Whether any of 16 codes in 8 bytes is neither 0 nor -0. */
static bool any_value(const uint8_t *codes)
{
    return ((moe_load_le32(codes) | moe_load_le32(codes + 4)) & 0x77777777u) != 0;
}

/* The sum of the squares of 16 e2m1 codes. */
static double squares(const uint8_t *codes)
{
    double sum = 0;
    for (int i = 0; i < 16; i++) {
        double v = (double)moe_e2m1_to_f32(codes[i / 2] >> (i & 1 ? 4 : 0) & 15);
        sum += v * v;
    }
    return sum;
}

/* The format is block_nvfp4 of ggml-common.h; a test compares with gguf-py's NVFP4. */
bool moe_gguf_pack_nvfp4(const uint8_t *codes, const uint8_t *scales,
                         const struct moe_gguf_shift_table *shift, int64_t cols, uint8_t *out,
                         int64_t *rounded)
{
    bool ok = true;
    for (int64_t b = 0; b < cols / 64; b++, codes += 32, scales += 4, out += 36) {
        for (int s = 0; s < 4; s++) {
            uint8_t c = scales[s] & 0x7f;
            out[s] = shift->code[c];
            ok &= c == scales[s] && out[s] != MOE_GGUF_NO_SCALE;
            if (!shift->exact[c]) *rounded += any_value(codes + 8 * s);
            store64(out + 4 + 8 * s,
                    spread(moe_load_le32(codes + 8 * s)) | spread(moe_load_le32(codes + 8 * s + 4)) << 4);
        }
    }
    return ok;
}

void moe_gguf_add_error_nvfp4(const uint8_t *codes, const uint8_t *scales,
                              const struct moe_gguf_shift_table *shift, int64_t cols, double *num,
                              double *den)
{
    for (int64_t b = 0; b < cols / 16; b++) {
        uint8_t c = scales[b] & 0x7f;
        if (shift->code[c] == MOE_GGUF_NO_SCALE) continue; /* moe_gguf_pack_nvfp4 fails for it */
        double v = (double)moe_e4m3_to_f32(c), w = squares(codes + 8 * b);
        double d = shift->exact[c] ? 0 : v - ldexp((double)moe_e4m3_to_f32(shift->code[c]), -shift->by);
        *num += w * d * d;
        *den += w * v * v;
    }
}

/* *h: v, at most 65504 in magnitude, rounded to F16 (nearest, ties to even).  False when it is not exact. */
static bool to_f16(double v, uint16_t *h)
{
    double a = fabs(v);
    uint32_t sign = v < 0 ? 0x8000 : 0;
    int e;
    frexp(a, &e); /* a = m * 2^e, m in [0.5, 1) */
    if (e < -13) e = -13; /* below 2^-14 the step stays 2^-24 */
    double step = ldexp(1, e - 11), n = nearbyint(a / step);
    /* n counts steps: 1024 to 2047 for a normal number, less for a subnormal; a carry to 2048
     * lands in the next exponent. */
    *h = (uint16_t)(sign | (uint32_t)(n + (a == 0 ? 0 : (double)((e + 13) * 1024))));
    return n * step == a;
}

double moe_gguf_round_f16(double v)
{
    uint16_t h;
    if (!(v > 0 && v <= 65504)) return v;
    to_f16(v, &h);
    return (double)moe_f16_to_f32(h);
}

/* The sum of the squares of 32 INT4 values q, stored as q + 8. */
static double squares_int4(const uint8_t *codes)
{
    static const uint8_t square[16] = { 64, 49, 36, 25, 16, 9, 4, 1, 0, 1, 4, 9, 16, 25, 36, 49 };
    int sum = 0;
    for (int i = 0; i < 16; i++) sum += square[codes[i] & 15] + square[codes[i] >> 4];
    return sum;
}

int64_t moe_gguf_pack_q4_0(const uint8_t *codes, const float *scales, int power, int64_t cols, uint8_t *out,
                           bool add_error, double *num, double *den)
{
    int64_t rounded = 0;
    for (int64_t b = 0; b < cols / 32; b++, codes += 16, scales++, out += 18) {
        double s = ldexp((double)*scales, power);
        uint16_t h;
        if (!(fabs(s) <= 65504)) return -1;
        rounded += !to_f16(s, &h);
        if (add_error) {
            double d = fabs(s) - (double)moe_f16_to_f32(h & 0x7fff), w = squares_int4(codes);
            *num += w * d * d;
            *den += w * s * s;
        }
        out[0] = (uint8_t)h;
        out[1] = (uint8_t)(h >> 8);
        for (int k = 0; k < 2; k++)
            store64(out + 2 + 8 * k,
                    spread(moe_load_le32(codes + 4 * k)) | spread(moe_load_le32(codes + 8 + 4 * k)) << 4);
    }
    return rounded;
}

/* ---- Q6_K ----
 *
 * 256 values share d, an F16, and each 16 of them have an int8 scale.  A value e2m1 * s with s = e4m3 *
 * factor is written as d * scale * q with q = 2 * e2m1 * t, where t is 1 or 2.  So the codes are exact, and
 * s is approximated by 2 d k with k = scale * t, which can be every whole number up to 127 and every even
 * one up to 254.
 *
 * An e4m3 number is m * 2^e with m from 8 to 15.  If d is chosen so that the largest of the 16 values of s
 * has k = 16 m, all that are up to 4 exponents smaller have a whole k too, and the only loss is that of
 * rounding d to F16: nothing where factor is a power of two, else a relative 2^-12 at most, and more where d
 * is below 2^-14.  The other multiples of m from 8 m to 15 m give d another mantissa, which may lose less.
 * Those from m to 7 m give a larger d, for weights so small that F16 has few bits left.  Where the values of
 * s are farther apart and none of these is good enough, other numbers k are tried for the largest. */

enum { SUPER = 16, K_MOST = 254 }; /* SUPER: scales under one d; K_MOST: the largest k */
#define ENOUGH 0x1p-24             /* a squared error, relative to the squares, that ends the search for d */

/* The k nearest to a number among those that scale * t can be. */
static int nearest_k(double k)
{
    if (k >= K_MOST) return K_MOST;
    int n = (int)(k + 0.5);
    return n > 127 ? 2 * (int)(k / 2 + 0.5) : n;
}

/* The squared error of scales s, weighted by w, when 2 d is two_d; the sum stops once it is `least`. */
static double try_d(const double s[SUPER], const double w[SUPER], double two_d, double least)
{
    double num = 0, inverse = two_d > 0 ? 1 / two_d : 0;
    for (int b = 0; b < SUPER && num < least; b++) {
        double d = s[b] - two_d * nearest_k(s[b] * inverse);
        num += w[b] * d * d;
    }
    return num;
}

/* The search for a d for the scales s * factor, s >= 0.  largest: the largest s with a weight; best: the
 * best d so far, as an F16; num: the squared error of s under it. */
struct choice { const double *s, *w; double factor, largest, num; uint16_t best; };

/* Tries the d under which the largest s has k = top. */
static void try_top(struct choice *c, int top)
{
    uint16_t h;
    to_f16(c->largest * c->factor / (2 * top), &h);
    double n = try_d(c->s, c->w, 2 * (double)moe_f16_to_f32(h) / c->factor, c->num);
    if (n < c->num) c->num = n, c->best = h;
}

/* The best d, as an F16, for the scales s * factor; *num: the squared error of s under it. */
static uint16_t choose_d(const double s[SUPER], const double w[SUPER], double factor, double *num)
{
    struct choice c = { .s = s, .w = w, .factor = factor, .num = INFINITY };
    double all = 0;
    int e;
    *num = 0;
    for (int b = 0; b < SUPER; b++) {
        all += w[b] * s[b] * s[b];
        if (w[b] > 0 && s[b] > c.largest) c.largest = s[b];
    }
    if (!(c.largest > 0) || !(factor > 0)) return 0;
    int m = (int)(16 * frexp(c.largest, &e));
    for (int j = 16; j >= 8 && c.num > 0; j--) try_top(&c, m * j);
    for (int j = 7; j >= 1 && c.num > ENOUGH * all; j--) try_top(&c, m * j);
    for (int top = 96; top <= 127 && c.num > ENOUGH * all; top++) try_top(&c, top);
    for (int top = 192; top <= K_MOST && c.num > ENOUGH * all; top += 2) try_top(&c, top);
    *num = c.num;
    return c.best;
}

/* Puts the 6 bits of value i of 256 into the first 192 bytes of a block. */
static void put_q(uint8_t *out, int i, int q)
{
    int half = i / 128, l = i % 128;
    out[64 * half + l % 64] |= (uint8_t)((q & 15) << (l < 64 ? 0 : 4));
    out[128 + 32 * half + l % 32] |= (uint8_t)((q >> 4) << 2 * (l / 32));
}

/* Packs 256 codes and their 16 scales, of which s are the magnitudes, under two_d into 208 bytes. */
static void pack_super(const uint8_t *codes, const double s[SUPER], const bool negative[SUPER], double two_d,
                       uint8_t *out)
{
    static const int8_t twice[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };
    memset(out, 0, 208);
    for (int b = 0; b < SUPER; b++) {
        int k = two_d > 0 ? nearest_k(s[b] / two_d) : 0, t = k > 127 ? 2 : 1;
        out[192 + b] = (uint8_t)(int8_t)(negative[b] ? -(k / t) : k / t);
        for (int i = 0; i < 16; i++) {
            int c = codes[8 * b + i / 2] >> (i & 1 ? 4 : 0) & 15;
            put_q(out, 16 * b + i, twice[c] * t + 32);
        }
    }
}

bool moe_gguf_pack_q6_k(const uint8_t *codes, const uint8_t *scales, double factor, int64_t cols,
                        uint8_t *out, double *num, double *den)
{
    double size = fabs(factor);
    for (int64_t at = 0; at < cols / 256; at++, codes += 128, scales += SUPER, out += 210) {
        double s[SUPER], w[SUPER], lost;
        bool negative[SUPER];
        for (int b = 0; b < SUPER; b++) {
            double v = (double)moe_e4m3_to_f32(scales[b]);
            if (!(fabs(v) * size < 65504.0 * 128)) return false;
            s[b] = fabs(v);
            negative[b] = (v < 0) != (factor < 0);
            w[b] = squares(codes + 8 * b);
            *den += w[b] * s[b] * s[b] * size * size;
        }
        uint16_t h = choose_d(s, w, size, &lost);
        pack_super(codes, s, negative, size > 0 ? 2 * (double)moe_f16_to_f32(h) / size : 0, out);
        out[208] = (uint8_t)h;
        out[209] = (uint8_t)(h >> 8);
        *num += lost * size * size;
    }
    return true;
}
