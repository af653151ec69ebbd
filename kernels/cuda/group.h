/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/group.h - the choices of a batch, sorted by expert, and the work that follows from them.
 *
 * The router chose k experts for each token: expert ids[i] is for token i / k, and i is called the pair.  The
 * sorted pairs stand by expert, and by pair for one expert.  Products over them take items: up to 8
 * neighbours of one expert.  Items come in three lists, by their number of pairs: 1-2, 3-4, 5-8.  An expert
 * with more than 8 pairs has several items, of which only the last can have fewer than 8. */
#ifndef MOE_KERNELS_CUDA_GROUP_H
#define MOE_KERNELS_CUDA_GROUP_H

#include "kernels/cuda/common.h"

enum { MOE_CUDA_BUCKETS = 3, MOE_CUDA_ITEM_ROWS = 8 };

/* Sorted pairs [first, first + count) are of `expert`. */
struct moe_cuda_item { int32_t expert, first, count, unused; };
static_assert(sizeof(struct moe_cuda_item) == 16, "the host and the device agree on items");

/* The k ids of a token are distinct.  A pair whose expert is not resident, or is none of the `experts` there
 * are, is not among the sorted pairs: products write no rows of y for it, and `bit` is set in *word, which
 * says that the results of the batch are void. */
struct moe_cuda_group {
    MOE_CU(const int32_t) ids;        /* [pairs] */
    MOE_CU(const uint32_t) resident;  /* bit e % 32 of word e / 32; 0: all experts are */
    MOE_CU(uint32_t) word;
    MOE_CU(int32_t) first;            /* [experts + 1]: the sorted pairs of expert e begin at first[e] */
    MOE_CU(int32_t) pair;             /* [pairs]: sorted */
    MOE_CU(int32_t) token;            /* [pairs]: pair[i] / k */
    MOE_CU(struct moe_cuda_item) items; /* [MOE_CUDA_BUCKETS][pairs], ascending; a multiple of 16 bytes */
    MOE_CU(int32_t) item_count;       /* [MOE_CUDA_BUCKETS] */
    int32_t pairs, k, experts;
    uint32_t bit;
};
static_assert(sizeof(struct moe_cuda_group) == 80, "host and device agree on the arguments of group");

/* The most items of a list.  `bucket`: 0, 1, 2. */
static inline int64_t moe_cuda_group_most(int64_t pairs, int64_t experts, int bucket)
{
    static const int least[MOE_CUDA_BUCKETS] = { 1, 3, 5 };
    int64_t most = pairs / least[bucket];
    if (bucket == MOE_CUDA_BUCKETS - 1) return most;
    return most < experts ? most : experts;
}

/* The most experts: tables of 144 KiB. */
enum { MOE_CUDA_GROUP_WARPS = 8, MOE_CUDA_GROUP_EXPERTS = 4096 };

/* One block; a table of counts for each warp, and one for the whole block. */
static inline struct moe_cuda_grid moe_cuda_group_grid(const struct moe_cuda_group *a)
{
    struct moe_cuda_grid g = { 1, 1, 1, 32 * MOE_CUDA_GROUP_WARPS,
                               (uint32_t)(4 * (MOE_CUDA_GROUP_WARPS + 1) * a->experts) };
    return g;
}

#endif
