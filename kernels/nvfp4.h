/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/nvfp4.h - NVFP4 quantization rules that are not hot.
 *
 * w = e2m1(code) * (e4m3(block scale) * global), blocks of 16 along the input dimension.
 * Source of max and the rounding rules: modelopt's NVFP4 tensor (shared reference nvfp4.md 1.1-1.3, 2.1). */
#ifndef MOE_KERNELS_NVFP4_H
#define MOE_KERNELS_NVFP4_H

#include <stddef.h>
#include <stdint.h>

/* MAX: b = amax16 / (6 * global) (0 -> 1), s = e4m3_rn(clamp(b, 2^-9, 448)), code =
 * e2m1_rne(w / (s * global)).
 * FOUR_OVER_SIX: the better of that and the same with b * 1.5 (block maximum on 4 instead of 6), by squared
 *   error in double; 6 on a tie.  Its global is amax / (6 * 256), so that 256 * 1.5 stays below 448.
 * SEARCH: of all 126 positive codes the one with the least squared error in double; the lowest code on a tie.
 * A block of zeros always has scale 1.0 (code 0x38) and zero nibbles.
 * e2m1 rounding: nearest, ties to the even code, saturating at 6; a negative value that rounds to 0 keeps its
 * sign bit (code 8), -0.0 does not. */
enum moe_nvfp4_method { MOE_NVFP4_MAX, MOE_NVFP4_FOUR_OVER_SIX, MOE_NVFP4_SEARCH };

/* The global scale of a tensor whose largest magnitude is amax, >= 0 and finite.
 * MAX: amax / (6 * 448) in float32.  FOUR_OVER_SIX: amax / (6 * 256).  These two rules are modelopt's.
 * SEARCH, and every calibrated method: the smallest power of two that is at least amax / (6 *
 * 448).  Block scales then reach
 *   from 224 to 448 in the block of the largest weight: none overflows, and no smaller power would be free of
 *   that, so that none underflows that need not.  A power of two has an exact inverse, and moves into
 *   exponents elsewhere without rounding.
 * An all-zero tensor, or one whose result is below FLT_MIN, gives FLT_MIN = 2^-126: positive,
 * and finite when inverted. */
float moe_nvfp4_global(float amax, enum moe_nvfp4_method method);

/* Copy `rows` rows of linear scales (blocks a row) into tile order (formats/dtype.h), from row `row0` (a
 * multiple of 128) of the plane; `tile` points at the start of that row's tile.  Pads are zeroed when rows
 * is not a multiple of 128. */
void moe_scales_to_tile(const uint8_t *linear, int64_t rows, int64_t blocks, uint8_t *tile);
void moe_scales_from_tile(const uint8_t *tile, int64_t row0, int64_t rows, int64_t blocks, uint8_t *linear);

#endif
