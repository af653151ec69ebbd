/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/config.h"

#include "base/io.h"
#include "formats/checkpoint/foreign.h"
#include "formats/checkpoint/quantconfig.h"
#include "formats/source.h"

#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES = 16 << 20, DIMENSION_MAX = 1 << 24 }; /* largest file; largest size of one dimension */

/* Integers of the config: those that must be there, and others with the defaults of Hugging Face's
 * DeepseekV3Config.  at: offset of the member in struct moe_config, which has the name of the key. */
static const struct { const char *key; size_t at; bool required; int64_t min, max, value_if_missing;
} ints[] = {
#define REQUIRED(key, min, max)         { #key, offsetof(struct moe_config, key), true, min, max, 0 }
#define OPTIONAL(key, min, max, value)  { #key, offsetof(struct moe_config, key), false, min, max, value }
    REQUIRED(hidden_size, 1, DIMENSION_MAX),
    REQUIRED(intermediate_size, 1, DIMENSION_MAX),
    REQUIRED(num_hidden_layers, 1, 4096),
    REQUIRED(num_attention_heads, 1, 65536),
    REQUIRED(kv_lora_rank, 1, 65536),
    REQUIRED(qk_nope_head_dim, 1, 65536),
    REQUIRED(qk_rope_head_dim, 2, 65536),
    REQUIRED(v_head_dim, 1, 65536),
    REQUIRED(vocab_size, 1, DIMENSION_MAX),
    OPTIONAL(q_lora_rank, 0, 65536, 1536),
    OPTIONAL(n_routed_experts, 0, 65536, 0),
    OPTIONAL(moe_intermediate_size, 0, DIMENSION_MAX, 0),
    OPTIONAL(num_experts_per_tok, 0, 65536, 0),
    OPTIONAL(first_k_dense_replace, 0, 65536, 3),
    OPTIONAL(moe_layer_freq, 1, 65536, 1),
    OPTIONAL(n_shared_experts, 0, 65536, 1),
    OPTIONAL(n_group, 1, 65536, 8),
    OPTIONAL(topk_group, 1, 65536, 4),
    OPTIONAL(num_nextn_predict_layers, 0, 1024, 0),
    OPTIONAL(max_position_embeddings, 1, INT32_MAX, 4096),
#undef REQUIRED
#undef OPTIONAL
};

static int64_t *int_at(struct moe_config *c, int i) { return (int64_t *)(void *)((char *)c + ints[i].at); }

static enum moe_code read_ints(const cJSON *o, const char *file, struct moe_config *c, struct moe_err *err)
{
    for (int i = 0; i < (int)(sizeof ints / sizeof *ints); i++) {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, ints[i].key);
        bool none = v && cJSON_IsNull(v) && ints[i].min == 0; /* "q_lora_rank": null */
        *int_at(c, i) = none ? 0 : ints[i].value_if_missing;
        MOE_TRY(moe_json_i64(o, ints[i].key, ints[i].required && !none, ints[i].min, ints[i].max,
                             int_at(c, i), file, err));
    }
    return MOE_OK;
}

/* ---- values that this code does not support ---- */

/* Fail unless the text at `key` is `want` or missing; require_bool does the same for a boolean. */
static enum moe_code require_str(const cJSON *o, const char *key, const char *want, const char *file,
                                 struct moe_err *err)
{
    const char *s = want;
    MOE_TRY(moe_json_str(o, key, false, &s, file, err));
    if (!strcmp(s, want)) return MOE_OK;
    return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL, "%s '%.60s' is not supported ('%s' is)", key, s,
                       want);
}

static enum moe_code require_bool(const cJSON *o, const char *key, bool want, const char *file,
                                  struct moe_err *err)
{
    bool b = want;
    MOE_TRY(moe_json_bool(o, key, false, &b, file, err));
    return b == want ? MOE_OK
                     : moe_fail_at(err, MOE_UNSUPPORTED, file, NULL, "%s %s is not supported", key,
                                   b ? "true" : "false");
}

static const char *const architectures[] = { "DeepseekV3ForCausalLM", "KimiK2ForCausalLM",
                                             "KimiK25ForConditionalGeneration", "DeepseekV2ForCausalLM" };
