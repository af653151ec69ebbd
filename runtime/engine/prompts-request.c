/* SPDX-License-Identifier: Apache-2.0 */
/* A line of JSON: the request in it, as ids and options. */
#include "runtime/engine/prompts-internal.h"

#include <stdlib.h>
#include <string.h>

int moe_prompts_count_inputs(const cJSON *o)
{
    return !!moe_json_get(o, "messages") + !!moe_json_get(o, "prompt") + !!moe_json_get(o, "tokens");
}

static enum moe_code check_request(const struct moe_prompts_reading *r, const cJSON *o, struct moe_err *err)
{
    if (!cJSON_IsObject(o) || moe_prompts_count_inputs(o) != 1)
        return moe_fail_at(err, MOE_CORRUPT, r->path, NULL,
                           "line %lld: not an object with one of 'messages', 'prompt' and 'tokens'",
                           (long long)r->line);
    if (!moe_json_get(o, "messages") && (moe_json_get(o, "tools") || moe_json_get(o, "chat_template_kwargs")))
        return moe_fail_at(err, MOE_CORRUPT, r->path, NULL,
                           "line %lld: 'tools' and 'chat_template_kwargs' go with 'messages'",
                           (long long)r->line);
    return MOE_OK;
}

static enum moe_code read_tokens(const cJSON *list, int32_t **ids, size_t *n, struct moe_err *err)
{
    *ids = malloc(((size_t)cJSON_GetArraySize(list) + 1) * sizeof **ids);
    *n = 0;
    if (!*ids) return moe_fail(err, MOE_NOMEM, "no memory for the prompt");
    for (const cJSON *c = list->child; c; c = c->next) {
        if (cJSON_IsString(c))
            return moe_fail(err, MOE_CORRUPT,
                            "'%s' has a text in its list of ids, and a line is one prompt (give each text a "
                            "line of its own)", list->string);
        if (!cJSON_IsNumber(c) || !(c->valuedouble >= 0 && c->valuedouble <= INT32_MAX) ||
            c->valuedouble != (int32_t)c->valuedouble)
            return moe_fail(err, MOE_CORRUPT, "'%s' is not a list of ids", list->string);
        (*ids)[(*n)++] = (int32_t)c->valuedouble;
    }
    return MOE_OK;
}

/* Sets *tools to the tools of a request.  Where they are JSON in a string, it is parsed into *parsed, which
 * the caller deletes, and its memory is added to *held. */
static enum moe_code read_tools(const struct moe_prompts_reading *r, const cJSON *o, uint64_t *held,
                                const cJSON **tools, cJSON **parsed, struct moe_err *err)
{
    const struct moe_json_row at = { r->path, r->line, moe_prompts_memory_left(r, *held), "of 'tools'" };
    *parsed = NULL;
    *tools = moe_json_get(o, "tools");
    if (!cJSON_IsString(*tools)) return MOE_OK;
    const char *s = (*tools)->valuestring;
    if (*s) MOE_TRY(moe_json_parse_row(s, strlen(s), &at, parsed, err));
    *held += *s ? moe_json_memory_bound(s, strlen(s)) : 0;
    *tools = *parsed;
    return MOE_OK;
}

/* Whether the content of a message (a text or a list of parts) holds nothing but blank text. */
static bool says_nothing(const cJSON *content)
{
    if (!content) return true;
    if (cJSON_IsString(content)) return moe_prompt_is_blank(content->valuestring);
    if (!cJSON_IsArray(content)) return false;
    for (const cJSON *part = content->child; part; part = part->next) {
        const cJSON *text = cJSON_IsObject(part) ? moe_json_get(part, "text") : part;
        if (!cJSON_IsString(text) || !moe_prompt_is_blank(text->valuestring)) return false;
    }
    return true;
}

/* Fails for a conversation without a turn, and for an empty user turn: there would be nothing to answer.
 * Messages are numbered from 0, as the chat template's errors do it. */
static enum moe_code check_turns(const cJSON *messages, struct moe_err *err)
{
    int turn = -1;
    if (cJSON_IsArray(messages) && !messages->child)
        return moe_fail(err, MOE_CORRUPT, "'messages' holds no turn to answer");
    for (const cJSON *m = messages ? messages->child : NULL; m; m = m->next) {
        const cJSON *role = cJSON_IsObject(m) ? moe_json_get(m, "role") : NULL;
        turn++;
        if (cJSON_IsString(role) && !strcmp(role->valuestring, "user") &&
            says_nothing(moe_json_get(m, "content")))
            return moe_fail(err, MOE_CORRUPT, "message %d: a user's turn is empty", turn);
    }
    return MOE_OK;
}

/* Sets *ids, which the caller frees even on failure, to the ids of a request; the chat template encodes
 * messages. */
