/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/dense.cu - products with a stored weight in the reduction order.
 *
 * The order's 16 sums are the lanes of a half warp, which walk along a row 16 columns at a time.  That reads
 * W two bytes a lane, so the codes come through shared memory: asynchronous copies of 16 bytes bring pieces
 * of the block's rows, MOE_CUDA_DENSE_STAGES of them on their way at a time, and with each piece the same
 * columns of x.  Up to four tokens of a column lie side by side, so that a lane reads them at once.  A half
 * warp has rows g, g + 8, ..: a value of x serves them all. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/decode.h"
#include "kernels/cuda/dense.h"

enum { THREADS = MOE_CUDA_DENSE_THREADS, PITCH = MOE_CUDA_DENSE_PITCH, STAGES = MOE_CUDA_DENSE_STAGES,
       HALVES = THREADS / 16 };

/* What a block has to do: its item's W, x and y, its first row (counted from W's) and its first token. */
struct job {
    struct moe_cuda_weight w;
    const float *x;
    float *y;
    int64_t first, row, token;     /* row: counted from `first`, the item's first row */
    int64_t pitch;                 /* bytes of a row of W */
    bool whole;                    /* whether rows are made of whole pieces of 16 bytes */
};

/* Returns whether there is anything to do. */
DEVICE bool begin(const struct moe_cuda_dense *a, int tokens, int rows, struct job *j)
{
    const int64_t i = blockIdx.z;
    j->w = a->w;
    if (a->expert) {
        int32_t e = a->expert[i];
        if (e < 0) return false;
        j->w.data += e * a->data_step;
        if (a->w.scale) j->w.scale += e * a->scale_step;
    }
    j->x = a->x + i / a->share * a->x_step;
    j->y = a->y + i * a->y_step;
    j->first = a->row0 + i * a->row_step;
    j->row = (int64_t)blockIdx.y * rows;
    j->token = (int64_t)blockIdx.x * tokens;
    j->pitch = code_bytes(a->w.codes, a->w.cols);
    j->whole = j->pitch % 16 == 0;
    return true;
}

/* ---- pieces on their way ---- */

/* Bytes [at, at + 16) of a row at `from`, of which the first n (perhaps all, perhaps none) exist; the others
 * become 0. */
DEVICE void copy_16(uint8_t *to, const uint8_t *from, int64_t n, bool whole)
{
    if (whole && n >= 16) {
        cp_async_16(to, from);
        return;
    }
    for (int i = 0; i < 16; i++) to[i] = i < n ? from[i] : (uint8_t)0;
}

/* Columns [k0, k0 + cols) of the block's rows, `rows` of them.  Rows past the last repeat it. */
DEVICE void fetch_rows(const struct moe_cuda_dense *a, const struct job *j, uint32_t codes, int rows,
                       int cols, int64_t k0, uint8_t *to)
{
    const int64_t bytes = code_bytes(codes, cols), at = code_bytes(codes, k0);
    const int chunks = (int)bytes / 16;
    for (int i = (int)threadIdx.x; i < rows * chunks; i += THREADS) {
        int r = i / chunks, c = i % chunks * 16;
        int64_t row = j->row + r < a->rows ? j->row + r : a->rows - 1;
        const uint8_t *from = j->w.data + (j->first + row) * j->pitch + at + c;
        copy_16(to + r * PITCH + c, from, j->pitch - at - c, j->whole);
    }
}

/* The same columns of the block's tokens, as [tokens / V][cols][V].  What does not exist becomes 0. */
DEVICE void fetch_x(const struct moe_cuda_dense *a, const struct job *j, int tokens, int V, int cols,
                    int64_t k0, float *to)
{
    for (int i = (int)threadIdx.x; i < tokens * cols; i += THREADS) {
        int t = i / cols, c = i % cols;
        float *at = to + (t / V * cols + c) * V + t % V;
        if (j->token + t < a->n && k0 + c < a->w.cols)
            cp_async_4(at, j->x + (j->token + t) * a->ldx + k0 + c);
        else *at = 0;
    }
}

/* ---- the sums ---- */

DEVICE void load_tokens(int V, float *x, const float *from)
{
    if (V == 4) {
        const float4 v = *(const float4 *)from;
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    } else if (V == 2) {
        const float2 v = *(const float2 *)from;
        x[0] = v.x, x[1] = v.y;
    } else x[0] = from[0];
}

