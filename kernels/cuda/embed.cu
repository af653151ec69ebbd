/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/embed.cu - a block makes up to 1,024 columns of a token's row; a thread makes every 256th of
 * them, so that neighbours read and write side by side.  A row is some kilobytes: nothing here is worth more
 * than that. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/decode.h"
#include "kernels/cuda/embed.h"

KERNEL(moe_cuda_embed, 256) (const struct moe_cuda_embed a)
{
    const int64_t cols = a.w.cols, pieces = (cols + MOE_CUDA_EMBED_COLS - 1) / MOE_CUDA_EMBED_COLS,
                  t = blockIdx.x / pieces, from = blockIdx.x % pieces * MOE_CUDA_EMBED_COLS;
    const int64_t row = a.token[t];
    const bool there = row >= 0 && row < a.w.rows;
    for (int i = (int)threadIdx.x; i < MOE_CUDA_EMBED_COLS && from + i < cols; i += 256)
        a.out[t * cols + from + i] = there ? weight_value(&a.w, row, from + i) : __uint_as_float(0x7fc00000u);
}
