/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/checkpoint/quantconfig.h"

#include "formats/checkpoint/foreign.h"

#include <string.h>

static enum moe_code unsupported(const char *file, const char *what, const char *value, struct moe_err *err)
{
    return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                       "quantization: %s '%.60s' is not supported (fp8 in blocks of 128x128, int4 "
                       "pack-quantized in groups of 32, 64, 128 or a row, and nvfp4 are)",
                       what, value);
}

static enum moe_code foreign(const char *method, const char *name, const char *file, struct moe_err *err)
{
    return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                       "quantization '%s' is not supported: these are weights of %s (take the model as it "
                       "was published, or in BF16)", method, name);
}

/* MLX writes {"group_size": 64, "bits": 4} without a method, under two names. */
static bool is_mlx(const cJSON *q)
{
    return cJSON_IsObject(q) && !moe_json_get(q, "quant_method") && moe_json_get(q, "bits") &&
           moe_json_get(q, "group_size");
}

/* Whether a block structure is [128, 128], which older versions of compressed-tensors write as "128x128". */
static bool is_block_128(const cJSON *block)
{
    int n = 0;
    if (cJSON_IsString(block)) return !strcmp(block->valuestring, "128x128");
    if (!cJSON_IsArray(block)) return false;
    for (const cJSON *b = block->child; b; b = b->next, n++)
        if (!cJSON_IsNumber(b) || b->valuedouble != 128) return false;
    return n == 2;
}

static enum moe_code fp8(const cJSON *q, const char *file, enum moe_scheme *scheme, struct moe_err *err)
{
    const char *fmt = "e4m3";
    const cJSON *block = moe_json_get(q, "weight_block_size");
    MOE_TRY(moe_json_str(q, "fmt", false, &fmt, file, err));
    if (strcmp(fmt, "e4m3") && strcmp(fmt, "float8_e4m3fn")) return unsupported(file, "fmt", fmt, err);
    if (!block || !cJSON_IsArray(block)) return unsupported(file, "fp8 without", "weight_block_size", err);
    if (!is_block_128(block)) return unsupported(file, "fp8 with another", "weight_block_size", err);
    *scheme = MOE_SCHEME_FP8;
    return MOE_OK;
}

/* FP8_BLOCK of compressed-tensors stores the same bytes as DeepSeek's FP8, under other names. */
static enum moe_code fp8_group(const cJSON *group, const char *file, struct moe_err *err)
{
    const cJSON *w = moe_json_get(group, "weights");
    int64_t bits = 0;
    bool symmetric = true;
    const char *type = "float", *strategy = "";
    if (!w) return MOE_OK;
    MOE_TRY(moe_json_i64(w, "num_bits", true, 1, 64, &bits, file, err));
    MOE_TRY(moe_json_bool(w, "symmetric", false, &symmetric, file, err));
    MOE_TRY(moe_json_str(w, "type", false, &type, file, err));
    MOE_TRY(moe_json_str(w, "strategy", false, &strategy, file, err));
    if (bits != 8) return unsupported(file, "float-quantized with other", "num_bits", err);
    if (strcmp(type, "float")) return unsupported(file, "float-quantized of type", type, err);
    if (!symmetric) return unsupported(file, "float-quantized", "asymmetric", err);
    if (strcmp(strategy, "block")) return unsupported(file, "float-quantized with strategy", strategy, err);
    return is_block_128(moe_json_get(w, "block_structure"))
             ? MOE_OK
             : unsupported(file, "float-quantized with another", "block_structure", err);
}

/* The order in which GPTQ took the columns: "weight" (also "static") leaves them in place; "group" (also
 * "dynamic" or true) permutes them, which is not supported. */
static enum moe_code int4_order(const cJSON *order, const char *file, struct moe_err *err)
{
    static const char *const fine[] = { "weight", "static" };
    if (!order || cJSON_IsNull(order) || cJSON_IsFalse(order)) return MOE_OK;
    for (int i = 0; i < 2; i++)
        if (cJSON_IsString(order) && !strcmp(order->valuestring, fine[i])) return MOE_OK;
    return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                       "quantization: pack-quantized with actorder '%.60s' is not supported: its columns are "
                       "permuted (quantize it with actorder 'weight', also called 'static', or without)",
                       cJSON_IsString(order) ? order->valuestring
                       : cJSON_IsTrue(order) ? "true"
                                             : "?");
}

