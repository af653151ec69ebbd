/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/activations.h - activations as an NVFP4 product on a GPU sees them.  Included once by each
 * kernels/<isa>/activations.c, after its lanes.h.
 *
 * The 16 lanes are the values of one block, whose scale is computed once, by scalar code that ref shares. */
#include "kernels/scalar.h"

/* e2m1 of 0 <= a <= 6.  Its values are multiples of 1/2 below 2, of 1 below 4, and of 2 above.  (a + m) - m
 * rounds a to a multiple of m's last place, to even on a tie, which is also e2m1's even code. */
LANE vf round_e2m1(vf a)
{
    const vf halves = vf_set(0x1.8p22f), ones = vf_set(0x1.8p23f), twos = vf_set(0x1.8p24f);
    vf m = vf_blend(vf_lt(a, vf_set(2)), halves, vf_blend(vf_lt(a, vf_set(4)), ones, twos));
    return vf_sub(vf_add(a, m), m);
}

/* What the magnitudes a of a block become under a scale. */
LANE vf round_block(vf a, struct moe_act_scale s)
{
    return vf_mul(round_e2m1(vf_min(vf_mul(a, vf_set(s.inverse)), vf_set(6))), vf_set(s.value));
}

/* The squared error of q, in double. */
LANE double lost(vf a, vf q)
{
    vd d = vd_sub(vd_of(a), vd_of(q));
    return vd_fold(vd_fma(d, d, vd_zero()));
}

/* Every block of x: `choose` rounds its magnitudes a, whose largest is amax, and then signs are put back.  A
 * block with an Inf or NaN becomes NaN. */
LANE void each_block(const float *x, int64_t n, float input_scale, float *out,
                     vf (*choose)(vf a, float amax, float input_scale, float global))
{
    const vi magnitude = vi_set(0x7fffffff), sign = vi_set(INT32_MIN);
    float global = 1 / input_scale;
    for (int64_t b = 0; b < n; b += 16) {
        vi bits = vi_bits(vf_load(x + b)), most = vi_and(bits, magnitude);
        uint32_t amax = vi_fold_max(most);
        if (amax >= 0x7f800000) { /* Inf or NaN */
            vf_store(out + b, vf_set(NAN));
            continue;
        }
        vf q = choose(vf_bits(most), moe_f32_from_bits(amax), input_scale, global);
        vf_store(out + b, vf_bits(vi_add(vi_bits(q), vi_and(bits, sign))));
    }
}

/* Under the scale that puts the largest magnitude on 6. */
LANE vf on_six(vf a, float amax, float input_scale, float global)
{
    return round_block(a, moe_act_scale_for_amax(amax, 1 / 6.0f, input_scale, global));
}

/* Under that of n scales which loses least; the first on a tie. */
LANE vf best_of(vf a, const struct moe_act_scale *s, int n)
{
    vf best = round_block(a, s[0]);
    double least = lost(a, best);
    for (int i = 1; i < n; i++) {
        vf q = round_block(a, s[i]);
        double l = lost(a, q);
        if (l < least) least = l, best = q;
    }
    return best;
}

LANE vf four_over_six(vf a, float amax, float input_scale, float global)
{
    struct moe_act_scale s[2] = { moe_act_scale_for_amax(amax, 1 / 6.0f, input_scale, global),
                                  moe_act_scale_for_amax(amax, 1 / 4.0f, input_scale, global) };
    return best_of(a, s, 2);
}

LANE vf search(vf a, float amax, float input_scale, float global)
{
    struct moe_act_scale s[MOE_ACT_TRIES];
    moe_act_scales_to_try(amax, input_scale, global, s);
    return best_of(a, s, MOE_ACT_TRIES);
}

void VARIANT(nvfp4_activations)(const float *x, int64_t n, float input_scale, float *out)
{
    each_block(x, n, input_scale, out, on_six);
}
void VARIANT(nvfp4_activations_46)(const float *x, int64_t n, float input_scale, float *out)
{
    each_block(x, n, input_scale * (448 / 256.0f), out, four_over_six);
}
void VARIANT(nvfp4_activations_search)(const float *x, int64_t n, float input_scale, float *out)
{
    each_block(x, n, input_scale * (448 / 256.0f), out, search);
}
