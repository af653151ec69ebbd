/* SPDX-License-Identifier: Apache-2.0 */
/* tests/gen/source-model.h - writes small checkpoints, whole or wrong, with a writer of its own. */
#undef NDEBUG
#include "base/io.h"
#include "formats/source.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOME __attribute__((unused)) /* not every program that includes this uses it */

struct spec { char name[160], dtype[12]; int ndim; int64_t shape[3]; int file; bool drop; float value; };

static struct spec list[1024];
static int n_list, n_files;
static char config[8192], dir[64], note[4096]; /* note: a header to use in place of file 0's */
static bool with_index;

static long checks;
#define OK(cond) (assert(cond), checks++)

static const char base_config[] =
    "{\"architectures\": [\"DeepseekV3ForCausalLM\"], \"model_type\": \"kimi_k2\", \"hidden_size\": 64, "
    "\"intermediate_size\": 96, \"moe_intermediate_size\": 32, \"num_hidden_layers\": 2, "
    "\"first_k_dense_replace\": 1, \"num_attention_heads\": 2, \"num_key_value_heads\": 2, \"q_lora_rank\": "
    "32, \"kv_lora_rank\": 32, \"qk_nope_head_dim\": 16, \"qk_rope_head_dim\": 8, \"v_head_dim\": 16, "
    "\"vocab_size\": 48, \"n_routed_experts\": 2, \"num_experts_per_tok\": 1, \"n_shared_experts\": 1, "
    "\"n_group\": 1, \"topk_group\": 1, \"scoring_func\": \"sigmoid\", \"rope_theta\": 50000.0, "
    "\"eos_token_id\": 5}";

static int item_bytes(const char *dtype)
{
    return !strcmp(dtype, "F32") || !strcmp(dtype, "I32")  ? 4
         : !strcmp(dtype, "BF16") || !strcmp(dtype, "F16") ? 2
                                                           : 1;
}

static int64_t spec_bytes(const struct spec *s)
{
    int64_t n = item_bytes(s->dtype);
    for (int i = 0; i < s->ndim; i++) n *= s->shape[i];
    return n;
}

static struct spec *add(const char *name, const char *dtype, int ndim, int64_t a, int64_t b)
{
    struct spec *s = &list[n_list++];
    assert(n_list <= (int)(sizeof list / sizeof *list));
    *s = (struct spec){ .ndim = ndim, .shape = { a, b }, .file = n_list % n_files };
    snprintf(s->name, sizeof s->name, "%s", name);
    snprintf(s->dtype, sizeof s->dtype, "%s", dtype);
    return s;
}

SOME static struct spec *spec(const char *name)
{
    for (int i = 0; i < n_list; i++)
        if (!strcmp(list[i].name, name)) return &list[i];
    fprintf(stderr, "no tensor '%s' in the test's model\n", name);
    abort();
}

/* b: BF16, 8: FP8, i: INT4, n: NVFP4 of modelopt, c: of compressed-tensors. */
static void add_linear(char format, const char *stem, int64_t rows, int64_t cols)
{
    char s[160];
#define NAME(part) (snprintf(s, sizeof s, "%s%s", stem, part), s)
    if (format == 'b') {
        add(NAME("weight"), "BF16", 2, rows, cols);
    } else if (format == '8') {
        add(NAME("weight"), "F8_E4M3", 2, rows, cols);
        add(NAME("weight_scale_inv"), "F32", 2, (rows + 127) / 128, (cols + 127) / 128);
    } else if (format == 'i') {
        add(NAME("weight_packed"), "I32", 2, rows, cols / 8);
        add(NAME("weight_scale"), "BF16", 2, rows, cols / 32);
        add(NAME("weight_shape"), "I32", 1, 2, 0);
    } else {
        add(NAME(format == 'n' ? "weight" : "weight_packed"), "U8", 2, rows, cols / 2);
        add(NAME("weight_scale"), "F8_E4M3", 2, rows, cols / 16);
        add(NAME(format == 'n' ? "weight_scale_2" : "weight_global_scale"), "F32", format == 'n' ? 0 : 1, 1,
            0)
            ->value = 0.5f;
        add(NAME(format == 'n' ? "input_scale" : "input_global_scale"), "F32", format == 'n' ? 0 : 1, 1, 0)
            ->value = 0.25f;
    }
#undef NAME
}

