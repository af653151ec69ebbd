/* SPDX-License-Identifier: Apache-2.0 */
/* formats/config.h - the shape of a K2-family model, from config.json or from a container's manifest.
 *
 * Source of the keys and of every default: Hugging Face's DeepseekV3 configuration.
 * Knows no tensors' bytes. */
#ifndef MOE_FORMATS_CONFIG_H
#define MOE_FORMATS_CONFIG_H

#include "base/json.h"

#include <stdbool.h>
#include <stdint.h>

enum { MOE_EOS_MAX = 64 };

struct moe_config {
    /* architectures[0], "DeepseekV3ForCausalLM", "KimiK25ForConditionalGeneration" ... */
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

/* How the weights are stored, from quantization_config (top level or in text_config) or hf_quant_config.json.
 * Only a statement of intent: each tensor's type is decided by which tensors are present. */
enum moe_scheme {
    MOE_SCHEME_NONE,
    MOE_SCHEME_FP8,
    MOE_SCHEME_INT4,
    MOE_SCHEME_NVFP4_MODELOPT,
    MOE_SCHEME_NVFP4_CT,
    MOE_SCHEME_MIXED /* several, by layer */
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

/* Read `dir`/config.json (and generation_config.json when there).  Without one MOE_NOT_FOUND, or
 * MOE_UNSUPPORTED where `dir` holds a model in a format that is not read.  MOE_UNSUPPORTED, too, for an
 * architecture, scoring function, rope type, activation or quantization this code does not do;
 * MOE_CORRUPT for a missing key, a wrong type, or a value out of range (every product of sizes is
 * checked to stay below 2^48). */
enum moe_code moe_config_read(const char *dir, struct moe_config *c, enum moe_scheme *scheme,
                              struct moe_err *err);
/* The same from parsed text (the root object of a config.json); `file` names it in messages. */
enum moe_code moe_config_parse(const cJSON *root, const char *file, struct moe_config *c,
                               enum moe_scheme *scheme, struct moe_err *err);

/* The canonical form, for manifests: the text part of a config.json again, with fixed keys in fixed order.
 * NULL when out of memory. */
cJSON *moe_config_json(const struct moe_config *c);

/* Parameters in all and active for one token, counting embedding and head (router bias not counted). */
uint64_t moe_config_parameters(const struct moe_config *c);
uint64_t moe_config_parameters_active(const struct moe_config *c);

#endif
