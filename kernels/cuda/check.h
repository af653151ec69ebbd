/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/check.h - looks for values that are not finite: moe_ops.check on a GPU.
 *
 * Where x [n] (float32, a multiple of 4) holds a NaN or Inf, the bits `note` are set in *word.  Nothing else
 * is changed: a word collects what all checks of a pass note. */
#ifndef MOE_KERNELS_CUDA_CHECK_H
#define MOE_KERNELS_CUDA_CHECK_H

#include "kernels/cuda/common.h"

struct moe_cuda_check {
    MOE_CU(const float) x;
    MOE_CU(uint32_t) word;
    int64_t n;
    uint32_t note;   /* MOE_WORD_NONFINITE (model/ops/ops.h) */
    uint32_t unused; /* 0 */
};
static_assert(sizeof(struct moe_cuda_check) == 32, "the host and the device agree on the arguments of check");

/* The values that a block looks at. */
enum { MOE_CUDA_CHECK_VALUES = 4096 };

/* n is at least 1. */
static inline struct moe_cuda_grid moe_cuda_check_grid(const struct moe_cuda_check *a)
{
    struct moe_cuda_grid g = { moe_cuda_blocks(a->n, MOE_CUDA_CHECK_VALUES), 1, 1, 256, 0 };
    return g;
}

#endif
