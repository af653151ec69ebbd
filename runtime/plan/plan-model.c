/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-model.h"

#include "base/minmax.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The shares of the peak rates that real kernels attain: of memory, of matrix products, of attention, of a
 * link inside a domain while tokens are dispatched and combined, and of the network between domains. */
static const double MEMORY = 0.8, GEMM = 0.6, ATTENTION = 0.5, DISPATCH = 0.65, COMBINE = 0.69, NETWORK = 0.8;

const struct moe_gpu moe_gpus[] = {
    { "gb200-nvl72",
      "memory as the OS sees it and dispatch times: TensorRT-LLM's blogs on wide expert parallelism; "
      "bandwidth and NVLink: NVIDIA's data sheet; dense FLOP/s at 1200 W: glennklockwood.com, B200",
      188416.0 * 1048576, 8e12, 900e9, 50e9, 72, 10e15, 5e15, 2.5e15, 17.6e-6, 27e-6 },
    { "hgx-h200",
      "NVIDIA's data sheet (141 GB, 4.8 TB/s, NVLink 450 GB/s one way, FP8 1979 and BF16 989 dense TFLOP/s); "
      "400 Gb/s of network a GPU; dispatch bases as measured on GB200",
      141e9, 4.8e12, 450e9, 50e9, 8, 0, 1.979e15, 0.989e15, 17.6e-6, 27e-6 },
};
const int moe_gpu_count = (int)(sizeof moe_gpus / sizeof *moe_gpus);

const struct moe_gpu *moe_gpu_find(const char *name)
{
    for (int i = 0; i < moe_gpu_count; i++)
        if (!strcmp(moe_gpus[i].name, name)) return &moe_gpus[i];
    return NULL;
}

enum moe_code moe_gpu_parse(struct moe_gpu *g, const char *text, struct moe_err *err)
{
    char name[64];
    int n = (int)strcspn(text, ",");
    snprintf(name, sizeof name, "%.*s", n, text);
    const struct moe_gpu *known = moe_gpu_find(name);
    if (!known)
        return moe_fail(
            err, MOE_USAGE,
            "unknown --gpu '%s' (gb200-nvl72 or hgx-h200, figures can be changed: %s,bandwidth=7000)", name,
            moe_gpus[0].name);
    *g = *known;
    struct {
        const char *key;
        double *value, unit;
    } keys[] = { { "memory", &g->memory, 1e9 }, { "bandwidth", &g->bandwidth, 1e9 },
                 { "link", &g->link, 1e9 },     { "network", &g->domain_link, 1e9 },
                 { "fp4", &g->fp4, 1e12 },      { "fp8", &g->fp8, 1e12 },
                 { "bf16", &g->bf16, 1e12 } };
    for (const char *at = text + n; *at; at += strcspn(at, ",")) {
        char key[32], end = 0;
        double v;
        bool found = false;
        if (sscanf(++at, "%31[a-z0-9]=%lf%c", key, &v, &end) < 2 || (end && end != ',') ||
            !(v >= 0 && v < 1e9))
            return moe_fail(err, MOE_USAGE, "--gpu: want key=number, not '%s'", at);
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (!strcmp(keys[i].key, key)) *keys[i].value = v * keys[i].unit, found = true;
        if (!strcmp(key, "domain") && v >= 1) g->domain = (int32_t)v, found = true;
        if (!found)
            return moe_fail(
                err, MOE_USAGE,
                "--gpu: unknown figure '%s' (memory, bandwidth, link, network, domain, fp4, fp8, bf16)", key);
    }
    return g->memory > 0 && g->bandwidth > 0 && g->link > 0 && g->domain_link > 0 && g->fp8 > 0 && g->bf16 > 0
               ? MOE_OK : moe_fail(err, MOE_USAGE, "--gpu: a figure is 0");
}

/* ---- weights ---- */

