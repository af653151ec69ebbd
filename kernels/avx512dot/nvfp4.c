/* SPDX-License-Identifier: Apache-2.0 */
/* The NVFP4 quantizers, squares added up by dot products of words (AVX512_VNNI): the same bytes,
 * search 1.07 times as fast. */
#define VARIANT(name) moe_##name##_vnni
#include "kernels/avx512/blocks.h"

#include "kernels/body/nvfp4.h"
