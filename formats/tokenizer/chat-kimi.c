/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat-kimi.c - the templates of Kimi K2: <|im_ROLE|>NAME<|im_middle|>TEXT<|im_end|>,
 * without newlines and without BOS. */
#include "formats/tokenizer/chat-internal.h"

#include "base/json.h"

#include <stdio.h>
#include <string.h>

/* ---- reading a message: shared by all templates ---- */

const char *moe_chat_role(const cJSON *message)
{
    const cJSON *role = moe_json_get(message, "role");
    return cJSON_IsString(role) ? role->valuestring : "";
}

static bool is_known_role(const char *role)
{
    static const char *const roles[] = { "system", "developer", "user", "assistant", "tool" };
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(role, roles[i])) return true;
    return false;
}

void moe_chat_put_content(struct moe_chat_out *o, const cJSON *message, int64_t i)
{
    const cJSON *content = moe_json_get(message, "content"), *part;
    if (cJSON_IsString(content)) moe_chat_puts(o, content->valuestring);
    else if (content && !cJSON_IsArray(content))
        moe_chat_fail(o, MOE_CORRUPT, i, "its 'content' is neither text nor a list of parts");
    else if (content)
        cJSON_ArrayForEach(part, content) {
            const cJSON *type = moe_json_get(part, "type"), *text = moe_json_get(part, "text");
            if (cJSON_IsString(type) && strcmp(type->valuestring, "text"))
                moe_chat_fail(o, MOE_UNSUPPORTED, i, "a part of its content is of type '%.40s' (want text)",
                              type->valuestring);
            else if (moe_json_get(part, "image") || moe_json_get(part, "image_url"))
                moe_chat_fail(o, MOE_UNSUPPORTED, i, "a part of its content is an image (want text)");
            else if (!cJSON_IsString(text))
                moe_chat_fail(o, MOE_CORRUPT, i,
                              "a part of its content is not {\"type\": \"text\", \"text\": TEXT}");
            else moe_chat_puts(o, text->valuestring);
        }
}

const cJSON *moe_chat_calls(struct moe_chat_out *o, const cJSON *message, int64_t i)
{
    const cJSON *calls = moe_json_get(message, "tool_calls");
    if (calls && !cJSON_IsArray(calls)) moe_chat_fail(o, MOE_CORRUPT, i, "its 'tool_calls' is not a list");
    return cJSON_IsArray(calls) && calls->child && o->code == MOE_OK ? calls : NULL;
}

const char *moe_chat_call_name(struct moe_chat_out *o, const cJSON *call, int64_t i)
{
    const cJSON *name = moe_json_get(moe_json_get(call, "function"), "name");
    if (cJSON_IsString(name)) return name->valuestring;
    moe_chat_fail(o, MOE_CORRUPT, i, "a tool call has no function with a 'name'");
    return NULL;
}

void moe_chat_put_arguments(struct moe_chat_out *o, const cJSON *call, int64_t i, bool quote)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(moe_json_get(call, "function"), "arguments");
    if (!v) moe_chat_fail(o, MOE_CORRUPT, i, "a tool call has no function with 'arguments'");
    else if (cJSON_IsString(v) && !quote) moe_chat_puts(o, v->valuestring);
    else moe_chat_put_json(o, v, false);
}

/* Whether a key makes services continue the text of a message, which all templates end.  With the value false
 * it counts as absent. */
static bool is_continuation_key(const char *key) { return !strcmp(key, "partial") || !strcmp(key, "prefix"); }

static const char *find_continuation_key(const cJSON *message)
{
    for (const cJSON *c = message->child; c; c = c->next)
        if (is_continuation_key(c->string) && !cJSON_IsNull(c) && !cJSON_IsFalse(c)) return c->string;
    return NULL;
}

/* Count the keys of an object that are not in `known`; a key whose value is null counts as absent. */
static void count_others(struct moe_chat_out *o, const cJSON *object, const char *const known[])
{
    for (const cJSON *c = object ? object->child : NULL; c; c = c->next) {
        bool found = cJSON_IsNull(c) || !c->string || (cJSON_IsFalse(c) && is_continuation_key(c->string));
        for (size_t i = 0; known[i] && !found; i++) found = !strcmp(c->string, known[i]);
        if (!found && !o->left.keys++) snprintf(o->left.key, sizeof o->left.key, "%s", c->string);
    }
}

