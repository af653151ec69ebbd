/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/attend-fast.cu - fast attention over pages of the latent cache.
 *
 * PICTURE.  A block of eight warps has 16, 32 or 64 heads of a token, that is 1, 2 or 4 tiles of 16, and goes
 * through the rows of a chunk page by page.  A page lies in shared memory once, as bfloat16, and is read
 * twice: as keys, whose rows are the columns of the tensor cores' b; and as values, through ldmatrix.trans.
 *
 *   Scores: each tile has 8 / tiles warps, which share the page's rows.
 *   Exponentials: in the registers that the scores are in.  Warps of a tile exchange their largest scores
 *   through shared memory, and leave the exponentials there as bfloat16.
 *   Values: a warp has one tile (two of four) and each fourth or eighth group of 16 columns, whose outputs
 *   stay in registers from the first page to the last.
 *
 * Latents of bfloat16 are copied while the page before them is computed.  Latents of float32 become two
 * bfloat16 each on their way, which take the place of the second page. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/attend-fast.h"
#include "kernels/cuda/attend-merge.h"

enum { THREADS = MOE_CUDA_ATTEND_FAST_THREADS };

/* What a block knows while it goes through rows of a token. */
struct job {
    const struct moe_cuda_attend *a;
    int tiles, terms;              /* constants: 1, 2 or 4; 1 of bfloat16, 2 of float32 */
    const int32_t *table;          /* the token's block table */
    int64_t end;                   /* of the chunk's rows */
    int pitch;                     /* bytes of a row in shared memory */
    int heads;                     /* of the block */
    unsigned char *query, *keys, *weight; /* shared memory: [terms][16 tiles] rows, [2][64] rows,
                                             [terms][16 tiles][64] exponentials */
    float *most, *sums, *factor;   /* [8 / tiles][16 tiles], [8][16 tiles], [16 tiles] */
};

/* Where the 16 bytes number `piece` of a row lie, counted from the first row: eight rows that ldmatrix reads
 * use all banks. */
DEVICE int piece_at(int pitch, int row, int piece) { return row * pitch + ((piece ^ (row & 7)) << 4); }

/* ---- two terms ---- */

DEVICE float low_bf16(uint32_t two) { return __uint_as_float(two << 16); }
DEVICE float high_bf16(uint32_t two) { return __uint_as_float(two & 0xffff0000u); }

/* The second terms of two values whose first are `one`. */
DEVICE uint32_t second_terms(float low, float high, uint32_t one)
{
    return bf16x2_from_f32(low - low_bf16(one), high - high_bf16(one));
}

/* Four values as bfloat16 at `to` and, with two terms, the second ones `apart` bytes behind. */
DEVICE void put_terms(const float v[4], int terms, unsigned char *to, int apart)
{
    const uint32_t low = bf16x2_from_f32(v[0], v[1]), high = bf16x2_from_f32(v[2], v[3]);
    *(uint2 *)to = make_uint2(low, high);
    if (terms == 2)
        *(uint2 *)(to + apart) = make_uint2(second_terms(v[0], v[1], low), second_terms(v[2], v[3], high));
}

/* Four values of a row of floats, of which `there` exist; the others are 0.  whole: rows are made of whole
 * pieces of 16 bytes. */
DEVICE void get_floats(const float *from, int there, bool whole, float v[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = 0;
    if (whole && there > 0) {
        const float4 x = *(const float4 *)from;
        v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
    } else
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < there) v[i] = from[i];
}

/* `n` rows of floats as terms, `rows` of which exist. */
DEVICE void convert(const struct job *j, const float *from, int rows, int n, unsigned char *to)
{
    const int width = (int)j->a->cache.width, quads = j->pitch / 8;
    const bool whole = width % 4 == 0;
    int r = (int)threadIdx.x / quads, c = (int)threadIdx.x % quads;
#pragma unroll 1
    while (r < n) {
        float v[4];
        get_floats(from + (int64_t)r * width + 4 * c, r < rows ? width - 4 * c : 0, whole, v);
        put_terms(v, j->terms, to + piece_at(j->pitch, r, c / 2) + c % 2 * 8, n * j->pitch);
        r += THREADS / quads, c += THREADS % quads;
        if (c >= quads) c -= quads, r++;
    }
}

/* ---- pages ---- */

/* The number of rows of the page that begins at `at`; not above 0: there is none. */
DEVICE int rows_at(const struct job *j, int64_t at)
{
    return j->end - at < MOE_PAGE ? (int)(j->end - at) : (int)MOE_PAGE;
}