SOME static void replace(char *text, size_t cap, const char *from, const char *to)
{
    char tail[8192], *at = strstr(text, from);
    assert(at);
    snprintf(tail, sizeof tail, "%s", at + strlen(from));
    snprintf(at, cap - (size_t)(at - text), "%s%s", to, tail);
}
#define CONFIG(from, to) replace(config, sizeof config, from, to)

static void build(char format, const char *root, const char *head)
{
    static const char *const proj[3] = { "gate_proj.", "up_proj.", "down_proj." };
    struct moe_config c = { .hidden_size = 64 };
    char s[160];
    n_list = 0;
    n_files = 2;
    with_index = true;
    *note = 0;
    snprintf(config, sizeof config, "%s", base_config);
#define NAME(...) (snprintf(s, sizeof s, __VA_ARGS__), s)
    add(NAME("%sembed_tokens.weight", root), "BF16", 2, 48, c.hidden_size);
    add(NAME("%snorm.weight", root), "BF16", 1, 64, 0);
    add(NAME("%slm_head.weight", head), "BF16", 2, 48, 64);
    for (int l = 0; l < 2; l++) {
        char f = format == 'i' || format == 'n' || format == 'c' ? 'b' : format;
        add(NAME("%slayers.%d.input_layernorm.weight", root, l), "BF16", 1, 64, 0);
        add(NAME("%slayers.%d.post_attention_layernorm.weight", root, l), "BF16", 1, 64, 0);
        add_linear(f, NAME("%slayers.%d.self_attn.q_a_proj.", root, l), 32, 64);
        add(NAME("%slayers.%d.self_attn.q_a_layernorm.weight", root, l), "BF16", 1, 32, 0);
        add_linear(f, NAME("%slayers.%d.self_attn.q_b_proj.", root, l), 48, 32);
        add_linear(f, NAME("%slayers.%d.self_attn.kv_a_proj_with_mqa.", root, l), 40, 64);
        add(NAME("%slayers.%d.self_attn.kv_a_layernorm.weight", root, l), "BF16", 1, 32, 0);
        add_linear(f, NAME("%slayers.%d.self_attn.kv_b_proj.", root, l), 64, 32);
        add_linear(f, NAME("%slayers.%d.self_attn.o_proj.", root, l), 64, 32);
        for (int k = 0; l == 0 && k < 3; k++)
            add_linear(f, NAME("%slayers.0.mlp.%s", root, proj[k]), k < 2 ? 96 : 64, k < 2 ? 64 : 96);
        if (l == 0) continue;
        add(NAME("%slayers.1.mlp.gate.weight", root), "BF16", 2, 2, 64);
        add(NAME("%slayers.1.mlp.gate.e_score_correction_bias", root), "F32", 1, 2, 0);
        for (int k = 0; k < 3; k++)
            add_linear(f, NAME("%slayers.1.mlp.shared_experts.%s", root, proj[k]), k < 2 ? 32 : 64,
                       k < 2 ? 64 : 32);
        for (int e = 0; e < 2; e++)
            for (int k = 0; k < 3; k++)
                add_linear(format, NAME("%slayers.1.mlp.experts.%d.%s", root, e, proj[k]), k < 2 ? 32 : 64,
                           k < 2 ? 64 : 32);
    }
#undef NAME
}

static void write_all(const char *name, const void *data, size_t n)
{
    char path[256];
    struct moe_err err;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert(moe_write_file(path, data, n, &err) == MOE_OK);
}

static const char *file_name(int f)
{
    static char name[4][64];
    char *s = name[f & 3];
    snprintf(s, sizeof name[0],
             n_files == 1 && !with_index ? "model.safetensors" : "model-%05d-of-%06d.safetensors", f + 1,
             n_files);
    return s;
}

/* A file with this header and `data` bytes of zeros. */
SOME static void write_raw(const char *name, const char *header, uint64_t length, size_t data)
{
    size_t n = strlen(header);
    char *p = calloc(1, 8 + n + data);
    assert(p);
    for (int i = 0; i < 8; i++) p[i] = (char)(length >> 8 * i);
    memcpy(p + 8, header, n);
    write_all(name, p, 8 + n + data);
    free(p);
}

