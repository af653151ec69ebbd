/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/nvfp4.cu - products with NVFP4 weights on tensor cores.
 *
 * PICTURE.  A block of 256 threads multiplies a tile of 64 rows with N rows of x, 512 columns (a step) at a
 * time.  Its eight warps are two groups of 32 rows times four parts of the columns:
 *
 *     columns of a step   0     64    128   192   256   320   384   448   512
 *     part                |  0  |  1  |  2  |  3  |  0  |  1  |  2  |  3  |
 *
 * so that a warp has partial sums of its own: of parts 0 and 1 they are those of even number, which the order
 * of kernels.def adds to each other before it adds the two halves.
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
 * The rows of a warp are eight neighbours, and those 32, 64 and 96 after them: the scales of these four lie
 * side by side.  What is read of x serves all 32 rows.
 *
 * LADDER: instructions of the loop over steps for 8 weights of a lane, ring and barriers included, with 2, 4
 * and 8 rows of x; compiled for sm_90, not timed.
 *   sizes of copies in registers, work looked for in the loop     44.8   52.3   66.4
 *   copies on or off by predicate, runs of steps                  29.4   35.6   45.4
 *   codes to bytes before they become pairs, by lop3              27.2   33.5   43.0
 *   addresses counted on instead of computed                      22.4   27.7   40.1
 *   32 rows a warp, fewer registers, of which none are spilled    21.8   27.1   38.2 */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/codes.h"
#include "kernels/cuda/gated.h"
#include "kernels/cuda/nvfp4.h"

enum { STEP = MOE_CUDA_NVFP4_STEP, CODES = MOE_CUDA_NVFP4_CODES, SCALES = MOE_CUDA_NVFP4_SCALES };
/* Bytes of a row of x in a step. */
enum { DIGITS = 2048, FACTORS = 128 };

/* ---- work ---- */

/* A unit is what a block computes at a time: a tile of one matrix for one item.  The tiles of all items stand
 * in a row, those of the same rows of W side by side, so that items of one expert find its weights in the
 * second cache.  A block takes every gridDim.x-th tile, and of each all matrices one after the other. */
struct unit {
    int expert, first, count; /* sorted pairs [first, first + count) */
    int row;                  /* the tile's first row of W */
    int matrix;
};

DEVICE int item_count(const struct moe_cuda_nvfp4 *a, int N)
{
    return a->items ? *a->item_count : ((int)a->tokens + N - 1) / N;
}

/* The number of this block's units. */
DEVICE int unit_count(const struct moe_cuda_nvfp4 *a, int N)
{
    const int tiles = item_count(a, N) * (int)moe_cuda_nvfp4_tiles(a->rows), grid = (int)gridDim.x;
    return max(0, tiles - (int)blockIdx.x + grid - 1) / grid * a->matrices;
}

/* Unit i of this block. */
DEVICE struct unit unit_at(const struct moe_cuda_nvfp4 *a, int N, int i)
{
    const int items = (int)computed_here((uint32_t)item_count(a, N)), two = a->matrices - 1;
    const int at = (int)blockIdx.x + (i >> two) * (int)gridDim.x, item = at % items, tile = at / items;
    struct unit u;
    u.matrix = i & two;
    u.row = tile / 2 * 128 + tile % 2 * 16;
    if (a->items) {
        uint32_t v[4];
        load_16(v, a->items + item);
        u.expert = (int)v[0], u.first = (int)v[1], u.count = (int)v[2];
    } else {
        u.expert = 0, u.first = item * N, u.count = min(N, (int)a->tokens - u.first);
    }
    return u;
}

/* ---- bringing steps into shared memory ---- */

/* What this thread copies next.  Of the codes of a step that is 16 bytes in each of four rows, 32 rows apart;
 * of the digits, 16 bytes of every second row of x; and 16 bytes of the scales (threads 0-127), or of the
 * factors of one row of x (threads 128 and on). */
struct feed {
    int unit;              /* from the number of units on there is none */
    int steps;             /* of the unit, which have not been copied */
    int count;             /* of the unit: rows of x */
    const uint8_t *codes, *side;
    uint32_t x;            /* where in the digits of a row, in 16 bytes */
    int rows;              /* of the thread's four rows so many are rows of W */
    int left;              /* bytes of codes from here to the end of the row; past it not above 0 */
    int side_left;         /* the same of scales; of factors always above 0 */
    bool side_on;          /* whether the thread copies scales or factors at all */
    shared_at to, codes_to; /* where in the slot of the next step, and where the codes there */
};

enum { AHEAD = 8 }; /* more than the units that can be pointed at or copied before one is done */

