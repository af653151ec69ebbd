/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/completion.h - the completion of one sequence, token by token: it samples each token from
 * its logits, turns tokens into text, and finds where the text ends (end tokens, stop texts, the largest
 * number of tokens).  It knows no caches and no forward passes.  Used by one thread at a time. */
#ifndef MOE_RUNTIME_ENGINE_COMPLETION_H
#define MOE_RUNTIME_ENGINE_COMPLETION_H

#include "runtime/engine/engine.h"

struct moe_completion {
    /* has the tokenizer, the end tokens and the memory for sampling, which completions use in turn */
    struct moe_engine *e;
    const struct moe_generate *g;     /* the caller keeps it, as it keeps *e */
    struct moe_generated out;
    struct moe_decoder decoder;
    int64_t at;                       /* the position of the first token that is generated */
    int64_t max_tokens;
    size_t cap, sent;                 /* bytes that out.text has room for; that were given to g->text */
    bool stop, done;                  /* a stop text is complete; nothing more is to be computed */
};

/* Begins a completion of at most max_tokens tokens that follow `at` others; when max_tokens is 0, r->done is
 * true at once.  After any of these calls, failed or not, the caller has to free() r->out.tokens and
 * r->out.text in the end.  They fail with MOE_NOMEM only. */
enum moe_code moe_completion_begin(struct moe_completion *r, struct moe_engine *e,
                                   const struct moe_generate *g, int64_t at, int64_t max_tokens,
                                   struct moe_err *err);
/* Samples the next token from its logits [vocabulary of the model].  Unless it is an end token, it becomes
 * part of r->out.  When r->done is false afterwards, the caller computes the token *id in the next pass. */
enum moe_code moe_completion_next(struct moe_completion *r, const float *logits, int32_t *id,
                                  struct moe_err *err);
/* Completes r->out.text, and gives to g->text what was held back because a stop text or a character could
 * begin in it. */
enum moe_code moe_completion_end(struct moe_completion *r, struct moe_err *err);

#endif
