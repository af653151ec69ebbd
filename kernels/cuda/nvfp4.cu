/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/nvfp4.cu - products with NVFP4 weights on tensor cores.
 *
 * PICTURE.  A block of 256 threads multiplies a tile of 64 rows with N rows of x, 512 columns (a step) at a
 * time.  Its eight warps are four groups of 16 rows times two parts of the columns:
 *
 *     columns of a step   0      128     256     384     512
 *     part                |   0   |   1   |   0   |   1   |        warps 0-3 take part 0, warps 4-7 part 1
 *
 * so that part 0 makes the partial sums of even number, which the order of kernels.def adds to each other
 * first, and part 1 those of odd number.
 *
 * A matrix of 8 rows of 16 bytes, as ldmatrix reads it, has 32 columns: a pair of blocks of 16.  Lane
 * l = 4 g + t gets eight codes of row g: columns 8 t to 8 t + 7 of the 32, of block t / 2.  Two products
 * m16n8k16 take these eight columns of 16 rows.  Their eight columns n are
 *
 *     n = digit + 2 token + 4 block         digit: h or l; token: one of two; block: of the pair
 *
 * with zeros for x where the column's block is not the lane's.  So after both products lane 4 g + t has h and
 * l of row g, token t % 2, block t / 2, next to each other.  Codes are multiples of 0.5 up to 6, digits
 * integers up to 2048: a sum of 16 products is an integer below 2^19 times a power of two, which float32
 * holds exactly, and 4096 h + l is rounded once, as the order wants.
 *
 * The second eight rows of a product lie 32 rows after the first: the scales of both are in one word of 8
 * bytes. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/codes.h"
#include "kernels/cuda/gated.h"
#include "kernels/cuda/nvfp4.h"

enum { STEP = MOE_CUDA_NVFP4_STEP, CODES = MOE_CUDA_NVFP4_CODES, SCALES = MOE_CUDA_NVFP4_SCALES };
/* Bytes of a row of x in a step; and what a thread's or a lane's addresses in it are after the codes. */
enum { DIGITS = 2048, FACTORS = 128 };

/* ---- work ---- */

/* What a block computes next: a tile, of all matrices, for one item. */
struct work {
    int expert, first, count; /* sorted pairs [first, first + count) */
    int row;                  /* the tile's first row of W */
};

DEVICE int work_count(const struct moe_cuda_nvfp4 *a, int N)
{
    const int items = a->items ? *a->item_count : ((int)a->tokens + N - 1) / N;
    return items * (int)moe_cuda_nvfp4_tiles(a->rows);
}

DEVICE struct work work_at(const struct moe_cuda_nvfp4 *a, int N, int i)
{
    const int tiles = (int)moe_cuda_nvfp4_tiles(a->rows), item = i / tiles, tile = i % tiles;
    struct work w;
    w.row = tile / 2 * 128 + tile % 2 * 16;
    if (a->items) {
        uint32_t v[4];
        load_16(v, a->items + item);
        w.expert = (int)v[0], w.first = (int)v[1], w.count = (int)v[2];
    } else {
        w.expert = 0, w.first = item * N, w.count = min(N, (int)a->tokens - w.first);
    }
    return w;
}

/* ---- bringing steps into shared memory ---- */

/* What this thread copies next.  Of the codes of a step that is 16 bytes in each of four rows, 32 rows apart;
 * of the digits, 16 bytes of every second row of x; and 16 bytes of the scales (threads 0-127), or of the
 * factors of one row of x (threads 128 and on). */
struct feed {
    int work;              /* number of the work; from the number of works on there is none */
    int matrix, steps;     /* the matrix, and its steps that have not been copied */
    struct work now;
    const uint8_t *codes, *side, *digits;
    uint32_t x[4];         /* where rows of x begin after `digits`, in 16 bytes */
    int rows;              /* of the thread's four rows so many are rows of W */
    int left;              /* bytes of codes from here to the end of the row; past it not above 0 */
    int side_left;         /* the same of scales; of factors always above 0 */
    bool side_on;          /* whether the thread copies scales or factors at all */
    shared_at to, codes_to; /* where in the slot of the next step, and where the codes there */
};

