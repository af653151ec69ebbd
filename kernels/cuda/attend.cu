/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/attend.cu - attention over pages of the latent cache.
 *
 * A block has 16 heads of a token (attend_8: 8 heads, with half as many threads) and goes through the token's
 * rows page by page.  Each page comes through shared memory twice, in pieces of 16 KB of which three are on
 * their way at a time:
 *
 *   first as keys, 64 rows x 64 columns a piece.  Warp w makes the scores of rows 8w .. 8w + 7.  Lanes 0-15
 *   are the 16 sums of the reduction order for heads 0-7, lanes 16-31 for heads 8-15: 8 x 8 sums a lane, two
 *   loads for eight fma.  Then 64 sums are folded at once, each exchange halving how many a lane holds.
 *   then as values, 8 rows x kl columns a piece.  Warp w has columns 64w .. 64w + 63: a lane has 4 of them
 *   and 8 heads, whose outputs stay in its registers from the first page to the last.
 *
 * Between the two, 16 lanes a head turn the page's scores into exponentials. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/attend-merge.h"
#include "kernels/cuda/attend.h"

enum { COLS = MOE_CUDA_ATTEND_COLS, ROWS = MOE_CUDA_ATTEND_ROWS, PIECE = MOE_CUDA_ATTEND_PIECE,
       STAGES = MOE_CUDA_ATTEND_STAGES, SCORES = MOE_PAGE };

/* What a block knows while it goes through the rows [begin, end) of a token. */
struct job {
    const struct moe_cuda_attend *a;
    const int32_t *table;          /* the token's block table */
    int64_t t, begin, end;         /* begin: a multiple of MOE_PAGE */
    int most;                      /* a constant: how many heads a block can have, 16 or 8 */
    int heads, h0;                 /* the block's heads: [h0, h0 + heads) */
    int keys, pieces;              /* pieces of a page: as keys; as keys and values together */
    bool whole;                    /* whether rows are made of whole pieces of 16 bytes */
    float *ring, *query, *score, *factor; /* shared memory: score [most][SCORES], factor [2][most] */
    const float *page, *next;      /* the page at hand and the one after it, and how many rows they have */
    int rows, next_rows;
    int slot;                      /* where in the ring the next piece is */
};

/* ---- pieces ---- */

/* Makes the page after that at hand the page at hand, whose first row is `at`. */
DEVICE void turn_page(struct job *j, int64_t at)
{
    const int64_t left = j->end - at - MOE_PAGE;
    j->page = j->next, j->rows = j->next_rows;
    j->next_rows = left <= 0 ? 0 : left < MOE_PAGE ? (int)left : MOE_PAGE;
    if (left > 0) j->next = j->a->cache.rows + j->table[at / MOE_PAGE + 1] * j->a->cache.page_step;
}

/* Where column c of row r of a piece of keys is in its row.  In blocks of 8 heads the half warps of a warp
 * read neighbouring rows at the same time.  So each second row has its groups of 16 columns exchanged in
 * pairs, and the two halves use different banks. */
DEVICE int key_column(int most, int r, int c) { return most == 8 ? c ^ (r & 1) << 4 : c; }

/* `rows` x `cols` values (cols a multiple of 4), of which `there` of each row exist; the others become 0. */
DEVICE void fetch(const struct job *j, const float *from, int rows, int cols, int there, bool keys, float *to)
{
    const int quads = cols / 4;
    const int64_t ld = j->a->cache.width;
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < rows * quads; i += 16 * j->most) {
        const int r = i / quads, c = i % quads * 4;
        float *p = to + r * cols + (keys ? key_column(j->most, r, c) : c);
        if (j->whole && c + 4 <= there) cp_async_16(p, from + r * ld + c);
        else
#pragma unroll 1
            for (int k = 0; k < 4; k++)
                if (c + k < there) cp_async_4(p + k, from + r * ld + c + k);
                else p[k] = 0;
    }
}

/* The same where all of `cols` values exist, a multiple of 16 bytes, and so many are a piece: cols is 64, or
 * the 512 of K2's values. */
