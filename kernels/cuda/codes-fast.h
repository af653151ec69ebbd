/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/codes-fast.h - eight E2M1 codes out of a word of 32 bits as operands of two products, in the
 * order that fast products have on every GPU.  For .cu files.
 *
 * The first product takes codes 0, 1, 4 and 5, the second 2, 3, 6 and 7.  Which of them come in one pair
 * depends on what the GPU can do with codes (codes.h), and makes no difference to sums.
 *
 * FAST_LOW(i), FAST_HIGH(i): the codes in the low and in the high half of pair i; pairs 0 and 1 are of the
 * first product.  FAST_SCALE: what a scale is multiplied by, two float16, so that a value becomes 2^-7 times
 * its own, exactly: codes are multiples of 0.5 and scales of 2^-9, and float16 holds multiples of 2^-24. */
#ifndef MOE_KERNELS_CUDA_CODES_FAST_H
#define MOE_KERNELS_CUDA_CODES_FAST_H

#include "kernels/cuda/codes.h"

#if PTX_HAS_E2M1
#define FAST_LOW(i) ((i) == 0 ? 0 : (i) == 1 ? 4 : (i) == 2 ? 2 : 6)
#define FAST_HIGH(i) (FAST_LOW(i) + 1)
#define FAST_SCALE 0x20002000u /* 2^-7 */
DEVICE void fast_pairs(uint32_t pair[4], uint32_t codes)
{
    uint32_t p[4];
    pairs_of_codes(p, codes);
    pair[0] = p[0], pair[1] = p[2], pair[2] = p[1], pair[3] = p[3];
}
#else
#define FAST_LOW(i) (i)
#define FAST_HIGH(i) ((i) + 4)
#define FAST_SCALE 0x58005800u /* 2^7: the codes come as 2^-14 times their value */
DEVICE void fast_pairs(uint32_t pair[4], uint32_t codes)
{
    uint32_t p[4];
    pairs_of_codes(p, codes);
    pair[0] = p[3], pair[1] = p[1], pair[2] = p[2], pair[3] = p[0];
}
#endif

#endif
