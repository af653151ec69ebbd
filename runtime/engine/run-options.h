/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-options.h - what moe-run is asked for, and whether it can be. */
#ifndef MOE_RUNTIME_ENGINE_RUN_OPTIONS_H
#define MOE_RUNTIME_ENGINE_RUN_OPTIONS_H

#include "base/cli/tool.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/prompts.h"
#include "runtime/plan/plan.h"

struct moe_run_options {
    struct moe_run run;
    struct moe_prompt prompt;
    const char *prompts, *trace, *score, *reference, *eps, *mla, *device, *activations, *comm, *plan, *split,
        *record, *scratch, *rendezvous, *replan, *secret;
    struct moe_strlist stop;
    int64_t n, top_k, seed, context, window, ranks, rank, replan_after, memory;
    double temperature, top_p, min_p, rank_timeout;
    bool ignore_eos, bench;
    bool silent; /* one rank of several, and another one reports */
    bool ended;  /* moe_run_end was called, its result is in run.exit */
};

/* What the command line says: the table of options points into it. */
extern struct moe_run_options moe_run_asked;
extern const struct moe_tool moe_run_tool;

/* How ranks talk and where they meet: MOE_USAGE or MOE_UNSUPPORTED in a sentence.  Fills in --rank and
 * --ranks as a launcher's environment says them.  Other ranks can be told of whatever fails after it. */
enum moe_code moe_run_options_meet(struct moe_run_options *o, struct moe_err *err);
/* All else that is asked for: the same codes, and those of base/cli/output.h; else how to open the model. */
enum moe_code moe_run_options_check(const struct moe_run_options *o, struct moe_engine_options *e,
                                    struct moe_err *err);
/* The plan of --plan or --ranks for a model; the caller frees it. */
enum moe_code moe_run_options_plan(const struct moe_run_options *o, const struct moe_config *c,
                                   struct moe_plan **plan, struct moe_err *err);
/* MOE_DIE=RANK:STEP, for tests; left alone without it. */
void moe_run_options_die(int *rank, uint64_t *step);
/* MOE_DIE=RANK:POINT[,RANK:POINT...], for tests: ends this process here and now if it names this rank at this
 * point, or stops it (SIGSTOP) at "hang". */
void moe_run_options_die_at(int rank, const char *point);
#endif
