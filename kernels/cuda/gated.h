/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/gated.h - one value of SwiGLU, as the vector kernels of a CPU compute it (kernels.def,
 * swiglu).  For .cu files. */
#ifndef MOE_KERNELS_CUDA_GATED_H
#define MOE_KERNELS_CUDA_GATED_H

/* g / (1 + exp(-g)) * u by e = exp(-|g|), which cannot overflow. */
DEVICE float swiglu_f32(float g, float u)
{
    const float e = exp_f32(0.f - abs_f32(g)), top = g * (g < 0.f ? e : 1.f);
    return __fdiv_rn(top, 1.f + e) * u;
}

#endif
