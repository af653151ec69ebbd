/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-agree.h - what the ranks of a moe-run must have in common: options, and what is in
 * the files that they name. */
#ifndef MOE_RUNTIME_ENGINE_RUN_AGREE_H
#define MOE_RUNTIME_ENGINE_RUN_AGREE_H

#include "runtime/comm/agree.h"
#include "runtime/engine/run-options.h"

struct moe_run_content {
    const struct moe_engine *engine;    /* with the model, and the context that this rank can hold */
    const struct moe_plan *plan, *next; /* next: NULL without --replan */
    const struct moe_prompts *prompts;  /* n 0 without --prompts */
    const int32_t *ids;
    size_t n_ids;   /* the tokens of --score */
    int64_t window; /* of --score */
};

/* The options of a table, with the values that they have now, as "--name": each row that does not say that it
 * need not take part (base/cli/opt.h, enum moe_opt_scope), so that a new option is compared without anybody
 * thinking of it. */
void moe_run_agree_options(struct moe_agreement *a, const struct moe_opt *opts);
/* Opens --reference, to see which model it is. */
enum moe_code moe_run_agree(const struct moe_run_options *o, const struct moe_run_content *c,
                            struct moe_agreement *a, struct moe_err *err);

#endif
