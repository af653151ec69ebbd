/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/append.h - what a batch adds to the latent cache, and copies of its rows: moe_ops.append and
 * moe_ops.copy on a GPU.
 *
 * append: of every token t in [0, n), the last `rope` values of each head of q [n, heads, nope + rope] are
 * rotated in place, and the token's row of the cache becomes {rmsnorm(ckv[0 : kl], norm), ckv[kl :] rotated},
 * where ckv is row t of ckv [n, kl + rope], the cache's width.  norm [kl]; cosine and sine [n, rope / 2] are
 * those of each token's position (moe_rope_angles).  The bits are those of rmsnorm and rope of kernels.def;
 * where the cache is of bfloat16, each value of the row is then rounded to nearest, ties to even, and steps
 * and widths count such values.
 *
 * copy_page: the first `rows` rows of a page become those of another, in every layer.  from and to: the first
 * row of each page in layer 0; layers lie layer_step values apart.
 *
 * All but such a cache is float32 at multiples of 4 bytes. */
#ifndef MOE_KERNELS_CUDA_APPEND_H
#define MOE_KERNELS_CUDA_APPEND_H

#include "kernels/cuda/latents.h"

struct moe_cuda_append {
    struct moe_cuda_latents cache;
    MOE_CU(float) q;
    MOE_CU(const float) ckv;
    MOE_CU(const float) norm;
    MOE_CU(const float) cosine;
    MOE_CU(const float) sine;
    int64_t n, heads, nope, rope, kl;
    float eps;
    uint32_t bf16;                 /* whether the cache is of bfloat16 */
};
static_assert(sizeof(struct moe_cuda_append) == 144, "the host and the device agree on append's arguments");

struct moe_cuda_copy_page {
    MOE_CU(const float) from;
    MOE_CU(float) to;
    int64_t layers, layer_step, rows, width;
    uint32_t bf16, unused;         /* as of append; 0 */
};
static_assert(sizeof(struct moe_cuda_copy_page) == 56,
              "the host and the device agree on copy_page's arguments");

enum { MOE_CUDA_APPEND_HEADS = 8 };  /* heads of a block, a warp each */

/* Blocks for the heads of each token, and one for its row of the cache. */
static inline struct moe_cuda_grid moe_cuda_append_grid(const struct moe_cuda_append *a)
{
    struct moe_cuda_grid g = { (uint32_t)a->n, moe_cuda_blocks(a->heads, MOE_CUDA_APPEND_HEADS) + 1, 1,
                               32 * MOE_CUDA_APPEND_HEADS, 0 };
    return g;
}

static inline struct moe_cuda_grid moe_cuda_copy_page_grid(const struct moe_cuda_copy_page *a)
{
    struct moe_cuda_grid g = { (uint32_t)a->rows, (uint32_t)a->layers, 1, 128, 0 };
    return g;
}

#endif
