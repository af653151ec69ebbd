/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/hessian.h - the Hessian of a projection's squared output error, by which rounding is
 * judged.
 *
 * A projection computes y = w x for one row w of K weights.  When w becomes q, the squared error over T
 * inputs x_t is
 *     sum_t ((q - w) x_t)^2 = (q - w) H (q - w)^T,   H = sum_t x_t x_t^T,
 * so H, the Gram matrix of the inputs, is half of that error's Hessian, and is the same for all rows.
 *
 * With H = L D L^T (L unit lower triangular, D diagonal) and e = w - q the error is
 *     sum_j D_j (e_j + sum_{i > j} e_i L_ij)^2.
 * Rounding takes the columns from the last to the first and adds to each the errors of those before it, fed
 * back through L.  Then only the rounding of each column itself is left in its term.  This is LDLQ (Chee et
 * al. 2023, QuIP), which is equivalent to GPTQ (Frantar et al. 2022).
 *
 * All is float32.  Sums are taken in an order that does not depend on the number of threads. */
#ifndef MOE_QUANTIZE_ROUNDING_HESSIAN_H
#define MOE_QUANTIZE_ROUNDING_HESSIAN_H

#include "base/pool.h"

#include <stdbool.h>

struct moe_hessian {
    int64_t k;      /* columns of the weight, a multiple of 16 */
    float *h;       /* [k, k] H; until it is factored only the tiles on and below the diagonal are valid */
    float *l;       /* [k, k] L, valid after moe_hessian_factor or moe_hessian_diagonal */
    float *d;       /* [k] the diagonal of D, valid then too */
    double mean;    /* mean of H's diagonal before damping */
    bool diagonal;  /* H is a diagonal matrix and L the identity */
    void *memory[3];
};

/* Bytes that moe_hessian_open takes for k columns. */
uint64_t moe_hessian_estimate(int64_t k);

/* Allocates a Hessian of zeros; MOE_NOMEM.  Nothing is owned on failure. */
enum moe_code moe_hessian_open(struct moe_hessian *f, int64_t k, struct moe_err *err);

/* Frees it and zeroes the struct. */
void moe_hessian_release(struct moe_hessian *f);

/* Sets H to zero, for a sum that starts again. */
void moe_hessian_clear(struct moe_hessian *f);

/* H += x^T x for n inputs, the rows of x [n, k], which are ldx floats apart. */
void moe_hessian_add(struct moe_hessian *f, const float *x, int64_t ldx, int64_t n, struct moe_pool *pool);

/* Completes H by symmetry, adds damp times the mean of its diagonal to the diagonal, and factors it.  An H of
 * zeros becomes the identity.  Where float32 rounding makes a pivot zero or negative, the damping is made ten
 * times as large and the factoring repeated, up to ten times.  MOE_NONFINITE: H holds a NaN or Inf, or no
 * damping was enough. */
enum moe_code moe_hessian_factor(struct moe_hessian *f, double damp, struct moe_pool *pool,
                                 struct moe_err *err);

/* The same for H's diagonal alone: off-diagonal elements become 0, L the identity, D the damped diagonal. */
enum moe_code moe_hessian_diagonal(struct moe_hessian *f, double damp, struct moe_err *err);

/* y = H^-1 y for y [k, n], in place; H must be factored. */
void moe_hessian_solve(const struct moe_hessian *f, float *y, int64_t n, struct moe_pool *pool);

#endif
