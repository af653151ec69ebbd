/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/norm.cu - a block normalizes a row. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/norm.h"
#include "kernels/cuda/rms.h"

KERNEL(moe_cuda_norm, 256) (const struct moe_cuda_norm a)
{
    const int64_t t = blockIdx.x, r = a.row ? a.row[t] : t;
    float *h = a.h + r * a.n, *out = a.out + t * a.n;
    const float scale = rms_scale(h, a.add ? a.add + t * a.n : NULL, h, a.n, a.eps);
    for (int64_t i = threadIdx.x; i < a.n; i += blockDim.x) out[i] = h[i] * scale * a.w[i];
}