DEVICE void fetch_whole(const struct job *j, const float *from, int rows, int cols, bool keys, float *to)
{
    const int r = (int)threadIdx.x / (cols / 4), c = (int)threadIdx.x % (cols / 4) * 4;
    const int step = 16 * j->most / (cols / 4);
    const int64_t ld = j->a->cache.width;
    from += r * ld + c, to += r * cols + (keys ? key_column(j->most, r, c) : c); /* keys: `step` is even */
#pragma unroll
    for (int i = 0; i < PIECE / 4 / cols; i += step)
        if (r + i < rows) cp_async_16(to + i * cols, from + i * ld);
}

/* Asks for piece i of the page at hand or, from `pieces` on, of the next one. */
DEVICE void fetch_piece(const struct job *j, int i, float *to)
{
    const bool over = i >= j->pieces;
    const float *page = over ? j->next : j->page;
    const int rows = over ? j->next_rows : j->rows, kl = (int)j->a->kl;
    const int64_t ld = j->a->cache.width;
    if (over) i -= j->pieces;
    if (i < j->keys) {
        const int left = (int)ld - i * COLS;
        if (j->whole && left >= COLS) fetch_whole(j, page + i * COLS, rows, COLS, true, to);
        else fetch(j, page + i * COLS, rows, COLS, left, true, to);
    } else {
        const int r = (i - j->keys) * ROWS, n = rows - r < ROWS ? rows - r : ROWS;
        if (j->whole && kl == MOE_CUDA_ATTEND_KL)
            fetch_whole(j, page + r * ld, n, MOE_CUDA_ATTEND_KL, false, to);
        else fetch(j, page + r * ld, n, (kl + 3) / 4 * 4, kl, false, to);
    }
}

/* Waits for piece i, and asks for the one that takes the place of the piece before it. */
DEVICE const float *next_piece(struct job *j, int i)
{
    const float *now = j->ring + j->slot * (PIECE / 4);
    cp_async_wait(STAGES - 2);
    __syncthreads();
    fetch_piece(j, i + STAGES - 1, j->ring + (j->slot ? j->slot - 1 : STAGES - 1) * (PIECE / 4));
    cp_async_commit();
    j->slot = j->slot + 1 < STAGES ? j->slot + 1 : 0;
    return now;
}

/* ---- scores ---- */

/* Adds 16 columns to the sums of 8 heads times 8 rows; x: the lane's value of the first of its heads'
 * queries, k: that of the first of its rows, which are `step` values apart. */
DEVICE void add_score(const float *x, int ld, const float *k, int step, float sum[64])
{
    float q[8], key[8];
#pragma unroll
    for (int i = 0; i < 8; i++) q[i] = x[i * ld];
#pragma unroll
    for (int i = 0; i < 8; i++) key[i] = k[i * step];
#pragma unroll
    for (int h = 0; h < 8; h++)
#pragma unroll
        for (int r = 0; r < 8; r++) sum[h * 8 + r] = __fmaf_rn(q[h], key[r], sum[h * 8 + r]);
}

/* Adds the columns of a piece, `steps` times 16 of them; k: the first of the lane's rows, row `row`. */
DEVICE void add_scores(int most, const float *x, int ld, const float *k, int row, int steps, float sum[64])
{
    const int step = most == 8 ? 2 * COLS : COLS, lane = (int)(threadIdx.x & 15);
    if (steps == COLS / 16)
#pragma unroll
        for (int s = 0; s < COLS / 16; s++)
            add_score(x + 16 * s, ld, k + key_column(most, row, 16 * s + lane), step, sum);
    else
#pragma unroll 1
        for (int s = 0; s < steps; s++)
            add_score(x + 16 * s, ld, k + key_column(most, row, 16 * s + lane), step, sum);
}

/* One exchange of a fold: of 2 n values, lanes that have `bit` keep the upper n, the others the lower n, each
 * with its partner's added. */
#define FOLD_HALF(n, bit) \
    _Pragma("unroll") for (int i = 0; i < (n); i++) { \
        const bool up = (threadIdx.x & (bit)) != 0; \
        const float keep = up ? sum[i + (n)] : sum[i], give = up ? sum[i] : sum[i + (n)]; \
        sum[i] = keep + __shfl_xor_sync(0xffffffffu, give, (bit)); \
    }

