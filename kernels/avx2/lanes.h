/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/avx2/lanes.h - sixteen lanes in two ymm: what kernels/body/ is written in.  kernels/avx512/lanes.h
 * has the same names on one zmm.  Every operation rounds once, so both give the same bits.
 *
 * Names: vf_ 16 floats, vi_ 16 int32, vm_ 16 conditions, vd_ 16 doubles; vt_ what one register holds of 16
 * floats, for matmul's tiles.  A name that ends in n reads or writes the first n elements alone, and the
 * lanes past them are 0; fold reduces the lanes to one value, in the reduction order of kernels.def.  Memory
 * needs no alignment unless a comment says so. */
#ifndef MOE_KERNELS_AVX2_LANES_H
#define MOE_KERNELS_AVX2_LANES_H

#include "kernels/variants.h"

#include <immintrin.h>
#include <string.h>

#define VARIANT(name) moe_##name##_avx2
#define LANE static inline __attribute__((always_inline, unused))
/* A loop over registers.  It has to be unrolled, or the arrays of sums would live in memory (5 times
 * slower). */
#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)

typedef struct { __m256 a, b; } vf;  /* 16 floats: lanes 0-7 and 8-15 */
typedef struct { __m256i a, b; } vi; /* 16 int32 */
typedef vi vm;                       /* 16 conditions: all ones or all zeros */

LANE vm vm_first(int64_t n) /* lanes 0..n-1, n in [0,16] */
{
    const __m256i lo = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), k = _mm256_set1_epi32((int)n);
    return (vm){ _mm256_cmpgt_epi32(k, lo),
                 _mm256_cmpgt_epi32(k, _mm256_add_epi32(lo, _mm256_set1_epi32(8))) };
}
LANE vf vf_zero(void) { return (vf){ _mm256_setzero_ps(), _mm256_setzero_ps() }; }
LANE vf vf_set(float f) { return (vf){ _mm256_set1_ps(f), _mm256_set1_ps(f) }; }
LANE vf vf_load(const void *p) { return (vf){ _mm256_loadu_ps(p), _mm256_loadu_ps((const float *)p + 8) }; }
LANE vf vf_loadn(const void *p, int64_t n)
{
    vm m = vm_first(n);
    return (vf){ _mm256_maskload_ps(p, m.a), _mm256_maskload_ps((const float *)p + 8, m.b) };
}
/* v, with +0 in lanes n.. */
LANE vf vf_keep(vf v, int64_t n)
{
    vm m = vm_first(n);
    return (vf){ _mm256_and_ps(v.a, _mm256_castsi256_ps(m.a)), _mm256_and_ps(v.b, _mm256_castsi256_ps(m.b)) };
}
LANE void vf_store(float *p, vf v) { _mm256_storeu_ps(p, v.a), _mm256_storeu_ps(p + 8, v.b); }
/* A non-temporal store; p is a multiple of 32. */
LANE void vf_stream(float *p, vf v) { _mm256_stream_ps(p, v.a), _mm256_stream_ps(p + 8, v.b); }
LANE void vf_storen(float *p, int64_t n, vf v)
{
    vm m = vm_first(n);
    _mm256_maskstore_ps(p, m.a, v.a), _mm256_maskstore_ps(p + 8, m.b, v.b);
}
LANE vf vf_add(vf x, vf y) { return (vf){ _mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b) }; }
LANE vf vf_sub(vf x, vf y) { return (vf){ _mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b) }; }
LANE vf vf_mul(vf x, vf y) { return (vf){ _mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b) }; }
LANE vf vf_div(vf x, vf y) { return (vf){ _mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b) }; }
LANE vf vf_fma(vf x, vf y, vf z)
{
    return (vf){ _mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b) };
}
LANE float vf_fold(vf s)
{
    __m256 a = _mm256_add_ps(s.a, s.b);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

/* out[i] = the fold of s[i], times scale, for 4 of them at once. */
LANE void vf_fold4(const vf s[4], float scale, float *out)
{
    __m256 a[4];
    EACH(i, 4) a[i] = _mm256_add_ps(s[i].a, s[i].b);
    __m256 even = _mm256_add_ps(_mm256_permute2f128_ps(a[0], a[2], 0x20),
                                _mm256_permute2f128_ps(a[0], a[2], 0x31));
    __m256 odd = _mm256_add_ps(_mm256_permute2f128_ps(a[1], a[3], 0x20),
                               _mm256_permute2f128_ps(a[1], a[3], 0x31));
    __m256 pairs = _mm256_add_ps(_mm256_shuffle_ps(even, odd, 0x44), _mm256_shuffle_ps(even, odd, 0xee));
    __m128 x = _mm256_castps256_ps128(pairs), y = _mm256_extractf128_ps(pairs, 1);
    x = _mm_add_ps(_mm_shuffle_ps(x, y, 0x88), _mm_shuffle_ps(x, y, 0xdd));
    _mm_storeu_ps(out, _mm_mul_ps(_mm_set1_ps(scale), x));
}

/* The result is y when either is NaN. */
LANE vf vf_max(vf x, vf y) { return (vf){ _mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b) }; }
LANE vf vf_min(vf x, vf y) { return (vf){ _mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b) }; }
LANE vf vf_abs(vf x)
{
    return (vf){ _mm256_andnot_ps(_mm256_set1_ps(-0.f), x.a), _mm256_andnot_ps(_mm256_set1_ps(-0.f), x.b) };
}
LANE vi vi_bits(vf x) { return (vi){ _mm256_castps_si256(x.a), _mm256_castps_si256(x.b) }; }
LANE vf vf_bits(vi x) { return (vf){ _mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b) }; }
LANE vm vf_lt(vf x, vf y)
{
    return vi_bits((vf){ _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ) });
}
LANE vf vf_blend(vm m, vf yes, vf no)
{
    return (vf){ _mm256_blendv_ps(no.a, yes.a, vf_bits(m).a), _mm256_blendv_ps(no.b, yes.b, vf_bits(m).b) };
}
LANE vi vi_set(int32_t x) { return (vi){ _mm256_set1_epi32(x), _mm256_set1_epi32(x) }; }
LANE vi vi_add(vi x, vi y) { return (vi){ _mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b) }; }
LANE vi vi_sub(vi x, vi y) { return (vi){ _mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b) }; }
LANE vi vi_and(vi x, vi y) { return (vi){ _mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b) }; }
LANE vi vi_xor(vi x, vi y) { return (vi){ _mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b) }; }
LANE vi vi_mul(vi x, vi y) { return (vi){ _mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b) }; }
LANE vi vi_round(vf x) { return (vi){ _mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b) }; }
LANE void vi_store(void *p, vi x) { _mm256_storeu_si256(p, x.a), _mm256_storeu_si256((__m256i *)p + 1, x.b); }
LANE vi vi_max(vi x, vi y) { return (vi){ _mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b) }; }
#define vi_shl(x, n) ((vi){ _mm256_slli_epi32((x).a, n), _mm256_slli_epi32((x).b, n) })
#define vi_sar(x, n) ((vi){ _mm256_srai_epi32((x).a, n), _mm256_srai_epi32((x).b, n) })
LANE uint32_t vi_fold_max(vi x)
{
    __m256i a = _mm256_max_epi32(x.a, x.b);
    __m128i b = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    b = _mm_max_epi32(b, _mm_shuffle_epi32(b, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(b, _mm_shuffle_epi32(b, 0xb1)));
}

/* For pairs of lanes.  vf_twice: each of 8 values, of which n exist at p, in two lanes.  vf_swap: neighbours
 * exchanged.  vf_fmaddsub: x * y - z in even lanes, x * y + z in odd ones. */
LANE vf vf_twice(const float *p, int64_t n)
{
    __m256 v = _mm256_maskload_ps(p, vm_first(n).a);
    return (vf){ _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
                 _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7)) };
}
LANE vf vf_swap(vf x) { return (vf){ _mm256_permute_ps(x.a, 0xb1), _mm256_permute_ps(x.b, 0xb1) }; }
LANE vf vf_fmaddsub(vf x, vf y, vf z)
{
    return (vf){ _mm256_fmaddsub_ps(x.a, y.a, z.a), _mm256_fmaddsub_ps(x.b, y.b, z.b) };
}

