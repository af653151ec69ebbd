/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/swiglu.cu - gate and up of an MLP become the input of down. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/gated.h"
#include "kernels/cuda/swiglu.h"

KERNEL(moe_cuda_swiglu, 256) (const struct moe_cuda_swiglu a)
{
    for (int64_t i = blockIdx.x * (int64_t)256 + threadIdx.x; i < a.n; i += gridDim.x * (int64_t)256)
        a.out[i] = swiglu_f32(a.gate[i], a.up[i]);
}