/* Folds 64 sums over the 16 lanes of each half warp.  Lane l of a half then holds sums 4 l to 4 l + 3, in
 * sum[0] to sum[3]. */
DEVICE void fold_64(float sum[64])
{
    FOLD_HALF(32, 8)
    FOLD_HALF(16, 4)
    FOLD_HALF(8, 2)
    FOLD_HALF(4, 1)
}

/* The first of the lane's eight heads, and the first of its four columns of values.  With 16 heads the half
 * warps of a warp have different heads, with 8 heads different rows of keys and columns of values. */
DEVICE int first_head(const struct job *j) { return j->most == 8 ? 0 : (int)lane_id() / 16 * 8; }
DEVICE int first_column(const struct job *j)
{
    return j->most == 8 ? (int)threadIdx.x * 4 : (int)warp_id() * 64 + (int)(threadIdx.x & 15) * 4;
}

/* The scores of the page at hand; those of rows that it does not have are undefined. */
DEVICE void make_scores(struct job *j)
{
    const int width = (int)j->a->cache.width, ld = MOE_CUDA_ATTEND_QUERY(width), w = (int)warp_id();
    const int lane = (int)(threadIdx.x & 15), half = (int)lane_id() / 16, head = first_head(j);
    /* the half warp's rows: `row` and seven more, `apart` from each other */
    const int row = j->most == 8 ? w * 16 + half : w * 8, apart = j->most == 8 ? 2 : 1;
    float sum[64];
#pragma unroll
    for (int i = 0; i < 64; i++) sum[i] = 0;
    for (int i = 0; i < j->keys; i++) {
        const float *k = next_piece(j, i);
        const int left = width - i * COLS, steps = left < COLS ? (left + 15) / 16 : COLS / 16;
        add_scores(j->most, j->query + head * ld + i * COLS + lane, ld, k + row * COLS, row, steps, sum);
    }
    fold_64(sum);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int at = 4 * lane + i, h = head + at / 8, r = row + at % 8 * apart;
        j->score[h * SCORES + r] = j->a->scale * sum[i];
    }
}

/* ---- exponentials ---- */

/* Of the values of the 16 lanes of a half warp the largest, of which none is NaN; where two are equal (zeros
 * of either sign), that of the lower lane. */
DEVICE float largest_16(float m)
{
#pragma unroll
    for (unsigned bit = 1; bit < 16; bit *= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, m, bit);
        const float low = threadIdx.x & bit ? other : m, high = threadIdx.x & bit ? m : other;
        m = high > low ? high : low;
    }
    return m;
}

/* Turns a head's scores into exponentials under the new maximum, in all 16 lanes of the head's half warp.
 * Changes the head's m and l; the factor of all that was summed before goes to j->factor. */
DEVICE void weigh(const struct job *j, float *max, float *sum)
{
    const int rows = j->rows;
    const int lane = (int)(threadIdx.x & 15), h = (int)threadIdx.x / 16;
    float *score = j->score + h * SCORES, s[SCORES / 16], m = __uint_as_float(0xff800000u), total = 0;
#pragma unroll
    for (int i = 0; i < SCORES / 16; i++) {
        const int r = 16 * i + lane;
        s[i] = r < rows ? score[r] : 0;
        if (r < rows && s[i] > m) m = s[i];
    }
    m = largest_16(m);
    const float most = m > *max ? m : *max, f = exp_f32(*max - most);
#pragma unroll
    for (int i = 0; i < SCORES / 16; i++) {
        const int r = 16 * i + lane;
        s[i] = exp_f32(s[i] - most);
        if (r >= rows) s[i] = 0;
        total = total + s[i];
        score[r] = s[i];
    }
    *sum = __fmaf_rn(*sum, f, fold_f32(total));
    *max = most;
    if (lane == 0) j->factor[h] = f;
}

/* ---- outputs ---- */

/* o[8 heads][4 columns] of the lane += four rows, of which `there` exist; v: the lane's columns of the first,
 * ld values apart, e: the first's exponential of the lane's first head. */
