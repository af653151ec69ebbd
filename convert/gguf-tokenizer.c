/* SPDX-License-Identifier: Apache-2.0 */
/* convert/gguf-tokenizer.c - K2's tiktoken ranks as GGUF's "gpt2" tokenizer: tokens are spelled in GPT-2's
 * alphabet, and merges are found from the ranks.  The result is what convert_hf_to_gguf.py derives. */
#include "convert/gguf-internal.h"

#include "base/buffer.h"
#include "base/io.h"
#include "formats/tokenizer/tokenizer.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TOKEN_NORMAL = 1,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
    TOKEN_UNUSED = 5,
    SLOTS = 256 /* ids that K2's tokenization code reserves for special tokens */
};

/* GPT-2's alphabet, which has a letter for each byte: printable bytes are their own letters, the others, in
 * order, are U+0100 and on.  utf8[b] is the letter of byte b in UTF-8, len[b] its bytes. */
struct alphabet { char utf8[256][2]; unsigned char len[256]; };

static void fill_alphabet(struct alphabet *a)
{
    unsigned next = 256;
    for (unsigned b = 0; b < 256; b++) {
        bool itself = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        unsigned c = itself ? b : next++;
        a->len[b] = c < 128 ? 1 : 2;
        a->utf8[b][0] = (char)(c < 128 ? c : 0xc0 | c >> 6);
        a->utf8[b][1] = (char)(0x80 | (c & 63));
    }
}

/* Appends bytes in GPT-2's alphabet. */
static void spell(struct moe_buffer *t, const struct alphabet *a, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        moe_buffer_put(t, a->utf8[(unsigned char)bytes[i]], a->len[(unsigned char)bytes[i]]);
}

/* The number of ordinary tokens, whose ids come before the special ones. */
static int32_t count_ranks(const struct moe_tokenizer *t)
{
    int32_t n = (int32_t)moe_tokenizer_size(t);
    while (n > 0 && moe_token_is_special(t, n - 1)) n--;
    return n;
}

/* Whether an id is beyond those that K2's tokenization code reserves; the tokenizer here names these too. */
static bool unused(int32_t id, int32_t ranks, const char *name, size_t len)
{
    char made[64];
    int n = snprintf(made, sizeof made, "<|reserved_token_%d|>", id);
    return id >= ranks + SLOTS && (size_t)n == len && !memcmp(made, name, len);
}

/* llama.cpp neither prints control tokens nor finds them in plain text.  It does both with user-defined
 * tokens, as transformers does with added tokens that are not special. */
static int token_type(const struct moe_tokenizer *t, int32_t id, int32_t ranks)
{
    char room[MOE_TOKEN_ROOM];
    size_t len;
    if (id < ranks) return TOKEN_NORMAL;
    if (unused(id, ranks, moe_token_bytes(t, id, room, &len), len)) return TOKEN_UNUSED;
    return moe_token_is_text(t, id) ? TOKEN_USER_DEFINED : TOKEN_CONTROL;
}

static void tokens(struct moe_gguf_meta *m, const struct moe_tokenizer *t, const struct alphabet *a,
                   int32_t ranks, struct moe_buffer *s)
{
    int32_t n = (int32_t)moe_tokenizer_size(t);
    char room[MOE_TOKEN_ROOM];
    size_t len;
    moe_gguf_begin_strings(m, "tokenizer.ggml.tokens", (uint64_t)n);
    for (int32_t id = 0; id < n; id++) {
        const char *bytes = moe_token_bytes(t, id, room, &len);
        s->n = 0;
        if (id < ranks) spell(s, a, bytes, len);
        else if (unused(id, ranks, bytes, len)) moe_buffer_printf(s, "[PAD%d]", id);
        else moe_buffer_put(s, bytes, len);
        moe_gguf_put_item_str(m, s->p, s->n);
    }
    moe_gguf_begin_i32s(m, "tokenizer.ggml.token_type", (uint64_t)n);
    for (int32_t id = 0; id < n; id++) moe_gguf_put_item_i32(m, token_type(t, id, ranks));
}

static void put_token(struct moe_buffer *s, const struct moe_tokenizer *t, const struct alphabet *a,
                      int32_t id)
{
    char room[MOE_TOKEN_ROOM];
    size_t len;
    const char *bytes = moe_token_bytes(t, id, room, &len);
    spell(s, a, bytes, len);
}

/* The pairs of tokens that merge into another token, in the order of ids. */
static enum moe_code merges(struct moe_gguf_meta *m, const struct moe_tokenizer *t, const struct alphabet *a,
                            int32_t ranks, struct moe_buffer *s, struct moe_err *err)
{
    int32_t (*pair)[2] = malloc(((size_t)ranks + 1) * sizeof *pair);
    int32_t n = 0;
    enum moe_code code = pair ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for the merges");
    for (int32_t id = 0; code == MOE_OK && id < ranks; id++) {
        bool two;
        code = moe_token_merge(t, id, pair[n], &two, err);
        n += code == MOE_OK && two;
    }
    if (code == MOE_OK) moe_gguf_begin_strings(m, "tokenizer.ggml.merges", (uint64_t)n);
    for (int32_t i = 0; code == MOE_OK && i < n; i++) {
        s->n = 0;
        put_token(s, t, a, pair[i][0]);
        moe_buffer_put(s, " ", 1);
        put_token(s, t, a, pair[i][1]);
        moe_gguf_put_item_str(m, s->p, s->n);
    }
    free(pair);
    return code;
}

