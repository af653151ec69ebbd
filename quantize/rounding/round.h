/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/round.h - a weight to NVFP4 so that the error under a quadratic form is small.
 *
 * E = W - Q [R, K] is judged by tr(G E H E^T): H says how the inputs of the K columns go together
 * (quantize/rounding/hessian.h), G how the R outputs matter to the model's answer; both positive definite.
 * With H = L D L^T and G = M B M^T (unit lower triangular) that is
 *     sum over i, j of B_i D_j R_ij^2,   R = M^T E L,   R_ij = E_ij + terms of E in later rows and columns.
 *
 *   1. Feedback: rows and columns from the last to the first; each weight is rounded to what makes its R_ij
 *      small, given all that was rounded before (LDLQ on both sides; Tseng et al. 2025 do so with Kronecker
 *      factors of a model's Hessian).  The scale of a block of 16 columns is the best of the codes around
 *      what its largest target asks for, each tried with the feedback inside the block.
 *   2. Descent: sweeps over all weights; each takes the code that is best with all others as they are.
 *
 * Without G the rows are independent.  Results do not depend on threads. */
#ifndef MOE_QUANTIZE_ROUNDING_ROUND_H
#define MOE_QUANTIZE_ROUNDING_ROUND_H

#include "quantize/rounding/hessian.h"

struct moe_round {
    const struct moe_hessian *columns; /* H, factored; k = K */
    const struct moe_hessian *rows;    /* G, factored, in the order of w's rows; NULL: the identity */
    int sweeps;                     /* of descent */
    float global;
    int64_t n;                      /* rows of w */
    const float *w;                 /* [n, K] */
    float *q;                       /* [n, K] out: values */
    uint8_t *scale;                 /* [n, K / 16] out: e4m3 codes */
    float *scratch;                 /* moe_round_scratch floats */
};

int64_t moe_round_scratch(int64_t rows, int64_t k);
void moe_round_run(const struct moe_round *r, struct moe_pool *pool);

/* c [m, n] += alpha a b as the kernel gemm, tiles of c on all threads. */
void moe_gemm(struct moe_pool *pool, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t ai,
              int64_t ap, const float *b, int64_t bp, float *c, int64_t ldc);

#endif