DEVICE void add_rows(const float *v, int ld, const float *e, int there, float o[32])
{
    float4 x[4];
#pragma unroll
    for (int r = 0; r < 4; r++)
        if (r < there) x[r] = *(const float4 *)(v + r * ld);
#pragma unroll
    for (int h = 0; h < 8; h++) {
        const float4 w = *(const float4 *)(e + h * SCORES);
#pragma unroll
        for (int r = 0; r < 4; r++)
            if (r < there) {
                const float f = r == 0 ? w.x : r == 1 ? w.y : r == 2 ? w.z : w.w;
                o[h * 4] = __fmaf_rn(f, x[r].x, o[h * 4]);
                o[h * 4 + 1] = __fmaf_rn(f, x[r].y, o[h * 4 + 1]);
                o[h * 4 + 2] = __fmaf_rn(f, x[r].z, o[h * 4 + 2]);
                o[h * 4 + 3] = __fmaf_rn(f, x[r].w, o[h * 4 + 3]);
            }
    }
}

/* o of the lane: times the factor, then the rows of the page at hand, ascending. */
DEVICE void add_values(struct job *j, float o[32])
{
    const int ld = ((int)j->a->kl + 3) / 4 * 4, col = first_column(j), head = first_head(j);
#pragma unroll
    for (int h = 0; h < 8; h++) {
        const float f = j->factor[head + h];
#pragma unroll
        for (int c = 0; c < 4; c++) o[h * 4 + c] = o[h * 4 + c] * f;
    }
    for (int i = 0; i < MOE_PAGE / ROWS; i++) {
        const float *v = next_piece(j, j->keys + i) + col, *e = j->score + head * SCORES + i * ROWS;
        const int there = j->rows - i * ROWS;
        if (col >= ld) continue;
        if (there >= ROWS) {
            add_rows(v, ld, e, 4, o);
            add_rows(v + 4 * ld, ld, e + 4, 4, o);
        } else
#pragma unroll 1
            for (int r = 0; r < there; r += 4) add_rows(v + r * ld, ld, e + r, there - r, o);
    }
}

/* ---- chunks ---- */

/* Results of the block's heads: o of the lane's heads and columns, m and l of the head of its half warp. */
struct result { float max, sum, o[32]; };

/* The job's rows [begin, end) of one chunk. */
DEVICE void attend_chunk(struct job *j, int64_t begin, int64_t end, struct result *r)
{
    r->max = __uint_as_float(0xff800000u), r->sum = 0;
#pragma unroll
    for (int i = 0; i < 32; i++) r->o[i] = 0;
    for (int64_t at = begin; at < end; at += MOE_PAGE) {
        turn_page(j, at);
        make_scores(j);
        __syncthreads();
        weigh(j, &r->max, &r->sum);
        __syncthreads();
        add_values(j, r->o);
    }
}

/* Merges the next chunk's result b into a, as attend_merge of kernels.def does.  The factors of all heads
 * meet in shared memory. */
DEVICE void merge(const struct job *j, struct result *a, const struct result *b)
{
    const int h = (int)threadIdx.x / 16, head = first_head(j);
    const float most = b->max > a->max ? b->max : a->max;
    const float f = exp_f32(a->max - most), f2 = exp_f32(b->max - most);
    if ((threadIdx.x & 15) == 0) j->factor[h] = f, j->factor[j->most + h] = f2;
    __syncthreads();
    a->max = most, a->sum = __fmaf_rn(b->sum, f2, a->sum * f);
#pragma unroll
    for (int i = 0; i < 32; i++)
        a->o[i] = __fmaf_rn(b->o[i], j->factor[j->most + head + i / 4], a->o[i] * j->factor[head + i / 4]);
}

/* Stores the lane's outputs into rows of kl values, the block's first head first; times 1 / l where
 * `finish`. */
DEVICE void store(const struct job *j, const struct result *r, bool finish, float *to)
{
    const int col = first_column(j), head = first_head(j);
    const int64_t kl = j->a->kl;
    if ((threadIdx.x & 15) == 0) j->factor[threadIdx.x / 16] = 1.f / r->sum;
    __syncthreads();
    const bool whole = kl % 4 == 0;
    to += head * kl + col;
#pragma unroll
    for (int i = 0; i < 32; i += 4, to += kl) {
        const int h = head + i / 4;
        uint32_t o[4];
#pragma unroll
        for (int c = 0; c < 4; c++) o[c] = __float_as_uint(finish ? r->o[i + c] * j->factor[h] : r->o[i + c]);
        if (h < j->heads && col < kl && whole) store_16(to, o);
#pragma unroll
        for (int c = 0; c < 4; c++)
            if (h < j->heads && col + c < kl && !whole) to[c] = __uint_as_float(o[c]);
    }
}

