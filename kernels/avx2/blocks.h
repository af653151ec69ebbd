/* kernels/avx2/blocks.h - one 16-block a lane, 8 lanes: what kernels/body/nvfp4.h is written in. */
#ifndef MOE_KERNELS_AVX2_BLOCKS_H
#define MOE_KERNELS_AVX2_BLOCKS_H

#include "kernels/variants.h"

#include <immintrin.h>

#define VARIANT(name) moe_##name##_avx2
#define OP static inline __attribute__((always_inline, unused))
enum { LANES = 8 };

typedef __m256 bf;
typedef __m256i bi;

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
OP bf f_abs(bf x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), x); }
OP unsigned f_lt(bf x, bf y) { return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_LT_OQ)); }
OP unsigned f_le(bf x, bf y) { return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_LE_OQ)); }
OP __m256i lanes_of(unsigned m)
{
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)m), bit), bit);
}
OP bf f_pick(unsigned m, bf x, bf y) { return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(lanes_of(m))); } /* m ? x : y */
OP bi f_round(bf x) { return _mm256_cvtps_epi32(x); }
OP bi f_bits(bf x) { return _mm256_castps_si256(x); }
OP bf i_float(bi x) { return _mm256_castsi256_ps(x); }
OP bf i_value(bi x) { return _mm256_cvtepi32_ps(x); }
OP bi i_set(int x) { return _mm256_set1_epi32(x); }
OP bi i_load(const int32_t *p) { return _mm256_loadu_si256((const void *)p); }
OP void i_store(int32_t *p, bi x) { _mm256_storeu_si256((void *)p, x); }
OP bi i_add(bi x, bi y) { return _mm256_add_epi32(x, y); }
OP bi i_sub(bi x, bi y) { return _mm256_sub_epi32(x, y); }
OP bi i_and(bi x, bi y) { return _mm256_and_si256(x, y); }
OP bi i_or(bi x, bi y) { return _mm256_or_si256(x, y); }
OP bi i_shl(bi x, int n) { return _mm256_slli_epi32(x, n); }
OP bi i_shr(bi x, int n) { return _mm256_srli_epi32(x, n); }
OP bi i_min(bi x, bi y) { return _mm256_min_epi32(x, y); }
OP bi i_max(bi x, bi y) { return _mm256_max_epi32(x, y); }
OP unsigned i_gt(bi x, bi y) { return (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(x, y))); }
OP bi i_pick(unsigned m, bi x, bi y) { return _mm256_blendv_epi8(y, x, lanes_of(m)); }

/* The e2m1 value near a = |x| / s, from 4a; a tie or an ulp beside one may go either way.  Below 4a = 4 steps of 2 by
 * the adding of a large number, above it one bit of mantissa. */
OP bf near_e2m1(bf a4)
{
    const bf big = _mm256_set1_ps(0x1.8p24f);
    bf t = f_min(a4, f_set(24)), fine = f_sub(f_add(t, big), big);
    bf wide = i_float(i_and(i_add(f_bits(t), i_set(0x200000)), i_set((int)0xffc00000u)));
    bf q = _mm256_blendv_ps(wide, fine, _mm256_cmp_ps(t, f_set(4), _CMP_LT_OQ));
    return f_mul(q, f_set(.25f));
}

#endif
