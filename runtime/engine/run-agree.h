/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-agree.h - collects what all ranks of a moe-run must have in common
 * (runtime/comm/agree.h): options, and the contents of the files that options name. */
#ifndef MOE_RUNTIME_ENGINE_RUN_AGREE_H
#define MOE_RUNTIME_ENGINE_RUN_AGREE_H

#include "runtime/comm/agree.h"
#include "runtime/engine/run-options.h"

/* The contents of files, as this rank has read them. */
struct moe_run_content {
    const struct moe_engine *engine;    /* has the model, and the context that this rank can hold */
    const struct moe_plan *plan, *next; /* next: NULL without --replan */
    const struct moe_prompts *prompts;  /* n is 0 without --prompts */
    const int32_t *ids;
    size_t n_ids;                       /* ids [n_ids]: the text of --score */
    int64_t window;                     /* of --score, 0 without it */
};

/* Adds every option of a table with its present value, under the name "--name", except the options of scope
 * MOE_OPT_OWN (base/cli/opt.h); so a new option is compared unless its row says otherwise.  Of an option of
 * scope MOE_OPT_FILE it only adds whether it is given. */
void moe_run_agree_options(struct moe_agreement *a, const struct moe_opt *opts);
/* Adds everything: options, versions, model, plans, texts.  Opens the model of --reference for a moment, to
 * identify it.  Fails with what moe_source_open and moe_source_identity fail with. */
enum moe_code moe_run_agree(const struct moe_run_args *o, const struct moe_run_content *c,
                            struct moe_agreement *a, struct moe_err *err);

#endif
