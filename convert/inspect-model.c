/* SPDX-License-Identifier: Apache-2.0 */
/* What a model is beyond its tensors (attention, context, tokenizer, how it was quantized), and the list of
 * its layers. */
#include "convert/inspect.h"

#include "formats/container/container.h"
#include "formats/tokenizer/chat.h"
#include "formats/tokenizer/tokenizer.h"

#include <stdlib.h>

/* ---- shape ---- */

static bool add_rope(cJSON *j, const struct moe_config *c)
{
    cJSON *o = moe_json_add_object(j, "rope");
    bool ok = o && moe_json_add_str(o, "type", c->yarn ? "yarn" : "default") &&
              moe_json_add_f64(o, "theta", c->rope_theta);
    if (!ok || !c->yarn) return ok;
    return moe_json_add_f64(o, "factor", c->yarn_factor) &&
           moe_json_add_f64(o, "original_context_length", c->original_max_position_embeddings) &&
           moe_json_add_f64(o, "mscale", c->mscale) &&
           moe_json_add_f64(o, "mscale_all_dim", c->mscale_all_dim) &&
           moe_json_add_f64(o, "beta_fast", c->beta_fast) &&
           moe_json_add_f64(o, "beta_slow", c->beta_slow);
}

static bool add_shape(cJSON *j, const struct moe_config *c)
{
    return moe_json_add_i64(j, "context_length", c->max_position_embeddings) && add_rope(j, c) &&
           moe_json_add_i64(j, "heads", c->num_attention_heads) &&
           moe_json_add_i64(j, "q_lora_rank", c->q_lora_rank) &&
           moe_json_add_i64(j, "kv_lora_rank", c->kv_lora_rank) &&
           moe_json_add_i64(j, "qk_nope_head_dim", c->qk_nope_head_dim) &&
           moe_json_add_i64(j, "qk_rope_head_dim", c->qk_rope_head_dim) &&
           moe_json_add_i64(j, "v_head_dim", c->v_head_dim) &&
           moe_json_add_i64(j, "dense_layers", c->num_hidden_layers - moe_config_moe_layers(c)) &&
           moe_json_add_i64(j, "shared_experts", c->n_shared_experts) &&
           moe_json_add_i64(j, "expert_groups", c->n_group) &&
           moe_json_add_i64(j, "expert_groups_used", c->topk_group);
}

/* ---- tokenizer ---- */

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for the summary");
}

/* Adds the name that --chat-template has for the model's chat template; null for one that is not built in. */
static enum moe_code add_template(cJSON *o, const struct moe_source *src, const struct moe_tokenizer *t,
                                  struct moe_err *err)
{
    const struct moe_chat_hint hint = { .model_type = src->config.model_type,
                                        .architecture = src->config.architecture };
    struct moe_chat *chat = NULL;
    enum moe_code code = moe_chat_open(&chat, t, &hint, err);
    if (code == MOE_NOMEM || code == MOE_IO) return code;
    cJSON *v = chat ? moe_json_add_str(o, "chat_template", moe_chat_name(chat))
                    : moe_json_add_null(o, "chat_template");
    moe_chat_close(&chat);
    return v ? MOE_OK : no_memory(err);
}

/* Adds "tokenizer".  Weights can be inspected without one, so what is wrong with its files is reported as
 * "problem" and is no failure. */
static enum moe_code add_tokenizer(cJSON *j, const struct moe_source *src, struct moe_tokenizer **t,
                                   struct moe_err *err)
{
    enum moe_code code = moe_tokenizer_open(t, src->path, 0, err);
    if (code == MOE_NOMEM || code == MOE_IO) return code;
    if (code == MOE_NOT_FOUND) return moe_json_add_null(j, "tokenizer") ? MOE_OK : no_memory(err);
    cJSON *o = moe_json_add_object(j, "tokenizer");
    if (o && code != MOE_OK)
        return moe_json_add_null(o, "kind") && moe_json_add_str(o, "problem", err->msg)
                 ? MOE_OK
                 : no_memory(err);
    bool ok = o && moe_json_add_str(o, "kind", "tiktoken") && /* no other kind opens */
              moe_json_add_i64(o, "vocabulary", moe_tokenizer_size(*t));
    if (!ok) return no_memory(err);
    return add_template(o, src, *t, err);
}

static bool add_end_tokens(cJSON *j, const struct moe_config *c, const struct moe_tokenizer *t)
{
    cJSON *list = moe_json_add_array(j, "end_tokens");
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < c->n_eos; i++) {
        char room[MOE_TOKEN_ROOM];
        size_t n = 0;
        bool fits = t && c->eos_token_id[i] >= 0 && c->eos_token_id[i] < moe_tokenizer_size(t);
        const char *piece = fits ? moe_token_bytes(t, (int32_t)c->eos_token_id[i], room, &n) : NULL;
        cJSON *o = moe_json_append(list, cJSON_CreateObject());
        ok = moe_json_add_i64(o, "id", c->eos_token_id[i]) &&
             (piece ? moe_json_add_text(o, "piece", piece, n) : moe_json_add_null(o, "piece"));
    }
    return ok;
}