/* Count the keys that no template reads, in a message and in its parts and calls. */
static void count_keys(struct moe_chat_out *o, const cJSON *message)
{
    const struct moe_chat_style *style = &o->chat->style;
    const char *role = moe_chat_role(message);
    bool assistant = !strcmp(role, "assistant"), tool = !strcmp(role, "tool");
    const char *known[8] = { "role", "content" }, *const part[] = { "type", "text", NULL },
               *const call[] = { "id", "type", "index", "function", NULL },
               *const function[] = { "name", "arguments", NULL };
    size_t n = 2;
    if (assistant) known[n++] = "reasoning_content", known[n++] = "reasoning", known[n++] = "tool_calls";
    if (tool) known[n++] = "tool_call_id";
    if (style->family == MOE_KIMI && !style->made_ids) known[n++] = "name";
    count_others(o, message, known);
    const cJSON *content = moe_json_get(message, "content"), *calls = moe_json_get(message, "tool_calls"), *c;
    if (cJSON_IsArray(content)) cJSON_ArrayForEach(c, content) count_others(o, c, part);
    if (assistant && cJSON_IsArray(calls))
        cJSON_ArrayForEach(c, calls) {
            count_others(o, c, call);
            count_others(o, moe_json_get(c, "function"), function);
        }
}

static void check_message(struct moe_chat_out *o, const cJSON *m, int64_t i)
{
    if (!cJSON_IsObject(m)) moe_chat_fail(o, MOE_CORRUPT, i, "is not an object");
    else if (!cJSON_IsString(moe_json_get(m, "role"))) moe_chat_fail(o, MOE_CORRUPT, i, "has no 'role'");
    else if (!is_known_role(moe_chat_role(m)))
        moe_chat_fail(o, MOE_CORRUPT, i, "has the role '%.64s' (system, developer, user, assistant or tool)",
                      moe_chat_role(m));
    else if (moe_json_get(m, "function_call"))
        moe_chat_fail(o, MOE_UNSUPPORTED, i, "has a 'function_call' (write it as 'tool_calls')");
    else if (find_continuation_key(m))
        moe_chat_fail(o, MOE_UNSUPPORTED, i,
                      "has '%s': no chat template goes on from a message (leave the key out, or write the "
                      "whole text as a 'prompt')",
                      find_continuation_key(m));
    else count_keys(o, m);
}

bool moe_chat_check(struct moe_chat_out *o, const struct moe_chat_request *r)
{
    const cJSON *m;
    int64_t i = 0;
    if (!cJSON_IsArray(r->messages)) moe_chat_fail(o, MOE_CORRUPT, -1, "'messages' is not a list");
    if (r->tools && !cJSON_IsNull(r->tools) && !cJSON_IsArray(r->tools))
        moe_chat_fail(o, MOE_CORRUPT, -1, "'tools' is not a list");
    if (r->kwargs && !cJSON_IsNull(r->kwargs) && !cJSON_IsObject(r->kwargs))
        moe_chat_fail(o, MOE_CORRUPT, -1, "'chat_template_kwargs' is not an object");
    cJSON_ArrayForEach(m, r->messages) check_message(o, m, i++);
    return o->code == MOE_OK;
}

/* ---- switches ---- */

/* The values that a request may set by "chat_template_kwargs". */
struct switches { bool thinking, preserve; };

static bool read_switches(struct moe_chat_out *o, const cJSON *kwargs, struct switches *s)
{
    const struct moe_chat_style *style = &o->chat->style;
    *s = (struct switches){ .thinking = true, .preserve = style->preserve_default };
    for (const cJSON *c = kwargs ? kwargs->child : NULL; c; c = c->next) {
        bool *to = NULL;
        if (style->opens && !strcmp(c->string, "thinking")) to = &s->thinking;
        if (style->preserves && !strcmp(c->string, "preserve_thinking")) to = &s->preserve;
        if (!to)
            moe_chat_fail(o, MOE_USAGE, -1, "chat_template_kwargs: the template %s has no switch '%.64s'",
                          style->name, c->string);
        else if (cJSON_IsBool(c)) *to = cJSON_IsTrue(c);
        else if (!cJSON_IsNull(c))
            moe_chat_fail(o, MOE_USAGE, -1, "chat_template_kwargs: '%.64s' is not true or false", c->string);
    }
    return o->code == MOE_OK;
}