static const char *const model_types[] = { "kimi_k2", "kimi_k25", "deepseek_v3", "deepseek_v2" };

static bool is_listed(const char *s, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(s, list[i])) return true;
    return false;
}

/* DeepSeek-V2 is the same architecture only when its scoring function is that of V3; its default is
 * softmax. */
static enum moe_code read_architecture(const cJSON *root, const cJSON *text, const char *file,
                                       struct moe_config *c, struct moe_err *err)
{
    const cJSON *list = moe_json_get(root, "architectures");
    const char *type = "", *inner = "", *arch = NULL;
    if (list && (!cJSON_IsArray(list) || (list->child && !cJSON_IsString(list->child))))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'architectures' is not a list of strings");
    if (list && list->child) arch = list->child->valuestring;
    MOE_TRY(moe_json_str(root, "model_type", !arch, &type, file, err));
    if (arch && !is_listed(arch, architectures, sizeof architectures / sizeof *architectures))
        return moe_foreign_architecture(arch, type, file, err);
    if (!arch && !is_listed(type, model_types, sizeof model_types / sizeof *model_types))
        return moe_foreign_architecture(NULL, type, file, err);
    if (!arch)
        arch = !strcmp(type, "kimi_k25")    ? architectures[2]
             : !strcmp(type, "deepseek_v2") ? architectures[3]
                                            : architectures[0];
    MOE_TRY(moe_json_str(text, "model_type", false, &inner, file, err));
    MOE_TRY(moe_foreign_config(text, inner, file, err));
    if (!strcmp(arch, "DeepseekV2ForCausalLM") && !moe_json_get(text, "scoring_func"))
        return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                           "this is DeepSeek-V2, whose softmax router is not supported (DeepSeek-V3, V3.1 "
                           "and R1 are)");
    if (strlen(type) >= sizeof c->model_type)
        return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL, "model type '%.60s' is not supported", type);
    memcpy(c->architecture, arch, strlen(arch) + 1);
    memcpy(c->model_type, type, strlen(type) + 1);
    return MOE_OK;
}

/* Refuse variants of the architecture that the forward pass does not compute. */
static enum moe_code refuse_variants(const cJSON *o, const char *file, const struct moe_config *c,
                                     struct moe_err *err)
{
    int64_t kv = c->num_attention_heads;
    MOE_TRY(require_str(o, "hidden_act", "silu", file, err));
    MOE_TRY(require_bool(o, "attention_bias", false, file, err));
    MOE_TRY(require_bool(o, "mlp_bias", false, file, err));
    MOE_TRY(require_bool(o, "rope_interleave", true, file, err));
    if (c->n_routed_experts) {
        MOE_TRY(require_str(o, "scoring_func", "sigmoid", file, err));
        MOE_TRY(require_str(o, "topk_method", "noaux_tc", file, err));
    }
    MOE_TRY(moe_json_i64(o, "num_key_value_heads", false, 1, 65536, &kv, file, err));
    if (kv != c->num_attention_heads)
        return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                           "num_key_value_heads other than num_attention_heads is not supported");
    return MOE_OK;
}

/* ---- rotary position embedding ---- */

/* The type of scaling in the object r, which is the value of `key`: "yarn", "default" or another. */
static enum moe_code read_rope_kind(const cJSON *r, const char *key, const char **kind, const char *file,
                                    struct moe_err *err)
{
    const char *a = NULL, *b = NULL;
    MOE_TRY(moe_json_str(r, "rope_type", false, &a, file, err));
    MOE_TRY(moe_json_str(r, "type", false, &b, file, err));
    if (a && b && strcmp(a, b))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "rope_type '%.40s' and type '%.40s' disagree", a, b);
    if (!a && !b && moe_json_get(r, "factor"))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'%s' has a factor and no type", key);
    for (const cJSON *e = a || b ? NULL : r->child; e; e = e->next)
        if (cJSON_IsObject(e))
            return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                               "'%s' has settings of its own for '%.40s', which is not supported", key,
                               e->string);
    *kind = a ? a : b ? b : "default";
    return MOE_OK;
}

/* Whether two numbers, neither of them NaN, are equal. */
static bool same(double a, double b) { return !(a < b) && !(a > b); }

