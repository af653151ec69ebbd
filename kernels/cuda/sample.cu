/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/sample.cu - sampling without sorting.
 *
 * The RANK of an id is a 64-bit number: its upper half orders logits, its lower half is larger for a lower
 * id.  So ranks are all different, and a set of ids that top_k or top_p leaves is the ids of at least some
 * rank.  That rank is found bit by bit, from the highest, by asking what the ids of at least a rank weigh
 * (or how many they are); and then the token, by asking what the ids below an id weigh.
 *
 * A question goes to all threads of the block, and is soon answered where the ids in question are few.  As a
 * rule they are: sample_weigh has counted each chunk's ids by how far they are below the largest logit, and
 * those near enough to it are copied into shared memory, if they fit.  If not, every question reads the
 * row. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/sample.h"

enum { CHUNK = MOE_CUDA_SAMPLE_CHUNK, PARTS = MOE_CUDA_SAMPLE_PARTS, CHUNK_THREADS = 256, PICK_THREADS = 512,
       LIST = CHUNK / 2, AHEAD = 8, CHUNK_BITS = 12, ID_BITS = 23 };
static_assert(CHUNK == 1 << CHUNK_BITS, "the ids of a chunk differ in this many bits");

#define WARP 0xffffffffu

/* ---- ranks and weights ---- */

/* Both zeros are equal, and a NaN is below all else. */
DEVICE uint64_t rank_of(float x, int32_t id)
{
    const uint32_t u = __float_as_uint(x + 0.f), key = u & 0x80000000u ? ~u : u | 0x80000000u;
    return (uint64_t)(nan_f32(x) ? 0 : key) << 32 | (0xffffffffu - (uint32_t)id);
}
DEVICE int32_t id_of(uint64_t rank) { return (int32_t)(0xffffffffu - (uint32_t)rank); }

/* What an id with this logit weighs, where `most` is the largest logit. */
DEVICE uint64_t weight_of(const struct moe_cuda_drawing *d, float logit, float most)
{
    const float e = exp_f32(__fdiv_rn(logit - most, d->temperature));
    return e < d->min_p || nan_f32(e) ? 0 : (uint64_t)(e * 0x1p40f);
}

/* The part of the ids that are this far below the largest logit; a farther one has a higher part. */
DEVICE int part_of(float below)
{
    int p = 0;
    p += below >= 1.f;
    p += below >= 2.f;
    p += below >= 4.f;
    p += below >= 6.f;
    p += below >= 8.f;
    p += below >= 12.f;
    p += below >= 16.f;
    return p;
}

/* Whether the token is drawn at all, and not just the largest logit's. */
DEVICE bool is_drawn(const struct moe_cuda_drawing *d, float most)
{
    return d->temperature > 0.f && finite_f32(most);
}
DEVICE bool cuts_by_rank(const struct moe_cuda_drawing *d, int64_t n) { return d->top_k > 0 && d->top_k < n; }
DEVICE bool cuts_by_weight(const struct moe_cuda_drawing *d) { return d->top_p > 0.f && d->top_p < 1.f; }

/* ---- sums over a block ---- */

/* The sum over the warp, in each lane. */
DEVICE uint64_t warp_sum(uint64_t v)
{
    for (int lane = 16; lane; lane /= 2) v += (uint64_t)__shfl_xor_sync(WARP, (unsigned long long)v, lane);
    return v;
}
DEVICE uint64_t warp_max(uint64_t v)
{
    for (int lane = 16; lane; lane /= 2) {
        const uint64_t other = (uint64_t)__shfl_xor_sync(WARP, (unsigned long long)v, lane);
        if (other > v) v = other;
    }
    return v;
}
/* The largest over the block, in every thread.  scratch: one for each warp. */
DEVICE uint64_t block_max(uint64_t v, uint64_t *scratch)
{
    v = warp_max(v);
    __syncthreads();
    if (lane_id() == 0) scratch[warp_id()] = v;
    __syncthreads();
    for (unsigned w = 0; w < blockDim.x / 32; w++)
        if (scratch[w] > v) v = scratch[w];
    return v;
}

/* The largest rank of a row, from those of its chunks. */
DEVICE uint64_t row_max(const uint64_t *most, int64_t chunks, uint64_t *scratch)
{
    uint64_t best = 0;
    for (int64_t c = threadIdx.x; c < chunks; c += blockDim.x)
        if (most[c] > best) best = most[c];
    return block_max(best, scratch);
}

