/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/mlp-internal.h - the workspace of mlp.h, which mlp-open.c allocates and mlp.c uses. */
#ifndef MOE_QUANTIZE_ROUNDING_MLP_INTERNAL_H
#define MOE_QUANTIZE_ROUNDING_MLP_INTERNAL_H

#include "base/aligned.h"
#include "kernels/kernels.h"
#include "quantize/rounding/mlp.h"

/* Tokens are read in pieces of this many: a multiple of the depth that the kernel gemm sums at once. */
enum { MOE_MLP_PIECE = 1024 };

struct moe_mlp {
    int64_t hidden, inter; /* the largest widths of an MLP for which there is room */
    struct moe_mlp_method how;
    struct moe_matrix matrix;
    struct moe_pool *pool;
    const struct moe_kernels *k;
    struct moe_inputs x; /* statistics of the inputs of gate and up */
    struct moe_inputs y; /* statistics of the inputs of down */
    struct moe_output_hessian gate_up_hessian; /* over the rows of gate and up together */
    float *a; /* [inter, inter]: down^T F down */

    /* Of the piece at hand, [MOE_MLP_PIECE, hidden]: the MLP's inputs; the same in NVFP4; its outputs. */
    float *h, *hq, *out;

    /* [MOE_MLP_PIECE, inter]: gate x and up x of the unquantized weights, then of the quantized ones.  gate
     * and gq then become silu(gate x) * (up x), the inputs of down. */
    float *gate, *up, *gq, *uq;

    float *d; /* [MOE_MLP_PIECE, 2 inter]: the derivatives d of mlp.h */
    uint8_t *codes[3], *scales[3];

    struct moe_aligned owned; /* the arrays from `a` on */
    bool forward_only;
};

/* Whether gate and up get an output Hessian.  Wide MLPs do not: it would be the larger part of all memory. */
static inline bool moe_mlp_is_two_sided(const struct moe_mlp_method *how, int64_t inter)
{
    return how->matrix.two_sided && !how->matrix.diagonal && 2 * inter <= MOE_SLICE_COLUMNS;
}

#endif
