/* SPDX-License-Identifier: Apache-2.0 */
/* /v1/chat/completions and /apply-template: conversations. */
#include "runtime/server/server-internal.h"

#include "formats/tokenizer/chat-parse.h"

#include <stdlib.h>
#include <string.h>

static bool fail(struct moe_api_error *e, const char *param) { return moe_api_fail_code(e, param); }

/* ---- a conversation ---- */

static bool check_messages(const cJSON *messages, struct moe_api_error *e)
{
    if (!messages) return moe_api_fail(e, 400, "messages", "there are no 'messages'");
    if (!cJSON_IsArray(messages)) return moe_api_fail(e, 400, "messages", "'messages' is not a list");
    if (!messages->child) return moe_api_fail(e, 400, "messages", "'messages' holds no turn to answer");
    return true;
}

/* Whether tools are to be declared: "auto" and "none" can be had, a call cannot be required. */
static bool read_tool_choice(const cJSON *body, bool *declared, struct moe_api_error *e)
{
    const cJSON *choice = moe_json_get(body, "tool_choice");
    *declared = true;
    if (!choice || (cJSON_IsString(choice) && !strcmp(choice->valuestring, "auto"))) return true;
    *declared = false;
    if (cJSON_IsString(choice) && !strcmp(choice->valuestring, "none")) return true;
    return moe_api_fail(e, 400, "tool_choice", "'tool_choice' can be \"auto\" or \"none\" in this version");
}

/* Sets *kwargs, which the caller deletes, to chat_template_kwargs with what Moonshot's "thinking" says:
 * {"type": "enabled"} or {"type": "disabled"}. */
static bool read_kwargs(const cJSON *body, cJSON **kwargs, struct moe_api_error *e)
{
    const cJSON *given = moe_json_get(body, "chat_template_kwargs");
    const cJSON *thinking = moe_json_get(body, "thinking");
    const cJSON *type = cJSON_IsObject(thinking) ? moe_json_get(thinking, "type") : NULL;
    bool off = cJSON_IsString(type) && !strcmp(type->valuestring, "disabled");
    *kwargs = NULL;
    if (thinking && !off && !(cJSON_IsString(type) && !strcmp(type->valuestring, "enabled")))
        return moe_api_fail(e, 400, "thinking", "'thinking' is neither {\"type\": \"enabled\"} nor "
                            "{\"type\": \"disabled\"}");
    if (given && !cJSON_IsObject(given))
        return moe_api_fail(e, 400, "chat_template_kwargs", "'chat_template_kwargs' is not an object");
    if (!given && !off) return true;
    *kwargs = given ? cJSON_Duplicate(given, true) : cJSON_CreateObject();
    if (!*kwargs) return moe_api_fail(e, 503, NULL, "no memory for the conversation");
    if (off && !moe_json_get(*kwargs, "thinking")) moe_json_add_bool(*kwargs, "thinking", false);
    return true;
}

/* A conversation as the template takes it.  kwargs is the caller's to delete, also on failure. */
static bool read_chat(struct moe_exchange *x, const cJSON *body, struct moe_chat_request *q, cJSON **kwargs,
                      struct moe_api_error *e)
{
    struct moe_server *s = x->server;
    bool declared;
    *kwargs = NULL;
    if (!s->chat) {
        e->err = s->no_chat;
        e->code = "no_chat_template";
        return fail(e, "messages");
    }
    if (!check_messages(moe_json_get(body, "messages"), e) || !read_tool_choice(body, &declared, e) ||
        !read_kwargs(body, kwargs, e)) return false;
    *q = (struct moe_chat_request){ .messages = moe_json_get(body, "messages"),
                                    .tools = declared ? moe_json_get(body, "tools") : NULL,
                                    .kwargs = *kwargs,
                                    .add_generation_prompt = !cJSON_IsFalse(moe_json_get(
                                        body, "add_generation_prompt")) };
    return true;
}

/* The field to blame for what the template refuses. */
static const char *blame(const struct moe_err *err)
{
    if (err->code == MOE_USAGE) return "chat_template_kwargs";
    return strstr(err->msg, "tool") && !strstr(err->msg, "message") ? "tools" : "messages";
}

bool moe_chat_prompt(struct moe_exchange *x, const cJSON *body, struct moe_ids *p, struct moe_api_error *e)
{
    struct moe_chat_request q;
    cJSON *kwargs;
    bool ok = read_chat(x, body, &q, &kwargs, e);
    if (ok && moe_chat_encode(x->server->chat, &q, &p->v, &p->n, NULL, &e->err) != MOE_OK)
        ok = fail(e, blame(&e->err));
    if (ok) x->thinking = moe_chat_begins_thinking(x->server->chat, &q);
    cJSON_Delete(kwargs);
    return ok;
}

/* ---- the routes ---- */

bool moe_route_chat(struct moe_exchange *x, struct moe_api_error *e)
{
    const struct moe_request defaults = { .max_tokens = -1,
                                          .sampler = { .temperature = 1, .top_p = 1 },
                                          .logprobs = -1 };
    struct moe_ids prompt = { 0 };
    cJSON *body = moe_intake_parse(x, e);
    if (!body) return false;
    x->format = &moe_format_chat;
    bool ok = moe_submit_model(x, body, e) && moe_chat_prompt(x, body, &prompt, e);
    cJSON_DeleteItemFromObjectCaseSensitive(body, "tool_choice"); /* it was read */
    if (ok) ok = moe_submit(x, body, &prompt, 1, &defaults, "messages", e);
    free(prompt.v);
    cJSON_Delete(body);
    return ok;
}

static bool answer_template(struct moe_exchange *x, const cJSON *body, struct moe_api_error *e)
{
    struct moe_chat_request q;
    struct moe_ids p = { 0 };
    char *text = NULL;
    size_t bytes = 0;
    cJSON *kwargs;
    const struct moe_chat *chat = x->server->chat;
    bool ok = read_chat(x, body, &q, &kwargs, e);
    if (ok && (moe_chat_encode(chat, &q, &p.v, &p.n, NULL, &e->err) != MOE_OK ||
               moe_chat_text(chat, &q, &text, &bytes, NULL, &e->err) != MOE_OK))
        ok = fail(e, blame(&e->err));
    if (ok) {
        cJSON *json = cJSON_CreateObject();
        moe_json_add_text(json, "prompt", text, bytes);
        cJSON *list = moe_json_add_array(json, "tokens");
        for (size_t i = 0; i < p.n; i++) moe_json_append(list, cJSON_CreateNumber(p.v[i]));
        moe_exchange_answer(x, 200, json);
    }
    free(text);
    free(p.v);
    cJSON_Delete(kwargs);
    return ok;
}

bool moe_route_template(struct moe_exchange *x, struct moe_api_error *e)
{
    cJSON *body = moe_intake_parse(x, e);
    if (!body) return false;
    bool ok = answer_template(x, body, e);
    cJSON_Delete(body);
    return ok;
}
