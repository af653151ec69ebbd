/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/group.cu - one block sorts the pairs by counting.  Each of its warps takes a stretch of the
 * pairs, and has counts of its own, so that pairs of an expert stay in order. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/group.h"
#include "kernels/cuda/scan.h"

enum { WARPS = MOE_CUDA_GROUP_WARPS, THREADS = 32 * WARPS };
enum { BUCKETS = MOE_CUDA_BUCKETS, ROWS = MOE_CUDA_ITEM_ROWS };

/* The expert of pair i; -1 where it is not resident. */
DEVICE int expert_of(const struct moe_cuda_group *a, int i)
{
    const int e = a->ids[i];
    if (e < 0 || e >= a->experts) return -1;
    return a->resident && !(a->resident[e / 32] >> e % 32 & 1) ? -1 : e;
}

/* The number of items that n pairs of an expert add to a list. */
DEVICE int items_of(int n, int bucket)
{
    const int rest = n % ROWS, last = rest == 0 ? -1 : rest <= 2 ? 0 : rest <= 4 ? 1 : 2;
    return (bucket == BUCKETS - 1 ? n / ROWS : 0) + (bucket == last);
}

/* Counts the pairs of this warp's stretch [i, end) by expert. */
DEVICE void count_pairs(const struct moe_cuda_group *a, int i, int end, int *count)
{
    bool lost = false;
    for (i += (int)lane_id(); i < end; i += 32) {
        const int e = expert_of(a, i);
        if (e >= 0) atomicAdd(&count[e], 1);
        else lost = true;
    }
    if (lost) atomicOr(a->word, a->bit);
}

/* Makes of the warps' counts where each warp's pairs of an expert begin, and fills in a->first.  Thread i has
 * the experts [e, end). */
DEVICE void place_experts(const struct moe_cuda_group *a, int e, int end, int *count, int *warp_sum)
{
    int mine = 0, all;
    for (int x = e; x < end; x++)
        for (int w = 0; w < WARPS; w++) mine += count[w * a->experts + x];
    int at = sum_before(mine, WARPS, warp_sum, &all);
    for (int x = e; x < end; x++) {
        a->first[x] = at;
        for (int w = 0; w < WARPS; w++) {
            const int n = count[w * a->experts + x];
            count[w * a->experts + x] = at;
            at += n;
        }
        count[WARPS * a->experts + x] = at - a->first[x];
    }
    if (threadIdx.x == 0) a->first[a->experts] = all;
}

/* Writes the items of experts [e, end).  total: the number of pairs of each expert. */
DEVICE void list_items(const struct moe_cuda_group *a, int e, int end, const int *total, int *warp_sum)
{
    for (int b = 0; b < BUCKETS; b++) {
        int mine = 0, all;
        for (int x = e; x < end; x++) mine += items_of(total[x], b);
        struct moe_cuda_item *to = a->items + (int64_t)b * a->pairs + sum_before(mine, WARPS, warp_sum, &all);
        for (int x = e; x < end; x++) {
            const int n = total[x], items = items_of(n, b), whole = b == BUCKETS - 1 ? n / ROWS : 0;
            for (int i = 0; i < items; i++, to++) {
                const int at = i < whole ? ROWS * i : n / ROWS * ROWS;
                to->expert = x, to->first = a->first[x] + at, to->count = min(ROWS, n - at), to->unused = 0;
            }
        }
        if (threadIdx.x == 0) a->item_count[b] = all;
    }
}

/* Writes the pairs of this warp's stretch to their places, 32 at a time; `at` has the next place of each
 * expert. */
DEVICE void sort_pairs(const struct moe_cuda_group *a, int begin, int end, int *at)
{
    const int lane = (int)lane_id();
    for (; begin < end; begin += 32) {
        const int i = begin + lane, e = i < end ? expert_of(a, i) : -1;
        int before = 0, same = 0;
        for (int l = 0; l < 32; l++) {
            const bool equal = __shfl_sync(0xffffffffu, e, l) == e;
            before += equal && l < lane, same += equal;
        }
        const int to = e >= 0 ? at[e] + before : 0;
        __syncwarp();
        if (e >= 0) {
            a->pair[to] = i, a->token[to] = i / a->k;
            if (before == same - 1) at[e] += same;
        }
        __syncwarp();
    }
}

KERNEL(moe_cuda_group, 256) (const struct moe_cuda_group a)
{
    DYNAMIC_SHARED(int, count); /* [WARPS + 1][experts] */
    SHARED(int, warp_sum, WARPS);
    const int tid = (int)threadIdx.x, warp = (int)warp_id();
    const int stretch = (a.pairs + THREADS - 1) / THREADS * 32, per = (a.experts + THREADS - 1) / THREADS;
    const int begin = min(a.pairs, warp * stretch), end = min(a.pairs, begin + stretch);
    const int e = min(a.experts, tid * per), e_end = min(a.experts, e + per);

    for (int i = tid; i < (WARPS + 1) * a.experts; i += THREADS) count[i] = 0;
    __syncthreads();
    count_pairs(&a, begin, end, count + warp * a.experts);
    __syncthreads();
    place_experts(&a, e, e_end, count, warp_sum);
    list_items(&a, e, e_end, count + WARPS * a.experts, warp_sum);
    __syncthreads();
    sort_pairs(&a, begin, end, count + warp * a.experts);
}
