/* kernels/nvfp4.h - NVFP4 quantization rules that are not hot.
 *
 * w = e2m1(code) * (e4m3(block scale) * global), blocks of 16 along the input dimension.
 * Source of max and the rounding rules: modelopt's NVFP4 tensor (shared reference nvfp4.md 1.1-1.3, 2.1). */
#ifndef MOE_KERNELS_NVFP4_H
#define MOE_KERNELS_NVFP4_H

#include <stddef.h>
#include <stdint.h>

/* MAX: b = amax16 / (6 * global) (0 -> 1), s = e4m3_rn(clamp(b, 2^-9, 448)), code = e2m1_rne(w / (s * global)).
 * FOUR_OVER_SIX: the better of that and the same with b * 1.5 (block maximum on 4 instead of 6), by squared error in
 *   double; 6 on a tie.  Its global is amax / (6 * 256), so that 256 * 1.5 stays below 448.
 * SEARCH: of all 126 positive codes the one with the least squared error in double; the lowest code on a tie.
 * A block of zeros always has scale 1.0 (code 0x38) and zero nibbles.
 * e2m1 rounding: nearest, ties to the even code, saturating at 6; a negative value that rounds to 0 keeps its sign bit
 * (code 8), -0.0 does not. */
enum moe_nvfp4_method { MOE_NVFP4_MAX, MOE_NVFP4_FOUR_OVER_SIX, MOE_NVFP4_SEARCH };

/* amax / (6 * 448), or amax / (6 * 256) for FOUR_OVER_SIX, in float32.  An all-zero tensor, or one so small that the
 * quotient is below FLT_MIN, gives FLT_MIN: positive, and finite when inverted. */
float moe_nvfp4_global(float amax, enum moe_nvfp4_method method);

/* Copy `rows` rows of linear scales (blocks a row) into tile order (formats/dtype.h), from row `row0` (a multiple of 128)
 * of the plane; `tile` points at the start of that row's tile.  Pads are zeroed when rows is not a multiple of 128. */
void moe_scales_to_tile(const uint8_t *linear, int64_t rows, int64_t blocks, uint8_t *tile);
void moe_scales_from_tile(const uint8_t *tile, int64_t row0, int64_t rows, int64_t blocks, uint8_t *linear);

#endif
