/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/prompt.h"

#include "base/io.h"
#include "base/json.h"
#include "base/stream.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 1 << 30 }; /* bytes of a file of text */

static enum moe_code parse_tokens(const char *s, int32_t **ids, size_t *n, struct moe_err *err)
{
    *ids = malloc((strlen(s) + 1) * sizeof **ids);
    *n = 0;
    if (!*ids) return moe_fail(err, MOE_NOMEM, "no memory for the prompt");
    while (*s) {
        char *end;
        long v = strtol(s, &end, 10);
        if (end == s || v < 0 || v > INT32_MAX || (*end && *end != ','))
            return moe_fail(err, MOE_USAGE, "--tokens wants ids such as 1,2,3, not '%s'", s);
        (*ids)[(*n)++] = (int32_t)v;
        s = *end ? end + 1 : end;
    }
    return MOE_OK;
}

uint64_t moe_prompt_memory(const struct moe_prompt *o)
{
    return o->memory ? o->memory : moe_available_memory();
}

/* Removes a byte order mark, which is not part of the text. */
static void drop_mark(char *text, size_t *n)
{
    if (*n < 3 || memcmp(text, "\xef\xbb\xbf", 3)) return;
    *n -= 3;
    memmove(text, text + 3, *n + 1);
}

enum moe_code moe_prompt_file(const struct moe_prompt *o, const char *path, char **text, size_t *n,
                              struct moe_err *err)
{
    uint64_t max_bytes = moe_prompt_memory(o);
    size_t limit = max_bytes < TEXT_MAX ? (size_t)max_bytes : TEXT_MAX;
    enum moe_code code = moe_read_text(path, limit, o->cancel, text, n, err);
    path = moe_stream_name(path);
    if (code == MOE_UNSUPPORTED && max_bytes < TEXT_MAX)
        return moe_fail_at(err, MOE_NOMEM, path, NULL,
                           "the text has more bytes than the %llu that are %s (%sless text)",
                           (unsigned long long)max_bytes,
                           o->memory ? "allowed" : "available",
                           o->memory ? "try a larger --memory, or " : "try ");
    MOE_TRY(code);
    code = moe_text_refuse_foreign(path, *text, *n, err);
    if (code == MOE_OK) {
        drop_mark(*text, n);
        return MOE_OK;
    }
    free(*text);
    *text = NULL;
    return code;
}

static enum moe_code prompt_text(const struct moe_prompt *o, char **text, size_t *n, struct moe_err *err)
{
    if (o->file || !o->text) return moe_prompt_file(o, o->file ? o->file : "-", text, n, err);
    *text = strdup(o->text);
    *n = *text ? strlen(*text) : 0;
    return *text ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for the prompt");
}

enum moe_code moe_prompt_bos(const struct moe_engine *e, int32_t **ids, size_t *n, struct moe_err *err)
{
    int64_t bos = e->source->config.bos_token_id;
    if (bos < 0) return moe_fail(err, MOE_UNSUPPORTED, "--bos: the model's config has no bos_token_id");
    int32_t *more = realloc(*ids, (*n + 1) * sizeof *more);
    if (!more) return moe_fail(err, MOE_NOMEM, "no memory for the prompt");
    memmove(more + 1, more, *n * sizeof *more);
    more[0] = (int32_t)bos;
    *ids = more;
    ++*n;
    return MOE_OK;
}

enum moe_code moe_prompt_file_ids(const struct moe_prompt *o, const char *path, const struct moe_engine *e,
                                  int32_t **ids, size_t *n, struct moe_err *err)
{
    char *text;
    size_t bytes;
    *ids = NULL;
    *n = 0;
    MOE_TRY(moe_prompt_file(o, path, &text, &bytes, err));
    if (!bytes) {
        free(text);
        return moe_fail_at(err, MOE_CORRUPT, moe_stream_name(path), NULL, "holds no text");
    }
    enum moe_code code = moe_tokenize(e->tokenizer, text, bytes, o->special, ids, n, err);
    free(text);
    if (code == MOE_NOMEM) moe_wrap(err, "'%s'", moe_stream_name(path));
    return code == MOE_OK && o->bos ? moe_prompt_bos(e, ids, n, err) : code;
}

enum moe_code moe_prompt_chat(const struct moe_prompt *o, const struct moe_engine *e, struct moe_chat **c,
                              struct moe_err *err)
{
    const struct moe_config *m = &e->source->config;
    struct moe_chat_hint hint = { m->model_type, m->architecture, o->chat_template };
    return moe_chat_open(c, e->tokenizer, &hint, err);
}

cJSON *moe_prompt_turn(cJSON *messages, const char *role, const char *content)
{
    cJSON *m = messages ? cJSON_CreateObject() : NULL;
    if (moe_json_add_str(m, "role", role) && moe_json_add_str(m, "content", content))
        return moe_json_append(messages, m);
    cJSON_Delete(m);
    return NULL;
}

bool moe_prompt_is_blank(const char *s) { return !s[strspn(s, " \t\r\n")]; }

/* The ids of a chat of one user turn. */
static enum moe_code encode_turn(const struct moe_prompt *o, const struct moe_chat *c, const char *text,
                                 int32_t **ids, size_t *n, struct moe_err *err)
{
    cJSON *messages = cJSON_CreateArray();
    struct moe_chat_request r = { .messages = messages, .system = o->system, .add_generation_prompt = true };
    enum moe_code code = moe_prompt_turn(messages, "user", text) ? MOE_OK :
        moe_fail(err, MOE_NOMEM, "no memory for the prompt");
    if (code == MOE_OK) code = moe_chat_encode(c, &r, ids, n, NULL, err);
    cJSON_Delete(messages);
    return code;
}

enum moe_code moe_prompt_encode(const struct moe_prompt *o, const struct moe_engine *e,
                                const struct moe_chat *c, const char *text, size_t bytes, int32_t **ids,
                                size_t *n, struct moe_err *err)
{
    *ids = NULL;
    if (c && memchr(text, 0, bytes))
        return moe_fail(err, MOE_USAGE, "a turn of --chat cannot hold a NUL byte");
    if (c && moe_prompt_is_blank(text))
        return moe_fail(err, MOE_USAGE, "a turn of --chat is empty (give it some text)");
    if (c) MOE_TRY(encode_turn(o, c, text, ids, n, err));
    else MOE_TRY(moe_tokenize(e->tokenizer, text, bytes, o->special, ids, n, err));
    return o->bos ? moe_prompt_bos(e, ids, n, err) : MOE_OK;
}

enum moe_code moe_prompt_ids(const struct moe_prompt *o, const struct moe_engine *e, const struct moe_chat *c,
                             int32_t **ids, size_t *n, struct moe_err *err)
{
    char *text = NULL;
    size_t bytes;
    *ids = NULL;
    *n = 0;
    if (o->tokens) {
        MOE_TRY(parse_tokens(o->tokens, ids, n, err));
        return o->bos ? moe_prompt_bos(e, ids, n, err) : MOE_OK;
    }
    enum moe_code code = prompt_text(o, &text, &bytes, err);
    if (code == MOE_OK) code = moe_prompt_encode(o, e, c, text, bytes, ids, n, err);
    free(text);
    return code;
}
