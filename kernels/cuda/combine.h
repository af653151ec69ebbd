/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/combine.h - adds the outputs of MLPs to the residual stream: moe_ops.combine on a GPU.
 *
 * h[t] += (sum over j in [0, k), ascending from 0, of weights[t*k + j] * rows[t*k + j]) + common[t], for t in
 * [0, tokens), n values each.  Each product and each sum is rounded to float32.  Without rows (0) h[t] +=
 * common[t]; without common (0) its sum is left out.  One of them is given.  All are float32 with rows side
 * by side; addresses are multiples of 4 bytes. */
#ifndef MOE_KERNELS_CUDA_COMBINE_H
#define MOE_KERNELS_CUDA_COMBINE_H

#include "kernels/cuda/common.h"

struct moe_cuda_combine {
    MOE_CU(const float) rows;    /* [tokens * k, n], in the order of the choices (group.h: `pair`) */
    MOE_CU(const float) weights; /* [tokens, k] */
    MOE_CU(const float) common;  /* [tokens, n] */
    MOE_CU(float) h;             /* [tokens, n] */
    int64_t tokens, n, k;
};
static_assert(sizeof(struct moe_cuda_combine) == 56, "host and device agree on the arguments of combine");

/* A thread a value, in at most 65535 blocks. */
static inline struct moe_cuda_grid moe_cuda_combine_grid(const struct moe_cuda_combine *a)
{
    uint32_t blocks = moe_cuda_blocks(a->tokens * a->n, 256);
    struct moe_cuda_grid g = { blocks < 65535 ? blocks : 65535, 1, 1, 256, 0 };
    return g;
}

#endif
