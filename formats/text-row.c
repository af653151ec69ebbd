/* SPDX-License-Identifier: Apache-2.0 */
/* formats/text-row.c - converts a row of JSON to a document: text, or a conversation in one of the formats in
 * use. */
#include "base/json.h"
#include "formats/text-internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void moe_text_drop_row(struct moe_text *t)
{
    cJSON_Delete(t->row);
    cJSON_Delete(t->made);
    cJSON_Delete(t->tools);
    t->row_need = 0;
    t->row = t->made = t->tools = NULL;
    t->rest = NULL;
    t->n_rest = 0;
}

__attribute__((format(printf, 3, 4)))
static enum moe_code fail_row(const struct moe_text *t, struct moe_err *err, const char *fmt, ...)
{
    char what[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return moe_fail_at(err, MOE_CORRUPT, t->path, NULL, "line %lld: %s", (long long)t->row_line, what);
}

static enum moe_code fail_no_memory(const struct moe_text *t, struct moe_err *err)
{
    return moe_fail_at(err, MOE_NOMEM, t->path, NULL, "no memory for a row");
}

/* Count the keys of the row that are not among `known` (ended by NULL) and so are not read, and note the
 * first. */
static void count_unknown_keys(struct moe_text *t, const char *const known[])
{
    for (const cJSON *c = t->row->child; c; c = c->next) {
        bool found = cJSON_IsNull(c);
        for (size_t i = 0; known[i] && !found; i++) found = !strcmp(c->string, known[i]);
        if (found) continue;
        if (!t->unread_keys++) snprintf(t->unread_key, sizeof t->unread_key, "%s", c->string);
    }
}

/* Keys of a ShareGPT turn other than "from" and "value" are copied to the message: the template reads or
 * counts them, as it does for "messages". */
static bool add_others(cJSON *message, const cJSON *turn)
{
    for (cJSON *c = turn ? turn->child : NULL; c; c = c->next)
        if (strcmp(c->string, "from") && strcmp(c->string, "value") &&
            !moe_json_add(message, c->string, moe_json_ref(c))) return false;
    return true;
}

/* Append a message to those made so far; `turn` is the turn of which it is made, or NULL. */
static bool add_turn(struct moe_text *t, const char *role, const char *content, const cJSON *turn)
{
    cJSON *m = cJSON_CreateObject();
    if (!t->made) t->made = cJSON_CreateArray();
    if (m && t->made && moe_json_add_str(m, "role", role) &&
        moe_json_add_str(m, "content", content) && add_others(m, turn))
        return moe_json_append(t->made, m) != NULL;
    cJSON_Delete(m);
    return false;
}

static enum moe_code add_system(struct moe_text *t, struct moe_err *err)
{
    const cJSON *system = moe_json_get(t->row, "system");
    if (!system) return MOE_OK;
    if (!cJSON_IsString(system)) return fail_row(t, err, "'system' is not text");
    bool ok = !*system->valuestring || add_turn(t, "system", system->valuestring, NULL);
    return ok ? MOE_OK : fail_no_memory(t, err);
}

/* ---- ShareGPT ---- */

static const char *sharegpt_role(const char *from)
{
    static const char *const roles[][2] = {
        { "human", "user" }, { "user", "user" }, { "gpt", "assistant" }, { "assistant", "assistant" },
        { "chatgpt", "assistant" }, { "model", "assistant" }, { "system", "system" },
    };
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(roles[i][0], from)) return roles[i][1];
    return NULL;
}

