/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-ranks.h - a moe-run with several ranks: threads of this process, processes that this one
 * starts, or this process as one of them. */
#ifndef MOE_RUNTIME_ENGINE_RUN_RANKS_H
#define MOE_RUNTIME_ENGINE_RUN_RANKS_H

#include "runtime/engine/run-work.h"

/* argv: the words of this process as they were given, for processes that it starts.  secret: that of
 * --secret-file, NULL without it.  so_far, *err: what has failed already, which is told to the ranks that
 * wait for this process, if any do.  Sets j->o->silent where another process or rank says how it went, and
 * j->o->ended where this one has printed the report already. */
enum moe_code moe_run_ranks(struct moe_run_job *j, const struct moe_secret *secret, char **argv,
                            enum moe_code so_far, struct moe_err *err);

#endif
