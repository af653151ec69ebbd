/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-processes.h - runs the ranks of a moe-run as processes that this one starts, and prints
 * the report of one of them. */
#ifndef MOE_RUNTIME_ENGINE_RUN_PROCESSES_H
#define MOE_RUNTIME_ENGINE_RUN_PROCESSES_H

#include "runtime/engine/run-options.h"

/* Starts `ranks` processes with the arguments argv, which are those of this process as they were given, and
 * waits for them.  `threads` threads are divided among them.  Returns the exit code that belongs to the
 * report that was printed, or without a report that of the lowest rank that failed; o->silent is true then,
 * since a rank has printed the error.  MOE_DEVICE when ranks were ended by signals and none has reported. */
enum moe_code moe_run_processes(struct moe_run_args *o, int ranks, int threads, char **argv,
                                struct moe_err *err);

#endif
