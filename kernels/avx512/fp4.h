/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/avx512/fp4.h - the codes of 16 blocks at once, one block in each lane: what kernels/body/fp4.h is
 * written in (its glossary explains the words).  kernels/avx2/fp4.h has the same names on ymm, with lanes 0-7
 * and 8-15 as two parts.
 *
 * Lane 2m serves block m of a group of 16 blocks, and lane 2m + 1 block m + 8.  So two loads and a blend
 * bring the first (or last) eight columns of every block into its lane, and no shuffle is needed. */
#ifndef MOE_KERNELS_AVX512_FP4_H
#define MOE_KERNELS_AVX512_FP4_H

#include "kernels/avx512/lanes.h"

enum { FP4_PARTS = 1, FP4_LANES = 16 };
/* Rows of a tile of T tokens: enough chains to hide the latency, and sums and weights that fit the
 * registers. */
#define FP4_ROWS(T) ((T) <= 2 ? 4 : 2)

typedef __m512i codes; /* in a lane eight codes, that of the first column lowest */
typedef __m512i words; /* in a lane an int32, or four bytes */

/* The codes of columns 0-7 (half 0) or 8-15 (half 1) of every block of the group, which is 128 bytes at p. */
LANE codes fp4_codes(const uint8_t *p, int half, int part)
{
    (void)part;
    return half ? _mm512_mask_loadu_epi32(_mm512_loadu_si512(p + 64), 0x5555, p + 4)
                : _mm512_mask_loadu_epi32(_mm512_loadu_si512(p), 0xaaaa, p + 60);
}

/* The factors w = 12 + 2 * value of four of eight codes: fp4_even of columns 0 2 4 6, fp4_odd of 1 3 5 7. */
LANE words fp4_values(__m512i c)
{
    const __m128i t = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
#ifdef __AVX512VBMI__
    /* the instruction uses six bits of an index; the table is the 16 bytes four times, so the lowest four
     * choose */
    return _mm512_permutexvar_epi8(c, _mm512_broadcast_i32x4(t));
#else
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), _mm512_and_si512(c, _mm512_set1_epi8(15)));
#endif
}
LANE words fp4_even(codes c) { return fp4_values(c); }
LANE words fp4_odd(codes c) { return fp4_values(_mm512_srli_epi32(c, 4)); }

LANE words fp4_load(const void *p)
{
    words a = _mm512_loadu_si512(p);
    __asm__("" : "+v"(a)); /* one load serves all rows; left to itself gcc repeats it in every product */
    return a;
}
LANE void fp4_store(void *p, words a) { _mm512_storeu_si512(p, a); }
LANE words fp4_zero(void) { return _mm512_setzero_si512(); }
LANE words fp4_shift_left8(words a) { return _mm512_slli_epi32(a, 8); }
LANE words fp4_add(words a, words b) { return _mm512_add_epi32(a, b); }

/* fp4_step: to each lane of a the four products of w's bytes (0 to 24) and x's (signed) are added.  fp4_dot:
 * those of w[0..3] and x[0..3]. */
#ifdef __AVX512VNNI__
LANE words fp4_step(words a, words w, words x) { return _mm512_dpbusd_epi32(a, w, x); }
LANE words fp4_dot(words a, const words *w, const words *x)
{
    EACH(i, 4) a = fp4_step(a, w[i], x[i]);
    return a;
}
/* With FP4_JOINS each limb has a bias of its own, and the sums u of all limbs are joined at the end.  With
 * their bias the sums of limbs 0 and 1 fit 16 bits, as 16 * 12 * 128 < 2^15, and so a dot product of words
 * can add 2^8 u[1] to u[0]. */
#define FP4_JOINS 1
LANE words fp4_join(const words *u, int d, int D)
{
    if (d) return u[d];
    words a = _mm512_dpwssd_epi32(u[0], u[1], _mm512_set1_epi32(256));
    return D == 2 ? a : _mm512_add_epi32(a, _mm512_slli_epi32(u[2], 16));
}
#else
#define FP4_JOINS 0
LANE words fp4_dot(words a, const words *w, const words *x)
{
    words s = _mm512_maddubs_epi16(w[0], x[0]); /* in all four at most 4 * 2 * 24 * 128 < 2^15 */
    EACH(i, 3) s = _mm512_add_epi16(s, _mm512_maddubs_epi16(w[i + 1], x[i + 1]));
    return _mm512_add_epi32(a, _mm512_madd_epi16(s, _mm512_set1_epi16(1)));
}
#endif
LANE vt fp4_float(words a) { return _mm512_cvtepi32_ps(a); }

LANE __m128i fp4_lane_order(__m128i s) { return _mm_unpacklo_epi8(s, _mm_unpackhi_epi64(s, s)); }

/* fp4_scales: the scales of a group, 16 codes at p, in lane order.  fp4_factor: their products with the
 * powers of x, as floats.  The float32 bits of a normal scale are its code shifted by 20, but for the bias of
 * the exponent, so adding its bits and the power's bits multiplies the two.  With VNNI one dot product shifts
 * and adds; the code is then the upper byte of a word. */