/* Bytes per weight with its share of scales, by the name of a type; 0: the name is unknown.  nvfp4 has a
 * scale of 1 byte for 16 weights, int4 one of 2 bytes for 32, fp8 one of 4 bytes for 128 x 128. */
static double bytes_of_type(const char *t)
{
    return !strcmp(t, "bf16")  ? 2
         : !strcmp(t, "fp8")   ? 1 + 4.0 / 16384
         : !strcmp(t, "int4")  ? 0.5625
         : !strcmp(t, "nvfp4") ? 0.5625
                               : 0;
}

static double bytes_of_scheme(enum moe_scheme s, bool expert)
{
    if (s == MOE_SCHEME_FP8) return bytes_of_type("fp8");
    return expert && s != MOE_SCHEME_NONE ? 0.5625 : 2; /* other schemes quantize only routed experts */
}

static double *part_of(struct moe_weight_bytes *w, enum moe_role role)
{
    if (role == MOE_ROLE_EMBED) return &w->embed;
    if (role == MOE_ROLE_HEAD || role == MOE_ROLE_NORM) return &w->head;
    switch (moe_role_class(role)) {
    case MOE_CLASS_ATTN: return &w->attention;
    case MOE_CLASS_DENSE: return &w->dense;
    case MOE_CLASS_SHARED: return &w->shared;
    case MOE_CLASS_EXPERT: return &w->expert;
    default: return &w->router;
    }
}

static bool is_matrix_of_layer(enum moe_role role, int64_t rows)
{
    enum moe_class c = moe_role_class(role);
    return rows > 1 && (c == MOE_CLASS_ATTN || c == MOE_CLASS_DENSE || c == MOE_CLASS_SHARED);
}

/* Bytes of a tensor, as it is stored or, without tensors, as the config implies; for an expert, of its number
 * 0.  type_bytes, dense_bytes: bytes per weight to count with instead; 0: none. */
static double tensor_bytes(const struct moe_source *src, enum moe_role role, int layer, double type_bytes,
                           double dense_bytes)
{
    bool expert = moe_role_class(role) == MOE_CLASS_EXPERT;
    int64_t rows, cols;
    if (!moe_tensor_shape(&src->config, role, layer, &rows, &cols)) return 0;
    if (role == MOE_ROLE_HEAD && src->config.tie_word_embeddings) return 0;
    if (expert && type_bytes > 0) return (double)rows * (double)cols * type_bytes;
    if (dense_bytes > 0 && is_matrix_of_layer(role, rows)) return (double)rows * (double)cols * dense_bytes;
    const struct moe_tensor *t = src->n_tensors ? moe_source_find(src, role, layer, expert ? 0 : -1) : NULL;
    if (t) return (double)moe_tensor_bytes(t);
    bool quantized = expert || is_matrix_of_layer(role, rows);
    return (double)rows * (double)cols * (quantized ? bytes_of_scheme(src->scheme, expert) : 2);
}

enum moe_code moe_weight_bytes_of(struct moe_weight_bytes *w, const struct moe_source *src,
                                  const char *expert_type, double dense_bytes, struct moe_err *err)
{
    const struct moe_config *c = &src->config;
    double type_bytes = strcmp(expert_type, "source") ? bytes_of_type(expert_type) : 0;
    if (strcmp(expert_type, "source") && !(type_bytes > 0))
        return moe_fail(err, MOE_USAGE, "unknown --expert-type '%s' (source, bf16, fp8, int4 or nvfp4)",
                        expert_type);
    *w = (struct moe_weight_bytes){ .layers = c->num_hidden_layers };
    w->moe_layers = moe_config_moe_layers(c);
    for (int role = 0; role < MOE_ROLE_COUNT; role++) {
        double *to = part_of(w, (enum moe_role)role);
        bool of_model = moe_role_class((enum moe_role)role) == MOE_CLASS_MODEL;
        for (int l = of_model ? -1 : 0; l < (of_model ? 0 : (int)c->num_hidden_layers); l++)
            *to += tensor_bytes(src, (enum moe_role)role, l, type_bytes, dense_bytes);
    }
    w->expert /= w->moe_layers ? (double)w->moe_layers : 1;
    return MOE_OK;
}