/* Points at the first step of a matrix. */
DEVICE void feed_matrix(const struct moe_cuda_nvfp4 *a, int steps, struct feed *f, int matrix)
{
    const int tid = (int)threadIdx.x, tiles = (int)((a->cols + 63) / 64); /* of scales, side by side */
    const int64_t expert = f->now.expert * a->stride, pitch = a->cols / 2;
    f->matrix = matrix, f->steps = steps;
    f->codes = (matrix ? a->codes[1] : a->codes[0]) + expert;
    f->codes += (f->now.row + tid / 16) * pitch + tid % 16 * 16;
    f->left = (int)pitch - tid % 16 * 16;
    f->digits = a->digits + tid % 128 * 16;
    f->side_left = 1 << 30, f->side_on = tid < 128 + 8 * f->now.count;
    if (tid < 128) {
        f->side = (matrix ? a->scales[1] : a->scales[0]) + expert +
                  ((int64_t)(f->now.row / 128) * tiles + tid / 16) * 512 + (f->now.row % 32 + tid % 16) * 16;
        f->side_left = (tiles - tid / 16) * 512;
    } else if (f->side_on) { /* of every second row pieces of 16 bytes change places, for the sake of banks */
        const int j = (tid - 128) / 8, p = f->now.first + j, piece = tid % 8 ^ j % 2 * 2;
        const int64_t x = a->in ? (int64_t)a->in[p] : p;
        f->side = (const uint8_t *)a->factors + x * steps * FACTORS + piece * 16;
    }
}

/* Points at the first step of work number f->work. */
DEVICE void feed_work(const struct moe_cuda_nvfp4 *a, int N, int steps, struct feed *f)
{
    const int tid = (int)threadIdx.x;
    f->now = work_at(a, N, f->work);
    f->rows = ((int)a->rows - f->now.row - tid / 16 + 31) / 32;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        const int p = f->now.first + min(2 * i + tid / 128, f->now.count - 1);
        f->x[i] = (uint32_t)((a->in ? a->in[p] : p) * steps * (DIGITS / 16));
    }
    feed_matrix(a, steps, f, 0);
}

/* Points at what comes after a matrix of which all steps have been copied. */
DEVICE void feed_next(const struct moe_cuda_nvfp4 *a, int N, int works, int steps, struct feed *f)
{
    if (f->matrix + 1 < a->matrices) {
        feed_matrix(a, steps, f, f->matrix + 1);
        return;
    }
    f->work += (int)gridDim.x;
    if (f->work < works) feed_work(a, N, steps, f);
}

/* Copies this thread's part of the next step.  narrow: rows begin at multiples of 8 bytes only. */
DEVICE void feed_step(const struct moe_cuda_nvfp4 *a, int N, bool narrow, struct feed *f)
{
    const int tid = (int)threadIdx.x;
    const int64_t apart = 16 * a->cols; /* bytes between the rows */
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint8_t *from = f->codes + i * apart;
        if (!narrow) {
            cp_async_16_or_zero(f->codes_to + i * 4096, from, i < f->rows && f->left > 0);
        } else {
            cp_async_8_or_zero(f->codes_to + i * 4096, from, i < f->rows && f->left > 0);
            cp_async_8_or_zero(f->codes_to + i * 4096 + 8, from + 8, i < f->rows && f->left > 8);
        }
    }
    if (f->side_on) cp_async_16_or_zero(f->to + CODES, f->side, f->side_left > 0);
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        if (2 * i + tid / 128 < f->now.count)
            cp_async_16_at(f->to + CODES + SCALES + N * FACTORS + i * 2 * DIGITS,
                           f->digits + (uint64_t)f->x[i] * 16);
    f->codes += STEP / 2, f->left -= STEP / 2;
    f->side += tid < 128 ? 8 * 512 : FACTORS, f->side_left -= tid < 128 ? 8 * 512 : 0;
    f->digits += DIGITS;
}

