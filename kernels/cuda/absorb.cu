/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/absorb.cu - from queries to queries in the space of latents.
 *
 * A result is one chain of fma down the rows of W, so a thread has a column.  The rows come through shared
 * memory, MOE_CUDA_ABSORB_STAGES pieces of them on their way at a time, so that reads are of 16 bytes and
 * none waits for another; with each piece come the queries' values for its rows, [rows][tokens]. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/absorb.h"
#include "kernels/cuda/decode.h"

enum {
    THREADS = MOE_CUDA_ABSORB_THREADS, ROWS = MOE_CUDA_ABSORB_ROWS, STAGES = MOE_CUDA_ABSORB_STAGES
};

/* Rows [r0, r0 + ROWS) of the head's part of W, from the block's first column on; what is not there is 0. */
DEVICE void fetch_rows(const struct moe_cuda_absorb *a, uint32_t codes, int64_t r0, uint8_t *to)
{
    const int bytes = MOE_CUDA_ABSORB_BYTES(codes), chunks = bytes / 16;
    const int64_t pitch = code_bytes(codes, a->w.cols);
    for (int i = (int)threadIdx.x; i < ROWS * chunks; i += THREADS) {
        const int64_t r = r0 + i / chunks, at = (int64_t)blockIdx.y * bytes + i % chunks * 16;
        const uint8_t *from = a->w.data + ((int64_t)blockIdx.z * a->head_rows + r) * pitch + at;
        const int64_t there = r < a->nope ? pitch - at : 0;
        uint8_t *p = to + i * 16;
        if (pitch % 16 == 0 && there >= 16) cp_async_16(p, from);
        else
            for (int b = 0; b < 16; b++) p[b] = b < there ? from[b] : (uint8_t)0;
    }
}

DEVICE void fetch_queries(const struct moe_cuda_absorb *a, int T, int64_t r0, float *to)
{
    for (int i = (int)threadIdx.x; i < ROWS * T; i += THREADS) {
        const int64_t t = (int64_t)blockIdx.x * T + i / ROWS, r = r0 + i % ROWS;
        float *p = to + i % ROWS * T + i / ROWS;
        if (t < a->n && r < a->nope)
            cp_async_4(p, a->q + (t * a->heads + blockIdx.z) * (a->nope + a->rope) + r);
        else *p = 0;
    }
}

DEVICE void absorb(const struct moe_cuda_absorb *a, uint32_t codes, int T)
{
    DYNAMIC_SHARED(uint8_t, memory);
    const int bytes = MOE_CUDA_ABSORB_BYTES(codes), stage = ROWS * (bytes + 4 * T);
    const int64_t pieces = (a->nope + ROWS - 1) / ROWS, first = (int64_t)blockIdx.z * a->head_rows;
    const int64_t col = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    float sum[8];

#pragma unroll
    for (int t = 0; t < T; t++) sum[t] = 0;
    for (int64_t p = -(STAGES - 1); p < pieces; p++) {
        const int64_t next = p + STAGES - 1;
        if (p >= 0) {
            cp_async_wait(STAGES - 2);
            __syncthreads();
        }
        if (next < pieces) {
            uint8_t *to = memory + next % STAGES * stage;
            fetch_rows(a, codes, next * ROWS, to);
            fetch_queries(a, T, next * ROWS, (float *)(to + ROWS * bytes));
        }
        cp_async_commit();
        if (p < 0) continue;
        const uint8_t *w = memory + p % STAGES * stage;
        const float *x = (const float *)(w + ROWS * bytes);
        const int rows = a->nope - p * ROWS < ROWS ? (int)(a->nope - p * ROWS) : ROWS;
#pragma unroll 4
        for (int r = 0; r < rows && col < a->w.cols; r++) {
            float v = code_value(codes, w + r * bytes, threadIdx.x);
            if (codes_are_scaled(codes)) v = v * weight_scale(&a->w, codes, first + p * ROWS + r, col);
#pragma unroll
            for (int t = 0; t < T; t++) sum[t] = __fmaf_rn(x[r * T + t], v, sum[t]);
        }
    }
#pragma unroll
    for (int t = 0; t < T; t++) {
        const int64_t token = (int64_t)blockIdx.x * T + t, row = token * a->heads + blockIdx.z;
        if (token >= a->n) break;
        float *out = a->out + row * (a->w.cols + a->rope);
        if (col < a->w.cols) out[col] = sum[t];
        const float *from = a->q + row * (a->nope + a->rope) + a->nope;
        for (int64_t i = threadIdx.x; blockIdx.y == 0 && i < a->rope; i += THREADS)
            out[a->w.cols + i] = from[i];
    }
}

DEVICE void absorb_any(const struct moe_cuda_absorb *a, int T)
{
    switch (a->w.codes) {
    case MOE_CUDA_F32: absorb(a, MOE_CUDA_F32, T); break;
    case MOE_CUDA_BF16: absorb(a, MOE_CUDA_BF16, T); break;
    case MOE_CUDA_F16: absorb(a, MOE_CUDA_F16, T); break;
    case MOE_CUDA_FP8: absorb(a, MOE_CUDA_FP8, T); break;
    case MOE_CUDA_INT4: absorb(a, MOE_CUDA_INT4, T); break;
    default: absorb(a, MOE_CUDA_NVFP4, T); break;
    }
}

KERNEL2(moe_cuda_absorb_1, MOE_CUDA_ABSORB_THREADS, 8) (const struct moe_cuda_absorb a) { absorb_any(&a, 1); }
KERNEL2(moe_cuda_absorb_8, MOE_CUDA_ABSORB_THREADS, 8) (const struct moe_cuda_absorb a) { absorb_any(&a, 8); }