enum moe_code moe_dense_bytes(const char *type, double *bytes, struct moe_err *err)
{
    *bytes = !strcmp(type, "source") ? 0 : !strcmp(type, "bf16") ? 2 : !strcmp(type, "fp8") ? 1 : -1;
    return *bytes >= 0 ? MOE_OK
                       : moe_fail(err, MOE_USAGE, "unknown --dense-type '%s' (source, bf16 or fp8)", type);
}

static enum moe_code check_range(const char *name, int64_t v, struct moe_err *err)
{
    int64_t most = 1 << 24;
    if (v >= 1 && v <= most) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "--%s %lld: want 1 to %lld", name, (long long)v, (long long)most);
}

enum moe_code moe_step_options_check(const struct moe_step_options *o, struct moe_gpu *gpu,
                                     struct moe_err *err)
{
    MOE_TRY(check_range("batch", o->batch, err));
    MOE_TRY(check_range("context", o->context, err));
    MOE_TRY(check_range("prefill", o->prefill, err));
    MOE_TRY(moe_gpu_parse(gpu, o->gpu, err));
    if (!strcmp(o->kv_type, "fp8") || !strcmp(o->kv_type, "bf16")) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "unknown --kv-type '%s' (fp8 or bf16)", o->kv_type);
}

double moe_weight_bytes_replicated(const struct moe_weight_bytes *w)
{
    return w->attention + w->shared + w->router + w->dense + w->embed + w->head;
}

/* ---- one step ---- */

/* How many weights of a class a layer has; of routed experts, how many one expert has. */
static double count_weights(const struct moe_config *c, enum moe_class class, int layer)
{
    double n = 0;
    for (int role = 0; role < MOE_ROLE_COUNT; role++) {
        int64_t rows, cols;
        if (moe_role_class((enum moe_role)role) == class &&
            moe_tensor_shape(c, (enum moe_role)role, layer, &rows, &cols))
            n += (double)rows * (double)cols;
    }
    return n;
}

/* What a step needs, counted from the model's config. */
struct counts {
    double expert, attention, shared, dense; /* weights of a layer; of routed experts, those of one */
    double values;                           /* cached values of a token in a layer */
    double distinct;                         /* to how many different ranks a token goes on average */
    double dispatch_bytes, combine_bytes;    /* of a token, sent to one rank and back */
    int moe_layer;                           /* the number of a layer with experts */
};

static void count(struct counts *x, const struct moe_step_task *t)
{
    const struct moe_config *c = t->c;
    double g = t->ranks, k = (double)c->num_experts_per_tok;
    for (int l = 0; l < (int)c->num_hidden_layers; l++)
        if (moe_layer_is_moe(c, l)) x->moe_layer = l;
    x->expert = count_weights(c, MOE_CLASS_EXPERT, x->moe_layer);
    x->attention = count_weights(c, MOE_CLASS_ATTN, x->moe_layer);
    x->shared = count_weights(c, MOE_CLASS_SHARED, x->moe_layer);
    x->dense = c->first_k_dense_replace > 0 ? count_weights(c, MOE_CLASS_DENSE, 0) : 0;
    x->values = (double)(c->kv_lora_rank + c->qk_rope_head_dim);
    x->distinct = g * (1 - pow(1 - 1 / g, k)); /* of g ranks, by k choices */
    /* a row in nvfp4, or in fp8 with a float32 scale for 128 values, and 64 bytes beside it */
    x->dispatch_bytes = t->gpu.fp4 > 0 ? (double)c->hidden_size * 0.5625 + 64
                                       : (double)c->hidden_size * 1.03125 + 64;
    x->combine_bytes = (double)c->hidden_size * 2;
}

