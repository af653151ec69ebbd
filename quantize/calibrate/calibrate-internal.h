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

/* An expert is cold below 1/20 of the mean number of tokens (modelopt's 5 %).  One with fewer than
 * MOE_FEW_TOKENS tokens borrows the statistics of up to MOE_BORROWED_TOKENS tokens of the layer, evenly
 * spaced, which together count as MOE_BORROWED_WEIGHT tokens of its own. */
enum { MOE_COLD_SHARE = 20, MOE_FEW_TOKENS = 512, MOE_BORROWED_TOKENS = 512, MOE_BORROWED_WEIGHT = 16 };

/* What one expert at work needs. */
struct moe_expert_worker {
    struct moe_mlp *mlp;
    struct moe_stored_expert stored;
    struct moe_spill spill;         /* of the layer of dense.moe at hand */
    int32_t row[MOE_FEW_TOKENS + MOE_BORROWED_TOKENS]; float importance[MOE_FEW_TOKENS + MOE_BORROWED_TOKENS];
};

struct moe_fisher moe_calibrate_sensitivity(const struct moe_calibration *o);

/* Of what all tokens pass: it has nothing to make up for. */
struct moe_mlp_method moe_calibrate_dense_method(const struct moe_calibration *o);

/* Routed experts of a layer that are to be quantized. */
int64_t moe_calibrate_coded_experts(const struct moe_source *src, const uint8_t *type, int64_t layer);
/* Operations beside the way forward: of one expert over so many tokens; of a layer's routed experts; of what
 * all tokens pass in a layer. */
double moe_calibrate_expert_work(const struct moe_source *src, const struct moe_calibration *o,
                                 double tokens);
double moe_calibrate_experts_work(const struct moe_source *src, const struct moe_calibration *o,
                                  int64_t layer);
double moe_calibrate_dense_work(const struct moe_source *src, const struct moe_calibration *o, int64_t layer);
/* Layers that tokens pass: up to the last of which anything is written. */
int64_t moe_calibrate_layers(const struct moe_source *src, const uint8_t *type);
/* What writing dense.moe counts as: one tensor of type[its index], all of them.  0 for what is left out. */
double moe_calibrate_copy_work(const struct moe_tensor *t, uint8_t type);
double moe_calibrate_copies(const struct moe_source *src, const uint8_t *type);

#endif
