/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/absorb.h - the queries of each head in the space of latents.
 *
 * Of token t in [0, n) and head h in [0, heads), with q [n, heads, nope + rope] and W = kv_b, whose rows
 * [h*head_rows, h*head_rows + nope) are the head's part that makes keys, and whose columns are kl:
 *
 *     out[t][h] = { sum over r in [0, nope), ascending, of q[t][h][r] * W[h*head_rows + r][..],
 *                   q[t][h][nope :] }                       out [n, heads, kl + rope]
 *
 * The sums are chains of fma from 0 on dequantized values: matmul_t of kernels.def, bit for bit, for every
 * type of W.  (The way back, from latents to a head's outputs, is kernels/cuda/dense.h with a head an item.)
 *
 * q and out are float32 at multiples of 4 bytes.  absorb_1 is for one token, absorb_8 for more. */
#ifndef MOE_KERNELS_CUDA_ABSORB_H
#define MOE_KERNELS_CUDA_ABSORB_H

#include "kernels/cuda/weight.h"

struct moe_cuda_absorb {
    struct moe_cuda_weight w;
    MOE_CU(const float) q;
    MOE_CU(float) out;
    int64_t n, heads, nope, rope, head_rows;
};
static_assert(sizeof(struct moe_cuda_absorb) == 120, "the host and the device agree on absorb's arguments");

/* A block has a head, so many columns of the latent, a thread each, and 1 or 8 tokens. */
enum {
    MOE_CUDA_ABSORB_THREADS = 128,
    MOE_CUDA_ABSORB_ROWS = 16,     /* rows of W that come into shared memory at once */
    MOE_CUDA_ABSORB_STAGES = 4
};

static inline enum moe_cuda_kernel moe_cuda_absorb_kernel(const struct moe_cuda_absorb *a)
{
    return a->n <= 1 ? MOE_CUDA_absorb_1 : MOE_CUDA_absorb_8;
}

/* Bytes of the part of a row that a block reads. */
#define MOE_CUDA_ABSORB_BYTES(codes) \
    (MOE_CUDA_ABSORB_THREADS * ((codes) == MOE_CUDA_F32 ? 8 : (codes) == MOE_CUDA_FP8 ? 2 \
                              : (codes) == MOE_CUDA_BF16 || (codes) == MOE_CUDA_F16 ? 4 : 1) / 2)

static inline struct moe_cuda_grid moe_cuda_absorb_grid(const struct moe_cuda_absorb *a)
{
    int tokens = a->n <= 1 ? 1 : 8;
    int64_t stage = MOE_CUDA_ABSORB_ROWS * (MOE_CUDA_ABSORB_BYTES(a->w.codes) + 4 * tokens);
    struct moe_cuda_grid g = { moe_cuda_blocks(a->n, tokens),
                               moe_cuda_blocks(a->w.cols, MOE_CUDA_ABSORB_THREADS),
                               (uint32_t)a->heads, MOE_CUDA_ABSORB_THREADS,
                               (uint32_t)(MOE_CUDA_ABSORB_STAGES * stage) };
    return g;
}

#endif
