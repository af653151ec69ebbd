/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/activations.cu - half a warp rounds a block of 16 values, one in each lane. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/activations.h"

/* A block's scale: what a code of 1 stands for, and what values are multiplied by before they are rounded. */
struct act_scale { float value, inverse; };

/* The E4M3 code nearest to v >= 0, to even on a tie; at most 448, and 0 for v up to 2^-10. */
DEVICE int e4m3_code(float v)
{
    if (!(v > 0x1p-10f)) return 0;
    v = v < 0x1p-9f ? 0x1p-9f : v > 448.f ? 448.f : v;
    /* below 2^-6 codes are multiples of 2^-9: adding 2^23 rounds to a whole number of them */
    if (v < 0x1p-6f) return (int)(__float_as_uint(v * 512.f + 0x1p23f) - 0x4b000000u);
    const uint32_t u = __float_as_uint(v);
    return (int)((u + 0x7ffff + (u >> 20 & 1)) >> 20) - (120 << 3);
}

/* An inverse beyond float32 becomes the largest float32. */
DEVICE struct act_scale scale_of_code(int code, float input_scale)
{
    struct act_scale s = { 0, 0 };
    const uint32_t e = (uint32_t)code >> 3, m = (uint32_t)code & 7;
    const float v = e ? __uint_as_float((e + 120) << 23 | m << 20) : (float)m * 0x1p-9f;
    const float value = v * input_scale, inverse = __fdiv_rn(1.f, value);
    if (!(value > 0)) return s;
    s.value = value;
    s.inverse = inverse < 0x1.fffffep127f ? inverse : 0x1.fffffep127f;
    return s;
}

/* E2M1 of 0 <= a <= 6, whose values are multiples of 1/2 below 2, of 1 below 4, and of 2 above: (a + m) - m
 * rounds a to a multiple of m's last place, to even on a tie, which is also E2M1's even code. */
DEVICE float round_e2m1(float a)
{
    const float m = a < 2.f ? 0x1.8p22f : a < 4.f ? 0x1.8p23f : 0x1.8p24f;
    return (a + m) - m;
}

DEVICE float round_under(float a, struct act_scale s)
{
    return round_e2m1(min_f32(a * s.inverse, 6.f)) * s.value;
}

/* The squared error of a block, in double, in every lane of its half warp. */
DEVICE double lost(float a, float q)
{
    const double d = (double)a - (double)q;
    return fold_f64(d * d);
}

/* Candidate i of the block whose largest magnitude is amax. */
DEVICE struct act_scale candidate(uint32_t method, int i, float amax, float input_scale, float global)
{
    const int six = e4m3_code(global * (amax * (1 / 6.0f)));
    int code = amax > 0 ? six : 0;
    if (method == MOE_CUDA_ACT_46 && i == 1) code = amax > 0 ? e4m3_code(global * (amax * (1 / 4.0f))) : 0;
    if (method == MOE_CUDA_ACT_SEARCH && amax > 0) {
        code = six + (i < 3 ? i - 1 : i + 1); /* -1, 0, 1, 4, 5, 6 */
        code = code < 1 ? 1 : code > 126 ? 126 : code;
    }
    return scale_of_code(code, input_scale);
}

/* Magnitude a of a block as the best candidate gives it, the first on a tie. */
DEVICE float best_of(uint32_t method, float a, float amax, float input_scale)
{
    const float global = __fdiv_rn(1.f, input_scale);
    const int tries = method == MOE_CUDA_ACT_ONE ? 1 : method == MOE_CUDA_ACT_46 ? 2 : 6;
    float best = round_under(a, candidate(method, 0, amax, input_scale, global));
    if (tries == 1) return best;
    double least = lost(a, best);
    for (int i = 1; i < tries; i++) {
        const float q = round_under(a, candidate(method, i, amax, input_scale, global));
        const double l = lost(a, q);
        if (l < least) least = l, best = q;
    }
    return best;
}

KERNEL(moe_cuda_activations, 256) (const struct moe_cuda_activations a)
{
    const int64_t pieces = (a.n + 255) / 256, t = blockIdx.x / pieces,
                  i = blockIdx.x % pieces * 256 + threadIdx.x;
    const float scale = a.scales ? a.scales[a.which[t]] : a.input_scale;
    const float x = i < a.n ? a.x[(a.share > 1 ? t / a.share : t) * a.ldx + i] : 0.f;
    const float g = a.method == MOE_CUDA_ACT_ONE ? scale : scale * (448 / 256.0f);
    const uint32_t size = __float_as_uint(x) & 0x7fffffffu;
    uint32_t most = size;
    for (int lane = 8; lane; lane /= 2) {
        const uint32_t other = __shfl_xor_sync(0xffffffffu, most, lane);
        if (other > most) most = other;
    }
    /* all lanes go on, also those past the end of the row: they take part in sums of other half warps */
    float q = best_of(a.method, __uint_as_float(size), __uint_as_float(most), g);
    q = __uint_as_float(__float_as_uint(q) + (__float_as_uint(x) & 0x80000000u));
    if (most >= 0x7f800000u) q = __uint_as_float(0x7fc00000u);
    if (i < a.n) a.out[t * a.ldo + i] = scale > 0 ? q : x;
}
