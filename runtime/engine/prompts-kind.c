/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a file has requests in JSON or plain text. */
#include "runtime/engine/prompts-internal.h"

#include <string.h>

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

enum moe_code moe_prompts_detect_json(const struct moe_prompts_reading *r, const char *text, size_t bytes,
                                      bool *json, struct moe_err *err)
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

enum moe_code moe_prompts_check_no_request(const struct moe_prompts_reading *r, const char *line, size_t n,
                                           struct moe_err *err)
{
    const struct moe_json_row at = { r->path, r->line, moe_prompts_memory_left(r, 0), NULL };
    struct moe_err no_json;
    cJSON *o;
    if (moe_json_begins(line, n) != MOE_JSON_OBJECT) return MOE_OK;
    enum moe_code code = moe_json_parse_row(line, n, &at, &o, &no_json);
    if (code == MOE_CORRUPT) return MOE_OK;
    if (code != MOE_OK) {
        *err = no_json;
        return code;
    }
    bool request = moe_prompts_count_inputs(o) > 0;
    cJSON_Delete(o);
    if (!request) return MOE_OK;
    return moe_fail_at(err, MOE_CORRUPT, r->path, NULL,
                       "line %lld: is a request in JSON, but the file's first line is none, so that all "
                       "lines are read as text (make every line a request; a text goes into "
                       "{\"prompt\": TEXT})", (long long)r->line);
}
