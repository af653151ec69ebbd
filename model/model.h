/* SPDX-License-Identifier: Apache-2.0 */
/* model/model.h - a K2-family model ready to compute with: every weight where it lies in the mapped files.
 *
 * Nothing large is copied: weights stay in the files' mappings, whatever their type; only norms, router
 * biases and rotary frequencies become float32 vectors in memory.  A model does not change after open, so
 * any thread may read it.
 *
 * Letters in shapes: H hidden size, V vocabulary, E routed experts, ql q_lora_rank, kl kv_lora_rank, nope
 * qk_nope_head_dim, rope qk_rope_head_dim, v v_head_dim, inter the width of an MLP. */
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
    /* all shared experts as one MLP, n_shared_experts times as wide as a routed expert; data NULL: none */
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
    float softmax_scale, eps, lora_eps;           /* eps of the norms; lora_eps of the q_a and kv_a norms */
};

/* Maps the source, which must stay open until the model is closed.  lora_eps: the epsilon of the q_a and kv_a
 * norms; 0 means the config's rms_norm_eps, as engines use it (Hugging Face's code uses 1e-6).  After a
 * failure *m is NULL: MOE_NONFINITE for a NaN or Inf in a norm or a router bias, MOE_NOMEM, and what
 * moe_source_map returns. */
enum moe_code moe_model_open(struct moe_model **m, struct moe_source *src, double lora_eps,
                             struct moe_err *err);
void moe_model_close(struct moe_model **m);

/* To be called when `layer` (-1: the head) has computed a NaN or Inf.  Returns MOE_NONFINITE with a message
 * that names the first damaged tensor of that layer, or else of those outside the layers, or says that there
 * is none.  It reads all these weights, which takes long. */
enum moe_code moe_model_blame(const struct moe_model *m, int layer, struct moe_err *err);
/* The same where x [n], computed by `layer`, holds a NaN or Inf; MOE_OK where it does not. */
enum moe_code moe_model_check(const struct moe_model *m, int layer, const float *x, int64_t n,
                              struct moe_err *err);

#endif
