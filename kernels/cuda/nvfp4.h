/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/nvfp4.h - products with NVFP4 weights, bit for bit as kernels.def defines them, for few rows.
 *
 * y = W x for a list of items, each with an expert of its own and up to 2, 4 or 8 rows x: kernels nvfp4_2,
 * nvfp4_4 and nvfp4_8.  Weights are read as the container has them (docs/reference/format.md): codes row by
 * row, scales in tiles of 128 x 4, padding zero. x comes as digits (digits.h).  Every result depends on its
 * own row of W and its own row of x alone.
 *
 * One or two matrices of the same shape, such as gate and up of an expert, are multiplied in one launch, and
 * their results can be joined by SwiGLU as kernels.def defines it, and come as digits for the product after
 * it. */
#ifndef MOE_KERNELS_CUDA_NVFP4_H
#define MOE_KERNELS_CUDA_NVFP4_H

#include "kernels/cuda/digits.h"
#include "kernels/cuda/group.h"

enum {
    MOE_CUDA_NVFP4_RECIPROCAL = 1, /* globals divide (compressed-tensors) instead of multiplying */
    MOE_CUDA_NVFP4_SWIGLU = 2      /* y[0] = swiglu(W0 x, W1 x); y[1] is not written */
};

struct moe_cuda_nvfp4 {
    /* of expert 0; that of expert e is e * stride bytes further on.  codes, scales and
     * stride are multiples of 16 bytes; a global is one float32. */
    MOE_CU(const uint8_t) codes[2];
    MOE_CU(const uint8_t) scales[2];
    MOE_CU(const float) global[2];
    int64_t stride;
    int64_t rows, cols;            /* of a matrix; cols is a multiple of 16 */
    /* 0: one expert, 0, with `tokens` rows of x, in items that the kernel makes itself. */
    MOE_CU(const struct moe_cuda_item) items;
    MOE_CU(const int32_t) item_count;
    /* Sorted pair p of an item takes row in[p] of x and gives row out[p] of y; 0: row p. */
    MOE_CU(const int32_t) in;
    MOE_CU(const int32_t) out;
    MOE_CU(const uint8_t) digits;  /* of rows of `cols` values */
    MOE_CU(const float) factors;
    MOE_CU(float) y[2];            /* with SWIGLU y[0] may be 0 */
    /* With SWIGLU: 0, or where the result goes as digits, too, rows in the order of y; then `rows` is a
     * multiple of 16.  Padding past the end of a row is not written: the caller has filled it with zeros. */
    MOE_CU(uint8_t) digits_out;
    MOE_CU(float) factors_out;
    int64_t ldy;                   /* values between rows of y */
    int64_t tokens;
    int64_t most;                  /* the most items there can be, which the grid is for */
    int32_t matrices;              /* 1 or 2 */
    uint32_t flags;
    uint32_t blocks;               /* the most blocks of the grid: two for each multiprocessor */
    uint32_t unused;               /* 0 */
};
static_assert(sizeof(struct moe_cuda_nvfp4) == 192, "host and device agree on the arguments of nvfp4");

/* A tile is what a block computes at a time: 64 rows of W.  Of each 128 rows one tile has rows 0-15, 32-47,
 * 64-79 and 96-111, whose scales are neighbours, and another tile the others. */
enum { MOE_CUDA_NVFP4_TILE = 64, MOE_CUDA_NVFP4_STEP = 512 };
MOE_CUDA_BOTH int64_t moe_cuda_nvfp4_tiles(int64_t rows) { return (rows + 127) / 128 * 2; }

/* A step is 512 columns of a tile, which lie in shared memory: codes 64 x 256 bytes, scales 64 x 32, and of
 * each row of x 128 bytes of factors and 2048 of digits. */
enum { MOE_CUDA_NVFP4_CODES = 64 * 256, MOE_CUDA_NVFP4_SCALES = 64 * 32 };
MOE_CUDA_BOTH uint32_t moe_cuda_nvfp4_step_bytes(int tokens)
{
    return MOE_CUDA_NVFP4_CODES + MOE_CUDA_NVFP4_SCALES + (uint32_t)tokens * (2048 + 128);
}
/* The ring holds so many steps that two blocks fit a multiprocessor of 227 KB. */
MOE_CUDA_BOTH int moe_cuda_nvfp4_ring(int tokens) { return tokens == 8 ? 3 : 4; }

/* tokens: 2, 4 or 8, of the kernel nvfp4_<tokens>. */
static inline struct moe_cuda_grid moe_cuda_nvfp4_grid(const struct moe_cuda_nvfp4 *a, int tokens)
{
    int64_t items = a->items ? a->most : (a->tokens + tokens - 1) / tokens;
    int64_t work = items * moe_cuda_nvfp4_tiles(a->rows);
    struct moe_cuda_grid g = { (uint32_t)(work < a->blocks ? work : a->blocks), 1, 1, 256,
                               (uint32_t)moe_cuda_nvfp4_ring(tokens) * moe_cuda_nvfp4_step_bytes(tokens) };
    return g;
}

#endif
