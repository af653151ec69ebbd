/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/dense.h - calibrates what is not a routed expert: attention projections, dense MLPs, the
 * shared expert.
 *
 * Before the tokens pass a layer's attention, an extra pass through it sums the Hessians of its projections'
 * inputs, as the unquantized layer computes them.  Then the projections are rounded (for o, the layer's
 * Fisher matrix is the output Hessian), and the model uses the rounded ones from then on.  Before the tokens
 * pass the layer's dense or shared MLP, this is quantized and replaced likewise (quantize/rounding/mlp.h).
 * The quantized tensors are kept in a file (quantize/calibrate/spill.h) until dense.moe is written; a resumed
 * run reads them from there instead of computing them. */
#ifndef MOE_QUANTIZE_CALIBRATE_DENSE_H
#define MOE_QUANTIZE_CALIBRATE_DENSE_H

#include "quantize/calibrate/spill.h"
#include "quantize/passes/walk.h"

struct moe_dense {
    struct moe_walk *walk;
    const uint8_t *type;                /* the precision map */
    struct moe_mlp_method method;
    const char *dir;
    bool upstream_source;               /* the model keeps the source's weights */
    /* The layer's Fisher matrix; NULL: none.  The caller sets it before each layer. */
    const struct moe_output_hessian *f;
    struct moe_spill tensors;           /* the quantized tensors of the layer at hand */
    bool from_file;                     /* they were read from the layer's file and need not be computed */
};

/* True if the precision map has any tensor that is quantized here. */
bool moe_dense_wanted(const struct moe_source *src, const uint8_t *type);
/* Bytes of memory held beside the walk while a layer is calibrated. */
uint64_t moe_dense_estimate(const struct moe_source *src, const uint8_t *type,
                            const struct moe_mlp_method *how);

/* The approximate bytes of the files that keep all quantized tensors until dense.moe is written. */
uint64_t moe_dense_spill_bytes(const struct moe_source *src, const uint8_t *type);

/* To be called before the tokens pass the attention of the layer at hand; ctx is the struct moe_dense.  This
 * and moe_dense_mlp have the type of moe_walk.before. */
enum moe_code moe_dense_attention(void *ctx, struct moe_err *err);
/* To be called after that pass, before moe_dense_mlp: amax is the largest magnitude of a projection's input
 * in the pass through the quantized weights, from which its input scale is made.  The unquantized pass does
 * not give it, since q_b, kv_b and o come after projections that have been quantized. */
void moe_dense_set_input_scale(struct moe_dense *d, enum moe_role role, float amax);
/* To be called before the tokens pass the layer's dense or shared MLP.  Writes the layer's file. */
enum moe_code moe_dense_mlp(void *ctx, struct moe_err *err);
void moe_dense_release(struct moe_dense *d);

#endif
