/* SPDX-License-Identifier: Apache-2.0 */
/* tests/gen/genmodel-plan.h - decides which tensors a generated checkpoint has and where they lie.  Included
 * once, by genmodel.c.
 *
 * A `weight` is a tensor of the model; an `out` is a tensor of the checkpoint, such as a weight's codes or
 * its scales (a weight has one to four). */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum format { F_BF16, F_F32, F_FP8, F_INT4, F_NVFP4, F_NVFP4_CT, F_COUNT };
static const char *const format_names[F_COUNT] = { "bf16", "f32", "fp8", "int4", "nvfp4", "nvfp4-ct" };

struct options {
    const char *out, *preset, *prefix, *tokenizer, *nan, *inf;
    enum format format;
    int64_t layers, dense, freq, experts, top_k, hidden, inter, dense_inter, heads, q_lora, kv_lora, nope,
        rope, v, vocab, shared;
    int64_t seed, shards, cold, dead, n_group, topk_group, threads;
    double skew, eps, scaling, yarn_factor, beta_fast, yarn_original;
    int64_t max_position;
    const char *model_type;
    int vision, inv_freq, hostile, scales_apart, single_file, sparse, all_mlp, rope_parameters, short_names,
        layer_shards, no_yarn, tied;
};

enum kind { K_EMBED, K_HEAD, K_NORM, K_LINEAR, K_EXPERT, K_ROUTER, K_BIAS, K_JUNK };

struct weight {
    char name[104];      /* canonical: the name in a checkpoint without --prefix and without ".weight" */
    uint8_t kind, format;
    int16_t layer;
    int32_t expert, part; /* part: 0 gate, 1 up, 2 down */
    int64_t rows, cols;
    float sigma;
    uint32_t amax;       /* bits; of NVFP4 weights, filled by a first pass */
    int64_t out;         /* its first out; its planes follow in the order they were added */
};

struct out {
    char *name;
    int64_t weight;
    const char *dtype;
    int ndim;
    int64_t shape[4];
    uint64_t bytes, offset; /* offset in the file, header included */
    int shard, plane;       /* plane: 0 data, 1 scale, 2 global, 3 input scale, 4 weight_shape */
};

struct plan {
    struct weight *w;
    struct out *o;
    int64_t n_w, cap_w, n_o, cap_o;
    int64_t *order;         /* outs by (shard, place in the file) */
    int shards;
    uint64_t total;         /* bytes of all outs */
};

static _Noreturn void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("genmodel: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(2);
}
static void *need(void *p)
{
    if (!p) die("out of memory");
    return p;
}

static int64_t dtype_bytes(const char *d)
{
    return !strcmp(d, "BF16") ? 2 : d[1] == '3' /* F32, I32 */ ? 4 : 1;
}

static struct out *add_out(struct plan *p, int64_t weight, int plane, const char *name, const char *dtype,
                           int ndim, int64_t a, int64_t b)
{
    if (p->n_o == p->cap_o)
        p->o = need(realloc(p->o, (size_t)(p->cap_o = p->cap_o ? 2 * p->cap_o : 1024) * sizeof *p->o));
    struct out *o = &p->o[p->n_o++];
    *o = (struct out){ .name = need(strdup(name)),
                       .weight = weight,
                       .dtype = dtype,
                       .ndim = ndim,
                       .shape = { a, b, 1, 1 },
                       .plane = plane };
    o->bytes = (uint64_t)(dtype_bytes(dtype) * (ndim > 0 ? a : 1) * (ndim > 1 ? b : 1));
    return o;
}

/* Adds the outs of weight w, under the checkpoint's name for it ("...q_a_proj").  bare: the name has no
 * ".weight" behind it. */
