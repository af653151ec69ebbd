/* kernels/avx512/lanes.h - sixteen lanes in one zmm: what kernels/body/ is written in.  kernels/avx2/lanes.h has the same
 * names on two ymm.  Every operation here rounds once, so both give the same bits. */
#ifndef MOE_KERNELS_AVX512_LANES_H
#define MOE_KERNELS_AVX512_LANES_H

#include "kernels/variants.h"

#include <immintrin.h>

#define VARIANT(name) moe_##name##_avx512
#define LANE static inline __attribute__((always_inline, unused))

typedef __m512 vf;    /* 16 floats */
typedef __m512i vi;   /* 16 int32 */
typedef __mmask16 vm; /* 16 conditions */

LANE vm vm_first(int64_t n) { return (__mmask16)((1u << n) - 1); } /* lanes 0..n-1, n in [0,16] */
LANE vf vf_zero(void) { return _mm512_setzero_ps(); }
LANE vf vf_set(float f) { return _mm512_set1_ps(f); }
LANE vf vf_load(const void *p) { return _mm512_loadu_ps(p); }
LANE vf vf_loadn(const void *p, int64_t n) { return _mm512_maskz_loadu_ps(vm_first(n), p); }
LANE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
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

/* ---- stored types, 16 values at p ---- */

LANE vf bf16_lanes(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
LANE vf vf_bf16(const uint8_t *p) { return bf16_lanes(_mm256_loadu_si256((const void *)p)); }
LANE vf vf_bf16n(const uint8_t *p, int64_t n) { return bf16_lanes(_mm256_maskz_loadu_epi16(vm_first(n), p)); }

/* E4M3 is a float16 with a bias of 7 instead of 15 and one exponent bit less: exact after * 2^8, subnormals too.  Only NaN differs. */
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

/* Nibble k of 8 bytes in the low bits of lane k; a permutation ignores the bits above. */
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
LANE vt vt_load(const float *p) { return _mm512_loadu_ps(p); }
LANE vt vt_loadn(const float *p, int64_t n) { return vf_loadn(p, n); }
LANE void vt_store(float *p, vt a) { _mm512_storeu_ps(p, a); }
LANE vt vt_fma(vt a, vt b, vt c) { return _mm512_fmadd_ps(a, b, c); }

/* Rows that the fused product takes at once for n tokens: enough chains for the fma latency, sums within 32 registers. */
#define FUSED_ROWS(n) 4

#endif
