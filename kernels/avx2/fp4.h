/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/avx2/fp4.h - the codes of 16 blocks, one block in each lane, in two parts of eight lanes.  It has
 * the names of kernels/avx512/fp4.h, whose comments say what each function does, and gives the same bits. */
#ifndef MOE_KERNELS_AVX2_FP4_H
#define MOE_KERNELS_AVX2_FP4_H

#include "kernels/avx2/lanes.h"

enum { FP4_PARTS = 2, FP4_LANES = 8 };
#define FP4_ROWS(T) 2

typedef __m256i codes;
typedef __m256i words;

LANE codes fp4_codes(const uint8_t *p, int half, int part)
{
    const __m256i *a = (const void *)(p + 32 * part + 4 * half),
                  *b = (const void *)(p + 32 * part + 60 + 4 * half);
    return _mm256_blend_epi32(_mm256_loadu_si256(a), _mm256_loadu_si256(b), 0xaa);
}
LANE words fp4_even(codes c)
{
    const __m128i t = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), _mm256_and_si256(c, _mm256_set1_epi8(15)));
}
LANE words fp4_odd(codes c) { return fp4_even(_mm256_srli_epi32(c, 4)); }

/* The compiler may load this again for every product: 16 registers hold no more, and loads are cheap. */
LANE words fp4_load(const void *p) { return _mm256_loadu_si256(p); }
LANE void fp4_store(void *p, words a) { _mm256_storeu_si256(p, a); }
LANE words fp4_zero(void) { return _mm256_setzero_si256(); }
LANE words fp4_shift_left8(words a) { return _mm256_slli_epi32(a, 8); }
LANE words fp4_add(words a, words b) { return _mm256_add_epi32(a, b); }
#define FP4_JOINS 0
LANE words fp4_dot(words a, const words *w, const words *x)
{
    words s = _mm256_maddubs_epi16(w[0], x[0]); /* in all four at most 4 * 2 * 24 * 128 < 2^15 */
    EACH(i, 3) s = _mm256_add_epi16(s, _mm256_maddubs_epi16(w[i + 1], x[i + 1]));
    return _mm256_add_epi32(a, _mm256_madd_epi16(s, _mm256_set1_epi16(1)));
}
LANE vt fp4_float(words a) { return _mm256_cvtepi32_ps(a); }

LANE words fp4_scales(const uint8_t *p, int part, bool normal)
{
    __m128i s = _mm_loadu_si128((const void *)p);
    s = _mm_unpacklo_epi8(s, _mm_unpackhi_epi64(s, s)); /* in lane order */
    if (!normal) {
        uint8_t c[16];
        _mm_storeu_si128((void *)c, s);
        vf v = vf_e4m3(c);
        return _mm256_castps_si256(part ? v.b : v.a);
    }
    return _mm256_slli_epi32(_mm256_cvtepu8_epi32(part ? _mm_unpackhi_epi64(s, s) : s), 20);
}
LANE vt fp4_factor(words scale, words power, bool normal)
{
    if (normal) return _mm256_castsi256_ps(_mm256_add_epi32(scale, power));
    return _mm256_mul_ps(_mm256_castsi256_ps(scale),
                         _mm256_castsi256_ps(_mm256_add_epi32(power, _mm256_set1_epi32(7 << 23))));
}

LANE codes fp4_track_codes(codes most, __m256i c)
{
    return _mm256_max_epu8(most, _mm256_sub_epi8(c, _mm256_set1_epi8(8)));
}
LANE bool fp4_is_normal(codes most)
{
    most = _mm256_subs_epu8(most, _mm256_set1_epi8(126 - 8));
    return _mm256_testz_si256(most, most);
}
LANE bool fp4_all_normal(const uint8_t *p, int64_t n) /* n % 64 == 0 */
{
    codes most = fp4_zero();
    for (int64_t i = 0; i < n; i += 32) most = fp4_track_codes(most, fp4_load(p + i));
    return fp4_is_normal(most);
}

LANE void fp4_untile(const uint8_t *p, int64_t stride, uint8_t *out, int64_t apart, codes *most)
{
#define AT(q) (const void *)(p + (q) * stride + i)
#define TO(q) (void *)(out + (q) * apart + i)
    for (int i = 0; i < 64; i += 32) {
        __m256i a = _mm256_loadu_si256(AT(0)), b = _mm256_loadu_si256(AT(1)), c = _mm256_loadu_si256(AT(2)),
                d = _mm256_loadu_si256(AT(3));
        *most = fp4_track_codes(fp4_track_codes(fp4_track_codes(fp4_track_codes(*most, a), b), c), d);
        __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
        a = _mm256_unpackhi_epi32(a, b), c = _mm256_unpackhi_epi32(c, d);
        _mm256_storeu_si256(TO(0), _mm256_unpacklo_epi64(ab, cd)),
            _mm256_storeu_si256(TO(1), _mm256_unpackhi_epi64(ab, cd));
        _mm256_storeu_si256(TO(2), _mm256_unpacklo_epi64(a, c)),
            _mm256_storeu_si256(TO(3), _mm256_unpackhi_epi64(a, c));
    }
#undef AT
#undef TO
}

/* fp4_bytes for one part, eight lanes. */
LANE __m256i fp4_bytes8(__m256i a, __m256i b, __m256i c, __m256i d, int limb)
{
    const __m256i from = _mm256_add_epi8(
        _mm256_set1_epi8((char)limb),
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -128, -128, -128, 4, -128, -128, -128, 8, -128, -128,
                                                  -128, 12, -128, -128, -128)));
    a = _mm256_or_si256(_mm256_shuffle_epi8(a, from), _mm256_slli_epi32(_mm256_shuffle_epi8(b, from), 8));
    c = _mm256_or_si256(_mm256_shuffle_epi8(c, from), _mm256_slli_epi32(_mm256_shuffle_epi8(d, from), 8));
    return _mm256_or_si256(a, _mm256_slli_epi32(c, 16));
}
LANE vi fp4_bytes(const vi *v, int limb)
{
    return (vi){ fp4_bytes8(v[0].a, v[1].a, v[2].a, v[3].a, limb),
                 fp4_bytes8(v[0].b, v[1].b, v[2].b, v[3].b, limb) };
}

/* Transpose 8 x 8 floats: lane c of v[r] is exchanged with lane r of v[c]. */
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

#endif