static void add_planes(struct plan *p, int64_t w, const char *stem, bool bare)
{
    struct weight *t = &p->w[w];
    int64_t r = t->rows, c = t->cols;
    bool vector = t->kind == K_NORM || t->kind == K_BIAS || t->kind == K_JUNK;
    char n[192];
#define NAME(suffix) (snprintf(n, sizeof n, "%s%s", stem, suffix), n)
    t->out = p->n_o;
    switch ((enum format)t->format) {
    case F_F32:
    case F_BF16:
        add_out(p, w, 0, NAME(bare ? "" : ".weight"), t->format == F_F32 ? "F32" : "BF16", vector ? 1 : 2,
                vector ? c : r, c);
        return;
    case F_FP8:
        add_out(p, w, 0, NAME(".weight"), "F8_E4M3", 2, r, c);
        add_out(p, w, 1, NAME(".weight_scale_inv"), "F32", 2, (r + 127) / 128, (c + 127) / 128);
        return;
    case F_INT4:
        add_out(p, w, 0, NAME(".weight_packed"), "I32", 2, r, c / 8);
        add_out(p, w, 1, NAME(".weight_scale"), "BF16", 2, r, c / 32);
        add_out(p, w, 4, NAME(".weight_shape"), "I32", 1, 2, 1);
        return;
    case F_NVFP4:
        add_out(p, w, 0, NAME(".weight"), "U8", 2, r, c / 2);
        add_out(p, w, 1, NAME(".weight_scale"), "F8_E4M3", 2, r, c / 16);
        add_out(p, w, 2, NAME(".weight_scale_2"), "F32", 0, 1, 1);
        add_out(p, w, 3, NAME(".input_scale"), "F32", 0, 1, 1);
        return;
    case F_NVFP4_CT:
        add_out(p, w, 0, NAME(".weight_packed"), "U8", 2, r, c / 2);
        add_out(p, w, 1, NAME(".weight_scale"), "F8_E4M3", 2, r, c / 16);
        add_out(p, w, 2, NAME(".weight_global_scale"), "F32", 1, 1, 1);
        add_out(p, w, 3, NAME(".input_global_scale"), "F32", 1, 1, 1);
        return;
    case F_COUNT: break;
    }
#undef NAME
}

/* The type in which a checkpoint of this format stores a kind of tensor. */
static enum format stored_as(const struct options *o, enum kind k, bool mlp)
{
    if (k == K_BIAS || o->format == F_F32) return F_F32;
    if (o->format == F_FP8) return k == K_LINEAR || k == K_EXPERT ? F_FP8 : F_BF16;
    if (k == K_EXPERT) return o->format;
    return (o->format == F_NVFP4 || o->format == F_NVFP4_CT) && mlp && o->all_mlp ? o->format : F_BF16;
}

static struct weight *add_weight(struct plan *p, const struct options *o, enum kind k, int64_t rows,
                                 int64_t cols, double sigma, const char *fmt, ...)
{
    if (p->n_w == p->cap_w)
        p->w = need(realloc(p->w, (size_t)(p->cap_w = p->cap_w ? 2 * p->cap_w : 1024) * sizeof *p->w));
    struct weight *w = &p->w[p->n_w++];
    *w = (struct weight){
        .kind = (uint8_t)k, .layer = -1, .expert = -1, .rows = rows, .cols = cols, .sigma = (float)sigma
    };
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->name, sizeof w->name, fmt, ap);
    va_end(ap);
    w->format = (uint8_t)(k == K_JUNK ? F_BF16 : stored_as(o, k, strstr(w->name, "mlp.") != NULL));
    char stem[160];
    bool outside = !strncmp(w->name, "vision", 6) || !strncmp(w->name, "mm_", 3);
    snprintf(stem, sizeof stem, "%s%s",
             !outside && !strcmp(o->prefix, "language_model") ? "language_model." : "", w->name);
    add_planes(p, p->n_w - 1, stem, k == K_BIAS || k == K_JUNK);
    return w;
}

static void add_mlp(struct plan *p, const struct options *o, int64_t layer, const char *where, enum kind k,
                    int64_t inter, int32_t expert)
{
    static const char *const part[3] = { "gate_proj", "up_proj", "down_proj" };
    for (int i = 0; i < 3; i++) {
        int64_t in = i == 2 ? inter : o->hidden;
        struct weight *w = add_weight(p, o, k, i == 2 ? o->hidden : inter, in,
                                      (i == 2 ? 0.5 : 1) / sqrt((double)in), "model.layers.%d.mlp.%s%s",
                                      (int)layer, where, part[i]);
        w->part = i;
        w->expert = expert;
        w->layer = (int16_t)layer;
    }
}

