/* SPDX-License-Identifier: Apache-2.0 */
/* The config of a checkpoint, made from the container's without what is left out. */
#include "model/export/model-config.h"

#include "base/io.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for a configuration");
}

/* Reads the source's config.json, or makes one where the container has none.  The caller deletes *root. */
static enum moe_code read_source_config(const struct moe_source *src, cJSON **root, struct moe_err *err)
{
    char *text;
    size_t n;
    enum moe_code code = moe_container_read_file(src, "hf/config.json", &text, &n, err);
    if (code == MOE_NOT_FOUND) {
        *root = moe_config_json(&src->config);
        return *root ? MOE_OK : no_memory(err);
    }
    MOE_TRY(code);
    code = moe_json_parse(text, n, "hf/config.json", root, err);
    free(text);
    return code;
}

/* Whether the container keeps a small file of this name, in any folder. */
static bool has_file(const struct moe_source *src, const char *name)
{
    const cJSON *files = moe_json_get(src->container->manifest, "files");
    for (const cJSON *f = files ? files->child : NULL; f; f = f->next) {
        const cJSON *v = moe_json_get(f, "name");
        const char *base = cJSON_IsString(v) ? strchr(v->valuestring, '/') : NULL;
        if (base && !strcmp(base + 1, name)) return true;
    }
    return false;
}

/* Whether the container has all Python files that the config's auto_map names, and there is one:
 * "configuration_deepseek.DeepseekV3Config" is in configuration_deepseek.py. */
static bool has_all_map_files(const struct moe_source *src, const cJSON *map)
{
    for (const cJSON *m = map ? map->child : NULL; m; m = m->next) {
        char file[256];
        const char *dot = cJSON_IsString(m) ? strchr(m->valuestring, '.') : NULL;
        if (!dot) return false;
        snprintf(file, sizeof file, "%.*s.py", (int)(dot - m->valuestring), m->valuestring);
        if (!has_file(src, file)) return false;
    }
    return map && map->child;
}

/* Sets o's member `key` to `v`, which o then owns; after a failure v has been deleted.  False when memory
 * has run out, as a v of NULL tells, too. */
static bool set_member(cJSON *o, const char *key, cJSON *v)
{
    if (!v) return false;
    if (cJSON_GetObjectItemCaseSensitive(o, key)) return moe_json_replace(o, key, v);
    return moe_json_add(o, key, v) != NULL;
}

/* ---- lists of modules that are not quantized ---- */

/* The number after the first "layers." or "layers\." in a pattern; -1: none. */
static long layer_of(const char *pattern)
{
    const char *s = strstr(pattern, "layers");
    if (!s) return -1;
    for (s += 6; *s == '\\' || *s == '.'; s++) { }
    return *s >= '0' && *s <= '9' ? strtol(s, NULL, 10) : -1;
}

static bool names_vision(const char *pattern)
{
    static const char *const words[] = { "vision", "mm_projector", "multi_modal_projector", "visual" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(pattern, words[i])) return true;
    return false;
}

/* Removes "language_model." and, as a regular expression has it, "language_model\." from a name. */
static void strip_prefix(char *s)
{
    static const char word[] = "language_model";
    for (char *at; (at = strstr(s, word)); ) {
        char *end = at + sizeof word - 1;
        if (*end == '\\') end++;
        if (*end == '.') end++;
        memmove(at, end, strlen(end) + 1);
        s = at;
    }
}

/* Removes modules that are left out from a list of patterns. */
static void clean_list(cJSON *list, const struct moe_config *c, const struct moe_left_out *left)
{
    for (cJSON *i = list ? list->child : NULL, *next; i; i = next) {
        next = i->next;
        if (!cJSON_IsString(i)) continue;
        if ((left->vision && names_vision(i->valuestring)) ||
            (left->prediction && layer_of(i->valuestring) >= c->num_hidden_layers))
            cJSON_Delete(cJSON_DetachItemViaPointer(list, i));
        else if (left->vision)
            strip_prefix(i->valuestring);
    }
}

/* Removes what a quantization_config, or the "quantization" of a hf_quant_config.json, says of tensors that
 * are left out.  False without memory. */
