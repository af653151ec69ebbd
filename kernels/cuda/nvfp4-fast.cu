/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/nvfp4-fast.cu - fast products with NVFP4 weights.
 *
 * PICTURE.  A block of 256 threads multiplies 128 rows of W with N rows of x.  With N up to 32 (16 where x
 * has two terms) each of its eight warps has 16 rows of W and all rows of x, so that a weight is decoded
 * once; with more, a warp has 32 rows of W and half of the rows of x, which takes less of shared memory.
 * The rows of a warp are eight neighbours and those 32 (and 64 and 96) further on, whose scales lie side by
 * side.  A warp adds up all columns of its results by itself, so there is nothing to be joined at the end.
 *
 * A matrix of 8 rows of 16 bytes, as ldmatrix reads it, has 32 columns, of which a lane gets eight: the 16
 * bytes of x that it multiplies them with are of the same eight columns. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/codes-fast.h"
#include "kernels/cuda/gated.h"
#include "kernels/cuda/nvfp4-fast.h"

enum { ROWS = MOE_CUDA_FAST_ROWS };

/* In what follows N and K, constants wherever these functions are inlined, are the most pairs of an item and
 * the terms of x. */
#define STEP(N, K) moe_cuda_fast_step((N) * (K))
/* Pieces of 16 bytes of a row of x in a step. */
#define X_PIECES(N, K) ((K) * STEP(N, K) / 8)

/* ---- work ---- */

/* A unit is what a block computes at a time: 128 rows of one matrix for one item. The block takes every
 * gridDim.x-th such piece of work, and of each all matrices one after the other. */
struct unit {
    int expert, first, count; /* sorted pairs [first, first + count) */
    int row;                  /* the first row of W */
    int matrix;
};

/* The number of this block's units. */
DEVICE int unit_count(const struct moe_cuda_nvfp4 *a, int N)
{
    const int items = a->items ? *a->item_count : ((int)a->tokens + N - 1) / N;
    const int work = items * (int)((a->rows + ROWS - 1) / ROWS), grid = (int)gridDim.x;
    return max(0, work - (int)blockIdx.x + grid - 1) / grid * a->matrices;
}

/* Unit i of this block.  Neighbouring blocks have the same rows of W for different items where there is one
 * expert, so that W is read from memory once. */
DEVICE struct unit unit_at(const struct moe_cuda_nvfp4 *a, int N, int i)
{
    const int tiles = (int)((a->rows + ROWS - 1) / ROWS), two = a->matrices - 1;
    const int at = (int)blockIdx.x + (i >> two) * (int)gridDim.x;
    struct unit u;
    u.matrix = i & two;
    if (a->items) {
        uint32_t v[4];
        load_16(v, a->items + at / tiles);
        u.expert = (int)v[0], u.first = (int)v[1], u.count = (int)v[2];
        u.row = at % tiles * ROWS;
    } else {
        const int items = ((int)a->tokens + N - 1) / N;
        u.expert = 0, u.first = at % items * N, u.count = min(N, (int)a->tokens - u.first);
        u.row = at / items * ROWS;
    }
    return u;
}

/* The row of x of pair p, and the row of y. */
DEVICE int64_t row_of(const int32_t *map, int p) { return map ? (int64_t)map[p] : p; }

/* ---- bringing steps into shared memory ---- */

/* Where 16 bytes of codes of a row lie in the row's part of a step: eight neighbours use all banks. */
DEVICE int swizzle(int step, int row) { return step == 256 ? row % 8 : row / 2 % 4; }

enum { NONE = -1 };

/* What this thread copies next, for the unit that is fed: 16 bytes of codes in some rows, of scales, and of
 * some rows of x. */
struct feed {
    int unit;              /* from the number of units on there is none */
    int steps;             /* of the unit, which have not been copied */
    const uint8_t *codes, *scales;
    uint32_t x[4];         /* the thread's place in its rows of x, in 16 bytes; NONE: there is no such row */
    int rows;              /* rows of W from the thread's first on */
    int left, scales_left; /* bytes to the end of the row; past it not above 0 */
};