LANE words fp4_scales(const uint8_t *p, int part, bool normal)
{
    const __m512i pick = _mm512_setr_epi32(
        (int)0x80800080, (int)0x80800880, (int)0x80800180, (int)0x80800980, (int)0x80800280, (int)0x80800a80,
        (int)0x80800380, (int)0x80800b80, (int)0x80800480, (int)0x80800c80, (int)0x80800580, (int)0x80800d80,
        (int)0x80800680, (int)0x80800e80, (int)0x80800780, (int)0x80800f80);
    __m128i s = _mm_loadu_si128((const void *)p);
    (void)part;
    if (!normal) return _mm512_castps_si512(e4m3_lanes(fp4_lane_order(s)));
    words a = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(s), pick);
    return FP4_JOINS ? a : _mm512_slli_epi32(a, 12);
}
LANE vt fp4_factor(words scale, words power, bool normal)
{
#ifdef __AVX512VNNI__
    if (normal) return _mm512_castsi512_ps(_mm512_dpwssd_epi32(power, scale, _mm512_set1_epi32(1 << 12)));
#endif
    if (normal) return _mm512_castsi512_ps(_mm512_add_epi32(scale, power));
    return _mm512_mul_ps(_mm512_castsi512_ps(scale),
                         _mm512_castsi512_ps(_mm512_add_epi32(power, _mm512_set1_epi32(7 << 23))));
}

/* Tell whether scale codes are normal, that is from 8 to 126.  fp4_track_codes keeps the largest c - 8 of all
 * codes c that it has seen, as unsigned bytes, and fp4_is_normal tells whether that is at most 126 - 8. */
LANE codes fp4_track_codes(codes most, __m512i c)
{
    return _mm512_max_epu8(most, _mm512_sub_epi8(c, _mm512_set1_epi8(8)));
}
LANE bool fp4_is_normal(codes most) { return !_mm512_cmpgt_epu8_mask(most, _mm512_set1_epi8(126 - 8)); }
LANE bool fp4_all_normal(const uint8_t *p, int64_t n) /* n % 64 == 0 */
{
    codes most = fp4_zero();
    for (int64_t i = 0; i < n; i += 64) most = fp4_track_codes(most, _mm512_loadu_si512(p + i));
    return fp4_is_normal(most);
}

/* Take the scales of 16 rows and 16 blocks out of their tiles.  At p are four lines of 64 bytes, `stride`
 * bytes apart: a line has four blocks' scales of row 0, then of rows 32, 64, 96, 1, 33 .. 99.  To `out` go
 * four lines, `apart` bytes apart: the first has 16 blocks' scales of row 0, then of rows 1, 2 and 3, the
 * next those of rows 32 .. 35, and so on.  *most: see fp4_track_codes. */
LANE void fp4_untile(const uint8_t *p, int64_t stride, uint8_t *out, int64_t apart, codes *most)
{
    __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + stride),
            c = _mm512_loadu_si512(p + 2 * stride), d = _mm512_loadu_si512(p + 3 * stride);
    __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
    *most = fp4_track_codes(fp4_track_codes(fp4_track_codes(fp4_track_codes(*most, a), b), c), d);
    a = _mm512_unpackhi_epi32(a, b), c = _mm512_unpackhi_epi32(c, d);
    _mm512_storeu_si512(out, _mm512_unpacklo_epi64(ab, cd)),
        _mm512_storeu_si512(out + apart, _mm512_unpackhi_epi64(ab, cd));
    _mm512_storeu_si512(out + 2 * apart, _mm512_unpacklo_epi64(a, c)),
        _mm512_storeu_si512(out + 3 * apart, _mm512_unpackhi_epi64(a, c));
}

/* In each lane byte number `limb` of v[0], v[1], v[2] and v[3]; that of v[0] is the lowest. */
LANE vi fp4_bytes(const vi *v, int limb)
{
    const __m512i from = _mm512_broadcast_i32x4(_mm_add_epi8(
        _mm_set1_epi8((char)limb), _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12)));
    vi a = _mm512_shuffle_epi8(v[0], from);
    EACH(i, 3) a = _mm512_mask_shuffle_epi8(a, 0x2222222222222222ULL << i, v[i + 1], from);
    return a;
}

/* Transpose 16 x 16 floats: lane c of v[r] is exchanged with lane r of v[c]. */
LANE void vf_transpose(vf *v)
{
    vf t[16];
    EACH(i, 8) {
        t[2 * i] = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
#define PD(f, a, b) _mm512_castpd_ps(f(_mm512_castps_pd(a), _mm512_castps_pd(b)))
    EACH(i, 4) {
        v[4 * i] = PD(_mm512_unpacklo_pd, t[4 * i], t[4 * i + 2]);
        v[4 * i + 1] = PD(_mm512_unpackhi_pd, t[4 * i], t[4 * i + 2]);
        v[4 * i + 2] = PD(_mm512_unpacklo_pd, t[4 * i + 1], t[4 * i + 3]);
        v[4 * i + 3] = PD(_mm512_unpackhi_pd, t[4 * i + 1], t[4 * i + 3]);
    }
#undef PD
    EACH(i, 4) {
        vf a = _mm512_shuffle_f32x4(v[i], v[4 + i], 0x88), b = _mm512_shuffle_f32x4(v[i], v[4 + i], 0xdd);
        vf c = _mm512_shuffle_f32x4(v[8 + i], v[12 + i], 0x88),
           d = _mm512_shuffle_f32x4(v[8 + i], v[12 + i], 0xdd);
        t[i] = _mm512_shuffle_f32x4(a, c, 0x88), t[8 + i] = _mm512_shuffle_f32x4(a, c, 0xdd);
        t[4 + i] = _mm512_shuffle_f32x4(b, d, 0x88), t[12 + i] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
    EACH(i, 16) v[i] = t[i];
}

#endif
