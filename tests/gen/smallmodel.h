/* SPDX-License-Identifier: Apache-2.0 */
/* tests/gen/smallmodel.h - writes a container of a few KB through moe_writer; tests that need a small
 * container include it. */
#ifndef SMALLMODEL_H
#define SMALLMODEL_H

#undef NDEBUG
#include "base/io.h"
#include "formats/container/container.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char small_config_text[] =
    "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"model_type\":\"kimi_k2\",\"hidden_size\":32,"
    "\"intermediate_size\":32,\"moe_intermediate_size\":32,\"num_hidden_layers\":2,\"first_k_dense_replace\":"
    "1,\"moe_layer_freq\":1,\"num_attention_heads\":1,\"num_key_value_heads\":1,\"q_lora_rank\":32,\"kv_lora_"
    "rank\":32,\"qk_nope_head_dim\":16,\"qk_rope_head_dim\":16,\"v_head_dim\":32,\"vocab_size\":8,\"n_routed_"
    "experts\":3,\"num_experts_per_tok\":2,\"n_shared_experts\":1,\"n_group\":1,\"topk_group\":1,\"hidden_"
    "act\":\"silu\",\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\",\"norm_topk_prob\":true,\"num_"
    "nextn_predict_layers\":0,\"max_position_embeddings\":128,\"routed_scaling_factor\":2.5,\"rms_norm_eps\":"
    "1e-6,\"rope_theta\":10000,\"tie_word_embeddings\":false}";

static void small_config(struct moe_config *c)
{
    struct moe_err err = MOE_ERR_INIT;
    enum moe_scheme scheme;
    cJSON *j;
    if (moe_json_parse(small_config_text, sizeof small_config_text - 1, "config", &j, &err) != MOE_OK ||
        moe_config_parse(j, "config", c, &scheme, &err) != MOE_OK) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    cJSON_Delete(j);
}

/* The type of a tensor.  mix -1: every kind of type somewhere; else matrices of `mix` (BF16 where their
 * columns do not suit it). */
static uint8_t small_type(enum moe_role role, int64_t rows, int64_t cols, int mix)
{
    if (rows == 1)
        return role == MOE_ROLE_ROUTER_BIAS     ? MOE_F32
             : mix == MOE_F32 || mix == MOE_F16 ? (uint8_t)mix
                                                : MOE_BF16;
    if (mix >= 0) return moe_plane_bytes(mix, 0, MOE_PLANE_DATA, rows, cols) > 0 ? (uint8_t)mix : MOE_BF16;
    switch (moe_role_class(role)) {
    case MOE_CLASS_EXPERT: return role == MOE_ROLE_EXPERT_DOWN ? MOE_INT4_G32 : MOE_NVFP4;
    case MOE_CLASS_SHARED: return MOE_NVFP4;
    case MOE_CLASS_DENSE: return MOE_FP8_B128;
    case MOE_CLASS_ATTN: return role == MOE_ROLE_KV_B ? MOE_BF16 : MOE_FP8_B128;
    case MOE_CLASS_MODEL: return MOE_F32;
    default: return MOE_BF16;
    }
}

/* Lists the tensors of one unit: -1 all dense ones, else the experts of that layer.  The caller frees the
 * list of *n tensors. */
static struct moe_tensor *small_tensors(const struct moe_config *c, int unit, int mix, int64_t *n)
{
    struct moe_tensor *t = calloc(256, sizeof *t);
    assert(t);
    *n = 0;
    for (int layer = -1; layer < c->num_hidden_layers; layer++)
        for (int expert = unit < 0 ? -1 : 0; expert < (unit < 0 ? 0 : c->n_routed_experts); expert++)
            for (int role = 0; role < MOE_ROLE_COUNT; role++) {
                int64_t rows, cols;
                if ((moe_role_class((enum moe_role)role) == MOE_CLASS_EXPERT) != (unit >= 0) ||
                    (unit >= 0 && layer != unit))
                    continue;
                if (!moe_tensor_shape(c, (enum moe_role)role, layer, &rows, &cols)) continue;
                t[(*n)++] = (struct moe_tensor){ .role = (int16_t)role,
                                                 .layer = (int16_t)layer,
                                                 .expert = expert,
                                                 .rows = rows,
                                                 .cols = cols,
                                                 .type = small_type((enum moe_role)role, rows, cols, mix) };
            }
    return t;
}