static enum moe_code convert_sharegpt(struct moe_text *t, const cJSON *list, struct moe_err *err)
{
    const cJSON *c;
    MOE_TRY(add_system(t, err));
    cJSON_ArrayForEach(c, list) {
        const cJSON *from = moe_json_get(c, "from"), *value = moe_json_get(c, "value");
        if (!cJSON_IsString(from) || !cJSON_IsString(value))
            return fail_row(t, err, "a turn of 'conversations' is not {\"from\", \"value\"}, both text");
        if (moe_json_get(c, "role") || moe_json_get(c, "content"))
            return fail_row(t, err,
                            "a turn of 'conversations' has 'from' and 'value', and 'role' or 'content' too");
        const char *role = sharegpt_role(from->valuestring);
        if (!role)
            return fail_row(t, err,
                            "a turn of 'conversations' is from '%.64s' (human, gpt, system; for tools: "
                            "'messages')",
                            from->valuestring);
        if (!add_turn(t, role, value->valuestring, c)) return fail_no_memory(t, err);
    }
    return MOE_OK;
}

/* ---- Alpaca ---- */

/* Append the instruction as a user's message, with the input on a line of its own. */
static enum moe_code add_alpaca_question(struct moe_text *t, struct moe_err *err)
{
    const cJSON *instruction = moe_json_get(t->row, "instruction"), *input = moe_json_get(t->row, "input");
    if (!cJSON_IsString(instruction) || (input && !cJSON_IsString(input)))
        return fail_row(t, err, "'instruction' and 'input' are not both text");
    const char *more = input ? input->valuestring : "";
    size_t n = strlen(instruction->valuestring) + strlen(more) + 2;
    char *s = malloc(n);
    if (s) snprintf(s, n, "%s%s%s", instruction->valuestring, *more ? "\n" : "", more);
    bool ok = s && add_turn(t, "user", s, NULL);
    free(s);
    return ok ? MOE_OK : fail_no_memory(t, err);
}

static enum moe_code convert_alpaca(struct moe_text *t, struct moe_err *err)
{
    const cJSON *output = moe_json_get(t->row, "output"), *history = moe_json_get(t->row, "history"), *c;
    MOE_TRY(add_system(t, err));
    if (history && !cJSON_IsArray(history))
        return fail_row(t, err, "'history' is not a list of pairs of texts");
    cJSON_ArrayForEach(c, history) {
        const cJSON *q = c->child, *a = q ? q->next : NULL;
        if (!cJSON_IsArray(c) || !a || a->next || !cJSON_IsString(q) || !cJSON_IsString(a))
            return fail_row(t, err, "'history' is not a list of pairs of texts");
        if (!add_turn(t, "user", q->valuestring, NULL) || !add_turn(t, "assistant", a->valuestring, NULL))
            return fail_no_memory(t, err);
    }
    MOE_TRY(add_alpaca_question(t, err));
    if (!cJSON_IsString(output)) return fail_row(t, err, "'output' is not text");
    return add_turn(t, "assistant", output->valuestring, NULL) ? MOE_OK : fail_no_memory(t, err);
}

/* ---- all formats ---- */

/* Parse n bytes of JSON within the memory that is left under the limit.  why: why they are taken for JSON,
 * which the message says when they are not; or NULL. */
static enum moe_code parse_json(const struct moe_text *t, const char *s, size_t n, const char *why,
                                cJSON **out, struct moe_err *err)
{
    /* 0 means no limit, so that 1 stands for nothing left */
    uint64_t held = moe_text_held(t), left = !t->memory ? 0 : t->memory > held ? t->memory - held : 1;
    const struct moe_json_row at = { t->path, t->row_line, left, why };
    return moe_json_parse_row(s, n, &at, out, err);
}

/* Set p->tools to the row's tools, which may be a list or JSON in a string. */
static enum moe_code read_tools(struct moe_text *t, struct moe_text_piece *p, struct moe_err *err)
{
    const cJSON *tools = moe_json_get(t->row, "tools");
    p->tools = tools;
    if (!cJSON_IsString(tools)) return MOE_OK;
    const char *s = tools->valuestring;
    if (!*s) {
        p->tools = NULL;
        return MOE_OK;
    }
    enum moe_code code = parse_json(t, s, strlen(s), NULL, &t->tools, err);
    if (code == MOE_CORRUPT) return fail_row(t, err, "'tools' is a text that is not JSON");
    if (t->memory) t->row_need += moe_json_memory_bound(s, strlen(s));
    p->tools = t->tools;
    return code;
}

