/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/reply.h - the parts of an answer in a chat (formats/tokenizer/chat-parse.h) while the engine
 * computes it: what of them is certain, since text that a stop text may take back is not.
 *
 * The parts hold exactly the text that the events report; its bytes are counted, and a token is taken apart
 * once all of its text was reported.  One thread uses a reply. */
#ifndef MOE_RUNTIME_ENGINE_REPLY_H
#define MOE_RUNTIME_ENGINE_REPLY_H

#include "formats/tokenizer/chat-parse.h"
#include "runtime/engine/core.h"

struct moe_reply {
    struct moe_chat_parser parser;
    const struct moe_tokenizer *tokenizer;
    struct moe_decoder decoder;    /* in the state of the engine's own behind the last token looked at */
    int32_t *held; size_t n, cap;  /* tokens whose text was not all reported yet */
    size_t reported, taken;        /* bytes of text: in events; of tokens before the first held one */
    char *room; size_t room_cap;
};

/* A reply to a request that was rendered by c, where t is c's tokenizer and both outlive it.  thinking, put,
 * ctx: as of moe_chat_parser_init; keep_special: as in the request. */
void moe_reply_init(struct moe_reply *r, const struct moe_chat *c, const struct moe_tokenizer *t,
                    bool thinking, bool keep_special, moe_chat_put_delta *put, void *ctx);
/* Takes what is new of an answer: tokens and text as events report them (core.h), and whether these are the
 * last.  MOE_NOMEM. */
enum moe_code moe_reply_add(struct moe_reply *r, const int32_t *tokens, int64_t n, size_t text_bytes,
                            bool end, struct moe_err *err);
void moe_reply_release(struct moe_reply *r);

/* The parts of an answer that is there as a whole: put is called for each of them.  MOE_NOMEM. */
enum moe_code moe_reply_whole(const struct moe_chat *c, const struct moe_tokenizer *t, bool thinking,
                              bool keep_special, const struct moe_generated *g, moe_chat_put_delta *put,
                              void *ctx, struct moe_err *err);

#endif
