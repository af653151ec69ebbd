/* formats/chat.c - K2's chat template: <|im_ROLE|>NAME<|im_middle|>CONTENT<|im_end|>, without newlines and without BOS. */
#include "formats/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

static const struct { const char *role, *token; } roles[] = {
    { "system",    "<|im_system|>" },
    { "user",      "<|im_user|>" },
    { "assistant", "<|im_assistant|>" },
    { "tool",      "<|im_system|>" }, /* a tool's result is a system turn in its name */
};

static enum moe_code put_special(struct moe_encoding *e, const char *name, struct moe_err *err)
{
    int32_t id = moe_token_find_special(e->t, name);
    if (id < 0)
        return moe_fail(err, MOE_UNSUPPORTED, "the vocabulary has no token '%s', which the chat template needs", name);
    if (!moe_ids_room(&e->ids, 1)) return moe_fail(err, MOE_NOMEM, "out of memory for the tokens");
    e->ids.v[e->ids.count++] = id;
    return MOE_OK;
}

static enum moe_code put_head(struct moe_encoding *e, const char *role, struct moe_err *err)
{
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(role, roles[i].role)) continue;
        MOE_TRY(put_special(e, roles[i].token, err));
        MOE_TRY(moe_encode_text(e, role, strlen(role), err));
        return put_special(e, "<|im_middle|>", err);
    }
    return moe_fail(err, MOE_USAGE, "unknown role '%.64s' (system, user, assistant or tool)", role);
}

static enum moe_code put_turn(struct moe_encoding *e, const char *role, const char *content, struct moe_err *err)
{
    MOE_TRY(put_head(e, role, err));
    if (content) MOE_TRY(moe_encode_text(e, content, strlen(content), err));
    return put_special(e, "<|im_end|>", err);
}

static enum moe_code put_chat(struct moe_encoding *e, const struct moe_message *m, size_t n, const char *default_system,
                              struct moe_err *err)
{
    if (default_system && (n == 0 || strcmp(m[0].role, "system"))) MOE_TRY(put_turn(e, "system", default_system, err));
    for (size_t i = 0; i < n; i++) MOE_TRY(put_turn(e, m[i].role, m[i].content, err));
    return put_head(e, "assistant", err);
}

enum moe_code moe_chat_encode(const struct moe_tokenizer *t, const struct moe_message *m, size_t n, const char *default_system,
                              int32_t **ids, size_t *count, struct moe_err *err)
{
    struct moe_encoding e;
    *ids = NULL;
    *count = 0;
    MOE_TRY(moe_encoding_init(&e, t, err));
    enum moe_code code = put_chat(&e, m, n, default_system, err);
    if (code == MOE_OK) {
        *ids = e.ids.v;
        *count = e.ids.count;
        e.ids.v = NULL;
    }
    moe_encoding_release(&e);
    return code;
}