static enum moe_code int4_group(const cJSON *group, const char *file, struct moe_err *err)
{
    const cJSON *w = moe_json_get(group, "weights");
    int64_t bits = 0, size = 0;
    bool symmetric = true;
    const char *type = "int", *strategy = "group";
    if (!w) return MOE_OK;
    MOE_TRY(moe_json_i64(w, "num_bits", true, 1, 64, &bits, file, err));
    MOE_TRY(moe_json_i64(w, "group_size", false, -1, 1 << 20, &size, file, err));
    MOE_TRY(moe_json_bool(w, "symmetric", false, &symmetric, file, err));
    MOE_TRY(moe_json_str(w, "type", false, &type, file, err));
    MOE_TRY(moe_json_str(w, "strategy", false, &strategy, file, err));
    bool row = !strcmp(strategy, "channel") && size <= 0;
    if (bits != 4) return unsupported(file, "pack-quantized with other", "num_bits", err);
    if (size != 32 && size != 64 && size != 128 && !row)
        return unsupported(file, "pack-quantized with another", "group_size", err);
    if (!symmetric) return unsupported(file, "pack-quantized", "asymmetric", err);
    MOE_TRY(int4_order(moe_json_get(w, "actorder"), file, err));
    return strcmp(type, "int") ? unsupported(file, "pack-quantized of type", type, err) : MOE_OK;
}

/* In a mixed model a group of a format that is not supported is no error here: its tensors are refused where
 * they are needed. */
static enum moe_code mixed_groups(const cJSON *q, const char *file, struct moe_err *err)
{
    const cJSON *groups = moe_json_get(q, "config_groups");
    for (const cJSON *g = groups ? groups->child : NULL; g; g = g->next) {
        const char *format = "";
        MOE_TRY(moe_json_str(g, "format", false, &format, file, err));
        if (!strcmp(format, "pack-quantized")) MOE_TRY(int4_group(g, file, err));
    }
    return MOE_OK;
}

static enum moe_code compressed_tensors(const cJSON *q, const char *file, enum moe_scheme *scheme,
                                        struct moe_err *err)
{
    const char *format = "";
    MOE_TRY(moe_json_str(q, "format", true, &format, file, err));
    *scheme = MOE_SCHEME_MIXED;
    if (!strcmp(format, "mixed-precision")) return mixed_groups(q, file, err);
    *scheme = MOE_SCHEME_NVFP4_CT;
    if (!strcmp(format, "nvfp4-pack-quantized")) return MOE_OK;
    bool int4 = !strcmp(format, "pack-quantized");
    if (!int4 && strcmp(format, "float-quantized")) return unsupported(file, "format", format, err);
    *scheme = int4 ? MOE_SCHEME_INT4 : MOE_SCHEME_FP8;
    const cJSON *groups = moe_json_get(q, "config_groups");
    for (const cJSON *g = groups ? groups->child : NULL; g; g = g->next)
        MOE_TRY(int4 ? int4_group(g, file, err) : fp8_group(g, file, err));
    return MOE_OK;
}

static bool is_nvfp4(const char *algo) { return !strcmp(algo, "NVFP4") || !strcmp(algo, "W4A16_NVFP4"); }

static enum moe_code nvfp4_group(const cJSON *q, const char *file, struct moe_err *err)
{
    int64_t group = 16;
    MOE_TRY(moe_json_i64(q, "group_size", false, 1, 1 << 20, &group, file, err));
    return group == 16 ? MOE_OK : unsupported(file, "nvfp4 with another", "group_size", err);
}

/* The same for modelopt's {"NAME": {"quant_algo", "group_size"}}. */
static enum moe_code mixed_layers(const cJSON *q, const char *file, struct moe_err *err)
{
    const cJSON *layers = moe_json_get(q, "quantized_layers");
    for (const cJSON *l = layers ? layers->child : NULL; l; l = l->next) {
        const char *algo = "";
        MOE_TRY(moe_json_str(l, "quant_algo", false, &algo, file, err));
        if (is_nvfp4(algo)) MOE_TRY(nvfp4_group(l, file, err));
    }
    return MOE_OK;
}

static enum moe_code disagree(const char *file, const char *one, const char *other, struct moe_err *err)
{
    return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                       "quantization: %s and %s disagree (correct or remove the wrong one)", one, other);
}

static enum moe_code one_algo(const cJSON *q, const char *file, enum moe_scheme *scheme, struct moe_err *err)
{
    const char *algo = "";
    MOE_TRY(moe_json_str(q, "quant_algo", true, &algo, file, err));
    *scheme = MOE_SCHEME_MIXED;
    if (!strcmp(algo, "MIXED_PRECISION")) return mixed_layers(q, file, err);
    if (!is_nvfp4(algo)) return unsupported(file, "quant_algo", algo, err);
    *scheme = MOE_SCHEME_NVFP4_MODELOPT;
    return nvfp4_group(q, file, err);
}

