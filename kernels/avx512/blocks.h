/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/avx512/blocks.h - vectors of 16 lanes, of which each serves one block of 16 values: what
 * kernels/body/nvfp4.h is written in.  kernels/avx2/blocks.h has the same names for 8 lanes.
 *
 * Names: in each lane f_ has a float, i_ an int32, w_ two unsigned 16-bit words, m_ a condition. */
#ifndef MOE_KERNELS_AVX512_BLOCKS_H
#define MOE_KERNELS_AVX512_BLOCKS_H

#include "kernels/variants.h"

#include <immintrin.h>

#ifndef VARIANT
#define VARIANT(name) moe_##name##_avx512
#endif
#define OP static inline __attribute__((always_inline, unused))
/* A loop over registers.  It has to be unrolled, or they would live in memory. */
#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)
enum { LANES = 16 };

typedef __m512 bf;    /* a float for each block */
typedef __m512i bi;   /* an int32, or two 16-bit words, for each block */
typedef __mmask16 bm; /* a condition for each block */

OP unsigned m_bits(bm m) { return m; }
OP bm m_of(unsigned bits) { return (__mmask16)bits; }

OP bf f_set(float x) { return _mm512_set1_ps(x); }
OP bf f_load(const float *p) { return _mm512_loadu_ps(p); }
OP void f_store(float *p, bf x) { _mm512_storeu_ps(p, x); }
OP bf f_add(bf x, bf y) { return _mm512_add_ps(x, y); }
OP bf f_sub(bf x, bf y) { return _mm512_sub_ps(x, y); }
OP bf f_mul(bf x, bf y) { return _mm512_mul_ps(x, y); }
OP bf f_div(bf x, bf y) { return _mm512_div_ps(x, y); }
OP bf f_min(bf x, bf y) { return _mm512_min_ps(x, y); }
OP bf f_max(bf x, bf y) { return _mm512_max_ps(x, y); }
OP bf f_fma(bf x, bf y, bf z) { return _mm512_fmadd_ps(x, y, z); }
OP bf f_sqrt(bf x) { return _mm512_sqrt_ps(x); }
OP bf f_abs(bf x) { return _mm512_abs_ps(x); }
OP bm f_lt(bf x, bf y) { return _mm512_cmp_ps_mask(x, y, _CMP_LT_OQ); }
OP bm f_le(bf x, bf y) { return _mm512_cmp_ps_mask(x, y, _CMP_LE_OQ); }
OP bf f_pick(bm m, bf x, bf y) { return _mm512_mask_blend_ps(m, y, x); } /* m ? x : y */
OP bi f_round(bf x) { return _mm512_cvtps_epi32(x); }
OP bi f_bits(bf x) { return _mm512_castps_si512(x); }
OP bf i_float(bi x) { return _mm512_castsi512_ps(x); }
OP bf i_value(bi x) { return _mm512_cvtepi32_ps(x); }
OP bi i_set(int x) { return _mm512_set1_epi32(x); }
OP bi i_load(const void *p) { return _mm512_loadu_si512(p); }
OP void i_store(void *p, bi x) { _mm512_storeu_si512(p, x); }
OP bi i_add(bi x, bi y) { return _mm512_add_epi32(x, y); }
OP bi i_sub(bi x, bi y) { return _mm512_sub_epi32(x, y); }
OP bi i_and(bi x, bi y) { return _mm512_and_si512(x, y); }
OP bi i_or(bi x, bi y) { return _mm512_or_si512(x, y); }
OP bi i_or_and(bi x, bi y, bi z) { return _mm512_ternarylogic_epi32(x, y, z, 0xf8); } /* x | (y & z) */
#define i_shl(x, n) _mm512_slli_epi32(x, n)
#define i_shr(x, n) _mm512_srli_epi32(x, n)
OP bi i_min(bi x, bi y) { return _mm512_min_epi32(x, y); }
OP bi i_max(bi x, bi y) { return _mm512_max_epi32(x, y); }
OP bi i_low4(bi x) { return _mm512_and_si512(x, _mm512_set1_epi32(15)); }
/* (x & ~15) | low */
OP bi i_tag(bi x, bi low) { return _mm512_ternarylogic_epi32(x, _mm512_set1_epi32(-16), low, 0xea); }
OP bm i_gt(bi x, bi y) { return _mm512_cmpgt_epi32_mask(x, y); }
OP bm i_any(bi x) { return _mm512_test_epi32_mask(x, x); } /* lanes that are not 0 */
OP bi i_pick(bm m, bi x, bi y) { return _mm512_mask_blend_epi32(m, y, x); }
/* LANES bytes */
OP void i_store_bytes(uint8_t *p, bi x) { _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8(x)); }

/* ---- 16-bit words, two in each lane ---- */

