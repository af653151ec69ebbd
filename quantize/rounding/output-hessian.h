/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/output-hessian.h - a Hessian G over the rows of a weight, which says how much errors in
 * its outputs cost together (quantize/rounding/round.h), as moe_hessian is one over its columns.
 *
 * Its rows are kept in the order in which rounding takes them, by ascending diagonal: the rows whose errors
 * cost most are last, and rounding starts with the last. */
#ifndef MOE_QUANTIZE_ROUNDING_OUTPUT_HESSIAN_H
#define MOE_QUANTIZE_ROUNDING_OUTPUT_HESSIAN_H

#include "quantize/rounding/hessian.h"

struct moe_output_hessian {
    struct moe_hessian hessian;
    int32_t *order; /* [k] the row of the weight that stands at each place */
};

/* Bytes that moe_output_hessian_open takes for a weight of k rows. */
uint64_t moe_output_hessian_estimate(int64_t k);
/* Allocates a Hessian over k rows.  Nothing is owned on failure. */
enum moe_code moe_output_hessian_open(struct moe_output_hessian *m, int64_t k, struct moe_err *err);
void moe_output_hessian_release(struct moe_output_hessian *m); /* also of one that is all zero */

/* Sorts G by ascending diagonal, damps it (by `damp` times the mean of the diagonal) and factors it.
 * hessian.h holds G, whole or its lower tiles, with the rows in the weight's order; afterwards in the order
 * of `order`. */
enum moe_code moe_output_hessian_finish(struct moe_output_hessian *m, double damp, struct moe_pool *pool,
                                        struct moe_err *err);

#endif
