/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/swiglu.h - out[i] = swiglu(gate[i], up[i]) of kernels.def, bit for bit, for n values. out may
 * be gate or up.  Addresses are multiples of 4 bytes. */
#ifndef MOE_KERNELS_CUDA_SWIGLU_H
#define MOE_KERNELS_CUDA_SWIGLU_H

#include "kernels/cuda/common.h"

struct moe_cuda_swiglu {
    MOE_CU(const float) gate;
    MOE_CU(const float) up;
    MOE_CU(float) out;
    int64_t n;
};
static_assert(sizeof(struct moe_cuda_swiglu) == 32, "host and device agree on the arguments of swiglu");

/* A thread a value, in at most 65535 blocks. */
static inline struct moe_cuda_grid moe_cuda_swiglu_grid(const struct moe_cuda_swiglu *a)
{
    uint32_t blocks = moe_cuda_blocks(a->n, 256);
    struct moe_cuda_grid g = { blocks < 65535 ? blocks : 65535, 1, 1, 256, 0 };
    return g;
}

#endif
