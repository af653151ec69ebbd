/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/rank-work.h - one rank's share of the work of a run: its prompts, or its windows of a text.
 *
 * The rank may be one of several (struct moe_ranks.work calls these) or the only one: then struct moe_rank is
 * filled in by the caller, with ranks 1 and ep NULL.  What is found goes into the rank's results, which tell
 * the other ranks (results.h).  Knows no options and prints nothing.  The rank's own thread calls these; what
 * they are given is read only, so all ranks of a process may share it. */
#ifndef MOE_RUNTIME_ENGINE_RANK_WORK_H
#define MOE_RUNTIME_ENGINE_RANK_WORK_H

#include "runtime/engine/prompts.h"
#include "runtime/engine/ranks.h"

/* The answers to the prompts of this rank: prompt i is that of rank i mod ranks.  They run together, and each
 * answer goes into the results as it ends. */
enum moe_code moe_rank_prompts(struct moe_rank *r, const struct moe_prompts *p, const struct moe_generate *g,
                               struct moe_err *err);

struct moe_rank_text {
    struct moe_score_text text;               /* its memory is that of all ranks together */
    const char *reference;                    /* the path of the reference model; NULL: none */
    const struct moe_engine_options *engine;  /* how the model of the run is opened */
};

/* The score of this rank's windows of a text; the reference is opened for it and closed.  What
 * moe_engine_open and moe_score_part fail with. */
enum moe_code moe_rank_score(struct moe_rank *r, const struct moe_rank_text *t, struct moe_progress *progress,
                             struct moe_err *err);

#endif