/* Give out a conversation as the piece *p. */
static enum moe_code take_conversation(struct moe_text *t, const cJSON *messages, struct moe_text_piece *p,
                                       struct moe_err *err)
{
    if (!messages || !messages->child) { /* no turns: the row is skipped, as one with an empty text is */
        t->empty++;
        return MOE_OK;
    }
    p->messages = messages;
    return read_tools(t, p, err);
}

/* Account for messages that are made of other turns: they are held beside these, and take at most as much
 * memory again. */
static enum moe_code account_for_turns(struct moe_text *t, struct moe_err *err)
{
    uint64_t need = t->cap + 2 * t->row_need;
    if (t->memory && need > t->memory)
        return moe_fail_at(err, MOE_NOMEM, t->path, NULL,
                           "line %lld: its conversation takes up to %llu bytes of memory, and %llu are "
                           "allowed (try a larger --memory, or shorter rows)",
                           (long long)t->row_line, (unsigned long long)need, (unsigned long long)t->memory);
    t->row_need *= 2;
    return MOE_OK;
}

/* Convert t->row, whichever of the formats in formats/text.h it has. */
static enum moe_code convert_row(struct moe_text *t, struct moe_text_piece *p, struct moe_err *err)
{
    const cJSON *text = moe_json_get(t->row, "text"), *messages = moe_json_get(t->row, "messages"),
        *list = moe_json_get(t->row, "conversations");
    if (!cJSON_IsObject(t->row)) return fail_row(t, err, "is JSON, but not an object");
    if (text) {
        count_unknown_keys(t, (const char *const[]){ "text", NULL });
        if (!cJSON_IsString(text)) return fail_row(t, err, "'text' is not a string");
        t->rest = text->valuestring;
        t->n_rest = strlen(text->valuestring);
        return MOE_OK;
    }
    if (messages || (list && list->child && moe_json_get(list->child, "role"))) { /* turns as in "messages" */
        count_unknown_keys(t,
                           (const char *const[]){ messages ? "messages" : "conversations", "tools", NULL });
        if (!messages) messages = list;
        if (!cJSON_IsArray(messages)) return fail_row(t, err, "'messages' is not a list");
        return take_conversation(t, messages, p, err);
    }
    if (!list && !moe_json_get(t->row, "instruction") && cJSON_GetObjectItemCaseSensitive(t->row, "text")) {
        t->empty++; /* the text is null */
        return MOE_OK;
    }
    if (!list && !moe_json_get(t->row, "instruction"))
        return fail_row(t, err, "an object without 'text', 'messages', 'conversations' or 'instruction' "
                        "(its first key: '%.40s')", t->row->child ? t->row->child->string : "");
    count_unknown_keys(t, list ? (const char *const[]){ "conversations", "system", "tools", NULL }
                               : (const char *const[]){ "instruction", "input", "output", "system", "history",
                                                        "tools", NULL });
    if (list && !cJSON_IsArray(list)) return fail_row(t, err, "'conversations' is not a list");
    MOE_TRY(account_for_turns(t, err));
    MOE_TRY(list ? convert_sharegpt(t, list, err) : convert_alpaca(t, err));
    return take_conversation(t, t->made, p, err);
}

enum moe_code moe_text_convert_row(struct moe_text *t, const char *s, size_t n, struct moe_text_piece *p,
                                   struct moe_err *err)
{
    const char *why = t->kind == MOE_TEXT_ARRAY ? NULL :
        "it is read as JSON, an object a line or an array of objects; plain text that begins as JSON goes "
        "into {\"text\": TEXT}";
    MOE_TRY(parse_json(t, s, n, why, &t->row, err));
    t->row_need = t->memory ? moe_json_memory_bound(s, n) : 0;
    *p = (struct moe_text_piece){ .begins = true, .line = t->row_line };
    return convert_row(t, p, err);
}
