/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/answer.h - the text of an answer, token by token: turns tokens into text, and finds where it
 * ends (end tokens, stop texts, the largest number of tokens).  It knows no caches, no forward passes and no
 * sampling.
 *
 * One thread adds tokens.  Another one may read text[0, sent) under `lock` meanwhile. */
#ifndef MOE_RUNTIME_ENGINE_ANSWER_H
#define MOE_RUNTIME_ENGINE_ANSWER_H

#include "formats/tokenizer/tokenizer.h"
#include "runtime/engine/request.h"

#include <pthread.h>

/* The ids that end an answer unless the request says otherwise. */
struct moe_ends { int32_t *id; int64_t n; };

struct moe_answer {
    const struct moe_request *q;
    const struct moe_tokenizer *tokenizer;  /* NULL: there is no text */
    const struct moe_ends *ends;
    pthread_mutex_t *lock;                  /* held while `text` moves to another place */
    struct moe_decoder decoder;
    int64_t n, max_tokens;                  /* tokens, without the end token */
    char *text; size_t bytes, cap;
    size_t sent;                            /* bytes that later tokens cannot take back */
    size_t least;                           /* bytes of the first min_tokens tokens: no stop ends there */
    bool stop, done;                        /* a stop text is complete; no more tokens are wanted */
    enum moe_finish finish;                 /* once it is done */
};

/* Begins the answer a, whose fields before `decoder` and max_tokens are set and others are zero; with
 * max_tokens 0 it is done at once.  MOE_NOMEM. */
enum moe_code moe_answer_begin(struct moe_answer *a, struct moe_err *err);
/* Whether the token ends the answer. */
bool moe_answer_is_end(const struct moe_answer *a, int32_t id);
/* Adds a token, which for an end token means that it only sets a->done.  MOE_NOMEM. */
enum moe_code moe_answer_add(struct moe_answer *a, int32_t id, struct moe_err *err);
/* Completes the text of an answer that gets no more tokens.  MOE_NOMEM. */
enum moe_code moe_answer_end(struct moe_answer *a, struct moe_err *err);
void moe_answer_release(struct moe_answer *a);

#endif
