/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/speed.h - measures in about a second how fast this machine computes the parts of a
 * calibration, for the seconds that --dry-run estimates.
 *
 * The parts (forward and backward through a layer, quantizing an expert) are run here on made-up weights.
 * These have the model's widths, or smaller ones where those would take long: a product is as fast at 1024
 * columns as at 7168.  No file is written. */
#ifndef MOE_QUANTIZE_CALIBRATE_SPEED_H
#define MOE_QUANTIZE_CALIBRATE_SPEED_H

#include "quantize/rounding/mlp.h"

/* The time of a phase is operation * (its operations) + minor * (a count that grows more slowly with the
 * widths of the MLP), in seconds.  For factoring this count is moe_speed_columns, for rounding
 * moe_speed_weights. */
struct moe_cost {
    double operation, minor;
};

/* The weights of an MLP; the elements of the Hessians of its inputs. */
static inline double moe_speed_weights(int64_t hidden, int64_t inter)
{
    return 3 * (double)hidden * (double)inter;
}
static inline double moe_speed_columns(int64_t hidden, int64_t inter)
{
    return (double)hidden * (double)hidden + (double)inter * (double)inter;
}

/* In operations per second, as quantize/passes/work.h counts them, where nothing else is said. */
struct moe_speed {
    double product;                                   /* the best matrix product, on all threads */
    double attention, mlp;                            /* forward, on all threads */
    double head_back, mlp_back, attention_back, hessian; /* backward; sum of a Hessian; on all threads */
    double statistics;                                /* of one expert, while others are at work beside it */
    struct moe_cost factoring, rounding;              /* likewise */
    double row; /* seconds to read or write one token's state in a scratch file, from the page cache */
};

/* What is measured. */
struct moe_speed_of {
    const struct moe_config *config;
    const struct moe_mlp_method *method;
    bool sensitivity;          /* measure head_back, mlp_back and attention_back too, else not set */
    int64_t sequence;          /* tokens of a sequence */
    int64_t tokens_per_expert; /* over which an expert is quantized */
    int workers;               /* experts that are quantized at once */
};

/* pool: that of the calibration.  MOE_NOMEM. */
enum moe_code moe_speed_measure(struct moe_speed *s, const struct moe_speed_of *of, struct moe_pool *pool,
                                struct moe_err *err);

#endif
