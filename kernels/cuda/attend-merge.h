/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/attend-merge.h - the merge of what chunks of a token left (attend.h), which exact and fast
 * attention share.  For .cu files alone; included after launch.h. */
#ifndef MOE_KERNELS_CUDA_ATTEND_MERGE_H
#define MOE_KERNELS_CUDA_ATTEND_MERGE_H

#include "kernels/cuda/attend.h"

/* Head h of token t, by the whole block: its chunks in ascending order, as attend_merge and then
 * attend_finish of kernels.def. */
DEVICE void merge_chunks(const struct moe_cuda_attend *a, int64_t h, int64_t t, int64_t chunks)
{
    const int64_t step = a->heads * a->kl, row = t * a->chunks * a->heads + h;
    for (int64_t i = threadIdx.x; i < a->kl; i += blockDim.x) {
        const float *part = a->part + row * a->kl + i;
        float max = a->max[row], sum = a->sum[row], o = part[0];
        for (int64_t c = 1; c < chunks; c++) {
            const float max2 = a->max[row + c * a->heads], sum2 = a->sum[row + c * a->heads];
            const float most = max2 > max ? max2 : max, f = exp_f32(max - most), f2 = exp_f32(max2 - most);
            o = __fmaf_rn(part[c * step], f2, o * f);
            sum = __fmaf_rn(sum2, f2, sum * f);
            max = most;
        }
        a->out[(t * a->heads + h) * a->kl + i] = o * (1.f / sum);
    }
}

#endif
