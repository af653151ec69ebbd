/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/planted.cu - small kernels that are right, each with the mistakes that somebody will make
 * one day: tests/kernels/check-shim.c plants them one at a time and looks whether they are caught. */
#include "kernels/cuda/launch.h"

#include "tests/shim/cuda/planted.h"

enum { N = PLANTED_THREADS };

/* out[i] = in[N - 1 - i], through shared memory. */
KERNEL(planted_reverse, N) (const struct planted a)
{
    SHARED(float, all, N);
    unsigned i = threadIdx.x;
    if (a.fault == FAULT_LEAVES && i == 70) return;
    all[i] = a.in[i];
    if (a.fault == FAULT_DIVERGENT ? i < 64 : a.fault != FAULT_NO_BARRIER) __syncthreads();
    if (a.fault == FAULT_SHARED_BOUNDS && i == 0) all[a.n * (N / 4)] = 1;
    a.out[i] = all[N - 1 - i];
}

/* The same within each warp: out[i] is of lane 31 - lane. */
KERNEL(planted_reverse_warp, N) (const struct planted a)
{
    SHARED(float, all, N);
    unsigned i = threadIdx.x;
    all[i] = a.in[i];
    if (a.fault != FAULT_NO_SYNCWARP) __syncwarp();
    a.out[i] = all[i ^ 31];
}

/* out[i] = in[i ^ 16], by a shuffle. */
KERNEL(planted_shuffle, N) (const struct planted a)
{
    unsigned i = threadIdx.x;
    float v = a.in[i + (a.fault == FAULT_READ_BOUNDS && i == N - 1)];
    if (a.fault == FAULT_OTHER_OPERATION && i % 32 == 5) v = (float)__ballot_sync(0xffffffffu, v > 0);
    else v = __shfl_xor_sync(a.fault == FAULT_MASK ? 0xffffu : 0xffffffffu, v, 16);
    a.out[i] = v;
}

/* out[i] = the sum over s of in[s N + i ^ 1], s in [0, a.n), through a ring of two asynchronous copies;
 * thread i copies for thread i ^ 1. */
KERNEL(planted_ring, N) (const struct planted a)
{
    SHARED(float, ring, 2 * N);
    unsigned i = threadIdx.x;
    float sum = 0;
    const char *first = (const char *)(a.in + i);
    cp_async_4(&ring[i], a.fault == FAULT_ALIGNMENT && i == 3 ? first - 1 : first);
    cp_async_commit();
    for (int s = 0; s < a.n; s++) {
        if (s + 1 < a.n) cp_async_4(&ring[(s + 1) % 2 * N + i], a.in + (s + 1) * N + i);
        cp_async_commit();
        if (a.fault == FAULT_WAIT_FEWER) cp_async_wait(2);
        else if (a.fault != FAULT_NO_WAIT) cp_async_wait(1);
        if (a.fault != FAULT_NO_BARRIER) __syncthreads();
        sum += ring[s % 2 * N + (i ^ 1)];
        if (a.fault != FAULT_REFILL) __syncthreads();
    }
    cp_async_wait(0);
    a.out[i] = sum;
}

/* out [16, 8] = in [16, 16] times the transpose of in2 [8, 16], whole numbers as float16, by one
 * warp. */
KERNEL(planted_product, 32) (const struct planted a)
{
    SHARED(uint32_t, rows, 16 * 8);
    SHARED(uint32_t, columns, 8 * 8);
    unsigned l = threadIdx.x;
    for (unsigned i = l; i < 16 * 8; i += 32)
        rows[i] = f16_from_f32(a.in[2 * i]) | f16_from_f32(a.in[2 * i + 1]) << 16;
    for (unsigned i = l; i < 8 * 8; i += 32)
        columns[i] = f16_from_f32(a.in2[2 * i]) | f16_from_f32(a.in2[2 * i + 1]) << 16;
    __syncwarp();
    uint32_t m[4], b[2];
    float d[4] = { 0, 0, 0, 0 };
    ldmatrix_x4(m, &rows[(l % 16) * 8 + l / 16 * 4]);
    ldmatrix_x2(b, &columns[(l % 8) * 8 + l / 8 % 2 * 4]);
    if (a.fault == FAULT_FRAGMENT) {
        uint32_t t = m[1];
        m[1] = m[2], m[2] = t;
    }
    mma_16816_f16(d, m, b);
    for (unsigned i = 0; i < 4; i++) {
        unsigned column = a.fault == FAULT_RESULT ? l % 4 + i % 2 * 4 : l % 4 * 2 + i % 2;
        a.out[(l / 4 + i / 2 * 8) * 8 + column] = d[i];
    }
}
