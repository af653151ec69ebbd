/* SPDX-License-Identifier: Apache-2.0 */
/* Measures the peak rate of dot products of bf16 pairs, on registers alone (AVX512_BF16). */
#include "kernels/avx512/lanes.h"

double moe_peak_bf16_avx512dot(int64_t rounds, float *sink)
{
    static const float ramp[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    /* Twelve chains hide the latency of an instruction.  No two start alike, or a compiler would compute one
     * for both. */
    enum { CHAINS = 12 };
    vf s[CHAINS];
    /* the bf16 numbers 0.996 and 0.001 */
    __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f7f), b = (__m512bh)_mm512_set1_epi16(0x3a83);
    EACH(i, CHAINS) s[i] = vf_add(vf_load(ramp), vf_set(16 * (float)i));
    for (int64_t r = 0; r < rounds; r++) EACH(i, CHAINS) s[i] = _mm512_dpbf16_ps(s[i], a, b);
    EACH(i, CHAINS - 1) s[0] = vf_add(s[0], s[i + 1]);
    *sink = vf_fold(s[0]);
    return 32.0 * CHAINS * (double)rounds;
}
