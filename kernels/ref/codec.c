/* SPDX-License-Identifier: Apache-2.0 */
/* What every stored type means, value by value (formats/dtype.h has the layouts). */
#include "kernels/scales.h"
#include "kernels/variants.h"

static float nvfp4_scale(const struct moe_weight *w, int64_t row, int64_t block)
{
    int64_t blocks = w->cols / 16;
    size_t at = w->layout == MOE_LAYOUT_TILE_128X4
                  ? moe_tile_offset((size_t)row, (size_t)block, (size_t)blocks)
                  : (size_t)(row * blocks + block);
    float s = moe_e4m3_to_f32(w->scale[at]);
    return w->reciprocal ? s / w->global : s * w->global;
}

static float scale(const struct moe_weight *w, int64_t row, int64_t col)
{
    return moe_scale_value(moe_dtypes[w->type].scale, w->scale, moe_scale_index(w, row, col));
}

static float value(const struct moe_weight *w, int64_t row, int64_t col)
{
    int64_t i = row * w->cols + col;
    switch (moe_dtype_like(w->type)) {
    case MOE_F32: return moe_load_f32(w->data + 4 * i);
    case MOE_BF16: return moe_bf16_to_f32(moe_load_le16(w->data + 2 * i));
    case MOE_F16: return moe_f16_to_f32(moe_load_le16(w->data + 2 * i));
    case MOE_FP8_B128: return moe_e4m3_to_f32(w->data[i]) * scale(w, row, col);
    case MOE_INT4_G32: return (float)((w->data[i / 2] >> 4 * (i & 1) & 15) - 8) * scale(w, row, col);
    default:
        return moe_e2m1_to_f32(w->data[i / 2] >> 4 * (i & 1) & 15) * nvfp4_scale(w, row, col / 16);
    }
}

void moe_dequantize_ref(const struct moe_weight *w, int64_t row, int64_t col, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = value(w, row, col + i);
}

void moe_dequantize_nt_ref(const struct moe_weight *w, int64_t r0, int64_t r1, float *out)
{
    for (int64_t r = r0; r < r1; r++) moe_dequantize_ref(w, r, 0, w->cols, out + (r - r0) * w->cols);
}
