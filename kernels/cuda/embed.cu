/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/embed.cu - a block makes up to 1,024 columns of a token's row; a thread makes every 256th of
 * them, so that neighbours read and write side by side.  A row is some kilobytes: nothing here is worth more
 * than that. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/embed.h"

DEVICE float f32_from_bf16(uint32_t b) { return __uint_as_float(b << 16); }
DEVICE float f32_from_e4m3(uint32_t c) { return f32_from_f16(f16x2_from_e4m3x2(c) & 0xffff); }
/* 2^(c - 127); the smallest is a subnormal float32, and 0xff is NaN. */
DEVICE float f32_from_e8m0(uint32_t c)
{
    return __uint_as_float(c == 0xff ? 0x7fc00000u : c ? c << 23 : 0x400000u);
}
/* The codes 0 to 7 are 0, 1/2, 1, 3/2, 2, 3, 4 and 6: halves up to 2, and then twice 2, 3/2 times as far. */
DEVICE float f32_from_e2m1(uint32_t c)
{
    const uint32_t twice = 0xc8643210u >> 4 * (c & 7) & 15; /* the value times 2 */
    return __uint_as_float(__float_as_uint((float)twice * 0.5f) | (c & 8) << 28);
}

/* Scale i of a plane whose scales have this type. */
DEVICE float scale_value(uint32_t type, const uint8_t *p, int64_t i)
{
    switch (type) {
    case MOE_SCALE_F32: return ((const float *)p)[i];
    case MOE_SCALE_BF16: return f32_from_bf16(((const uint16_t *)p)[i]);
    case MOE_SCALE_F16: return f32_from_f16(((const uint16_t *)p)[i]);
    case MOE_SCALE_E8M0: return f32_from_e8m0(p[i]);
    default: return f32_from_e4m3(p[i]);
    }
}

/* Where the scale of W[row][col] stands. */
DEVICE int64_t scale_index(const struct moe_cuda_embed *a, int64_t row, int64_t col)
{
    const int64_t in_row = a->group ? (a->cols + a->group - 1) / a->group : 1,
                  k = a->group ? col / a->group : 0;
    if (a->tiles) {
        const int64_t across = (in_row + 3) / 4;
        return (row / 128 * across + k / 4) * 512 + row % 32 * 16 + row % 128 / 32 * 4 + k % 4;
    }
    return (a->like == MOE_FP8_B128 ? row / 128 : row) * in_row + k;
}

DEVICE float value(const struct moe_cuda_embed *a, int64_t row, int64_t col)
{
    const int64_t i = row * a->cols + col;
    switch (a->like) {
    case MOE_F32: return ((const float *)a->data)[i];
    case MOE_BF16: return f32_from_bf16(((const uint16_t *)a->data)[i]);
    case MOE_F16: return f32_from_f16(((const uint16_t *)a->data)[i]);
    default: break;
    }
    const float s = scale_value(a->scale_type, a->scale, scale_index(a, row, col));
    if (a->like == MOE_FP8_B128) return f32_from_e4m3(a->data[i]) * s;
    const uint32_t code = a->data[i / 2] >> 4 * (i & 1) & 15;
    if (a->like == MOE_INT4_G32) return (float)((int)code - 8) * s;
    return f32_from_e2m1(code) * (a->reciprocal ? __fdiv_rn(s, a->global) : s * a->global);
}

KERNEL(moe_cuda_embed, 256) (const struct moe_cuda_embed a)
{
    const int64_t pieces = (a.cols + MOE_CUDA_EMBED_COLS - 1) / MOE_CUDA_EMBED_COLS,
                  t = blockIdx.x / pieces, from = blockIdx.x % pieces * MOE_CUDA_EMBED_COLS;
    const int64_t row = a.token[t];
    const bool there = row >= 0 && row < a.rows;
    for (int i = (int)threadIdx.x; i < MOE_CUDA_EMBED_COLS && from + i < a.cols; i += 256)
        a.out[t * a.cols + from + i] = there ? value(&a, row, from + i) : __uint_as_float(0x7fc00000u);
}