/* ---- turns ---- */

/* Write the beginning of a turn, up to its content. */
static void put_head(struct moe_chat_out *o, const cJSON *m, int64_t i)
{
    const char *role = moe_chat_role(m);
    const cJSON *name = o->chat->style.made_ids ? NULL : moe_json_get(m, "name");
    if (name && !cJSON_IsString(name)) moe_chat_fail(o, MOE_CORRUPT, i, "its 'name' is not text");
    moe_chat_put_mark(o, !strcmp(role, "user")        ? MOE_MARK_IM_USER
                         : !strcmp(role, "assistant") ? MOE_MARK_IM_ASSISTANT : MOE_MARK_IM_SYSTEM);
    moe_chat_puts(o, cJSON_IsString(name) && *name->valuestring ? name->valuestring : role);
    moe_chat_put_mark(o, MOE_MARK_IM_MIDDLE);
}

/* Write the id of a call: its own, or the one that the model would have written, which contains the call's
 * number. */
static void put_call_id(struct moe_chat_out *o, const cJSON *call, int64_t i, int64_t number)
{
    const cJSON *id = moe_json_get(call, "id");
    char s[32];
    if (id && !o->chat->style.made_ids) {
        if (cJSON_IsString(id)) moe_chat_puts(o, id->valuestring);
        else moe_chat_fail(o, MOE_CORRUPT, i, "the 'id' of a tool call is not text");
        return;
    }
    const char *name = moe_chat_call_name(o, call, i);
    if (!name) return;
    moe_chat_puts(o, "functions.");
    moe_chat_puts(o, name);
    moe_chat_put(o, s, (size_t)snprintf(s, sizeof s, ":%lld", (long long)number));
}

/* Write the tool calls of message i.  *count is the number of calls in the messages before it; these are
 * added to it. */
static void put_calls(struct moe_chat_out *o, const cJSON *list, int64_t i, int64_t *count)
{
    bool made = o->chat->style.made_ids;
    int64_t n = 0;
    const cJSON *call;
    moe_chat_put_mark(o, MOE_MARK_SECTION);
    cJSON_ArrayForEach(call, list) {
        moe_chat_put_mark(o, MOE_MARK_CALL);
        put_call_id(o, call, i, made ? n : *count + n);
        moe_chat_put_mark(o, MOE_MARK_CALL_ARGUMENT);
        moe_chat_put_arguments(o, call, i, made);
        moe_chat_put_mark(o, MOE_MARK_CALL_END);
        n++;
    }
    moe_chat_put_mark(o, MOE_MARK_SECTION_END);
    *count += n;
}

/* Write a message's reasoning between <think> and </think>; without `keep` nothing stands between them. */
static void put_reasoning(struct moe_chat_out *o, const cJSON *m, int64_t i, bool keep)
{
    const cJSON *r = moe_json_get(m, "reasoning_content");
    if (!r) r = moe_json_get(m, "reasoning");
    if (r && !cJSON_IsString(r)) moe_chat_fail(o, MOE_CORRUPT, i, "its 'reasoning_content' is not text");
    keep = keep && o->chat->style.thinks;
    if (cJSON_IsString(r) && *r->valuestring && !keep) o->left.reasoning++;
    if (!o->chat->style.thinks) return;
    moe_chat_put_mark(o, MOE_MARK_THINK);
    if (cJSON_IsString(r) && keep) moe_chat_puts(o, r->valuestring);
    moe_chat_put_mark(o, MOE_MARK_THINK_END);
}

/* Write "## Return of ID" before a tool's result; a result without an id may begin with such a line
 * itself. */
