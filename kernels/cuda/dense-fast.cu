/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/dense-fast.cu - fast products with BF16, F16 and FP8 weights.
 *
 * PICTURE.  A block of 256 threads multiplies 128 rows of W with N rows of x, a group of 64 columns at a
 * time, which asynchronous copies bring into a ring of slots in shared memory.  With N = 8 each of its eight
 * warps has 16 rows of W and all rows of x; with more, a warp has 32 rows of W and half of the rows of x.
 *
 * Weights of 16 bits are operands as they lie.  A matrix of 8 rows of 16 bytes of FP8 has 16 columns, of
 * which a lane gets four neighbours: two pairs of float16, the operands of the same product, which sums its
 * columns in no order.  `halves` has put the values of x where each lane finds those of its own columns side
 * by side.
 *
 * Where a product has few rows, several blocks share the parts of the columns.  They leave the sums of parts
 * in memory, and the block that is done last adds them up. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/decode.h"
#include "kernels/cuda/dense-fast.h"

enum { ROWS = MOE_CUDA_DENSE_FAST_ROWS, PARTS = MOE_CUDA_DENSE_FAST_PARTS };

/* Pieces of 16 bytes of a row of W in a group. */
#define PIECES(codes) ((codes) == MOE_CUDA_FP8 ? 4 : 8)

/* Where a piece of a row lies among the row's: eight neighbours use all banks. */
DEVICE int swizzle(int pieces, int row) { return pieces == 8 ? row % 8 : row / 2 % 4; }

/* What a block computes: rows of W from `row` on, tokens from `token` on, parts [part, last), of `each`
 * groups, of which there are `groups` in all. */
struct tile { int row, token, part, last, each, groups; };

DEVICE struct tile tile_of(const struct moe_cuda_dense_fast *a, int N)
{
    const int parts = PARTS / a->split;
    struct tile u;
    u.row = (int)blockIdx.y * ROWS, u.token = (int)blockIdx.x * N;
    u.part = (int)blockIdx.z * parts, u.last = u.part + parts;
    u.groups = (int)((a->w.cols + 63) / 64);
    u.each = (u.groups + PARTS - 1) / PARTS;
    return u;
}
/* The group before which part p ends. */
DEVICE int end_of(const struct tile *u, int p) { return min(u->groups, (p + 1) * u->each); }

/* ---- bringing groups into shared memory ---- */

/* What this thread copies next: a piece of some rows of W, and of some rows of x. */
struct feed {
    const uint8_t *w, *x;
    int group, end;        /* the next group, and the one after the last */
    int rows, tokens;      /* how many there are from the thread's first on */
    int left;              /* bytes of W to the end of the row */
};

/* Bytes from row to row. */
DEVICE uint32_t w_pitch(const struct moe_cuda_dense_fast *a, uint32_t codes)
{
    return (uint32_t)code_bytes(codes, a->w.cols);
}
DEVICE uint32_t x_pitch(const struct moe_cuda_dense_fast *a)
{
    return (uint32_t)moe_cuda_halves_pitch(MOE_CUDA_HALVES_BF16, a->w.cols);
}

DEVICE struct feed feed_of(const struct moe_cuda_dense_fast *a, uint32_t codes, const struct tile *u)
{
    const int tid = (int)threadIdx.x, pieces = PIECES(codes);
    const int64_t pitch = w_pitch(a, codes);
    struct feed f;
    f.group = min(u->groups, u->part * u->each), f.end = end_of(u, u->last - 1);
    f.w = a->w.data + (u->row + tid / pieces) * pitch + (f.group * pieces + tid % pieces) * 16;
    f.x = a->halves + (u->token + tid / 16) * (int64_t)x_pitch(a) + f.group * 256 + tid % 16 * 16;
    f.rows = (int)a->w.rows - u->row - tid / pieces;
    f.tokens = (int)(a->n - u->token) - tid / 16;
    f.left = (int)pitch - (f.group * pieces + tid % pieces) * 16;
    return f;
}

/* Copies this thread's part of the next group to the slot. */
DEVICE void feed_group(const struct moe_cuda_dense_fast *a, uint32_t codes, int N, struct feed *f,
                       shared_at slot)
{
    const int tid = (int)threadIdx.x, pieces = PIECES(codes), row = tid / pieces, j = tid / 16;
    const shared_at w = slot + row * (pieces * 16) + (tid % pieces ^ swizzle(pieces, row)) * 16;
    const shared_at x = slot + ROWS * (pieces * 16) + j * 256 + (tid % 16 ^ j % 2 * 4) * 16;
    const uint32_t w_step = computed_here(256u / pieces * w_pitch(a, codes));
    const uint32_t x_step = computed_here(16 * x_pitch(a));
    const uint8_t *from = f->w;
#pragma unroll
    for (int i = 0; i < pieces / 2; i++, from += w_step)
        cp_async_16_or_zero(w + i * 4096, from, i * (256 / pieces) < f->rows && f->left > 0);
    from = f->x;
#pragma unroll
    for (int i = 0; i < (N + 15) / 16; i++, from += x_step)
        if (N >= 16 || j < N) cp_async_16_or_zero(x + i * 4096, from, i * 16 < f->tokens);
    f->w += pieces * 16, f->left -= pieces * 16, f->x += 256, f->group++;
}

