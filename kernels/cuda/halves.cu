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

/* Of the eight columns of a piece of 16 bytes: the first, and how far column i of them is behind it. */
DEVICE int64_t first_column(uint32_t kind, int64_t piece)
{
    if (kind <= MOE_CUDA_HALVES_CODES2) return piece * 8;
    return piece / 4 * 32 + piece % 4 * (kind == MOE_CUDA_HALVES_FP8 ? 4 : 2);
}
DEVICE int column_behind(uint32_t kind, int i)
{
    return kind <= MOE_CUDA_HALVES_CODES2 ? (i % 2 ? FAST_HIGH(i / 2) : FAST_LOW(i / 2))
           : kind == MOE_CUDA_HALVES_FP8 ? i / 4 * 16 + i % 4
                                         : i / 2 * 8 + i % 2;
}

/* Eight values as float16 or bfloat16, two a word.  v becomes what is left of them. */
DEVICE void take_halves(bool bf16, float *v, uint32_t pair[4])
{
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const uint32_t h = bf16 ? bf16_from_f32(v[i]) : f16_from_f32(v[i]);
        v[i] = v[i] - (bf16 ? __uint_as_float(h << 16) : f32_from_f16(h));
        pair[i / 2] = i % 2 ? pair[i / 2] | h << 16 : h;
    }
}

/* Stores a row of finite values, or zeros where !finite.  kind is a constant. */
DEVICE void store_row(uint32_t kind, const float *x, int64_t n, float up, bool finite, uint8_t *to)
{
    const int64_t columns = moe_cuda_halves_columns(n);
    for (int64_t piece = threadIdx.x; piece < columns / 8; piece += 256) {
        const int64_t first = first_column(kind, piece);
        const int64_t at = kind == MOE_CUDA_HALVES_CODES ? piece : piece / 8 * 16 + piece % 8;
        uint32_t pair[4];
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int64_t c = first + column_behind(kind, i);
            v[i] = finite && c < n ? x[c] * up : 0.f;
        }
        take_halves(kind == MOE_CUDA_HALVES_BF16, v, pair);
        store_16(to + at * 16, pair);
        if (kind == MOE_CUDA_HALVES_CODES) continue;
        take_halves(kind == MOE_CUDA_HALVES_BF16, v, pair);
        store_16(to + (at + 8) * 16, pair);
    }
}

KERNEL(moe_cuda_halves, 256) (const struct moe_cuda_halves a)
{
    SHARED(uint32_t, warp_most, 8);
    const int64_t t = blockIdx.x;
    const float *x = a.x + t * a.ldx;
    uint8_t *to = a.halves + t * moe_cuda_halves_pitch(a.kind, a.n);
    uint32_t most = 0;

    for (int64_t i = threadIdx.x; i < a.n; i += 256) most = max(most, __float_as_uint(x[i]) & 0x7fffffffu);
    most = block_most(most, warp_most);
    const bool finite = most < 0x7f800000u;
    const uint32_t e = max(most >> 23, 30u);              /* of the row, and 127 */
    const float up = finite ? __uint_as_float((268 - e) << 23) : 0.f;

    switch (a.kind) {
    case MOE_CUDA_HALVES_CODES: store_row(MOE_CUDA_HALVES_CODES, x, a.n, up, finite, to); break;
    case MOE_CUDA_HALVES_CODES2: store_row(MOE_CUDA_HALVES_CODES2, x, a.n, up, finite, to); break;
    case MOE_CUDA_HALVES_BF16: store_row(MOE_CUDA_HALVES_BF16, x, a.n, up, finite, to); break;
    case MOE_CUDA_HALVES_F16: store_row(MOE_CUDA_HALVES_F16, x, a.n, up, finite, to); break;
    default: store_row(MOE_CUDA_HALVES_FP8, x, a.n, up, finite, to); break;
    }
    if (threadIdx.x == 0) a.factors[t] = __uint_as_float(finite ? (e - 14) << 23 : 0x7fc00000u);
}
