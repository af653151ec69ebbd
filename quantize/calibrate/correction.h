/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/correction.h - measures by how much the hidden states of the quantized model differ from
 * the source's, and makes targets of the difference, by which a layer's experts make up for a part of it.
 *
 * The same tokens go through the source as well, one layer ahead of the quantized model.  When the experts of
 * a layer are about to be quantized, every token has a residual
 *     D = (source's state after the layer) - (quantized model's state after it, by unquantized experts),
 * the sum of the errors of all quantized weights before these experts.  An expert that a token chose with
 * routing weight w gets, beside its own output, the target
 *     z = STEP w D / (sum of w^2 over the token's experts),
 * so that the experts' weighted sum of all z is STEP D.  The part of z that a linear map of down's input
 * predicts is added to down (quantize/rounding/mlp.h).
 *
 * Each expert is fitted alone and predicts a part of D only, and the parts of a token's experts differ.  That
 * is the first Richardson iteration of the joint least-squares problem of all experts, which converges for
 * steps below 2.  With STEP 1 the sum stays short of the joint solution; 1.5 was best on held-out text
 * (docs/reference/quantization.md).
 *
 * Memory: a second walk (moe_walk_twin) and 4 bytes for each token and chosen expert.  One thread calls. */
#ifndef MOE_QUANTIZE_CALIBRATE_CORRECTION_H
#define MOE_QUANTIZE_CALIBRATE_CORRECTION_H

#include "quantize/passes/walk.h"

struct moe_correction {
    /* Through the source.  Once a layer is measured, its `sum` holds D of every token. */
    struct moe_walk walk;

    /* [n k]: z / D of each chosen expert of each token, in the order of moe_walk.row. */
    float *share;

    /* Of the layer measured last: the sum of D^2, and of the squares of the source's states. */
    double residual2;
    double state2;

    /* Seconds that measuring it took, the source's own pass included. */
    double seconds;

    bool open; /* false: nothing is owned */
};

/* Bytes of memory that moe_correction_open takes for n tokens; in_files: the states are in files. */
uint64_t moe_correction_estimate(const struct moe_source *src, int64_t n, bool in_files);

/* Opens d for the tokens of `w`, which must outlive it.  states: the directory for hidden states; NULL: they
 * are kept in memory.  After a failure d must be closed as well. */
enum moe_code moe_correction_open(struct moe_correction *d, const struct moe_walk *w, const char *states,
                                  struct moe_err *err);
void moe_correction_close(struct moe_correction *d);

/* Takes the source's tokens through all layers up to this one, without measuring: for a layer that an earlier
 * run has quantized. */
enum moe_code moe_correction_pass(struct moe_correction *d, int layer, struct moe_err *err);

/* Takes them there, and measures D of the layer that w is in.  w has passed the layer's attention, router and
 * shared expert (w->routed).  u: the layer's experts. */
enum moe_code moe_correction_measure(struct moe_correction *d, struct moe_walk *w,
                                     const struct moe_shard_unit *u, struct moe_err *err);

/* Sets residual and share of t, the tokens of expert e.  They point into d. */
void moe_correction_expert(const struct moe_correction *d, const struct moe_walk *w, int64_t e,
                           struct moe_mlp_tokens *t);

#endif
