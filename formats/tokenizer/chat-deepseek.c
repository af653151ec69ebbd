/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat-deepseek.c - DeepSeek-V3's template: BOS, all system text, then the turns;
 * consecutive tool results form one block. */
#include "formats/tokenizer/chat-internal.h"

#include "base/json.h"

#include <string.h>

static bool is_system(const cJSON *m)
{
    return !strcmp(moe_chat_role(m), "system") || !strcmp(moe_chat_role(m), "developer");
}

static void put_system_text(struct moe_chat_out *o, const struct moe_chat_request *r)
{
    bool any = false;
    int64_t i = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, r->messages) {
        if (is_system(m)) {
            if (any) moe_chat_puts(o, "\n\n");
            any = true;
            moe_chat_put_content(o, m, i);
        }
        i++;
    }
    if (!any && r->system) moe_chat_puts(o, r->system);
}

/* The template's own state: after the first tool call of a conversation all later calls continue that list,
 * and all later results that block. */
struct state { bool called, results, had_results; };

static void put_call(struct moe_chat_out *o, const cJSON *c, int64_t i)
{
    const cJSON *type = moe_json_get(c, "type");
    const char *name = moe_chat_call_name(o, c, i);
    if (!name) return;
    moe_chat_put_mark(o, MOE_MARK_DS_CALL);
    moe_chat_puts(o, cJSON_IsString(type) ? type->valuestring : "function");
    moe_chat_put_mark(o, MOE_MARK_DS_SEP);
    moe_chat_puts(o, name);
    moe_chat_puts(o, "\n```json\n");
    moe_chat_put_arguments(o, c, i, false);
    moe_chat_puts(o, "\n```");
    moe_chat_put_mark(o, MOE_MARK_DS_CALL_END);
}

static void put_calls(struct moe_chat_out *o, const cJSON *m, const cJSON *list, int64_t i, struct state *s)
{
    const cJSON *c;
    s->results = false;
    cJSON_ArrayForEach(c, list) {
        if (s->called) {
            moe_chat_puts(o, "\n");
        } else {
            moe_chat_put_mark(o, MOE_MARK_DS_ASSISTANT);
            moe_chat_put_content(o, m, i);
            moe_chat_put_mark(o, MOE_MARK_DS_CALLS);
        }
        s->called = true;
        put_call(o, c, i);
    }
    moe_chat_put_mark(o, MOE_MARK_DS_CALLS_END);
    moe_chat_put_mark(o, MOE_MARK_DS_END);
}

/* Write the calls of a message without text as the template of December 2024 does: after the first call of a
 * conversation neither the list nor the turn is ended, only after each further call. */
static void put_calls_alone(struct moe_chat_out *o, const cJSON *list, int64_t i, struct state *s)
{
    const cJSON *c;
    s->results = false;
    cJSON_ArrayForEach(c, list) {
        if (s->called) moe_chat_puts(o, "\n");
        else moe_chat_put_mark(o, MOE_MARK_DS_ASSISTANT), moe_chat_put_mark(o, MOE_MARK_DS_CALLS);
        put_call(o, c, i);
        if (s->called) moe_chat_put_mark(o, MOE_MARK_DS_CALLS_END), moe_chat_put_mark(o, MOE_MARK_DS_END);
        s->called = true;
    }
}

static void put_answer(struct moe_chat_out *o, const cJSON *m, int64_t i, struct state *s)
{
    const cJSON *list = moe_chat_calls(o, m, i), *r = moe_json_get(m, "reasoning_content");
    if (!r) r = moe_json_get(m, "reasoning");
    o->left.reasoning += cJSON_IsString(r) && *r->valuestring;
    if (o->chat->style.calls_alone) {
        bool text = moe_json_get(m, "content") != NULL;
        if (list && text)
            moe_chat_fail(o, MOE_UNSUPPORTED, i,
                          "has text and tool calls, of which the template %s drops the calls (its content is "
                          "null beside calls)", o->chat->style.name);
        if (!text) {
            put_calls_alone(o, list, i, s);
            return;
        }
        list = NULL;
    }
    if (list) {
        put_calls(o, m, list, i, s);
        return;
    }
    moe_chat_put_mark(o, s->results ? MOE_MARK_DS_OUTPUTS_END : MOE_MARK_DS_ASSISTANT);
    s->results = false;
    moe_chat_put_content(o, m, i);
    moe_chat_put_mark(o, MOE_MARK_DS_END);
}

static void put_result(struct moe_chat_out *o, const cJSON *m, int64_t i, struct state *s)
{
    if (!s->had_results) moe_chat_put_mark(o, MOE_MARK_DS_OUTPUTS);
    else if (o->chat->style.newline) moe_chat_puts(o, "\n");
    s->results = s->had_results = true;
    moe_chat_put_mark(o, MOE_MARK_DS_OUTPUT);
    moe_chat_put_content(o, m, i);
    moe_chat_put_mark(o, MOE_MARK_DS_OUTPUT_END);
}

void moe_chat_render_deepseek(struct moe_chat_out *o, const struct moe_chat_request *r)
{
    struct state s = { false, false, false };
    const cJSON *m;
    int64_t i = 0;
    if (!moe_chat_check(o, r)) return;
    if (r->kwargs && r->kwargs->child)
        moe_chat_fail(o, MOE_USAGE, -1, "chat_template_kwargs: the template %s has no switch '%.64s'",
                      o->chat->style.name, r->kwargs->child->string);
    o->left.tools += cJSON_IsArray(r->tools) && r->tools->child;
    moe_chat_put_mark(o, MOE_MARK_DS_BEGIN);
    put_system_text(o, r);
    cJSON_ArrayForEach(m, r->messages) {
        const char *role = moe_chat_role(m);
        if (!strcmp(role, "user")) {
            s.results = false;
            moe_chat_put_mark(o, MOE_MARK_DS_USER);
            moe_chat_put_content(o, m, i);
        } else if (!strcmp(role, "assistant")) {
            put_answer(o, m, i, &s);
        } else if (!strcmp(role, "tool")) {
            put_result(o, m, i, &s);
        }
        i++;
    }
    if (s.results) moe_chat_put_mark(o, MOE_MARK_DS_OUTPUTS_END);
    if (r->add_generation_prompt && !s.results) moe_chat_put_mark(o, MOE_MARK_DS_ASSISTANT);
}
