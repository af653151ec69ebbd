/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/tiles.h - lists of work for fast products over the sorted pairs of a batch (group.h).
 *
 * An item is up to 64 neighbours of one expert.  Items come in four lists, by their number of pairs: 1-8,
 * 9-16, 17-32, 33-64.  An expert with more than 64 pairs has several items, of which only the last can have
 * fewer than 64. */
#ifndef MOE_KERNELS_CUDA_TILES_H
#define MOE_KERNELS_CUDA_TILES_H

#include "kernels/cuda/group.h"

enum { MOE_CUDA_TILE_LISTS = 4, MOE_CUDA_TILE_PAIRS = 64 };

/* The most pairs of an item of a list. */
MOE_CUDA_BOTH int moe_cuda_tile_pairs(int list) { return 8 << list; }

struct moe_cuda_tiles {
    MOE_CU(const int32_t) first;      /* [experts + 1], of group */
    MOE_CU(struct moe_cuda_item) items; /* [MOE_CUDA_TILE_LISTS][pairs], ascending; a multiple of 16 bytes */
    MOE_CU(int32_t) item_count;       /* [MOE_CUDA_TILE_LISTS] */
    int32_t pairs, experts;
};
static_assert(sizeof(struct moe_cuda_tiles) == 32, "host and device agree on the arguments of tiles");

/* The most items of a list. */
static inline int64_t moe_cuda_tiles_most(int64_t pairs, int64_t experts, int list)
{
    int64_t most = pairs / (list ? moe_cuda_tile_pairs(list - 1) + 1 : 1);
    return list < MOE_CUDA_TILE_LISTS - 1 && most > experts ? experts : most;
}

/* One block. */
static inline struct moe_cuda_grid moe_cuda_tiles_grid(const struct moe_cuda_tiles *a)
{
    (void)a;
    struct moe_cuda_grid g = { 1, 1, 1, 256, 0 };
    return g;
}

#endif