static void write_file(int f)
{
    static char h[1 << 17];
    static unsigned char data[1 << 20];
    size_t n = (size_t)snprintf(h, sizeof h, "{\"__metadata__\": {\"format\": \"pt\"}"), at = 0;
    memset(data, 0, sizeof data);
    for (int i = 0; i < n_list; i++) {
        const struct spec *s = &list[i];
        if (s->file != f || s->drop) continue;
        size_t bytes = (size_t)spec_bytes(s);
        n += (size_t)snprintf(h + n, sizeof h - n, ", \"%s\": {\"dtype\": \"%s\", \"shape\": [", s->name,
                              s->dtype);
        for (int k = 0; k < s->ndim; k++)
            n += (size_t)snprintf(h + n, sizeof h - n, "%s%lld", k ? ", " : "", (long long)s->shape[k]);
        n += (size_t)snprintf(h + n, sizeof h - n, "], \"data_offsets\": [%zu, %zu]}", at, at + bytes);
        if (s->value != 0) memcpy(data + 8 + at, &s->value, 4);
        at += bytes;
        assert(at + 8 < sizeof data && n + 256 < sizeof h);
    }
    h[n++] = '}';
    char path[256], *all = malloc(8 + n + at);
    snprintf(path, sizeof path, "%s", file_name(f));
    for (int i = 0; i < 8; i++) all[i] = (char)((uint64_t)n >> 8 * i);
    memcpy(all + 8, h, n);
    memcpy(all + 8 + n, data + 8, at);
    write_all(path, all, 8 + n + at);
    free(all);
}

static void write_index(void)
{
    static char t[1 << 17];
    size_t n = (size_t)snprintf(t, sizeof t, "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {");
    for (int i = 0; i < n_list; i++)
        if (!list[i].drop)
            n += (size_t)snprintf(t + n, sizeof t - n, "%s\"%s\": \"%s\"", t[n - 1] == '{' ? "" : ", ",
                                  list[i].name, file_name(list[i].file));
    n += (size_t)snprintf(t + n, sizeof t - n, "}}");
    write_all("model.safetensors.index.json", t, n);
}

static void fresh_dir(void)
{
    struct moe_err err;
    assert(moe_remove_tree(dir, &err) == MOE_OK && moe_mkdir(dir, &err) == MOE_OK);
}

static void write_model(void)
{
    fresh_dir();
    if (*config) write_all("config.json", config, strlen(config));
    for (int f = 0; f < n_files; f++) write_file(f);
    if (with_index) write_index();
}

SOME static void cut(const char *name, int64_t by)
{
    char path[256];
    struct moe_err err;
    uint64_t size;
    int fd;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert(moe_open_read(path, &fd, &size, &err) == MOE_OK);
    close(fd);
    assert(!truncate(path, (off_t)size - by));
}

/* Opening what is in `dir` fails with this code; the message's file ends in `file`, its tensor is `tensor`
 * ("": none), and `what` is part of it.  A survey lists it when `survey`. */
SOME static void expect(enum moe_code code, const char *file, const char *tensor, const char *what,
                        bool survey)
{
    struct moe_source *src;
    struct moe_err err = MOE_ERR_INIT;
    cJSON *problems;
    enum moe_code got = moe_source_open(&src, dir, &err);
    const char *slash = strrchr(err.file, '/');
    if (got != code || !strstr(err.msg, what) || strcmp(slash ? slash + 1 : err.file, file) ||
        strcmp(err.tensor, tensor) || src) {
        fprintf(stderr, "wanted %d '%s' '%s' '%s'\ngot    %d '%s' '%s' '%s'\n", code, file, tensor, what, got,
                err.file, err.tensor, err.msg);
        abort();
    }
    OK(err.code == code && (!*tensor || strstr(err.msg, tensor)) && (!*file || strstr(err.msg, file)));
    got = moe_source_survey(&src, dir, &problems, &err);
    OK((got == MOE_OK) == survey);
    if (!survey) return;
    bool found = false;
    for (const cJSON *p = problems->child; p && !found; p = p->next)
        found = strstr(p->valuestring, what) && strstr(p->valuestring, tensor);
    OK(found);
    cJSON_Delete(problems);
    moe_source_close(&src);
}

static struct moe_source *opened(void)
{
    struct moe_source *src;
    struct moe_err err = MOE_ERR_INIT;
    if (moe_source_open(&src, dir, &err) != MOE_OK) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    checks++;
    return src;
}

SOME static void open_fine(void)
{
    struct moe_source *src = opened();
    moe_source_close(&src);
    OK(!src);
}
