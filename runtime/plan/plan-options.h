/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-options.h - what moe-plan is asked for, and whether it can be. */
#ifndef MOE_RUNTIME_PLAN_PLAN_OPTIONS_H
#define MOE_RUNTIME_PLAN_PLAN_OPTIONS_H

#include "base/cli/tool.h"
#include "runtime/plan/plan-make.h"

struct moe_plan_options {
    struct moe_run run;
    struct moe_plan_request ask;      /* its list of statistics is `stats` */
    struct moe_step_options step;
    const char *out, *compare, *to, *rank, *how, *model;
    struct moe_strlist stats, baselines;
    bool dry_run, force, check, layers;
};

/* What the command line says: the tables of options point into it. */
extern struct moe_plan_options moe_plan_asked;
/* Planning, with the verbs verify, export, plot and stage. */
extern const struct moe_tool moe_plan_tool;

/* The first operand is a verb, or may be a model.  MOE_USAGE for none and for what looks like a verb. */
enum moe_code moe_plan_options_word(const struct moe_plan_options *o, struct moe_err *err);
/* Of planning (no verb): MOE_USAGE in a sentence.  *gpu: the one that is named. */
enum moe_code moe_plan_options_check(const struct moe_plan_options *o, struct moe_gpu *gpu,
                                     struct moe_err *err);
/* Nothing stands at -o, or may be replaced, and it has to do with no other path of the
 * command (base/cli/output.h). */
enum moe_code moe_plan_options_output(const struct moe_plan_options *o, struct moe_err *err);
/* One operand, a plan, for the verb `what`; MOE_USAGE also where standard input is to be read twice. */
enum moe_code moe_plan_options_one(const struct moe_plan_options *o, const char *what, struct moe_err *err);
/* How many ranks a plan that does not say is for; 0: the command does not say either. */
int32_t moe_plan_options_ranks(const struct moe_plan_options *o);
/* Of the verb stage: --how and -o. */
enum moe_code moe_plan_options_stage(const struct moe_plan_options *o, struct moe_err *err);

#endif