/* Where the values of a page of latents begin, counted from the cache's first. */
DEVICE int64_t page_at(const struct job *j, int64_t at)
{
    return j->table[at / MOE_PAGE] * j->a->cache.page_step;
}

/* Asks for a page of bfloat16; rows and columns that do not exist become 0. */
DEVICE void fetch(const struct job *j, int64_t at, unsigned char *to)
{
    const int width = (int)j->a->cache.width, pieces = j->pitch / 16, rows = rows_at(j, at);
    const uint16_t *page = (const uint16_t *)j->a->cache.rows;
    int r = (int)threadIdx.x / pieces, c = (int)threadIdx.x % pieces;
    if (rows <= 0) return;
    page += page_at(j, at);
#pragma unroll 1
    while (r < MOE_PAGE) {
        const uint16_t *from = page + (int64_t)r * width + 8 * c;
        unsigned char *p = to + piece_at(j->pitch, r, c);
        if (width % 8 == 0) cp_async_16_or_zero(shared_address(p), from, r < rows && 8 * c < width);
        else
#pragma unroll 1
            for (int i = 0; i < 8; i++)
                ((uint16_t *)p)[i] = r < rows && 8 * c + i < width ? from[i] : (uint16_t)0;
        r += THREADS / pieces, c += THREADS % pieces;
        if (c >= pieces) c -= pieces, r++;
    }
}

/* Waits for page `at`, number i of the chunk, of which all threads then see all rows; asks for the next. */
DEVICE shared_at next_page(const struct job *j, int64_t at, int i)
{
    const int bytes = MOE_PAGE * j->pitch;
    if (j->terms == 2) {
        __syncthreads(); /* nobody reads the page before it any more */
        convert(j, j->a->cache.rows + page_at(j, at), rows_at(j, at), MOE_PAGE, j->keys);
        __syncthreads();
        return shared_address(j->keys);
    }
    cp_async_wait(0);
    __syncthreads();
    fetch(j, at + MOE_PAGE, j->keys + (i + 1) % 2 * bytes);
    cp_async_commit();
    return shared_address(j->keys + i % 2 * bytes);
}

/* ---- fragments ---- */

/* a of 16 heads times 16 columns, of which the first is in piece `piece`. */
DEVICE void load_a(shared_at rows, int pitch, int row, int piece, uint32_t a[4])
{
    const int l = (int)lane_id();
    ldmatrix_x4_at(a, rows + piece_at(pitch, row + l % 16, piece + l / 16));
}

/* b of 16 columns times 8 n rows of keys, n being a constant: 1, 2 or 4. */
DEVICE void load_keys(shared_at rows, int pitch, int row, int piece, int n, uint32_t b[8])
{
    const int l = (int)lane_id(), at = piece + l / 8 % 2;
    if (n == 1) ldmatrix_x2_at(b, rows + piece_at(pitch, row + l % 8, at));
    else
#pragma unroll
        for (int i = 0; i < n / 2; i++)
            ldmatrix_x4_at(b + 4 * i, rows + piece_at(pitch, row + 16 * i + l / 16 * 8 + l % 8, at));
}

/* b of 16 rows times 16 columns of values, the first of which is in piece `piece`. */
DEVICE void load_values(shared_at rows, int pitch, int row, int piece, uint32_t b[4])
{
    const int l = (int)lane_id();
    ldmatrix_x4_trans_at(b, rows + piece_at(pitch, row + l % 16, piece + l / 16));
}

/* ---- scores ---- */

/* Scores of the warp's tile for its n = tiles times eight rows of the page, before the scale. */
DEVICE void make_scores(const struct job *j, shared_at keys, float s[16])
{
    const int n = j->tiles, pitch = j->pitch, parts = 8 / j->tiles;
    const int tile = (int)warp_id() / parts * 16, row = (int)warp_id() % parts * 8 * n;
    const shared_at query = shared_address(j->query);
    const shared_at query2 = query + 16 * j->tiles * pitch, keys2 = keys + MOE_PAGE * pitch;
#pragma unroll
    for (int i = 0; i < 4 * n; i++) s[i] = 0;
#pragma unroll 1
    for (int group = 0; group < pitch / 16; group += 8) {
        float c[16];
#pragma unroll
        for (int i = 0; i < 4 * n; i++) c[i] = 0;
#pragma unroll
        for (int k = 0; k < 8; k += 2) {
            uint32_t q[4], b[8], q2[4], b2[8];
            load_a(query, pitch, tile, group + k, q);
            load_keys(keys, pitch, row, group + k, n, b);
            if (j->terms == 2) {
                load_a(query2, pitch, tile, group + k, q2);
                load_keys(keys2, pitch, row, group + k, n, b2);
            }
#pragma unroll
            for (int i = 0; i < n; i++) {
                if (j->terms == 2) mma_16816_bf16(c + 4 * i, q, b2 + 2 * i);
                if (j->terms == 2) mma_16816_bf16(c + 4 * i, q2, b + 2 * i);
                mma_16816_bf16(c + 4 * i, q, b + 2 * i);
            }
        }
#pragma unroll
        for (int i = 0; i < 4 * n; i++) s[i] = s[i] + c[i];
    }
}

