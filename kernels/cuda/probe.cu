/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/probe.cu - a warp runs one instruction on the words it is given. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/probe.h"

enum { IN = MOE_CUDA_PROBE_IN, OUT = MOE_CUDA_PROBE_OUT };

DEVICE void multiply(bool bf16, const uint32_t *w, uint32_t *out)
{
    const uint32_t a[4] = { w[0], w[1], w[2], w[3] }, b[2] = { w[4], w[5] };
    float d[4];
    for (int i = 0; i < 4; i++) d[i] = __uint_as_float(w[6 + i]);
    if (bf16) mma_16816_bf16(d, a, b);
    else mma_16816_f16(d, a, b);
    for (int i = 0; i < 4; i++) out[i] = __float_as_uint(d[i]);
}

/* tile: 32 rows of 4 words, the warp's own. */
DEVICE void load_matrices(uint32_t what, const uint32_t *w, uint32_t *tile, uint32_t *out)
{
    for (int i = 0; i < 4; i++) tile[lane_id() * 4 + i] = w[i];
    __syncwarp(0xffffffffu);
    const uint32_t *row = tile + (w[4] & 31) * 4;
    if (what == MOE_CUDA_PROBE_LDMATRIX_X4) ldmatrix_x4(out, row);
    else if (what == MOE_CUDA_PROBE_LDMATRIX_X2) ldmatrix_x2(out, row);
    else ldmatrix_x4_trans(out, row);
}

DEVICE void convert(const uint32_t *w, uint32_t *out)
{
    out[0] = f16x2_from_e4m3x2(w[0] & 0xffff);
    out[1] = __float_as_uint(f32_from_f16(w[1] & 0xffff));
    out[2] = f16_from_f32(__uint_as_float(w[2]));
    out[3] = mul_f16x2(w[3], w[4]);
}

KERNEL(moe_cuda_probe, 128) (const struct moe_cuda_probe a)
{
    SHARED(uint32_t, tile, 4 * 32 * 4);
    const int64_t i = (int64_t)blockIdx.x * 4 + warp_id();
    uint32_t w[IN] = { 0 }, out[OUT] = { 0 };
    if (i < a.n)
        for (int k = 0; k < IN; k++) w[k] = a.in[(i * 32 + lane_id()) * IN + k];
    switch (a.what) {
    case MOE_CUDA_PROBE_MMA_F16: multiply(false, w, out); break;
    case MOE_CUDA_PROBE_MMA_BF16: multiply(true, w, out); break;
    case MOE_CUDA_PROBE_MOVMATRIX:
        for (int k = 0; k < OUT; k++) out[k] = movmatrix_trans(w[k]);
        break;
    case MOE_CUDA_PROBE_NUMBERS: convert(w, out); break;
    default: load_matrices(a.what, w, tile + warp_id() * 128, out); break;
    }
    if (i < a.n)
        for (int k = 0; k < OUT; k++) a.out[(i * 32 + lane_id()) * OUT + k] = out[k];
}
