/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/avx2/blocks.h - vectors of 8 lanes, of which each serves one block of 16 values: what
 * kernels/body/nvfp4.h is written in.  kernels/avx512/blocks.h has the same names for 16 lanes.
 *
 * Names: in each lane f_ has a float, i_ an int32, w_ two unsigned 16-bit words, m_ a condition. */
#ifndef MOE_KERNELS_AVX2_BLOCKS_H
#define MOE_KERNELS_AVX2_BLOCKS_H

#include "kernels/variants.h"

#include <immintrin.h>
#include <string.h>

#define VARIANT(name) moe_##name##_avx2
#define OP static inline __attribute__((always_inline, unused))
/* A loop over registers.  It has to be unrolled, or they would live in memory. */
#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)
enum { LANES = 8 };

typedef __m256 bf;  /* a float for each block */
typedef __m256i bi; /* an int32, or two 16-bit words, for each block */
typedef __m256i bm; /* a condition for each block: all ones or all zeros */

OP unsigned m_bits(bm m) { return (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(m)); }
OP bm m_of(unsigned bits)
{
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), bit), bit);
}

OP bf f_set(float x) { return _mm256_set1_ps(x); }
OP bf f_load(const float *p) { return _mm256_loadu_ps(p); }
OP void f_store(float *p, bf x) { _mm256_storeu_ps(p, x); }
OP bf f_add(bf x, bf y) { return _mm256_add_ps(x, y); }
OP bf f_sub(bf x, bf y) { return _mm256_sub_ps(x, y); }
OP bf f_mul(bf x, bf y) { return _mm256_mul_ps(x, y); }
OP bf f_div(bf x, bf y) { return _mm256_div_ps(x, y); }
OP bf f_min(bf x, bf y) { return _mm256_min_ps(x, y); }
OP bf f_max(bf x, bf y) { return _mm256_max_ps(x, y); }
OP bf f_fma(bf x, bf y, bf z) { return _mm256_fmadd_ps(x, y, z); }
OP bf f_sqrt(bf x) { return _mm256_sqrt_ps(x); }
OP bf f_abs(bf x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), x); }
OP bm f_lt(bf x, bf y) { return _mm256_castps_si256(_mm256_cmp_ps(x, y, _CMP_LT_OQ)); }
OP bm f_le(bf x, bf y) { return _mm256_castps_si256(_mm256_cmp_ps(x, y, _CMP_LE_OQ)); }
OP bf f_pick(bm m, bf x, bf y) { return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(m)); } /* m ? x : y */
OP bi f_round(bf x) { return _mm256_cvtps_epi32(x); }
OP bi f_bits(bf x) { return _mm256_castps_si256(x); }
OP bf i_float(bi x) { return _mm256_castsi256_ps(x); }
OP bf i_value(bi x) { return _mm256_cvtepi32_ps(x); }
OP bi i_set(int x) { return _mm256_set1_epi32(x); }
OP bi i_load(const void *p) { return _mm256_loadu_si256(p); }
OP void i_store(void *p, bi x) { _mm256_storeu_si256(p, x); }
OP bi i_add(bi x, bi y) { return _mm256_add_epi32(x, y); }
OP bi i_sub(bi x, bi y) { return _mm256_sub_epi32(x, y); }
OP bi i_and(bi x, bi y) { return _mm256_and_si256(x, y); }
OP bi i_or(bi x, bi y) { return _mm256_or_si256(x, y); }
OP bi i_or_and(bi x, bi y, bi z) { return i_or(x, i_and(y, z)); }
#define i_shl(x, n) _mm256_slli_epi32(x, n)
#define i_shr(x, n) _mm256_srli_epi32(x, n)
OP bi i_min(bi x, bi y) { return _mm256_min_epi32(x, y); }
OP bi i_max(bi x, bi y) { return _mm256_max_epi32(x, y); }
OP bi i_low4(bi x) { return _mm256_and_si256(x, _mm256_set1_epi32(15)); }
/* (x & ~15) | low */
OP bi i_tag(bi x, bi low) { return _mm256_or_si256(_mm256_andnot_si256(_mm256_set1_epi32(15), x), low); }
OP bm i_gt(bi x, bi y) { return _mm256_cmpgt_epi32(x, y); }
/* Lanes that are not 0. */
OP bm i_any(bi x)
{
    return _mm256_xor_si256(_mm256_cmpeq_epi32(x, _mm256_setzero_si256()), _mm256_set1_epi32(-1));
}
OP bi i_pick(bm m, bi x, bi y) { return _mm256_blendv_epi8(y, x, m); }
OP void i_store_bytes(uint8_t *p, bi x) /* LANES bytes */
{
    __m128i w = _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    _mm_storel_epi64((void *)p, _mm_packus_epi16(w, w));
}

/* ---- 16-bit words, two in each lane ---- */

