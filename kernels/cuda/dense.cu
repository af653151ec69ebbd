/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/dense.cu - products with a stored weight in the reduction order.
 *
 * LADDER for BF16, read in the machine code for sm_90, not timed on a GPU: instructions of each of the four
 * warps of dense_1 for a piece of 8 rows x 128 columns; share of fma in the main loop of dense_8.
 *   codes through shared memory, an address computed for each copy     about 175    77 %
 *   addresses counted from piece to piece                              about 115    78 %
 *   for many tokens: dense_16, 64 rows x 16 tokens a block                          85 %
 * An H100's memory gives a multiprocessor 7.2 BF16 weights a clock, which leaves 142 instructions a piece.
 *
 * The order's 16 sums are the lanes of a half warp, which walk along a row 16 columns at a time.  That reads
 * W two bytes a lane, so the codes come through shared memory: asynchronous copies of 16 bytes bring pieces
 * of the block's rows, MOE_CUDA_DENSE_STAGES of them on their way at a time, and with each piece the same
 * columns of x.  Up to four tokens of a column lie side by side, so that a lane reads them at once.  A half
 * warp has rows g, g + 8, ..: a value of x serves them all. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/codes.h"
#include "kernels/cuda/decode.h"
#include "kernels/cuda/dense.h"

enum { THREADS = MOE_CUDA_DENSE_THREADS, PITCH = MOE_CUDA_DENSE_PITCH, STAGES = MOE_CUDA_DENSE_STAGES };

/* In what follows R and T, constants wherever these functions are inlined, are the rows and the tokens of a
 * half warp; a block has as many half warps as HALVES says. */
#define HALVES(T) ((T) == 16 ? 2 * THREADS / 16 : THREADS / 16)

/* What a block has to do: its rows of its item's W, times its tokens. */
struct job {
    struct moe_cuda_weight w;
    const float *x;                /* the item's x */
    float *y;                      /* the item's y, at the block's first row */
    int64_t first;                 /* the block's first row in W */
    int rows, tokens;              /* how many the block has */
    int pitch;                     /* bytes of a row of W */
    bool whole;                    /* whether rows are made of whole pieces of 16 bytes */
    const int32_t *in, *out;       /* shared memory, [tokens]: the rows of x and y of each token */
};

/* Returns whether there is anything to do. */
DEVICE bool begin(const struct moe_cuda_dense *a, int tokens, int rows, struct job *j)
{
    SHARED(int32_t, row, 32);
    const int i = (int)blockIdx.z, r = (int)blockIdx.y * rows, t = (int)threadIdx.x;
    int token = (int)blockIdx.x * tokens, n = (int)a->n;
    j->w = a->w;
    if (a->list) {
        if (i >= *a->count) return false;
        const struct moe_cuda_item item = a->list[i];
        j->w.data += item.expert * a->stride;
        if (a->w.scale) j->w.scale += item.expert * a->stride;
        token += item.first, n = item.first + item.count;
    }
    j->first = a->row0 + i * a->row_step + r;
    j->rows = min((int)a->rows - r, rows), j->tokens = min(n - token, tokens);
    j->x = a->x + i * a->x_step;
    j->y = a->y + i * a->y_step + r;
    j->pitch = (int)code_bytes(a->w.codes, a->w.cols);
    j->whole = j->pitch % 16 == 0;
    j->in = row, j->out = row + 16;
    if (t < j->tokens) {
        row[t] = a->list && a->in ? a->in[token + t] : token + t;
        row[16 + t] = a->list && a->out ? a->out[token + t] : token + t;
    }
    __syncthreads();
    return true;
}

/* ---- pieces on their way ---- */

/* Bytes [at, at + 16) of a row at `from`, of which the first n (perhaps all, perhaps none) exist; the others
 * become 0. */
DEVICE void copy_16(uint8_t *to, const uint8_t *from, int n, bool whole)
{
    if (whole && n >= 16) {
        cp_async_16(to, from);
        return;
    }
#pragma unroll 1
    for (int i = 0; i < 16; i++) to[i] = i < n ? from[i] : (uint8_t)0;
}

/* Columns [k0, k0 + cols) of the block's rows.  mine: where the thread's first 16 bytes are in W for k0 = 0.
 * What a missing row leaves undefined is not stored. */