/* Points at the first step of unit number f->unit. */
DEVICE void feed_unit(const struct moe_cuda_nvfp4 *a, int N, int K, int steps, struct feed *f)
{
    const int tid = (int)threadIdx.x, step = STEP(N, K), pieces = step / 32;
    const int tiles = (int)((a->cols + 63) / 64); /* of scales, side by side */
    const struct unit u = unit_at(a, N, f->unit);
    const int64_t expert = u.expert * a->stride, pitch = a->cols / 2;
    const uint32_t x_pitch = (uint32_t)(moe_cuda_halves_columns(a->cols) * K / 8);
    f->steps = steps;
    f->rows = (int)a->rows - u.row - tid / pieces;
    f->codes = (u.matrix ? a->codes[1] : a->codes[0]) + expert;
    f->codes += (u.row + tid / pieces) * pitch + tid % pieces * 16;
    f->left = (int)pitch - tid % pieces * 16;
    f->scales = (u.matrix ? a->scales[1] : a->scales[0]) + expert + (int64_t)(u.row / 128) * tiles * 512;
    f->scales += tid * 16;
    f->scales_left = tid < step / 2 ? tiles * 512 - tid * 16 : 0;
#pragma unroll
    for (int i = 0; i < N * X_PIECES(N, K) / 256; i++) {
        const int j = tid / X_PIECES(N, K) + i * (256 / X_PIECES(N, K));
        const uint32_t x = j < u.count ? (uint32_t)row_of(a->in, u.first + j) * x_pitch : 0;
        f->x[i] = j < u.count ? x + (uint32_t)(tid % X_PIECES(N, K)) : (uint32_t)NONE;
    }
}

/* Copies this thread's part of the next step to the slot.  narrow: rows of W begin at multiples of 8 bytes
 * only. */
DEVICE void feed_step(const struct moe_cuda_nvfp4 *a, int N, int K, bool narrow, struct feed *f,
                      shared_at slot)
{
    const int tid = (int)threadIdx.x, step = STEP(N, K), pieces = step / 32;
    const int row = tid / pieces, apart = 256 / pieces;
    const shared_at codes = slot + row * (step / 2) + (tid % pieces ^ swizzle(step, row)) * 16;
#pragma unroll
    for (int i = 0; i < pieces / 2; i++) {
        const uint8_t *from = f->codes + i * apart * (a->cols / 2);
        const shared_at to = codes + i * 4096;
        if (!narrow) {
            cp_async_16_or_zero(to, from, i * apart < f->rows && f->left > 0);
        } else {
            cp_async_8_or_zero(to, from, i * apart < f->rows && f->left > 0);
            cp_async_8_or_zero(to + 8, from + 8, i * apart < f->rows && f->left > 8);
        }
    }
    const shared_at scales = slot + ROWS * (step / 2), x = scales + ROWS * (step / 16);
    if (tid < step / 2) cp_async_16_or_zero(scales + tid * 16, f->scales, f->scales_left > 0);
#pragma unroll
    for (int i = 0; i < N * X_PIECES(N, K) / 256; i++) {
        const int j = tid / X_PIECES(N, K) + i * (256 / X_PIECES(N, K));
        const int piece = tid % X_PIECES(N, K) ^ j % 2 * 4;
        const bool on = f->x[i] != (uint32_t)NONE;
        cp_async_16_or_zero(x + (j * X_PIECES(N, K) + piece) * 16, a->digits + (uint64_t)f->x[i] * 16, on);
        if (on) f->x[i] += X_PIECES(N, K);
    }
    f->codes += step / 2, f->left -= step / 2;
    f->scales += step * 8, f->scales_left -= step * 8;
}

/* ---- multiplying ---- */

/* What a warp has: 16 rows of W or twice as many, and so many times 8 rows of x. */
#define IS_WIDE(N, K) ((N) * (K) > 32)
#define ROWS_OF(N, K) (IS_WIDE(N, K) ? 2 : 1)
#define COLUMNS_OF(N, K) (IS_WIDE(N, K) ? (N) / 16 : (N) / 8)

/* The sums of a lane: [rows of W][rows of x][as mma has them]. */
typedef float sums[2][4][4];

/* Where a lane reads, from the beginning of a slot. */
struct place { int codes, scales, x; };