/* Engines disagree about these keys.  With `truncate` false transformers does not round the correction range,
 * while DeepSeek's code and vLLM always do; vLLM reads the two factors, which transformers does not know.
 * Therefore only values are accepted with which all of them compute the same. */
static enum moe_code refuse_yarn(const cJSON *r, const char *file, struct moe_err *err)
{
    static const char *const ones[] = { "attn_factor", "extrapolation_factor" };
    MOE_TRY(require_bool(r, "truncate", true, file, err));
    MOE_TRY(require_bool(r, "apply_yarn_scaling", true, file, err));
    for (int i = 0; i < 2; i++) {
        double v = 1;
        MOE_TRY(moe_json_f64(r, ones[i], false, &v, file, err));
        if (!same(v, 1))
            return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL, "%s %g of yarn is not supported (1 is)",
                               ones[i], v);
    }
    if (!moe_json_get(r, "attention_factor")) return MOE_OK;
    return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                       "attention_factor of yarn is not supported (mscale is)");
}

/* YaRN's "mscale term" of a scaling factor and a coefficient: 0.1 * a * ln(factor) + 1. */
static double yarn_mscale(double factor, double a) { return factor <= 1 ? 1 : 0.1 * a * log(factor) + 1; }

/* Engines disagree about the factor of cos and sin.  DeepSeek's code and vLLM divide mscale's term by
 * mscale_all_dim's, where a missing key counts as 1 and 0.  transformers does this only when both keys are
 * given and not 0, and otherwise uses the term for 1.  (All of them multiply attention scores by the square
 * of mscale_all_dim's term.) */
static enum moe_code check_mscale(const cJSON *r, const char *file, const struct moe_config *c,
                                  struct moe_err *err)
{
    double f = c->yarn_factor, deepseek = yarn_mscale(f, c->mscale) / yarn_mscale(f, c->mscale_all_dim);
    bool both = moe_json_get(r, "mscale") && moe_json_get(r, "mscale_all_dim") && !same(c->mscale, 0) &&
                !same(c->mscale_all_dim, 0);
    double transformers = both ? deepseek : yarn_mscale(f, 1);
    if (same(deepseek, transformers)) return MOE_OK;
    return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                       "mscale %g with mscale_all_dim %g of yarn is not supported: transformers scales by "
                       "%g and DeepSeek's code by %g (give both and neither as 0, or none of them)",
                       c->mscale, c->mscale_all_dim, transformers, deepseek);
}

static enum moe_code read_yarn(const cJSON *r, const char *file, struct moe_config *c, struct moe_err *err)
{
    c->yarn = true;
    c->beta_fast = 32;
    c->beta_slow = c->mscale = 1;
    c->mscale_all_dim = 0;
    MOE_TRY(refuse_yarn(r, file, err));
    MOE_TRY(moe_json_f64(r, "factor", true, &c->yarn_factor, file, err));
    MOE_TRY(moe_json_f64(r, "original_max_position_embeddings", true, &c->original_max_position_embeddings,
                         file, err));
    MOE_TRY(moe_json_f64(r, "beta_fast", false, &c->beta_fast, file, err));
    MOE_TRY(moe_json_f64(r, "beta_slow", false, &c->beta_slow, file, err));
    MOE_TRY(moe_json_f64(r, "mscale", false, &c->mscale, file, err));
    MOE_TRY(moe_json_f64(r, "mscale_all_dim", false, &c->mscale_all_dim, file, err));
    if (!(c->yarn_factor >= 1 && c->yarn_factor <= 1e6) ||
        !(c->original_max_position_embeddings >= 1 && c->original_max_position_embeddings <= 1e9) ||
        !(c->beta_fast > 0 && c->beta_slow > 0 && c->beta_fast <= 1e6 && c->beta_slow <= 1e6) ||
        fabs(c->mscale) > 100 || fabs(c->mscale_all_dim) > 100)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "a yarn parameter is out of range");
    return check_mscale(r, file, c, err);
}

/* Refuse keys that some programs read beside the object for rotary positions and others inside it: the
 * fraction of a head that is rotated, and Llama 4's scaling of queries by position. */
