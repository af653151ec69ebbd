/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/sequences.h - computes several sequences at once on one engine (continuous batching).
 *
 * Each forward pass computes one token of every sequence that is decoding, and fills the rest of the batch
 * with tokens of prompts that are not yet computed.  When a sequence ends, its slot is given to the next
 * one.  A sequence gives the same tokens as it would alone: neither logits nor random draws depend on the
 * other sequences in the batch. */
#ifndef MOE_RUNTIME_ENGINE_SEQUENCES_H
#define MOE_RUNTIME_ENGINE_SEQUENCES_H

#include "runtime/engine/engine.h"

struct moe_sequence {
    const int32_t *ids; int64_t n_ids; /* the prompt, at least one token; the caller's */
    int64_t index, line;               /* the caller's: its number from 0; its line in the file, from 1 */
    struct moe_generated out;          /* set when the sequence has ended; the caller frees tokens and text */
};

/* Computes s [n] to their ends with the settings of `g`, except that g->text is not called; g->max_tokens is
 * for each sequence, as for moe_engine_generate.  `ended`, unless NULL, is called in this thread as each
 * sequence ends; a failure of it ends the run.  MOE_USAGE for a prompt that is empty or larger than the
 * context, MOE_NOMEM.  Also after a failure the caller has to free() out.tokens and out.text of all. */
enum moe_code moe_sequences_run(struct moe_engine *e, struct moe_sequence *s, int64_t n,
                                const struct moe_generate *g,
                                enum moe_code (*ended)(void *ctx, const struct moe_sequence *s,
                                struct moe_err *err),
                                void *ctx, struct moe_err *err);

#endif
