/* SPDX-License-Identifier: Apache-2.0 */
/* base/cli/output.h - where a tool may write: an output must not overlap any other path on the command line,
 * and it may only replace a file of its own kind.
 *
 * A tool checks this before it begins to work, so that a command that cannot succeed does not start.  It
 * calls moe_file_kind_check again just before the file gets its name, because a file may have appeared
 * meanwhile.  Nothing here writes. */
#ifndef MOE_BASE_CLI_OUTPUT_H
#define MOE_BASE_CLI_OUTPUT_H

#include "base/cli/tool.h"
#include "base/file-kind.h"

struct moe_output {
    /* The value of the output's option, by whose address (not text) the option is told from all others; NULL:
     * it was not given. */
    const char *path;
    bool replace;                     /* an existing file of this kind may be replaced */
    const struct moe_file_kind *kind; /* NULL: any file may be replaced */
    const char *into;                 /* an operand (a directory) in which the output may lie; NULL: none */
};

/* Check whether a tool may write the file o->path (NULL: there is none, MOE_OK).  What moe_newfile_check and
 * moe_file_kind_check refuse is refused, "-" is MOE_USAGE, and an output that is another path of the command
 * line, lies in it or contains it is MOE_USAGE, or MOE_EXISTS where the output exists. */
enum moe_code moe_output_check(const struct moe_tool_run *r, const struct moe_output *o, struct moe_err *err);
/* The same for an output, a directory or a file, that is built as PATH.partial: "-" and the overlap with
 * other paths of the command line are checked; its writer decides what it may replace.  NULL: MOE_OK. */
enum moe_code moe_output_partial_check(const struct moe_tool_run *r, const char *path, struct moe_err *err);

#endif
