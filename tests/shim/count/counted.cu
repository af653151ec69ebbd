/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/count/counted.cu - small kernels whose accesses to memory are known, for
 * tests/kernels/check-cuda-count.c. */
#include "kernels/cuda/launch.h"

#include "tests/shim/count/counted.h"

enum { N = COUNTED_THREADS };

/* Every form loads from `in` as its name says, and stores neighbours to out [2 N]. */
KERNEL(counted_global, N) (const struct counted_args a)
{
    const unsigned i = blockIdx.x * N + threadIdx.x, l = lane_id();
    float4 q;
    float v = 0;
    if (a.form == COUNTED_NEIGHBOURS) v = a.in[i];
    if (a.form == COUNTED_EVERY_SECOND) v = a.in[2 * i];
    if (a.form == COUNTED_EVERY_SECTOR) v = a.in[8 * i];
    if (a.form == COUNTED_SHIFTED) v = a.in[i + 1];
    if (a.form == COUNTED_SAME) v = a.in[0];
    if (a.form == COUNTED_VECTORS) q = ((const float4 *)a.in)[i], v = q.x;
    if (a.form == COUNTED_HALF && l < 16) v = a.in[i];
    if (a.form == COUNTED_PARTED)
        for (unsigned k = 0; k < 2; k++) { /* the meeting keeps the two requests apart */
            if (l / 16 == k) v = a.in[i];
            __syncwarp();
        }
    a.out[i] = v;
}

/* Every form loads once from shared memory, and multiplies matrices of zeros. */
KERNEL(counted_shared, N) (const struct counted_args a)
{
    SHARED(float, all, N * 32);
    const unsigned i = threadIdx.x, l = lane_id();
    float4 q;
    float v = 0, d[4] = { 0, 0, 0, 0 };
    uint32_t m[4] = { 0, 0, 0, 0 };
    for (unsigned k = 0; k < 32; k++) all[k * N + i] = 0;
    __syncthreads();
    if (a.form == COUNTED_NEIGHBOURS) v = all[i];
    if (a.form == COUNTED_EVERY_SECOND) v = all[2 * i];
    if (a.form == COUNTED_EVERY_BANK) v = all[32 * i];
    if (a.form == COUNTED_SAME) v = all[5];
    if (a.form == COUNTED_HALF && l < 16) v = all[32 - 2 * l];
    if (a.form == COUNTED_VECTORS) q = ((const float4 *)all)[i], v = q.x;
    if (a.form == COUNTED_VECTORS_APART) q = ((const float4 *)all)[2 * i], v = q.x;
    if (a.form == COUNTED_MATRICES) ldmatrix_x4(m, all + 4 * i);
    if (a.form == COUNTED_MATRICES_APART) ldmatrix_x4(m, all + 32 * i);
    mma_16816_f16(d, m, m);
    a.out[blockIdx.x * N + i] = v + d[0];
}

/* 16 and 4 bytes a lane, and 16 that are zeros. */
KERNEL(counted_copies, N) (const struct counted_args a)
{
    SHARED(float, to, N * 9);
    const unsigned i = threadIdx.x, at = blockIdx.x * N + i;
    cp_async_16(to + 4 * i, a.in + 4 * at);
    cp_async_4(to + 8 * N + i, a.in + 4 * 2 * N + at);
    cp_async_16_or_zero(shared_address(to + 4 * N + 4 * i), a.in, false);
    cp_async_commit();
    cp_async_wait(0);
    a.out[at] = to[4 * i] + to[8 * N + i] + to[4 * N + 4 * i];
}
