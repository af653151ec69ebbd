/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/combine.cu - a thread adds up one value of a token. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/combine.h"

KERNEL(moe_cuda_combine, 256) (const struct moe_cuda_combine a)
{
    for (int64_t i = blockIdx.x * (int64_t)256 + threadIdx.x; i < a.tokens * a.n;
         i += gridDim.x * (int64_t)256) {
        const int64_t t = i / a.n, c = i % a.n;
        float sum = 0;
        for (int64_t j = t * a.k; a.rows && j < (t + 1) * a.k; j++)
            sum = sum + a.weights[j] * a.rows[j * a.n + c];
        if (a.common) sum = a.rows ? sum + a.common[i] : a.common[i];
        a.h[i] = a.h[i] + sum;
    }
}
