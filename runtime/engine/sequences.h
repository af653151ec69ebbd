/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/sequences.h - several sequences at once on one engine: continuous batching.
 *
 * Every pass takes one token of each sequence that decodes, and fills the batch with what prompts are
 * waiting; a sequence that ends makes room for the next.  Each gives what it would give alone: neither its
 * tokens nor its draws depend on the company. */
#ifndef MOE_RUNTIME_ENGINE_SEQUENCES_H
#define MOE_RUNTIME_ENGINE_SEQUENCES_H

#include "runtime/engine/engine.h"

struct moe_sequence {
    const int32_t *ids; int64_t n_ids; /* the prompt, at least one token; the caller's */
    int64_t index, line;               /* the caller's: its number from 0; its line in the file, from 1 */
    struct moe_generated out;          /* set when it has ended; free() tokens and text in any case */
};

/* Run them to their ends with the settings of `g`, whose text callback is not used (g->max_tokens as for
 * moe_engine_generate).  `ended`, unless NULL, is called as each one ends.  MOE_USAGE for a prompt that
 * the context does not hold. */
enum moe_code moe_sequences_run(struct moe_engine *e, struct moe_sequence *s, int64_t n,
                                const struct moe_generate *g,
                                enum moe_code (*ended)(void *ctx, const struct moe_sequence *s,
                                struct moe_err *err),
                                void *ctx, struct moe_err *err);

#endif
