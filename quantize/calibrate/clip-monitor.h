/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/clip-monitor.h - counts how many of a layer's activations its static input scales clip
 * (quantize/rounding/clip.h), while the tokens pass the layer by the weights that were written.  A hook of
 * the forward pass shows the inputs of attention's projections; the walk counts those of MLPs.  One thread
 * calls. */
#ifndef MOE_QUANTIZE_CALIBRATE_CLIP_MONITOR_H
#define MOE_QUANTIZE_CALIBRATE_CLIP_MONITOR_H

#include "quantize/calibrate/dense.h"
#include "quantize/calibrate/report.h"

enum { MOE_MONITORED_INPUTS = 4 };

struct moe_clip_monitor {
    struct moe_walk *walk;
    struct moe_dense *dense;
    struct moe_clip attention[MOE_MONITORED_INPUTS]; /* of the layer at hand */
    struct moe_clip common[2]; /* of a dense or shared MLP: inputs of gate and up, of down */
    int common_layer;          /* the layer of `common` */
    struct moe_hooks hooks;
    struct moe_clipped *clipped; /* [n] the counts since the last layer's note, at most 8 a layer */
    int n;                       /* the caller sets it to 0 after a note */
};

/* walk and dense belong to the caller and must outlive the monitor w.  w tells dense the largest inputs of
 * attention's projections (moe_dense_set_input_scale).  Nothing is owned on failure. */
enum moe_code moe_clip_monitor_open(struct moe_clip_monitor *w, struct moe_walk *walk,
                                    struct moe_dense *dense, struct moe_err *err);
void moe_clip_monitor_release(struct moe_clip_monitor *w);

/* The caller tells w where in a layer the tokens are.  In each layer it calls, in this order: _attention
 * before the pass through attention, _attention_passed after it, _common before the MLP that all tokens pass,
 * _common_passed after it.  Then moe_clip_monitor_experts takes the tokens through the routed experts by the
 * weights in the unit's file (NULL: by the source's).  clip[0] counts the inputs of gate and up, clip[1]
 * those of down; the caller sets their limits, to INFINITY where there is no input scale. */
void moe_clip_monitor_attention(struct moe_clip_monitor *w);
void moe_clip_monitor_attention_passed(struct moe_clip_monitor *w);
void moe_clip_monitor_common(struct moe_clip_monitor *w);
void moe_clip_monitor_common_passed(struct moe_clip_monitor *w);
enum moe_code moe_clip_monitor_experts(struct moe_clip_monitor *w, const struct moe_shard_unit *u,
                                       const struct moe_unit_file *file, struct moe_clip *clip,
                                       struct moe_err *err);

#endif