static void special_ids(struct moe_gguf_meta *m, const struct moe_config *c)
{
    if (c->bos_token_id >= 0) moe_gguf_put_u32(m, "tokenizer.ggml.bos_token_id", (uint64_t)c->bos_token_id);
    if (c->n_eos > 0) moe_gguf_put_u32(m, "tokenizer.ggml.eos_token_id", (uint64_t)c->eos_token_id[0]);
    if (c->pad_token_id >= 0)
        moe_gguf_put_u32(m, "tokenizer.ggml.padding_token_id", (uint64_t)c->pad_token_id);
}

/* The path of a file of the tokenizer.  A checkpoint has it beside the weights, a container in tokenizer/,
 * where its digest is checked against the manifest. */
static enum moe_code small_file(const struct moe_source *src, const char *name, char path[PATH_MAX],
                                struct moe_err *err)
{
    char listed[64];
    if (src->kind != MOE_CONTAINER) return moe_path_join(path, PATH_MAX, src->path, name, err);
    snprintf(listed, sizeof listed, "tokenizer/%s", name);
    if (moe_container_lists(src, listed)) return moe_container_check_file(src, listed, path, err);
    return moe_path_join(path, PATH_MAX, src->path, listed, err);
}

/* The chat template in tokenizer_config.json: a string, or the one named "default" in a list; NULL: none. */
static const char *template_in(const cJSON *config)
{
    const cJSON *v = moe_json_get(config, "chat_template");
    for (const cJSON *i = cJSON_IsArray(v) ? v->child : NULL; i; i = i->next) {
        const cJSON *name = moe_json_get(i, "name"), *text = moe_json_get(i, "template");
        if (cJSON_IsString(name) && !strcmp(name->valuestring, "default") && cJSON_IsString(text))
            return text->valuestring;
    }
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

static enum moe_code chat(struct moe_gguf_meta *m, const struct moe_source *src, struct moe_err *err)
{
    char path[PATH_MAX], *text;
    size_t n;
    cJSON *config;
    enum moe_exists there;
    MOE_TRY(small_file(src, "tokenizer_config.json", path, err));
    MOE_TRY(moe_json_read(path, (size_t)16 << 20, &config, err));
    for (int i = 0; i < 2; i++) { /* the keys are written only when the config has them */
        const cJSON *v = moe_json_get(config, i ? "add_eos_token" : "add_bos_token");
        if (cJSON_IsBool(v))
            moe_gguf_put_bool(m, i ? "tokenizer.ggml.add_eos_token" : "tokenizer.ggml.add_bos_token",
                              cJSON_IsTrue(v));
    }
    const char *in = template_in(config);
    if (in) moe_gguf_put_str(m, "tokenizer.chat_template", in, strlen(in));
    bool found = in != NULL;
    cJSON_Delete(config);
    MOE_TRY(small_file(src, "chat_template.jinja", path, err));
    MOE_TRY(moe_look(path, &there, err));
    if (found || there == MOE_ABSENT) return MOE_OK;
    MOE_TRY(moe_read_file(path, (size_t)16 << 20, &text, &n, err));
    moe_gguf_put_str(m, "tokenizer.chat_template", text, n);
    free(text);
    return MOE_OK;
}

enum moe_code moe_gguf_put_tokenizer(struct moe_gguf_meta *m, const struct moe_source *src, bool *none,
                                     struct moe_err *err)
{
    struct moe_tokenizer *t;
    struct alphabet a;
    struct moe_buffer s = { 0 };
    char path[PATH_MAX];
    enum moe_exists there;
    MOE_TRY(small_file(src, "tiktoken.model", path, err));
    MOE_TRY(moe_look(path, &there, err));
    *none = there == MOE_ABSENT;
    moe_gguf_put_str(m, "tokenizer.ggml.model", *none ? "none" : "gpt2", 4);
    if (*none) return MOE_OK;
    MOE_TRY(moe_tokenizer_open(&t, src->path, src->config.vocab_size, err));
    int32_t ranks = count_ranks(t);
    fill_alphabet(&a);
    moe_gguf_put_str(m, "tokenizer.ggml.pre", "kimi-k2", 7);
    tokens(m, t, &a, ranks, &s);
    enum moe_code code = merges(m, t, &a, ranks, &s, err);
    if (s.failed) m->bytes.failed = true;
    free(s.p);
    moe_tokenizer_close(&t);
    MOE_TRY(code);
    special_ids(m, &src->config);
    return chat(m, src, err);
}