/* ---- exponentials ---- */

/* Scales the scores, and leaves in shared memory the largest of each head among the warp's rows. */
DEVICE void find_most(const struct job *j, int rows, float s[16])
{
    const int n = j->tiles, parts = 8 / j->tiles, l = (int)lane_id();
    const int tile = (int)warp_id() / parts, part = (int)warp_id() % parts;
    float m[2] = { __uint_as_float(0xff800000u), __uint_as_float(0xff800000u) };
#pragma unroll
    for (int i = 0; i < 4 * n; i++) {
        const int row = part * 8 * n + i / 4 * 8 + l % 4 * 2 + i % 2;
        s[i] = j->a->scale * s[i];
        if (row < rows && s[i] > m[i / 2 % 2]) m[i / 2 % 2] = s[i];
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (unsigned bit = 1; bit < 4; bit *= 2) {
            const float other = __shfl_xor_sync(0xffffffffu, m[i], bit);
            m[i] = other > m[i] ? other : m[i];
        }
        if (l % 4 == 0) j->most[part * 16 * n + tile * 16 + i * 8 + l / 4] = m[i];
    }
}

/* Turns the scores into exponentials under the new maximum; max: of the lane's two heads.  The exponentials,
 * their sums and the factor of all that was summed before go to shared memory. */
DEVICE void weigh(const struct job *j, int rows, float s[16], float max[2])
{
    const int n = j->tiles, parts = 8 / j->tiles, l = (int)lane_id();
    const int tile = (int)warp_id() / parts, part = (int)warp_id() % parts;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int head = tile * 16 + i * 8 + l / 4;
        float most = max[i];
#pragma unroll
        for (int p = 0; p < parts; p++) most = max_f32(j->most[p * 16 * n + head], most);
        if (part == 0 && l % 4 == 0) j->factor[head] = exp_f32(max[i] - most);
        max[i] = most;
#pragma unroll
        for (int k = 0; k < n; k++) {
            const int eight = part * n + k, row = eight * 8 + l % 4 * 2;
            float e0 = exp_f32(s[4 * k + 2 * i] - most), e1 = exp_f32(s[4 * k + 2 * i + 1] - most);
            if (row >= rows) e0 = 0;
            if (row + 1 >= rows) e1 = 0;
            const uint32_t one = bf16x2_from_f32(e0, e1);
            unsigned char *to = j->weight + piece_at(2 * MOE_PAGE, head, eight) + l % 4 * 4;
            float low = low_bf16(one), high = high_bf16(one);
            *(uint32_t *)to = one;
            if (j->terms == 2) {
                const uint32_t two = second_terms(e0, e1, one);
                *(uint32_t *)(to + 16 * n * 2 * MOE_PAGE) = two;
                low = low + low_bf16(two), high = high + high_bf16(two);
            }
            float sum = low + high;
            sum = sum + __shfl_xor_sync(0xffffffffu, sum, 1);
            sum = sum + __shfl_xor_sync(0xffffffffu, sum, 2);
            if (l % 4 == 0) j->sums[eight * 16 * n + head] = sum;
        }
    }
}

/* l of a head after the page at hand. */
DEVICE float add_sums(const struct job *j, int head, float l)
{
    float total = j->sums[head];
#pragma unroll
    for (int i = 1; i < 8; i++) total = total + j->sums[i * 16 * j->tiles + head];
    return __fmaf_rn(l, j->factor[head], total);
}

/* ---- outputs ---- */

