/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/speed.h - how fast this machine does what a calibration is made of: for --dry-run,
 * measured in about a second.
 *
 * The parts that a calibration runs (forward and backward through a layer, an expert quantized) run here on
 * made-up weights, of the model's widths, or of smaller ones where those would take long: a product is as
 * fast at 1024 columns as at 7168.  Nothing is written. */
#ifndef MOE_QUANTIZE_CALIBRATE_SPEED_H
#define MOE_QUANTIZE_CALIBRATE_SPEED_H

#include "quantize/rounding/mlp.h"

/* Seconds for an operation; for what a cost grows with beside operations, which are the larger part where
 * widths are large. */
struct moe_cost {
    double operation, minor;
};
static inline double moe_speed_weights(int64_t hidden, int64_t inter)
{
    return 3 * (double)hidden * (double)inter;
}
static inline double moe_speed_columns(int64_t hidden, int64_t inter)
{
    return (double)hidden * (double)hidden + (double)inter * (double)inter;
}

/* Operations a second, as quantize/passes/work.h counts them. */
struct moe_speed {
    double product;                                   /* the best matrix product, on all threads */
    double attention, mlp;                            /* forward, on all threads */
    double head_back, mlp_back, attention_back, hessian; /* of the sensitivity pass, on all threads */
    double statistics;                                /* of one expert, while others are at work beside it */
    struct moe_cost factoring, rounding; /* ... seconds: minor is for each of moe_speed_columns, _weights */
    double row; /* seconds to read or write a token's state in a scratch file that memory caches */
};

/* What is measured: with sequences of so many tokens, `each` tokens of an expert,
 * `workers` experts at once. */
struct moe_speed_of {
    const struct moe_config *config;
    const struct moe_mlp_method *method;
    bool sensitivity; /* there is such a pass; else what belongs to it is not measured */
    int64_t sequence, each;
    int workers;
};
enum moe_code moe_speed_measure(struct moe_speed *s, const struct moe_speed_of *of, struct moe_pool *pool,
                                struct moe_err *err);

#endif
