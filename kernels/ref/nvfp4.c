/* SPDX-License-Identifier: Apache-2.0 */
/* The NVFP4 quantizers, block by block, by the rules in kernels/nvfp4.h. */
#include "kernels/scalar.h"
#include "kernels/variants.h"

#include <math.h>

#define CODE_OF_1 0x38 /* the E4M3 code of 1, which blocks of zeros get as their scale */

/* Rounds a block under scale code c: sets its codes q and returns their squared error, in double. */
static double try_scale(const float *x, float global, uint8_t c, uint8_t q[16])
{
    float s = moe_e4m3_to_f32(c) * global;
    double err = 0;
    for (int i = 0; i < 16; i++) {
        q[i] = moe_f32_to_e2m1(x[i] / s);
        double d = (double)x[i] - (double)(moe_e2m1_to_f32(q[i]) * s);
        err += d * d;
    }
    return err;
}

/* The code of a block's scale, by the rules in kernels/nvfp4.h; amax is the block's largest magnitude.  `six`
 * and `four` are the codes under which amax becomes about 6 and about 4. */
static uint8_t choose_scale(enum moe_nvfp4_method method, const float *x, float global, float amax)
{
    uint8_t q[16];
    float b = amax / (6.0f * global);
    uint8_t six = b > 0 ? moe_f32_to_ue4m3(b) : CODE_OF_1; /* as in modelopt, where b is 0 */
    if (method == MOE_NVFP4_MAX) return six;
    if (method == MOE_NVFP4_FOUR_OVER_SIX) {
        uint8_t four = b > 0 ? moe_f32_to_ue4m3(b * 1.5f) : six;
        return try_scale(x, global, four, q) < try_scale(x, global, six, q) ? four : six;
    }
    double least = INFINITY;
    uint8_t best = six;
    for (int c = 1; c <= 126; c++) {
        double e = try_scale(x, global, (uint8_t)c, q);
        if (e < least) least = e, best = (uint8_t)c;
    }
    return best;
}

void moe_nvfp4_quantize_ref(enum moe_nvfp4_method method, const float *x, int64_t n, float global,
                            uint8_t *codes, uint8_t *scales)
{
    for (int64_t b = 0; b < n / 16; b++, x += 16) {
        uint8_t q[16] = { 0 };
        float amax = moe_amax_ref(x, 16);
        scales[b] = amax > 0 ? choose_scale(method, x, global, amax) : CODE_OF_1;
        if (amax > 0) try_scale(x, global, scales[b], q);
        for (int i = 0; i < 8; i++) codes[b * 8 + i] = (uint8_t)(q[2 * i] | q[2 * i + 1] << 4);
    }
}

void moe_nvfp4_quantize_bf16_ref(enum moe_nvfp4_method method, const uint8_t *x, int64_t n, float global,
                                 uint8_t *codes, uint8_t *scales)
{
    for (int64_t b = 0; b < n / 16; b++) {
        float v[16];
        for (int i = 0; i < 16; i++) v[i] = moe_bf16_to_f32(moe_load_le16(x + 2 * (16 * b + i)));
        moe_nvfp4_quantize_ref(method, v, 16, global, codes + 8 * b, scales + b);
    }
}
