/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/tiles.cu - a thread takes neighbouring experts, and writes their items behind those of the
 * threads before it. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/scan.h"
#include "kernels/cuda/tiles.h"

enum { WARPS = 8, THREADS = 32 * WARPS, LISTS = MOE_CUDA_TILE_LISTS, MOST = MOE_CUDA_TILE_PAIRS };

/* The list of the last item of n pairs; -1 where all items are whole. */
DEVICE int last_list(int n)
{
    const int rest = n % MOST;
    return rest == 0 ? -1 : rest <= 8 ? 0 : rest <= 16 ? 1 : rest <= 32 ? 2 : 3;
}

/* The number of items that n pairs of an expert add to a list. */
DEVICE int items_of(int n, int list) { return (list == LISTS - 1 ? n / MOST : 0) + (last_list(n) == list); }

KERNEL(moe_cuda_tiles, 256) (const struct moe_cuda_tiles a)
{
    SHARED(int, warp_sum, WARPS);
    const int per = (a.experts + THREADS - 1) / THREADS;
    const int begin = min(a.experts, (int)threadIdx.x * per), end = min(a.experts, begin + per);
    for (int list = 0; list < LISTS; list++) {
        int mine = 0, all;
        for (int e = begin; e < end; e++) mine += items_of(a.first[e + 1] - a.first[e], list);
        struct moe_cuda_item *to = a.items + (int64_t)list * a.pairs;
        to += sum_before(mine, WARPS, warp_sum, &all);
        for (int e = begin; e < end; e++) {
            const int first = a.first[e], n = a.first[e + 1] - first, items = items_of(n, list);
            const int whole = list == LISTS - 1 ? n / MOST : 0;
            for (int i = 0; i < items; i++, to++) {
                const int at = i < whole ? MOST * i : n / MOST * MOST;
                to->expert = e, to->first = first + at, to->count = min(MOST, n - at), to->unused = 0;
            }
        }
        if (threadIdx.x == 0) a.item_count[list] = all;
    }
}
