/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/clip-monitor.h - counts which of a layer's activations its static input scales clip
 * (quantize/rounding/clip.h), while the tokens pass the layer through the weights that were written.  The
 * inputs of attention's projections come from a hook of the forward pass, those of MLPs from the walk. */
#ifndef MOE_QUANTIZE_CALIBRATE_CLIP_MONITOR_H
#define MOE_QUANTIZE_CALIBRATE_CLIP_MONITOR_H

#include "quantize/calibrate/dense.h"
#include "quantize/calibrate/report.h"

enum { MOE_MONITORED_INPUTS = 4 };

struct moe_clip_monitor {
    struct moe_walk *walk;
    struct moe_dense *dense;
    struct moe_clip attention[MOE_MONITORED_INPUTS]; /* of the layer at hand */
    struct moe_clip common[2]; /* of its dense or shared MLP: inputs of gate and up, of down */
    int common_layer;          /* the layer of `common` */
    struct moe_hooks hooks;
    struct moe_clipped *clipped; /* what was counted since the last layer's note, at most 8 a layer */
    int n;
};

/* walk and dense belong to the caller and must outlive w.  dense is told the largest inputs of attention's
 * projections (moe_dense_seen). */
enum moe_code moe_clip_monitor_open(struct moe_clip_monitor *w, struct moe_walk *walk,
                                    struct moe_dense *dense, struct moe_err *err);
void moe_clip_monitor_release(struct moe_clip_monitor *w);

/* The caller says where in a layer it is, in this order: before attention, after it, before the MLP that
 * all tokens pass, after it.  Then moe_clip_monitor_experts takes the tokens through the routed experts
 * by the weights in the unit's file (NULL: the source's).  clip [2] counts the inputs of gate and up, and
 * of down; a limit of INFINITY means that they have no input scale. */
void moe_clip_monitor_attention(struct moe_clip_monitor *w);
void moe_clip_monitor_attention_passed(struct moe_clip_monitor *w);
void moe_clip_monitor_common(struct moe_clip_monitor *w);
void moe_clip_monitor_common_passed(struct moe_clip_monitor *w);
enum moe_code moe_clip_monitor_experts(struct moe_clip_monitor *w, const struct moe_shard_unit *u,
                                       const struct moe_unit_file *file, struct moe_clip *clip,
                                       struct moe_err *err);

#endif
