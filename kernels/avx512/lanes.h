/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/avx512/lanes.h - sixteen lanes in one zmm: what kernels/body/ is written in.  kernels/avx2/lanes.h
 * has the same names on two ymm.  Every operation rounds once, so both give the same bits.
 *
 * Names: vf_ 16 floats, vi_ 16 int32, vm_ 16 conditions, vd_ 16 doubles; vt_ what one register holds of 16
 * floats, for matmul's tiles.  A name that ends in n reads or writes the first n elements alone, and the
 * lanes past them are 0; fold reduces the lanes to one value, in the reduction order of kernels.def.  Memory
 * needs no alignment unless a comment says so. */
#ifndef MOE_KERNELS_AVX512_LANES_H
#define MOE_KERNELS_AVX512_LANES_H

#include "kernels/variants.h"

#include <immintrin.h>

#define VARIANT(name) moe_##name##_avx512
#define LANE static inline __attribute__((always_inline, unused))
/* A loop over registers.  It has to be unrolled, or the arrays of sums would live in memory (5 times
 * slower). */
#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)

typedef __m512 vf;    /* 16 floats */
typedef __m512i vi;   /* 16 int32 */
typedef __mmask16 vm; /* 16 conditions */

LANE vm vm_first(int64_t n) { return (__mmask16)((1u << n) - 1); } /* lanes 0..n-1, n in [0,16] */
LANE vf vf_zero(void) { return _mm512_setzero_ps(); }
LANE vf vf_set(float f) { return _mm512_set1_ps(f); }
LANE vf vf_load(const void *p) { return _mm512_loadu_ps(p); }
LANE vf vf_loadn(const void *p, int64_t n) { return _mm512_maskz_loadu_ps(vm_first(n), p); }
LANE vf vf_keep(vf a, int64_t n) { return _mm512_maskz_mov_ps(vm_first(n), a); } /* +0 in lanes n.. */
LANE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
LANE void vf_stream(float *p, vf a) { _mm512_stream_ps(p, a); } /* non-temporal; p is a multiple of 64 */
LANE void vf_storen(float *p, int64_t n, vf a) { _mm512_mask_storeu_ps(p, vm_first(n), a); }
LANE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
LANE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
LANE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
LANE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
LANE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
LANE float vf_fold(vf s)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

/* out[i] = the fold of s[i], times scale, for 4 of them at once. */
LANE void vf_fold4(const vf s[4], float scale, float *out)
{
    __m256 a[4];
    EACH(i, 4) a[i] = _mm256_add_ps(_mm512_castps512_ps256(s[i]), _mm512_extractf32x8_ps(s[i], 1));
    __m256 even = _mm256_add_ps(_mm256_permute2f128_ps(a[0], a[2], 0x20),
                                _mm256_permute2f128_ps(a[0], a[2], 0x31));
    __m256 odd = _mm256_add_ps(_mm256_permute2f128_ps(a[1], a[3], 0x20),
                               _mm256_permute2f128_ps(a[1], a[3], 0x31));
    __m256 pairs = _mm256_add_ps(_mm256_shuffle_ps(even, odd, 0x44), _mm256_shuffle_ps(even, odd, 0xee));
    __m128 x = _mm256_castps256_ps128(pairs), y = _mm256_extractf128_ps(pairs, 1);
    x = _mm_add_ps(_mm_shuffle_ps(x, y, 0x88), _mm_shuffle_ps(x, y, 0xdd));
    _mm_storeu_ps(out, _mm_mul_ps(_mm_set1_ps(scale), x));
}

LANE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); } /* is b when either is NaN */
LANE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
LANE vf vf_abs(vf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.f), a); }
LANE vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
LANE vf vf_blend(vm m, vf yes, vf no) { return _mm512_mask_mov_ps(no, m, yes); }
LANE vi vi_bits(vf a) { return _mm512_castps_si512(a); }
LANE vf vf_bits(vi a) { return _mm512_castsi512_ps(a); }
LANE vi vi_set(int32_t a) { return _mm512_set1_epi32(a); }
LANE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
LANE vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
LANE vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
LANE vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
LANE vi vi_mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
LANE vi vi_round(vf a) { return _mm512_cvtps_epi32(a); }
LANE void vi_store(void *p, vi a) { _mm512_storeu_si512(p, a); }
LANE vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
#define vi_shl(a, n) _mm512_slli_epi32(a, n)
#define vi_sar(a, n) _mm512_srai_epi32(a, n)
LANE uint32_t vi_fold_max(vi a) { return (uint32_t)_mm512_reduce_max_epi32(a); }

/* For pairs of lanes.  vf_twice: each of 8 values, of which n exist at p, in two lanes.  vf_swap: neighbours
 * exchanged.  vf_fmaddsub: a * b - c in even lanes, a * b + c in odd ones. */