static enum moe_code refuse_beside(const cJSON *o, const char *file, struct moe_err *err)
{
    static const char *const llama[] = { "llama_4_scaling", "llama_4_scaling_beta" };
    double part = 1;
    MOE_TRY(moe_json_f64(o, "partial_rotary_factor", false, &part, file, err));
    if (!same(part, 1))
        return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                           "partial_rotary_factor %g is not supported (1 is)", part);
    for (int i = 0; i < 2; i++)
        if (moe_json_get(o, llama[i]))
            return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL, "%s is not supported (null is)", llama[i]);
    return MOE_OK;
}

/* Without YaRN transformers 4 still multiplies attention scores by mscale_all_dim's term, transformers 5 does
 * not; so that term must be 1. */
static enum moe_code refuse_unscaled_mscale(const cJSON *r, const char *file, struct moe_err *err)
{
    double factor = 1, a = 0;
    MOE_TRY(moe_json_f64(r, "factor", false, &factor, file, err));
    MOE_TRY(moe_json_f64(r, "mscale_all_dim", false, &a, file, err));
    if (same(yarn_mscale(factor, a), 1)) return MOE_OK;
    return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                       "mscale_all_dim %g with a factor and without yarn is not supported (remove it)", a);
}

/* Read the object `key`, if it exists, which says how positions are scaled. */
static enum moe_code read_rope_object(const cJSON *o, const char *key, const char *file, struct moe_config *c,
                                      struct moe_err *err)
{
    const cJSON *r = moe_json_get(o, key);
    const char *kind = "default";
    if (!r) return MOE_OK;
    if (!cJSON_IsObject(r)) return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'%s' is not an object", key);
    MOE_TRY(refuse_beside(r, file, err));
    MOE_TRY(read_rope_kind(r, key, &kind, file, err));
    if (!strcmp(kind, "yarn")) return read_yarn(r, file, c, err);
    if (!strcmp(kind, "default")) return refuse_unscaled_mscale(r, file, err);
    return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                       "rope type '%.40s' is not supported (yarn and default are)", kind);
}

static bool same_yarn(const struct moe_config *a, const struct moe_config *b)
{
    return a->yarn == b->yarn && same(a->yarn_factor, b->yarn_factor) && same(a->beta_fast, b->beta_fast) &&
           same(a->beta_slow, b->beta_slow) && same(a->mscale, b->mscale) &&
           same(a->mscale_all_dim, b->mscale_all_dim) &&
           same(a->original_max_position_embeddings, b->original_max_position_embeddings);
}

/* rope_theta may be beside the two objects or in either of them, and programs read different ones, so all
 * must agree. */
static enum moe_code read_theta(const cJSON *o, const char *file, double *theta, struct moe_err *err)
{
    const cJSON *places[] = { o, moe_json_get(o, "rope_scaling"), moe_json_get(o, "rope_parameters") };
    bool known = false;
    for (int i = 0; i < 3; i++) {
        double t;
        if (!moe_json_get(places[i], "rope_theta")) continue;
        MOE_TRY(moe_json_f64(places[i], "rope_theta", true, &t, file, err));
        if (known && !same(t, *theta))
            return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                               "'rope_theta' is given as %g and, in '%s', as %g: they disagree (remove "
                               "the wrong one)",
                               *theta, places[i]->string, t);
        *theta = t;
        known = true;
    }
    if (*theta > 1 && *theta <= 1e12) return MOE_OK;
    return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'rope_theta' is out of range");
}

/* Whether an object has a member that is not null; {} means no more than null. */
static bool has_content(const cJSON *r)
{
    for (const cJSON *e = r ? r->child : NULL; e; e = e->next)
        if (!cJSON_IsNull(e)) return true;
    return false;
}

/* transformers reads the length beside rope_scaling, if there is one, and other programs the one inside, so
 * both must agree. */
static enum moe_code check_length(const cJSON *o, const char *file, const struct moe_config *c,
                                  struct moe_err *err)
{
    double length = c->original_max_position_embeddings;
    MOE_TRY(moe_json_f64(o, "original_max_position_embeddings", false, &length, file, err));
    if (same(length, c->original_max_position_embeddings)) return MOE_OK;
    return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                       "'original_max_position_embeddings' is given as %.0f and, for yarn, as %.0f: they "
                       "disagree (remove the wrong one)", length, c->original_max_position_embeddings);
}

