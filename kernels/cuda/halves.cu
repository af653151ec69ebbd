/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/halves.cu - a block finds the largest magnitude of a row, and then converts it, eight columns
 * a thread. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/codes-fast.h"
#include "kernels/cuda/halves.h"

/* The largest of the block's values.  All threads take part. */
DEVICE uint32_t block_most(uint32_t v, uint32_t *warp_most)
{
    for (int d = 16; d; d /= 2) v = max(v, __shfl_xor_sync(0xffffffffu, v, d));
    if (lane_id() == 0) warp_most[warp_id()] = v;
    __syncthreads();
    v = warp_most[lane_id() % 8];
    for (int d = 4; d; d /= 2) v = max(v, __shfl_xor_sync(0xffffffffu, v, d));
    return v;
}

/* bfloat16 of x, to nearest, ties to even. x is finite and smaller than 2^127. */
DEVICE uint32_t bf16_from_f32(float x)
{
    const uint32_t u = __float_as_uint(x);
    return (u + 0x7fffu + (u >> 16 & 1)) >> 16;
}

/* Eight values as float16, in order or in that of codes. */
DEVICE void store_f16(const float *v, bool codes, uint8_t *to)
{
    uint32_t pair[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t plain = f16_from_f32(v[2 * i]) | f16_from_f32(v[2 * i + 1]) << 16;
        const uint32_t other = f16_from_f32(v[FAST_LOW(i)]) | f16_from_f32(v[FAST_HIGH(i)]) << 16;
        pair[i] = codes ? other : plain;
    }
    store_16(to, pair);
}

/* Eight values as bfloat16, and what is left of them. */
DEVICE void store_split(const float *v, uint8_t *to, uint8_t *rest)
{
    uint32_t high[4], low[4];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const uint32_t h = bf16_from_f32(v[i]), l = bf16_from_f32(v[i] - __uint_as_float(h << 16));
        high[i / 2] = i % 2 ? high[i / 2] | h << 16 : h;
        low[i / 2] = i % 2 ? low[i / 2] | l << 16 : l;
    }
    store_16(to, high);
    store_16(rest, low);
}

KERNEL(moe_cuda_halves, 256) (const struct moe_cuda_halves a)
{
    SHARED(uint32_t, warp_most, 8);
    const int64_t t = blockIdx.x, columns = moe_cuda_halves_columns(a.n);
    const float *x = a.x + t * a.ldx;
    uint8_t *to = a.halves + t * moe_cuda_halves_pitch(a.kind, a.n);
    uint32_t most = 0;

    for (int64_t i = threadIdx.x; i < a.n; i += 256) most = max(most, __float_as_uint(x[i]) & 0x7fffffffu);
    most = block_most(most, warp_most);
    const bool finite = most < 0x7f800000u;
    const uint32_t e = max(most >> 23, 30u);              /* of the row, and 127 */
    const float up = finite ? __uint_as_float((268 - e) << 23) : 0.f;

    for (int64_t i = 8 * (int64_t)threadIdx.x; i < columns; i += 8 * 256) {
        float v[8];
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = finite && i + j < a.n ? x[i + j] * up : 0.f;
        if (a.kind == MOE_CUDA_HALVES_SPLIT) store_split(v, to + 2 * i, to + 2 * (columns + i));
        else store_f16(v, a.kind == MOE_CUDA_HALVES_CODES, to + 2 * i);
    }
    if (threadIdx.x == 0) a.factors[t] = __uint_as_float(finite ? (e - 14) << 23 : 0x7fc00000u);
}
