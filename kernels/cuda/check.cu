/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/check.cu - each warp that finds a value that is not finite notes it once. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/check.h"

KERNEL(moe_cuda_check, 256) (const struct moe_cuda_check a)
{
    const int64_t from = (int64_t)blockIdx.x * MOE_CUDA_CHECK_VALUES;
    bool bad = false;
    for (int i = (int)threadIdx.x; i < MOE_CUDA_CHECK_VALUES; i += 256)
        if (from + i < a.n) bad = bad || !finite_f32(a.x[from + i]);
    if (__ballot_sync(0xffffffffu, bad) && lane_id() == 0) atomicOr(a.word, a.note);
}
