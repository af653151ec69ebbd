/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/prompts.h"

#include "base/grow.h"
#include "base/io.h"
#include "base/json.h"
#include "base/minmax.h"
#include "base/stream.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes that this reader, the run, the results and the report keep for each choice of a prompt besides its
 * ids and the tokens of its answer; and those of a token or an alternative in the JSON of logprobs, as a tree
 * and as text (650 were measured with short tokens). */
enum { PROMPT_BYTES = 2560, LOGPROB_JSON_BYTES = 1024 };

/* What logarithms of probabilities may take, in bytes: of all prompts so far, and of the one that takes the
 * most; kept while the run computes, and as JSON. */
struct logprobs_memory { uint64_t all, most, json_all, json_most; };

/* Adds all choices of a prompt.  It takes over the ids, and what o owns, also on failure. */
static enum moe_code add(struct moe_prompts *p, int32_t *ids, size_t n, int64_t line,
                         struct moe_request_options *o, struct moe_err *err)
{
    if (!MOE_GROW(p->v, p->cap, (size_t)(p->n + o->n)) ||
        !MOE_GROW(p->options, p->options_cap, p->n_options + 1)) {
        free(ids);
        moe_request_options_release(o);
        return moe_fail(err, MOE_NOMEM, "no memory for the prompts");
    }
    o->request.ids = ids;
    o->request.n_ids = (int64_t)n;
    for (int64_t i = 0; i < o->n; i++) {
        struct moe_sequence *s = &p->v[p->n];
        *s = (struct moe_sequence){ o->request, .index = p->n, .prompt = p->n_prompts, .line = line };
        s->request.choice = (uint32_t)i;
        p->n++;
    }
    p->n_prompts++;
    if (o->bytes) p->options[p->n_options++] = *o;
    else moe_request_options_release(o);
    return MOE_OK;
}

/* The state of reading a file of prompts. */
struct reading {
    const struct moe_prompt *o;
    const struct moe_request *defaults;
    const struct moe_answers_use *use;
    const struct moe_engine *e;
    const char *path;
    struct moe_chat *chat;       /* the chat template; NULL: not needed so far */
    struct moe_chat_left *left;
    uint64_t memory, held;       /* bytes allowed; bytes taken by the text and the prompts so far */
    struct logprobs_memory logprobs; /* besides */
    int64_t line, blank;         /* the present line, from 1; the last blank line before it, 0: none */
};

/* Bytes of memory left when `more` bytes are taken in addition; at least 1, since 0 would mean no limit. */
static uint64_t memory_left(const struct reading *r, uint64_t more)
{
    return r->memory > r->held + more ? r->memory - r->held - more : 1;
}

/* Limits the memory that the tokenizer may take for one text. */
static void limit_tokens(const struct reading *r, uint64_t bytes)
{
    if (r->e->tokenizer) moe_tokenizer_limit(r->e->tokenizer, bytes);
}

/* ---- logarithms of probabilities ---- */

static void count_logprobs(struct reading *r, const struct moe_request_options *o, int64_t n_ids)
{
    const struct moe_request *q = &o->request;
    struct logprobs_memory *m = &r->logprobs;
    int64_t context = r->e->context ? r->e->context : r->e->source->config.max_position_embeddings;
    int64_t rest = moe_max_i64(context - n_ids, 0);
    if (q->logprobs < 0) return;
    uint64_t tokens = (uint64_t)(q->max_tokens >= 0 ? moe_min_i64(q->max_tokens, rest) : rest) + 1;
    tokens *= (uint64_t)o->n;
    uint64_t kept = tokens * sizeof(struct moe_logprobs);
    uint64_t json = tokens * (uint64_t)(1 + q->logprobs) * LOGPROB_JSON_BYTES;
    if (o->n > 1) json += json / (uint64_t)o->n; /* the first choice is printed twice */
    m->all += kept;
    m->json_all += json;
    if (kept > m->most) m->most = kept;
    if (json > m->json_most) m->json_most = json;
}

/* What they take while the run computes: those of the answers that are kept, and three copies of the one that
 * is passed on.  Where none is kept when it has been printed, those at work, and the JSON of one. */
static uint64_t logprobs_held(const struct reading *r)
{
    const struct logprobs_memory *m = &r->logprobs;
    int64_t most = r->e->max_sequences ? r->e->max_sequences : r->e->batch;
    uint64_t at_work = (uint64_t)most * m->most;
    if (!r->use->leave) return m->all * (uint64_t)r->use->copies + 3 * m->most;
    return (at_work < m->all ? at_work : m->all) + 3 * m->most + m->json_most;
}

