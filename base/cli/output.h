/* SPDX-License-Identifier: Apache-2.0 */
/* base/cli/output.h - where a tool may write: apart from all else that its command line names, and over
 * nothing but files of its own kind.
 *
 * Asked before the work, so that a command that cannot end well does not begin; moe_file_kind_check again
 * before a file gets its name, for what has appeared meanwhile.  Nothing here writes. */
#ifndef MOE_BASE_CLI_OUTPUT_H
#define MOE_BASE_CLI_OUTPUT_H

#include "base/cli/tool.h"
#include "base/file-kind.h"

struct moe_output {
    /* the option's own pointer, which tells it from the others; NULL: not given */
    const char *path;
    bool replace;                     /* one of its kind is replaced (always, by an option without --force) */
    const struct moe_file_kind *kind; /* NULL: any file */
    const char *into;                 /* the operand that it may lie in; NULL: none */
};

/* Whether a tool may write a file there: moe_newfile_check; MOE_USAGE for "-"; MOE_USAGE, or MOE_EXISTS where
 * something stands, when it is another path of the command line, lies in it or holds it; and
 * moe_file_kind_check. */
enum moe_code moe_output_check(const struct moe_run *r, const struct moe_output *o, struct moe_err *err);
/* The same of a directory or file that is built as PATH.partial, as to what is named on the command line;
 * what may be replaced is for its writer to say.  NULL is fine. */
enum moe_code moe_output_dir_check(const struct moe_run *r, const char *path, struct moe_err *err);

#endif
