/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/scales.h - one scale of a stored weight as float32, which holds every type of scale exactly.  For
 * kernels/, and for code that packs weights into another layout. */
#ifndef MOE_KERNELS_SCALES_H
#define MOE_KERNELS_SCALES_H

#include "formats/dtype.h"
#include "kernels/scalar.h"

/* Scale i of the array at p; for NVFP4 without the global scale.  1 for a type without scales. */
static inline float moe_scale_value(enum moe_scale_type type, const uint8_t *p, int64_t i)
{
    switch (type) {
    case MOE_SCALE_F32: return moe_load_f32(p + 4 * i);
    case MOE_SCALE_BF16: return moe_bf16_to_f32(moe_load_le16(p + 2 * i));
    case MOE_SCALE_F16: return moe_f16_to_f32(moe_load_le16(p + 2 * i));
    case MOE_SCALE_E8M0: return moe_e8m0_to_f32(p[i]);
    case MOE_SCALE_E4M3: return moe_e4m3_to_f32(p[i]);
    case MOE_SCALE_NONE: break;
    }
    return 1;
}

/* The index, in a linear plane of scales, of the scale that belongs to W[row][col]: the i of moe_scale_value.
 * The weight's type must have scales. */
static inline int64_t moe_scale_index(const struct moe_weight *w, int64_t row, int64_t col)
{
    const struct moe_dtype_row *t = &moe_dtypes[w->type];
    if (t->like == MOE_FP8_B128) row /= 128;
    return row * moe_dtype_scales(w->type, w->cols) + (t->group ? col / t->group : 0);
}

#endif