/* ---- chunks ---- */

KERNEL(moe_cuda_sample_max, 256) (const struct moe_cuda_sample a)
{
    SHARED(uint64_t, scratch, CHUNK_THREADS / 32);
    const int64_t chunks = (a.n + CHUNK - 1) / CHUNK, row = blockIdx.x / chunks,
                  from = blockIdx.x % chunks * CHUNK;
    const float *x = a.logits + row * a.ld;
    uint64_t best = 0;
    for (int64_t i = from + threadIdx.x; i < from + CHUNK && i < a.n; i += CHUNK_THREADS) {
        const uint64_t rank = rank_of(x[i], (int32_t)i);
        if (rank > best) best = rank;
    }
    best = block_max(best, scratch);
    if (threadIdx.x == 0) a.most[blockIdx.x] = best;
}

/* A thread adds up the number of ids in the upper 12 bits of a sum, and what they weigh in the others: a warp
 * has 512 ids of a chunk, of at most 2^40 each. */
enum { COUNT_AT = 52 };

KERNEL(moe_cuda_sample_weigh, 256) (const struct moe_cuda_sample a)
{
    SHARED(uint64_t, scratch, CHUNK_THREADS / 32);
    SHARED(uint64_t, sum, CHUNK_THREADS / 32 * PARTS);
    const int64_t chunks = (a.n + CHUNK - 1) / CHUNK, row = blockIdx.x / chunks,
                  from = blockIdx.x % chunks * CHUNK;
    const float *x = a.logits + row * a.ld;
    const struct moe_cuda_drawing d = a.drawing[row];
    const float most = x[id_of(row_max(a.most + row * chunks, chunks, scratch))];
    if (!is_drawn(&d, most)) return;
    uint64_t part[PARTS] = { 0 };
    for (int64_t i = from + threadIdx.x; i < from + CHUNK && i < a.n; i += CHUNK_THREADS) {
        const int p = part_of(most - x[i]);
        const uint64_t one = weight_of(&d, x[i], most) | (uint64_t)1 << COUNT_AT;
        for (int k = 0; k < PARTS; k++) part[k] += p == k ? one : 0;
    }
    for (int k = 0; k < PARTS; k++) {
        const uint64_t s = warp_sum(part[k]);
        if (lane_id() == 0) sum[warp_id() * PARTS + k] = s;
    }
    __syncthreads();
    if (threadIdx.x >= PARTS) return;
    uint64_t weight = 0;
    uint32_t count = 0;
    for (int w = 0; w < CHUNK_THREADS / 32; w++) {
        const uint64_t s = sum[w * PARTS + (int)threadIdx.x];
        weight += s & (((uint64_t)1 << COUNT_AT) - 1);
        count += (uint32_t)(s >> COUNT_AT);
    }
    a.weight[(int64_t)blockIdx.x * PARTS + threadIdx.x] = weight;
    a.count[(int64_t)blockIdx.x * PARTS + threadIdx.x] = count;
}

/* ---- questions ---- */

/* The ids that questions are about.  With `rank` they are any ids, n of them, in shared memory with ranks
 * and weights.  Else they are n ids from `first` on, in order: with `weight` their weights are in shared
 * memory, and no rank counts; without, ranks and weights are computed from the row at each question. */
struct ids {
    const struct moe_cuda_drawing *d;
    const float *x;                     /* the row */
    float most;
    int32_t first, n;
    int bits;                           /* ids are `first` and what these low bits hold */
    uint64_t *rank, *weight;
    uint64_t *room;                     /* [2 * LIST], in shared memory, for ranks and weights */
    uint64_t *scratch;                  /* [2, PICK_THREADS / 32] */
    int turn;                           /* which half of scratch is next */
};

/* The sum over the block, in every thread.  There is one barrier a sum: the next one uses the other half of
 * scratch. */
DEVICE uint64_t block_sum(struct ids *s, uint64_t v)
{
    uint64_t *scratch = s->scratch + s->turn * (PICK_THREADS / 32);
    s->turn ^= 1;
    v = warp_sum(v);
    if (lane_id() == 0) scratch[warp_id()] = v;
    __syncthreads();
    v = 0;
    for (int w = 0; w < PICK_THREADS / 32; w++) v += scratch[w];
    return v;
}