static enum moe_code encode_request(struct moe_prompts_reading *r, const cJSON *o, const cJSON *tools,
                                    int32_t **ids, size_t *n, struct moe_err *err)
{
    const cJSON *messages = moe_json_get(o, "messages"), *tokens = moe_json_get(o, "tokens"),
        *prompt = moe_json_get(o, "prompt"), *list = tokens ? tokens : prompt;
    struct moe_chat_request q = { .messages = messages, .tools = tools,
                                 .kwargs = moe_json_get(o, "chat_template_kwargs"), .system = r->o->system,
                                 .add_generation_prompt = true };
    MOE_TRY(check_turns(messages, err));
    if (messages) MOE_TRY(moe_prompts_need_chat(r, err));
    if (messages) moe_prompts_talk(r, q.kwargs);
    if (messages) MOE_TRY(moe_chat_encode(r->chat, &q, ids, n, r->left, err));
    else if (cJSON_IsArray(list)) MOE_TRY(read_tokens(list, ids, n, err));
    else if (cJSON_IsString(prompt))
        MOE_TRY(moe_tokenize(r->e->tokenizer, prompt->valuestring, strlen(prompt->valuestring), r->o->special,
                             ids, n, err));
    else
        return moe_fail(err, MOE_CORRUPT, tokens ? "'tokens' is not a list of ids" :
                        "'prompt' is neither a text nor a list of ids");
    return r->o->bos ? moe_prompt_bos(r->e, ids, n, err) : MOE_OK;
}

/* Checks that there is at least one id, and that all are in the model's vocabulary. */
static enum moe_code check_ids(const struct moe_prompts_reading *r, const int32_t *ids, size_t n,
                               struct moe_err *err)
{
    if (!n)
        return moe_fail(err, MOE_CORRUPT,
                        "an empty prompt has no token to go on from (take the line out, or give --bos, which "
                        "begins every prompt with a token)");
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= r->e->source->config.vocab_size)
            return moe_fail(err, MOE_CORRUPT, "token %d is outside the model's vocabulary of %lld", ids[i],
                            (long long)r->e->source->config.vocab_size);
    return MOE_OK;
}

/* Fails where 'min_tokens' is more than -n, in words that name -n: the request itself says no maximum. */
static enum moe_code check_minimum(const struct moe_prompts_reading *r, const cJSON *o, struct moe_err *err)
{
    const cJSON *least = moe_json_get(o, "min_tokens");
    int64_t most = r->defaults->max_tokens;
    if (moe_json_get(o, "max_tokens") || moe_json_get(o, "max_completion_tokens") || most < 0 ||
        !cJSON_IsNumber(least) || least->valuedouble <= (double)most) return MOE_OK;
    return moe_fail(err, MOE_CORRUPT,
                    "'min_tokens' %g is more than -n %lld (raise -n, or give 'max_tokens' too)",
                    least->valuedouble, (long long)most);
}

enum moe_code moe_prompts_read_request(struct moe_prompts_reading *r, const cJSON *o, uint64_t need,
                                       int32_t **ids, size_t *n, struct moe_request_options *options,
                                       struct moe_err *err)
{
    const cJSON *tools;
    cJSON *parsed = NULL;
    MOE_TRY(read_tools(r, o, &need, &tools, &parsed, err));
    moe_prompts_limit_tokens(r, moe_prompts_memory_left(r, need));
    int64_t vocab = r->e->source->config.vocab_size;
    enum moe_code code = check_minimum(r, o, err);
    if (code == MOE_OK) code = moe_request_read(options, o, r->defaults, vocab, NULL, err);
    if (code == MOE_OK) code = encode_request(r, o, tools, ids, n, err);
    if (code == MOE_OK) code = check_ids(r, *ids, *n, err);
    if (code != MOE_OK) {
        if (r->line) moe_wrap(err, "line %lld", (long long)r->line);
        moe_wrap(err, "'%s'", r->path);
        moe_request_options_release(options);
    }
    cJSON_Delete(parsed);
    return code;
}

enum moe_code moe_prompts_encode_json(struct moe_prompts_reading *r, const char *line, size_t bytes,
                                      int32_t **ids, size_t *n, struct moe_request_options *options,
                                      struct moe_err *err)
{
    const struct moe_json_row at = { r->path, r->line, moe_prompts_memory_left(r, 0),
                                     "it is read as requests, an object a line: jq -c . FILE makes such "
                                     "lines, and a text goes into {\"prompt\": TEXT}" };
    cJSON *o;
    MOE_TRY(moe_json_parse_row(line, bytes, &at, &o, err));
    enum moe_code code = check_request(r, o, err);
    if (code == MOE_OK) 
        code = moe_prompts_read_request(r, o, moe_json_memory_bound(line, bytes), ids, n, options, err);
    cJSON_Delete(o);
    return code;
}