/* How outputs are divided among the eight warps: so many tiles a warp, and so many warps for the columns. */
#define TILES_OF(j) ((j)->tiles == 4 ? 2 : 1)
#define PARTS_OF(j) ((j)->tiles == 1 ? 8 : 4)
/* The warp's first head, and where its i-th group of 16 columns begins. */
DEVICE int first_head(const struct job *j) { return (int)warp_id() / PARTS_OF(j) * TILES_OF(j) * 16; }
DEVICE int column_of(const struct job *j, int i)
{
    return (i * PARTS_OF(j) + (int)warp_id() % PARTS_OF(j)) * 16;
}

/* c [tile][2][4] = the exponentials of the warp's tiles times 16 columns of the page.  e: the exponentials of
 * all terms, as a. */
DEVICE void multiply_values(const struct job *j, shared_at keys, int piece, const uint32_t e[32],
                            float c[16])
{
    const int tiles = TILES_OF(j);
#pragma unroll
    for (int i = 0; i < 8 * tiles; i++) c[i] = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        uint32_t v[4], v2[4];
        load_values(keys, j->pitch, 16 * k, piece, v);
        if (j->terms == 2) load_values(keys + MOE_PAGE * j->pitch, j->pitch, 16 * k, piece, v2);
#pragma unroll
        for (int i = 0; i < 2 * tiles; i++) {
            const uint32_t *e1 = e + (i / 2 * 4 + k) * 4;
            if (j->terms == 2) mma_16816_bf16(c + 4 * i, e1, v2 + i % 2 * 2);
            if (j->terms == 2) mma_16816_bf16(c + 4 * i, e1 + 16 * tiles, v + i % 2 * 2);
            mma_16816_bf16(c + 4 * i, e1, v + i % 2 * 2);
        }
    }
}

/* o of the lane: times the factor, and the page at hand.  o[((i * tiles + tile) * 2 + half) * 4 + ...] is the
 * fragment of group i of the columns, of the half of it. */
DEVICE void add_values(const struct job *j, shared_at keys, float *o)
{
    const shared_at weight = shared_address(j->weight);
    const int tiles = TILES_OF(j), head = first_head(j), l = (int)lane_id();
    uint32_t e[32];
    float f[4];
#pragma unroll
    for (int i = 0; i < tiles; i++) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            load_a(weight, 2 * MOE_PAGE, head + 16 * i, 2 * k, e + (i * 4 + k) * 4);
            if (j->terms == 2)
                load_a(weight + 16 * j->tiles * 2 * MOE_PAGE, 2 * MOE_PAGE, head + 16 * i, 2 * k,
                       e + ((tiles + i) * 4 + k) * 4);
        }
        f[2 * i] = j->factor[head + 16 * i + l / 4], f[2 * i + 1] = j->factor[head + 16 * i + 8 + l / 4];
    }
#pragma unroll
    for (int i = 0; i < 32 / PARTS_OF(j); i++) {
        float c[16];
        if (column_of(j, i) >= j->a->kl) continue;
        multiply_values(j, keys, column_of(j, (int)computed_here((uint32_t)i)) / 8, e, c);
#pragma unroll
        for (int k = 0; k < 8 * tiles; k++) {
            float *at = o + i * 8 * tiles + k;
            *at = __fmaf_rn(*at, f[k / 8 * 2 + k / 2 % 2], c[k]);
        }
    }
}

/* Stores the lane's outputs, times the head's factor in shared memory, into rows of kl values, the block's
 * first head first. */
DEVICE void store(const struct job *j, const float *o, float *to)
{
    const int tiles = TILES_OF(j), l = (int)lane_id(), kl = (int)j->a->kl;
#pragma unroll
    for (int k = 0; k < 2 * tiles; k++) {
        const int head = first_head(j) + k * 8 + l / 4;
        float *row = to + head * kl;
        const float f = j->factor[head];
        if (head >= j->heads) continue;
#pragma unroll
        for (int i = 0; i < 32 / PARTS_OF(j); i++)
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const float *v = o + i * 8 * tiles + k / 2 * 8 + n * 4 + k % 2 * 2;
                const int c = column_of(j, i) + n * 8 + l % 4 * 2;
                if (c + 1 < kl && kl % 2 == 0) *(float2 *)(row + c) = make_float2(v[0] * f, v[1] * f);
                else {
                    if (c < kl) row[c] = v[0] * f;
                    if (c + 1 < kl) row[c + 1] = v[1] * f;
                }
            }
    }
}

/* ---- the whole of a block's work ---- */

/* The rows [at, j->end) of a chunk.  max: of the lane's two heads; l: of the head that has the thread's
 * number. */
