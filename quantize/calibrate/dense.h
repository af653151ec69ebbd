/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/dense.h - calibration of what is not a routed expert: attention projections, dense
 * MLPs, the shared expert.
 *
 * Before a layer's attention, one pass over all tokens sums the Hessians of the projections' inputs as the
 * unquantized layer computes them; then they are rounded (o's rows by the layer's Fisher matrix) and put
 * in place of the source's; then its dense or shared MLP likewise (quantize/rounding/mlp.h).  What was
 * chosen is kept (quantize/calibrate/spill.h) until dense.moe is written, and taken from there when a run
 * is resumed. */
#ifndef MOE_QUANTIZE_CALIBRATE_DENSE_H
#define MOE_QUANTIZE_CALIBRATE_DENSE_H

#include "quantize/calibrate/spill.h"
#include "quantize/passes/walk.h"

struct moe_dense {
    struct moe_walk *walk;
    const uint8_t *type;                /* the precision map */
    struct moe_mlp_method method;
    const char *dir;
    bool upstream_source;               /* nothing is put in place: what follows sees the source's weights */
    /* The layer's Fisher matrix; NULL: none.  The caller sets it before each layer. */
    const struct moe_output_hessian *f;
    struct moe_spill here;              /* of the layer at hand */
    bool known;                         /* ... read from its file: nothing to compute */
};

/* True when any tensor is to be quantized here. */
bool moe_dense_wanted(const struct moe_source *src, const uint8_t *type);
/* Bytes held beside the walk while a layer is calibrated. */
uint64_t moe_dense_estimate(const struct moe_source *src, const uint8_t *type,
                            const struct moe_mlp_method *how);

/* About the bytes of the files that keep it until dense.moe is written. */
uint64_t moe_dense_spill_bytes(const struct moe_source *src, const uint8_t *type);

/* The two callbacks of the walk, moe_walk.before (ctx: struct moe_dense). */
enum moe_code moe_dense_attention(void *ctx, struct moe_err *err);
/* To be called between the two: the largest magnitude of a projection's input in the pass through the
 * quantized weights, from which its input scale is made.  The unquantized pass does not give it, since
 * q_b, kv_b and o come after projections that have been quantized. */
void moe_dense_seen(struct moe_dense *d, enum moe_role role, float amax);
enum moe_code moe_dense_mlp(void *ctx, struct moe_err *err);
void moe_dense_release(struct moe_dense *d);

#endif
