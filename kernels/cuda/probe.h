/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/probe.h - what single instructions of ptx.h give, to be held against their twins on the host.
 *
 * No step of a model uses it.  Case i in [0, n) is computed by one warp: each lane has MOE_CUDA_PROBE_IN
 * words at in + (32 i + lane) * MOE_CUDA_PROBE_IN, and writes MOE_CUDA_PROBE_OUT words to the same place of
 * `out`. in and out are multiples of 4. */
#ifndef MOE_KERNELS_CUDA_PROBE_H
#define MOE_KERNELS_CUDA_PROBE_H

#include "kernels/cuda/common.h"

enum { MOE_CUDA_PROBE_IN = 10, MOE_CUDA_PROBE_OUT = 4 };

/* What a case computes from the words w of its lane.  MMA: the product of the fragments a = w[0..3] and
 * b = w[4..5], added to c = w[6..9].  LDMATRIX: lane l stores w[0..3] as row l % 8 of matrix l / 8, and gets
 * its words of four matrices, of two, or of four transposed; w[4] of lane l says whose row it names as row l
 * (its lowest five bits).  NUMBERS: f16x2_from_e4m3x2 of w[0], f32_from_f16 of w[1], f16_from_f32 of w[2] and
 * mul_f16x2 of w[3] and w[4].  MOVMATRIX: of w[0..3], one after the other. */
enum moe_cuda_probe_what {
    MOE_CUDA_PROBE_MMA_F16,
    MOE_CUDA_PROBE_MMA_BF16,
    MOE_CUDA_PROBE_LDMATRIX_X4,
    MOE_CUDA_PROBE_LDMATRIX_X2,
    MOE_CUDA_PROBE_LDMATRIX_X4_TRANS,
    MOE_CUDA_PROBE_MOVMATRIX,
    MOE_CUDA_PROBE_NUMBERS,
    MOE_CUDA_PROBES
};

struct moe_cuda_probe {
    MOE_CU(const uint32_t) in;
    MOE_CU(uint32_t) out;
    int64_t n;
    uint32_t what;   /* enum moe_cuda_probe_what */
    uint32_t unused; /* 0 */
};
static_assert(sizeof(struct moe_cuda_probe) == 32, "the host and the device agree on the arguments of probe");

/* A warp a case, four to a block. */
static inline struct moe_cuda_grid moe_cuda_probe_grid(const struct moe_cuda_probe *a)
{
    struct moe_cuda_grid g = { moe_cuda_blocks(a->n, 4), 1, 1, 128, 0 };
    return g;
}

#endif
