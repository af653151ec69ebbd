/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect-options.h - the options of moe-inspect, and their checks. */
#ifndef MOE_CONVERT_INSPECT_OPTIONS_H
#define MOE_CONVERT_INSPECT_OPTIONS_H

#include "base/cli/tool.h"

struct moe_inspect_args {
    struct moe_tool_run run;
    const char *tensors, *tokenize, *detokenize, *diff;
    int64_t top;
    bool layers, experts, verify, special, devices;
};

/* The options of the command line; the option table points into it. */
extern struct moe_inspect_args moe_inspect_asked;
extern const struct moe_tool moe_inspect_tool;

/* MOE_USAGE unless there is one model, and a pattern, if any, that is a valid regular expression.  Takes the
 * pattern of `--tensors REGEX` out of the operands. */
enum moe_code moe_inspect_args_check(struct moe_inspect_args *o, struct moe_err *err);
/* MOE_UNSUPPORTED for options that a GGUF file does not serve, of which only the head can be shown. */
enum moe_code moe_inspect_args_gguf(const struct moe_inspect_args *o, struct moe_err *err);
/* MOE_USAGE for options that do not go together, when the model is no GGUF file. */
enum moe_code moe_inspect_args_model(const struct moe_inspect_args *o, struct moe_err *err);

#endif