/* What all threads know of a unit: where in the digits its rows of x begin, in 16 bytes, and its global. */
struct known { uint32_t x[8]; float global; };

/* Points at the first step of unit number f->unit.  What all threads know of it is there after the next
 * barrier; the global, which is copied like the step, when that has come. */
DEVICE void feed_unit(const struct moe_cuda_nvfp4 *a, int N, int steps, struct feed *f, struct known *known)
{
    const int tid = (int)threadIdx.x, tiles = (int)((a->cols + 63) / 64); /* of scales, side by side */
    const struct unit u = unit_at(a, N, f->unit);
    const int64_t expert = u.expert * a->stride, pitch = computed_here((uint32_t)a->cols) / 2;
    const float *from = u.matrix ? a->global[1] : a->global[0];
    known += f->unit % AHEAD;
    f->x = (uint32_t)tid % 128;
    if (tid == 255) cp_async_4(&known->global, (const uint8_t *)from + expert);
    if (tid < u.count) {
        const int x = a->in ? a->in[u.first + tid] : u.first + tid;
        known->x[tid] = (uint32_t)x * (uint32_t)steps * (DIGITS / 16);
    }
    f->steps = steps, f->count = u.count;
    f->rows = ((int)a->rows - u.row - tid / 16 + 31) / 32;
    f->codes = (u.matrix ? a->codes[1] : a->codes[0]) + expert;
    f->codes += (u.row + tid / 16) * pitch + tid % 16 * 16;
    f->left = (int)pitch - tid % 16 * 16;
    f->side_left = 1 << 30, f->side_on = tid < 128 + 8 * u.count;
    if (tid < 128) {
        f->side = (u.matrix ? a->scales[1] : a->scales[0]) + expert +
                  ((int64_t)(u.row / 128) * tiles + tid / 16) * 512 + (u.row % 32 + tid % 16) * 16;
        f->side_left = (tiles - tid / 16) * 512;
    } else if (f->side_on) { /* of every second row pieces of 16 bytes change places, for the sake of banks */
        const int j = (tid - 128) / 8, p = u.first + j, piece = tid % 8 ^ j % 2 * 2;
        const int64_t x = a->in ? (int64_t)a->in[p] : p;
        f->side = (const uint8_t *)a->factors + x * steps * FACTORS + piece * 16;
    }
}

/* Copies this thread's part of the next step.  narrow: rows begin at multiples of 8 bytes only. */
DEVICE void feed_step(const struct moe_cuda_nvfp4 *a, int N, bool narrow, struct feed *f,
                      const struct known *known)
{
    const int tid = (int)threadIdx.x;
    known += f->unit % AHEAD;
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
        if (2 * i + tid / 128 < f->count)
            cp_async_16_at(f->to + CODES + SCALES + N * FACTORS + i * 2 * DIGITS,
                           a->digits + (uint64_t)(known->x[2 * i + tid / 128] + f->x) * 16);
    f->codes += STEP / 2, f->left -= STEP / 2;
    f->x += DIGITS / 16;
    f->side += tid < 128 ? 8 * 512 : FACTORS, f->side_left -= tid < 128 ? 8 * 512 : 0;
}

/* ---- multiplying ---- */

/* Where a lane reads in the slot of the present step. */
struct place {
    shared_at codes; /* of the row whose address it gives to ldmatrix */
    shared_at scales, digits, factors;
};

DEVICE struct place place_of(int N, shared_at slot)
{
    const int l = (int)lane_id(), w = (int)warp_id(), g = l / 4, t = l % 4;
    const int part = w / 2, eight = w % 2 * 8;
    struct place p;
    p.codes = slot + (eight + l % 8 + l / 8 % 2 * 16) * 256 + ((2 * part + l / 16) ^ l % 8) * 16;
    p.scales = slot + CODES + part * 256 + (eight + g) * 16;
    p.factors = slot + CODES + SCALES + t % 2 * FACTORS + ((part ^ t % 2 * 2) * 4 + t / 2) * 4;
    p.digits = slot + CODES + SCALES + N * FACTORS + g / 2 % 2 * DIGITS + part * 256 +
               (g / 4 * 4 + g % 2 * 2 + t % 2) * 16;
    return p;
}

enum { SETS = 2 }; /* of registers for digits, so that the next are read while some are multiplied */

/* The sums of a lane: [two rows of x][row g, and those 32, 64 and 96 further on][pair of its part]. */
typedef float sums[4][4][2];

/* A pair of blocks of 16 rows as operands of two products, one for each half of the columns of a lane. */
struct rows16 { uint32_t a[2][4]; float scale[2]; };

