/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/reply.h"

#include "base/grow.h"

#include <stdlib.h>
#include <string.h>

void moe_reply_init(struct moe_reply *r, const struct moe_chat *c, const struct moe_tokenizer *t,
                    bool thinking, bool keep_special, moe_chat_put_delta *put, void *ctx)
{
    *r = (struct moe_reply){ .tokenizer = t, .decoder = { .keep_special = keep_special } };
    moe_chat_parser_init(&r->parser, c, thinking, put, ctx);
}

void moe_reply_release(struct moe_reply *r)
{
    free(r->held);
    free(r->room);
    *r = (struct moe_reply){ .n = 0 };
}

/* Sets *bytes to the bytes of text that a token adds; `d` goes on to behind it. */
static enum moe_code measure(struct moe_reply *r, struct moe_decoder *d, int32_t id, size_t *bytes,
                             struct moe_err *err)
{
    char name[MOE_TOKEN_ROOM];
    size_t len = 0;
    *bytes = 0;
    if (!moe_token_bytes(r->tokenizer, id, name, &len)) return MOE_OK;
    if (!MOE_GROW(r->room, r->room_cap, MOE_DECODE_BOUND(len)))
        return moe_fail(err, MOE_NOMEM, "no memory for the parts of an answer");
    *bytes = moe_decode(r->tokenizer, d, id, r->room);
    return MOE_OK;
}

/* Takes apart the held tokens whose text was all reported. */
static enum moe_code take(struct moe_reply *r, bool end, struct moe_err *err)
{
    size_t i = 0;
    for (; i < r->n; i++) {
        struct moe_decoder d = r->decoder;
        size_t bytes;
        MOE_TRY(measure(r, &d, r->held[i], &bytes, err));
        if (bytes > r->reported - r->taken) break;
        moe_chat_parser_feed(&r->parser, &r->held[i], 1);
        r->decoder = d;
        r->taken += bytes;
    }
    /* a stop text begins in this token */
    if (end && i < r->n) moe_chat_parser_cut(&r->parser, r->held[i], r->reported - r->taken);
    r->n -= i;
    if (i) memmove(r->held, r->held + i, r->n * sizeof *r->held);
    return MOE_OK;
}

enum moe_code moe_reply_add(struct moe_reply *r, const int32_t *tokens, int64_t n, size_t text_bytes,
                            bool end, struct moe_err *err)
{
    if (!MOE_GROW(r->held, r->cap, r->n + (size_t)n + 1))
        return moe_fail(err, MOE_NOMEM, "no memory for the parts of an answer");
    if (n) memcpy(r->held + r->n, tokens, (size_t)n * sizeof *tokens);
    r->n += (size_t)n;
    r->reported += text_bytes;
    MOE_TRY(take(r, end, err));
    if (end) moe_chat_parser_finish(&r->parser);
    return MOE_OK;
}

enum moe_code moe_reply_whole(const struct moe_chat *c, const struct moe_tokenizer *t, bool thinking,
                              bool keep_special, const struct moe_generated *g, moe_chat_put_delta *put,
                              void *ctx, struct moe_err *err)
{
    struct moe_reply r;
    moe_reply_init(&r, c, t, thinking, keep_special, put, ctx);
    enum moe_code code = moe_reply_add(&r, g->tokens, g->n, g->text_bytes, true, err);
    moe_reply_release(&r);
    return code;
}
