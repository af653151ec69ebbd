/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-processes.h - the ranks of a moe-run as processes that this one starts,
 * and whose report it prints. */
#ifndef MOE_RUNTIME_ENGINE_RUN_PROCESSES_H
#define MOE_RUNTIME_ENGINE_RUN_PROCESSES_H

#include "runtime/engine/run-options.h"

/* argv: the words of this process as they were given.  `threads` are shared out over the ranks.  Returns the
 * exit code of the report that was printed, or of the lowest rank that failed; o->silent then.  MOE_DEVICE
 * when ranks were ended by signals and none has reported, at once when others
 * still waited for one of them. */
enum moe_code moe_run_processes(struct moe_run_options *o, int ranks, int threads, char **argv,
                                struct moe_err *err);

#endif
