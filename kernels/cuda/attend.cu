/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/attend.cu - attention over pages of the latent cache.
 *
 * A block has 16 heads of a token and goes through the token's rows page by page.  Each page comes through
 * shared memory twice, in pieces of 16 KB of which three are on their way at a time:
 *
 *   first as keys, 64 rows x 64 columns a piece.  Warp w makes the scores of rows 8w .. 8w + 7.  Lanes 0-15
 *   are the 16 sums of the reduction order for heads 0-7, lanes 16-31 for heads 8-15: 8 x 8 sums a lane, two
 *   loads for eight fma.  Then 64 sums are folded at once, each exchange halving how many a lane holds.
 *   then as values, 8 rows x kl columns a piece.  Warp w has columns 64w .. 64w + 63: a lane has 4 of them
 *   and 8 heads, whose outputs stay in its registers from the first page to the last.
 *
 * Between the two, 16 lanes a head turn the page's scores into exponentials. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/attend.h"

enum { THREADS = MOE_CUDA_ATTEND_THREADS, HEADS = MOE_CUDA_ATTEND_HEADS, COLS = MOE_CUDA_ATTEND_COLS,
       ROWS = MOE_CUDA_ATTEND_ROWS, PIECE = MOE_CUDA_ATTEND_PIECE, STAGES = MOE_CUDA_ATTEND_STAGES,
       SCORES = MOE_PAGE };

/* What a block knows while it goes through the rows [begin, end) of a token. */
struct job {
    const struct moe_cuda_attend *a;
    int64_t t, begin, end;         /* begin: a multiple of MOE_PAGE */
    int heads, h0;                 /* the block's heads: [h0, h0 + heads) */
    int keys, pieces;              /* pieces of a page: as keys; as keys and values together */
    bool whole;                    /* whether rows are made of whole pieces of 16 bytes */
    float *ring, *query, *score, *factor; /* shared memory: score [HEADS][SCORES], factor [2][HEADS] */
};

/* ---- pieces ---- */

/* `rows` x `cols` values (cols a multiple of 4), of which `there` of each row exist; the others become 0. */
DEVICE void fetch(const float *from, int64_t ld, int rows, int cols, int there, bool whole, float *to)
{
    const int quads = cols / 4;
    for (int i = (int)threadIdx.x; i < rows * quads; i += THREADS) {
        const int r = i / quads, c = i % quads * 4;
        float *p = to + r * cols + c;
        if (whole && c + 4 <= there) cp_async_16(p, from + r * ld + c);
        else
            for (int j = 0; j < 4; j++)
                if (c + j < there) cp_async_4(p + j, from + r * ld + c + j);
                else p[j] = 0;
    }
}

/* Piece p of the job's rows, counted from its first. */
DEVICE void fetch_piece(const struct job *j, int64_t p)
{
    const struct moe_cuda_attend *a = j->a;
    const int64_t first = j->begin + p / j->pieces * MOE_PAGE, ld = a->cache.width;
    const int i = (int)(p % j->pieces);
    if (first >= j->end) return;
    const int rows = j->end - first < MOE_PAGE ? (int)(j->end - first) : MOE_PAGE;
    const float *page = LATENT_PAGE(&a->cache, j->t, first / MOE_PAGE);
    float *to = j->ring + p % STAGES * (PIECE / 4);
    if (i < j->keys) {
        const int left = (int)ld - i * COLS;
        fetch(page + i * COLS, ld, rows, COLS, left < COLS ? left : COLS, j->whole, to);
    } else {
        const int r = (i - j->keys) * ROWS, kl = (int)a->kl;
        if (r < rows)
            fetch(page + r * ld, ld, rows - r < ROWS ? rows - r : ROWS, (kl + 3) / 4 * 4, kl, j->whole, to);
    }
}

/* Waits for piece p, and asks for the one that takes the place of the piece before it. */
DEVICE const float *next_piece(const struct job *j, int64_t p)
{
    cp_async_wait(STAGES - 2);
    __syncthreads();
    fetch_piece(j, p + STAGES - 1);
    cp_async_commit();
    return j->ring + p % STAGES * (PIECE / 4);
}

/* ---- scores ---- */

/* Adds the columns of a piece to the sums of 8 heads times 8 rows; x: the first of the lane's heads' queries
 * at these columns, k: the first of the warp's rows. */
DEVICE void add_scores(const float *x, int ld, const float *k, int steps, float sum[64])
{
    const int lane = (int)(threadIdx.x & 15);
    for (int s = 0; s < steps; s++) {
        float q[8], key[8];
#pragma unroll
        for (int i = 0; i < 8; i++) q[i] = x[i * ld + 16 * s + lane];
#pragma unroll
        for (int i = 0; i < 8; i++) key[i] = k[i * COLS + 16 * s + lane];
#pragma unroll
        for (int h = 0; h < 8; h++)
#pragma unroll
            for (int r = 0; r < 8; r++) sum[h * 8 + r] = __fmaf_rn(q[h], key[r], sum[h * 8 + r]);
    }
}

