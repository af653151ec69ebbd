/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/nvfp4.h - the rules of NVFP4 quantization, and those of its functions that take little time.
 *
 * A value is e2m1(code) * (e4m3(block scale) * global).  Blocks are 16 values along the input dimension.  MAX
 * and the rounding rules are those of NVFP4QTensor in NVIDIA's modelopt. */
#ifndef MOE_KERNELS_NVFP4_H
#define MOE_KERNELS_NVFP4_H

#include <stddef.h>
#include <stdint.h>

/* How the scale s of a block is chosen; a is its largest magnitude.
 * MAX: b = a / (6 * global), or 1 where that is 0; s = e4m3 of b clamped to [2^-9, 448], to nearest, ties to
 *   even; code = e2m1(w / (s * global)).
 * FOUR_OVER_SIX: that, or the same with b * 1.5, which puts a on 4 instead of 6: whichever has the smaller
 *   squared error, in double; 6 on a tie.  Its global is amax / (6 * 256), as 256 * 1.5 is below 448.
 *   Source: Cook et al. 2025, Four Over Six.
 * SEARCH: of all 126 positive codes the one with the least squared error, in double; the lowest on a tie.
 * A block of zeros always has scale 1.0 (code 0x38) and codes of 0.
 * e2m1 rounds to nearest, ties to the even code, and saturates at 6.  A negative value that rounds to 0 keeps
 * its sign bit (code 8); -0.0 does not. */
enum moe_nvfp4_method { MOE_NVFP4_MAX, MOE_NVFP4_FOUR_OVER_SIX, MOE_NVFP4_SEARCH };

/* The global scale of a tensor whose largest magnitude is amax, >= 0 and finite.
 * MAX: amax / (6 * 448) in float32.  FOUR_OVER_SIX: amax / (6 * 256).  These two rules are modelopt's.
 * SEARCH, and every calibrated method: the smallest power of two that is at least amax / (6 * 448).  The
 *   scale of the block with the largest weight is then from 224 to 448, so that none overflows.  With a
 *   smaller power one would; with a larger one more scales would underflow.  A power of two has an exact
 *   inverse, and moves into exponents elsewhere without rounding.
 * A tensor of zeros, or one whose result would be below FLT_MIN, gets FLT_MIN = 2^-126, which is positive and
 * has a finite inverse. */
float moe_nvfp4_global(float amax, enum moe_nvfp4_method method);

/* Copies the scales of `rows` rows, each of `blocks` blocks, from linear to tiled order (formats/dtype.h).
 * `tile` is where the tile of the first row begins.  The padding of the last tiles to 128 rows and 4 blocks
 * becomes 0. */
void moe_scales_to_tile(const uint8_t *linear, int64_t rows, int64_t blocks, uint8_t *tile);

/* Copies back to linear order: rows [row0, row0 + rows) of the whole plane at `tile`. */
void moe_scales_from_tile(const uint8_t *tile, int64_t row0, int64_t rows, int64_t blocks, uint8_t *linear);

#endif