/* The first of the eight neighbouring rows of W that begin the warp's, and its first row of x. */
DEVICE int warp_row(int N, int K)
{
    return (int)warp_id() / 2 * 8 + (IS_WIDE(N, K) ? 0 : (int)warp_id() % 2 * 64);
}
DEVICE int warp_x(int N, int K) { return IS_WIDE(N, K) ? (int)warp_id() % 2 * (N / 2) : 0; }

DEVICE struct place place_of(int N, int K)
{
    const int l = (int)lane_id(), g = l / 4, t = l % 4, step = STEP(N, K);
    const int row = warp_row(N, K) + l % 8 + l / 8 % 2 * 32;
    struct place p;
    p.codes = row * (step / 2) + (l / 16 ^ swizzle(step, row)) * 16;
    p.scales = ROWS * (step / 2) + ((int)warp_id() / 2 * 8 + g) * 16;
    p.x = ROWS * (step / 2) + ROWS * (step / 16) + (warp_x(N, K) + g) * X_PIECES(N, K) * 16;
    p.x += g % 2 * 64 + t * 16;
    return p;
}

/* 32 columns of 16 rows, as operands of two products.  scales: of the rows g and g + 32, two float16. */
DEVICE void weights(uint32_t w[2][4], uint32_t row, uint32_t row2, uint32_t scales)
{
    const uint32_t s = __byte_perm(scales, scales, 0x1010), s2 = __byte_perm(scales, scales, 0x3232);
    uint32_t a[4], b[4];
    fast_pairs(a, row);
    fast_pairs(b, row2);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        w[i / 2][i % 2 * 2] = mul_f16x2(a[i], s);
        w[i / 2][i % 2 * 2 + 1] = mul_f16x2(b[i], s2);
    }
}

/* Adds a group of 64 columns to the sums. */
DEVICE void multiply_group(int N, int K, const struct place *p, shared_at slot, int group, sums sum)
{
    const int step = STEP(N, K), half = IS_WIDE(N, K) ? 0 : (int)warp_id() % 2;
    const uint32_t pick = lane_id() & 2 ? 0x7351u : 0x6240u;
    uint32_t w[2][2][2][4], s[4];
    load_shared_16(s, slot + p->scales + group * 512);
#pragma unroll
    for (int r = 0; r < ROWS_OF(N, K); r++) {
        uint32_t code[4];
        const uint32_t low = r || half ? s[2] : s[0], high = r || half ? s[3] : s[1];
        const uint32_t scale = __byte_perm(low, high, pick);
        ldmatrix_x4_at(code, slot + (p->codes ^ group * 32) + r * 64 * (step / 2));
        weights(w[r][0], code[0], code[1], mul_f16x2(f16x2_from_e4m3x2(scale), FAST_SCALE));
        weights(w[r][1], code[2], code[3], mul_f16x2(f16x2_from_e4m3x2(scale >> 16), FAST_SCALE));
    }
#pragma unroll
    for (int n = 0; n < COLUMNS_OF(N, K); n++) {
        float c[2][4] = { { 0 } };
#pragma unroll
        for (int h = 0; h < 2 * K; h++) { /* the second term comes first */
            uint32_t x[4];
            const int at = (group * K + K - 1 - h / 2) * 128 + n * 128 * X_PIECES(N, K);
            load_shared_16(x, slot + (p->x ^ h % 2 * 64) + at);
#pragma unroll
            for (int i = 0; i < 2 * ROWS_OF(N, K); i++)
                mma_16816_f16(c[i / 2], w[i / 2][h % 2][i % 2], x + i % 2 * 2);
        }
#pragma unroll
        for (int i = 0; i < 4 * ROWS_OF(N, K); i++) {
            float *s = &sum[i / 4][n][i % 4];
            *s = *s + c[i / 4][i % 4];
        }
    }
}

/* Adds a step to the sums.  Where too many groups are unrolled, more is loaded ahead than registers hold. */
DEVICE void multiply_step(int N, int K, const struct place *p, shared_at slot, sums sum)
{
    if (N * K > 32) {
#pragma unroll 1
        for (int group = 0; group < 2; group++) multiply_group(N, K, p, slot, group, sum);
    } else {
#pragma unroll 2
        for (int group = 0; group < 4; group++) multiply_group(N, K, p, slot, group, sum);
    }
}