DEVICE void attend_rows(const struct job *j, int64_t at, float *o, float max[2], float *l)
{
    const bool scores = (int)warp_id() / (8 / j->tiles) * 16 < j->heads, outputs = first_head(j) < j->heads;
#pragma unroll
    for (int i = 0; i < 256 / PARTS_OF(j) * TILES_OF(j); i++) o[i] = 0;
    max[0] = max[1] = __uint_as_float(0xff800000u), *l = 0;
    if (j->terms == 1) fetch(j, at, j->keys);
    cp_async_commit();
#pragma unroll 1
    for (int i = 0; at < j->end; at += MOE_PAGE, i++) {
        const shared_at keys = next_page(j, at, i);
        const int rows = rows_at(j, at);
        float s[16];
        if (scores) make_scores(j, keys, s), find_most(j, rows, s);
        __syncthreads();
        if (scores) weigh(j, rows, s, max);
        __syncthreads();
        if ((int)threadIdx.x < j->heads) *l = add_sums(j, (int)threadIdx.x, *l);
        if (outputs) add_values(j, keys, o);
    }
}

DEVICE void divide_shared(struct job *j, unsigned char *memory)
{
    const int heads = 16 * j->tiles;
    j->query = memory, j->keys = j->query + j->terms * heads * j->pitch;
    j->weight = j->keys + 2 * MOE_PAGE * j->pitch;
    j->most = (float *)(j->weight + j->terms * heads * 2 * MOE_PAGE);
    j->sums = j->most + 128, j->factor = j->sums + 8 * heads;
}

DEVICE void attend(const struct moe_cuda_attend a, int tiles, int terms)
{
    DYNAMIC_SHARED(unsigned char, memory);
    const int64_t t = blockIdx.z, rows = (int64_t)a.cache.pos[t] + 1, chunk = blockIdx.y;
    const int64_t length = moe_cuda_attend_fast_chunk(rows), h0 = (int64_t)blockIdx.x * 16 * tiles;
    const bool whole = rows <= length; /* there is one chunk */
    struct job j;
    float o[128], max[2], l;

    if (chunk * length >= rows) return;
    j.a = &a, j.tiles = tiles, j.terms = terms;
    j.table = a.cache.page + a.cache.segment[t] * a.cache.table;
    j.end = min(rows, (chunk + 1) * length);
    j.pitch = moe_cuda_attend_fast_pitch(a.cache.width);
    j.heads = (int)min(a.heads - h0, (int64_t)16 * tiles);
    divide_shared(&j, memory);
    convert(&j, a.q + (t * a.heads + h0) * a.cache.width, j.heads, 16 * tiles, j.query);
    attend_rows(&j, chunk * length, o, max, &l);

    const int64_t slot = (t * a.chunks + chunk) * a.heads + h0;
    const int parts = 8 / tiles, head = (int)warp_id() / parts * 16 + (int)lane_id() / 4;
    if (!whole && (int)warp_id() % parts == 0 && lane_id() % 4 == 0) {
        if (head < j.heads) a.max[slot + head] = max[0];
        if (head + 8 < j.heads) a.max[slot + head + 8] = max[1];
    }
    if (!whole && (int)threadIdx.x < j.heads) a.sum[slot + threadIdx.x] = l;
    __syncthreads(); /* nobody reads factors any more */
    if ((int)threadIdx.x < 16 * tiles) j.factor[threadIdx.x] = whole ? 1.f / l : 1.f;
    __syncthreads();
    if (first_head(&j) < j.heads)
        store(&j, o, whole ? a.out + (t * a.heads + h0) * a.kl : a.part + slot * a.kl);
}

KERNEL(moe_cuda_attend_fast_32, THREADS) (const struct moe_cuda_attend a) { attend(a, 2, 2); }
KERNEL(moe_cuda_attend_fast_16, THREADS) (const struct moe_cuda_attend a) { attend(a, 1, 2); }
KERNEL(moe_cuda_attend_bf16_64, THREADS) (const struct moe_cuda_attend a) { attend(a, 4, 1); }
KERNEL(moe_cuda_attend_bf16_16, THREADS) (const struct moe_cuda_attend a) { attend(a, 1, 1); }

KERNEL(moe_cuda_attend_fast_merge, 128) (const struct moe_cuda_attend a)
{
    const int64_t chunks = moe_cuda_attend_fast_chunks((int64_t)a.cache.pos[blockIdx.y] + 1);
    if (chunks > 1) merge_chunks(&a, blockIdx.x, blockIdx.y, chunks);
}
