/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/sequences.h - computes several sequences at once on one engine (continuous batching).
 *
 * Each forward pass computes one token of every sequence that is decoding, and fills the rest of the batch
 * with tokens of prompts that are not yet computed.  When a sequence ends, its slot is given to the next
 * one.  A sequence gives the same tokens as it would alone: neither logits nor random draws depend on the
 * other sequences in the batch. */
#ifndef MOE_RUNTIME_ENGINE_SEQUENCES_H
#define MOE_RUNTIME_ENGINE_SEQUENCES_H

#include "runtime/engine/core.h"

struct moe_sequence {
    struct moe_request request;        /* what it points to is the caller's */
    /* the caller's: its number among all of the run, and that of its prompt, from 0; the prompt's line in the
     * file, from 1; the file's name, or NULL */
    int64_t index, prompt, line;
    const char *file;
    bool chat, thinking;               /* the caller's: the answer is of a chat, and begins with thinking */
    int32_t rank;                      /* that computes it (moe_share_prompts) */
    /* set when the sequence has ended; the caller frees what it points to */
    struct moe_generated out;
};

/* Computes s [n] to their ends, those of higher priority first.  `ended`, unless NULL, is called in this
 * thread as each sequence ends, and may take away what its `out` points to; a failure of it ends the run.
 * *stats is set where there are any sequences.  MOE_USAGE for a prompt that is empty or larger than the
 * context, MOE_NOMEM.  Also after a failure the caller has to free() what the outs of all point to. */
enum moe_code moe_sequences_run(struct moe_engine *e, struct moe_sequence *s, int64_t n,
                                enum moe_code (*ended)(void *ctx, struct moe_sequence *s,
                                struct moe_err *err),
                                void *ctx, struct moe_core_stats *stats, struct moe_err *err);

#endif
