/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/logprobs-json.h"

#include "base/buffer.h"

#include <math.h>
#include <stdlib.h>

/* Adds the list of bytes as text: a node for each of them would take more memory than all the rest. */
static void add_bytes(cJSON *o, const char *bytes, size_t n)
{
    struct moe_buffer t = { 0 };
    moe_buffer_put(&t, "[", 1);
    for (size_t i = 0; i < n; i++) moe_buffer_printf(&t, i ? ", %d" : "%d", (unsigned char)bytes[i]);
    moe_buffer_put(&t, "]", 1);
    moe_json_add(o, "bytes", t.failed ? NULL : cJSON_CreateRaw(t.p));
    free(t.p);
}

/* A token's text, what of it is UTF-8, in *n bytes; the caller frees it.  NULL: no memory. */
static char *text_of(const struct moe_tokenizer *t, int32_t id, size_t *n)
{
    char room[MOE_TOKEN_ROOM];
    struct moe_decoder d = { .keep_special = true };
    size_t len = 0;
    const char *bytes = t ? moe_token_bytes(t, id, room, &len) : NULL;
    if (!bytes) len = 0;
    char *text = malloc(MOE_DECODE_BOUND(len) + 16);
    if (!text) return NULL;
    *n = bytes ? moe_decode(t, &d, id, text) : 0;
    *n += moe_decode_flush(&d, text + *n);
    return text;
}

/* Adds a token's text and its bytes. */
static void add_text(cJSON *o, const struct moe_tokenizer *t, int32_t id)
{
    char room[MOE_TOKEN_ROOM];
    size_t len = 0, n;
    const char *bytes = t ? moe_token_bytes(t, id, room, &len) : NULL;
    char *text = text_of(t, id, &n);
    if (!text) {
        moe_json_add(o, "token", NULL); /* marks the tree as incomplete */
        return;
    }
    moe_json_add_text(o, "token", text, n);
    free(text);
    add_bytes(o, bytes, bytes ? len : 0);
}

/* -9999 is what others give for a probability of 0, which JSON has no number for. */
static float shown(float logprob) { return logprob < -9999 || isnan(logprob) ? -9999 : logprob; }

/* ---- of chat ---- */

static cJSON *append_token(cJSON *list, const struct moe_tokenizer *t, int32_t id, float logprob)
{
    cJSON *o = moe_json_append(list, cJSON_CreateObject());
    moe_json_add_i64(o, "id", id);
    add_text(o, t, id);
    moe_json_add_f32(o, "logprob", shown(logprob));
    return o;
}

void moe_logprobs_chat_json(cJSON *o, const int32_t *tokens, int64_t n, const struct moe_logprobs *l,
                            const struct moe_tokenizer *t)
{
    cJSON *all = moe_json_add_object(o, "logprobs"), *list = moe_json_add_array(all, "content");
    for (int64_t i = 0; list && l && i < n; i++) {
        cJSON *token = append_token(list, t, tokens[i], l[i].logprob);
        cJSON *top = moe_json_add_array(token, "top_logprobs");
        for (int k = 0; top && k < l[i].n; k++) append_token(top, t, l[i].top[k].id, l[i].top[k].logprob);
    }
}

/* ---- of completions ---- */

/* The text of a token as a string that ends at a NUL: a name in an object.  NULL: no memory. */
static char *name_of(const struct moe_tokenizer *t, int32_t id, int64_t *characters)
{
    size_t n;
    char *text = text_of(t, id, &n);
    if (!text) return NULL;
    text[n] = 0;
    *characters = 0;
    for (size_t i = 0; i < n; i++) *characters += ((unsigned char)text[i] & 0xc0) != 0x80;
    return text;
}

static void add_top(cJSON *list, const struct moe_logprobs *l, const struct moe_tokenizer *t)
{
    cJSON *top = moe_json_append(list, cJSON_CreateObject());
    for (int k = 0; k < l->n; k++) {
        int64_t characters;
        char *name = name_of(t, l->top[k].id, &characters);
        if (!name) moe_json_add(top, "", NULL);
        else if (!cJSON_GetObjectItemCaseSensitive(top, name))
            moe_json_add_f32(top, name, shown(l->top[k].logprob));
        free(name);
    }
}

void moe_logprobs_legacy_json(cJSON *o, const int32_t *tokens, int64_t n, const struct moe_logprobs *l,
                              const struct moe_tokenizer *t, int64_t *at)
{
    cJSON *all = moe_json_add_object(o, "logprobs"), *texts = moe_json_add_array(all, "tokens"),
          *values = moe_json_add_array(all, "token_logprobs"),
          *tops = moe_json_add_array(all, "top_logprobs"),
          *offsets = moe_json_add_array(all, "text_offset");
    for (int64_t i = 0; l && i < n; i++) {
        int64_t characters = 0;
        char *name = name_of(t, tokens[i], &characters);
        moe_json_append(texts, name ? cJSON_CreateString(name) : NULL);
        free(name);
        moe_json_append(values, cJSON_CreateNumber((double)shown(l[i].logprob)));
        add_top(tops, &l[i], t);
        moe_json_append(offsets, cJSON_CreateNumber((double)*at));
        *at += characters;
    }
}
