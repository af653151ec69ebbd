/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/scan.h - sums over the threads of a block.  For .cu files alone, after launch.h. */
#ifndef MOE_KERNELS_CUDA_SCAN_H
#define MOE_KERNELS_CUDA_SCAN_H

/* The sum of v over the threads before this one, in a block of `warps` warps.  All threads take part.
 * warp_sum [warps]: shared memory for this alone.  *total: the sum over all threads. */
DEVICE int sum_before(int v, int warps, int *warp_sum, int *total)
{
    const int lane = (int)lane_id(), warp = (int)warp_id();
    int sum = v, before = 0;
    *total = 0;
    for (int d = 1; d < 32; d *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, sum, (unsigned)d);
        if (lane >= d) sum += other;
    }
    __syncthreads(); /* of an earlier call, all have read warp_sum */
    if (lane == 31) warp_sum[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warps; w++) {
        if (w < warp) before += warp_sum[w];
        *total += warp_sum[w];
    }
    return before + sum - v;
}

#endif