/* ---- what a configuration demands of an engine besides reading the weights ---- */

/* compressed-tensors lists the places of rotations.  Those at "weight_input" and "weight_output" are already
 * contained in the stored weights; at all other places the engine has to rotate at run time. */
static enum moe_code apply(const cJSON *list, const char *file, struct moe_err *err)
{
    for (const cJSON *a = list ? list->child : NULL; a; a = a->next) {
        const char *at = "";
        MOE_TRY(moe_json_str(a, "location", true, &at, file, err));
        if (!strcmp(at, "weight_input") || !strcmp(at, "weight_output")) continue;
        return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                           "quantization: transform_config with location '%.60s' is not supported: these "
                           "weights are right only where an engine rotates activations as it runs (take the "
                           "model as it was published, or one quantized without such a transform)", at);
    }
    return MOE_OK;
}

static enum moe_code transforms(const cJSON *q, const char *file, struct moe_err *err)
{
    const cJSON *t = moe_json_get(q, "transform_config"), *groups;
    if (!t) return MOE_OK;
    groups = moe_json_get(t, "config_groups");
    if (!cJSON_IsObject(t) || (groups && !cJSON_IsObject(groups)) || (t->child && !groups))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                           "'transform_config' is not an object with 'config_groups'");
    for (const cJSON *g = groups ? groups->child : NULL; g; g = g->next) {
        const cJSON *list = moe_json_get(g, "apply"); /* by default an empty list */
        if (list && !cJSON_IsArray(list))
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'apply' of transform_config is not a list");
        MOE_TRY(apply(list, file, err));
    }
    return MOE_OK;
}

/* Refuse sparse weights, of which only the values other than 0 are stored. */
static enum moe_code sparsity(const cJSON *q, const char *file, struct moe_err *err)
{
    const cJSON *s = moe_json_get(q, "sparsity_config");
    const char *format = "dense";
    if (!s) return MOE_OK;
    MOE_TRY(moe_json_str(s, "format", false, &format, file, err));
    return !strcmp(format, "dense") ? MOE_OK : unsupported(file, "sparsity_config with format", format, err);
}

/* ModelOpt's AWQ scales the weights by factors with which the engine must scale the activations back, so the
 * stored weights alone are not the model's.  In a mixed model a single layer may declare this, too. */
static enum moe_code modelopt_flags(const cJSON *q, const char *file, struct moe_err *err)
{
    static const char *const flags[] = { "pre_quant_scale", "has_zero_point" };
    for (int i = 0; i < 2; i++) {
        bool on = false;
        MOE_TRY(moe_json_bool(q, flags[i], false, &on, file, err));
        if (on)
            return moe_fail_at(err, MOE_UNSUPPORTED, file, NULL,
                               "quantization: %s is not supported: these weights are right only with "
                               "tensors that are not read (take the model as it was published, or a "
                               "symmetric quantization without AWQ)", flags[i]);
    }
    return MOE_OK;
}

static enum moe_code beside_weights(const cJSON *q, const char *file, struct moe_err *err)
{
    const cJSON *layers = moe_json_get(q, "quantized_layers");
    if (!q) return MOE_OK;
    MOE_TRY(transforms(q, file, err));
    MOE_TRY(sparsity(q, file, err));
    MOE_TRY(modelopt_flags(q, file, err));
    for (const cJSON *l = layers ? layers->child : NULL; l; l = l->next)
        MOE_TRY(modelopt_flags(l, file, err));
    return MOE_OK;
}

/* ModelOpt's fields may be in `q` itself, in its object "quantization", or in both. */
static enum moe_code nested(const cJSON *q, const char *file, const cJSON **inner, struct moe_err *err)
{
    *inner = moe_json_get(q, "quantization");
    if (!*inner || cJSON_IsObject(*inner)) return MOE_OK;
    return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'quantization' is not an object");
}

static enum moe_code beside_all(const cJSON *q, const char *file, struct moe_err *err)
{
    const cJSON *inner;
    MOE_TRY(nested(q, file, &inner, err));
    MOE_TRY(beside_weights(q, file, err));
    return beside_weights(inner, file, err);
}