/* The same when it reports; the JSON of all is there at once, or of one after the other. */
static uint64_t logprobs_reported(const struct reading *r)
{
    const struct logprobs_memory *m = &r->logprobs;
    uint64_t json = !r->use->printed ? 0 : r->use->each ? m->json_most : m->json_all;
    return r->use->leave ? 0 : m->all * (uint64_t)r->use->copies + json;
}

static uint64_t logprobs_bytes(const struct reading *r)
{
    uint64_t held = logprobs_held(r), reported = logprobs_reported(r);
    return held > reported ? held : reported;
}

/* Fails because the prompts, of which there are n, take more than is allowed with their logarithms. */
static enum moe_code fail_logprobs(const struct reading *r, int64_t n, struct moe_err *err)
{
    bool all = r->use->printed && !r->use->each;
    const char *lines = all ? "--jsonl makes those of one prompt at a time; " : "";
    return moe_fail_at(err, MOE_NOMEM, r->path, NULL,
                       "line %lld: %lld prompts take up to %llu bytes of memory with their results, %llu of "
                       "them for logprobs, and %llu are there for them (%stry fewer top_logprobs, a smaller "
                       "max_tokens, or a larger --memory)",
                       (long long)r->line, (long long)n, (unsigned long long)(r->held + logprobs_bytes(r)),
                       (unsigned long long)logprobs_bytes(r), (unsigned long long)r->memory, lines);
}

/* ---- memory for all ---- */

/* Fails because r->held, what n prompts take, is more than is allowed. */
static enum moe_code fail_too_many(const struct reading *r, int64_t n, struct moe_err *err)
{
    return moe_fail_at(err, MOE_NOMEM, r->path, NULL,
                       "line %lld: %lld prompts take up to %llu bytes of memory with their results, "
                       "and %llu are there for them (try a larger --memory, or fewer prompts)",
                       (long long)r->line, (long long)n, (unsigned long long)r->held,
                       (unsigned long long)r->memory);
}

/* Adds a prompt with these ids and options, which it takes over or frees, and counts their memory.  MOE_NOMEM
 * when the prompts now take more than is allowed. */
static enum moe_code keep(struct moe_prompts *p, struct reading *r, int32_t *ids, size_t n,
                          struct moe_request_options *o, struct moe_err *err)
{
    int32_t *fit = realloc(ids, (n ? n : 1) * sizeof *ids);
    r->held += n * sizeof *ids + (uint64_t)o->n * PROMPT_BYTES + (o->bytes ? o->bytes + sizeof *o : 0);
    count_logprobs(r, o, (int64_t)n);
    bool fits = r->held <= r->memory;
    if (fits && logprobs_bytes(r) <= r->memory - r->held)
        return add(p, fit ? fit : ids, n, r->line, o, err);
    free(fit ? fit : ids);
    moe_request_options_release(o);
    return fits ? fail_logprobs(r, p->n_prompts + 1, err) : fail_too_many(r, p->n_prompts + 1, err);
}

/* Fails when not even a prompt without ids fits.  It is asked before the tokenizer is, which would say of the
 * few bytes that are left only that they are too few for its tokens. */
static enum moe_code check_room(const struct moe_prompts *p, struct reading *r, struct moe_err *err)
{
    if (r->held + PROMPT_BYTES <= r->memory) return MOE_OK;
    r->held += PROMPT_BYTES;
    return fail_too_many(r, p->n_prompts + 1, err);
}

/* Opens the chat template unless it is open. */
static enum moe_code need_chat(struct reading *r, struct moe_err *err)
{
    return r->chat ? MOE_OK : moe_prompt_chat(r->o, r->e, &r->chat, err);
}

/* How many of the three keys that can hold the prompt an object has. */
static int count_inputs(const cJSON *o)
{
    return !!moe_json_get(o, "messages") + !!moe_json_get(o, "prompt") + !!moe_json_get(o, "tokens");
}

