/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/calibrate-internal.h - what calibrate.c (the run), calibrate-plan.c (its memory and its
 * operations) and calibrate-time.c share. */
#ifndef MOE_QUANTIZE_CALIBRATE_CALIBRATE_INTERNAL_H
#define MOE_QUANTIZE_CALIBRATE_CALIBRATE_INTERNAL_H

#include "quantize/calibrate/spill.h"
#include "quantize/calibrate/calibrate.h"
#include "quantize/calibrate/correction.h"
#include "quantize/passes/fisher.h"
#include "quantize/passes/walk.h"

enum {
    MOE_COLD_SHARE = 20,      /* an expert is cold below 1/20 of the mean number of tokens (modelopt's 5 %) */
    MOE_FEW_TOKENS = 512,     /* an expert with fewer tokens of its own borrows some for its statistics: */
    MOE_BORROWED_TOKENS = 512, /* up to so many of the layer's, evenly spaced, */
    MOE_BORROWED_WEIGHT = 16  /* which together weigh as much as so many of its own */
};

/* What one thread needs that quantizes an expert. */
struct moe_expert_worker {
    struct moe_mlp *mlp;
    struct moe_stored_expert stored; /* the expert's weights */
    struct moe_spill spill;          /* of the layer of dense.moe that it writes */

    /* The expert's tokens and their importance, borrowed ones included. */
    int32_t row[MOE_FEW_TOKENS + MOE_BORROWED_TOKENS];
    float importance[MOE_FEW_TOKENS + MOE_BORROWED_TOKENS];
};

/* The tokens and options of the sensitivity pass. */
struct moe_fisher moe_calibrate_sensitivity(const struct moe_calibration *o);

/* The method for attention, shared and dense MLPs: without correction, which experts alone do. */
struct moe_mlp_method moe_calibrate_dense_method(const struct moe_calibration *o);

/* How many routed experts of a layer are to be quantized. */
int64_t moe_calibrate_coded_experts(const struct moe_source *src, const uint8_t *type, int64_t layer);
/* Operations of quantizing: one expert over so many tokens; all routed experts of a layer; what all
 * tokens pass in a layer. */
double moe_calibrate_expert_work(const struct moe_source *src, const struct moe_calibration *o,
                                 double tokens);
double moe_calibrate_experts_work(const struct moe_source *src, const struct moe_calibration *o,
                                  int64_t layer);
double moe_calibrate_dense_work(const struct moe_source *src, const struct moe_calibration *o, int64_t layer);
/* The number of layers that tokens pass: up to the last one of which anything is written. */
int64_t moe_calibrate_layers(const struct moe_source *src, const uint8_t *type);
/* What writing dense.moe counts as, in operations: one tensor that becomes `type`; all of its tensors.  A
 * tensor that is left out counts 0. */
double moe_calibrate_copy_work(const struct moe_tensor *t, uint8_t type);
double moe_calibrate_copies(const struct moe_source *src, const uint8_t *type);

#endif
