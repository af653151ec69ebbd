/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/clip-monitor.h - which of a layer's activations its static input scales clip
 * (quantize/rounding/clip.h), seen as the layer is walked through with the weights that were written:
 * attention's inputs by hooks, MLPs' by the walk. */
#ifndef MOE_QUANTIZE_CALIBRATE_CLIP_MONITOR_H
#define MOE_QUANTIZE_CALIBRATE_CLIP_MONITOR_H

#include "quantize/calibrate/dense.h"
#include "quantize/calibrate/report.h"

enum { MOE_MONITORED_INPUTS = 4 };

struct moe_clip_monitor {
    struct moe_walk *walk;
    struct moe_dense *dense;
    struct moe_clip attention[MOE_MONITORED_INPUTS], common[2];
    int common_layer;
    struct moe_hooks hooks;
    struct moe_clipped *clipped; int n; /* since the last layer's note; at most 8 a layer */
};

/* walk and dense stay the caller's, and must stay; dense is told the largest inputs of attention's
 * projections (moe_dense_seen). */
enum moe_code moe_clip_monitor_open(struct moe_clip_monitor *w, struct moe_walk *walk,
                                    struct moe_dense *dense, struct moe_err *err);
void moe_clip_monitor_release(struct moe_clip_monitor *w);

/* In the order of a layer: its attention comes now; that has passed; the MLP that all tokens pass comes now;
 * that has passed; its routed experts, through the weights in the unit's file (NULL: the source's), clip [2]:
 * the inputs of gate and up, and of down (limit INFINITY: they have no input scale). */
void moe_clip_monitor_attention(struct moe_clip_monitor *w);
void moe_clip_monitor_attention_passed(struct moe_clip_monitor *w);
void moe_clip_monitor_common(struct moe_clip_monitor *w);
void moe_clip_monitor_common_passed(struct moe_clip_monitor *w);
enum moe_code moe_clip_monitor_experts(struct moe_clip_monitor *w, const struct moe_shard_unit *u,
                                       const struct moe_unit_file *file, struct moe_clip *clip,
                                       struct moe_err *err);

#endif
