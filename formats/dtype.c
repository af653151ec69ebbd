/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/dtype.h"

#include <string.h>

static const char *const names[MOE_DTYPE_COUNT] = {
#define DTYPE(ID, name, id, bits) [id] = name,
#include "formats/dtype.def"
#undef DTYPE
};

const char *moe_dtype_name(int type)
{
    return type >= 0 && type < MOE_DTYPE_COUNT ? names[type] : NULL;
}

int moe_dtype_find(const char *name)
{
    for (int i = 0; i < MOE_DTYPE_COUNT; i++)
        if (!strcmp(names[i], name)) return i;
    return -1;
}

const char *moe_plane_word(int plane)
{
    static const char *const word[MOE_PLANE_COUNT] = { "data", "scale", "global scale", "input scale" };
    return word[plane];
}

static int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

int64_t moe_plane_bytes(int type, int layout, int plane, int64_t rows, int64_t cols)
{
    int64_t n;
    if (rows < 1 || cols < 1 || rows > (int64_t)1 << 40 || cols > (int64_t)1 << 40) return -1;
    if (__builtin_mul_overflow(rows, cols, &n) || n > (int64_t)1 << 56) return -1;
    if ((type == MOE_NVFP4 && cols % 16) || (type == MOE_INT4_G32 && cols % 32)) return -1;
    switch (plane) {
    case MOE_PLANE_DATA:
        switch (type) {
        case MOE_F32: return 4 * n;
        case MOE_BF16: return 2 * n;
        case MOE_FP8_B128: return n;
        case MOE_INT4_G32:
        case MOE_NVFP4: return n / 2;
        }
        return -1;
    case MOE_PLANE_SCALE:
        switch (type) {
        case MOE_FP8_B128: return 4 * ceil_div(rows, 128) * ceil_div(cols, 128);
        case MOE_INT4_G32: return n / 32 * 2;
        case MOE_NVFP4:
            return layout == MOE_LAYOUT_LINEAR ? n / 16 : ceil_div(rows, 128) * ceil_div(cols / 16, 4) * 512;
        }
        return 0;
    default:
        return type == MOE_NVFP4 ? 4 : 0;
    }
}
