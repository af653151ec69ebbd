/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/codes.h - eight E2M1 codes out of a word of 32 bits as pairs of float16, the order in which
 * they come, and one value as digits.  For .cu files that make or read digits (digits.h); both are compiled
 * for the same GPU.
 *
 * With the conversion of sm_100f pair i holds codes 2i and 2i + 1, with their own values.  Elsewhere bits are
 * moved to where float16 has them: a code s e e m becomes s 000ee m 000000000, which is 2^-14 times its
 * value.  Four odd codes are brought to their places in four bytes at once, then the four even ones, and a
 * pair takes two of these bytes as the upper halves of its float16: 11 operations for 8 codes.
 *
 * CODE_LOW(i), CODE_HIGH(i): the codes in the low and in the high half of pair i.  CODE_PLACE(c): where code
 * c is among the 8 halves.  CODE_FACTOR: what is taken from e + 126 for the exponent of a block's factor
 * (digits.h), so that products come out right. */
#ifndef MOE_KERNELS_CUDA_CODES_H
#define MOE_KERNELS_CUDA_CODES_H

#if PTX_HAS_E2M1
#define CODE_LOW(i) (2 * (i))
#define CODE_HIGH(i) (2 * (i) + 1)
#define CODE_PLACE(c) (c)
#define CODE_FACTOR 26 /* e + 126 - 26 - 127 = e - 24 - 4 + 1: the 16 of digits, the 2 of kernels.def */
DEVICE void pairs_of_codes(uint32_t pair[4], uint32_t codes) { f16_from_e2m1x8(pair, codes); }
#else
#define CODE_LOW(i) ((i) < 2 ? 3 - 2 * (i) : 6 - 2 * (i))
#define CODE_HIGH(i) (CODE_LOW(i) + 4)
#define CODE_PLACE(c) (2 * (0x0213 >> (c) % 4 * 4 & 3) + (c) / 4)
#define CODE_FACTOR 12 /* the same, and 2^14 */
DEVICE void pairs_of_codes(uint32_t pair[4], uint32_t codes)
{
    const uint32_t sign = 0x80808080u, all = 0x8e008e00u;
    const uint32_t odd = choose_bits(sign, codes, codes >> 3);
    const uint32_t even = choose_bits(sign, codes << 4, codes << 1);
    pair[0] = odd & all;        /* codes 3 and 7 */
    pair[1] = odd << 8 & all;   /* 1 and 5 */
    pair[2] = even & all;       /* 2 and 6 */
    pair[3] = even << 8 & all;  /* 0 and 4 */
}
#endif

/* ---- digits (digits.h) ---- */

/* e + 126 of a block, in the place of a float's exponent, at least that of -96. most: the bits of its largest
 * magnitude. */
DEVICE uint32_t digit_exponent(uint32_t most)
{
    return max(__float_as_uint(__uint_as_float(most) * 1.004f) & 0x7f800000u, 30u << 23);
}
/* The factor of the block; NaN where it has a value that is not finite. */
DEVICE float digit_factor(uint32_t most, uint32_t e)
{
    return __uint_as_float(most < 0x7f800000u ? e - CODE_FACTOR * (1u << 23) : 0x7fc00000u);
}
/* X of x; 0 in a block with a value that is not finite. */
DEVICE int digit_integer(float x, uint32_t most, uint32_t e, int bits)
{
    const float f = __uint_as_float((uint32_t)(252 + bits) * (1u << 23) - e);
    return most < 0x7f800000u ? __float2int_rn(x * f) * (1 << (24 - bits)) : 0;
}
DEVICE int digit_high(int x) { return (x + 2048) >> 12; }
DEVICE int digit_low(int x) { return x - digit_high(x) * 4096; }
/* Sixteen times a digit, as float16. */
DEVICE uint32_t f16_digit(int v) { return f16_from_f32((float)(16 * v)); }

#endif
