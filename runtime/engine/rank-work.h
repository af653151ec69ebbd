/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/rank-work.h - computes one rank's share of the work of a run: its prompts, or its windows of
 * a text that is scored.
 *
 * The rank may be one of several (struct moe_ranks.work then calls these functions) or the only one (the
 * caller then fills in struct moe_rank, with ranks 1 and ep NULL).  Results are stored in r->results, which
 * also sends them to the other ranks (results.h).  This knows no command line and prints nothing.  The rank's
 * own thread calls these; their other arguments are only read, so that all ranks of a process may share
 * them. */
#ifndef MOE_RUNTIME_ENGINE_RANK_WORK_H
#define MOE_RUNTIME_ENGINE_RANK_WORK_H

#include "runtime/engine/prompts.h"
#include "runtime/engine/ranks.h"

/* Computes the answers to the prompts of this rank, which are those with index mod ranks == rank.  They run
 * together (sequences.h), and each answer is stored as soon as it is complete. */
enum moe_code moe_rank_prompts(struct moe_rank *r, const struct moe_prompts *p, struct moe_err *err);

struct moe_rank_text {
    struct moe_score_text text;               /* text.memory is for all ranks together */
    const char *reference;                    /* the path of the reference model; NULL: none */
    const struct moe_engine_options *engine;  /* the options with which the model of the run was opened */
};

/* Computes the sums of the scores of this rank's windows of a text, opening the reference for it and closing
 * it.  Fails with what moe_engine_open and moe_score_part fail with.  progress may be NULL. */
enum moe_code moe_rank_score(struct moe_rank *r, const struct moe_rank_text *t, struct moe_progress *progress,
                             struct moe_err *err);

#endif