static void add_attention(struct plan *p, const struct options *o, int l)
{
    int64_t qk = o->nope + o->rope, h = o->hidden, f = o->q_lora ? o->q_lora : h;
    if (o->q_lora) {
        add_weight(p, o, K_LINEAR, o->q_lora, h, 1 / sqrt((double)h), "model.layers.%d.self_attn.q_a_proj",
                   l);
        add_weight(p, o, K_NORM, 1, o->q_lora, 1, "model.layers.%d.self_attn.q_a_layernorm", l);
    }
    add_weight(p, o, K_LINEAR, o->heads * qk, f, 1 / sqrt((double)f), "model.layers.%d.self_attn.%s", l,
               o->q_lora ? "q_b_proj" : "q_proj");
    add_weight(p, o, K_LINEAR, o->kv_lora + o->rope, h, 1 / sqrt((double)h),
               "model.layers.%d.self_attn.kv_a_proj_with_mqa", l);
    add_weight(p, o, K_NORM, 1, o->kv_lora, 1, "model.layers.%d.self_attn.kv_a_layernorm", l);
    add_weight(p, o, K_LINEAR, o->heads * (o->nope + o->v), o->kv_lora, 1 / sqrt((double)o->kv_lora),
               "model.layers.%d.self_attn.kv_b_proj", l);
    add_weight(p, o, K_LINEAR, h, o->heads * o->v, 0.7 / sqrt((double)(o->heads * o->v)),
               "model.layers.%d.self_attn.o_proj", l);
    if (o->inv_freq) {
        int64_t n = h / o->heads / 2;
        add_weight(p, o, K_JUNK, 1, n ? n : 1, 1, "model.layers.%d.self_attn.rotary_emb.inv_freq", l);
    }
}

static void add_layer(struct plan *p, const struct options *o, int l)
{
    char where[32];
    add_weight(p, o, K_NORM, 1, o->hidden, 1, "model.layers.%d.input_layernorm", l);
    add_attention(p, o, l);
    add_weight(p, o, K_NORM, 1, o->hidden, 1, "model.layers.%d.post_attention_layernorm", l);
    if (l < o->dense || l % o->freq || !o->experts) {
        add_mlp(p, o, l, "", K_LINEAR, o->dense_inter, -1);
        return;
    }
    add_weight(p, o, K_ROUTER, o->experts, o->hidden, 1 / sqrt((double)o->hidden), "model.layers.%d.mlp.gate",
               l)
        ->layer = (int16_t)l;
    add_weight(p, o, K_BIAS, 1, o->experts, 1, "model.layers.%d.mlp.gate.e_score_correction_bias", l)->layer =
        (int16_t)l;
    if (o->shared) add_mlp(p, o, l, "shared_experts.", K_LINEAR, o->inter * o->shared, -1);
    for (int32_t e = 0; e < o->experts; e++) {
        snprintf(where, sizeof where, "experts.%d.", (int)e);
        add_mlp(p, o, l, where, K_EXPERT, o->inter, e);
    }
}

/* Adds one BF16 tensor outside the text model, of 1 to 4 dimensions. */
static void add_other(struct plan *p, const struct options *o, const char *stem, const char *suffix, int ndim,
                      const int64_t *shape)
{
    int64_t n = 1;
    for (int d = 0; d < ndim; d++) n *= shape[d];
    add_weight(p, o, K_JUNK, 1, n, 1, "%s.%s", stem, suffix);
    struct out *t = &p->o[p->n_o - 1];
    t->ndim = ndim;
    memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
}

/* Adds a layer's weight [rows, cols] (rows 0: a norm's [cols]) and its bias. */
static void add_pair(struct plan *p, const struct options *o, const char *stem, int64_t rows, int64_t cols)
{
    const int64_t shape[2] = { rows, cols };
    add_other(p, o, stem, "weight", rows ? 2 : 1, rows ? shape : shape + 1);
    add_other(p, o, stem, "bias", 1, rows ? shape : shape + 1);
}

/* Adds the vision tower (329 tensors) and the projector (6) of K2.5, at its sizes when the text model has
 * K2's width, else with one small block.  All are BF16, and the tools skip them. */
