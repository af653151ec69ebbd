/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/calibrate-internal.h - what calibrate.c (the run), calibrate-plan.c (its memory and
 * operations) and calibrate-time.c (its seconds) share.  Operations are floating-point operations, as
 * quantize/passes/work.h counts them. */
#ifndef MOE_QUANTIZE_CALIBRATE_CALIBRATE_INTERNAL_H
#define MOE_QUANTIZE_CALIBRATE_CALIBRATE_INTERNAL_H

#include "quantize/calibrate/spill.h"
#include "quantize/calibrate/calibrate.h"
#include "quantize/calibrate/correction.h"
#include "quantize/passes/fisher.h"
#include "quantize/passes/walk.h"

enum {
    /* An expert is cold if it has fewer than 1/20 of the mean number of tokens (modelopt's 5 %). */
    MOE_COLD_SHARE = 20,

    /* An expert with fewer than MOE_FEW_TOKENS tokens borrows up to MOE_BORROWED_TOKENS of the layer's,
     * evenly spaced, for the statistics of its inputs.  Together they weigh as much as MOE_BORROWED_WEIGHT
     * of its own. */
    MOE_FEW_TOKENS = 512,
    MOE_BORROWED_TOKENS = 512,
    MOE_BORROWED_WEIGHT = 16
};

/* The buffers of one of the threads that quantize experts and, in the end, write dense.moe. */
struct moe_expert_worker {
    struct moe_mlp *mlp;
    struct moe_stored_expert stored; /* the weights of the expert at hand */
    struct moe_spill spill;          /* the quantized tensors of the layer of dense.moe at hand */

    /* The tokens and their importance for an expert that borrows some: its own, then the borrowed. */
    int32_t row[MOE_FEW_TOKENS + MOE_BORROWED_TOKENS];
    float importance[MOE_FEW_TOKENS + MOE_BORROWED_TOKENS];
};

/* The tokens and options of the sensitivity pass, which o->fisher asks for. */
struct moe_fisher moe_calibrate_sensitivity(const struct moe_calibration *o);

/* The method for attention, shared and dense MLPs: that of the experts without the correction
 * (quantize/calibrate/correction.h), which is for routed experts alone. */
struct moe_mlp_method moe_calibrate_dense_method(const struct moe_calibration *o);

/* The number of routed experts of a layer of which at least one weight is to be quantized. */
int64_t moe_calibrate_coded_experts(const struct moe_source *src, const uint8_t *type, int64_t layer);
/* Operations of quantizing one expert over so many tokens; all routed experts of a layer; a layer's
 * attention projections and the MLP that all tokens pass. */
double moe_calibrate_expert_work(const struct moe_source *src, const struct moe_calibration *o,
                                 double tokens);
double moe_calibrate_experts_work(const struct moe_source *src, const struct moe_calibration *o,
                                  int64_t layer);
double moe_calibrate_dense_work(const struct moe_source *src, const struct moe_calibration *o, int64_t layer);
/* The number of layers, from the first on, that the tokens have to pass: up to the last one of which anything
 * is written.  Layers without experts at the end count only if attention or MLPs outside of the experts are
 * quantized. */
int64_t moe_calibrate_layers(const struct moe_source *src, const uint8_t *type);
/* Progress counts operations; these are what the writing of dense.moe counts as: of one tensor that becomes
 * `type` (0 for MOE_TYPE_LEFT_OUT); of all its tensors. */
double moe_calibrate_copy_work(const struct moe_tensor *t, uint8_t type);
double moe_calibrate_copy_work_total(const struct moe_source *src, const uint8_t *type);

#endif