/* transformers 4 writes rope_scaling, transformers 5 rope_parameters; programs differ in which of them they
 * read, so both must agree. */
static enum moe_code read_rope(const cJSON *o, const char *file, struct moe_config *c, struct moe_err *err)
{
    bool older = has_content(moe_json_get(o, "rope_scaling"));
    bool newer = has_content(moe_json_get(o, "rope_parameters"));
    c->rope_theta = 10000;
    MOE_TRY(read_theta(o, file, &c->rope_theta, err));
    MOE_TRY(refuse_beside(o, file, err));
    struct moe_config other = *c;
    MOE_TRY(read_rope_object(o, "rope_scaling", file, c, err));
    MOE_TRY(read_rope_object(o, "rope_parameters", file, &other, err));
    if (older && newer && !same_yarn(c, &other))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                           "'rope_scaling' and 'rope_parameters' disagree (remove the wrong one)");
    if (newer) *c = other;
    return c->yarn ? check_length(o, file, c, err) : MOE_OK;
}

/* ---- tokens ---- */

/* Add the token or tokens of o's "eos_token_id" to c's. */
static enum moe_code add_eos(const cJSON *o, const char *file, struct moe_config *c, struct moe_err *err)
{
    const cJSON *v = moe_json_get(o, "eos_token_id");
    for (const cJSON *e = v && cJSON_IsArray(v) ? v->child : v; e; e = v == e ? NULL : e->next) {
        int known = 0;
        if (!cJSON_IsNumber(e) || e->valuedouble != floor(e->valuedouble) || e->valuedouble < 0 ||
            e->valuedouble > INT32_MAX)
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'eos_token_id' is not a token");
        int64_t id = (int64_t)e->valuedouble;
        while (known < c->n_eos && c->eos_token_id[known] != id) known++;
        if (known < c->n_eos) continue;
        if (c->n_eos == MOE_EOS_MAX)
            return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL, "more than %d end-of-sequence tokens",
                               MOE_EOS_MAX);
        c->eos_token_id[c->n_eos++] = id;
    }
    return MOE_OK;
}

static enum moe_code read_tokens(const cJSON *root, const cJSON *text, const char *file, struct moe_config *c,
                                 struct moe_err *err)
{
    c->bos_token_id = c->pad_token_id = -1;
    c->n_eos = 0;
    for (int i = 0; i < 2; i++) {
        const cJSON *o = i ? text : root;
        MOE_TRY(moe_json_i64(o, "bos_token_id", false, -1, INT32_MAX, &c->bos_token_id, file, err));
        MOE_TRY(moe_json_i64(o, "pad_token_id", false, -1, INT32_MAX, &c->pad_token_id, file, err));
    }
    MOE_TRY(add_eos(text, file, c, err));
    return add_eos(root, file, c, err);
}

/* ---- the whole config ---- */

/* Check what several keys must satisfy together, and that every tensor's size can be computed. */
static enum moe_code check_config(const char *file, const struct moe_config *c, struct moe_err *err)
{
    int64_t e = c->n_routed_experts;
    const char *bad = NULL;
    if (c->qk_rope_head_dim % 2) bad = "'qk_rope_head_dim' is odd";
    if (e && (!c->num_experts_per_tok || c->num_experts_per_tok > e))
        bad = "'num_experts_per_tok' is not in 1 to n_routed_experts";
    if (e && !c->moe_intermediate_size) bad = "'moe_intermediate_size' is missing";
    if (e && (c->n_group > e || e % c->n_group)) bad = "'n_group' does not divide n_routed_experts";
    else if (e && c->topk_group > c->n_group) bad = "'topk_group' is more than n_group";
    else if (e && c->num_experts_per_tok > e / c->n_group * c->topk_group)
        bad = "'num_experts_per_tok' is more than topk_group groups have";
    if (c->num_hidden_layers * e > (int64_t)1 << 22) bad = "more than 4194304 experts";
    if (bad) return moe_fail_at(err, MOE_CORRUPT, file, NULL, "%s", bad);
    for (int role = 0; role < MOE_ROLE_COUNT; role++) {
        int64_t rows = 0, cols = 0;
        int layers[3] = { -1, 0, (int)c->num_hidden_layers - 1 };
        for (int i = 0; i < 3; i++)
            if (moe_tensor_shape(c, (enum moe_role)role, layers[i], &rows, &cols) &&
                rows > ((int64_t)1 << 48) / cols) {
                char name[128];
                return moe_fail_at(err, MOE_CORRUPT, file,
                                   moe_tensor_name((enum moe_role)role, layers[i], 0, name),
                                   "its shape would be %lld x %lld", (long long)rows, (long long)cols);
            }
    }
    return MOE_OK;
}