static enum moe_code check_request(const struct reading *r, const cJSON *o, struct moe_err *err)
{
    if (!cJSON_IsObject(o) || count_inputs(o) != 1)
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
static enum moe_code read_tools(const struct reading *r, const cJSON *o, uint64_t *held, const cJSON **tools,
                                cJSON **parsed, struct moe_err *err)
{
    const struct moe_json_row at = { r->path, r->line, memory_left(r, *held), "of 'tools'" };
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

/* Fails for a conversation without a turn, and for an empty user turn: there would be nothing to answer. */
static enum moe_code check_turns(const cJSON *messages, struct moe_err *err)
{
    int turn = 0;
    if (cJSON_IsArray(messages) && !messages->child)
        return moe_fail(err, MOE_CORRUPT, "'messages' holds no turn to answer");
    for (const cJSON *m = messages ? messages->child : NULL; m; m = m->next) {
        const cJSON *role = cJSON_IsObject(m) ? moe_json_get(m, "role") : NULL;
        turn++;
        if (cJSON_IsString(role) && !strcmp(role->valuestring, "user") &&
            says_nothing(moe_json_get(m, "content")))
            return moe_fail(err, MOE_CORRUPT, "message %d, a user's, is empty", turn);
    }
    return MOE_OK;
}

/* Sets *ids, which the caller frees even on failure, to the ids of a request; the chat template encodes
 * messages. */
static enum moe_code encode_request(struct reading *r, const cJSON *o, const cJSON *tools, int32_t **ids,
                                    size_t *n, struct moe_err *err)
{
    const cJSON *messages = moe_json_get(o, "messages"), *tokens = moe_json_get(o, "tokens"),
        *prompt = moe_json_get(o, "prompt"), *list = tokens ? tokens : prompt;
    struct moe_chat_request q = { .messages = messages, .tools = tools,
                                 .kwargs = moe_json_get(o, "chat_template_kwargs"), .system = r->o->system,
                                 .add_generation_prompt = true };
    MOE_TRY(check_turns(messages, err));
    if (messages) MOE_TRY(need_chat(r, err));
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
static enum moe_code check_ids(const struct reading *r, const int32_t *ids, size_t n, struct moe_err *err)
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
static enum moe_code check_minimum(const struct reading *r, const cJSON *o, struct moe_err *err)
{
    const cJSON *least = moe_json_get(o, "min_tokens");
    int64_t most = r->defaults->max_tokens;
    if (moe_json_get(o, "max_tokens") || moe_json_get(o, "max_completion_tokens") || most < 0 ||
        !cJSON_IsNumber(least) || least->valuedouble <= (double)most) return MOE_OK;
    return moe_fail(err, MOE_CORRUPT,
                    "'min_tokens' %g is more than -n %lld (raise -n, or give 'max_tokens' too)",
                    least->valuedouble, (long long)most);
}

/* Sets *ids, which the caller frees even on failure, and *options, which are then empty, to what a request
 * says. */
static enum moe_code read_request(struct reading *r, const cJSON *o, uint64_t need, int32_t **ids, size_t *n,
                                  struct moe_request_options *options, struct moe_err *err)
{
    const cJSON *tools;
    cJSON *parsed = NULL;
    MOE_TRY(read_tools(r, o, &need, &tools, &parsed, err));
    limit_tokens(r, memory_left(r, need));
    int64_t vocab = r->e->source->config.vocab_size;
    enum moe_code code = check_minimum(r, o, err);
    if (code == MOE_OK) code = moe_request_read(options, o, r->defaults, vocab, NULL, err);
    if (code == MOE_OK) code = encode_request(r, o, tools, ids, n, err);
    if (code == MOE_OK) code = check_ids(r, *ids, *n, err);
    if (code != MOE_OK) {
        moe_wrap(err, "'%s': line %lld", r->path, (long long)r->line);
        moe_request_options_release(options);
    }
    cJSON_Delete(parsed);
    return code;
}

/* The same for a line of JSON. */
static enum moe_code encode_json(struct reading *r, const char *line, size_t bytes, int32_t **ids, size_t *n,
                                 struct moe_request_options *options, struct moe_err *err)
{
    const struct moe_json_row at = { r->path, r->line, memory_left(r, 0),
                                     "it is read as requests, an object a line: jq -c . FILE makes such "
                                     "lines, and a text goes into {\"prompt\": TEXT}" };
    cJSON *o;
    MOE_TRY(moe_json_parse_row(line, bytes, &at, &o, err));
    enum moe_code code = check_request(r, o, err);
    if (code == MOE_OK) code = read_request(r, o, moe_json_memory_bound(line, bytes), ids, n, options, err);
    cJSON_Delete(o);
    return code;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Whether a text of which moe_text_detect_kind says that it is plain nevertheless begins as a request that is
 * damaged: with a brace, and behind it, whatever quotes there are, a word that a colon follows, as in
 * {'prompt': "a"} and {prompt: "a"}, or one of the keys that hold a prompt, as in {"prompt" "a"}. */
static bool begins_damaged(const char *s, size_t n)
{
    static const char *const inputs[] = { "messages", "prompt", "tokens" };
    size_t i = moe_json_space(s, n, 0);
    if (i < n && s[i] == '[') i = moe_json_space(s, n, i + 1);
    if (i == n || s[i] != '{') return false;
    i = moe_json_space(s, n, i + 1);
    while (i < n && !is_word(s[i]) && !strchr("\n}", s[i])) i++;
    size_t word = i;
    while (i < n && is_word(s[i])) i++;
    for (size_t k = 0; k < sizeof inputs / sizeof *inputs; k++)
        if (i - word == strlen(inputs[k]) && !strncmp(s + word, inputs[k], i - word)) return true;
    size_t end = i;
    while (i < n && !is_word(s[i]) && !strchr("\n}:", s[i])) i++;
    return end > word && i < n && s[i] == ':';
}

/* Sets *json to whether the lines are JSON, by the rules for calibration text (moe_text_detect_kind): what
 * begins as JSON, even if it is damaged, is never taken for plain text, so that a damaged request does not
 * become a prompt. */
static enum moe_code detect_json(const struct reading *r, const char *text, size_t bytes, bool *json,
                          struct moe_err *err)
{
    enum moe_text_kind kind;
    MOE_TRY(moe_text_detect_kind(r->path, text, bytes, &kind, err));
    *json = kind == MOE_TEXT_LINES || (kind == MOE_TEXT_PLAIN && begins_damaged(text, bytes));
    if (kind == MOE_TEXT_PLAIN && !*json) return moe_text_check(r->path, 1, text, bytes, err);
    return *json ? MOE_OK :
        moe_fail_at(err, MOE_CORRUPT, r->path, NULL,
                    "line 1: is a JSON array, where requests are an object a line "
                    "(jq -c '.[]' FILE makes them; a text goes into {\"prompt\": TEXT})");
}

/* Fails when a line of a file of plain text is a request: the file's first line, which decides what all are,
 * is then probably a damaged one. */
static enum moe_code check_no_request(const struct reading *r, const char *line, size_t n,
                                      struct moe_err *err)
{
    const struct moe_json_row at = { r->path, r->line, memory_left(r, 0), NULL };
    struct moe_err no_json;
    cJSON *o;
    if (moe_json_begins(line, n) != MOE_JSON_OBJECT) return MOE_OK;
    enum moe_code code = moe_json_parse_row(line, n, &at, &o, &no_json);
    if (code == MOE_CORRUPT) return MOE_OK;
    if (code != MOE_OK) {
        *err = no_json;
        return code;
    }
    bool request = count_inputs(o) > 0;
    cJSON_Delete(o);
    if (!request) return MOE_OK;
    return moe_fail_at(err, MOE_CORRUPT, r->path, NULL,
                       "line %lld: is a request in JSON, but the file's first line is none, so that all "
                       "lines are read as text (make every line a request; a text goes into "
                       "{\"prompt\": TEXT})", (long long)r->line);
}

/* Called when a prompt follows: fails if a blank line came before it.  A blank line is no prompt, and
 * skipping it would shift the numbers of the answers against the lines of the file; behind the last prompt
 * it shifts nothing. */
static enum moe_code check_blank(const struct reading *r, struct moe_err *err)
{
    if (!r->blank) return MOE_OK;
    return moe_fail_at(err, MOE_USAGE, r->path, NULL, "line %lld: %s", (long long)r->blank,
                       r->o->chat ? "is blank, and a user's turn cannot be empty (take the line out)" :
                           "is blank, and an empty prompt has no token to go on from (take the line out, or "
                           "give --bos, which begins every prompt with a token)");
}

/* Sets *ids, which the caller frees even on failure, to the ids of a line of plain text. */
static enum moe_code encode_line(const struct reading *r, char *line, size_t bytes, int32_t **ids, size_t *n,
                                 struct moe_err *err)
{
    *ids = NULL;
    if (r->chat && moe_prompt_is_blank(line) && !memchr(line, 0, bytes))
        return moe_fail_at(err, MOE_CORRUPT, r->path, NULL,
                           "line %lld: is blank, and a user's turn cannot be empty (take the line out)",
                           (long long)r->line);
    MOE_TRY(check_no_request(r, line, bytes, err));
    enum moe_code code = moe_prompt_encode(r->o, r->e, r->chat, line, bytes, ids, n, err);
    return code == MOE_OK ? code : moe_wrap(err, "'%s': line %lld", r->path, (long long)r->line);
}

static enum moe_code read_lines(struct moe_prompts *p, struct reading *r, char *text, size_t bytes,
                                struct moe_err *err)
{
    size_t at = 0;
    bool json;
    MOE_TRY(detect_json(r, text, bytes, &json, err));
    while (at < bytes) {
        char *line = text + at, *end = memchr(line, '\n', bytes - at);
        size_t n = end ? (size_t)(end - line) : bytes - at, n_ids;
        int32_t *ids = NULL;
        at += n + 1;
        r->line++;
        if (n && line[n - 1] == '\r') n--;
        line[n] = 0;
        if (json && moe_json_space(line, n, 0) == n) continue;
        if (!json && !n && (r->o->chat || !r->o->bos)) {
            r->blank = r->line;
            continue;
        }
        MOE_TRY(check_blank(r, err));
        MOE_TRY(check_room(p, r, err));
        limit_tokens(r, memory_left(r, 0));
        struct moe_request_options options = { .request = *r->defaults, .n = 1 };
        enum moe_code code = json ? encode_json(r, line, n, &ids, &n_ids, &options, err) :
            encode_line(r, line, n, &ids, &n_ids, err);
        if (code == MOE_OK) code = keep(p, r, ids, n_ids, &options, err);
        else free(ids);
        MOE_TRY(code);
    }
    return MOE_OK;
}

/* Fails when --system or --chat-template was given but no line was a conversation, so that neither is ignored
 * silently. */
static enum moe_code check_unused(const struct reading *r, struct moe_err *err)
{
    const char *option = r->o->system ? "--system" : "--chat-template";
    if (r->chat || (!r->o->system && !r->o->chat_template)) return MOE_OK;
    return moe_fail(err, MOE_USAGE,
                    "%s is for conversations, and '%s' holds none (--chat makes every line a turn)", option,
                    r->path);
}

enum moe_code moe_prompts_read(struct moe_prompts *p, const char *path, const struct moe_prompt *o,
                               const struct moe_request *defaults, const struct moe_answers_use *use,
                               const struct moe_engine *e, struct moe_err *err)
{
    struct reading r = { .o = o, .defaults = defaults, .use = use, .e = e, .left = &p->left,
                         .path = moe_stream_name(path) };
    char *text;
    size_t bytes;
    *p = (struct moe_prompts){ .tokenizer = e->tokenizer };
    uint64_t memory = moe_prompt_memory(o), before = o->memory ? moe_peak_anonymous() : 0;
    MOE_TRY(moe_prompt_file(o, path, &text, &bytes, err));
    r.memory = !memory ? UINT64_MAX : memory > before ? memory - before : 1;
    r.held = bytes;
    enum moe_code code = o->chat ? need_chat(&r, err) : MOE_OK;
    if (code == MOE_OK) code = read_lines(p, &r, text, bytes, err);
    if (code == MOE_OK) code = check_unused(&r, err);
    for (int64_t i = 0; i < p->n; i++) p->v[i].file = r.path;
    free(text);
    moe_chat_close(&r.chat);
    limit_tokens(&r, memory);
    p->bytes = r.held - bytes + logprobs_held(&r);
    if (code == MOE_OK && !p->n)
        code = moe_fail(err, MOE_USAGE, "'%s': no prompts (every line is one)", r.path);
    if (code != MOE_OK) moe_prompts_release(p);
    return code;
}

void moe_prompts_release(struct moe_prompts *p)
{
    for (int64_t i = 0; i < p->n; i++) {
        if (!p->v[i].request.choice) free((int32_t *)(uintptr_t)p->v[i].request.ids);
        moe_generated_release(&p->v[i].out);
    }
    for (size_t i = 0; i < p->n_options; i++) moe_request_options_release(&p->options[i]);
    free(p->options);
    free(p->v);
    *p = (struct moe_prompts){ 0 };
}
