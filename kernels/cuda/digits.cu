/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/digits.cu - a thread makes the digits of a block of 16 values. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/codes.h"
#include "kernels/cuda/digits.h"

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

    const uint32_t e = digit_exponent(most);
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int x = digit_integer(__uint_as_float(bits[i]), most, e, a.bits);
        h[i] = digit_high(x), l[i] = digit_low(x);
    }
    uint8_t *to = a.digits + (t * blocks + b) * 64;
    store_columns(h, to);
    store_columns(h + 8, to + 16);
    store_columns(l, to + 32);
    store_columns(l + 8, to + 48);
    a.factors[t * blocks + b] = digit_factor(most, e);
}
