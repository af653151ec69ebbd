/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/output-hessian.h - how the outputs of a weight matter: a form over rows
 * (quantize/rounding/round.h G), with its rows in the order in which rounding
 * takes them: those that matter most are last, and are rounded first. */
#ifndef MOE_QUANTIZE_ROUNDING_OUTPUT_HESSIAN_H
#define MOE_QUANTIZE_ROUNDING_OUTPUT_HESSIAN_H

#include "quantize/rounding/hessian.h"

struct moe_output_hessian {
    struct moe_hessian hessian;
    int32_t *order; /* [k] which row stands at each place */
};

uint64_t moe_output_hessian_estimate(int64_t k);
enum moe_code moe_output_hessian_open(struct moe_output_hessian *m, int64_t k, struct moe_err *err);
void moe_output_hessian_release(struct moe_output_hessian *m);
/* form.h holds G in the order of the weight, whole or its lower tiles: put it in
 * order, damp it, factor it. */
enum moe_code moe_output_hessian_finish(struct moe_output_hessian *m, double damp, struct moe_pool *pool,
                                        struct moe_err *err);

#endif
