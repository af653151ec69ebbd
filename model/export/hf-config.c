/* SPDX-License-Identifier: Apache-2.0 */
/* config.json and hf_quant_config.json as modelopt and compressed-tensors write them. */
#include "base/io.h"
#include "model/export/export-state.h"
#include "model/export/hf-internal.h"
#include "model/export/model-config.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The version of compressed-tensors whose fields are written, by which readers interpret them.
 * tests/readers/interop.py compares with it. */
#define COMPRESSED_TENSORS_VERSION "0.20.0"

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for a configuration");
}

/* Adds `v` to the object `o`, or without a key to the array `o`.  False when that fails; v is then
 * deleted. */
static bool put(cJSON *o, const char *key, cJSON *v)
{
    return key ? moe_json_add(o, key, v) : moe_json_append(o, v);
}

/* ---- which modules are not quantized ---- */

struct names { struct moe_arena arena; const char **v; int64_t n; };

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Whether a quantizer would consider this module: linear layers and the router; modelopt also the
 * embedding. */
static bool is_module(const struct moe_tensor *t, enum moe_hf_flavor flavor)
{
    if (t->role == MOE_ROLE_EMBED) return flavor == MOE_HF_MODELOPT;
    return t->rows > 1 && t->role != MOE_ROLE_ROUTER_BIAS;
}

/* Lists the modules that are NVFP4 in the checkpoint, or those that are not. */
static enum moe_code collect(const struct moe_hf_plan *p, bool quantized, struct names *out,
                             struct moe_err *err)
{
    const struct moe_source *src = p->src;

    out->v = malloc((size_t)src->n_tensors * sizeof *out->v);
    if (!out->v) return no_memory(err);
    for (int pass = 0; pass < 2; pass++) /* the head comes last */
        for (int64_t i = 0; i < src->n_tensors; i++) {
            const struct moe_tensor *t = &src->tensors[i];
            char name[128];
            if ((t->role == MOE_ROLE_HEAD) != pass || !is_module(t, p->flavor) ||
                moe_hf_is_nvfp4(t) != quantized)
                continue;
            size_t n = strlen(moe_hf_module_name(t, name)) + 1;
            char *keep = moe_arena_alloc(&out->arena, n);
            if (!keep) return no_memory(err);
            out->v[out->n++] = memcpy(keep, name, n);
        }
    return MOE_OK;
}

static void release(struct names *s)
{
    moe_arena_clear(&s->arena);
    free(s->v);
}

/* Whether any name in the sorted list begins with the n bytes of head. */
static bool any_begins(const struct names *s, const char *head, size_t n)
{
    int64_t low = 0, high = s->n;
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (strncmp(s->v[mid], head, n) < 0) low = mid + 1;
        else high = mid;
    }
    return low < s->n && !strncmp(s->v[low], head, n);
}

/* The widest pattern that modelopt would write for `name`.  The name is cut at each dot, from the left: the
 * result is "prefix*" when no quantized module begins with prefix, else "prefix.*" when none begins with
 * "prefix." (layers.1* would match layers.10 too).  When no cut serves it is the name itself. */
static void widest(const struct names *quantized, const char *name, char out[160])
{
    for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
        size_t n = (size_t)(dot - name);
        if (!any_begins(quantized, name, n)) {
            snprintf(out, 160, "%.*s*", (int)n, name);
            return;
        }
        if (!any_begins(quantized, name, n + 1)) {
            snprintf(out, 160, "%.*s.*", (int)n, name);
            return;
        }
    }
    snprintf(out, 160, "%s", name);
}

/* Replaces the names in `plain` by their widest patterns, sorted and each once. */
static enum moe_code summarize(const struct names *quantized, struct names *plain, struct moe_err *err)
{
    int64_t kept = 0;

