/* SPDX-License-Identifier: Apache-2.0 */
/* convert/gguf-meta.c - the metadata that llama.cpp's deepseek2 loader reads, in the order of
 * convert_hf_to_gguf.py. */
#include "convert/gguf-internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The numbers by which GGUF files name these. */
enum {
    FILE_TYPE_F32 = 0,
    FILE_TYPE_F16 = 1,
    FILE_TYPE_Q4_0 = 2,
    FILE_TYPE_Q6_K = 18,
    FILE_TYPE_BF16 = 32,
    FILE_TYPE_NVFP4 = 39,
    GATING_SIGMOID = 2,
    QUANTIZATION_VERSION = 2
};

static void str(struct moe_gguf_meta *m, const char *key, const char *s)
{
    moe_gguf_put_str(m, key, s, strlen(s));
}

/* A count with its unit, rounded as gguf-py does to at least two digits: 14.7e9 is "15B", 4.2e9 "4.2B". */
static void rounded_count(double n, char out[32])
{
    static const struct {
        double unit;
        char suffix;
    } scale[] = { { 1e12, 'T' }, { 1e9, 'B' }, { 1e6, 'M' }, { 0, 'K' } };
    int i = 0;
    while (scale[i].unit && n <= scale[i].unit) i++;
    double v = n / (scale[i].unit ? scale[i].unit : 1e3);
    snprintf(out, 32, "%.0f", v);
    size_t digits = strlen(out + strspn(out, "0"));
    snprintf(out, 32, "%.*f%c", digits < 2 ? (int)(2 - digits) : 0, v, scale[i].suffix);
}

/* Adds general.size_label, "384x15B": the number of experts, and the parameters of one expert of each layer
 * and of all else. */
static void size_label(struct moe_gguf_meta *m, const struct moe_gguf_plan *p, int64_t experts)
{
    double shared = 0, expert = 0;
    char count[32], label[64];
    for (int64_t i = 0; i < p->n; i++) {
        const struct moe_gguf_tensor *t = &p->t[i];
        double size = (double)t->ne[0] * (double)t->ne[1] * (double)t->ne[2];
        if (t->ndim == 3 && strstr(t->name, "_exps.")) expert += size / (double)t->ne[2];
        else shared += size;
    }
    rounded_count(shared + expert, count);
    snprintf(label, sizeof label, "%" PRId64 "x%s", experts, count);
    str(m, "general.size_label", experts ? label : count);
}

static uint64_t file_type(const struct moe_gguf_plan *p)
{
    bool q4_0 = false, q6_k = false, bf16 = false, f16 = false, nvfp4 = false;
    for (int64_t i = 0; i < p->n; i++) {
        q4_0 |= p->t[i].type == MOE_GGUF_Q4_0;
        q6_k |= p->t[i].type == MOE_GGUF_Q6_K;
        bf16 |= p->t[i].type == MOE_GGUF_BF16;
        f16 |= p->t[i].type == MOE_GGUF_F16;
        nvfp4 |= p->t[i].type == MOE_GGUF_NVFP4;
    }
    if (nvfp4) return FILE_TYPE_NVFP4;
    return q6_k ? FILE_TYPE_Q6_K
         : q4_0 ? FILE_TYPE_Q4_0
         : bf16 ? FILE_TYPE_BF16
         : f16  ? FILE_TYPE_F16
                : FILE_TYPE_F32;
}

/* MOE_UNSUPPORTED for a config that the architecture's keys cannot express. */
static enum moe_code check_config(const struct moe_source *src, struct moe_err *err)
{
    const struct moe_config *c = &src->config;
    if (c->moe_layer_freq != 1)
        return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL,
                           "has experts in every layer of number %" PRId64
                           " only, which GGUF's deepseek2 cannot say",
                           c->moe_layer_freq);
    if (c->yarn && c->mscale != c->mscale_all_dim)
        return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL,
                           "has YaRN mscale %g and mscale_all_dim %g: GGUF's deepseek2 wants them equal",
                           c->mscale, c->mscale_all_dim);
    return MOE_OK;
}

struct number { const char *key; int64_t v; };

static enum moe_code numbers(struct moe_gguf_meta *m, const struct number *n, size_t count,
                             struct moe_err *err)
{
    char key[96];
    for (size_t i = 0; i < count; i++) {
        if (n[i].v < 0 || n[i].v > UINT32_MAX)
            return moe_fail(err, MOE_UNSUPPORTED, "%s is %" PRId64 ", GGUF wants it below 2^32", n[i].key,
                            n[i].v);
        snprintf(key, sizeof key, "deepseek2.%s", n[i].key);
        moe_gguf_put_u32(m, key, (uint64_t)n[i].v);
    }
    return MOE_OK;
}