/* FLOP/s of a matrix product, in the type that weights of so many bytes have: 4 bits, 8 bits or more. */
static double gemm_rate(const struct moe_step_task *t, double bytes_a_weight)
{
    if (bytes_a_weight < 0.75) return (t->gpu.fp4 > 0 ? t->gpu.fp4 : t->gpu.bf16) * GEMM;
    return (bytes_a_weight < 1.5 ? t->gpu.fp8 : t->gpu.bf16) * GEMM;
}

/* Seconds in which every rank sends `tokens` tokens of `bytes` bytes to the ranks of their experts, or gets
 * them back: the longer time of the links inside domains and of those between them.  In a prefill step a
 * token crosses the network once for each domain and is passed on inside it; in a decode step it goes
 * straight to each rank.  base: seconds without any token; share: of the peak rate of a link in a domain. */
static double transfer_seconds(const struct moe_step_task *t, const struct counts *x, double tokens,
                               double bytes, double base, double share, bool prefill)
{
    double g = t->ranks, d = t->gpu.domain < g ? t->gpu.domain : g, away = g - d, domains = g / d;
    double sent = prefill ? (domains - 1) * (1 - pow(1 - 1 / domains, (double)t->c->num_experts_per_tok))
                          : x->distinct * (away / g);
    double inside = base + x->distinct * (prefill ? 1 : d / g) * tokens * bytes / (t->gpu.link * share);
    double outside = sent * tokens * bytes / (t->gpu.domain_link * NETWORK);
    return g > 1 ? moe_max_f64(inside, outside) : 0;
}

/* Seconds of a matrix product: the longer of reading the weights and of multiplying them with the tokens. */
static double product_seconds(const struct moe_step_task *t, double bytes, double weights, double tokens)
{
    double each = weights > 0 ? bytes / weights : 0;
    return weights > 0
             ? moe_max_f64(bytes / (t->gpu.bandwidth * MEMORY), 2 * weights * tokens / gemm_rate(t, each))
             : 0;
}

/* The expected number of slots of a rank that get one of its `tokens` tokens, if all loads are equal. */
static double activated_slots(const struct moe_step_task *t, double tokens)
{
    double per_slot = tokens * (double)t->c->num_experts_per_tok * t->ranks / t->slots,
           slots = ceil((double)t->slots / t->ranks);
    return slots * -expm1(-per_slot);
}

/* Seconds of a step of `tokens` tokens of a rank, each with `context` cached tokens, in which `active` slots
 * of the rank have a token.  For a decode step it also sets the parts of the time in *s. */
static double step_seconds(struct moe_step *s, const struct moe_step_task *t, const struct counts *x,
                           double tokens, double context, bool prefill, double active)
{
    const struct moe_config *c = t->c;
    const struct moe_weight_bytes *w = t->w;
    double layers = (double)w->layers, moe_layers = (double)w->moe_layers,
           heads = (double)c->num_attention_heads, k = (double)c->num_experts_per_tok;
    double scores = prefill ? heads * 2 * (double)(c->qk_nope_head_dim + c->qk_rope_head_dim + c->v_head_dim)
                            : heads * 2 * (x->values + (double)c->kv_lora_rank);
    double moe = moe_max_f64(active * w->expert / (t->gpu.bandwidth * MEMORY),
                             2 * k * tokens * t->imbalance * x->expert / gemm_rate(t, w->expert / x->expert));
    double attention = product_seconds(t, w->attention / layers, x->attention, tokens);
    double shared = moe_layers > 0 ? product_seconds(t, w->shared / moe_layers, x->shared, tokens) : 0;
    double cache = (prefill ? 1 : tokens) * context * x->values * t->kv_bytes / (t->gpu.bandwidth * MEMORY);
    double kv = moe_max_f64(cache, tokens * context * scores /
                                       ((t->kv_bytes < 2 ? t->gpu.fp8 : t->gpu.bf16) * ATTENTION));
    double dispatch = transfer_seconds(t, x, tokens, x->dispatch_bytes, t->gpu.dispatch_base, DISPATCH,
                                       prefill);
    double combine = transfer_seconds(t, x, tokens, x->combine_bytes, t->gpu.combine_base, COMBINE, prefill);
    if (!prefill)
        s->moe = moe, s->attention = attention, s->shared = shared, s->kv = kv, s->dispatch = dispatch,
        s->combine = combine;
    double dense = layers > moe_layers
                     ? product_seconds(t, w->dense, x->dense * (layers - moe_layers), tokens)
                     : 0;
    double head = product_seconds(t, w->head, (double)c->vocab_size * (double)c->hidden_size,
                                  prefill ? 1 : tokens);
    return moe_layers * (moe + shared + dispatch + combine) + layers * (attention + kv) + dense + head;
}