/* row, row2: the codes of row g and of the row 32 further on; scales: theirs, E4M3. */
DEVICE struct rows16 rows_of(uint32_t row, uint32_t row2, uint32_t scales)
{
    struct rows16 r;
    uint32_t a[4], b[4];
    pairs_of_codes(a, row);
    pairs_of_codes(b, row2);
#pragma unroll
    for (int i = 0; i < 4; i++) r.a[i / 2][i % 2 * 2] = a[i], r.a[i / 2][i % 2 * 2 + 1] = b[i];
    scales = f16x2_from_e4m3x2(scales);
    r.scale[0] = f32_from_f16(scales & 0xffff), r.scale[1] = f32_from_f16(scales >> 16);
    return r;
}

/* Adds 16 rows times two rows of x, of which x has digits and e the factor. */
DEVICE void multiply_rows(const struct rows16 *r, const uint32_t x[4], float e, float *sum, float *sum2)
{
    float c[4] = { 0, 0, 0, 0 };
    mma_16816_f16(c, r->a[0], x);
    mma_16816_f16(c, r->a[1], x + 2);
    *sum = __fmaf_rn(__fmaf_rn(c[0], 4096.f, c[1]), r->scale[0] * e, *sum);
    *sum2 = __fmaf_rn(__fmaf_rn(c[2], 4096.f, c[3]), r->scale[1] * e, *sum2);
}

/* Adds a step to a warp's partial sums.  x: for digits; lanes whose column n is not of the block that their
 * codes are of have 0 there, and keep it. */
DEVICE void multiply_step(int N, const struct place *p, uint32_t (*x)[4], sums sum)
{
    const int l = (int)lane_id();
    const bool on = l / 2 % 2 == l / 16;
    const uint32_t pick = l & 2 ? 0x7351u : 0x6240u;
#pragma unroll
    for (int group = 0; group < 2; group++) {
        uint32_t code[4], code2[4], s[4];
        ldmatrix_x4_at(code, p->codes + group * 128);
        ldmatrix_x4_at(code2, p->codes + group * 128 + 32 * 256);
        load_shared_16(s, p->scales + group * 1024);
        const uint32_t scales = __byte_perm(s[0], s[1], pick), scales2 = __byte_perm(s[2], s[3], pick);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const struct rows16 r = rows_of(code[2 * h], code[2 * h + 1], scales >> 16 * h);
            const struct rows16 r2 = rows_of(code2[2 * h], code2[2 * h + 1], scales2 >> 16 * h);
#pragma unroll
            for (int n = 0; n < N / 2; n++) {
                uint32_t *d = x[(h * N / 2 + n) % SETS];
                load_shared_16_if(d, p->digits + group * 1024 + h * 128 + n * 2 * DIGITS, on);
                const float e = load_shared_f32(p->factors + group * 64 + h * 8 + n * 2 * FACTORS);
                multiply_rows(&r, d, e, &sum[n][0][h], &sum[n][1][h]);
                multiply_rows(&r2, d, e, &sum[n][2][h], &sum[n][3][h]);
            }
        }
    }
}

DEVICE void clear(int N, sums sum)
{
#pragma unroll
    for (int n = 0; n < N * 4; n++) sum[n / 8][n / 2 % 4][n % 2] = 0;
}

/* ---- results ---- */

enum { APART = 72 }; /* values between rows of x in shared memory: lanes that store together use all banks */

/* Adds the partial sums up, to [sums of even number, of odd number][row of x][row of the tile], which is
 * returned.  The warps of parts 1 and 3 hand theirs over to those of parts 0 and 2.  The room is shared
 * memory that nobody uses: a slot of the ring. */
DEVICE const float *fold(int N, sums sum, float *room)
{
    const int tid = (int)computed_here(threadIdx.x), l = tid % 32, w = tid / 32, g = l / 4, t = l % 4;
    const int odd = w / 4;
    float *hand = room + odd * 64 + w % 2 * 32 + l, *half = room + N * 512;
    float *to = half + (odd * N + t % 2) * APART + w % 2 * 8 + g;
    const bool gives = w / 2 % 2;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N * 4; i++)
        if (gives) hand[i * 128] = sum[i / 8][i / 2 % 4][i % 2];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N * 4; i += 2) {
        if (gives) continue;
        const float *s = sum[i / 8][i / 2 % 4];
        float v = (s[0] + hand[i * 128]) + (s[1] + hand[i * 128 + 128]);
        v = v + __shfl_xor_sync(0xffffffffu, v, 2);
        if (t < 2) to[i / 8 * 2 * APART + i / 2 % 4 * 16] = v;
    }
    __syncthreads();
    return half;
}

/* Stores the digits of a block of 16 results, of which this lane has v, in column `col` of row `at`.  The
 * lanes of the other half warp may have another block, or none. */