OP bi w_set(int x) { return _mm512_set1_epi16((short)x); }
OP bi w_twice(bi x) /* the low word, in both words */
{
    return _mm512_shuffle_epi8(
        x, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13)));
}
OP bi w_mulhi(bi x, bi y) { return _mm512_mulhi_epu16(x, y); }
OP bi w_sub(bi x, bi y) { return _mm512_sub_epi16(x, y); }
OP bi w_less(bi x, bi y) { return _mm512_subs_epu16(x, y); } /* max(x - y, 0) */
OP bi w_max(bi x, bi y) { return _mm512_max_epu16(x, y); }
OP bi w_signed_min(bi x, bi y) { return _mm512_min_epi16(x, y); }
#define w_shr(x, n) _mm512_srli_epi16(x, n)
/* Adds the squares of both words, which are signed. */
OP bi w_add_squares(bi sum, bi x)
{
#ifdef __AVX512VNNI__
    return _mm512_dpwssd_epi32(sum, x, x);
#else
    return _mm512_add_epi32(sum, _mm512_madd_epi16(x, x));
#endif
}
/* The value of a sum of squares, < 2^32. */
OP bf w_value(bi x) { return _mm512_cvtepu32_ps(x); }
/* (low word of x) | (low word of y) << 16 */
OP bi w_join(bi x, bi y)
{
    return _mm512_mask_shuffle_epi8(
        x, 0xcccccccccccccccc, y,
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13)));
}

/* What e2m1 makes of a = u / 8192 < 8, in the upper byte of a word: w_e2m1 its value times 32 (so that it is
 * value * 8192), w_code its code.  The table has an entry for each quarter of a. */
OP bi w_look(const bi table, bi u) { return _mm512_permutexvar_epi16(_mm512_srli_epi16(u, 11), table); }
#define QUARTERS(v0, v1, v2, v3, v4, v5, v6, v7) /* entries 0 to 31 */ \
    { \
        (v0) << 8, (v1) << 8, (v1) << 8, (v2) << 8, (v2) << 8, (v3) << 8, (v3) << 8, (v4) << 8, (v4) << 8, \
            (v4) << 8, (v5) << 8, (v5) << 8, (v5) << 8, (v5) << 8, (v6) << 8, (v6) << 8, (v6) << 8, \
            (v6) << 8, (v6) << 8, (v6) << 8, (v7) << 8, (v7) << 8, (v7) << 8, (v7) << 8, (v7) << 8, \
            (v7) << 8, (v7) << 8, (v7) << 8, (v7) << 8, (v7) << 8, (v7) << 8, (v7) << 8 \
    }
OP bi w_e2m1(bi u)
{
    static const uint16_t t[32] = QUARTERS(0, 16, 32, 48, 64, 96, 128, 192);
    return w_look(i_load(t), u);
}
OP bi w_code(bi u)
{
    static const uint16_t t[32] = QUARTERS(0, 1, 2, 3, 4, 5, 6, 7);
    return w_look(i_load(t), u);
}

/* Entry c % 8 of a table of 8. */
OP bf f_of8(const float *t, bi c)
{
    return _mm512_permutexvar_ps(c, _mm512_broadcast_f32x8(_mm256_loadu_ps(t)));
}

/* r[k] gets dword k of every block.  The blocks' 32 bytes lie at p, p + stride, ... */
OP void load_columns(const uint8_t *p, int64_t stride, bi r[8])
{
    bi u[8];
    EACH(i, 8) {
        const uint8_t *q = p + (i / 4 * 8 + i % 4) * stride;
        r[i] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const void *)q)),
                                  _mm256_loadu_si256((const void *)(q + 4 * stride)), 1);
    }
    EACH(i, 4) {
        u[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        u[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    EACH(h, 2) EACH(i, 2) {
        r[4 * h + 2 * i] = _mm512_unpacklo_epi64(u[4 * h + i], u[4 * h + i + 2]);
        r[4 * h + 2 * i + 1] = _mm512_unpackhi_epi64(u[4 * h + i], u[4 * h + i + 2]);
    }
    EACH(i, 4) {
        u[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        u[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    }
    EACH(i, 8) r[i] = u[i];
}

/* Store eight bytes for each block: the four of x, then the four of y. */
OP void store_pairs(uint8_t *p, bi x, bi y)
{
    const bi first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11),
             rest = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    bi lo = _mm512_unpacklo_epi32(x, y), hi = _mm512_unpackhi_epi32(x, y);
    i_store(p, _mm512_permutex2var_epi64(lo, first, hi));
    i_store(p + 64, _mm512_permutex2var_epi64(lo, rest, hi));
}

/* ---- one block: LANES of its values ---- */

OP double f_distance(bf x, bf y) /* sum of (x - y)^2 in double */
{
    __m512d a = _mm512_sub_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
                              _mm512_cvtps_pd(_mm512_castps512_ps256(y)));
    __m512d b = _mm512_sub_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)),
                              _mm512_cvtps_pd(_mm512_extractf32x8_ps(y, 1)));
    return _mm512_reduce_add_pd(_mm512_fmadd_pd(a, a, _mm512_mul_pd(b, b)));
}

OP void f_from_bf16(float *to, const uint8_t *p) /* LANES values */
{
    f_store(to, i_float(i_shl(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16)));
}

#endif
