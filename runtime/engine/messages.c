/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/messages.h"
#include "runtime/engine/prompts-internal.h"

#include "base/io.h"
#include "base/stream.h"

#include <stdlib.h>

/* Parses the file's text into *out, a request; a list of messages becomes one. */
static enum moe_code parse(const struct moe_prompts_reading *r, const char *text, size_t bytes, cJSON **out,
                           struct moe_err *err)
{
    const struct moe_json_row at = { r->path, 0, moe_prompts_memory_left(r, 0), NULL };
    cJSON *v, *o;
    *out = NULL;
    MOE_TRY(moe_json_parse_row(text, bytes, &at, &v, err));
    if (cJSON_IsArray(v)) {
        o = cJSON_CreateObject();
        if (!moe_json_add(o, "messages", v)) {
            cJSON_Delete(o);
            return moe_fail(err, MOE_NOMEM, "no memory for a conversation");
        }
        v = o;
    }
    *out = v;
    if (cJSON_IsObject(v) && moe_json_get(v, "messages") && moe_prompts_count_inputs(v) == 1) return MOE_OK;
    return moe_fail_at(err, MOE_CORRUPT, r->path, NULL,
                       "is neither a list of messages nor a request with 'messages' and without 'prompt' and "
                       "'tokens'");
}

static enum moe_code read_text(struct moe_messages *m, struct moe_prompts_reading *r, const char *text,
                               size_t bytes, struct moe_err *err)
{
    cJSON *o;
    m->options = (struct moe_request_options){ .request = *r->defaults, .n = 1 };
    enum moe_code code = parse(r, text, bytes, &o, err);
    if (code == MOE_OK)
        code = moe_prompts_read_request(r, o, moe_json_memory_bound(text, bytes), &m->ids, &m->n_ids,
                                        &m->options, err);
    if (code == MOE_OK && m->options.n > 1)
        code = moe_fail_at(err, MOE_UNSUPPORTED, r->path, NULL,
                           "'n' is %lld, and --messages gives one answer (a line of --prompts gives all)",
                           (long long)m->options.n);
    if (code == MOE_OK) code = moe_prompts_count(r, 0, m->n_ids, &m->options, err);
    m->thinking = r->thinking;
    cJSON_Delete(o);
    return code;
}

enum moe_code moe_messages_read(struct moe_messages *m, const char *path, const struct moe_prompt *o,
                                const struct moe_request *defaults, const struct moe_engine *e,
                                struct moe_err *err)
{
    const struct moe_answers_use use = { .copies = 1, .printed = true };
    struct moe_prompts_reading r = { .o = o, .defaults = defaults, .use = &use, .e = e, .left = &m->left,
                                     .path = moe_stream_name(path) };
    char *text;
    size_t bytes;
    *m = (struct moe_messages){ .thinking = false };
    uint64_t memory = moe_prompt_memory(o), before = o->memory ? moe_peak_anonymous() : 0;
    MOE_TRY(moe_prompt_file(o, path, &text, &bytes, err));
    r.memory = !memory ? UINT64_MAX : memory > before ? memory - before : 1;
    r.held = bytes;
    enum moe_code code = read_text(m, &r, text, bytes, err);
    free(text);
    moe_prompts_limit_tokens(&r, memory);
    m->chat = r.chat;
    m->options.request.ids = m->ids;
    m->options.request.n_ids = (int64_t)m->n_ids;
    if (code != MOE_OK) moe_messages_release(m);
    return code;
}

void moe_messages_release(struct moe_messages *m)
{
    free(m->ids);
    moe_request_options_release(&m->options);
    moe_chat_close(&m->chat);
    *m = (struct moe_messages){ .n_ids = 0 };
}
