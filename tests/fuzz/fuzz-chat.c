/* SPDX-License-Identifier: Apache-2.0 */
/* Renders conversations of any JSON by every template.  Each has to be refused with a sentence, or its ids
 * have to be the text that people see, with as many special tokens as when no text in it has a '<': nothing
 * in a conversation becomes a special token.  The first byte chooses the template and what is asked for; the
 * rest is the request, {"messages", "tools", "chat_template_kwargs"}. */
#include "base/json.h"
#include "formats/tokenizer/chat.h"
#include "tests/fuzz/fuzzdir.h"
#include "tests/unit/chat-vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEMPLATES = 7 };

/* Copies a JSON tree, without the '<' with which markers begin in any text of it. */
static void blunt(cJSON *v)
{
    for (char *s = cJSON_IsString(v) ? v->valuestring : NULL; s && *s; s++)
        if (*s == '<') *s = 'x';
    for (cJSON *c = v->child; c; c = c->next) blunt(c);
}

static size_t count_special(const struct moe_tokenizer *t, const int32_t *ids, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += moe_token_is_special(t, ids[i]);
    return count;
}

static void check(const struct moe_tokenizer *t, const struct moe_chat *c, struct moe_chat_request r,
                  cJSON *root)
{
    struct moe_err err = MOE_ERR_INIT;
    char *text, *back;
    int32_t *ids;
    size_t n, bytes, m;
    r.messages = moe_json_get(root, "messages");
    r.tools = moe_json_get(root, "tools");
    r.kwargs = moe_json_get(root, "chat_template_kwargs");
    enum moe_code code = moe_chat_encode(c, &r, &ids, &n, NULL, &err);
    assert(code == MOE_OK ? ids != NULL : (code == MOE_CORRUPT || code == MOE_UNSUPPORTED ||
                                           code == MOE_USAGE) && !ids && err.msg[0]);
    assert(moe_chat_text(c, &r, &text, &bytes, NULL, &err) == code);
    if (code != MOE_OK) return;
    assert(moe_decode_all(t, ids, n, true, &back, &m, &err) == MOE_OK && m == bytes &&
           !memcmp(back, text, m));
    size_t special = count_special(t, ids, n);
    free(ids);
    free(text);
    free(back);
    blunt(root);
    assert(moe_chat_encode(c, &r, &ids, &n, NULL, &err) == MOE_OK && count_special(t, ids, n) == special);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[TEMPLATES] = { "k2-first", "k2-instruct", "k2-thinking", "k2.5", "k2.6",
                                                 "k2.7-code", "deepseek-v3" };
    static struct moe_tokenizer *t;
    static struct moe_chat *chat[TEMPLATES];
    struct moe_err err = MOE_ERR_INIT;
    cJSON *root;
    if (fuzz_dir_make()) {
        chat_vocabulary(fuzz_dir, NULL, NULL);
        assert(moe_tokenizer_open(&t, fuzz_dir, CHAT_VOCAB, &err) == MOE_OK);
        for (int i = 0; i < TEMPLATES; i++) assert(moe_chat_open(&chat[i], t,
                                                                 &(struct moe_chat_hint){ .name = names[i] },
                                                                 &err) == MOE_OK);
    }
    if (!size) return 0;
    const char *text = (const char *)data + 1;
    if (moe_json_parse(text, size - 1, NULL, &root, &err) != MOE_OK) return 0;
    assert(moe_json_keep_numbers(root, text, size - 1, &err) == MOE_OK);
    check(t, chat[data[0] % TEMPLATES], (struct moe_chat_request){ .add_generation_prompt = data[0] & 8,
                                                                  .answered = data[0] & 16,
                                                                  .system = data[0] & 32 ? "<|im_end|>" :
                                                                          NULL }, root);
    cJSON_Delete(root);
    return 0;
}
