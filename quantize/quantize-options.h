/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/quantize-options.h - the command line of moe-quantize. */
#ifndef MOE_QUANTIZE_QUANTIZE_OPTIONS_H
#define MOE_QUANTIZE_QUANTIZE_OPTIONS_H

#include "base/cli/tool.h"
#include "quantize/request.h"

struct moe_quantize_args {
    struct moe_tool_run run;
    struct moe_quantize_request ask;  /* complete after moe_quantize_args_request */
    struct moe_strlist types, calib, report;
    int64_t memory;
    bool dry_run, resume, force;
};

/* The values of the options; the option table of moe_quantize_tool points into it. */
extern struct moe_quantize_args moe_quantize_asked;
extern const struct moe_tool moe_quantize_tool;

/* Completes o->ask by the options that stand outside of it, and returns it. */
struct moe_quantize_request *moe_quantize_args_request(struct moe_quantize_args *o);
/* Checks before the work that the output and the reports, which are written at its end, can be written. */
enum moe_code moe_quantize_args_outputs(const struct moe_quantize_args *o, struct moe_err *err);

#endif