    qsort(quantized->v, (size_t)quantized->n, sizeof *quantized->v, by_name);
    for (int64_t i = 0; i < plain->n; i++) {
        char pattern[160];
        widest(quantized, plain->v[i], pattern);
        char *keep = moe_arena_alloc(&plain->arena, strlen(pattern) + 1);
        if (!keep) return no_memory(err);
        plain->v[i] = memcpy(keep, pattern, strlen(pattern) + 1);
    }
    if (plain->n) qsort(plain->v, (size_t)plain->n, sizeof *plain->v, by_name);
    for (int64_t i = 0; i < plain->n; i++)
        if (!i || strcmp(plain->v[i], plain->v[kept - 1])) plain->v[kept++] = plain->v[i];
    plain->n = kept;
    return MOE_OK;
}

bool moe_hf_find_partly_excluded(const struct moe_hf_plan *p, const cJSON *ignore, char first[160])
{
    static const enum moe_role fused[] = { MOE_ROLE_Q_A, MOE_ROLE_Q_B, MOE_ROLE_KV_A, MOE_ROLE_KV_B };

    for (const cJSON *i = ignore->child; i; i = i->next) {
        const char *dot = strrchr(i->valuestring, '.');
        for (size_t k = 0; dot && k < sizeof fused / sizeof *fused; k++) {
            char name[128];
            const struct moe_tensor t = { .role = (int16_t)fused[k], .layer = 0, .expert = -1 };
            if (strcmp(strrchr(moe_hf_module_name(&t, name), '.'), dot)) continue;
            for (int64_t l = 0; l < p->src->config.num_hidden_layers; l++) {
                const struct moe_tensor *other = moe_source_find(p->src, fused[k], (int)l, -1);
                if (!other || !moe_hf_is_nvfp4(other)) continue;
                snprintf(first, 160, "%s", i->valuestring);
                return true;
            }
        }
    }
    return false;
}

enum moe_code moe_hf_ignore(const struct moe_hf_plan *p, cJSON **list, struct moe_err *err)
{
    struct names plain = { 0 }, quantized = { 0 };
    enum moe_code code = collect(p, false, &plain, err);
    if (code == MOE_OK && p->flavor == MOE_HF_MODELOPT) {
        code = collect(p, true, &quantized, err);
        if (code == MOE_OK) code = summarize(&quantized, &plain, err);
    }
    *list = code == MOE_OK ? cJSON_CreateStringArray(plain.v, (int)plain.n) : NULL;
    if (code == MOE_OK && !*list) code = no_memory(err);
    release(&plain);
    release(&quantized);
    return code;
}

/* ---- quantization_config ---- */

/* Objects with fixed values are given as JSON text. */
static cJSON *parsed(const char *text) { return cJSON_Parse(text); }

#define PRODUCER "{\"name\": \"" MOE_EXPORT_PRODUCER "\", \"version\": \"" MOE_VERSION "\"}"
#define MODELOPT_ARGS "{\"dynamic\": false, \"num_bits\": 4, \"type\": \"float\", \"group_size\": 16}"
#define MODELOPT(inputs) \
    "{\"config_groups\": {\"group_0\": {" inputs "\"weights\": " MODELOPT_ARGS \
    ", \"targets\": [\"Linear\"]}}}"

static cJSON *modelopt_algo(const struct moe_hf_plan *p)
{
    return cJSON_CreateString(p->weight_only ? "W4A16_NVFP4" : "NVFP4");
}

static cJSON *modelopt_config(const struct moe_hf_plan *p, const cJSON *ignore)
{
    cJSON *q = parsed(p->weight_only ? MODELOPT("") : MODELOPT("\"input_activations\": " MODELOPT_ARGS ", "));
    bool ok = q && put(q, "ignore", cJSON_Duplicate(ignore, true)) &&
              put(q, "quant_algo", modelopt_algo(p)) &&
              put(q, "producer", parsed(PRODUCER)) && put(q, "quant_method", cJSON_CreateString("modelopt"));
    if (ok) return q;
    cJSON_Delete(q);
    return NULL;
}

/* hf_quant_config.json, which TensorRT-LLM and older readers use.  vLLM requires the key kv_cache_quant_algo,
 * so it is written as null. */