DEVICE void store_digits(const struct moe_cuda_nvfp4 *a, float v, bool valid, int64_t at, int col)
{
    uint32_t most = __float_as_uint(v) & 0x7fffffffu;
    for (int d = 8; d; d /= 2) most = max(most, __shfl_xor_sync(0xffffffffu, most, d));
    if (!valid) return;
    const uint32_t e = digit_exponent(most);
    const int x = digit_integer(v, most, e, 24);
    const int64_t block = at * moe_cuda_digit_groups(a->rows) * 16 + col / 16;
    uint16_t *to = (uint16_t *)(a->digits_out + block * 64) + col % 16 / 8 * 8 + CODE_PLACE(col % 8);
    to[0] = (uint16_t)f16_digit(digit_high(x)), to[16] = (uint16_t)f16_digit(digit_low(x));
    if (col % 16 == 0) a->factors_out[block] = digit_factor(most, e);
}

/* Stores the results of a tile for one matrix.  Thread i has rows i % 64 of the tile for rows of x i / 64,
 * i / 64 + 4: two values at most, of which those of the first matrix wait in `gate` where SwiGLU joins both.
 * A half warp has 16 neighbouring rows of W. */
DEVICE void store(const struct moe_cuda_nvfp4 *a, int N, const struct unit *u, float global,
                  const float *half, float *gate)
{
    const int tid = (int)computed_here(threadIdx.x), r = tid % 64, row = u->row + r % 16 + r / 16 * 32;
    const bool joins = a->flags & MOE_CUDA_NVFP4_SWIGLU;
    float *y = u->matrix && !joins ? a->y[1] : a->y[0];
#pragma unroll
    for (int i = 0; i < (N + 3) / 4; i++) {
        const int j = tid / 64 + 4 * i, p = u->first + j;
        const bool valid = j < u->count && row < a->rows;
        float v = 0;
        if (valid) {
            v = half[j * APART + r] + half[(N + j) * APART + r];
            v = a->flags & MOE_CUDA_NVFP4_RECIPROCAL ? __fdiv_rn(v, global) : v * global;
        }
        if (joins && !u->matrix) {
            gate[256 * i + tid] = v;
            continue;
        }
        if (joins) v = swiglu_f32(gate[256 * i + tid], v);
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
    SHARED(struct known, known, AHEAD);
    SHARED(float, gate, 64 * 8);
    const int slots = moe_cuda_nvfp4_ring(N), tid = (int)threadIdx.x;
    const int steps = (int)((a->cols + STEP - 1) / STEP), units = unit_count(a, N);
    struct place place = place_of(N, shared_address(ring));
    uint32_t x[SETS][4] = { { 0 } };
    sums sum;
    struct feed f;
    int slot = 0, left = 0; /* of the unit that is multiplied, `left` steps */

    if (!units) return;
    f.unit = 0;
    feed_unit(a, N, steps, &f, known);
    f.to = shared_address(ring) + tid * 16;
    f.codes_to = shared_address(ring) + (tid * 16 ^ tid / 16 % 8 * 16); /* ldmatrix then uses all banks */
    for (int i = 0; i < slots - 1; i++) {
        __syncthreads();
        if (f.unit < units) {
            feed_step(a, N, narrow, &f, known);
            if (--f.steps == 0 && ++f.unit < units) feed_unit(a, N, steps, &f, known);
        }
        f.to += moe_cuda_nvfp4_step_bytes(N), f.codes_to += moe_cuda_nvfp4_step_bytes(N);
        cp_async_commit();
    }
    for (int i = 0; i < units;) {
        if (!left) {
            clear(N, sum);
            left = steps;
        }
        /* steps until the next unit comes, to be copied or to be multiplied */
        const bool feeds = f.unit < units;
        int run = feeds ? min(f.steps, left) : left;
        f.steps -= run, left -= run;
        for (; run; run--) {
            if (N == 8) cp_async_wait(1);
            else cp_async_wait(2);
            __syncthreads();
            if (feeds) feed_step(a, N, narrow, &f, known);
            cp_async_commit();
            multiply_step(N, &place, x, sum);
            next_slot(N, &slot, &place, &f);
        }
        if (feeds && f.steps == 0 && ++f.unit < units) feed_unit(a, N, steps, &f, known);
        if (left) continue;
        const int done = slot ? slot - 1 : slots - 1;
        const float *half = fold(N, sum, (float *)(ring + done * (int)moe_cuda_nvfp4_step_bytes(N)));
        const struct unit u = unit_at(a, N, i);
        store(a, N, &u, known[i % AHEAD].global, half, gate);
        i++;
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
