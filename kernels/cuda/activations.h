/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/activations.h - what a product with NVFP4 activations multiplies instead of x:
 * nvfp4_activations, nvfp4_activations_46 and nvfp4_activations_search of kernels.def, bit for bit.
 *
 * Row t in [0, rows) of out (ldo floats apart) is made of row t / share of x (ldx floats apart), n values
 * each, n a multiple of 16: so one row of x can serve the `share` choices of a token.  out may be x, with
 * ldo = ldx and a share of 1, for which 0 stands, too.  Float32, at multiples of 4.
 *
 * The scale of a row is `input_scale` or, where `scales` is given, scales[which[t]]: rows that are gathered
 * by expert have that of their expert.  A scale is finite; where it is not above 0 the row is copied as it
 * is. */
#ifndef MOE_KERNELS_CUDA_ACTIVATIONS_H
#define MOE_KERNELS_CUDA_ACTIVATIONS_H

#include "kernels/cuda/common.h"

/* Of how many scales the best is taken: nvfp4_activations, _46, _search. */
enum moe_cuda_act { MOE_CUDA_ACT_ONE, MOE_CUDA_ACT_46, MOE_CUDA_ACT_SEARCH };

struct moe_cuda_activations {
    MOE_CU(const float) x;
    MOE_CU(float) out;
    MOE_CU(const float) scales;
    MOE_CU(const int32_t) which;
    int64_t rows, n, share, ldx, ldo;
    uint32_t method;         /* enum moe_cuda_act */
    float input_scale;
};
static_assert(sizeof(struct moe_cuda_activations) == 80,
              "the host and the device agree on the arguments of activations");

/* A thread a value, whose blocks of 16 are half warps. */
static inline struct moe_cuda_grid moe_cuda_activations_grid(const struct moe_cuda_activations *a)
{
    struct moe_cuda_grid g = { (uint32_t)a->rows * moe_cuda_blocks(a->n, 256), 1, 1, 256, 0 };
    return g;
}

#endif
