/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat-answer.h - the parts of an answer (chat-parse.h), put together as a message of
 * OpenAI's chat API.
 *
 * Zero-initialised it is empty.  One thread uses it. */
#ifndef MOE_FORMATS_TOKENIZER_CHAT_ANSWER_H
#define MOE_FORMATS_TOKENIZER_CHAT_ANSWER_H

#include "base/buffer.h"
#include "formats/tokenizer/chat-parse.h"

/* A call; `complete` is false when the answer ended within it. */
struct moe_chat_call { struct moe_buffer id, name, arguments; bool complete; };

struct moe_chat_answer {
    struct moe_buffer reasoning, content;
    struct moe_chat_call *call; size_t n_calls, cap;
    bool failed; /* memory has run out, and something is missing */
};

/* Adds a part; a function for moe_chat_parser_init, with the answer as ctx.  Calls have to come in order. */
void moe_chat_answer_put(void *answer, const struct moe_chat_delta *d);
/* Adds to an object "content" (null when there is none), and where there are any "reasoning_content" and
 * "tool_calls": each {"id", "type": "function", "function": {"name", "arguments"}}.  Where memory has
 * run out, o is marked as incomplete (moe_json_whole). */
void moe_chat_answer_json(const struct moe_chat_answer *a, cJSON *o);
void moe_chat_answer_release(struct moe_chat_answer *a); /* frees and empties */

#endif
