/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/quantize-options.h - what moe-quantize is asked for. */
#ifndef MOE_QUANTIZE_QUANTIZE_OPTIONS_H
#define MOE_QUANTIZE_QUANTIZE_OPTIONS_H

#include "base/cli/tool.h"
#include "quantize/request.h"

struct moe_quantize_options {
    struct moe_run run;
    struct moe_quantize_request ask;  /* whole after moe_quantize_options_request */
    struct moe_strlist types, calib, report;
    int64_t memory;
    bool dry_run, resume, force;
};

/* What the command line says: the table of options points into it. */
extern struct moe_quantize_options moe_quantize_asked;
extern const struct moe_tool moe_quantize_tool;

/* The request, with what is said outside of it. */
struct moe_quantize_request *moe_quantize_options_request(struct moe_quantize_options *o);
/* The container and the reports, which are written in the end, may be. */
enum moe_code moe_quantize_options_outputs(const struct moe_quantize_options *o, struct moe_err *err);

#endif
