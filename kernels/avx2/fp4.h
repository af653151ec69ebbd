/* kernels/avx2/fp4.h - the codes of 16 blocks, a block a lane, in two parts of eight lanes.  See kernels/avx512/fp4.h, which has the
 * same names and gives the same bits. */
#ifndef MOE_KERNELS_AVX2_FP4_H
#define MOE_KERNELS_AVX2_FP4_H

#include "kernels/avx2/lanes.h"

enum { FP4_PARTS = 2, FP4_LANES = 8 };
#define FP4_ROWS(T) ((T) == 1 ? 4 : 2)

LANE vt fp4_load(const float *p) { return vt_load(p); } /* again in every product: registers are short, loads are not */

typedef __m256i codes;

LANE codes fp4_codes(const uint8_t *p, int half, int part)
{
    const __m256i *a = (const void *)(p + 32 * part + 4 * half), *b = (const void *)(p + 32 * part + 60 + 4 * half);
    return _mm256_blend_epi32(_mm256_loadu_si256(a), _mm256_loadu_si256(b), 0xaa);
}
LANE codes fp4_next(codes c) { return _mm256_srli_epi32(c, 4); }
LANE vt fp4_value0(codes c) { return e2m1_lanes(c); }
LANE vt fp4_value4(codes c) { return e2m1_lanes(_mm256_srli_epi32(c, 16)); }

LANE vt fp4_scales(const uint8_t *p, int part, bool plain)
{
    __m128i s = _mm_loadu_si128((const void *)p);
    s = _mm_unpacklo_epi8(s, _mm_unpackhi_epi64(s, s)); /* in lane order */
    if (!plain) {
        uint8_t c[16];
        _mm_storeu_si128((void *)c, s);
        vf v = vf_e4m3(c);
        return part ? v.b : v.a;
    }
    __m256i c = _mm256_cvtepu8_epi32(part ? _mm_unpackhi_epi64(s, s) : s);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(c, 20), _mm256_set1_epi32(120 << 23)));
}

LANE bool fp4_all_plain(const uint8_t *p, int64_t n) /* n % 16 == 0 */
{
    __m128i odd = _mm_setzero_si128();
    for (int64_t i = 0; i < n; i += 16) {
        __m128i c = _mm_sub_epi8(_mm_loadu_si128((const void *)(p + i)), _mm_set1_epi8(8));
        odd = _mm_or_si128(odd, _mm_subs_epu8(c, _mm_set1_epi8(126 - 8)));
    }
    return _mm_testz_si128(odd, odd);
}

LANE void transpose8(__m256 *v)
{
    __m256 t[8];
    EACH(i, 4) {
        t[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    EACH(i, 2) {
        v[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        v[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        v[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        v[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
    EACH(i, 4) {
        t[i] = _mm256_permute2f128_ps(v[i], v[4 + i], 0x20);
        t[4 + i] = _mm256_permute2f128_ps(v[i], v[4 + i], 0x31);
    }
    EACH(i, 8) v[i] = t[i];
}
LANE void vf_transpose(vf *v)
{
    __m256 q[4][8]; /* rows 0-7 and 8-15 of columns 0-7, then of 8-15 */
    EACH(i, 8) q[0][i] = v[i].a, q[1][i] = v[8 + i].a, q[2][i] = v[i].b, q[3][i] = v[8 + i].b;
    for (int i = 0; i < 4; i++) transpose8(q[i]);
    EACH(i, 8) v[i] = (vf){ q[0][i], q[1][i] }, v[8 + i] = (vf){ q[2][i], q[3][i] };
}

LANE __m256 round_bf16(__m256 a)
{
    __m256i u = _mm256_castps_si256(a), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    r = _mm256_blendv_epi8(r, quiet, _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
    return _mm256_castsi256_ps(_mm256_and_si256(r, _mm256_set1_epi32((int)0xffff0000)));
}
LANE vf vf_round_bf16(vf a) { return (vf){ round_bf16(a.a), round_bf16(a.b) }; }

#endif
