/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/calibrate/clip-monitor.h"

#include <math.h>
#include <stdlib.h>

enum moe_code moe_clip_monitor_open(struct moe_clip_monitor *w, struct moe_walk *walk,
                                    struct moe_dense *dense, struct moe_err *err)
{
    *w = (struct moe_clip_monitor){ .walk = walk,
                             .dense = dense,
                             .clipped = calloc(8 * (size_t)walk->src->config.num_hidden_layers,
                                               sizeof *w->clipped) };
    return w->clipped ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for calibration");
}

void moe_clip_monitor_release(struct moe_clip_monitor *w)
{
    free(w->clipped);
    *w = (struct moe_clip_monitor){ 0 };
}

/* Appends a count to w->clipped, if anything was counted and there is an input scale. */
static void add(struct moe_clip_monitor *w, int layer, const char *input, const struct moe_clip *clip)
{
    if (clip->seen && isfinite(clip->limit)) w->clipped[w->n++] = (struct moe_clipped){ layer, input, *clip };
}

/* A count of zero whose limit is what the input scale of t can represent; t NULL: without a limit. */
static struct moe_clip clip_by_scale_of(const struct moe_spill_tensor *t)
{
    return t ? moe_clip_under(t->input_scale) : (struct moe_clip){ .limit = INFINITY };
}

/* ---- attention ---- */

/* The inputs that are monitored.  Of each: the role under which the forward pass's hook shows it, the
 * projections that multiply it (filled up by repetition), and its name in reports. */
static const struct { enum moe_role role, projection[3]; const char *name;
} monitored[MOE_MONITORED_INPUTS] = {
    { MOE_ROLE_KV_A, { MOE_ROLE_KV_A, MOE_ROLE_Q_A, MOE_ROLE_Q }, "q_a_kv_a" },
    { MOE_ROLE_Q_B, { MOE_ROLE_Q_B, MOE_ROLE_Q_B, MOE_ROLE_Q_B }, "q_b" },
    { MOE_ROLE_KV_B, { MOE_ROLE_KV_B, MOE_ROLE_KV_B, MOE_ROLE_KV_B }, "kv_b" },
    { MOE_ROLE_O, { MOE_ROLE_O, MOE_ROLE_O, MOE_ROLE_O }, "o" },
};

/* The first of an input's projections that was quantized; NULL: none was. */
static const struct moe_spill_tensor *first_quantized(const struct moe_clip_monitor *w, int input)
{
    const struct moe_spill_tensor *t = NULL;
    for (int i = 0; !t && i < 3; i++) t = moe_spill_find(&w->dense->tensors, monitored[input].projection[i]);
    return t;
}

/* The hook of the forward pass. */
static void count_input(void *ctx, int layer, enum moe_role role, int expert, const float *x, int64_t ldx,
                        int64_t n)
{
    struct moe_clip_monitor *w = ctx;
    (void)layer, (void)expert;
    for (int i = 0; i < MOE_MONITORED_INPUTS; i++)
        if (monitored[i].role == role && first_quantized(w, i))
            moe_clip_count(&w->attention[i], x, ldx, first_quantized(w, i)->cols, n);
}

/* The input scales of a layer that is calibrated now are made after this pass, from the largest inputs that
 * it shows, so none of its inputs exceed them and no limit is set.  A resumed run has read them from the
 * layer's file. */
void moe_clip_monitor_attention(struct moe_clip_monitor *w)
{
    bool any = false;
    for (int i = 0; i < MOE_MONITORED_INPUTS; i++) {
        w->attention[i] = w->dense->from_file ? clip_by_scale_of(first_quantized(w, i))
                                              : (struct moe_clip){ .limit = INFINITY };
        any |= first_quantized(w, i) != NULL;
    }
    w->hooks = (struct moe_hooks){ .ctx = w, .input = count_input };
    if (any) moe_forward_hooks(w->walk->f, &w->hooks);
}

void moe_clip_monitor_attention_passed(struct moe_clip_monitor *w)
{
    moe_forward_hooks(w->walk->f, NULL);
    for (int i = 0; i < MOE_MONITORED_INPUTS; i++) {
        for (int k = 0; k < 3 && w->attention[i].seen; k++)
            moe_dense_set_input_scale(w->dense, monitored[i].projection[k], w->attention[i].largest);
        w->attention[i].limit = clip_by_scale_of(first_quantized(w, i)).limit;
        add(w, w->walk->layer, monitored[i].name, &w->attention[i]);
    }
}

/* ---- MLPs ---- */

void moe_clip_monitor_common(struct moe_clip_monitor *w)
{
    enum moe_role gate = moe_layer_is_moe(&w->walk->src->config, w->walk->layer) ? MOE_ROLE_SHARED_GATE
                                                                                 : MOE_ROLE_GATE;
    const struct moe_spill_tensor *x = moe_spill_find(&w->dense->tensors, (int)gate);
    const struct moe_spill_tensor *y = moe_spill_find(&w->dense->tensors, (int)gate + 2);
    if (!x) x = moe_spill_find(&w->dense->tensors, (int)gate + 1);
    w->common_layer = w->walk->layer;
    w->common[0] = clip_by_scale_of(x);
    w->common[1] = clip_by_scale_of(y);
    w->walk->clip = x || y ? w->common : NULL;
}

void moe_clip_monitor_common_passed(struct moe_clip_monitor *w)
{
    static const char *const name[2][2] = { { "gate_up", "down" }, { "shared_gate_up", "shared_down" } };
    bool moe = moe_layer_is_moe(&w->walk->src->config, w->common_layer);
    for (int i = 0; w->walk->clip && i < 2; i++) add(w, w->common_layer, name[moe][i], &w->common[i]);
    w->walk->clip = NULL;
}

enum moe_code moe_clip_monitor_experts(struct moe_clip_monitor *w, const struct moe_shard_unit *u,
                                       const struct moe_unit_file *file, struct moe_clip *clip,
                                       struct moe_err *err)
{
    w->walk->clip = clip;
    enum moe_code code = moe_walk_experts(w->walk, u, file, NULL, err);
    w->walk->clip = NULL;
    add(w, u->layer, "gate_up", &clip[0]);
    add(w, u->layer, "down", &clip[1]);
    return code;
}
