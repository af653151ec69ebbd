/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/norm.h - the RMS norm, with the residual added first: moe_ops.norm on a GPU.
 *
 * Where add is given, h[t] += add[t], rounded, is stored for every row t in [0, rows).  Then
 * out[t] = rmsnorm(h[r], w), bit for bit as kernels.def defines it, where r = row[t], or t without `row`.
 * h, add and out are float32, with rows of n values, one after the other; out may be h where `row` is not
 * given.  With `row`, add is not.  w holds n values.  Addresses are multiples of 4 bytes. */
#ifndef MOE_KERNELS_CUDA_NORM_H
#define MOE_KERNELS_CUDA_NORM_H

#include "kernels/cuda/common.h"

struct moe_cuda_norm {
    MOE_CU(float) h;
    MOE_CU(const float) add;
    MOE_CU(const float) w;
    MOE_CU(float) out;
    MOE_CU(const int32_t) row;
    int64_t rows, n;
    float eps;
    uint32_t unused; /* 0 */
};
static_assert(sizeof(struct moe_cuda_norm) == 64, "the host and the device agree on the arguments of norm");

/* A block a row. */
static inline struct moe_cuda_grid moe_cuda_norm_grid(const struct moe_cuda_norm *a)
{
    struct moe_cuda_grid g = { (uint32_t)a->rows, 1, 1, 256, 0 };
    return g;
}

#endif