DEVICE void clear(int N, int K, sums sum)
{
#pragma unroll
    for (int r = 0; r < ROWS_OF(N, K); r++)
#pragma unroll
        for (int n = 0; n < COLUMNS_OF(N, K) * 4; n++) sum[r][n / 4][n % 4] = 0;
}

/* ---- results ---- */

/* Stores the results of a unit.  Where SwiGLU joins two matrices, those of the first wait in y[0], where the
 * same thread takes them up. */
DEVICE void store(const struct moe_cuda_nvfp4 *a, int N, int K, const struct unit *u, sums sum)
{
    const int l = (int)computed_here(lane_id()), row = u->row + warp_row(N, K) + l / 4;
    const bool joins = a->flags & MOE_CUDA_NVFP4_SWIGLU, divides = a->flags & MOE_CUDA_NVFP4_RECIPROCAL;
    const uint8_t *at = (const uint8_t *)(u->matrix ? a->global[1] : a->global[0]) + u->expert * a->stride;
    const float global = *(const float *)at;
    float *y = u->matrix && !joins ? a->y[1] : a->y[0];
#pragma unroll
    for (int n = 0; n < COLUMNS_OF(N, K) * 2; n++) {
        const int j = warp_x(N, K) + n / 2 * 8 + l % 4 * 2 + n % 2;
        if (j >= u->count) continue;
        const float factor = a->factors[row_of(a->in, u->first + j)] * 128.f;
        float *to = y + row_of(a->out, u->first + j) * a->ldy;
#pragma unroll
        for (int r = 0; r < ROWS_OF(N, K) * 2; r++) {
            const int at_row = row + r * 32;
            if (at_row >= a->rows) continue;
            float v = sum[r / 2][n / 2][r % 2 * 2 + n % 2] * factor;
            v = divides ? __fdiv_rn(v, global) : v * global;
            to[at_row] = joins && u->matrix ? swiglu_f32(to[at_row], v) : v;
        }
    }
}

DEVICE void products(const struct moe_cuda_nvfp4 *a, const int N, const int K, const bool narrow)
{
    DYNAMIC_SHARED(unsigned char, ring);
    const int slots = moe_cuda_fast_ring(N * K), bytes = moe_cuda_fast_step_bytes(N * K);
    const int steps = (int)((a->cols + STEP(N, K) - 1) / STEP(N, K));
    const int units = unit_count(a, N);
    const struct place place = place_of(N, K);
    const shared_at base = shared_address(ring);
    struct feed f;
    sums sum;
    int fill = 0, read = 0; /* slots */

    if (!units) return;
    f.unit = 0;
    feed_unit(a, N, K, steps, &f);
    for (; fill < slots - 1; fill++) {
        if (f.unit < units) {
            feed_step(a, N, K, narrow, &f, base + fill * bytes);
            if (--f.steps == 0 && ++f.unit < units) feed_unit(a, N, K, steps, &f);
        }
        cp_async_commit();
    }
    for (int i = 0; i < units; i++) {
        clear(N, K, sum);
        for (int s = 0; s < steps; s++) {
            if (N * K == 32) cp_async_wait(1);
            else cp_async_wait(2);
            __syncthreads();
            if (f.unit < units) {
                feed_step(a, N, K, narrow, &f, base + fill * bytes);
                if (--f.steps == 0 && ++f.unit < units) feed_unit(a, N, K, steps, &f);
            }
            cp_async_commit();
            multiply_step(N, K, &place, base + read * bytes, sum);
            fill = fill == slots - 1 ? 0 : fill + 1;
            read = read == slots - 1 ? 0 : read + 1;
        }
        const struct unit u = unit_at(a, N, i);
        store(a, N, K, &u, sum);
    }
}

#define PRODUCTS(name, N, K)                                                    \
    KERNEL2(moe_cuda_nvfp4_##name##_##N, 256, 2) (const struct moe_cuda_nvfp4 a) \
    {                                                                           \
        if (a.cols % 32) products(&a, N, K, true);                              \
        else products(&a, N, K, false);                                         \
    }
PRODUCTS(fast, 8, 1)
PRODUCTS(fast, 16, 1)
PRODUCTS(fast, 32, 1)
PRODUCTS(fast, 64, 1)
PRODUCTS(terms, 8, 2)
PRODUCTS(terms, 16, 2)
PRODUCTS(terms, 32, 2)