/* What the ids below `limit` weigh that have at least this rank; with `ids` how many they are. */
DEVICE uint64_t sum_of(struct ids *s, bool ids, uint64_t rank, int64_t limit)
{
    uint64_t sum = 0;
    for (int i = (int)threadIdx.x; i < s->n; i += PICK_THREADS) {
        int32_t id = s->first + i;
        uint64_t r = ~(uint64_t)0;
        if (s->rank) r = s->rank[i], id = id_of(r);
        else if (!s->weight) r = rank_of(s->x[id], id);
        if (r < rank || id >= limit) continue;
        sum += ids ? 1 : s->weight ? s->weight[i] : weight_of(s->d, s->x[id], s->most);
    }
    return block_sum(s, sum);
}

/* The highest rank for which the ids of at least that rank come to `need` (at least 1, at most all). */
DEVICE uint64_t rank_for(struct ids *s, bool ids, uint64_t need)
{
    const int64_t any = (int64_t)1 << 31;
    uint64_t rank = 0;
    for (int bit = 63; bit >= 32; bit--) {
        const uint64_t higher = rank | (uint64_t)1 << bit;
        if (sum_of(s, ids, higher, any) >= need) rank = higher;
    }
    const uint64_t equal = sum_of(s, true, rank, any) - sum_of(s, true, rank + ((uint64_t)1 << 32), any);
    if (equal == 1) return rank; /* one id alone has this logit */
    rank |= 0xffffffffu << ID_BITS;
    for (int bit = ID_BITS - 1; bit >= 0; bit--) {
        const uint64_t higher = rank | (uint64_t)1 << bit;
        if (sum_of(s, ids, higher, any) >= need) rank = higher;
    }
    return rank;
}

/* The first id of at least this rank of which those up to it weigh more than `at`; that is less than all. */
DEVICE int32_t id_at(struct ids *s, uint64_t rank, uint64_t at, int32_t below)
{
    int32_t id = s->first;
    for (int bit = s->bits - 1; bit >= 0; bit--) {
        const int32_t higher = id | 1 << bit;
        if (higher < below && sum_of(s, false, rank, higher) <= at) id = higher;
    }
    return id;
}

/* ---- the token ---- */

/* Copies the ids of parts 0 to `part` into shared memory, in any order, if they fit.  at: a counter. */
DEVICE void list_ids(struct ids *s, int part, uint64_t count, uint32_t *at)
{
    if (count > LIST) return;
    if (threadIdx.x == 0) *at = 0;
    __syncthreads();
    for (int32_t from = (int32_t)threadIdx.x; from < s->n; from += AHEAD * PICK_THREADS) {
        float x[AHEAD]; /* loads that are on their way at the same time */
        for (int k = 0; k < AHEAD; k++) {
            const int32_t i = from + k * PICK_THREADS;
            x[k] = i < s->n ? s->x[i] : __uint_as_float(0xff800000u);
        }
        for (int k = 0; k < AHEAD; k++) {
            const int32_t i = from + k * PICK_THREADS;
            if (i >= s->n || part_of(s->most - x[k]) > part) continue;
            const uint32_t to = atomicAdd(at, 1u);
            s->room[to] = rank_of(x[k], i);
            s->room[LIST + to] = weight_of(s->d, x[k], s->most);
        }
    }
    __syncthreads();
    s->n = (int32_t)count;
    s->rank = s->room;
    s->weight = s->room + LIST;
}

/* Adds up the parts of all chunks, a warp a part, into weight and count [PARTS] in shared memory. */
DEVICE void add_chunks(const struct moe_cuda_sample *a, int64_t row, int64_t chunks, uint64_t *weight,
                       uint64_t *count)
{
    const int64_t k = warp_id();
    uint64_t w = 0, c = 0;
    for (int64_t i = lane_id(); i < chunks && k < PARTS; i += 32) {
        w += a->weight[(row * chunks + i) * PARTS + k];
        c += a->count[(row * chunks + i) * PARTS + k];
    }
    w = warp_sum(w);
    c = warp_sum(c);
    if (lane_id() == 0 && k < PARTS) weight[k] = w, count[k] = c;
    __syncthreads();
}

/* The first part up to which all come to `need`, and the ids up to it. */
DEVICE int part_for(const uint64_t *what, uint64_t need, const uint64_t *count, uint64_t *ids)
{
    uint64_t sum = what[0];
    int p = 0;
    *ids = count[0];
    while (p < PARTS - 1 && sum < need) sum += what[++p], *ids += count[p];
    return p;
}

