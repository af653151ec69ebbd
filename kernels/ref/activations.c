/* Activations as an NVFP4 product sees them, block by block, by the rule in kernels.def. */
#include "kernels/scalar.h"
#include "kernels/variants.h"

void moe_nvfp4_activations_ref(const float *x, int64_t n, float input_scale, float *out)
{
    for (int64_t b = 0; b < n; b += 16) {
        float amax = moe_amax_ref(x + b, 16);
        struct moe_act_scale s = moe_act_scale(isfinite(amax) ? amax : 0, input_scale, 1 / input_scale);
        for (int i = 0; i < 16; i++) {
            float q = moe_e2m1_to_f32(moe_f32_to_e2m1(fabsf(x[b + i]) * s.inverse)) * s.value;
            out[b + i] = isfinite(amax) ? copysignf(q, x[b + i]) : NAN;
        }
    }
}
