/* Activations as an NVFP4 product sees them, block by block, by the rules in kernels.def. */
#include "kernels/scalar.h"
#include "kernels/variants.h"

#include <string.h>

static void round_block(const float *x, struct moe_act_scale s, float out[16])
{
    for (int i = 0; i < 16; i++) out[i] = copysignf(moe_e2m1_to_f32(moe_f32_to_e2m1(fabsf(x[i]) * s.inverse)) * s.value, x[i]);
}

static void give_block(const float *block, bool finite, float *out)
{
    for (int i = 0; i < 16; i++) out[i] = finite ? block[i] : NAN;
}

void moe_nvfp4_activations_ref(const float *x, int64_t n, float input_scale, float *out)
{
    for (int64_t b = 0; b < n; b += 16) {
        float q[16], amax = moe_amax_ref(x + b, 16);
        round_block(x + b, moe_act_scale(isfinite(amax) ? amax : 0, 1 / 6.0f, input_scale, 1 / input_scale), q);
        give_block(q, isfinite(amax), out + b);
    }
}

void moe_nvfp4_activations_46_ref(const float *x, int64_t n, float input_scale, float *out)
{
    input_scale *= 448 / 256.0f;
    for (int64_t b = 0; b < n; b += 16) {
        float six[16], four[16], amax = moe_amax_ref(x + b, 16), m = isfinite(amax) ? amax : 0;
        double lost_six = 0, lost_four = 0, none = 0;
        round_block(x + b, moe_act_scale(m, 1 / 6.0f, input_scale, 1 / input_scale), six);
        round_block(x + b, moe_act_scale(m, 1 / 4.0f, input_scale, 1 / input_scale), four);
        moe_sqerr_ref(x + b, six, 16, &lost_six, &none);
        moe_sqerr_ref(x + b, four, 16, &lost_four, &none);
        give_block(lost_four < lost_six ? four : six, isfinite(amax), out + b);
    }
}

void moe_nvfp4_activations_search_ref(const float *x, int64_t n, float input_scale, float *out)
{
    input_scale *= 448 / 256.0f;
    for (int64_t b = 0; b < n; b += 16) {
        float q[16], best[16], amax = moe_amax_ref(x + b, 16), m = isfinite(amax) ? amax : 0;
        double least = INFINITY;
        for (int i = 0; i < 16; i++) best[i] = copysignf(0, x[b + i]);
        for (int t = 0; m > 0 && t < MOE_ACT_TRIES; t++) {
            double lost = 0, none = 0;
            round_block(x + b, moe_act_scale_of(moe_act_try(moe_act_code(m, 1 / 6.0f, 1 / input_scale), t), input_scale), q);
            moe_sqerr_ref(x + b, q, 16, &lost, &none);
            if (lost < least) least = lost, memcpy(best, q, sizeof q);
        }
        give_block(best, isfinite(amax), out + b);
    }
}