OP bi w_set(int x) { return _mm256_set1_epi16((short)x); }
OP bi w_twice(bi x) { return _mm256_or_si256(x, _mm256_slli_epi32(x, 16)); } /* x < 2^16, in both words */
OP bi w_mulhi(bi x, bi y) { return _mm256_mulhi_epu16(x, y); }
OP bi w_sub(bi x, bi y) { return _mm256_sub_epi16(x, y); }
OP bi w_less(bi x, bi y) { return _mm256_subs_epu16(x, y); } /* max(x - y, 0) */
OP bi w_max(bi x, bi y) { return _mm256_max_epu16(x, y); }
OP bi w_signed_min(bi x, bi y) { return _mm256_min_epi16(x, y); }
#define w_shr(x, n) _mm256_srli_epi16(x, n)
/* Adds the squares of both words, which are signed. */
OP bi w_add_squares(bi sum, bi x) { return _mm256_add_epi32(sum, _mm256_madd_epi16(x, x)); }
/* The value of a sum of squares, < 2^32; at most 1 too low. */
OP bf w_value(bi x) { bf h = _mm256_cvtepi32_ps(_mm256_srli_epi32(x, 1)); return _mm256_add_ps(h, h); }
/* (low word of x) | (low word of y) << 16 */
OP bi w_join(bi x, bi y) { return _mm256_blend_epi16(x, _mm256_slli_epi32(y, 16), 0xaa); }

/* What e2m1 makes of a = u / 8192 < 8, in the upper byte of a word: w_e2m1 its value times 32 (so that it is
 * value * 8192), w_code its code.  The table has an entry for each quarter of a: 0 to 15 and 16 to 31 are
 * both looked up, and the top bit of u selects.  The low byte of the index asks for a zero. */
OP bi w_look(__m128i lo, __m128i hi, bi u)
{
    bi at = _mm256_or_si256(_mm256_srli_epi16(u, 3), _mm256_set1_epi16(0x80));
    return _mm256_blendv_epi8(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(lo), at),
                              _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(hi), at), u);
}
#define LOW_QUARTERS(v0, v1, v2, v3, v4, v5, v6, v7) \
    _mm_setr_epi8(v0, v1, v1, v2, v2, v3, v3, v4, v4, v4, v5, v5, v5, v5, v6, v6)
#define HIGH_QUARTERS(v0, v1, v2, v3, v4, v5, v6, v7) \
    _mm_setr_epi8(v6, v6, v6, v6, v7, v7, v7, v7, v7, v7, v7, v7, v7, v7, v7, v7)
OP bi w_e2m1(bi u)
{
    return w_look(LOW_QUARTERS(0, 16, 32, 48, 64, 96, -128, -64),
                  HIGH_QUARTERS(0, 16, 32, 48, 64, 96, -128, -64), u);
}
OP bi w_code(bi u)
{
    return w_look(LOW_QUARTERS(0, 1, 2, 3, 4, 5, 6, 7), HIGH_QUARTERS(0, 1, 2, 3, 4, 5, 6, 7), u);
}

/* Entry c % 8 of a table of 8. */
OP bf f_of8(const float *t, bi c) { return _mm256_permutevar8x32_ps(_mm256_loadu_ps(t), c); }

/* r[k] gets dword k of every block.  The blocks' 32 bytes lie at p, p + stride, ... */
OP void load_columns(const uint8_t *p, int64_t stride, bi r[8])
{
    bi u[8];
    EACH(i, 8) {
        /* half of a block, and beside it the same half of the fourth block after it */
        const uint8_t *q = p + i % 4 * stride + i / 4 * 16;
        r[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const void *)q)),
                                       _mm_loadu_si128((const void *)(q + 4 * stride)), 1);
    }
    EACH(i, 4) {
        u[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        u[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    EACH(h, 2) EACH(i, 2) {
        r[4 * h + 2 * i] = _mm256_unpacklo_epi64(u[4 * h + i], u[4 * h + i + 2]);
        r[4 * h + 2 * i + 1] = _mm256_unpackhi_epi64(u[4 * h + i], u[4 * h + i + 2]);
    }
}

/* Store eight bytes for each block: the four of x, then the four of y. */
OP void store_pairs(uint8_t *p, bi x, bi y)
{
    bi lo = _mm256_unpacklo_epi32(x, y), hi = _mm256_unpackhi_epi32(x, y);
    i_store(p, _mm256_permute2x128_si256(lo, hi, 0x20));
    i_store(p + 32, _mm256_permute2x128_si256(lo, hi, 0x31));
}

/* ---- one block: LANES of its values ---- */

OP double f_distance(bf x, bf y) /* sum of (x - y)^2 in double */
{
    __m256d a = _mm256_sub_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(x)),
                              _mm256_cvtps_pd(_mm256_castps256_ps128(y)));
    __m256d b = _mm256_sub_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)),
                              _mm256_cvtps_pd(_mm256_extractf128_ps(y, 1)));
    a = _mm256_fmadd_pd(a, a, _mm256_mul_pd(b, b));
    __m128d h = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(h, _mm_unpackhi_pd(h, h)));
}

OP void f_from_bf16(float *to, const uint8_t *p) /* LANES values */
{
    f_store(to, i_float(i_shl(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16)));
}

#endif
