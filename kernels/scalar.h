/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/scalar.h - conversions of one value: the definition of every number format here.  E4M3 and E2M1 are
 * those of the OCP OFP8 and MX specifications.
 *
 * All is static inline on purpose: folders that are compiled for different instruction sets include this, and
 * a linker that had to choose among their copies could choose one that the processor cannot run. */
#ifndef MOE_KERNELS_SCALAR_H
#define MOE_KERNELS_SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float moe_f32_from_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t moe_f32_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static inline uint16_t moe_load_le16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline uint32_t moe_load_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline float moe_load_f32(const uint8_t *p) { return moe_f32_from_bits(moe_load_le32(p)); }

static inline float moe_bf16_to_f32(uint16_t b) { return moe_f32_from_bits((uint32_t)b << 16); }
/* Rounds to nearest, ties to even; a NaN stays a (quiet) NaN. */
static inline uint16_t moe_f32_to_bf16(float f)
{
    uint32_t u = moe_f32_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* IEEE binary16.  A NaN becomes a quiet one, as it does by the processors' own instruction. */
static inline float moe_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31) return moe_f32_from_bits(sign | 0x7f800000 | m << 13 | (m ? 0x400000 : 0));
    if (e) return moe_f32_from_bits(sign | (e + 112) << 23 | m << 13);
    return sign ? -((float)m * 0x1p-24f) : (float)m * 0x1p-24f;
}

/* E8M0: 2^(c - 127).  The smallest is a subnormal float32; 0xff is NaN. */
static inline float moe_e8m0_to_f32(uint8_t c)
{
    return moe_f32_from_bits(c == 0xff ? 0x7fc00000 : c ? (uint32_t)c << 23 : 0x400000);
}

/* E4M3 (E4M3FN): a sign bit, 4 bits of exponent (biased by 7), 3 of mantissa; no Inf; 0x7f and 0xff are
 * NaN. */
static inline float moe_e4m3_to_f32(uint8_t c)
{
    int e = c >> 3 & 15, m = c & 7;
    if ((c & 0x7f) == 0x7f) return moe_f32_from_bits((uint32_t)(c & 0x80) << 24 | 0x7fc00000);
    float v = e ? moe_f32_from_bits((uint32_t)(e + 120) << 23 | (uint32_t)m << 20) : (float)m * 0x1p-9f;
    return c & 0x80 ? -v : v;
}

/* The E4M3 code of a positive scale ("UE4M3": the sign bit is 0): v is clamped to [2^-9, 448] and rounded
 * to nearest, ties to even.  The result is never 0 and never NaN. */
static inline uint8_t moe_f32_to_ue4m3(float v)
{
    v = v < 0x1p-9f ? 0x1p-9f : v > 448.0f ? 448.0f : v;
    if (v < 0x1p-6f) return (uint8_t)lrintf(v * 512.0f);
    uint32_t u = moe_f32_bits(v);
    u += 0x7ffff + (u >> 20 & 1);
    return (uint8_t)((u >> 20) - (120u << 3));
}

/* E2M1: a sign bit, 2 bits of exponent (biased by 1), 1 of mantissa; no Inf, no NaN. */
static inline float moe_e2m1_to_f32(uint8_t c)
{
    static const float v[8] = { 0, 0.5f, 1, 1.5f, 2, 3, 4, 6 };
    return c & 8 ? -v[c & 7] : v[c & 7];
}

/* Rounds to nearest, ties to the even code; more than 6 becomes 6; the sign bit is x < 0. */
static inline uint8_t moe_f32_to_e2m1(float x)
{
    float a = fabsf(x);
    uint8_t c = a <= .25f  ? 0
              : a < .75f   ? 1
              : a <= 1.25f ? 2
              : a < 1.75f  ? 3
              : a <= 2.5f  ? 4
              : a < 3.5f   ? 5
              : a <= 5.f   ? 6
                           : 7;
    return (uint8_t)(c | (x < 0) << 3);
}

/* The E4M3 code of v >= 0, rounded to nearest, ties to even: at most 448, and 0 for v up to 2^-10. */
static inline uint8_t moe_f32_to_e4m3_satfinite(float v) { return v <= 0x1p-10f ? 0 : moe_f32_to_ue4m3(v); }

/* The scale of a block of activations (nvfp4_activations in kernels.def): `value` is what a code of 1 stands
 * for, and `inverse` what elements are multiplied by before they are rounded.  Both are 0 for a block that
 * becomes 0. */
struct moe_act_scale { float value, inverse; };

/* The scale that has this E4M3 code.  An inverse beyond float32 becomes the largest float32. */
static inline struct moe_act_scale moe_act_scale_of_code(uint8_t code, float input_scale)
{
    float s = moe_e4m3_to_f32(code) * input_scale, inverse = 1 / s;
    if (!(s > 0)) return (struct moe_act_scale){ 0, 0 };
    return (struct moe_act_scale){ s, inverse < 0x1.fffffep127f ? inverse : 0x1.fffffep127f };
}

/* The code of a block's scale, and the scale itself, under which amax, the largest magnitude in the block
 * (finite), becomes the E2M1 value 1 / share, which is 6 or 4.  global is 1 / input_scale. */
static inline uint8_t moe_act_code_for_amax(float amax, float share, float global)
{
    return moe_f32_to_e4m3_satfinite(global * (amax * share));
}
static inline struct moe_act_scale moe_act_scale_for_amax(float amax, float share, float input_scale,
                                                          float global)
{
    return moe_act_scale_of_code(amax > 0 ? moe_act_code_for_amax(amax, share, global) : 0, input_scale);
}

enum { MOE_ACT_TRIES = 6 };

/* Sets s to the scales that nvfp4_activations_search of kernels.def tries: their codes differ by off[] from
 * the code under which amax becomes 6, and are clamped to [1, 126].  All are 0 for an amax of 0. */
static inline void moe_act_scales_to_try(float amax, float input_scale, float global,
                                         struct moe_act_scale s[MOE_ACT_TRIES])
{
    static const int8_t off[MOE_ACT_TRIES] = { -1, 0, 1, 4, 5, 6 };
    int six = moe_act_code_for_amax(amax, 1 / 6.0f, global);
    for (int i = 0; i < MOE_ACT_TRIES; i++) {
        int c = six + off[i];
        s[i] = moe_act_scale_of_code((uint8_t)(!(amax > 0) ? 0 : c < 1 ? 1 : c > 126 ? 126 : c), input_scale);
    }
}

#endif