/* ---- multiplying ---- */

/* Where a lane reads in the slot of the present step. */
struct place {
    shared_at codes; /* of the row whose address it gives to ldmatrix, in the first half of its part */
    shared_at scales, digits, factors;
};

DEVICE struct place place_of(int N, shared_at slot)
{
    const int l = (int)lane_id(), w = (int)warp_id(), g = l / 4, t = l % 4;
    const int part = w / 4, half = w / 2 % 2, eight = w % 2 * 8;
    struct place p;
    p.codes = slot + (eight + l % 8 + 16 * (2 * half + l / 8 % 2)) * 256 + ((4 * part + l / 16) ^ l % 8) * 16;
    p.scales = slot + CODES + part * 512 + (eight + g) * 16 + half * 8;
    p.factors = slot + CODES + SCALES + t % 2 * FACTORS + ((part ^ t % 2) * 8 + t / 2) * 4;
    p.digits = slot + CODES + SCALES + N * FACTORS + g / 2 % 2 * DIGITS + part * 512 +
               (g / 4 * 4 + g % 2 * 2 + t % 2) * 16;
    return p;
}

enum { SETS = 2 }; /* of registers for digits, so that the next are read while some are multiplied */

/* A pair of blocks of 16 rows times N rows of x.  row, row2: the codes of row g and of the row 32 further on;
 * scale: their scales as two float16; digits, factors: where those of the pair are; on: whether the lane's
 * column n is of the block that its codes are of; x: for digits, 0 in lanes that are not on. */
DEVICE void multiply_pair(int N, uint32_t row, uint32_t row2, uint32_t scale, shared_at digits,
                          shared_at factors, bool on, uint32_t (*x)[4], float (*sum)[2][4], int k)
{
    uint32_t a[4], b[4];
    pairs_of_codes(a, row);
    pairs_of_codes(b, row2);
    const uint32_t first[4] = { a[0], b[0], a[1], b[1] }, second[4] = { a[2], b[2], a[3], b[3] };
    const float s = f32_from_f16(scale & 0xffff), s2 = f32_from_f16(scale >> 16);
#pragma unroll
    for (int n = 0; n < N / 2; n++) {
        uint32_t *d = x[(k * N / 2 + n) % SETS];
        float c[4] = { 0, 0, 0, 0 };
        load_shared_16_if(d, digits + n * 2 * DIGITS, on);
        const float e = load_shared_f32(factors + n * 2 * FACTORS);
        mma_16816_f16(c, first, d);
        mma_16816_f16(c, second, d + 2);
        sum[n][0][k] = __fmaf_rn(__fmaf_rn(c[0], 4096.f, c[1]), s * e, sum[n][0][k]);
        sum[n][1][k] = __fmaf_rn(__fmaf_rn(c[2], 4096.f, c[3]), s2 * e, sum[n][1][k]);
    }
}

/* Adds a step to a warp's partial sums: [two rows of x][row g, or 32 further on][pair of blocks of the part].
 * */
DEVICE void multiply_step(int N, const struct place *p, uint32_t (*x)[4], float (*sum)[2][4])
{
    const int l = (int)lane_id();
    const bool on = l / 2 % 2 == l / 16;
    const uint32_t pick = l & 2 ? 0x7351u : 0x6240u;
#pragma unroll
    for (int group = 0; group < 2; group++)
#pragma unroll
        for (int q = 0; q < 2; q++) {
            uint32_t code[4], s[2];
            ldmatrix_x4_at(code, (q ? p->codes ^ 32 : p->codes) + group * 128);
            load_shared_8(s, p->scales + (group * 4 + q) * 256);
            const uint32_t four = __byte_perm(s[0], s[1], pick);
#pragma unroll
            for (int h = 0; h < 2; h++)
                multiply_pair(N, code[2 * h], code[2 * h + 1], f16x2_from_e4m3x2(four >> 16 * h),
                              p->digits + group * 1024 + (2 * q + h) * 128,
                              p->factors + group * 64 + (2 * q + h) * 8, on, x, sum, 2 * q + h);
        }
}

