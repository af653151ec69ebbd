/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat-parse.h - takes apart what a model writes behind the prompt of a chat, id by id:
 * thinking, content, and tool calls with their arguments.
 *
 * It is the inverse of the renderer (chat.h) for one answer.  Markers are recognised by their ids alone, so
 * text that spells a marker stays text, and nothing has to be held back to find one.  What comes of malformed
 * calls is in docs/reference/chat.md.
 *
 *     struct moe_chat_parser p;
 *     moe_chat_parser_init(&p, chat, moe_chat_begins_thinking(chat, &request), put, ctx);
 *     moe_chat_parser_feed(&p, ids, n);        as often as ids come; put is called meanwhile
 *     moe_chat_parser_finish(&p);
 *
 * The parts, joined by kind and call, are the same however ids are grouped into calls of feed, and however
 * text is cut into tokens.  A parser takes no memory beside its struct and may be copied at any time between
 * two calls; one thread uses it. */
#ifndef MOE_FORMATS_TOKENIZER_CHAT_PARSE_H
#define MOE_FORMATS_TOKENIZER_CHAT_PARSE_H

#include "formats/tokenizer/chat.h"

enum moe_chat_part {
    MOE_PART_REASONING, /* text of the thinking */
    MOE_PART_CONTENT,   /* text of the answer proper */
    MOE_PART_CALL,      /* a tool call begins */
    MOE_PART_ARGUMENTS, /* text of its arguments, exactly as the model wrote it; perhaps not JSON */
    MOE_PART_CALL_END,  /* the call is complete; a call without this was cut off */
};

/* A part of an answer.  Texts are whole UTF-8 characters, may hold NULs, have none behind them, and are
 * valid during the call that they are given to. */
struct moe_chat_delta {
    enum moe_chat_part part;
    int64_t call;                   /* of the three parts of calls: its number, from 0 */
    const char *text; size_t bytes; /* of reasoning, content and arguments: 1 byte or more */
    /* of MOE_PART_CALL, never empty: the id as written, without white space around it; the function's name,
     * which is a part of it */
    const char *id, *name;
    size_t id_bytes, name_bytes;
};
typedef void moe_chat_put_delta(void *ctx, const struct moe_chat_delta *d);

enum { MOE_CALL_ID_BYTES = 512 };                /* a longer id is no id, and what was written is content */

struct moe_chat_parser {
    const struct moe_chat *chat;                 /* must outlive the parser */
    moe_chat_put_delta *put;
    void *ctx;
    int64_t calls;                               /* calls begun so far */
    /* what is no answer as the template writes them: markers out of order, calls without arguments or with
     * no name, an end in the middle of a call */
    int64_t malformed;
    int64_t reasoning_ids;                       /* fed while thinking, with the one that ended it */
    /* the rest is the parser's own */
    int state;
    bool after_call, other;                      /* see chat-parse.c */
    size_t matched, id_bytes;
    struct moe_decoder text;
    char id[MOE_CALL_ID_BYTES];
};

/* Whether an answer to this request begins within thinking: the template has thinking, the vocabulary has its
 * markers, and the request has not switched it off. */
bool moe_chat_begins_thinking(const struct moe_chat *c, const struct moe_chat_request *r);

/* put is called in the thread of feed, cut and finish. */
void moe_chat_parser_init(struct moe_chat_parser *p, const struct moe_chat *c, bool thinking,
                          moe_chat_put_delta *put, void *ctx);
/* Ids out of range and special tokens that are neither text nor markers are passed over. */
void moe_chat_parser_feed(struct moe_chat_parser *p, const int32_t *ids, size_t n);
/* The end of an answer that ends within a token: feeds of that id only the first `bytes` bytes of the text
 * that moe_decode gives for it, and drops what may have been the beginning of a character. */
void moe_chat_parser_cut(struct moe_chat_parser *p, int32_t id, size_t bytes);
/* The end of the answer; puts what was held back.  Only init may follow. */
void moe_chat_parser_finish(struct moe_chat_parser *p);

#endif
