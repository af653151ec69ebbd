/* SPDX-License-Identifier: Apache-2.0 */
/* convert/convert-options.h - the options of moe-convert, and their checks. */
#ifndef MOE_CONVERT_CONVERT_OPTIONS_H
#define MOE_CONVERT_CONVERT_OPTIONS_H

#include "base/cli/tool.h"
#include "model/export/hf-nvfp4.h"

/* The values of the options; NULL for a text that was not given, except `to` and `outtype`, which have
 * defaults. */
struct moe_convert_args {
    struct moe_tool_run run;
    const char *out, *to, *flavor, *outtype;
    int64_t memory, shard_size;  /* bytes; MOE_UNSET: --shard-size was not given */
    bool dry_run, resume, force, merge, mix_kernels, keep_vision;
    struct moe_hf_options nvfp4; /* the options of --to hf-nvfp4, set by the check */
};

/* The options of the command line; the option table points into it. */
extern struct moe_convert_args moe_convert_asked;
extern const struct moe_tool moe_convert_tool;

/* Sets o->nvfp4; MOE_USAGE when a value is unknown or options do not go together. */
enum moe_code moe_convert_args_check(struct moe_convert_args *o, struct moe_err *err);

#endif