static void add_vision(struct plan *p, const struct options *o)
{
    bool real = o->hidden == 7168;
    int64_t d = real ? 1152 : 32, f = real ? 4304 : 56, grid = real ? 64 : 4, blocks = real ? 27 : 1;
    const struct { const char *name; int64_t rows, cols;
    } layers[] = { { "norm0", 0, d }, { "norm1", 0, d },   { "wqkv", 3 * d, d },
                   { "wo", d, d },    { "mlp.fc0", f, d }, { "mlp.fc1", d, f } };
    add_other(p, o, "vision_tower.patch_embed.proj", "weight", 4, (int64_t[]){ d, 3, 14, 14 });
    add_other(p, o, "vision_tower.patch_embed.proj", "bias", 1, &d);
    add_other(p, o, "vision_tower.patch_embed.pos_emb", "weight", 3, (int64_t[]){ grid, grid, d });
    for (int b = 0; b < blocks; b++)
        for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
            char stem[96];
            snprintf(stem, sizeof stem, "vision_tower.encoder.blocks.%d.%s", b, layers[i].name);
            add_pair(p, o, stem, layers[i].rows, layers[i].cols);
        }
    add_pair(p, o, "vision_tower.encoder.final_layernorm", 0, d);
    add_pair(p, o, "mm_projector.pre_norm", 0, d);
    add_pair(p, o, "mm_projector.proj.0", 4 * d, 4 * d);
    add_pair(p, o, "mm_projector.proj.2", o->hidden, 4 * d);
}

/* Decides in which shard each out lies: by its layer, as in Moonshot's files, or in equal parts by bytes. */
static void assign_shards(struct plan *p, const struct options *o)
{
    uint64_t total = 0, seen = 0;
    for (int64_t i = 0; i < p->n_o; i++) total += p->o[i].bytes;
    p->total = total;
    p->shards = o->single_file ? 1 : (int)o->shards;
    for (int64_t i = 0; i < p->n_o; i++) {
        struct out *t = &p->o[i];
        const char *l = strstr(t->name, ".layers.");
        if (p->shards == 1) t->shard = 0;
        else if (o->layer_shards && l) t->shard = (int)strtol(l + 8, NULL, 10);
        else if (o->layer_shards)
            t->shard = strstr(t->name, "embed_tokens") && o->format == F_FP8
                         ? 0
                         : (int)(o->format == F_FP8 ? o->layers - 1 : o->layers);
        else t->shard = (int)(seen * (uint64_t)p->shards / (total + 1));
        seen += t->bytes;
        if (o->layer_shards && !strncmp(t->name, "mm_projector", 12)) t->shard = p->shards - 2;
        if (o->layer_shards && !strncmp(t->name, "vision_tower", 12)) t->shard = p->shards - 1;
        if (o->scales_apart && t->plane) t->shard = (t->shard + 1) % p->shards;
    }
}

/* The order of the outs in their files.  NVFP4 checkpoints have the order in which the safetensors library
 * writes: wide types first, then by name. */
static const struct plan *sort_plan;
static bool sort_library;
static int by_place(const void *a, const void *b)
{
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    const struct out *x = &sort_plan->o[i], *y = &sort_plan->o[j];
    if (x->shard != y->shard) return x->shard < y->shard ? -1 : 1;
    if (sort_library) {
        int64_t dx = dtype_bytes(x->dtype), dy = dtype_bytes(y->dtype);
        if (dx != dy) return dx > dy ? -1 : 1;
        return strcmp(x->name, y->name);
    }
    return i < j ? -1 : i > j;
}

static void make_plan(struct plan *p, const struct options *o)
{
    add_weight(p, o, K_EMBED, o->vocab, o->hidden, 1, "model.embed_tokens");
    for (int l = 0; l < o->layers; l++) add_layer(p, o, l);
    add_weight(p, o, K_NORM, 1, o->hidden, 1, "model.norm");
    if (!o->tied) add_weight(p, o, K_HEAD, o->vocab, o->hidden, 2 / sqrt((double)o->hidden), "lm_head");
    if (o->vision) add_vision(p, o);
    assign_shards(p, o);
    p->order = need(malloc((size_t)p->n_o * sizeof *p->order));
    for (int64_t i = 0; i < p->n_o; i++) p->order[i] = i;
    sort_plan = p;
    sort_library = o->format == F_NVFP4 || o->format == F_NVFP4_CT;
    qsort(p->order, (size_t)p->n_o, sizeof *p->order, by_place);
}

static const char *shard_name(const struct plan *p, const struct options *o, int i, char out[64])
{
    if (o->single_file) snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, o->short_names ? "model-%d-of-%d.safetensors" : "model-%05d-of-%06d.safetensors",
                 i + 1, p->shards);
    return out;
}
