/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/messages.h - reads a file with one conversation (--messages): the body of a request to
 * OpenAI's chat API, or its list of messages alone (docs/reference/request.md). */
#ifndef MOE_RUNTIME_ENGINE_MESSAGES_H
#define MOE_RUNTIME_ENGINE_MESSAGES_H

#include "runtime/engine/prompts.h"

struct moe_messages {
    int32_t *ids; size_t n_ids;           /* the prompt, which options.request refers to */
    struct moe_request_options options;   /* of one choice */
    struct moe_chat *chat;                /* the template that rendered it */
    bool thinking;                        /* the answer begins with thinking */
    struct moe_chat_left left;            /* what the template could not express */
};

/* Reads the file, which may be gzipped; path "-" is standard input.  The request's own options win over
 * `defaults`, whose pointers have to live as long as *m.  MOE_CORRUPT for what is no request with 'messages'
 * and no list, or has a value that is out of range; MOE_UNSUPPORTED for keys that are none of a request, and
 * for more than one choice; MOE_NOMEM when the request takes more than moe_prompt_memory; what
 * moe_prompt_chat fails with.  On failure there is nothing to release. */
enum moe_code moe_messages_read(struct moe_messages *m, const char *path, const struct moe_prompt *o,
                                const struct moe_request *defaults, const struct moe_engine *e,
                                struct moe_err *err);
void moe_messages_release(struct moe_messages *m);

#endif