DEVICE void clear(int N, float (*sum)[2][4])
{
#pragma unroll
    for (int n = 0; n < N * 4; n++) sum[n / 8][n / 4 % 2][n % 4] = 0;
}

/* ---- results ---- */

enum { APART = 72 }; /* values between rows of x in shared memory: lanes that store together use all banks */

/* Adds a warp's partial sums up, into `half`: [part][row of x][row of the tile]. */
DEVICE void fold(int N, float (*sum)[2][4], float *half)
{
    const int l = (int)lane_id(), w = (int)warp_id(), g = l / 4, t = l % 4;
    float *to = half + (w / 4 * N + t % 2) * APART + w / 2 % 2 * 32 + w % 2 * 8 + g;
#pragma unroll
    for (int n = 0; n < N / 2; n++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float v = (sum[n][r][0] + sum[n][r][2]) + (sum[n][r][1] + sum[n][r][3]);
            v = v + __shfl_xor_sync(0xffffffffu, v, 2);
            if (t < 2) to[2 * n * APART + 16 * r] = v;
        }
}

/* Stores the digits of a block of 16 results, of which this lane has v, in column `col` of row `at`.  The
 * lanes of the other half warp may have another block, or none. */
DEVICE void store_digits(const struct moe_cuda_nvfp4 *a, float v, bool valid, int64_t at, int col)
{
    uint32_t most = __float_as_uint(v) & 0x7fffffffu;
    for (int d = 8; d; d /= 2) most = max(most, __shfl_xor_sync(0xffffffffu, most, d));
    if (!valid) return;
    const uint32_t e = digit_exponent(most);
    const int x = digit_integer(v, most, e, a->flags & MOE_CUDA_NVFP4_INT16 ? 16 : 24);
    const int64_t block = at * moe_cuda_digit_groups(a->rows) * 16 + col / 16;
    uint16_t *to = (uint16_t *)(a->digits_out + block * 64) + col % 16 / 8 * 8 + CODE_PLACE(col % 8);
    to[0] = (uint16_t)f16_digit(digit_high(x)), to[16] = (uint16_t)f16_digit(digit_low(x));
    if (col % 16 == 0) a->factors_out[block] = digit_factor(most, e);
}

/* Stores the results of a tile for one matrix.  Thread i has rows i % 64 of the tile for rows of x i / 64,
 * i / 64 + 4: two values at most, of which those of the first matrix wait in `gate` where SwiGLU joins both.
 * A half warp has 16 neighbouring rows of W. */
DEVICE void store(const struct moe_cuda_nvfp4 *a, int N, const struct work *w, int matrix, float global,
                  const float *half, float *gate)
{
    const int tid = (int)threadIdx.x, r = tid % 64, row = w->row + r % 16 + r / 16 * 32;
    const bool joins = a->flags & MOE_CUDA_NVFP4_SWIGLU;
    float *y = matrix && !joins ? a->y[1] : a->y[0];
#pragma unroll
    for (int i = 0; i < (N + 3) / 4; i++) {
        const int j = tid / 64 + 4 * i, p = w->first + j;
        const bool valid = j < w->count && row < a->rows;
        float v = 0;
        if (valid) {
            v = half[j * APART + r] + half[(N + j) * APART + r];
            v = a->flags & MOE_CUDA_NVFP4_RECIPROCAL ? __fdiv_rn(v, global) : v * global;
        }
        if (joins && !matrix) {
            gate[i] = v;
            continue;
        }
        if (joins) v = swiglu_f32(gate[i], v);
        const int64_t at = valid && a->out ? a->out[p] : p;
        if (valid && y) y[at * a->ldy + row] = v;
        if (joins && a->digits_out) store_digits(a, v, valid, at, row);
    }
}

