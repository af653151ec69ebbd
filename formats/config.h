/* SPDX-License-Identifier: Apache-2.0 */
/* formats/config.h - the configuration of a K2-family model, read from config.json or from a container's
 * manifest.
 *
 * Keys and defaults are those of Hugging Face's DeepseekV3Config.  Knows nothing of the bytes of tensors. */
#ifndef MOE_FORMATS_CONFIG_H
#define MOE_FORMATS_CONFIG_H

#include "base/json.h"

#include <stdbool.h>
#include <stdint.h>

enum { MOE_EOS_MAX = 64 };

struct moe_config {
    /* architectures[0]: "DeepseekV3ForCausalLM", "KimiK25ForConditionalGeneration" ... */
    char architecture[64];
    char model_type[32];

    int64_t hidden_size, intermediate_size, moe_intermediate_size;
    int64_t num_hidden_layers, first_k_dense_replace;
    int64_t moe_layer_freq;      /* 1 */

    int64_t num_attention_heads;
    int64_t q_lora_rank;         /* 0: none */
    int64_t kv_lora_rank;
    int64_t qk_nope_head_dim, qk_rope_head_dim, v_head_dim;

    int64_t vocab_size;
    int64_t n_routed_experts, num_experts_per_tok, n_shared_experts;
    int64_t n_group, topk_group;
    int64_t num_nextn_predict_layers;
    int64_t max_position_embeddings;

    int64_t bos_token_id, pad_token_id; /* -1: none */
    int64_t eos_token_id[MOE_EOS_MAX];  /* of config.json and generation_config.json */
    int64_t n_eos;

    bool norm_topk_prob, tie_word_embeddings;
    double routed_scaling_factor, rms_norm_eps;
    double rope_theta;
    bool yarn;                   /* else plain rotary embedding; what follows is of YaRN */
    double yarn_factor, beta_fast, beta_slow;
    double mscale, mscale_all_dim;
    double original_max_position_embeddings;
};

/* The quantization that a checkpoint declares, in quantization_config (at the top level or in text_config) or
 * in hf_quant_config.json.  This is only a statement of intent: which tensors are there decides about each
 * tensor's type. */
enum moe_scheme {
    MOE_SCHEME_NONE,
    MOE_SCHEME_FP8,
    MOE_SCHEME_INT4,
    MOE_SCHEME_NVFP4_MODELOPT,
    MOE_SCHEME_NVFP4_CT,
    MOE_SCHEME_MIXED /* several of them in one model */
};

/* True for a layer with routed experts. */
static inline bool moe_layer_is_moe(const struct moe_config *c, int64_t layer)
{
    return c->n_routed_experts > 0 && layer >= c->first_k_dense_replace && layer % c->moe_layer_freq == 0;
}
/* Whether a layer may have one MLP in place of experts: it is intermediate_size wide. */
static inline bool moe_has_dense_layers(const struct moe_config *c)
{
    return c->first_k_dense_replace > 0 || c->moe_layer_freq > 1 || !c->n_routed_experts;
}

/* How many layers with routed experts a model has. */
static inline int64_t moe_config_moe_layers(const struct moe_config *c)
{
    int64_t n = 0;
    for (int64_t l = 0; l < c->num_hidden_layers; l++) n += moe_layer_is_moe(c, l);
    return n;
}

/* The first layer with routed experts; num_hidden_layers when there is none. */
static inline int64_t moe_config_first_moe(const struct moe_config *c)
{
    int64_t first = 0;
    while (first < c->num_hidden_layers && !moe_layer_is_moe(c, first)) first++;
    return first;
}

/* Read `dir`/config.json, and generation_config.json when it exists.  MOE_NOT_FOUND when there is no
 * config.json, or MOE_UNSUPPORTED where `dir` holds a model in a format that is not read.  MOE_UNSUPPORTED
 * also for an architecture, scoring function, rope type, activation or quantization that this code does not
 * support; MOE_CORRUPT for a missing key, a wrong type, or a value out of range (every product of sizes is
 * checked to stay below 2^48). */
enum moe_code moe_config_read(const char *dir, struct moe_config *c, enum moe_scheme *scheme,
                              struct moe_err *err);
/* The same for parsed JSON, the root object of a config.json; `file` names it in messages. */
enum moe_code moe_config_parse(const cJSON *root, const char *file, struct moe_config *c,
                               enum moe_scheme *scheme, struct moe_err *err);

/* The canonical form, for manifests: the text model's part of a config.json, with fixed keys in a fixed
 * order.  NULL when out of memory. */
cJSON *moe_config_json(const struct moe_config *c);

/* The number of parameters: of the whole model, and of those that are active for one token.  Both count
 * embedding and head; neither counts the router's bias. */
uint64_t moe_config_parameters(const struct moe_config *c);
uint64_t moe_config_parameters_active(const struct moe_config *c);

#endif
