/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/dense.h - products with a stored weight, y = x W^T, for any type: moe_ops.linear on a GPU, and
 * the products of the heads and of routed experts that are not NVFP4.
 *
 * Of item i in [0, items), token t in [0, n) and row r in [0, rows):
 *
 *     y[i*y_step + t*ldy + r] = sum_k W[row0 + i*row_step + r][k] * x[i*x_step + t*ldx + k]
 *
 * bit for bit as matmul of kernels.def: in the reduction order or, for NVFP4, that of NVFP4 products.  A
 * result depends on its row of W and its row of x alone.
 *
 * A plain product has one item.  The heads of a layer are items whose rows stand one after the other in the
 * same weight.
 *
 * Where `list` is given, items are those of a list that `group` made (kernels/cuda/group.h): the first *count
 * of list, at most `items`, of at most n <= 8 sorted pairs each.  W is then that of the item's expert, whose
 * planes are `stride` bytes times its number after those of expert 0; sorted pair p has row in[p] of x (ldx
 * floats each) and row out[p] of y, or row p where in or out is not given; row_step, x_step and y_step are 0.
 *
 * x and y are float32; steps and ld* count floats.  Addresses are multiples of 4 bytes, `stride` a multiple
 * of 16.  y never overlaps the inputs.
 *
 * dense_1, dense_2, dense_4, dense_8 and dense_16 are the same product, for up to so many tokens a block;
 * dense_nvfp4 serves NVFP4, by integer arithmetic.  moe_cuda_dense_kernel says which to launch. */
#ifndef MOE_KERNELS_CUDA_DENSE_H
#define MOE_KERNELS_CUDA_DENSE_H

#include "kernels/cuda/group.h"
#include "kernels/cuda/weight.h"

struct moe_cuda_dense {
    struct moe_cuda_weight w;
    MOE_CU(const float) x;
    MOE_CU(float) y;
    MOE_CU(const struct moe_cuda_item) list;  /* or 0 */
    MOE_CU(const int32_t) count;
    MOE_CU(const int32_t) in;
    MOE_CU(const int32_t) out;
    int64_t n, ldx, ldy;
    int64_t row0, rows, row_step;
    int64_t items, x_step, y_step;
    int64_t stride;                /* bytes from expert to expert */
};
static_assert(sizeof(struct moe_cuda_dense) == 192, "the host and the device agree on a product's arguments");

/* What a block computes: ROWS rows for TOKENS tokens.  A half warp has a row, or several 8 apart, and each of
 * its lanes one of the 16 sums. */
enum {
    MOE_CUDA_DENSE_THREADS = 128,  /* of dense_16 twice as many */
    MOE_CUDA_DENSE_MANY = 64,      /* tokens from which on dense_16 is best: it reads W half as often */
    MOE_CUDA_DENSE_STAGES = 4,     /* pieces of the rows that are on their way at the same time */
    MOE_CUDA_DENSE_PITCH = 256 + 64 /* bytes from row to row of a piece: no two half warps meet in a bank */
};

/* The kernel for n tokens: the fewest that fit; with many tokens 16 a block, else at most 8. */
static inline enum moe_cuda_kernel moe_cuda_dense_kernel(const struct moe_cuda_dense *a)
{
    if (a->w.codes == MOE_CUDA_NVFP4) return MOE_CUDA_dense_nvfp4;
    if (a->n >= MOE_CUDA_DENSE_MANY) return MOE_CUDA_dense_16;
    return a->n <= 1 ? MOE_CUDA_dense_1 : a->n <= 2 ? MOE_CUDA_dense_2 : a->n <= 4 ? MOE_CUDA_dense_4
                                                                                   : MOE_CUDA_dense_8;
}

/* The tokens and rows of a block of that kernel. */
static inline int moe_cuda_dense_tokens(enum moe_cuda_kernel k)
{
    return k == MOE_CUDA_dense_1 ? 1 : k == MOE_CUDA_dense_2 ? 2 : k == MOE_CUDA_dense_8 ? 8
         : k == MOE_CUDA_dense_16 ? 16 : 4;
}
static inline int moe_cuda_dense_rows(enum moe_cuda_kernel k)
{
    return k == MOE_CUDA_dense_1 ? 8 : k == MOE_CUDA_dense_8 ? 32 : k == MOE_CUDA_dense_16 ? 64 : 16;
}

/* Columns of a piece of codes of this kind: what fills 256 bytes of a row, at most 256. */
#define MOE_CUDA_DENSE_COLUMNS(codes) \
    ((codes) == MOE_CUDA_F32 ? 64 : (codes) == MOE_CUDA_BF16 || (codes) == MOE_CUDA_F16 ? 128 : 256)

/* Blocks that share rows of W come one after the other, so that W is read from memory once. */
static inline struct moe_cuda_grid moe_cuda_dense_grid(const struct moe_cuda_dense *a)
{
    enum moe_cuda_kernel k = moe_cuda_dense_kernel(a);
    int tokens = moe_cuda_dense_tokens(k), rows = moe_cuda_dense_rows(k);
    int stage = rows * MOE_CUDA_DENSE_PITCH + tokens * MOE_CUDA_DENSE_COLUMNS(a->w.codes) * 4;
    struct moe_cuda_grid g = { moe_cuda_blocks(a->n, tokens), moe_cuda_blocks(a->rows, rows),
                               (uint32_t)a->items,
                               (k == MOE_CUDA_dense_16 ? 2u : 1u) * MOE_CUDA_DENSE_THREADS,
                               k == MOE_CUDA_dense_nvfp4 ? 0 : (uint32_t)(MOE_CUDA_DENSE_STAGES * stage) };
    return g;
}

#endif