/* ---- 16 doubles ---- */

typedef struct { __m256d q[4]; } vd;
LANE vd vd_zero(void)
{
    return (vd){ { _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd() } };
}
LANE vd vd_of(vf v)
{
    return (vd){
        { _mm256_cvtps_pd(_mm256_castps256_ps128(v.a)), _mm256_cvtps_pd(_mm256_extractf128_ps(v.a, 1)),
          _mm256_cvtps_pd(_mm256_castps256_ps128(v.b)), _mm256_cvtps_pd(_mm256_extractf128_ps(v.b, 1)) }
    };
}
LANE vd vd_sub(vd x, vd y)
{
    for (int i = 0; i < 4; i++) x.q[i] = _mm256_sub_pd(x.q[i], y.q[i]);
    return x;
}
LANE vd vd_fma(vd x, vd y, vd z)
{
    for (int i = 0; i < 4; i++) z.q[i] = _mm256_fmadd_pd(x.q[i], y.q[i], z.q[i]);
    return z;
}
LANE double vd_fold(vd s)
{
    __m256d a = _mm256_add_pd(_mm256_add_pd(s.q[0], s.q[2]), _mm256_add_pd(s.q[1], s.q[3]));
    __m128d b = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(b, _mm_unpackhi_pd(b, b)));
}

/* ---- stored types, 16 values at p ---- */

LANE __m256 bf16_lanes(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
LANE vf vf_bf16(const uint8_t *p)
{
    return (vf){ bf16_lanes(_mm_loadu_si128((const void *)p)),
                 bf16_lanes(_mm_loadu_si128((const void *)(p + 16))) };
}
LANE vf vf_bf16n(const uint8_t *p, int64_t n)
{
    uint8_t tail[32] = { 0 };
    memcpy(tail, p, 2 * (size_t)n);
    return vf_bf16(tail);
}

LANE vf vf_f16(const uint8_t *p)
{
    return (vf){ _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 16))) };
}
LANE vf vf_f16n(const uint8_t *p, int64_t n)
{
    uint8_t tail[32] = { 0 };
    memcpy(tail, p, 2 * (size_t)n);
    return vf_f16(tail);
}

