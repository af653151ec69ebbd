/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/rounding/clip.h"

#include "kernels/kernels.h"

#include <math.h>

/* A scale is the largest activation over 2688 = 6 * 448, rounded to float32; the margin of 2^-20 keeps that
 * activation itself from being counted as clipped. */
struct moe_clip moe_clip_under(float input_scale)
{
    return (struct moe_clip){ .limit = input_scale * 2688 * (1 + 0x1p-20f) };
}

void moe_clip_count(struct moe_clip *c, const float *x, int64_t ldx, int64_t cols, int64_t n)
{
    for (int64_t t = 0; t < n; t++) {
        const float *row = x + t * ldx;
        float amax = moe_kernels()->amax(row, cols);
        c->largest = fmaxf(c->largest, amax);
        for (int64_t i = 0; amax > c->limit && i < cols; i++) c->clipped += fabsf(row[i]) > c->limit;
    }
    c->seen += n * cols;
}
