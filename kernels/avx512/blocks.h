/* kernels/avx512/blocks.h - one 16-block a lane, 16 lanes: what kernels/body/nvfp4.h is written in. */
#ifndef MOE_KERNELS_AVX512_BLOCKS_H
#define MOE_KERNELS_AVX512_BLOCKS_H

#include "kernels/variants.h"

#include <immintrin.h>

#define VARIANT(name) moe_##name##_avx512
#define OP static inline __attribute__((always_inline, unused))
enum { LANES = 16 };

typedef __m512 bf;
typedef __m512i bi;

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
OP bf f_abs(bf x) { return _mm512_abs_ps(x); }
OP unsigned f_lt(bf x, bf y) { return _mm512_cmp_ps_mask(x, y, _CMP_LT_OQ); }
OP unsigned f_le(bf x, bf y) { return _mm512_cmp_ps_mask(x, y, _CMP_LE_OQ); }
OP bf f_pick(unsigned m, bf x, bf y) { return _mm512_mask_blend_ps((__mmask16)m, y, x); } /* m ? x : y */
OP bi f_round(bf x) { return _mm512_cvtps_epi32(x); }
OP bi f_bits(bf x) { return _mm512_castps_si512(x); }
OP bf i_float(bi x) { return _mm512_castsi512_ps(x); }
OP bf i_value(bi x) { return _mm512_cvtepi32_ps(x); }
OP bi i_set(int x) { return _mm512_set1_epi32(x); }
OP bi i_load(const int32_t *p) { return _mm512_loadu_si512(p); }
OP void i_store(int32_t *p, bi x) { _mm512_storeu_si512(p, x); }
OP bi i_add(bi x, bi y) { return _mm512_add_epi32(x, y); }
OP bi i_sub(bi x, bi y) { return _mm512_sub_epi32(x, y); }
OP bi i_and(bi x, bi y) { return _mm512_and_si512(x, y); }
OP bi i_or(bi x, bi y) { return _mm512_or_si512(x, y); }
OP bi i_shl(bi x, int n) { return _mm512_slli_epi32(x, (unsigned)n); }
OP bi i_shr(bi x, int n) { return _mm512_srli_epi32(x, (unsigned)n); }
OP bi i_min(bi x, bi y) { return _mm512_min_epi32(x, y); }
OP bi i_max(bi x, bi y) { return _mm512_max_epi32(x, y); }
OP unsigned i_gt(bi x, bi y) { return _mm512_cmpgt_epi32_mask(x, y); }
OP bi i_pick(unsigned m, bi x, bi y) { return _mm512_mask_blend_epi32((__mmask16)m, y, x); }

/* The e2m1 value near a = |x| / s, from 4a; a tie or an ulp beside one may go either way. */
OP bf near_e2m1(bf a4)
{
    const bf lo = _mm512_setr_ps(0, .5f, .5f, 1, 1, 1.5f, 1.5f, 2, 2, 2, 3, 3, 3, 3, 4, 4);
    const bf hi = _mm512_setr_ps(4, 4, 4, 4, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6);
    return _mm512_permutex2var_ps(lo, _mm512_cvttps_epi32(f_min(a4, f_set(31))), hi);
}

#endif
