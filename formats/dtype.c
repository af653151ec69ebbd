/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/dtype.h"

#include <string.h>

const struct moe_dtype_row moe_dtypes[MOE_DTYPE_COUNT] = {
#define DTYPE(ID, name, id, bits, like, group, scale) \
    [id] = { name, bits, MOE_##like, group, MOE_SCALE_##scale },
#include "formats/dtype.def"
#undef DTYPE
};

const char *moe_dtype_name(int type)
{
    return type >= 0 && type < MOE_DTYPE_COUNT ? moe_dtypes[type].name : NULL;
}

int moe_dtype_find(const char *name)
{
    for (int i = 0; i < MOE_DTYPE_COUNT; i++)
        if (!strcmp(moe_dtypes[i].name, name)) return i;
    return -1;
}

int moe_dtype_with(int like, int64_t group, enum moe_scale_type scale)
{
    for (int i = 0; i < MOE_DTYPE_COUNT; i++)
        if (moe_dtypes[i].like == like && moe_dtypes[i].group == group && moe_dtypes[i].scale == scale)
            return i;
    return -1;
}

int moe_scale_bytes(enum moe_scale_type scale)
{
    switch (scale) {
    case MOE_SCALE_NONE: return 0;
    case MOE_SCALE_F32: return 4;
    case MOE_SCALE_BF16: case MOE_SCALE_F16: return 2;
    case MOE_SCALE_E8M0: case MOE_SCALE_E4M3: return 1;
    }
    return 0;
}

const char *moe_plane_word(int plane)
{
    static const char *const word[MOE_PLANE_COUNT] = { "data", "scale", "global scale", "input scale" };
    return word[plane];
}

static int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

static bool suits(int type, int64_t cols)
{
    int64_t group = moe_dtypes[type].group;
    if (moe_dtype_like(type) == MOE_NVFP4) return cols % 16 == 0;
    return moe_dtype_like(type) != MOE_INT4_G32 || (cols % 32 == 0 && (!group || cols % group == 0));
}

int64_t moe_plane_bytes(int type, int layout, int plane, int64_t rows, int64_t cols)
{
    int64_t n;
    if (rows < 1 || cols < 1 || rows > (int64_t)1 << 40 || cols > (int64_t)1 << 40) return -1;
    if (__builtin_mul_overflow(rows, cols, &n) || n > (int64_t)1 << 56) return -1;
    if (type < 0 || type >= MOE_DTYPE_COUNT || !suits(type, cols)) return -1;
    int64_t width = moe_scale_bytes(moe_dtypes[type].scale);
    switch (plane) {
    case MOE_PLANE_DATA: return n * moe_dtypes[type].bits / 8;
    case MOE_PLANE_SCALE:
        if (moe_dtype_like(type) == MOE_FP8_B128)
            return width * ceil_div(rows, 128) * moe_dtype_scales(type, cols);
        if (layout == MOE_LAYOUT_TILE_128X4)
            return type == MOE_NVFP4 ? ceil_div(rows, 128) * ceil_div(cols / 16, 4) * 512 : -1;
        return width * rows * moe_dtype_scales(type, cols);
    default:
        return type == MOE_NVFP4 ? 4 : 0;
    }
}