/* top_p, rounded down to a multiple of 2^-32, times total, rounded up. */
DEVICE uint64_t share_of(float top_p, uint64_t total)
{
    const uint64_t p = (uint64_t)((double)top_p * 0x1p32);
    return p * (total >> 32) + ((p * (total & 0xffffffffu) + 0xffffffffu) >> 32);
}

/* Lets only those ids stay that top_k and top_p leave: *rank becomes the least rank that stays.  Returns what
 * they weigh, or 0 where only the largest logit stays.  weight and count are those of all parts. */
DEVICE uint64_t cut(struct ids *s, const uint64_t *weight, const uint64_t *count, int64_t n, uint32_t *at,
                    uint64_t *rank)
{
    const int64_t any = (int64_t)1 << 31;
    uint64_t total = 0, ids = 0;
    for (int p = 0; p < PARTS; p++) total += weight[p];
    if (cuts_by_rank(s->d, n)) {
        const int part = part_for(count, (uint64_t)s->d->top_k, count, &ids);
        list_ids(s, part, ids, at);
        *rank = rank_for(s, true, (uint64_t)s->d->top_k);
        total = sum_of(s, false, *rank, any);
    }
    if (!cuts_by_weight(s->d)) return total;
    const uint64_t need = share_of(s->d->top_p, total);
    if (!need) return 0;
    if (!s->rank) {
        const int part = part_for(weight, need, count, &ids);
        list_ids(s, part, ids, at);
    }
    *rank = rank_for(s, false, need);
    return sum_of(s, false, *rank, any);
}

/* Without a cut: finds the chunk in which the token is, from what chunks weigh, and asks about that alone.
 * Returns what is left of `at` there. */
DEVICE uint64_t choose_chunk(struct ids *s, const uint64_t *weight, int64_t chunks, uint64_t at)
{
    const int32_t n = s->n;
    for (int64_t c = threadIdx.x; c < chunks; c += PICK_THREADS) {
        uint64_t sum = 0;
        for (int p = 0; p < PARTS; p++) sum += weight[c * PARTS + p];
        s->room[c] = sum;
    }
    __syncthreads();
    s->weight = s->room;
    s->n = (int32_t)chunks;
    const int32_t c = id_at(s, 0, at, (int32_t)chunks);
    at -= sum_of(s, false, 0, c); /* its barrier comes after all have read the weights of chunks */
    s->first = c * CHUNK;
    s->n = n - s->first < CHUNK ? n - s->first : CHUNK;
    s->bits = CHUNK_BITS;
    for (int32_t i = (int32_t)threadIdx.x; i < s->n; i += PICK_THREADS)
        s->room[i] = weight_of(s->d, s->x[s->first + i], s->most);
    __syncthreads();
    return at;
}

DEVICE int32_t draw_id(const struct moe_cuda_sample *a, struct ids *s, uint64_t best, uint64_t *parts,
                       uint32_t *counter)
{
    const int64_t chunks = (a->n + CHUNK - 1) / CHUNK, row = blockIdx.x;
    uint64_t rank = 0, total;
    add_chunks(a, row, chunks, parts, parts + PARTS);
    total = cut(s, parts, parts + PARTS, a->n, counter, &rank);
    if (!total) return id_of(best);
    uint64_t at = __umul64hi(s->d->draw, total);
    if (!rank) at = choose_chunk(s, a->weight + row * chunks * PARTS, chunks, at);
    return id_at(s, rank, at, (int32_t)a->n);
}

KERNEL(moe_cuda_sample_pick, 512) (const struct moe_cuda_sample a)
{
    SHARED(uint64_t, room, 2 * LIST);
    SHARED(uint64_t, scratch, 2 * PICK_THREADS / 32);
    SHARED(uint64_t, parts, 2 * PARTS);
    SHARED(uint32_t, counter, 1);
    const int64_t chunks = (a.n + CHUNK - 1) / CHUNK, row = blockIdx.x;
    const float *x = a.logits + row * a.ld;
    const struct moe_cuda_drawing d = a.drawing[row];
    const uint64_t best = row_max(a.most + row * chunks, chunks, scratch);
    struct ids s = { &d, x, x[id_of(best)], 0, (int32_t)a.n, ID_BITS, NULL, NULL, room, scratch, 0 };
    int32_t id = id_of(best);
    if (is_drawn(&d, s.most)) id = draw_id(&a, &s, best, parts, counter);
    if (threadIdx.x == 0) a.ids[row] = id;
}
