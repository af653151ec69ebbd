/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/round.h - rounds a weight to NVFP4 so that the error of its outputs is small.
 *
 * The error E = W - Q [R, K] costs tr(G E H E^T), where H is the Hessian of the K columns (how the inputs go
 * together, quantize/rounding/hessian.h) and G that of the R rows (what errors of the outputs cost,
 * quantize/rounding/output-hessian.h); both are positive definite.  With H = L D L^T and G = M B M^T (L and M
 * unit lower triangular, D and B diagonal) the cost is
 *     sum over i, j of B_i D_j R_ij^2,   R = M^T E L,
 * where R_ij is E_ij plus terms of E in later rows and columns.
 *
 *   1. Feedback.  Rows and columns are rounded from the last to the first.  Each weight is rounded to the
 *      value that makes its R_ij small, given all that were rounded before it (LDLQ on both sides; Tseng et
 *      al. 2025 do so with Kronecker factors of a model's Hessian).  Each block of 16 columns has its own
 *      scale: the e4m3 codes around the one that the block's largest target needs are tried, each with the
 *      feedback inside the block, and the best is taken.
 *   2. Descent.  Sweeps over all weights follow: each weight takes the code that costs least with all others
 *      as they are (coordinate descent).  The scales stay.
 *
 * Without G each row is rounded for itself.  The results do not depend on the number of threads. */
#ifndef MOE_QUANTIZE_ROUNDING_ROUND_H
#define MOE_QUANTIZE_ROUNDING_ROUND_H

#include "quantize/rounding/hessian.h"

struct moe_round {
    const struct moe_hessian *columns; /* H, factored; its k is K */
    const struct moe_hessian *rows;    /* G, factored, rows in the order of w's; NULL: the identity */
    int sweeps;                        /* sweeps of descent */
    float global;                      /* the global scale */
    int64_t n;                         /* R, the rows of w */
    const float *w;                    /* [n, K] the weights */
    float *q;                          /* [n, K] out: the values that they become */
    uint8_t *scale;                    /* [n, K / 16] out: block scales, e4m3 codes */
    float *scratch;                    /* moe_round_scratch(n, K) floats */
};

/* The number of floats of scratch that moe_round_run needs for a weight of `rows` rows and k columns. */
int64_t moe_round_scratch(int64_t rows, int64_t k);
/* Rounds the weight.  One thread calls; the pool's threads share the work.  pool NULL: the caller alone. */
void moe_round_run(const struct moe_round *r, struct moe_pool *pool);

/* Computes c [m, n] += alpha a b like the kernel gemm, whose parameters these are (kernels/kernels.def), in
 * tiles of c on all threads. */
void moe_gemm(struct moe_pool *pool, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t ai,
              int64_t ap, const float *b, int64_t bp, float *c, int64_t ldc);

#endif
