/* SPDX-License-Identifier: Apache-2.0 */
/* convert/convert-options.h - what moe-convert is asked for, and whether it can be. */
#ifndef MOE_CONVERT_CONVERT_OPTIONS_H
#define MOE_CONVERT_CONVERT_OPTIONS_H

#include "base/cli/tool.h"
#include "model/export/hf-nvfp4.h"

struct moe_convert_options {
    struct moe_run run;
    const char *out, *to, *flavor, *outtype;
    int64_t memory, shard_size;
    bool dry_run, resume, force, merge, mix_kernels, keep_vision;
    struct moe_hf_options nvfp4; /* of --to hf-nvfp4, once the options are checked */
};

/* What the command line says: the table of options points into it. */
extern struct moe_convert_options moe_convert_asked;
extern const struct moe_tool moe_convert_tool;

/* MOE_USAGE in a sentence; else o->nvfp4 is filled in. */
enum moe_code moe_convert_options_check(struct moe_convert_options *o, struct moe_err *err);

#endif
