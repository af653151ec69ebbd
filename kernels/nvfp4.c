/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nvfp4.h"

#include "formats/dtype.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* The smallest power of two that is at least amax / (6 * 448).  amax = f * 2^e with f in [1/2, 1), and 6 *
 * 448 = 0.65625 * 2^12. */
static float power_of_two(float amax)
{
    int e;
    float f = frexpf(amax, &e);
    return ldexpf(1, f <= 0.65625f ? e - 12 : e - 11);
}

float moe_nvfp4_global(float amax, enum moe_nvfp4_method method)
{
    if (method == MOE_NVFP4_SEARCH) return amax > 0 ? fmaxf(power_of_two(amax), FLT_MIN) : FLT_MIN;
    float g = amax / (6.0f * (method == MOE_NVFP4_FOUR_OVER_SIX ? 256.0f : 448.0f));
    return g < FLT_MIN ? FLT_MIN : g;
}

void moe_scales_to_tile(const uint8_t *linear, int64_t rows, int64_t blocks, uint8_t *tile)
{
    size_t kt = ((size_t)blocks + 3) / 4;
    memset(tile, 0, ((size_t)rows + 127) / 128 * kt * 512);
    for (int64_t m = 0; m < rows; m++)
        for (int64_t k = 0; k < blocks; k++)
            tile[moe_tile_offset((size_t)m, (size_t)k, (size_t)blocks)] = linear[m * blocks + k];
}

void moe_scales_from_tile(const uint8_t *tile, int64_t row0, int64_t rows, int64_t blocks, uint8_t *linear)
{
    for (int64_t m = 0; m < rows; m++)
        for (int64_t k = 0; k < blocks; k++)
            linear[m * blocks + k] = tile[moe_tile_offset((size_t)(row0 + m), (size_t)k, (size_t)blocks)];
}