/* Fills a plane with values that are finite in its type; the padding of NVFP4's scale tiles is zero. */
static void small_fill(const struct moe_tensor *t, int plane, uint32_t seed, uint8_t *p)
{
    uint64_t n = t->plane[plane].bytes;
    for (uint64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (uint8_t)(seed >> 24);
    }
    bool scale = plane != MOE_PLANE_DATA;
    int width = plane >= MOE_PLANE_GLOBAL ? 4 : scale ? moe_scale_bytes(moe_dtypes[t->type].scale)
              : moe_dtype_plain(t->type) ? moe_dtypes[t->type].bits / 8 : 1;
    if (scale && moe_dtypes[t->type].scale == MOE_SCALE_E8M0)
        for (uint64_t i = 0; i < n; i++) p[i] = (uint8_t)(100 + p[i] % 50);
    for (uint64_t i = 0; width > 1 && i < n; i += (uint64_t)width) {
        p[i + (uint64_t)width - 1] = (uint8_t)((p[i + (uint64_t)width - 1] & (scale ? 0 : 0x80)) | 0x3d);
        if (width == 4) p[i] = p[i + 1] = 0; /* short products: every decoder agrees on them */
    }
    if (moe_dtype_like(t->type) == MOE_FP8_B128 && !scale)
        for (uint64_t i = 0; i < n; i++)
            if ((p[i] & 0x7f) == 0x7f) p[i] ^= 1;
    if (t->type != MOE_NVFP4 || plane != MOE_PLANE_SCALE) return;
    uint8_t *tiled = calloc(1, (size_t)n);
    size_t blocks = (size_t)t->cols / 16;
    assert(tiled);
    for (size_t m = 0; m < (size_t)t->rows; m++)
        for (size_t k = 0; k < blocks; k++) {
            size_t at = moe_tile_offset(m, k, blocks);
            tiled[at] = (uint8_t)(0x28 + p[at] % 24);
        }
    memcpy(p, tiled, (size_t)n);
    free(tiled);
}

#define SMALL_TRY(call) do { enum moe_code c_ = (call); if (c_ != MOE_OK) return c_; } while (0)

/* The list of the source tensors of a unit, as moe_writer_commit_unit takes it. */
static cJSON *small_sources(const struct moe_tensor *t, int64_t n, int unit)
{
    cJSON *source = cJSON_CreateArray();
    for (int64_t i = 0; i < n; i++) {
        char name[128];
        const int shape[2] = { (int)t[i].rows, (int)t[i].cols };
        cJSON *e = cJSON_CreateArray();
        moe_tensor_name((enum moe_role)t[i].role, t[i].layer, t[i].expert, name);
        cJSON_AddItemToArray(e, cJSON_CreateString(name));
        cJSON_AddItemToArray(e, cJSON_CreateString("BF16"));
        cJSON_AddItemToArray(e, cJSON_CreateIntArray(shape, 2));
        cJSON_AddItemToArray(e, cJSON_CreateString("model.safetensors"));
        for (int k = 0; k < 3; k++) cJSON_AddItemToArray(e, cJSON_CreateNull());
        /* the place of the tensor in its file: those of the two units alternate */
        cJSON_AddItemToArray(e, cJSON_CreateNumber((double)(unit < 0 ? 2 * i : 2 * i + 1)));
        cJSON_AddItemToArray(source, e);
    }
    return source;
}

