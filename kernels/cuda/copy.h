/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/copy.h - copies bytes from any memory that a GPU can read, host memory too where it reads that
 * through the host's page tables (Grace).
 *
 * to[i] = from[i], i in [0, bytes).  Neither has to be aligned, and they do not overlap; nothing outside of
 * either is touched.  Where both are multiples of 16, each access is one of 16 bytes; otherwise of 8, 4 or
 * 1. */
#ifndef MOE_KERNELS_CUDA_COPY_H
#define MOE_KERNELS_CUDA_COPY_H

#include "kernels/cuda/common.h"

struct moe_cuda_copy {
    MOE_CU(const uint8_t) from;
    MOE_CU(uint8_t) to;
    int64_t bytes;
};
static_assert(sizeof(struct moe_cuda_copy) == 24, "the host and the device agree on the arguments of copy");

/* The bytes that a block copies: four accesses of 16 by each of its threads. */
enum { MOE_CUDA_COPY_BYTES = 4 * 256 * 16 };

static inline struct moe_cuda_grid moe_cuda_copy_grid(const struct moe_cuda_copy *a)
{
    struct moe_cuda_grid g = { moe_cuda_blocks(a->bytes, MOE_CUDA_COPY_BYTES), 1, 1, 256, 0 };
    return g;
}

#endif