/* ---- how it was quantized ---- */

static const cJSON *quantization(const struct moe_source *src)
{
    const cJSON *q = src->container ? moe_json_get(src->container->manifest, "quantization") : NULL;
    return cJSON_IsObject(q) ? q : NULL;
}

/* Adds a copy of a member of the manifest's "quantization", or null. */
static bool copy(cJSON *o, const char *as, const cJSON *from)
{
    return moe_json_add(o, as, from ? cJSON_Duplicate(from, true) : cJSON_CreateNull());
}

static bool add_quantization(cJSON *j, const struct moe_source *src)
{
    const cJSON *q = quantization(src), *calibration = q ? moe_json_get(q, "calibration") : NULL;
    if (!q) return moe_json_add_null(j, "quantization") != NULL;
    cJSON *o = moe_json_add_object(j, "quantization");
    return o && copy(o, "method", moe_json_get(q, "method")) &&
           copy(o, "quantize", moe_json_get(q, "quantize")) &&
           moe_json_add_bool(o, "calibrated", cJSON_IsObject(calibration)) &&
           copy(o, "calibration_tokens", calibration ? moe_json_get(calibration, "tokens") : NULL) &&
           copy(o, "input_scale", moe_json_get(q, "input_scale")) &&
           copy(o, "relative_error", moe_json_get(moe_json_get(q, "relative_error"), "total"));
}

enum moe_code moe_inspect_model(const struct moe_source *src, cJSON *j, struct moe_err *err)
{
    struct moe_tokenizer *t = NULL;
    enum moe_code code = add_shape(j, &src->config) ? add_tokenizer(j, src, &t, err) : no_memory(err);
    if (code == MOE_OK && !(add_end_tokens(j, &src->config, t) && add_quantization(j, src)))
        code = no_memory(err);
    moe_tokenizer_close(&t);
    return code;
}

/* ---- layer by layer ---- */

/* The errors that the manifest has for layers: rows[layer], NULL where it has none.  The caller frees the
 * array; NULL without memory. */
static const cJSON **errors_of(const struct moe_source *src)
{
    const cJSON **rows = calloc((size_t)src->config.num_hidden_layers + 1, sizeof *rows),
                *q = quantization(src);
    const cJSON *layers = q ? moe_json_get(moe_json_get(q, "relative_error"), "layers") : NULL;
    for (const cJSON *l = rows && cJSON_IsArray(layers) ? layers->child : NULL; l; l = l->next) {
        const cJSON *n = moe_json_get(l, "layer");
        if (cJSON_IsNumber(n) && n->valuedouble >= 0 &&
            n->valuedouble < (double)src->config.num_hidden_layers)
            rows[n->valueint] = l;
    }
    return rows;
}

static bool add_layer(cJSON *list, const struct moe_source *src, const struct moe_tensor *t, int64_t n,
                      const cJSON *error)
{
    static const char *const parts[] = { "gate", "up", "down" };
    cJSON *row = moe_json_append(list, cJSON_CreateObject());
    bool moe = t->layer >= 0 && moe_layer_is_moe(&src->config, t->layer);
    cJSON *number = t->layer < 0 ? moe_json_add_null(row, "layer")
                                 : moe_json_add_i64(row, "layer", t->layer);
    bool ok = number &&
              moe_json_add_str(row, "kind",
                               t->layer < 0 ? "model"
                               : moe        ? "experts"
                                                   : "dense") &&
              moe_inspect_add_types(row, t, n);
    if (!ok || !error) return ok && moe_json_add_null(row, "relative_error");
    cJSON *e = moe_json_add_object(row, "relative_error");
    for (int i = 0; e && ok && i < 3; i++) ok = copy(e, parts[i], moe_json_get(error, parts[i]));
    return e && ok;
}

enum moe_code moe_inspect_layers(const struct moe_source *src, cJSON **out, struct moe_err *err)
{
    cJSON *list = cJSON_CreateArray();
    const cJSON **errors = errors_of(src);
    bool ok = list && errors;
    for (int64_t i = 0, k; ok && i < src->n_tensors; i = k) {
        int layer = src->tensors[i].layer;
        for (k = i + 1; k < src->n_tensors && src->tensors[k].layer == layer; k++) continue;
        ok = add_layer(list, src, src->tensors + i, k - i, layer >= 0 ? errors[layer] : NULL);
    }
    free(errors);
    *out = ok ? list : NULL;
    if (ok) return MOE_OK;
    cJSON_Delete(list);
    return moe_fail(err, MOE_NOMEM, "no memory for the list of layers");
}