DEVICE void load_queries(const struct job *j)
{
    const int64_t width = j->a->cache.width;
    const int ld = MOE_CUDA_ATTEND_QUERY((int)width);
    const float *q = j->a->q + (j->t * j->a->heads + j->h0) * width;
    for (int i = (int)threadIdx.x; i < j->most * ld; i += 16 * j->most) {
        const int h = i / ld, c = i % ld;
        j->query[i] = h < j->heads && c < width ? q[h * width + c] : 0;
    }
}

/* The whole of a block's work. */
DEVICE void attend(const struct moe_cuda_attend a, int most)
{
    DYNAMIC_SHARED(float, memory);
    const int64_t t = blockIdx.z, rows = (int64_t)a.cache.pos[t] + 1;
    const int64_t chunk = a.split ? (int64_t)blockIdx.x : 0;
    const int64_t first = chunk * MOE_CHUNK;
    struct job j;
    struct result all = { 0, 0, { 0 } }, next;

    if (first >= rows) return;
    j.a = &a, j.most = most, j.t = t, j.begin = first;
    j.end = a.split && rows - first > MOE_CHUNK ? first + MOE_CHUNK : rows;
    j.h0 = (int)blockIdx.y * most;
    j.heads = min((int)a.heads - j.h0, most);
    j.keys = (int)((a.cache.width + COLS - 1) / COLS), j.pieces = j.keys + MOE_PAGE / ROWS;
    j.whole = a.cache.width % 4 == 0 && a.cache.page_step % 4 == 0;
    j.ring = memory, j.query = memory + STAGES * (PIECE / 4);
    j.score = j.query + most * MOE_CUDA_ATTEND_QUERY((int)a.cache.width);
    j.factor = j.score + most * SCORES;
    load_queries(&j);
    j.table = a.cache.page + a.cache.segment[t] * a.cache.table, j.slot = 0;
    j.next = a.cache.rows, j.next_rows = 0;
    turn_page(&j, first - MOE_PAGE);
    for (int i = 0; i < STAGES - 1; i++) { /* there is no page at hand yet: these are of the next one */
        fetch_piece(&j, j.pieces + i, j.ring + i * (PIECE / 4));
        cp_async_commit();
    }

    for (int64_t at = j.begin; at < j.end; at += MOE_CHUNK) {
        const int64_t end = j.end - at < MOE_CHUNK ? j.end : at + MOE_CHUNK;
        attend_chunk(&j, at, end, &next);
        if (at == j.begin) all = next;
        else merge(&j, &all, &next);
    }
    const int64_t slot = (t * a.chunks + chunk) * a.heads + j.h0;
    if (a.split) {
        const int h = (int)threadIdx.x / 16;
        if ((threadIdx.x & 15) == 0 && h < j.heads) a.max[slot + h] = all.max, a.sum[slot + h] = all.sum;
    }
    __syncthreads(); /* nobody reads factors any more */
    store(&j, &all, !a.split, a.split ? a.part + slot * a.kl : a.out + (t * a.heads + j.h0) * a.kl);
}

KERNEL(moe_cuda_attend, MOE_CUDA_ATTEND_THREADS) (const struct moe_cuda_attend a)
{
    attend(a, MOE_CUDA_ATTEND_HEADS);
}
KERNEL(moe_cuda_attend_8, MOE_CUDA_ATTEND_THREADS / 2) (const struct moe_cuda_attend a)
{
    attend(a, MOE_CUDA_ATTEND_HEADS / 2);
}

KERNEL(moe_cuda_attend_merge, 128) (const struct moe_cuda_attend a)
{
    merge_chunks(&a, blockIdx.x, blockIdx.y, ((int64_t)a.cache.pos[blockIdx.y] + MOE_CHUNK) / MOE_CHUNK);
}
