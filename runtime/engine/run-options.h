/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-options.h - the options of moe-run, and the checks whether what they ask for is
 * possible.
 *
 * One thread, the main one, calls these. */
#ifndef MOE_RUNTIME_ENGINE_RUN_OPTIONS_H
#define MOE_RUNTIME_ENGINE_RUN_OPTIONS_H

#include "base/cli/tool.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/prompts.h"
#include "runtime/plan/plan.h"

/* The values of the options: NULL, MOE_UNSET or 0 for an option without default that was not given. */
struct moe_run_args {
    struct moe_tool_run run;          /* the common options, and the process itself */
    struct moe_prompt prompt;
    const char *prompts, *messages, *trace, *score, *reference, *eps, *mla, *device, *load_from, *keep;
    const char *attach, *arithmetic, *cache_type;
    const char *activations, *comm, *plan, *split, *record, *scratch, *rendezvous, *replan, *secret;
    struct moe_strlist stop;
    int64_t n, top_k, seed, context, window, ranks, rank, replan_after, memory;
    int64_t batch_tokens, cache, max_sequences;
    double temperature, top_p, min_p, rank_timeout;
    bool ignore_eos, bench, jsonl;
    bool silent; /* this process prints neither result nor error: another rank or process does */
    bool ended;  /* moe_tool_run_end has been called, and its result is in run.exit */
};

/* The options of this process: the parser of the command line writes into it by the table of options. */
extern struct moe_run_args moe_run_asked;
extern const struct moe_tool moe_run_tool;

/* Checks the options that say how ranks communicate and where they meet, and sets --rank and --ranks from the
 * environment of a launcher (mpirun, srun) where they were not given.  MOE_USAGE or MOE_UNSUPPORTED.  Once it
 * has succeeded, this process can meet the other ranks, and so can tell them of a later failure. */
enum moe_code moe_run_args_meet(struct moe_run_args *o, struct moe_err *err);
/* Checks all other options, and sets *e to how to open the model.  MOE_USAGE, MOE_UNSUPPORTED, or what
 * moe_output_check fails with (base/cli/output.h). */
enum moe_code moe_run_args_check(const struct moe_run_args *o, struct moe_engine_options *e,
                                 struct moe_err *err);
/* The placement of --plan, read and checked against the model, or the trivial one for --ranks.  The caller
 * frees it (moe_plan_free). */
enum moe_code moe_run_args_plan(const struct moe_run_args *o, const struct moe_config *c,
                                struct moe_plan **plan, struct moe_err *err);
/* For tests: MOE_DIE=RANK:WHERE[,RANK:WHERE...] in the environment says which rank dies, and where.  WHERE is
 * a step of its work (moe_ep_options.die), or the name of a point in its process. */

/* Sets *rank and *step from the first entry with a step, if there is one. */
void moe_run_args_die(int *rank, uint64_t *step);
/* If an entry names this rank and point, kills this process at once, or stops it (SIGSTOP) when the point is
 * "hang". */
void moe_run_args_die_at(int rank, const char *point);
#endif