/* Writes one unit.  option: see small_write.  backwards: planes and their halves in the opposite order. */
static enum moe_code small_write_unit(struct moe_writer *w, const struct moe_config *c, int unit, int mix,
                                      int option, bool backwards, struct moe_err *err)
{
    char name[32], path[PATH_MAX];
    int64_t n;
    struct moe_shard_header h;
    struct moe_shard_writer *s;
    snprintf(name, sizeof name, unit < 0 ? "dense" : "layer-%03d", unit);
    if (moe_writer_has_unit(w, name)) return MOE_OK;
    struct moe_tensor *t = small_tensors(c, unit, mix, &n);
    SMALL_TRY(moe_shard_layout(t, n, unit, &h, err));
    SMALL_TRY(moe_writer_unit_path(w, name, path, sizeof path, err));
    SMALL_TRY(moe_shard_create(&s, path, t, n, &h, err));
    for (int64_t k = 0; k < n * MOE_PLANE_COUNT; k++) {
        int64_t at = backwards ? n * MOE_PLANE_COUNT - 1 - k : k, i = at / MOE_PLANE_COUNT;
        int p = (int)(at % MOE_PLANE_COUNT);
        const struct moe_span *sp = &t[i].plane[p];
        if (sp->file < 0) continue;
        uint8_t *bytes = malloc((size_t)sp->bytes);
        assert(bytes);
        small_fill(&t[i], p, (uint32_t)((unit + 2) * 1000 + i * 4 + p + (option - 1) * 77777), bytes);
        size_t half = backwards ? (size_t)sp->bytes / 2 : 0;
        SMALL_TRY(moe_shard_write(s, i, p, half, bytes + half, (size_t)sp->bytes - half, err));
        if (half) SMALL_TRY(moe_shard_write(s, i, p, 0, bytes, half, err));
        moe_shard_set_hash(s, i, p, moe_hash64(bytes, (size_t)sp->bytes));
        free(bytes);
    }
    uint64_t bytes;
    struct moe_hash128 digest;
    cJSON *source = small_sources(t, n, unit);
    free(t);
    enum moe_code code = moe_shard_finish(&s, &bytes, &digest, err);
    if (code == MOE_OK) code = moe_writer_commit_unit(w, name, bytes, digest, source, NULL, err);
    cJSON_Delete(source);
    return code;
}

/* Writes the container at `out`.  mix: as for small_type.  option: the value of the container's one option,
 * which changes all data.  backwards: the units, too, come in the opposite order.  units: it stops after so
 * many, without publishing; 2 are all, and it is published.  *done (NULL: not asked for): the container was
 * there already. */
__attribute__((unused)) /* a program may want the config alone */
static enum moe_code
small_write(const char *out, enum moe_write_mode mode, int mix, int option, bool backwards, int units,
            bool *done, struct moe_err *err)
{
    struct moe_config c;
    struct moe_writer *w;
    uint64_t bytes;
    struct moe_writer_found found;
    small_config(&c);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "option", option);
    cJSON_AddNumberToObject(o, "mix", mix);
    const struct moe_identity seven = { .header_digest = 7, .weights = { 7, 7 }, .has_weights = true };
    enum moe_code code = moe_writer_open(
        &w, out, mode, &(struct moe_work){ .options = o, .input = seven, .origin = seven }, &found, err);
    cJSON_Delete(o);
    if (done) *done = found.done;
    if (code != MOE_OK || found.done) return code;
    for (int u = 0; u < units && code == MOE_OK; u++)
        code = small_write_unit(w, &c, backwards ? 1 - 2 * u : 2 * u - 1, mix, option, backwards, err);
    if (code == MOE_OK && units == 2) {
        code = moe_writer_add_file(w, "hf/config.json", small_config_text, sizeof small_config_text - 1, err);
        if (code == MOE_OK) code = moe_writer_add_file(w, "tokenizer/note", "none", 4, err);
        if (code == MOE_OK) code = moe_writer_publish(&w, &c, NULL, NULL, NULL, 0, &bytes, err);
    }
    moe_writer_close(&w, false);
    return code;
}

#endif
