/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/passes/work.h - floating-point operations of a calibrated run, two for a multiply-add: what
 * --dry-run states, what progress counts and what the report divides by seconds.
 *
 * Part by part and linear in tokens, so that the parts add up to the whole whatever the routing is.  Products
 * and factorizations are counted; norms, softmax, the choice of scales and reading are not. */
#ifndef MOE_QUANTIZE_PASSES_WORK_H
#define MOE_QUANTIZE_PASSES_WORK_H

#include "base/progress.h"
#include "formats/source.h"
#include "quantize/rounding/mlp.h"

#include <pthread.h>

/* n tokens in sequences of `sequence` through a layer's attention; its router; an MLP gate, up [inter,
 * hidden], down [hidden, inter]. */
double moe_work_attention(const struct moe_config *c, double n, double sequence);
double moe_work_router(const struct moe_config *c, double n);
double moe_work_mlp(int64_t hidden, int64_t inter, double n);
/* Width of the MLP that all tokens pass in this layer: dense, or the shared experts; 0: none. */
int64_t moe_work_common(const struct moe_config *c, int64_t layer);
/* n tokens through the routed experts they chose. */
double moe_work_experts(const struct moe_config *c, double n);
/* All of a layer forward; what quantize/calibrate/correction.h does in one: forward, and
 * through its experts once more. */
double moe_work_forward(const struct moe_config *c, int64_t layer, double n, double sequence);
double moe_work_correction(const struct moe_config *c, int64_t layer, double n, double sequence);

/* An MLP quantized over n tokens (moe_mlp_quantize); rows: there is an output Hessian. */
struct moe_work_quantize { double statistics, factoring, rounding; };
struct moe_work_quantize moe_work_quantize(const struct moe_mlp_method *how, int64_t hidden, int64_t inter,
                                           bool rows, double n);
double moe_work_sum(struct moe_work_quantize w);

/* What quantize/calibrate/dense.h does in a layer: one more pass through attention and its projections
 * rounded; the MLP that all tokens pass. */
struct moe_work_dense { double pass, projections, mlp; };
struct moe_work_dense moe_work_dense(const struct moe_source *src, const uint8_t *type,
                                     const struct moe_mlp_method *how, int64_t layer, double n,
                                     double sequence);

/* The backward half of the sensitivity pass (quantize/passes/fisher.h): start at the head; a
 * layer's Fisher matrix; through an MLP, a router, attention.  Then the whole pass, forward and back, what is
 * computed again included. */
double moe_work_head_back(const struct moe_config *c, double n);
double moe_work_fisher(const struct moe_config *c, double n);
double moe_work_mlp_back(int64_t hidden, int64_t inter, double n);
double moe_work_router_back(const struct moe_config *c, double n);
double moe_work_attention_back(const struct moe_config *c, double n, double sequence);
double moe_work_sensitivity(const struct moe_config *c, double n, double sequence);
/* What of it is left once the gradients after `layer` are known. */
double moe_work_sensitivity_from(const struct moe_config *c, double n, double sequence, int layer);

/* Progress in millions of operations.  Safe from any thread; all accept NULL. */
struct moe_meter { struct moe_progress *progress; pthread_mutex_t lock; double done; uint64_t told; };
void moe_meter_init(struct moe_meter *m, struct moe_progress *p);
void moe_meter_release(struct moe_meter *m);
void moe_meter_begin(struct moe_meter *m, const char *label, double total); /* until moe_progress_end */
void moe_meter_add(struct moe_meter *m, double operations);
void moe_meter_skip(struct moe_meter *m, double operations); /* done by an earlier run */
void moe_meter_label(struct moe_meter *m, const char *label);

#endif
