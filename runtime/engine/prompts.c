/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/prompts-internal.h"

#include "base/grow.h"
#include "base/io.h"
#include "base/stream.h"
#include "formats/tokenizer/chat-parse.h"

#include <stdlib.h>
#include <string.h>

/* Adds all choices of a prompt.  It takes over the ids, and what o owns, also on failure. */
static enum moe_code add(struct moe_prompts *p, int32_t *ids, size_t n, const struct moe_prompts_reading *r,
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
        *s = (struct moe_sequence){ o->request, .index = p->n, .prompt = p->n_prompts, .line = r->line,
                                    .chat = r->talks, .thinking = r->thinking };
        s->request.choice = (uint32_t)i;
        p->n++;
    }
    p->n_prompts++;
    if (o->bytes) p->options[p->n_options++] = *o;
    else moe_request_options_release(o);
    return MOE_OK;
}

/* Adds a prompt with these ids and options, which it takes over or frees, and counts their memory.  MOE_NOMEM
 * when the prompts now take more than is allowed. */
static enum moe_code keep(struct moe_prompts *p, struct moe_prompts_reading *r, int32_t *ids, size_t n,
                          struct moe_request_options *o, struct moe_err *err)
{
    int32_t *fit = realloc(ids, (n ? n : 1) * sizeof *ids);
    enum moe_code code = moe_prompts_count(r, p->n_prompts, n, o, err);
    if (code == MOE_OK) return add(p, fit ? fit : ids, n, r, o, err);
    free(fit ? fit : ids);
    moe_request_options_release(o);
    return code;
}

enum moe_code moe_prompts_need_chat(struct moe_prompts_reading *r, struct moe_err *err)
{
    return r->chat ? MOE_OK : moe_prompt_chat(r->o, r->e, &r->chat, err);
}

void moe_prompts_talk(struct moe_prompts_reading *r, const cJSON *kwargs)
{
    const struct moe_chat_request q = { .kwargs = kwargs };
    r->talks = true;
    r->thinking = moe_chat_begins_thinking(r->chat, &q);
}

/* Called when a prompt follows: fails if a blank line came before it.  A blank line is no prompt, and
 * skipping it would shift the numbers of the answers against the lines of the file; behind the last prompt
 * it shifts nothing. */
static enum moe_code check_blank(const struct moe_prompts_reading *r, struct moe_err *err)
{
    if (!r->blank) return MOE_OK;
    return moe_fail_at(err, MOE_USAGE, r->path, NULL, "line %lld: %s", (long long)r->blank,
                       r->o->chat ? "is blank, and a user's turn cannot be empty (take the line out)" :
                           "is blank, and an empty prompt has no token to go on from (take the line out, or "
                           "give --bos, which begins every prompt with a token)");
}

/* Sets *ids, which the caller frees even on failure, to the ids of a line of plain text. */
static enum moe_code encode_line(struct moe_prompts_reading *r, char *line, size_t bytes, int32_t **ids,
                                 size_t *n, struct moe_err *err)
{
    *ids = NULL;
    if (r->chat && moe_prompt_is_blank(line) && !memchr(line, 0, bytes))
        return moe_fail_at(err, MOE_CORRUPT, r->path, NULL,
                           "line %lld: is blank, and a user's turn cannot be empty (take the line out)",
                           (long long)r->line);
    MOE_TRY(moe_prompts_check_no_request(r, line, bytes, err));
    if (r->chat) moe_prompts_talk(r, NULL);
    enum moe_code code = moe_prompt_encode(r->o, r->e, r->chat, line, bytes, ids, n, err);
    return code == MOE_OK ? code : moe_wrap(err, "'%s': line %lld", r->path, (long long)r->line);
}

static enum moe_code read_lines(struct moe_prompts *p, struct moe_prompts_reading *r, char *text,
                                size_t bytes, struct moe_err *err)
{
    size_t at = 0;
    bool json;
    MOE_TRY(moe_prompts_detect_json(r, text, bytes, &json, err));
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
        MOE_TRY(moe_prompts_check_room(r, p->n_prompts, err));
        moe_prompts_limit_tokens(r, moe_prompts_memory_left(r, 0));
        r->talks = r->thinking = false;
        struct moe_request_options options = { .request = *r->defaults, .n = 1 };
        enum moe_code code = json ? moe_prompts_encode_json(r, line, n, &ids, &n_ids, &options, err) :
            encode_line(r, line, n, &ids, &n_ids, err);
        if (code == MOE_OK) code = keep(p, r, ids, n_ids, &options, err);
        else free(ids);
        MOE_TRY(code);
    }
    return MOE_OK;
}

/* Fails when --system or --chat-template was given but no line was a conversation, so that neither is ignored
 * silently. */
static enum moe_code check_unused(const struct moe_prompts_reading *r, struct moe_err *err)
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
    struct moe_prompts_reading r = { .o = o, .defaults = defaults, .use = use, .e = e, .left = &p->left,
                         .path = moe_stream_name(path) };
    char *text;
    size_t bytes;
    *p = (struct moe_prompts){ .tokenizer = e->tokenizer };
    uint64_t memory = moe_prompt_memory(o);
    /* with a GPU the memory is for prompts alone: the engine and the driver are not held in it */
    uint64_t before = o->memory && !e->cuda ? moe_peak_anonymous() : 0;
    MOE_TRY(moe_prompt_file(o, path, &text, &bytes, err));
    r.memory = !memory ? UINT64_MAX : memory > before ? memory - before : 1;
    r.held = bytes;
    enum moe_code code = o->chat ? moe_prompts_need_chat(&r, err) : MOE_OK;
    if (code == MOE_OK) code = read_lines(p, &r, text, bytes, err);
    if (code == MOE_OK) code = check_unused(&r, err);
    for (int64_t i = 0; i < p->n; i++) p->v[i].file = r.path;
    free(text);
    p->chat = r.chat;
    moe_prompts_limit_tokens(&r, memory);
    p->bytes = r.held - bytes + moe_prompts_logprobs_held(&r);
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
    moe_chat_close(&p->chat);
    *p = (struct moe_prompts){ 0 };
}
