/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-options.h - what moe-plan is asked for, and whether it can be. */
#ifndef MOE_RUNTIME_PLAN_PLAN_OPTIONS_H
#define MOE_RUNTIME_PLAN_PLAN_OPTIONS_H

#include "base/cli/tool.h"

/* Where --windows and --target are not given. */
#define MOE_PLAN_WINDOWS 8
#define MOE_PLAN_TARGET  0.0195

struct moe_plan_options {
    struct moe_run run;
    int64_t ranks, slots, memory, per_node, survive, windows, batch, context, prefill, reserve;
    double target;
    const char *from, *out, *gpu, *expert_type, *dense_type, *kv_type, *compare, *to, *rank, *how, *model;
    struct moe_strlist stats, baselines;
    bool dry_run, force, check, layers;
};

/* How many windows of a file of statistics to keep apart: --windows, which is
 * MOE_UNSET where it was not given. */
static inline int32_t moe_plan_windows(const struct moe_plan_options *o)
{
    return o->windows == MOE_UNSET ? MOE_PLAN_WINDOWS : (int32_t)o->windows;
}

/* What the command line says: the tables of options point into it. */
extern struct moe_plan_options moe_plan_asked;
/* Planning, with the verbs verify, export, plot and stage. */
extern const struct moe_tool moe_plan_tool;

/* Of planning (no subcommand): MOE_USAGE in a sentence. */
enum moe_code moe_plan_options_check(const struct moe_plan_options *o, struct moe_err *err);
/* Nothing stands at -o, or may be replaced, and it has to do with no other path of the
 * command (base/cli/output.h). */
enum moe_code moe_plan_options_output(const struct moe_plan_options *o, struct moe_err *err);
/* One operand, a plan, for the verb `what`; MOE_USAGE also where standard input is to be read twice. */
enum moe_code moe_plan_options_one(const struct moe_plan_options *o, const char *what, struct moe_err *err);

#endif