/* ---- multiplying ---- */

/* What a warp has: R times 16 rows of W, T times 8 rows of x. */
#define ROWS_OF(N) ((N) == 8 ? 1 : 2)
#define COLUMNS_OF(N) ((N) == 8 ? 1 : (N) / 16)

/* The sums of a lane: [rows of W][rows of x][as mma has them]. */
typedef float sums[2][8][4];

/* Where a lane reads, from the beginning of a slot. */
struct place { int w, x; };

DEVICE int warp_row(int N) { return N == 8 ? (int)warp_id() * 16 : (int)warp_id() / 2 * 32; }
DEVICE int warp_x(int N) { return N == 8 ? 0 : (int)warp_id() % 2 * (N / 2); }

DEVICE struct place place_of(uint32_t codes, int N)
{
    const int l = (int)lane_id(), pieces = PIECES(codes), row = warp_row(N) + l % 16;
    struct place p;
    p.w = row * (pieces * 16) + (l / 16 ^ swizzle(pieces, row)) * 16;
    p.x = ROWS * (pieces * 16) + (warp_x(N) + l / 4) * 256 + l / 4 % 2 * 64 + l % 4 * 16;
    return p;
}

/* 64 columns of 16 rows, as operands of four products. */
DEVICE void weights(uint32_t codes, uint32_t w[4][4], shared_at slot, int at)
{
    if (codes != MOE_CUDA_FP8) {
#pragma unroll
        for (int k = 0; k < 4; k++) ldmatrix_x4_at(w[k], slot + (at ^ k * 32));
        return;
    }
#pragma unroll
    for (int k = 0; k < 4; k += 2) {
        uint32_t code[4];
        ldmatrix_x4_at(code, slot + (at ^ k * 16));
#pragma unroll
        for (int i = 0; i < 4; i++) {
            w[k + i / 2][i % 2] = f16x2_from_e4m3x2(code[i]);
            w[k + i / 2][i % 2 + 2] = f16x2_from_e4m3x2(code[i] >> 16);
        }
    }
}

DEVICE void product(uint32_t codes, float c[4], const uint32_t w[4], const uint32_t x[2])
{
    if (codes == MOE_CUDA_BF16) mma_16816_bf16(c, w, x);
    else mma_16816_f16(c, w, x);
}

/* Adds a group of 64 columns to the sums. */
DEVICE void multiply_group(uint32_t codes, int N, const struct place *p, shared_at slot, float scale,
                           sums sum)
{
    uint32_t w[2][4][4];
#pragma unroll
    for (int r = 0; r < ROWS_OF(N); r++) weights(codes, w[r], slot + r * (16 * 16 * PIECES(codes)), p->w);
#pragma unroll
    for (int n = 0; n < COLUMNS_OF(N); n++) {
        float c[2][4] = { { 0 } };
#pragma unroll
        for (int i = 0; i < 4; i++) { /* the second terms of 32 columns and of 32, then the first ones */
            uint32_t x[4];
            load_shared_16(x, slot + (p->x ^ i % 2 * 64) + (i < 2 ? 128 : 0) + n * 8 * 256);
#pragma unroll
            for (int r = 0; r < ROWS_OF(N); r++) {
                product(codes, c[r], w[r][i % 2 * 2], x);
                product(codes, c[r], w[r][i % 2 * 2 + 1], x + 2);
            }
        }
#pragma unroll
        for (int i = 0; i < 4 * ROWS_OF(N); i++) {
            float *s = &sum[i / 4][n][i % 4];
            *s = codes == MOE_CUDA_FP8 ? __fmaf_rn(c[i / 4][i % 4], scale, *s) : *s + c[i / 4][i % 4];
        }
    }
}

/* ---- results ---- */

/* What a lane has of the results, of which number i belongs to a token and to a row. */
#define RESULTS_OF(N) (ROWS_OF(N) * COLUMNS_OF(N) * 4)
#define SUM(N, sum, i) ((sum)[(i) / 4 / COLUMNS_OF(N)][(i) / 4 % COLUMNS_OF(N)][(i) % 4])

DEVICE void clear(int N, sums sum)
{
#pragma unroll
    for (int i = 0; i < RESULTS_OF(N); i++) SUM(N, sum, i) = 0;
}
DEVICE int token_at(int N, const struct tile *u, int l, int i)
{
    return u->token + warp_x(N) + i / 4 % COLUMNS_OF(N) * 8 + l % 4 * 2 + i % 2;
}
DEVICE int row_at(int N, const struct tile *u, int l, int i)
{
    return u->row + warp_row(N) + i / 4 / COLUMNS_OF(N) * 16 + i / 2 % 2 * 8 + l / 4;
}

/* ---- the sums of parts ---- */

/* Adds the sums of a part to the totals, which are in shared memory, each thread's apart. */
DEVICE void add_part(int N, bool first, sums sum, float *total)
{
#pragma unroll
    for (int i = 0; i < RESULTS_OF(N); i++) {
        float *s = total + i * 256 + threadIdx.x;
        *s = (first ? 0.f : *s) + SUM(N, sum, i);
    }
}