/* Adds the columns of a piece, `steps` times 16 of them, to the lane's sums of R rows times T tokens. */
DEVICE void add_piece(const struct job *j, uint32_t codes, int R, int T, int cols, int64_t k0, int steps,
                      const int64_t *row, const uint8_t *w, const float *x, float *sum)
{
    const int V = T < 4 ? T : 4, lane = (int)(threadIdx.x & 15), half = (int)threadIdx.x / 16;
    float scale[4];
#pragma unroll 2
    for (int s = 0; s < steps; s++) {
        const int k = 16 * s + lane;
        float v[8];
        if (codes_are_scaled(codes) && s % 2 == 0) {
#pragma unroll
            for (int i = 0; i < R; i++) scale[i] = weight_scale(&j->w, codes, row[i], k0 + 16 * s);
        }
#pragma unroll
        for (int t = 0; t < T; t += V) load_tokens(V, v + t, x + (t / V * cols + k) * V);
#pragma unroll
        for (int i = 0; i < R; i++) {
            float c = code_value(codes, w + (half + i * HALVES) * PITCH, k);
            if (codes_are_scaled(codes)) c = c * scale[i];
#pragma unroll
            for (int t = 0; t < T; t++) sum[i * T + t] = __fmaf_rn(c, v[t], sum[i * T + t]);
        }
    }
}

/* The whole of a block's work: R rows a half warp, T tokens. */
DEVICE void multiply(const struct moe_cuda_dense *a, uint32_t codes, int R, int T)
{
    DYNAMIC_SHARED(uint8_t, memory);
    const int rows = R * HALVES, V = T < 4 ? T : 4, cols = MOE_CUDA_DENSE_COLUMNS(codes);
    const int stage = rows * PITCH + T * cols * 4;
    const int64_t pieces = (a->w.cols + cols - 1) / cols;
    const int lane = (int)(threadIdx.x & 15), half = (int)threadIdx.x / 16;
    struct job j;
    int64_t row[4];
    float sum[32];

    if (!begin(a, T, rows, &j)) return;
#pragma unroll
    for (int i = 0; i < R; i++) {
        row[i] = j.row + half + i * HALVES;
        row[i] = j.first + (row[i] < a->rows ? row[i] : a->rows - 1);
    }
#pragma unroll
    for (int i = 0; i < R * T; i++) sum[i] = 0;

    for (int64_t p = -(STAGES - 1); p < pieces; p++) {
        const int64_t next = p + STAGES - 1, k0 = p * cols;
        if (p >= 0) {
            cp_async_wait(STAGES - 2);
            __syncthreads(); /* piece p is there for all, and nobody reads the one before it any more */
        }
        if (next < pieces) {
            uint8_t *to = memory + next % STAGES * stage;
            fetch_rows(a, &j, codes, rows, cols, next * cols, to);
            fetch_x(a, &j, T, V, cols, next * cols, (float *)(to + rows * PITCH));
        }
        cp_async_commit();
        if (p < 0) continue;
        const uint8_t *w = memory + p % STAGES * stage;
        const int64_t left = a->w.cols - k0;
        add_piece(&j, codes, R, T, cols, k0, left < cols ? (int)((left + 15) / 16) : cols / 16, row, w,
                  (const float *)(w + rows * PITCH), sum);
    }
#pragma unroll
    for (int i = 0; i < R * T; i++) {
        const int64_t r = j.row + half + i / T * HALVES, t = j.token + i % T;
        float y = fold_f32(sum[i]);
        if (lane == i % 16 && r < a->rows && t < a->n) j.y[t * a->ldy + r] = y;
    }
}

DEVICE void multiply_any(const struct moe_cuda_dense *a, int R, int T)
{
    switch (a->w.codes) {
    case MOE_CUDA_F32: multiply(a, MOE_CUDA_F32, R, T); break;
    case MOE_CUDA_BF16: multiply(a, MOE_CUDA_BF16, R, T); break;
    case MOE_CUDA_F16: multiply(a, MOE_CUDA_F16, R, T); break;
    case MOE_CUDA_FP8: multiply(a, MOE_CUDA_FP8, R, T); break;
    default: multiply(a, MOE_CUDA_INT4, R, T); break;
    }
}

KERNEL(moe_cuda_dense_1, MOE_CUDA_DENSE_THREADS) (const struct moe_cuda_dense a) { multiply_any(&a, 1, 1); }
KERNEL(moe_cuda_dense_2, MOE_CUDA_DENSE_THREADS) (const struct moe_cuda_dense a) { multiply_any(&a, 2, 2); }
KERNEL(moe_cuda_dense_4, MOE_CUDA_DENSE_THREADS) (const struct moe_cuda_dense a) { multiply_any(&a, 2, 4); }
KERNEL(moe_cuda_dense_8, MOE_CUDA_DENSE_THREADS) (const struct moe_cuda_dense a) { multiply_any(&a, 4, 8); }

/* ---- NVFP4: integers, a lane a block ---- */

