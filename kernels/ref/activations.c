/* SPDX-License-Identifier: Apache-2.0 */
/* Activations as an NVFP4 product on a GPU sees them, block by block, by the rules in kernels.def. */
#include "kernels/scalar.h"
#include "kernels/variants.h"

#include <string.h>

/* The kernels that may put a block's largest magnitude on 4 instead of 6 multiply the input scale by this.
 * The scale that puts the largest block on 6 is then 256 instead of 448, which is the largest E4M3 number, so
 * that 1.5 times that scale is not too large. */
#define RAISE (448 / 256.0f)

/* Rounds a block to E2M1 under the scale s: out is what the product multiplies. */
static void round_block(const float *x, struct moe_act_scale s, float out[16])
{
    for (int i = 0; i < 16; i++)
        out[i] = copysignf(moe_e2m1_to_f32(moe_f32_to_e2m1(fabsf(x[i]) * s.inverse)) * s.value, x[i]);
}

/* Copies a rounded block to out; a block that held a NaN or Inf becomes NaN. */
static void store_block(const float *block, bool finite, float *out)
{
    for (int i = 0; i < 16; i++) out[i] = finite ? block[i] : NAN;
}

void moe_nvfp4_activations_ref(const float *x, int64_t n, float input_scale, float *out)
{
    for (int64_t b = 0; b < n; b += 16) {
        float q[16], amax = moe_amax_ref(x + b, 16);
        float m = isfinite(amax) ? amax : 0;
        round_block(x + b, moe_act_scale_for_amax(m, 1 / 6.0f, input_scale, 1 / input_scale), q);
        store_block(q, isfinite(amax), out + b);
    }
}

/* Rounds a block under the one of n scales that gives the least squared error; the first on a tie. */
static void round_best(const float *x, const struct moe_act_scale *s, int n, float out[16])
{
    double least = 0, none = 0;
    round_block(x, s[0], out);
    moe_sqerr_ref(x, out, 16, &least, &none);
    for (int i = 1; i < n; i++) {
        float q[16];
        double lost = 0;
        round_block(x, s[i], q);
        moe_sqerr_ref(x, q, 16, &lost, &none);
        if (lost < least) least = lost, memcpy(out, q, sizeof q);
    }
}

void moe_nvfp4_activations_46_ref(const float *x, int64_t n, float input_scale, float *out)
{
    input_scale *= RAISE;
    for (int64_t b = 0; b < n; b += 16) {
        float q[16], amax = moe_amax_ref(x + b, 16), m = isfinite(amax) ? amax : 0, global = 1 / input_scale;
        struct moe_act_scale s[2] = { moe_act_scale_for_amax(m, 1 / 6.0f, input_scale, global),
                                      moe_act_scale_for_amax(m, 1 / 4.0f, input_scale, global) };
        round_best(x + b, s, 2, q);
        store_block(q, isfinite(amax), out + b);
    }
}

void moe_nvfp4_activations_search_ref(const float *x, int64_t n, float input_scale, float *out)
{
    input_scale *= RAISE;
    for (int64_t b = 0; b < n; b += 16) {
        struct moe_act_scale s[MOE_ACT_TRIES];
        float q[16], amax = moe_amax_ref(x + b, 16);
        moe_act_scales_to_try(isfinite(amax) ? amax : 0, input_scale, 1 / input_scale, s);
        round_best(x + b, s, MOE_ACT_TRIES, q);
        store_block(q, isfinite(amax), out + b);
    }
}