/* One exchange of a fold: of 2 n values, lanes that have `bit` keep the upper n, the others the lower n, each
 * with its partner's added. */
#define FOLD_HALF(n, bit) \
    _Pragma("unroll") for (int i = 0; i < (n); i++) { \
        const bool up = (threadIdx.x & (bit)) != 0; \
        const float keep = up ? sum[i + (n)] : sum[i], give = up ? sum[i] : sum[i + (n)]; \
        sum[i] = keep + __shfl_xor_sync(0xffffffffu, give, (bit)); \
    }

/* Folds 64 sums over the 16 lanes of each half warp.  The lane whose number in its half is l then holds those
 * of index 4 * reversed(l) + i in sum[i], i < 4, where `reversed` swaps no bits: bit 3 of l is the highest of
 * the index. */
DEVICE void fold_64(float sum[64])
{
    FOLD_HALF(32, 8)
    FOLD_HALF(16, 4)
    FOLD_HALF(8, 2)
    FOLD_HALF(4, 1)
}

/* The scores of the page's rows, of which `rows` exist, from piece p on. */
DEVICE void make_scores(const struct job *j, int64_t p, int rows)
{
    const int width = (int)j->a->cache.width, ld = MOE_CUDA_ATTEND_QUERY(width), w = (int)warp_id();
    const int lane = (int)(threadIdx.x & 15), half = (int)lane_id() / 16;
    float sum[64];
#pragma unroll
    for (int i = 0; i < 64; i++) sum[i] = 0;
    for (int i = 0; i < j->keys; i++) {
        const float *k = next_piece(j, p + i);
        const int left = width - i * COLS, steps = left < COLS ? (left + 15) / 16 : COLS / 16;
        add_scores(j->query + half * 8 * ld + i * COLS, ld, k + w * 8 * COLS, steps, sum);
    }
    fold_64(sum);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int at = 4 * lane + i, h = half * 8 + at / 8, r = w * 8 + at % 8;
        if (r < rows) j->score[h * SCORES + r] = j->a->scale * sum[i];
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
DEVICE void weigh(const struct job *j, int rows, float *max, float *sum)
{
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

/* o[8 heads][4 columns] of the lane: times the factor, then the page's rows added, ascending. */
DEVICE void add_values(const struct job *j, int64_t p, int rows, float o[32])
{
    const int kl4 = ((int)j->a->kl + 3) / 4 * 4, w = (int)warp_id();
    const int col = w * 64 + (int)(threadIdx.x & 15) * 4, half = (int)lane_id() / 16;
    const float *score = j->score + half * 8 * SCORES;
#pragma unroll
    for (int h = 0; h < 8; h++) {
        const float f = j->factor[half * 8 + h];
#pragma unroll
        for (int c = 0; c < 4; c++) o[h * 4 + c] = o[h * 4 + c] * f;
    }
    for (int i = 0; i < j->pieces - j->keys; i++) {
        const float *v = next_piece(j, p + i);
        const int there = rows - i * ROWS < ROWS ? rows - i * ROWS : ROWS;
        if (col >= kl4) continue;
#pragma unroll 2
        for (int r = 0; r < there; r++) {
            const float4 x = *(const float4 *)(v + r * kl4 + col);
#pragma unroll
            for (int h = 0; h < 8; h++) {
                const float e = score[h * SCORES + i * ROWS + r];
                o[h * 4] = __fmaf_rn(e, x.x, o[h * 4]);
                o[h * 4 + 1] = __fmaf_rn(e, x.y, o[h * 4 + 1]);
                o[h * 4 + 2] = __fmaf_rn(e, x.z, o[h * 4 + 2]);
                o[h * 4 + 3] = __fmaf_rn(e, x.w, o[h * 4 + 3]);
            }
        }
    }
}

/* ---- chunks ---- */

/* Results of the block's heads: o of the lane's heads and columns, m and l of the head of its half warp. */
struct result { float max, sum, o[32]; };

/* The job's rows [begin, end) of one chunk, whose first piece is p. */
DEVICE void attend_chunk(const struct job *j, int64_t begin, int64_t end, int64_t p, struct result *r)
{
    r->max = __uint_as_float(0xff800000u), r->sum = 0;
#pragma unroll
    for (int i = 0; i < 32; i++) r->o[i] = 0;
    for (int64_t at = begin; at < end; at += MOE_PAGE, p += j->pieces) {
        const int rows = end - at < MOE_PAGE ? (int)(end - at) : MOE_PAGE;
        make_scores(j, p, rows);
        __syncthreads();
        weigh(j, rows, &r->max, &r->sum);
        __syncthreads();
        add_values(j, p + j->keys, rows, r->o);
    }
}

/* Merges the next chunk's result b into a, as attend_merge of kernels.def does.  The factors of all heads
 * meet in shared memory. */
DEVICE void merge(const struct job *j, struct result *a, const struct result *b)
{
    const int h = (int)threadIdx.x / 16, half = (int)lane_id() / 16;
    const float most = b->max > a->max ? b->max : a->max;
    const float f = exp_f32(a->max - most), f2 = exp_f32(b->max - most);
    if ((threadIdx.x & 15) == 0) j->factor[h] = f, j->factor[HEADS + h] = f2;
    __syncthreads();
    a->max = most, a->sum = __fmaf_rn(b->sum, f2, a->sum * f);
#pragma unroll
    for (int i = 0; i < 32; i++)
        a->o[i] = __fmaf_rn(b->o[i], j->factor[HEADS + half * 8 + i / 4],
                            a->o[i] * j->factor[half * 8 + i / 4]);
}

/* Stores the lane's outputs into rows of kl values, head h of the block `step` floats after head 0; times
 * 1 / l where `finish`. */
DEVICE void store(const struct job *j, const struct result *r, bool finish, float *to)
{
    const int col = (int)warp_id() * 64 + (int)(threadIdx.x & 15) * 4, half = (int)lane_id() / 16;
    const int64_t kl = j->a->kl;
    if ((threadIdx.x & 15) == 0) j->factor[threadIdx.x / 16] = 1.f / r->sum;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 32; i++) {
        const int h = half * 8 + i / 4, c = col + i % 4;
        if (h < j->heads && c < kl) to[h * kl + c] = finish ? r->o[i] * j->factor[h] : r->o[i];
    }
}

DEVICE void load_queries(const struct job *j)
{
    const int64_t width = j->a->cache.width;
    const int ld = MOE_CUDA_ATTEND_QUERY((int)width);
    const float *q = j->a->q + (j->t * j->a->heads + j->h0) * width;
    for (int i = (int)threadIdx.x; i < HEADS * ld; i += THREADS) {
        const int h = i / ld, c = i % ld;
        j->query[i] = h < j->heads && c < width ? q[h * width + c] : 0;
    }
}

KERNEL(moe_cuda_attend, MOE_CUDA_ATTEND_THREADS) (const struct moe_cuda_attend a)
{
    DYNAMIC_SHARED(float, memory);
    const int64_t t = blockIdx.z, rows = (int64_t)a.cache.pos[t] + 1;
    const int64_t chunk = a.split ? (int64_t)blockIdx.x : 0;
    const int64_t first = chunk * MOE_CHUNK;
    struct job j;
    struct result all = { 0, 0, { 0 } }, next;

    if (first >= rows) return;
    j.a = &a, j.t = t, j.begin = first;
    j.end = a.split && rows - first > MOE_CHUNK ? first + MOE_CHUNK : rows;
    j.h0 = (int)blockIdx.y * HEADS;
    j.heads = a.heads - j.h0 < HEADS ? (int)a.heads - j.h0 : HEADS;
    j.keys = (int)((a.cache.width + COLS - 1) / COLS), j.pieces = j.keys + MOE_PAGE / ROWS;
    j.whole = a.cache.width % 4 == 0 && a.cache.page_step % 4 == 0;
    j.ring = memory, j.query = memory + STAGES * (PIECE / 4);
    j.score = j.query + HEADS * MOE_CUDA_ATTEND_QUERY((int)a.cache.width);
    j.factor = j.score + HEADS * SCORES;
    load_queries(&j);
    for (int i = 0; i < STAGES - 1; i++) {
        fetch_piece(&j, i);
        cp_async_commit();
    }

    for (int64_t at = j.begin; at < j.end; at += MOE_CHUNK) {
        const int64_t end = j.end - at < MOE_CHUNK ? j.end : at + MOE_CHUNK;
        attend_chunk(&j, at, end, (at - j.begin) / MOE_PAGE * j.pieces, &next);
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

KERNEL(moe_cuda_attend_merge, 128) (const struct moe_cuda_attend a)
{
    const int64_t h = blockIdx.x, t = blockIdx.y, chunks = ((int64_t)a.cache.pos[t] + MOE_CHUNK) / MOE_CHUNK;
    const int64_t step = a.heads * a.kl, row = t * a.chunks * a.heads + h;
    for (int64_t i = threadIdx.x; i < a.kl; i += blockDim.x) {
        const float *part = a.part + row * a.kl + i;
        float max = a.max[row], sum = a.sum[row], o = part[0];
        for (int64_t c = 1; c < chunks; c++) {
            const float max2 = a.max[row + c * a.heads], sum2 = a.sum[row + c * a.heads];
            const float most = max2 > max ? max2 : max, f = exp_f32(max - most), f2 = exp_f32(max2 - most);
            o = __fmaf_rn(part[c * step], f2, o * f);
            sum = __fmaf_rn(sum2, f2, sum * f);
            max = most;
        }
        a.out[(t * a.heads + h) * a.kl + i] = o * (1.f / sum);
    }
}