/* The bits of an E4M3, shifted, are those of a float16, whose exponent is biased by 15 instead of 7.  So that
 * float16 times 2^8 is the exact value, also of subnormals.  Only NaN has other bits. */
LANE vf vf_e4m3(const uint8_t *p)
{
    __m256i u = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)p)),
            mag = _mm256_and_si256(u, _mm256_set1_epi16(0x7f));
    __m256i nan = _mm256_cmpeq_epi16(mag, _mm256_set1_epi16(0x7f));
    __m256i half = _mm256_blendv_epi8(_mm256_slli_epi16(mag, 7), _mm256_set1_epi16(0x7e00), nan);
    half = _mm256_or_si256(half, _mm256_slli_epi16(_mm256_srli_epi16(u, 7), 15));
    vf h = { _mm256_cvtph_ps(_mm256_castsi256_si128(half)),
             _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1)) };
    return vf_mul(h, vf_set(256));
}
LANE vf vf_e4m3n(const uint8_t *p, int64_t n)
{
    uint8_t tail[16] = { 0 };
    memcpy(tail, p, (size_t)n);
    return vf_e4m3(tail);
}

/* Nibble k of 8 bytes in the low four bits of lane k; the bits above are not cleared. */
LANE vi nibbles(const uint8_t *p)
{
    const __m256i by = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    int32_t d[2];
    memcpy(d, p, 8);
    return (vi){ _mm256_srlv_epi32(_mm256_set1_epi32(d[0]), by),
                 _mm256_srlv_epi32(_mm256_set1_epi32(d[1]), by) };
}
/* The two bytes of each value as a bfloat16 are looked up by the code.  One half of a register holds the
 * codes 0-3 and 8-11 of the 16, the other 4-7 and 12-15, so that unpacking leaves the values in order. */
LANE vf vf_e2m1(const uint8_t *p)
{
    const __m256i twice = _mm256_setr_epi8(0, 0, 1, 1, 4, 4, 5, 5, -1, -1, -1, -1, -1, -1, -1, -1, 2, 2, 3, 3,
                                           6, 6, 7, 7, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i low = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0, -128, -64, 0, 64, -128, -64, 0, 0, -128, -64, 0, 64, -128, -64));
    const __m256i high = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 63, 63, 63, 64, 64, 64, 64, -128, -65, -65, -65, -64, -64, -64, -64));
    __m256i c = _mm256_shuffle_epi8(_mm256_broadcastq_epi64(_mm_loadl_epi64((const void *)p)), twice);
    c = _mm256_or_si256(_mm256_and_si256(c, _mm256_set1_epi16(15)),
                        _mm256_and_si256(_mm256_srli_epi16(c, 4), _mm256_set1_epi16(15 << 8)));
    __m256i h = _mm256_unpacklo_epi8(_mm256_shuffle_epi8(low, c), _mm256_shuffle_epi8(high, c)),
            zero = _mm256_setzero_si256();
    return (vf){ _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, h)),
                 _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, h)) };
}
LANE __m256 int4_lanes(__m256i q)
{
    return _mm256_cvtepi32_ps(
        _mm256_sub_epi32(_mm256_and_si256(q, _mm256_set1_epi32(15)), _mm256_set1_epi32(8)));
}
LANE vf vf_int4(const uint8_t *p)
{
    vi q = nibbles(p);
    return (vf){ int4_lanes(q.a), int4_lanes(q.b) };
}

/* ---- the register tile of matmul: 4 rows x 3 tokens = 12 ymm of sums, lanes 0-7 and then 8-15 ---- */

typedef __m256 vt;
enum { TILE_PARTS = 2, TILE_LANES = 8, TILE_TOKENS = 3 };
#define TILE_WIDE 0 /* at most 3 tokens a tile */
LANE vt vt_zero(void) { return _mm256_setzero_ps(); }
LANE vt vt_load(const float *p) { return _mm256_loadu_ps(p); }
LANE vt vt_loadn(const float *p, int64_t n) /* n in [0,8] */
{
    return _mm256_maskload_ps(
        p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
}
LANE void vt_store(float *p, vt a) { _mm256_storeu_ps(p, a); }
LANE vt vt_fma(vt a, vt b, vt c) { return _mm256_fmadd_ps(a, b, c); }

/* Rows that the fused product takes at once for n tokens: enough chains of fma to hide its latency, and sums
 * that fit 16 registers. */
#define FUSED_ROWS(n) ((n) == 1 ? 4 : 2)

/* Attention sums this many times 16 columns of values at once. */
enum { ATTEND_WIDE = 4 };
/* Tiles of attention over pages: queries times rows whose scores are summed at once, an ymm each, and queries
 * times vectors of 16 columns of their outputs. */
enum { SCORE_QUERIES = 3, SCORE_ROWS = 4, VALUE_QUERIES = 3, VALUE_COLS = 2 };

#endif
