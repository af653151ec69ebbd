/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/decode.h - the values of a stored weight, bit for bit those of `dequantize` of kernels.def.
 * For .cu files, after launch.h. */
#ifndef MOE_KERNELS_CUDA_DECODE_H
#define MOE_KERNELS_CUDA_DECODE_H

#include "kernels/cuda/weight.h"

/* ---- numbers ---- */

DEVICE float f32_from_bf16(uint32_t b) { return __uint_as_float(b << 16); }

/* The code's bits, shifted, are a float32 whose exponent is too small by 120; the product is exact, of
 * subnormals too. */
DEVICE float f32_from_e4m3(uint32_t c)
{
    float v = __uint_as_float((c & 0x7f) << 20) * 0x1p120f;
    if ((c & 0x7f) == 0x7f) v = __uint_as_float(0x7fc00000u);
    return __uint_as_float(__float_as_uint(v) | (c & 0x80) << 24);
}

DEVICE float f32_from_e8m0(uint32_t c)
{
    return __uint_as_float(c == 0xff ? 0x7fc00000u : c ? c << 23 : 0x400000u);
}

/* Twice the value, which is an integer. */
DEVICE int twice_e2m1(uint32_t c)
{
    uint32_t e = c >> 1 & 3, m = c & 1;
    int v = (int)(e ? (2 + m) << (e - 1) : m);
    return c & 8 ? -v : v;
}
/* The value; zero keeps its sign. */
DEVICE float f32_from_e2m1(uint32_t c)
{
    float v = (float)twice_e2m1(c & 7) * 0.5f;
    return __uint_as_float(__float_as_uint(v) | (c & 8) << 28);
}

/* Where code i of four bits is, in bytes from the first: the low nibble is the even one. */
DEVICE uint32_t nibble_at(const uint8_t *p, int64_t i) { return p[i >> 1] >> (i & 1) * 4 & 15u; }

/* ---- one scale ---- */

/* Scale i of the plane at p, without the global. */
DEVICE float scale_value(uint32_t scales, const uint8_t *p, int64_t i)
{
    switch (scales) {
    case MOE_CUDA_SCALE_F32: return ((const float *)p)[i];
    case MOE_CUDA_SCALE_BF16: return f32_from_bf16(((const uint16_t *)p)[i]);
    case MOE_CUDA_SCALE_F16: return f32_from_f16(((const uint16_t *)p)[i]);
    case MOE_CUDA_SCALE_E8M0: return f32_from_e8m0(p[i]);
    default: return f32_from_e4m3(p[i]);
    }
}

/* The index of the scale of NVFP4's block `block` of a row. */
DEVICE int64_t nvfp4_scale_index(const struct moe_cuda_weight *w, int64_t row, int64_t block)
{
    int64_t blocks = w->cols / 16;
    if (!w->tiled) return row * blocks + block;
    const int64_t tile = row / 128 * ((blocks + 3) / 4) + block / 4;
    return tile * 512 + row % 32 * 16 + row % 128 / 32 * 4 + block % 4;
}

/* What the code of W[row][col] is multiplied by.  For FP8, INT4 and NVFP4. */
DEVICE float weight_scale(const struct moe_cuda_weight *w, uint32_t codes, int64_t row, int64_t col)
{
    if (codes == MOE_CUDA_NVFP4) {
        float s = f32_from_e4m3(w->scale[nvfp4_scale_index(w, row, col / 16)]);
        return w->reciprocal ? s / w->global : s * w->global;
    }
    if (codes == MOE_CUDA_FP8) row /= 128;
    return scale_value(w->scales, w->scale, row * w->row_scales + ((uint32_t)col >> w->shift));
}

/* ---- one value ---- */

/* The code of column i of the row at p, as a number that only has to be multiplied by its scale. */
DEVICE float code_value(uint32_t codes, const uint8_t *p, int64_t i)
{
    switch (codes) {
    case MOE_CUDA_F32: return ((const float *)p)[i];
    case MOE_CUDA_BF16: return f32_from_bf16(((const uint16_t *)p)[i]);
    case MOE_CUDA_F16: return f32_from_f16(((const uint16_t *)p)[i]);
    case MOE_CUDA_FP8: return f32_from_e4m3(p[i]);
    case MOE_CUDA_INT4: return (float)((int)nibble_at(p, i) - 8);
    default: return f32_from_e2m1(nibble_at(p, i));
    }
}

DEVICE bool codes_are_scaled(uint32_t codes) { return codes >= MOE_CUDA_FP8; }

/* Bytes of n values of a row, n a multiple of 2 for codes of four bits. */
DEVICE int64_t code_bytes(uint32_t codes, int64_t n)
{
    return codes == MOE_CUDA_F32 ? 4 * n
         : codes == MOE_CUDA_BF16 || codes == MOE_CUDA_F16 ? 2 * n
         : codes == MOE_CUDA_FP8 ? n
                                 : n / 2;
}

/* W[row][col]. */
DEVICE float weight_value(const struct moe_cuda_weight *w, int64_t row, int64_t col)
{
    float v = code_value(w->codes, w->data + row * code_bytes(w->codes, w->cols), col);
    return codes_are_scaled(w->codes) ? v * weight_scale(w, w->codes, row, col) : v;
}

#endif
