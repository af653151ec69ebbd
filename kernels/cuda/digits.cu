/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/digits.cu - a thread makes the digits of a block of 16 values. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/codes.h"
#include "kernels/cuda/digits.h"

/* Sixteen times an integer of at most 2048, as float16. */
DEVICE uint32_t f16_digit(int v) { return f16_from_f32((float)(16 * v)); }

/* Eight columns of one digit: 16 bytes. */
DEVICE void store_columns(const int *v, uint8_t *to)
{
    uint32_t pair[4];
#pragma unroll
    for (int i = 0; i < 4; i++) pair[i] = f16_digit(v[CODE_LOW(i)]) | f16_digit(v[CODE_HIGH(i)]) << 16;
    store_16(to, pair);
}

KERNEL(moe_cuda_digits, 128) (const struct moe_cuda_digits a)
{
    const int64_t blocks = moe_cuda_digit_groups(a.n) * 16, at = blockIdx.x * (int64_t)128 + threadIdx.x;
    if (at >= a.rows * blocks) return;
    const int64_t t = at / blocks, b = at % blocks;
    uint32_t bits[16], most = 0;
    int h[16], l[16];

    for (int i = 0; i < 4; i++) {
        if (16 * b < a.n) load_16(bits + 4 * i, a.x + t * a.ldx + 16 * b + 4 * i);
        else bits[4 * i] = bits[4 * i + 1] = bits[4 * i + 2] = bits[4 * i + 3] = 0;
    }
#pragma unroll
    for (int i = 0; i < 16; i++) most = max(most, bits[i] & 0x7fffffffu);

    /* e + 126, in the place of a float's exponent: at least that of -96 */
    const uint32_t e = max(__float_as_uint(__uint_as_float(most) * 1.004f) & 0x7f800000u, 30u << 23);
    const bool finite = most < 0x7f800000u;
    const float f = __uint_as_float((uint32_t)(252 + a.bits) * (1u << 23) - e);
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int x = finite ? __float2int_rn(__uint_as_float(bits[i]) * f) * (1 << (24 - a.bits)) : 0;
        h[i] = (x + 2048) >> 12;
        l[i] = x - h[i] * 4096;
    }
    uint8_t *to = a.digits + (t * blocks + b) * 64;
    store_columns(h, to);
    store_columns(h + 8, to + 16);
    store_columns(l, to + 32);
    store_columns(l + 8, to + 48);
    a.factors[t * blocks + b] = __uint_as_float(finite ? e - CODE_FACTOR * (1u << 23) : 0x7fc00000u);
}
