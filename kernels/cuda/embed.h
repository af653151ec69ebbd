/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/embed.h - the rows of the embedding that tokens name: moe_ops.embed on a GPU.
 *
 * out[t][i] = the value of W[token[t]][i], t in [0, n), i in [0, cols), bit for bit that of `dequantize` in
 * kernels.def.  W is stored as any type of formats/dtype.def, with its planes `data` and `scale` as a file
 * has them.  out is float32.  data and scale are multiples of the bytes of a value and of a scale; token
 * and out are multiples of 4.  A token outside [0, rows) gives a row of NaN, so that the check of the
 * states finds it. */
#ifndef MOE_KERNELS_CUDA_EMBED_H
#define MOE_KERNELS_CUDA_EMBED_H

#include "formats/dtype.h"
#include "kernels/cuda/common.h"

struct moe_cuda_embed {
    MOE_CU(const uint8_t) data;
    MOE_CU(const uint8_t) scale;
    MOE_CU(const int32_t) token;
    MOE_CU(float) out;
    int64_t n, rows, cols;
    uint32_t like, scale_type; /* enum moe_dtype (moe_dtype_like) and enum moe_scale_type */
    uint32_t group;            /* columns that share a scale; 0: the whole row */
    uint32_t tiles;            /* 1: the scales are laid out as TILE_128X4 */
    uint32_t reciprocal;       /* 1: NVFP4's scales are divided by the global one */
    float global;
};
static_assert(sizeof(struct moe_cuda_embed) == 80, "the host and the device agree on the arguments of embed");

/* The columns that a block computes. */
enum { MOE_CUDA_EMBED_COLS = 1024 };

static inline struct moe_cuda_grid moe_cuda_embed_grid(const struct moe_cuda_embed *a)
{
    struct moe_cuda_grid g = { (uint32_t)a->n * moe_cuda_blocks(a->cols, MOE_CUDA_EMBED_COLS), 1, 1, 256, 0 };
    return g;
}

#endif
