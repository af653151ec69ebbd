/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/tokenizer/chat-answer.h"

#include "base/grow.h"
#include "base/json.h"

#include <stdlib.h>

static void begin_call(struct moe_chat_answer *a, const struct moe_chat_delta *d)
{
    if (!MOE_GROW(a->call, a->cap, a->n_calls + 1)) {
        a->failed = true;
        return;
    }
    struct moe_chat_call *c = &a->call[a->n_calls++];
    *c = (struct moe_chat_call){ .complete = false };
    moe_buffer_put(&c->id, d->id, d->id_bytes);
    moe_buffer_put(&c->name, d->name, d->name_bytes);
    a->failed |= c->id.failed || c->name.failed;
}

void moe_chat_answer_put(void *answer, const struct moe_chat_delta *d)
{
    struct moe_chat_answer *a = answer;
    struct moe_buffer *to = d->part == MOE_PART_REASONING ? &a->reasoning : &a->content;
    if (a->failed) return;
    struct moe_chat_call *last = a->n_calls ? &a->call[a->n_calls - 1] : NULL;
    switch (d->part) {
    case MOE_PART_CALL:
        begin_call(a, d);
        return;
    case MOE_PART_CALL_END:
        last->complete = true;
        return;
    case MOE_PART_ARGUMENTS:
        to = &last->arguments;
        break;
    default: break;
    }
    moe_buffer_put(to, d->text, d->bytes);
    a->failed |= to->failed;
}

static void add_text(cJSON *o, const char *key, const struct moe_buffer *b)
{
    moe_json_add_text(o, key, b->n ? b->p : "", b->n);
}

void moe_chat_answer_json(const struct moe_chat_answer *a, cJSON *o)
{
    if (a->failed) moe_json_add(o, "content", NULL); /* marks o as incomplete */
    else if (a->content.n) add_text(o, "content", &a->content);
    else moe_json_add_null(o, "content");
    if (a->reasoning.n) add_text(o, "reasoning_content", &a->reasoning);
    cJSON *list = a->n_calls ? moe_json_add_array(o, "tool_calls") : NULL;
    for (size_t i = 0; list && i < a->n_calls; i++) {
        cJSON *c = moe_json_append(list, cJSON_CreateObject());
        add_text(c, "id", &a->call[i].id);
        moe_json_add_str(c, "type", "function");
        cJSON *f = moe_json_add_object(c, "function");
        add_text(f, "name", &a->call[i].name);
        add_text(f, "arguments", &a->call[i].arguments);
    }
}

void moe_chat_answer_release(struct moe_chat_answer *a)
{
    for (size_t i = 0; i < a->n_calls; i++) {
        free(a->call[i].id.p);
        free(a->call[i].name.p);
        free(a->call[i].arguments.p);
    }
    free(a->call);
    free(a->reasoning.p);
    free(a->content.p);
    *a = (struct moe_chat_answer){ .n_calls = 0 };
}
