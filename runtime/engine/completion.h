/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/completion.h - one sequence's answer as it comes: sampling, the end, text out of tokens.
 * Knows no caches and no passes. */
#ifndef MOE_RUNTIME_ENGINE_COMPLETION_H
#define MOE_RUNTIME_ENGINE_COMPLETION_H

#include "runtime/engine/engine.h"

struct moe_completion {
    /* tokenizer, end tokens, memory for sampling; used by one reply at a time */
    struct moe_engine *e;
    const struct moe_generate *g;
    struct moe_generated out;
    struct moe_decoder decoder;
    struct moe_rng rng;
    int64_t max_tokens;
    size_t cap, sent;
    bool stop, done;
};

/* At most max_tokens tokens; done at once when that is 0.  After any of these calls, failed or not, free()
 * out.tokens and out.text. */
enum moe_code moe_completion_begin(struct moe_completion *r, struct moe_engine *e,
                                   const struct moe_generate *g, int64_t max_tokens, struct moe_err *err);
/* The next token from its logits [vocab of the model], unless that ends it.  When not done afterwards, *id
 * goes into the next pass. */
enum moe_code moe_completion_next(struct moe_completion *r, const float *logits, int32_t *id,
                                  struct moe_err *err);
/* Text that was held back. */
enum moe_code moe_completion_end(struct moe_completion *r, struct moe_err *err);

#endif