static bool clean_quantization(cJSON *q, const struct moe_config *c, const struct moe_left_out *left)
{
    static const char *const lists[] = { "ignore", "exclude_modules", "modules_to_not_convert",
                                         "ignored_layers" };
    static const char *const cache[] = { "kv_cache_scheme", "kv_cache_quant_algo" };
    bool ok = true;
    if (!cJSON_IsObject(q)) return true;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        cJSON *list = cJSON_GetObjectItemCaseSensitive(q, lists[i]);
        if (cJSON_IsArray(list)) clean_list(list, c, left);
    }
    for (size_t i = 0; left->kv_scales && i < sizeof cache / sizeof *cache; i++)
        if (moe_json_get(q, cache[i])) ok = ok && moe_json_replace(q, cache[i], cJSON_CreateNull());
    return ok;
}

/* ---- config.json ---- */

/* The configuration of the text model in a multimodal one: its text_config, and those members beside it that
 * concern the text.  NULL without memory. */
static cJSON *copy_text_part(const cJSON *root)
{
    static const char *const beside[] = { "bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype",
                                          "dtype", "quantization_config",
                                          "compression_config" };
    const cJSON *inner = moe_json_get(root, "text_config");
    cJSON *c = cJSON_Duplicate(inner, true);

    for (size_t i = 0; c && i < sizeof beside / sizeof *beside; i++) {
        const cJSON *v = moe_json_get(root, beside[i]);
        if (v && !moe_json_get(inner, beside[i]) && !set_member(c, beside[i], cJSON_Duplicate(v, true))) {
            cJSON_Delete(c);
            c = NULL;
        }
    }
    return c;
}

/* Changes the config c so that it describes the checkpoint.  False without memory. */
static bool adapt_config(const struct moe_source *src, const struct moe_left_out *left, cJSON *c)
{
    static const char *const text = "DeepseekV3ForCausalLM";
    bool ok = !left->vision || set_member(c, "architectures", cJSON_CreateStringArray(&text, 1));

    /* Without the files of the model's own classes, an engine loads it with its own class for this type. */
    if (!has_all_map_files(src, moe_json_get(c, "auto_map"))) {
        cJSON_DeleteItemFromObjectCaseSensitive(c, "auto_map");
        if (left->vision || !strcmp(src->config.model_type, "kimi_k2"))
            ok = ok && set_member(c, "model_type", cJSON_CreateString("deepseek_v3"));
    }
    if (left->prediction) ok = ok && set_member(c, "num_nextn_predict_layers", cJSON_CreateNumber(0));
    ok = ok && clean_quantization(cJSON_GetObjectItemCaseSensitive(c, "quantization_config"), &src->config,
                                  left);
    return ok && clean_quantization(cJSON_GetObjectItemCaseSensitive(c, "compression_config"), &src->config,
                                    left);
}

enum moe_code moe_model_config(const struct moe_source *src, struct moe_left_out *left, cJSON **config,
                               struct moe_err *err)
{
    cJSON *root;
    MOE_TRY(read_source_config(src, &root, err));
    left->vision &= moe_json_get(root, "text_config") != NULL;
    *config = left->vision ? copy_text_part(root) : cJSON_Duplicate(root, true);
    cJSON_Delete(root);
    if (*config && adapt_config(src, left, *config)) return MOE_OK;
    cJSON_Delete(*config);
    *config = NULL;
    return no_memory(err);
}

enum moe_code moe_model_quant_config(const struct moe_source *src, const struct moe_left_out *left,
                                     cJSON *config, struct moe_err *err)
{
    return clean_quantization(cJSON_GetObjectItemCaseSensitive(config, "quantization"), &src->config, left) &&
           clean_quantization(config, &src->config, left) ? MOE_OK : no_memory(err);
}

const char *moe_vision_file(int i)
{
    static const char *const names[] = { "preprocessor_config.json", "processor_config.json",
                                         "video_preprocessor_config.json", NULL };
    return names[i];
}

bool moe_is_vision_file(const char *name)
{
    int i = 0;
    while (moe_vision_file(i) && strcmp(moe_vision_file(i), name)) i++;
    return moe_vision_file(i);
}

enum moe_code moe_export_json(const char *dir, const char *name, const cJSON *o, struct moe_err *err)
{
    char path[PATH_MAX], *text;
    MOE_TRY(moe_path_join(path, sizeof path, dir, name, err));
    if (!(text = moe_json_print(o, 2))) return no_memory(err);
    enum moe_code code = moe_write_file(path, text, strlen(text), err);
    free(text);
    return code;
}
