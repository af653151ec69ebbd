/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/drift.h - how far the states of the quantized model are from the source's, and what a
 * layer's experts can do about it.
 *
 * The tokens walk through the source as well, a layer ahead.  When a layer's experts are about to be
 * quantized, a token lacks
 *     D = (source's state after the layer) - (own state after the layer, were its experts not quantized),
 * which is what the quantized layers before have lost and this one's attention and shared expert have
 * made of it.  Each of the token's experts is to give z = STEP D w / sum w^2 more (w: routing weights),
 * so that together their weighted outputs give STEP D; what of it their inputs foretell goes into
 * `down` (quantize/rounding/mlp.h).  An expert foretells but a part of D, and not the same part as the
 * others: with STEP 1 their sum falls short of the joint regression, whose first Richardson iteration
 * this is (stable up to 2).
 *
 * Memory: the walk's twin (quantize/passes/walk.h) and 4 bytes for each token and chosen expert. */
#ifndef MOE_QUANTIZE_CALIBRATE_DRIFT_H
#define MOE_QUANTIZE_CALIBRATE_DRIFT_H

#include "quantize/passes/walk.h"

struct moe_drift {
    struct moe_walk walk;             /* through the source; its sum holds D once a layer is measured */
    float *share;                     /* [n k]: z / D of the choices, sorted as the walk's rows are */
    /* of the layer measured: sum of D^2, and of the squares of the source's state */
    double lack, size;
    double seconds;                   /* ... and the time it took, the source's pass included */
    bool open;
};

uint64_t moe_drift_estimate(const struct moe_source *src, int64_t n, bool in_files);
/* For tokens that walk w has. */
enum moe_code moe_drift_open(struct moe_drift *d, const struct moe_walk *w, const char *states,
                             struct moe_err *err);
void moe_drift_close(struct moe_drift *d);

/* The source through this layer; all before it have been passed or measured.  moe_drift_measure: and D of the
 * layer whose attention, router and shared expert w is through. */
enum moe_code moe_drift_pass(struct moe_drift *d, int layer, struct moe_err *err);
enum moe_code moe_drift_measure(struct moe_drift *d, struct moe_walk *w, const struct moe_shard_unit *u,
                                struct moe_err *err);
/* What expert e's tokens lack, into t. */
void moe_drift_expert(const struct moe_drift *d, const struct moe_walk *w, int64_t e,
                      struct moe_mlp_tokens *t);

#endif
