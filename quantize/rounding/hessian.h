/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/hessian.h - the quadratic form that an output error is: what rounding is judged by.
 *
 * A projection y = w x (one row w of K weights) whose weights become q has over T weighted
 * inputs the squared error
 *     sum_t ((q - w) x_t)^2 = (q - w) H (q - w)^T,   H = sum_t x_t x_t^T, the Gram matrix of its inputs.
 * Factored as H = L D L^T (L unit lower triangular, D diagonal) this is sum_j D_j (e_j + sum_{i>j} e_i
 * L_ij)^2 with e = w - q: rounding columns from the last to the first, each after the error of those before
 * has been fed back through L, leaves only each column's own rounding (LDLQ, the same as GPTQ: Frantar et al.
 * 2022, Chee et al. 2023).
 *
 * float32; sums in an order that threads do not change. */
#ifndef MOE_QUANTIZE_ROUNDING_HESSIAN_H
#define MOE_QUANTIZE_ROUNDING_HESSIAN_H

#include "base/pool.h"

#include <stdbool.h>

struct moe_hessian {
    int64_t k;              /* columns of the weight; a multiple of 16 */
    /* [k, k] symmetric once finished; while it is added to, only tiles on and below the diagonal */
    float *h;
    float *l;               /* [k, k] unit lower triangular; after moe_hessian_factor */
    float *d;               /* [k] */
    double mean;            /* of the diagonal before damping */
    bool diagonal;          /* H is its diagonal, L is 1 */
    void *memory[3];
};

/* Bytes that moe_hessian_open takes for k columns. */
uint64_t moe_hessian_estimate(int64_t k);
enum moe_code moe_hessian_open(struct moe_hessian *f, int64_t k, struct moe_err *err);
void moe_hessian_release(struct moe_hessian *f); /* and forgets */
void moe_hessian_clear(struct moe_hessian *f); /* H = 0 */

/* H += x^T x of n rows x [n, k], ldx floats apart. */
void moe_hessian_add(struct moe_hessian *f, const float *x, int64_t ldx, int64_t n, struct moe_pool *pool);

/* Complete H by symmetry, add damp * mean of the diagonal to the diagonal (an all-zero form becomes the
 * identity), factor it.  When rounding makes a pivot not positive, ten times the damping, up to ten times.
 * MOE_NONFINITE when H holds a NaN or Inf. */
enum moe_code moe_hessian_factor(struct moe_hessian *f, double damp, struct moe_pool *pool,
                                 struct moe_err *err);
/* As factor, of the diagonal alone: L = 1, D = diagonal, and H is only that. */
enum moe_code moe_hessian_diagonal(struct moe_hessian *f, double damp, struct moe_err *err);

/* y [k, n] = H^-1 y in place, by the factors. */
void moe_hessian_solve(const struct moe_hessian *f, float *y, int64_t n, struct moe_pool *pool);

#endif