static cJSON *modelopt_file(const struct moe_hf_plan *p, const cJSON *ignore)
{
    cJSON *f = parsed("{\"producer\": " PRODUCER ", \"quantization\": {}}");
    cJSON *q = f ? cJSON_GetObjectItemCaseSensitive(f, "quantization") : NULL;
    bool ok = q && put(q, "quant_algo", modelopt_algo(p)) &&
              put(q, "kv_cache_quant_algo", cJSON_CreateNull()) &&
              put(q, "group_size", cJSON_CreateNumber(16)) &&
              put(q, "exclude_modules", cJSON_Duplicate(ignore, true));
    if (ok) return f;
    cJSON_Delete(f);
    return NULL;
}

#define CT_FORMAT "\"format\": \"nvfp4-pack-quantized\""
#define CT_ARGS \
    "\"group_size\": 16, \"num_bits\": 4, \"scale_dtype\": \"torch.float8_e4m3fn\", \"strategy\": " \
    "\"tensor_group\", " \
    "\"symmetric\": true, \"type\": \"float\""
#define CT_INPUT "{\"dynamic\": \"local\", \"observer\": \"static_minmax\", " CT_ARGS "}"
#define CT(input) \
    "{\"config_groups\": {\"group_0\": {" CT_FORMAT ", \"input_activations\": " input \
    ", \"output_activations\": null, " \
    "\"targets\": [\"Linear\"], \"weights\": {\"dynamic\": false, " CT_ARGS "}}}, " CT_FORMAT ", " \
    "\"global_compression_ratio\": null, \"kv_cache_scheme\": null, \"moe_sparsity_config\": null, " \
    "\"quant_method\": \"compressed-tensors\", \"quantization_status\": \"compressed\", " \
    "\"sparsity_config\": {}, " \
    "\"transform_config\": {}, \"version\": \"" COMPRESSED_TENSORS_VERSION "\"}"

static cJSON *compressed_config(const struct moe_hf_plan *p, const cJSON *ignore)
{
    cJSON *q = parsed(p->weight_only ? CT("null") : CT(CT_INPUT));
    if (q && put(q, "ignore", cJSON_Duplicate(ignore, true))) return q;
    cJSON_Delete(q);
    return NULL;
}

/* ---- the files ---- */

static enum moe_code write_config(const struct moe_hf_plan *p, const char *dir, const cJSON *ignore,
                                  bool *text_only, struct moe_err *err)
{
    cJSON *c;
    struct moe_left_out left = { .vision = true, .prediction = p->src->config.num_nextn_predict_layers > 0 };

    MOE_TRY(moe_model_config(p->src, &left, &c, err));
    *text_only = left.vision || left.prediction;
    cJSON_DeleteItemFromObjectCaseSensitive(c, "compression_config");
    cJSON_DeleteItemFromObjectCaseSensitive(c, "quantization_config");
    cJSON *q = p->flavor == MOE_HF_MODELOPT ? modelopt_config(p, ignore) : compressed_config(p, ignore);
    bool typed = moe_json_get(c, "torch_dtype") || moe_json_get(c, "dtype");
    bool ok = put(c, "quantization_config", q) &&
              (typed || put(c, "torch_dtype", cJSON_CreateString("bfloat16")));
    enum moe_code code = ok ? moe_export_json(dir, "config.json", c, err) : no_memory(err);
    cJSON_Delete(c);
    return code;
}

enum moe_code moe_hf_write_configs(const struct moe_hf_plan *p, const char *dir, struct moe_hf_result *r,
                                   struct moe_err *err)
{
    cJSON *ignore;
    MOE_TRY(moe_hf_ignore(p, &ignore, err));
    enum moe_code code = write_config(p, dir, ignore, &r->text_only, err);
    if (code == MOE_OK && p->flavor == MOE_HF_MODELOPT) {
        cJSON *f = modelopt_file(p, ignore);
        code = f ? moe_export_json(dir, "hf_quant_config.json", f, err) : no_memory(err);
        cJSON_Delete(f);
    }
    cJSON_Delete(ignore);
    return code;
}
