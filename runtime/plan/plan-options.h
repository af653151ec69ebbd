/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-options.h - the options of moe-plan and its verbs, and checks of their values.  For the
 * tool's one thread. */
#ifndef MOE_RUNTIME_PLAN_PLAN_OPTIONS_H
#define MOE_RUNTIME_PLAN_PLAN_OPTIONS_H

#include "base/cli/tool.h"
#include "runtime/plan/plan-make.h"

struct moe_plan_args {
    struct moe_tool_run run;
    struct moe_plan_request ask;      /* ask.stats is set from `stats` below after parsing */
    struct moe_step_options step;
    const char *out, *compare, *to, *rank, *how, *model;
    struct moe_strlist stats, baselines;
    bool dry_run, force, check, layers;
};

/* The values of the command line; the tables of options point into it. */
extern struct moe_plan_args moe_plan_asked;
/* The tool: planning, and the verbs verify, export, plot and stage. */
extern const struct moe_tool moe_plan_tool;

/* Checks the first operand, a verb or a model.  MOE_USAGE when there is none, or when no file has this name
 * and it looks like a misspelt verb. */
enum moe_code moe_plan_args_word(const struct moe_plan_args *o, struct moe_err *err);
/* Checks the options of planning (no verb); *gpu becomes the GPU that --gpu names. */
enum moe_code moe_plan_args_check(const struct moe_plan_args *o, struct moe_gpu *gpu,
                                  struct moe_err *err);
/* Checks -o: nothing is there, or it may be replaced, and it neither is, nor lies in, nor holds another path
 * of the command (base/cli/output.h). */
enum moe_code moe_plan_args_output(const struct moe_plan_args *o, struct moe_err *err);
/* Checks that the verb `what` has one operand, a plan.  MOE_USAGE also where standard input would be read
 * twice. */
enum moe_code moe_plan_args_one(const struct moe_plan_args *o, const char *what, struct moe_err *err);
/* The value of --ranks, for a plan whose file does not say for how many ranks it is; 0: it was not given. */
int32_t moe_plan_args_ranks(const struct moe_plan_args *o);
/* Checks --how and -o of the verb stage. */
enum moe_code moe_plan_args_stage(const struct moe_plan_args *o, struct moe_err *err);

#endif
