/* SPDX-License-Identifier: Apache-2.0 */
/* model/model.h - a K2-family model ready to compute with: every weight where it lies in the mapped files.
 *
 * Nothing large is copied: weights stay in the files' mappings, whatever their type; only norms,
 * router bias and rotary tables become float32 vectors in memory.  A model is immutable after open
 * and safe from any thread. */
#ifndef MOE_MODEL_MODEL_H
#define MOE_MODEL_MODEL_H

#include "base/arena.h"
#include "formats/source.h"
#include "kernels/ops.h"

struct moe_expert { struct moe_weight gate, up, down; };  /* [inter, H], [inter, H], [H, inter] */

struct moe_layer {
    bool moe;
    const float *input_norm, *post_norm;          /* [H] */
    /* q_a [ql, H], q_b [heads * (nope + rope), ql]; or q alone (q_lora_rank 0) */
    struct moe_weight q_a, q_b, q;
    const float *q_a_norm, *kv_a_norm;            /* [ql], [kl] */
    /* [kl + rope, H], [heads * (nope + v), kl], [H, heads * v] */
    struct moe_weight kv_a, kv_b, o;
    struct moe_expert dense;                      /* layers without routed experts */
    struct moe_weight router;                     /* [E, H] */
    const float *router_bias;                     /* [E] */
    /* its inter is n_shared_experts times an expert's; data NULL: none */
    struct moe_expert shared;
    struct moe_expert *experts;                   /* [E] */
};

struct moe_model {
    struct moe_config config;
    const struct moe_source *source;              /* not owned; must stay open and mapped */
    struct moe_arena arena;
    struct moe_weight embed, head;                /* [V, H] */
    const float *norm;                            /* [H] */
    struct moe_layer *layers;
    struct moe_router route;
    struct moe_rope_config rope;
    const float *inv_freq;                        /* [rope / 2] */
    float softmax_scale, eps, lora_eps;           /* lora_eps: of the q_a and kv_a norms */
};

/* lora_eps: 0 takes the config's rms_norm_eps (as engines do), else that value (1e-6 is what Hugging Face's
 * code uses).  Maps the source. */
enum moe_code moe_model_open(struct moe_model **m, struct moe_source *src, double lora_eps,
                             struct moe_err *err);
void moe_model_close(struct moe_model **m);

/* After a NaN or Inf in what `layer` (-1: the head) computed: MOE_NONFINITE naming the first damaged tensor
 * of that layer, or of the embedding and head.  Reads these weights whole: for the way out only. */
enum moe_code moe_model_blame(const struct moe_model *m, int layer, struct moe_err *err);

#endif