void moe_step_model(struct moe_step *s, const struct moe_step_task *t)
{
    const struct moe_weight_bytes *w = t->w;
    struct counts x = { 0 };
    *s = (struct moe_step){ 0 };
    count(&x, t);
    double per_rank = ceil((double)t->slots / t->ranks), batch = (double)t->batch, layers = (double)w->layers;
    double active = t->activated > 0 ? t->activated : activated_slots(t, batch);
    s->routed = per_rank * w->expert * (double)w->moe_layers;
    s->replicated = moe_weight_bytes_replicated(w);
    s->buffers = t->ranks > 1 ? t->ranks * batch * (x.dispatch_bytes + x.combine_bytes) : 0;
    s->cache = t->gpu.memory - t->reserve - s->routed - s->replicated;
    s->cache_tokens = s->cache > 0 ? s->cache / (layers * x.values * t->kv_bytes) : 0;
    s->sequences = t->context > 0 ? floor(s->cache_tokens / (double)t->context) : 0;
    s->decode = step_seconds(s, t, &x, batch, (double)t->context, false, active);
    s->decode_floor = ((double)w->moe_layers * active * w->expert + w->attention + w->shared + w->dense +
                       w->head + layers * batch * (double)t->context * x.values * t->kv_bytes) /
                      t->gpu.bandwidth;
    s->tokens_per_second = batch / s->decode;
    s->tokens_per_second_user = 1 / s->decode;
    double chunk = (double)t->prefill;
    /* a token of the chunk sees half of the chunk on average */
    s->prefill = step_seconds(s, t, &x, chunk, chunk / 2, true, activated_slots(t, chunk));
    s->prefill_tokens_per_second = chunk / s->prefill;
}

cJSON *moe_step_json(const struct moe_step *s, int32_t ranks, int32_t slots)
{
    const struct { const char *key; double v;
    } rows[] = { { "ranks", ranks },
                 { "slots", slots },
                 { "routed_bytes", s->routed },
                 { "replicated_bytes", s->replicated },
                 { "buffer_bytes", s->buffers },
                 { "cache_bytes", s->cache },
                 { "cache_tokens", floor(s->cache_tokens) },
                 { "sequences", s->sequences },
                 { "decode_seconds", s->decode },
                 { "decode_floor_seconds", s->decode_floor },
                 { "decode_tokens_per_second_rank", s->tokens_per_second },
                 { "decode_tokens_per_second_user", s->tokens_per_second_user },
                 { "prefill_seconds", s->prefill },
                 { "prefill_tokens_per_second_rank", s->prefill_tokens_per_second },
                 { "moe_seconds", s->moe },
                 { "attention_seconds", s->attention },
                 { "shared_seconds", s->shared },
                 { "cache_seconds", s->kv },
                 { "dispatch_seconds", s->dispatch },
                 { "combine_seconds", s->combine } };
    cJSON *j = cJSON_CreateObject();
    for (size_t i = 0; j && i < sizeof rows / sizeof *rows; i++)
        moe_json_add_f64(j, rows[i].key, rows[i].v);
    return j;
}