enum { NV_TOKENS = 4, NV_ROWS = 2, NV_PAD = 20 };

/* A group of 256 columns of a block's tokens, as the order of NVFP4 products has them. */
struct fixed {
    int32_t x[NV_TOKENS][16][NV_PAD];    /* [token][block]: 16 values as fixed-point of 24 bits */
    float power[NV_TOKENS][16];          /* 2^(e - 24) */
    int32_t broken[NV_TOKENS];           /* whether any x of the token so far was NaN or Inf */
};

/* Thread i prepares block i % 16 of token i / 16. */
DEVICE void prepare(const struct moe_cuda_dense *a, const struct job *j, int64_t k0, struct fixed *f)
{
    const int t = (int)threadIdx.x / 16, b = (int)threadIdx.x % 16;
    if (t >= NV_TOKENS) return;
    const bool there = j->token + t < a->n && k0 + 16 * b < a->w.cols;
    const float *x = j->x + (j->token + t) * a->ldx + k0 + 16 * b;
    uint32_t most = 0;
    for (int i = 0; i < 16 && there; i++) {
        uint32_t m = __float_as_uint(x[i]) & 0x7fffffffu;
        most = m > most ? m : most;
    }
    if (most >= 0x7f800000u) f->broken[t] = 1;
    uint32_t e = __float_as_uint(__uint_as_float(most) * 1.004f) & 0x7f800000u;
    if (e < 30u << 23) e = 30u << 23;
    const float to = __uint_as_float((276u << 23) - e);
    for (int i = 0; i < 16; i++) f->x[t][b][i] = there ? __float2int_rn(x[i] * to) : 0;
    f->power[t][b] = __uint_as_float(e - (23u << 23));
}

/* Adds a group of 256 columns to the lane's sums: its block times the row's codes. */
DEVICE void add_group(const struct job *j, int64_t k0, const int64_t *row, const struct fixed *f,
                      float sum[NV_ROWS * NV_TOKENS])
{
    const int lane = (int)(threadIdx.x & 15), b = lane / 2 + lane % 2 * 8;
    const bool there = k0 + 16 * b < j->w.cols;
#pragma unroll
    for (int i = 0; i < NV_ROWS; i++) {
        const uint8_t *code = j->w.data + row[i] * j->pitch + (k0 + 16 * b) / 2;
        int w[16];
        float s = 1;
#pragma unroll
        for (int k = 0; k < 16; k++) w[k] = there ? twice_e2m1(nibble_at(code, k)) : 0;
        if (there) s = f32_from_e4m3(j->w.scale[nvfp4_scale_index(&j->w, row[i], k0 / 16 + b)]);
#pragma unroll
        for (int t = 0; t < NV_TOKENS; t++) {
            int p = 0;
#pragma unroll
            for (int k = 0; k < 16; k++) p += w[k] * f->x[t][b][k];
            float *to = &sum[i * NV_TOKENS + t];
            *to = __fmaf_rn((float)p, s * f->power[t][b], *to);
        }
    }
}

KERNEL(moe_cuda_dense_nvfp4, MOE_CUDA_DENSE_THREADS) (const struct moe_cuda_dense a)
{
    SHARED(struct fixed, f, 1);
    const int lane = (int)(threadIdx.x & 15), half = (int)threadIdx.x / 16;
    struct job j;
    int64_t row[NV_ROWS];
    float sum[NV_ROWS * NV_TOKENS];

    if (!begin(&a, NV_TOKENS, NV_ROWS * HALVES, &j)) return;
    for (int i = 0; i < NV_ROWS; i++) {
        row[i] = j.row + half + i * HALVES;
        row[i] = j.first + (row[i] < a.rows ? row[i] : a.rows - 1);
    }
    for (int i = 0; i < NV_ROWS * NV_TOKENS; i++) sum[i] = 0;
    if (threadIdx.x < NV_TOKENS) f->broken[threadIdx.x] = 0;
    for (int64_t k0 = 0; k0 < a.w.cols; k0 += 256) {
        __syncthreads();
        prepare(&a, &j, k0, f);
        __syncthreads();
        add_group(&j, k0, row, f, sum);
    }
    for (int i = 0; i < NV_ROWS * NV_TOKENS; i++) {
        const int64_t r = j.row + half + i / NV_TOKENS * HALVES, t = j.token + i % NV_TOKENS;
        float y = fold_f32(sum[i]);
        y = a.w.reciprocal ? y / a.w.global : y * a.w.global;
        if (f->broken[i % NV_TOKENS]) y = __uint_as_float(0x7fc00000u);
        if (lane == i % 16 && r < a.rows && t < a.n) j.y[t * a.ldy + r] = y;
    }
}