static void put_result_line(struct moe_chat_out *o, const cJSON *m, int64_t i)
{
    static const char line[] = "## Return of ";
    const cJSON *id = moe_json_get(m, "tool_call_id"), *content = moe_json_get(m, "content");
    bool whole = !id && cJSON_IsString(content) && !strncmp(content->valuestring, line, sizeof line - 1);
    if (whole) return;
    if (id && !cJSON_IsString(id)) moe_chat_fail(o, MOE_CORRUPT, i, "its 'tool_call_id' is not text");
    o->left.nameless += !id;
    moe_chat_puts(o, line);
    if (cJSON_IsString(id)) moe_chat_puts(o, id->valuestring);
    moe_chat_puts(o, o->chat->style.made_ids ? "\\n" : "\n"); /* the first template writes \ and n */
}

static void put_turn(struct moe_chat_out *o, const cJSON *m, int64_t i, bool keep, int64_t *count)
{
    const char *role = moe_chat_role(m);
    put_head(o, m, i);
    if (!strcmp(role, "assistant")) put_reasoning(o, m, i, keep);
    if (!strcmp(role, "tool")) put_result_line(o, m, i);
    moe_chat_put_content(o, m, i);
    const cJSON *list = !strcmp(role, "assistant") ? moe_chat_calls(o, m, i) : NULL;
    if (list) put_calls(o, list, i, count);
    moe_chat_put_mark(o, MOE_MARK_IM_END);
}

/* The index of the first message whose reasoning is kept: the one after the last answer without tool
 * calls. */
static int64_t first_kept_message(struct moe_chat_out *o, const struct moe_chat_request *r)
{
    int64_t i = 0, from = 0, n = cJSON_GetArraySize(r->messages);
    const cJSON *m;
    cJSON_ArrayForEach(m, r->messages) {
        bool answer = !strcmp(moe_chat_role(m), "assistant") && !moe_chat_calls(o, m, i);
        i++;
        if (answer && !(r->answered && i == n)) from = i;
    }
    return from;
}

/* Write the turns that precede the messages: the declaration of tools, and the default system turn. */
static void put_first_turns(struct moe_chat_out *o, const struct moe_chat_request *r)
{
    const struct moe_chat_style *s = &o->chat->style;
    const cJSON *first = r->messages->child;
    const char *system = r->system ? r->system : s->system;
    if (cJSON_IsArray(r->tools) && r->tools->child) {
        moe_chat_put_mark(o, MOE_MARK_IM_SYSTEM);
        moe_chat_puts(o, "tool_declare");
        moe_chat_put_mark(o, MOE_MARK_IM_MIDDLE);
        moe_chat_put_tools(o, r->tools);
        moe_chat_put_mark(o, MOE_MARK_IM_END);
    }
    if (!system || !*system || (first ? !strcmp(moe_chat_role(first), "system") : !s->thinks)) return;
    moe_chat_put_mark(o, MOE_MARK_IM_SYSTEM);
    moe_chat_puts(o, "system");
    moe_chat_put_mark(o, MOE_MARK_IM_MIDDLE);
    moe_chat_puts(o, system);
    moe_chat_put_mark(o, MOE_MARK_IM_END);
    if (s->newline && !r->system) moe_chat_puts(o, "\n");
}

static void put_generation_prompt(struct moe_chat_out *o, bool thinking)
{
    moe_chat_put_mark(o, MOE_MARK_IM_ASSISTANT);
    moe_chat_puts(o, "assistant");
    moe_chat_put_mark(o, MOE_MARK_IM_MIDDLE);
    if (!o->chat->style.opens) return;
    moe_chat_put_mark(o, MOE_MARK_THINK);
    if (!thinking) moe_chat_put_mark(o, MOE_MARK_THINK_END);
}

void moe_chat_render_kimi(struct moe_chat_out *o, const struct moe_chat_request *r)
{
    struct switches s;
    const cJSON *m;
    int64_t i = 0, count = 0;
    if (!moe_chat_check(o, r) || !read_switches(o, r->kwargs, &s)) return;
    int64_t from = s.preserve ? 0 : first_kept_message(o, r);
    put_first_turns(o, r);
    cJSON_ArrayForEach(m, r->messages) {
        put_turn(o, m, i, i >= from && (s.thinking || s.preserve), &count);
        i++;
    }
    if (r->add_generation_prompt) put_generation_prompt(o, s.thinking);
}