/* Leaves the sums of part p in memory. */
DEVICE void store_part(const struct moe_cuda_dense_fast *a, int N, const struct tile *u, int p, sums sum)
{
    const int l = (int)computed_here(lane_id());
#pragma unroll
    for (int i = 0; i < RESULTS_OF(N); i++) {
        const int t = token_at(N, u, l, i), row = row_at(N, u, l, i);
        if (t < a->n && row < a->w.rows) a->part[(p * a->n + t) * a->w.rows + row] = SUM(N, sum, i);
    }
}

/* The totals of the parts that are in memory; volatile, because other blocks have written them. */
DEVICE void add_stored(const struct moe_cuda_dense_fast *a, int N, const struct tile *u, float *total)
{
#pragma unroll 2
    for (int i = 0; i < RESULTS_OF(N); i++) {
        const int t = token_at(N, u, (int)lane_id(), i), row = row_at(N, u, (int)lane_id(), i);
        float s = 0;
        if (t >= a->n || row >= a->w.rows) continue;
#pragma unroll
        for (int p = 0; p < PARTS; p++)
            s = s + *(const volatile float *)&a->part[(p * a->n + t) * a->w.rows + row];
        total[i * 256 + threadIdx.x] = s;
    }
}

/* Whether this block is the last of its tile to come here; what the others have written before is there. */
DEVICE bool is_last(const struct moe_cuda_dense_fast *a)
{
    SHARED(int32_t, last, 1);
    int32_t *done = a->done + blockIdx.y * gridDim.x + blockIdx.x;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        *last = atomicAdd(done, 1) == a->split - 1;
        if (*last) *done = 0;
    }
    __syncthreads();
    __threadfence();
    return *last;
}

/* ---- a block ---- */

DEVICE void store(const struct moe_cuda_dense_fast *a, int N, const struct tile *u, const float *total)
{
#pragma unroll 4
    for (int i = 0; i < RESULTS_OF(N); i++) {
        const int t = token_at(N, u, (int)lane_id(), i), row = row_at(N, u, (int)lane_id(), i);
        if (t < a->n && row < a->w.rows)
            a->y[t * a->ldy + row] = total[i * 256 + threadIdx.x] * a->factors[t];
    }
}

DEVICE void multiply(const struct moe_cuda_dense_fast *a, const uint32_t codes, const int N)
{
    DYNAMIC_SHARED(unsigned char, ring);
    const int slots = moe_cuda_dense_fast_ring(N), bytes = moe_cuda_dense_fast_slot(codes, N);
    float *total = (float *)(ring + slots * bytes);
    const struct tile u = tile_of(a, N);
    const struct place place = place_of(codes, N);
    const shared_at base = shared_address(ring);
    struct feed f = feed_of(a, codes, &u);
    sums sum;
    int group = f.group, fill = 0, read = 0; /* slots */

    for (; fill < slots - 1; fill++) {
        if (f.group < f.end) feed_group(a, codes, N, &f, base + fill * bytes);
        cp_async_commit();
    }
    for (int p = u.part; p < u.last; p++) {
        clear(N, sum);
#pragma unroll 1
        for (const int end = end_of(&u, p); group < end; group++) {
            float scale = 1;
            if (codes == MOE_CUDA_FP8)
                scale = scale_value(a->w.scales, a->w.scale,
                                    (int64_t)blockIdx.y * a->w.row_scales + group / 2);
            if (N == 8) cp_async_wait(4);
            else if (N == 64) cp_async_wait(3);
            else if (N == 32) cp_async_wait(2);
            else cp_async_wait(1);
            __syncthreads(); /* the group is there for all, and nobody reads the one before it any more */
            if (f.group < f.end) feed_group(a, codes, N, &f, base + fill * bytes);
            cp_async_commit();
            multiply_group(codes, N, &place, base + read * bytes, scale, sum);
            fill = fill == slots - 1 ? 0 : fill + 1;
            read = read == slots - 1 ? 0 : read + 1;
        }
        if (a->split > 1) store_part(a, N, &u, p, sum);
        else add_part(N, p == 0, sum, total);
    }
    if (a->split > 1) {
        if (!is_last(a)) return;
        add_stored(a, N, &u, total);
    }
    store(a, N, &u, total);
}

#define DENSE_FAST(N, blocks)                                                           \
    KERNEL2(moe_cuda_dense_fast_##N, 256, blocks) (const struct moe_cuda_dense_fast a)  \
    {                                                                                   \
        switch (a.w.codes) {                                                            \
        case MOE_CUDA_BF16: multiply(&a, MOE_CUDA_BF16, N); break;                      \
        case MOE_CUDA_F16: multiply(&a, MOE_CUDA_F16, N); break;                        \
        default: multiply(&a, MOE_CUDA_FP8, N); break;                                  \
        }                                                                               \
    }
DENSE_FAST(8, 2)
DENSE_FAST(32, 2)
DENSE_FAST(64, 1)
DENSE_FAST(128, 1)