/* Moves what reads in slot number `slot` of the ring on by a slot, and what fills the slot before it. */
DEVICE void next_slot(int N, int *slot, struct place *p, struct feed *f)
{
    const int slots = moe_cuda_nvfp4_ring(N), bytes = (int)moe_cuda_nvfp4_step_bytes(N);
    const int back = bytes - slots * bytes, fill = *slot == 0 ? back : bytes;
    const int read = *slot == slots - 1 ? back : bytes;
    f->to += (shared_at)fill, f->codes_to += (shared_at)fill;
    p->codes += (shared_at)read, p->scales += (shared_at)read;
    p->digits += (shared_at)read, p->factors += (shared_at)read;
    *slot = *slot == slots - 1 ? 0 : *slot + 1;
}

DEVICE void products(const struct moe_cuda_nvfp4 *a, const int N, const bool narrow)
{
    DYNAMIC_SHARED(unsigned char, ring);
    SHARED(float, half, 2 * 8 * APART);
    const int slots = moe_cuda_nvfp4_ring(N), tid = (int)threadIdx.x;
    const int steps = (int)((a->cols + STEP - 1) / STEP);
    const int works = work_count(a, N);
    struct place place = place_of(N, shared_address(ring));
    uint32_t x[SETS][4] = { { 0 } };
    float sum[4][2][4], gate[2];
    struct feed f;
    int slot = 0, matrix = 0, left = steps; /* of the matrix that is multiplied, `left` steps */

    f.work = (int)blockIdx.x;
    if (f.work >= works) return;
    feed_work(a, N, steps, &f);
    f.to = shared_address(ring) + tid * 16;
    f.codes_to = shared_address(ring) + (tid * 16 ^ tid / 16 % 8 * 16); /* ldmatrix then uses all banks */
    for (int i = 0; i < slots - 1; i++) {
        if (f.work < works) {
            feed_step(a, N, narrow, &f);
            if (--f.steps == 0) feed_next(a, N, works, steps, &f);
        }
        f.to += moe_cuda_nvfp4_step_bytes(N), f.codes_to += moe_cuda_nvfp4_step_bytes(N);
        cp_async_commit();
    }
    for (int i = (int)blockIdx.x; i < works;) {
        const struct work w = work_at(a, N, i);
        const float *global = matrix ? a->global[1] : a->global[0];
        const float scale = *(const float *)((const uint8_t *)global + w.expert * a->stride);
        if (left == steps) clear(N, sum);
        /* steps until the next matrix comes, to be copied or to be multiplied */
        const bool feeds = f.work < works;
        const int run = feeds ? min(f.steps, left) : left;
        for (int n = 0; n < run; n++) {
            if (N == 8) cp_async_wait(1);
            else cp_async_wait(2);
            __syncthreads();
            if (feeds) feed_step(a, N, narrow, &f);
            cp_async_commit();
            multiply_step(N, &place, x, sum);
            next_slot(N, &slot, &place, &f);
        }
        f.steps -= run, left -= run;
        if (feeds && f.steps == 0) feed_next(a, N, works, steps, &f);
        if (left) continue;
        fold(N, sum, half);
        __syncthreads();
        store(a, N, &w, matrix, scale, half, gate);
        left = steps;
        if (++matrix < a->matrices) continue;
        matrix = 0, i += (int)gridDim.x;
    }
}

#define PRODUCTS(N)                                                             \
    KERNEL2(moe_cuda_nvfp4_##N, 256, 2) (const struct moe_cuda_nvfp4 a)         \
    {                                                                           \
        if (a.cols % 32) products(&a, N, true);                                 \
        else products(&a, N, false);                                            \
    }
PRODUCTS(2)
PRODUCTS(4)
PRODUCTS(8)