#define NUMBERS(m, err, ...) \
    MOE_TRY(numbers(m, (const struct number[]){ __VA_ARGS__ }, \
                    sizeof((const struct number[]){ __VA_ARGS__ }) / sizeof(struct number), err))

static enum moe_code rope(struct moe_gguf_meta *m, const struct moe_config *c, struct moe_err *err)
{
    if (c->yarn) {
        str(m, "deepseek2.rope.scaling.type", "yarn");
        moe_gguf_put_f32(m, "deepseek2.rope.scaling.factor", c->yarn_factor);
        NUMBERS(m, err,
                { "rope.scaling.original_context_length", (int64_t)c->original_max_position_embeddings });
        moe_gguf_put_f32(m, "deepseek2.rope.scaling.yarn_beta_fast", c->beta_fast);
        moe_gguf_put_f32(m, "deepseek2.rope.scaling.yarn_beta_slow", c->beta_slow);
    }
    moe_gguf_put_f32(m, "deepseek2.rope.freq_base", c->rope_theta);
    return MOE_OK;
}

static enum moe_code model(struct moe_gguf_meta *m, const struct moe_source *src,
                           const struct moe_gguf_plan *p, struct moe_err *err)
{
    const struct moe_config *c = &src->config;
    NUMBERS(m, err, { "block_count", c->num_hidden_layers }, { "context_length", c->max_position_embeddings },
            { "embedding_length", c->hidden_size }, { "feed_forward_length", c->intermediate_size },
            { "attention.head_count", c->num_attention_heads },
            { "attention.head_count_kv", 1 }); /* all heads share the latent */
    MOE_TRY(rope(m, c, err));
    moe_gguf_put_f32(m, "deepseek2.attention.layer_norm_rms_epsilon", c->rms_norm_eps);
    NUMBERS(m, err, { "expert_used_count", c->num_experts_per_tok }, { "expert_group_count", c->n_group },
            { "expert_group_used_count", c->topk_group }, { "expert_gating_func", GATING_SIGMOID });
    moe_gguf_put_u32(m, "general.file_type", file_type(p));
    NUMBERS(m, err, { "leading_dense_block_count", c->first_k_dense_replace },
            { "vocab_size", c->vocab_size });
    if (c->q_lora_rank) NUMBERS(m, err, { "attention.q_lora_rank", c->q_lora_rank });
    NUMBERS(m, err, { "attention.kv_lora_rank", c->kv_lora_rank },
            { "attention.key_length", c->kv_lora_rank + c->qk_rope_head_dim },
            { "attention.value_length", c->kv_lora_rank },
            { "attention.key_length_mla", c->qk_nope_head_dim + c->qk_rope_head_dim },
            { "attention.value_length_mla", c->v_head_dim },
            { "expert_feed_forward_length", c->moe_intermediate_size },
            { "expert_count", c->n_routed_experts }, { "expert_shared_count", c->n_shared_experts });
    moe_gguf_put_f32(m, "deepseek2.expert_weights_scale",
                     ldexp(c->routed_scaling_factor, p->powers->routing));
    if (c->norm_topk_prob) moe_gguf_put_bool(m, "deepseek2.expert_weights_norm", true);
    NUMBERS(m, err, { "rope.dimension_count", c->qk_rope_head_dim });
    /* The loader divides this by 0.1, for the sake of old files. */
    if (c->yarn) moe_gguf_put_f32(m, "deepseek2.rope.scaling.yarn_log_multiplier", 0.1 * c->mscale_all_dim);
    return MOE_OK;
}

enum moe_code moe_gguf_make_metadata(struct moe_gguf_meta *m, const struct moe_source *src,
                                     const struct moe_gguf_plan *p, bool *no_tokenizer, struct moe_err *err)
{
    *m = (struct moe_gguf_meta){ 0 };
    MOE_TRY(check_config(src, err));
    moe_gguf_put_producer(m);
    str(m, "general.architecture", "deepseek2");
    str(m, "general.type", "model");
    /* the directory's name is not used, so that the same weights give the same bytes */
    str(m, "general.name", src->config.model_type);
    size_label(m, p, src->config.n_routed_experts);
    enum moe_code code = model(m, src, p, err);
    if (code == MOE_OK) {
        moe_gguf_put_u32(m, "general.quantization_version", QUANTIZATION_VERSION);
        code = moe_gguf_put_tokenizer(m, src, no_tokenizer, err);
    }
    if (code == MOE_OK && m->bytes.failed) code = moe_fail(err, MOE_NOMEM, "no memory for the metadata");
    if (code != MOE_OK) moe_gguf_meta_release(m);
    return code;
}
