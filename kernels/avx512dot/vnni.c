/* SPDX-License-Identifier: Apache-2.0 */
/* Measures the peak rate of dot products of int8 quadruples, on registers alone (AVX512_VNNI). */
#include "kernels/avx512/lanes.h"

double moe_peak_vnni_avx512dot(int64_t rounds, float *sink)
{
    /* Twelve chains hide the latency of an instruction.  No two start alike, or a compiler would compute one
     * for both. */
    enum { CHAINS = 12 };
    vi s[CHAINS], a = vi_set(0x01010101), b = vi_set(0x01ff01ff);
    EACH(i, CHAINS) s[i] = vi_set(i);
    for (int64_t r = 0; r < rounds; r++) EACH(i, CHAINS) s[i] = _mm512_dpbusd_epi32(s[i], a, b);
    EACH(i, CHAINS - 1) s[0] = vi_add(s[0], s[i + 1]);
    *sink = (float)vi_fold_max(s[0]);
    return 64.0 * CHAINS * (double)rounds;
}