DEVICE void fetch_rows(const struct job *j, uint32_t codes, int R, int T, int cols, int k0,
                       const uint8_t *mine, uint8_t *to)
{
    const int at = (int)code_bytes(codes, k0), chunks = (int)code_bytes(codes, cols) / 16;
    const int rows = R * HALVES(T), step = 16 * HALVES(T) / chunks;
    const int r = (int)threadIdx.x / chunks, c = (int)threadIdx.x % chunks * 16;
    const bool full = j->whole && at + 16 * chunks <= j->pitch;
    mine += at, to += r * PITCH + c;
#pragma unroll
    for (int i = 0; i < rows; i += step) {
        if (r + i >= j->rows) break;
        if (full) cp_async_16(to + i * PITCH, mine + i * j->pitch);
        else copy_16(to + i * PITCH, mine + i * j->pitch, j->pitch - at - c, j->whole);
    }
}

/* The same columns of the block's tokens, as [tokens / V][cols][V].  What does not exist becomes 0.  A warp
 * takes V tokens of 32 / V columns at a time, which fill 32 banks. */
DEVICE void fetch_x(const struct moe_cuda_dense *a, const struct job *j, int T, int V, int cols, int k0,
                    float *to)
{
    const float *x = j->x + k0;
    const int left = (int)a->w.cols - k0, wide = 32 / V, column = (int)lane_id() % wide;
    const int token = (int)lane_id() / wide;
#pragma unroll
    for (int i = 0; i < T * cols; i += 16 * HALVES(T)) {
        const int n = i / 32 + (int)warp_id(), t = n * wide / cols * V + token, c = n * wide % cols + column;
        float *at = to + (t / V * cols + c) * V + token;
        if (n >= T * cols / 32) break;
        if (t < j->tokens && c < left) cp_async_4(at, x + j->in[t] * a->ldx + c);
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

/* Adds 16 columns of a piece, from column k - lane on, to the lane's sums of R rows times T tokens. */
DEVICE void add_step(uint32_t codes, int R, int T, int cols, int k, const uint8_t *w, const float *x,
                     const float *scale, float *sum)
{
    const int V = T < 4 ? T : 4, half = (int)threadIdx.x / 16;
    float v[16];
#pragma unroll
    for (int t = 0; t < T; t += V) load_tokens(V, v + t, x + (t / V * cols + k) * V);
#pragma unroll
    for (int i = 0; i < R; i++) {
        float c = code_value(codes, w + (half + i * HALVES(T)) * PITCH, k);
        if (codes_are_scaled(codes)) c = c * scale[i];
#pragma unroll
        for (int t = 0; t < T; t++) sum[i * T + t] = __fmaf_rn(c, v[t], sum[i * T + t]);
    }
}

/* Columns that a row lacks count as +0: their codes are 0, which a scale could make -0 or NaN. */
DEVICE void spare_missing(uint32_t codes, int R, int k, int there, float *scale)
{
#pragma unroll
    for (int i = 0; i < R; i++)
        if (codes == MOE_CUDA_FP8 && k >= there) scale[i] = 1;
}

/* Adds the columns of a piece, of which `there` exist. */
DEVICE void add_piece(const struct job *j, uint32_t codes, int R, int T, int cols, int k0, int there,
                      const uint8_t *w, const float *x, float *sum)
{
    const int lane = (int)(threadIdx.x & 15), half = (int)threadIdx.x / 16;
    float scale[4];
#pragma unroll 2
    for (int k = 0; k < there; k += 32) { /* columns that share a scale */
        if (codes_are_scaled(codes)) {
#pragma unroll
            for (int i = 0; i < R; i++) {
                const int r = min(half + i * HALVES(T), j->rows - 1);
                scale[i] = weight_scale(&j->w, codes, j->first + r, k0 + k);
            }
        }
        spare_missing(codes, R, k + lane, there, scale);
        add_step(codes, R, T, cols, k + lane, w, x, scale, sum);
        if (k + 16 >= there) break;
        spare_missing(codes, R, k + 16 + lane, there, scale);
        add_step(codes, R, T, cols, k + 16 + lane, w, x, scale, sum);
    }
}

/* Makes the sums of the lane: R rows, T tokens. */
DEVICE void make_sums(const struct moe_cuda_dense *a, const struct job *j, uint32_t codes, int R, int T,
                      float *sum)
{
    DYNAMIC_SHARED(uint8_t, memory);
    const int rows = R * HALVES(T), V = T < 4 ? T : 4, cols = MOE_CUDA_DENSE_COLUMNS(codes);
    const int stage = rows * PITCH + T * cols * 4, pieces = ((int)a->w.cols + cols - 1) / cols;
    const int chunks = (int)code_bytes(codes, cols) / 16;
    const uint8_t *mine = j->w.data + (j->first + (int)threadIdx.x / chunks) * j->pitch +
                          (int)threadIdx.x % chunks * 16;

    for (int p = -(STAGES - 1); p < pieces; p++) {
        const int next = p + STAGES - 1;
        if (p >= 0) {
            cp_async_wait(STAGES - 2);
            __syncthreads(); /* piece p is there for all, and nobody reads the one before it any more */
        }
        if (next < pieces) {
            uint8_t *to = memory + next % STAGES * stage;
            fetch_rows(j, codes, R, T, cols, next * cols, mine, to);
            fetch_x(a, j, T, V, cols, next * cols, (float *)(to + rows * PITCH));
        }
        cp_async_commit();
        if (p < 0) continue;
        const uint8_t *w = memory + p % STAGES * stage;
        const int left = (int)a->w.cols - p * cols;
        add_piece(j, codes, R, T, cols, p * cols, left < cols ? left : cols, w,
                  (const float *)(w + rows * PITCH), sum);
    }
}

/* The whole of a block's work. */
DEVICE void multiply(const struct moe_cuda_dense *a, int R, int T)
{
    const int lane = (int)(threadIdx.x & 15), half = (int)threadIdx.x / 16;
    struct job j;
    float sum[64];

    if (!begin(a, T, R * HALVES(T), &j)) return;
#pragma unroll
    for (int i = 0; i < R * T; i++) sum[i] = 0;
    switch (a->w.codes) {
    case MOE_CUDA_F32: make_sums(a, &j, MOE_CUDA_F32, R, T, sum); break;
    case MOE_CUDA_BF16: make_sums(a, &j, MOE_CUDA_BF16, R, T, sum); break;
    case MOE_CUDA_F16: make_sums(a, &j, MOE_CUDA_F16, R, T, sum); break;
    case MOE_CUDA_FP8: make_sums(a, &j, MOE_CUDA_FP8, R, T, sum); break;
    default: make_sums(a, &j, MOE_CUDA_INT4, R, T, sum); break;
    }
#pragma unroll
    for (int i = 0; i < R * T; i++) {
        const int r = half + i / T * HALVES(T), t = i % T;
        const float y = fold_f32(sum[i]);
        if (lane == i % 16 && r < j.rows && t < j.tokens) j.y[j.out[t] * a->ldy + r] = y;
    }
}

KERNEL2(moe_cuda_dense_1, MOE_CUDA_DENSE_THREADS, 8) (const struct moe_cuda_dense a) { multiply(&a, 1, 1); }
KERNEL2(moe_cuda_dense_2, MOE_CUDA_DENSE_THREADS, 8) (const struct moe_cuda_dense a) { multiply(&a, 2, 2); }
KERNEL2(moe_cuda_dense_4, MOE_CUDA_DENSE_THREADS, 6) (const struct moe_cuda_dense a) { multiply(&a, 2, 4); }
KERNEL2(moe_cuda_dense_8, MOE_CUDA_DENSE_THREADS, 3) (const struct moe_cuda_dense a) { multiply(&a, 4, 8); }
KERNEL2(moe_cuda_dense_16, 2 * MOE_CUDA_DENSE_THREADS, 1) (const struct moe_cuda_dense a)
{
    multiply(&a, 4, 16);
}

/* ---- NVFP4: integers, a lane a block ---- */

enum { NV_TOKENS = 4, NV_ROWS = 2, NV_PAD = 20 };

/* A group of 256 columns of a block's tokens, as the order of NVFP4 products has them: lane l of a half warp
 * has block NV_BLOCK(l).  Blocks stand by lane, NV_PAD apart, so that eight lanes read from all banks. */
#define NV_BLOCK(lane) ((lane) / 2 + (lane) % 2 * 8)
struct fixed {
    uint32_t x[NV_TOKENS][16][NV_PAD];   /* [token][lane]: 16 values as fixed-point of 24 bits */
    float power[NV_TOKENS][16];          /* 2^(e - 24) */
    int32_t broken[NV_TOKENS];           /* whether any x of the token so far was NaN or Inf */
};

/* Thread i prepares the block of lane i % 16 of token i / 16. */
DEVICE void prepare(const struct moe_cuda_dense *a, const struct job *j, int64_t k0, struct fixed *f)
{
    const int t = (int)threadIdx.x / 16, l = (int)threadIdx.x % 16, b = NV_BLOCK(l);
    if (t >= NV_TOKENS) return;
    const bool there = t < j->tokens && k0 + 16 * b < a->w.cols;
    const float *x = there ? j->x + j->in[t] * a->ldx + k0 + 16 * b : j->x;
    float v[16];
    uint32_t most = 0;
#pragma unroll
    for (int i = 0; i < 16; i++) {
        v[i] = there ? x[i] : 0;
        most = max(most, __float_as_uint(v[i]) & 0x7fffffffu);
    }
    if (most >= 0x7f800000u) f->broken[t] = 1;
    const uint32_t e = digit_exponent(most);
#pragma unroll
    for (int i = 0; i < 16; i += 4) {
        uint32_t four[4];
#pragma unroll
        for (int k = 0; k < 4; k++)
            four[k] = there ? (uint32_t)digit_integer(v[i + k], most, e, 24) : 0;
        store_16(f->x[t][l] + i, four);
    }
    f->power[t][l] = __uint_as_float(e - (23u << 23));
}

/* Adds a group of 256 columns to the lane's sums: its block times the row's codes. */
DEVICE void add_group(const struct job *j, int64_t k0, const int64_t *row, const struct fixed *f,
                      float sum[NV_ROWS * NV_TOKENS])
{
    const int lane = (int)(threadIdx.x & 15), b = NV_BLOCK(lane);
    const bool there = k0 + 16 * b < j->w.cols;
#pragma unroll
    for (int i = 0; i < NV_ROWS; i++) {
        uint2 code = make_uint2(0, 0); /* rows are multiples of 8 bytes */
        int w[16];
        float s = 1;
        if (there) code = *(const uint2 *)(j->w.data + row[i] * j->pitch + (k0 + 16 * b) / 2);
#pragma unroll
        for (int k = 0; k < 16; k++) w[k] = twice_e2m1((k < 8 ? code.x : code.y) >> k % 8 * 4 & 15);
        if (there) s = f32_from_e4m3(j->w.scale[nvfp4_scale_index(&j->w, row[i], k0 / 16 + b)]);
#pragma unroll
        for (int t = 0; t < NV_TOKENS; t++) {
            int p = 0;
#pragma unroll
            for (int k = 0; k < 16; k += 4) {
                uint32_t x[4];
                load_16(x, f->x[t][lane] + k);
#pragma unroll
                for (int n = 0; n < 4; n++) p += w[k + n] * (int)x[n];
            }
            float *to = &sum[i * NV_TOKENS + t];
            *to = __fmaf_rn((float)p, s * f->power[t][lane], *to);
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

    if (!begin(&a, NV_TOKENS, NV_ROWS * HALVES(NV_TOKENS), &j)) return;
    for (int i = 0; i < NV_ROWS; i++) row[i] = j.first + min(half + i * HALVES(NV_TOKENS), j.rows - 1);
    for (int i = 0; i < NV_ROWS * NV_TOKENS; i++) sum[i] = 0;
    if (threadIdx.x < NV_TOKENS) f->broken[threadIdx.x] = 0;
    for (int64_t k0 = 0; k0 < a.w.cols; k0 += 256) {
        __syncthreads();
        prepare(&a, &j, k0, f);
        __syncthreads();
        add_group(&j, k0, row, f, sum);
    }
    for (int i = 0; i < NV_ROWS * NV_TOKENS; i++) {
        const int r = half + i / NV_TOKENS * HALVES(NV_TOKENS), t = i % NV_TOKENS;
        float y = fold_f32(sum[i]);
        y = a.w.reciprocal ? y / a.w.global : y * a.w.global;
        if (f->broken[t]) y = __uint_as_float(0x7fc00000u);
        if (lane == i % 16 && r < j.rows && t < j.tokens) j.y[j.out[t] * a.ldy + r] = y;
    }
}
