/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/passes/work.h - counts the floating-point operations of a calibrated run, two for a multiply-add.
 * --dry-run states them, progress counts in them, and the report divides them by seconds.
 *
 * Every count is linear in tokens, so that the parts add up to the whole whatever the routing is.
 * Products and factorizations are counted; norms, softmax, the choice of scales and reading are not. */
#ifndef MOE_QUANTIZE_PASSES_WORK_H
#define MOE_QUANTIZE_PASSES_WORK_H

#include "base/progress.h"
#include "formats/source.h"
#include "quantize/rounding/mlp.h"

#include <pthread.h>

/* ---- one layer forward ---- */

/* The operations that take n tokens, in sequences of `sequence`, through a layer's attention; through its
 * router; through an MLP with gate and up [inter, hidden] and down [hidden, inter]. */
double moe_work_attention(const struct moe_config *c, double n, double sequence);
double moe_work_router(const struct moe_config *c, double n);
double moe_work_mlp(int64_t hidden, int64_t inter, double n);

/* The width of the MLP that all tokens pass in this layer: the dense one, or the shared experts; 0: none. */
int64_t moe_work_common_width(const struct moe_config *c, int64_t layer);

/* The operations that take n tokens through the routed experts that they chose. */
double moe_work_experts(const struct moe_config *c, double n);

/* The operations of a whole layer. */
double moe_work_forward(const struct moe_config *c, int64_t layer, double n, double sequence);

/* What quantize/calibrate/correction.h does in a layer: the source's tokens through all of it, and the
 * quantized model's through its unquantized experts. */
double moe_work_correction(const struct moe_config *c, int64_t layer, double n, double sequence);

/* ---- quantizing ---- */

/* The operations of moe_mlp_quantize over n tokens.  rows: down has an output Hessian. */
struct moe_work_quantize { double statistics, factoring, rounding; };
struct moe_work_quantize moe_work_quantize(const struct moe_mlp_method *how, int64_t hidden, int64_t inter,
                                           bool rows, double n);
double moe_work_sum(struct moe_work_quantize w);

/* What quantize/calibrate/dense.h does in a layer: another pass of all tokens through attention, which
 * sums the Hessians; rounding attention's projections; quantizing the MLP that all tokens pass. */
struct moe_work_dense { double pass, projections, mlp; };
struct moe_work_dense moe_work_dense(const struct moe_source *src, const uint8_t *type,
                                     const struct moe_mlp_method *how, int64_t layer, double n,
                                     double sequence);

/* ---- the sensitivity pass (quantize/passes/fisher.h) ---- */

/* Backward through the head; a layer's Fisher matrix; backward through an MLP, a router, attention. */
double moe_work_head_back(const struct moe_config *c, double n);
double moe_work_fisher(const struct moe_config *c, double n);
double moe_work_mlp_back(int64_t hidden, int64_t inter, double n);
double moe_work_router_back(const struct moe_config *c, double n);
double moe_work_attention_back(const struct moe_config *c, double n, double sequence);

/* The whole pass, forward and backward, with what the backward half computes again. */
double moe_work_sensitivity(const struct moe_config *c, double n, double sequence);

/* What is left of it once the gradients after `layer` are known. */
double moe_work_sensitivity_from(const struct moe_config *c, double n, double sequence, int layer);

/* ---- progress ---- */

/* Shows progress in millions of operations.  Calls are safe from any thread and accept NULL, but for init and
 * release. */
struct moe_meter {
    struct moe_progress *progress;
    pthread_mutex_t lock;
    double done;   /* operations */
    uint64_t told; /* millions that progress has been told of */
};
void moe_meter_init(struct moe_meter *m, struct moe_progress *p);
void moe_meter_release(struct moe_meter *m);
void moe_meter_begin(struct moe_meter *m, const char *label, double total); /* until moe_progress_end */
void moe_meter_add(struct moe_meter *m, double operations);
void moe_meter_skip(struct moe_meter *m, double operations); /* an earlier run has done them */
void moe_meter_label(struct moe_meter *m, const char *label);

#endif
