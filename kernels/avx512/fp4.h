/* kernels/avx512/fp4.h - the codes of 16 blocks at once, a block a lane: what kernels/body/fp4.h is written in.
 * kernels/avx2/fp4.h has the same names on ymm, lanes 0-7 and 8-15 as two parts.
 *
 * Lane 2m is block m of a group of 16 blocks, lane 2m + 1 block m + 8: so two loads and a blend bring the first (or second) eight
 * columns of every block into its lane, and no shuffle is spent. */
#ifndef MOE_KERNELS_AVX512_FP4_H
#define MOE_KERNELS_AVX512_FP4_H

#include "kernels/avx512/lanes.h"

enum { FP4_PARTS = 1, FP4_LANES = 16 };
/* Rows at once for a tile of T tokens: chains to hide the latency, sums and values within the registers. */
#define FP4_ROWS(T) ((T) == 1 ? 8 : (T) == 2 ? 4 : 2)

/* A load for all rows: left to itself gcc repeats it in every product, and one load a cycle is all there is. */
LANE vt fp4_load(const float *p)
{
    vt a = vt_load(p);
    __asm__("" : "+v"(a));
    return a;
}

typedef __m512i codes; /* a lane: eight codes, column 0 of them lowest */

/* Columns 0-7 (half 0) or 8-15 of every block of the group of 128 bytes at p. */
LANE codes fp4_codes(const uint8_t *p, int half, int part)
{
    (void)part;
    return half ? _mm512_mask_loadu_epi32(_mm512_loadu_si512(p + 64), 0x5555, p + 4) : _mm512_mask_loadu_epi32(_mm512_loadu_si512(p), 0xaaaa, p + 60);
}
LANE codes fp4_next(codes c) { return _mm512_srli_epi32(c, 4); }

/* The value of column 0; of column 4: bf16 holds it, and the permutation of words clears what is below. */
LANE vt fp4_value0(codes c)
{
    return _mm512_permutexvar_ps(c, _mm512_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6));
}
LANE __m512i fp4_bf16_table(void)
{
    const __m256i t = _mm256_setr_epi16(0, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0, (short)0x8000, (short)0xbf00, (short)0xbf80,
                                        (short)0xbfc0, (short)0xc000, (short)0xc040, (short)0xc080, (short)0xc0c0);
    return _mm512_broadcast_i64x4(t);
}
LANE vt fp4_value4(codes c) { return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, c, fp4_bf16_table())); }

/* The scales of a group, 16 codes at p, in lane order; plain ones are normal positive numbers: their bits are a shift and a sum away. */
LANE __m128i fp4_lane_order(__m128i s) { return _mm_unpacklo_epi8(s, _mm_unpackhi_epi64(s, s)); }
LANE vt fp4_scales(const uint8_t *p, int part, bool plain)
{
    const __m512i pick = _mm512_setr_epi32(
        (int)0x80808000, (int)0x80808008, (int)0x80808001, (int)0x80808009, (int)0x80808002, (int)0x8080800a, (int)0x80808003, (int)0x8080800b,
        (int)0x80808004, (int)0x8080800c, (int)0x80808005, (int)0x8080800d, (int)0x80808006, (int)0x8080800e, (int)0x80808007, (int)0x8080800f);
    __m128i s = _mm_loadu_si128((const void *)p);
    (void)part;
    if (!plain) return e4m3_lanes(fp4_lane_order(s));
    __m512i c = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(s), pick);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(c, 20), _mm512_set1_epi32(120 << 23)));
}

/* True when all n codes are plain: 8 to 126. */
LANE bool fp4_all_plain(const uint8_t *p, int64_t n)
{
    __mmask64 odd = 0;
    for (int64_t i = 0; i < n; i += 64) {
        __mmask64 m = n - i < 64 ? ((__mmask64)1 << (n - i)) - 1 : ~(__mmask64)0;
        __m512i c = _mm512_sub_epi8(_mm512_maskz_loadu_epi8(m, p + i), _mm512_set1_epi8(8));
        odd |= _mm512_mask_cmpgt_epu8_mask(m, c, _mm512_set1_epi8(126 - 8));
    }
    return !odd;
}

/* v[r] lane c <-> v[c] lane r. */
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
        vf c = _mm512_shuffle_f32x4(v[8 + i], v[12 + i], 0x88), d = _mm512_shuffle_f32x4(v[8 + i], v[12 + i], 0xdd);
        t[i] = _mm512_shuffle_f32x4(a, c, 0x88), t[8 + i] = _mm512_shuffle_f32x4(a, c, 0xdd);
        t[4 + i] = _mm512_shuffle_f32x4(b, d, 0x88), t[12 + i] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
    EACH(i, 16) v[i] = t[i];
}

/* Nearest bf16, ties to even, as float32; a NaN stays one. */
LANE vf vf_round_bf16(vf a)
{
    __m512i u = _mm512_castps_si512(a), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
    return _mm512_castsi512_ps(_mm512_and_si512(r, _mm512_set1_epi32((int)0xffff0000)));
}

#endif
