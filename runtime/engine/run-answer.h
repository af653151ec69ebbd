/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-answer.h - an answer of a chat in moe-run: taken apart while it is generated
 * (reply.h), printed part by part for people, and kept for JSON and for the conversation.
 *
 * For people, on standard output: thinking stands between lines <think> and </think>, content is as it is,
 * and each tool call begins a line "tool call NAME (ID): ARGUMENTS".  The rank's own thread calls these. */
#ifndef MOE_RUNTIME_ENGINE_RUN_ANSWER_H
#define MOE_RUNTIME_ENGINE_RUN_ANSWER_H

#include "formats/tokenizer/chat-answer.h"
#include "runtime/engine/generate.h"
#include "runtime/engine/reply.h"

struct moe_run_answer {
    struct moe_reply reply;
    struct moe_chat_answer parts;
    bool print;
    bool thinking, calling; /* what was printed last is thinking; a call */
    char last;              /* the last byte printed; 0: nothing was */
};

/* Begins an answer to a request that c rendered: has set->event take it apart, and with print_parts has these
 * printed, not the text that set->text is for.  `thinking` is of moe_chat_begins_thinking.  *a may not move
 * until it is released; c and t, its tokenizer, outlive it. */
void moe_run_answer_begin(struct moe_run_answer *a, const struct moe_chat *c, const struct moe_tokenizer *t,
                          bool thinking, bool print_parts, struct moe_generate *set);
void moe_run_answer_release(struct moe_run_answer *a);

#endif