LANE vf vf_twice(const float *p, int64_t n)
{
    const __m512i pick = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(pick,
                                 _mm512_castps256_ps512(_mm256_maskz_loadu_ps((__mmask8)vm_first(n), p)));
}
LANE vf vf_swap(vf a) { return _mm512_permute_ps(a, 0xb1); }
LANE vf vf_fmaddsub(vf a, vf b, vf c) { return _mm512_fmaddsub_ps(a, b, c); }

/* ---- 16 doubles ---- */

typedef struct { __m512d a, b; } vd;
LANE vd vd_zero(void) { return (vd){ _mm512_setzero_pd(), _mm512_setzero_pd() }; }
LANE vd vd_of(vf v)
{
    return (vd){ _mm512_cvtps_pd(_mm512_castps512_ps256(v)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)) };
}
LANE vd vd_sub(vd x, vd y) { return (vd){ _mm512_sub_pd(x.a, y.a), _mm512_sub_pd(x.b, y.b) }; }
LANE vd vd_fma(vd x, vd y, vd z)
{
    return (vd){ _mm512_fmadd_pd(x.a, y.a, z.a), _mm512_fmadd_pd(x.b, y.b, z.b) };
}
LANE double vd_fold(vd s)
{
    __m512d h = _mm512_add_pd(s.a, s.b);
    __m256d a = _mm256_add_pd(_mm512_castpd512_pd256(h), _mm512_extractf64x4_pd(h, 1));
    __m128d b = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(b, _mm_unpackhi_pd(b, b)));
}

/* ---- stored types, 16 values at p ---- */

LANE vf bf16_lanes(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
LANE vf vf_bf16(const uint8_t *p) { return bf16_lanes(_mm256_loadu_si256((const void *)p)); }
LANE vf vf_bf16n(const uint8_t *p, int64_t n) { return bf16_lanes(_mm256_maskz_loadu_epi16(vm_first(n), p)); }

LANE vf vf_f16(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
LANE vf vf_f16n(const uint8_t *p, int64_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vm_first(n), p));
}

/* The bits of an E4M3, shifted, are those of a float16, whose exponent is biased by 15 instead of 7.  So that
 * float16 times 2^8 is the exact value, also of subnormals.  Only NaN has other bits. */
LANE vf e4m3_lanes(__m128i c)
{
    __m256i u = _mm256_cvtepu8_epi16(c), mag = _mm256_and_si256(u, _mm256_set1_epi16(0x7f));
    __mmask16 nan = _mm256_cmpeq_epi16_mask(mag, _mm256_set1_epi16(0x7f));
    __m256i half = _mm256_mask_mov_epi16(_mm256_slli_epi16(mag, 7), nan, _mm256_set1_epi16(0x7e00));
    half = _mm256_or_si256(half, _mm256_slli_epi16(_mm256_srli_epi16(u, 7), 15));
    return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256));
}
LANE vf vf_e4m3(const uint8_t *p) { return e4m3_lanes(_mm_loadu_si128((const void *)p)); }
LANE vf vf_e4m3n(const uint8_t *p, int64_t n) { return e4m3_lanes(_mm_maskz_loadu_epi8(vm_first(n), p)); }

/* Nibble k of 8 bytes in the low four bits of lane k.  The bits above are not cleared; a permutation ignores
 * them. */
LANE __m512i nibbles(const uint8_t *p)
{
    const __m512i pick = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i by = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    __m128i d = _mm_loadl_epi64((const void *)p);
    return _mm512_srlv_epi32(_mm512_permutexvar_epi32(pick, _mm512_castsi128_si512(d)), by);
}
LANE vf vf_e2m1(const uint8_t *p)
{
    const vf t = _mm512_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6);
    return _mm512_permutexvar_ps(nibbles(p), t);
}
LANE vf vf_int4(const uint8_t *p)
{
    const vf t = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    return _mm512_permutexvar_ps(nibbles(p), t);
}

/* ---- the register tile of matmul: 4 rows x 6 tokens = 24 zmm of sums ---- */

typedef __m512 vt;
enum { TILE_PARTS = 1, TILE_LANES = 16, TILE_TOKENS = 6 };
#define TILE_WIDE 1 /* more than 3 tokens a tile */
LANE vt vt_zero(void) { return _mm512_setzero_ps(); }
LANE vt vt_load(const float *p) { return _mm512_loadu_ps(p); }
LANE vt vt_loadn(const float *p, int64_t n) { return vf_loadn(p, n); }
LANE void vt_store(float *p, vt a) { _mm512_storeu_ps(p, a); }
LANE vt vt_fma(vt a, vt b, vt c) { return _mm512_fmadd_ps(a, b, c); }

/* Rows that the fused product takes at once for n tokens: enough chains of fma to hide its latency, and sums
 * that fit 32 registers. */
#define FUSED_ROWS(n) 4

/* Attention sums this many times 16 columns of values at once. */
enum { ATTEND_WIDE = 8 };
/* Tiles of attention over pages: queries times rows whose scores are summed at once, a zmm each, and queries
 * times vectors of 16 columns of their outputs. */
enum { SCORE_QUERIES = 6, SCORE_ROWS = 4, VALUE_QUERIES = 6, VALUE_COLS = 4 };

#endif
