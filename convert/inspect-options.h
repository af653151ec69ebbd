/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect-options.h - what moe-inspect is asked for, and whether it can be. */
#ifndef MOE_CONVERT_INSPECT_OPTIONS_H
#define MOE_CONVERT_INSPECT_OPTIONS_H

#include "base/cli/tool.h"

struct moe_inspect_options {
    struct moe_run run;
    const char *tensors, *tokenize, *detokenize, *diff;
    int64_t top;
    bool layers, experts, verify, special;
};

/* What the command line says: the table of options points into it. */
extern struct moe_inspect_options moe_inspect_asked;
extern const struct moe_tool moe_inspect_tool;

/* One model, and a pattern that can be read: MOE_USAGE in a sentence.  Takes the pattern of `--tensors REGEX`
 * out of the operands. */
enum moe_code moe_inspect_options_check(struct moe_inspect_options *o, struct moe_err *err);
/* Whether it can be asked of a GGUF file, of which only the head is told: MOE_UNSUPPORTED. */
enum moe_code moe_inspect_options_gguf(const struct moe_inspect_options *o, struct moe_err *err);
/* Whether the questions to a model that is no GGUF file go together: MOE_USAGE. */
enum moe_code moe_inspect_options_model(const struct moe_inspect_options *o, struct moe_err *err);

#endif
