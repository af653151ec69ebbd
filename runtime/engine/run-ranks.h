/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-ranks.h - does a moe-run with several ranks: as threads of this process, as processes
 * that this one starts, or with this process as one of them. */
#ifndef MOE_RUNTIME_ENGINE_RUN_RANKS_H
#define MOE_RUNTIME_ENGINE_RUN_RANKS_H

#include "runtime/engine/run-work.h"

/* Does the whole run, from reading the plan to the report.
 * argv: the arguments of this process as they were given, for processes that it starts.
 * secret: that of --secret-file; NULL without it.
 * so_far, *err: the failure so far (MOE_OK: none), which is told to the ranks that wait for this process, if
 * there are any.
 * Sets j->o->silent when another process or rank prints result or error, and j->o->ended when this one has
 * printed the report already. */
enum moe_code moe_run_ranks(struct moe_run_job *j, const struct moe_secret *secret, char **argv,
                            enum moe_code so_far, struct moe_err *err);

#endif