enum moe_code moe_config_parse(const cJSON *root, const char *file, struct moe_config *c,
                               enum moe_scheme *scheme, struct moe_err *err)
{
    memset(c, 0, sizeof *c);
    if (!cJSON_IsObject(root)) return moe_fail_at(err, MOE_CORRUPT, file, NULL, "is not a JSON object");
    const cJSON *text = moe_json_get(root, "text_config");
    if (text && !cJSON_IsObject(text))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'text_config' is not an object");
    if (!text) text = root;
    MOE_TRY(read_architecture(root, text, file, c, err));
    MOE_TRY(read_ints(text, file, c, err));
    MOE_TRY(refuse_variants(text, file, c, err));
    c->rms_norm_eps = 1e-6;
    c->routed_scaling_factor = 2.5;
    c->norm_topk_prob = true;
    MOE_TRY(moe_json_f64(text, "rms_norm_eps", false, &c->rms_norm_eps, file, err));
    MOE_TRY(moe_json_f64(text, "routed_scaling_factor", false, &c->routed_scaling_factor, file, err));
    MOE_TRY(moe_json_bool(text, "norm_topk_prob", false, &c->norm_topk_prob, file, err));
    if (!(c->rms_norm_eps > 0 && c->rms_norm_eps < 1))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'rms_norm_eps' is out of range");
    if (!(fabs(c->routed_scaling_factor) <= 1e6))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'routed_scaling_factor' is out of range");
    MOE_TRY(moe_json_bool(root, "tie_word_embeddings", false, &c->tie_word_embeddings, file, err));
    MOE_TRY(moe_json_bool(text, "tie_word_embeddings", false, &c->tie_word_embeddings, file, err));
    MOE_TRY(read_rope(text, file, c, err));
    MOE_TRY(read_tokens(root, text, file, c, err));
    MOE_TRY(check_config(file, c, err));
    return moe_quant_scheme(root, text, file, scheme, err);
}

/* Read a file beside config.json that need not exist; then *root is NULL. */
static enum moe_code read_beside(const char *dir, const char *name, char path[PATH_MAX], cJSON **root,
                                 struct moe_err *err)
{
    enum moe_exists there;
    *root = NULL;
    MOE_TRY(moe_path_join(path, PATH_MAX, dir, name, err));
    MOE_TRY(moe_look(path, &there, err));
    return there == MOE_ABSENT ? MOE_OK : moe_json_read(path, CONFIG_BYTES, root, err);
}

enum moe_code moe_config_read(const char *dir, struct moe_config *c, enum moe_scheme *scheme,
                              struct moe_err *err)
{
    char path[PATH_MAX];
    cJSON *root;
    MOE_TRY(read_beside(dir, "config.json", path, &root, err));
    if (!root) {
        MOE_TRY(moe_foreign_path(dir, err));
        return moe_fail_at(err, MOE_NOT_FOUND, path, NULL, "not found (is '%s' a model's directory?)", dir);
    }
    enum moe_code code = moe_config_parse(root, path, c, scheme, err);
    cJSON_Delete(root);
    MOE_TRY(code);
    MOE_TRY(read_beside(dir, "generation_config.json", path, &root, err));
    if (root) code = add_eos(root, path, c, err);
    cJSON_Delete(root);
    MOE_TRY(code);
    MOE_TRY(read_beside(dir, "hf_quant_config.json", path, &root, err));
    if (root) code = moe_quant_scheme_modelopt(root, path, scheme, err);
    cJSON_Delete(root);
    return code;
}
