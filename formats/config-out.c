/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/config.h"
#include "formats/source.h"

#include <stdlib.h>

/* ---- the canonical form ---- */

static bool put(cJSON *o, const char *key, cJSON *v)
{
    return moe_json_add(o, key, v) != NULL;
}

static bool put_yarn(cJSON *o, const struct moe_config *c)
{
    cJSON *r = cJSON_CreateObject();
    if (!c->yarn) {
        cJSON_Delete(r);
        return put(o, "rope_scaling", cJSON_CreateNull());
    }
    if (!put(o, "rope_scaling", r)) return false;
    const struct { const char *key; double v;
    } f[] = { { "factor", c->yarn_factor },
              { "beta_fast", c->beta_fast },
              { "beta_slow", c->beta_slow },
              { "mscale", c->mscale },
              { "mscale_all_dim", c->mscale_all_dim },
              { "original_max_position_embeddings", c->original_max_position_embeddings } };
    bool ok = put(r, "type", cJSON_CreateString("yarn"));
    for (size_t i = 0; i < sizeof f / sizeof *f; i++) ok = ok && moe_json_add_f64(r, f[i].key, f[i].v);
    return ok;
}

static bool put_numbers(cJSON *o, const struct moe_config *c)
{
    const struct { const char *key; int64_t v;
    } n[] = {
#define N(key) { #key, c->key }
        N(hidden_size),
        N(intermediate_size),
        N(moe_intermediate_size),
        N(num_hidden_layers),
        N(first_k_dense_replace),
        N(moe_layer_freq),
        N(num_attention_heads),
        N(q_lora_rank),
        N(kv_lora_rank),
        N(qk_nope_head_dim),
        N(qk_rope_head_dim),
        N(v_head_dim),
        N(vocab_size),
        N(n_routed_experts),
        N(num_experts_per_tok),
        N(n_shared_experts),
        N(n_group),
        N(topk_group),
        N(num_nextn_predict_layers),
        N(max_position_embeddings),
#undef N
    };
    bool ok = true;
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        bool none = n[i].v == 0 && n[i].key[0] == 'q' && n[i].key[1] == '_';
        ok = ok && put(o, n[i].key, none ? cJSON_CreateNull() : cJSON_CreateNumber((double)n[i].v));
    }
    return ok && put(o, "num_key_value_heads", cJSON_CreateNumber((double)c->num_attention_heads));
}

static bool put_tokens(cJSON *o, const struct moe_config *c)
{
    double eos[MOE_EOS_MAX];
    for (int64_t i = 0; i < c->n_eos; i++) eos[i] = (double)c->eos_token_id[i];
    return (c->bos_token_id < 0 || put(o, "bos_token_id", cJSON_CreateNumber((double)c->bos_token_id))) &&
           (!c->n_eos ||
            put(o, "eos_token_id",
                c->n_eos == 1 ? cJSON_CreateNumber(eos[0]) : cJSON_CreateDoubleArray(eos, (int)c->n_eos))) &&
           (c->pad_token_id < 0 || put(o, "pad_token_id", cJSON_CreateNumber((double)c->pad_token_id)));
}

cJSON *moe_config_json(const struct moe_config *c)
{
    const char *arch = c->architecture;
    cJSON *o = cJSON_CreateObject();
    bool ok = o && put(o, "architectures", cJSON_CreateStringArray(&arch, 1)) &&
              put(o, "model_type", cJSON_CreateString(c->model_type)) &&
              put(o, "hidden_act", cJSON_CreateString("silu")) &&
              put(o, "scoring_func", cJSON_CreateString("sigmoid")) &&
              put(o, "topk_method", cJSON_CreateString("noaux_tc")) &&
              put(o, "attention_bias", cJSON_CreateBool(false)) &&
              put(o, "norm_topk_prob", cJSON_CreateBool(c->norm_topk_prob)) &&
              put(o, "tie_word_embeddings", cJSON_CreateBool(c->tie_word_embeddings)) && put_numbers(o, c) &&
              put(o, "routed_scaling_factor", cJSON_CreateNumber(c->routed_scaling_factor)) &&
              put(o, "rms_norm_eps", cJSON_CreateNumber(c->rms_norm_eps)) &&
              put(o, "rope_theta", cJSON_CreateNumber(c->rope_theta)) && put_yarn(o, c) && put_tokens(o, c);
    if (ok) return o;
    cJSON_Delete(o);
    return NULL;
}

/* ---- number of parameters ---- */

static uint64_t parameters(const struct moe_config *c, int64_t experts)
{
    uint64_t n = 0;
    for (int layer = -1; layer < c->num_hidden_layers; layer++)
        for (int role = 0; role < MOE_ROLE_COUNT; role++) {
            int64_t rows, cols;
            if (role == MOE_ROLE_ROUTER_BIAS || (role == MOE_ROLE_HEAD && c->tie_word_embeddings)) continue;
            if (!moe_tensor_shape(c, (enum moe_role)role, layer, &rows, &cols)) continue;
            n += (uint64_t)(rows * cols) *
                 (moe_role_class((enum moe_role)role) == MOE_CLASS_EXPERT ? (uint64_t)experts : 1);
        }
    return n;
}

uint64_t moe_config_parameters(const struct moe_config *c) { return parameters(c, c->n_routed_experts); }
uint64_t moe_config_parameters_active(const struct moe_config *c)
{
    return parameters(c, c->num_experts_per_tok);
}
