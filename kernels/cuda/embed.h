/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/embed.h - the rows of the embedding that tokens name: moe_ops.embed on a GPU.
 *
 * out[t][i] = the value of W[token[t]][i], t in [0, n), i in [0, W's columns), bit for bit that of
 * `dequantize` in kernels.def.  out is float32; token and out are multiples of 4.  A token that W has no row
 * for gives a row of NaN, so that the check of the states finds it. */
#ifndef MOE_KERNELS_CUDA_EMBED_H
#define MOE_KERNELS_CUDA_EMBED_H

#include "kernels/cuda/weight.h"

struct moe_cuda_embed {
    struct moe_cuda_weight w;
    MOE_CU(const int32_t) token;
    MOE_CU(float) out;
    int64_t n;
};
static_assert(sizeof(struct moe_cuda_embed) == 88, "the host and the device agree on the arguments of embed");

/* The columns that a block computes. */
enum { MOE_CUDA_EMBED_COLS = 1024 };

static inline struct moe_cuda_grid moe_cuda_embed_grid(const struct moe_cuda_embed *a)
{
    struct moe_cuda_grid g = { (uint32_t)a->n * moe_cuda_blocks(a->w.cols, MOE_CUDA_EMBED_COLS), 1, 1,
                               256, 0 };
    return g;
}

#endif