static enum moe_code modelopt(const cJSON *q, const char *file, enum moe_scheme *scheme, struct moe_err *err)
{
    const cJSON *inner;
    enum moe_scheme other;
    MOE_TRY(nested(q, file, &inner, err));
    if (!moe_json_get(inner, "quant_algo")) return one_algo(q, file, scheme, err);
    MOE_TRY(one_algo(inner, file, scheme, err));
    if (!moe_json_get(q, "quant_algo")) return MOE_OK;
    MOE_TRY(one_algo(q, file, &other, err));
    return other == *scheme ? MOE_OK : disagree(file, "'quant_algo'", "the one in 'quantization'", err);
}

/* The declaration under its present name, or under the one that compressed-tensors used earlier. */
static const cJSON *declared(const cJSON *o)
{
    const cJSON *q = moe_json_get(o, "quantization_config");
    return q ? q : moe_json_get(o, "compression_config");
}

static enum moe_code one_config(const cJSON *q, const char *file, enum moe_scheme *scheme,
                                struct moe_err *err)
{
    const char *method = "";
    if (is_mlx(q)) return foreign("mlx", "MLX", file, err);
    MOE_TRY(moe_json_str(q, "quant_method", true, &method, file, err));
    const char *name = moe_foreign_quantization(method);
    if (name) return foreign(method, name, file, err);
    if (!strcmp(method, "fp8")) return fp8(q, file, scheme, err);
    if (!strcmp(method, "compressed-tensors")) return compressed_tensors(q, file, scheme, err);
    if (!strcmp(method, "modelopt") || !strcmp(method, "modelopt_fp4")) return modelopt(q, file, scheme, err);
    return unsupported(file, "quant_method", method, err);
}

enum moe_code moe_quant_scheme(const cJSON *root, const cJSON *text, const char *file,
                               enum moe_scheme *scheme, struct moe_err *err)
{
    const cJSON *q[] = { declared(text), text == root ? NULL : declared(root) };
    *scheme = MOE_SCHEME_NONE;
    for (int i = 0; i < 2; i++) {
        enum moe_scheme one;
        if (!q[i]) continue;
        MOE_TRY(beside_all(q[i], file, err));
        MOE_TRY(one_config(q[i], file, &one, err));
        /* A model that was quantized again may still declare its former quantization in its text part; then
         * its tensors decide. */
        *scheme = *scheme == MOE_SCHEME_NONE || *scheme == one ? one : MOE_SCHEME_MIXED;
    }
    if (q[0] || q[1] || !is_mlx(moe_json_get(root, "quantization"))) return MOE_OK;
    return foreign("mlx", "MLX", file, err);
}

/* ---- hf_quant_config.json beside config.json ---- */

/* Whether two declarations may be of the same model.  In a mixed model the tensors show what they are; NVFP4
 * has two spellings of the same numbers. */
static bool agree(enum moe_scheme config, enum moe_scheme beside)
{
    if (config == beside || config == MOE_SCHEME_MIXED || beside == MOE_SCHEME_MIXED) return true;
    return config == MOE_SCHEME_NVFP4_CT && beside == MOE_SCHEME_NVFP4_MODELOPT;
}

/* Whether this is DeepSeek's FP8 under the names that ModelOpt and TensorRT-LLM give it, where config.json
 * says fp8. */
static bool is_fp8_blocks(const cJSON *q)
{
    const cJSON *algo = moe_json_get(q, "quant_algo");
    return cJSON_IsString(algo) &&
           (!strcmp(algo->valuestring, "FP8_PB_WO") || !strcmp(algo->valuestring, "FP8_BLOCK_SCALES"));
}

enum moe_code moe_quant_scheme_modelopt(const cJSON *root, const char *file, enum moe_scheme *scheme,
                                        struct moe_err *err)
{
    const cJSON *inner;
    enum moe_scheme beside = MOE_SCHEME_NONE;
    MOE_TRY(nested(root, file, &inner, err));
    MOE_TRY(beside_all(root, file, err));
    const cJSON *q = moe_json_get(inner, "quant_algo") ? inner : root;
    bool flat = q == root && moe_json_get(root, "quant_algo");
    if (!inner && !flat && *scheme == MOE_SCHEME_NONE)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "the key 'quantization' is missing");
    if (q == root && !flat) return MOE_OK; /* the file declares no quantization */
    if (*scheme == MOE_SCHEME_FP8 && is_fp8_blocks(q)) return MOE_OK;
    MOE_TRY(modelopt(root, file, &beside, err));
    if (*scheme == MOE_SCHEME_NONE) *scheme = beside;
    return agree(*scheme, beside) ? MOE_OK : disagree(file, "what this file says", "config.json", err);
}
