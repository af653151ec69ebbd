/* SPDX-License-Identifier: Apache-2.0 */
/* base/cli/output.h - where a tool may write: apart from all else that its command line names, and over
 * nothing but files of its own kind.
 *
 * Asked before the work, so that a command that cannot end well does not begin; _ours again before a file
 * gets its name, for what has appeared meanwhile.  Nothing here writes. */
#ifndef MOE_BASE_CLI_OUTPUT_H
#define MOE_BASE_CLI_OUTPUT_H

#include "base/cli/tool.h"

/* What tells that a tool wrote a file: its bytes from `at` on begin so, and both texts of `holds` (NULL:
 * none) are among its first 64 KiB.  A gzipped file is told by what is packed in it. */
struct moe_file_mark { size_t at; const char *begins, *holds[2]; };
/* "a report"; any of the marks will do, the last is followed by one whose `begins` is NULL. */
struct moe_file_kind { const char *name; struct moe_file_mark marks[5]; };

struct moe_output {
    /* the option's own pointer, which tells it from the others; NULL: not given */
    const char *path;
    bool replace;                     /* one of its kind is replaced (always, by an option without --force) */
    const struct moe_file_kind *kind; /* NULL: any file */
    const char *into;                 /* the operand that it may lie in; NULL: none */
};

/* Whether a tool may write a file there: moe_newfile_check; MOE_USAGE for "-"; MOE_USAGE, or MOE_EXISTS where
 * something stands, when it is another path of the command line, lies in it or holds it; and _ours. */
enum moe_code moe_output_check(const struct moe_run *r, const struct moe_output *o, struct moe_err *err);
/* The same of a directory or file that is built as PATH.partial, as to what is named on the command line;
 * what may be replaced is for its writer to say.  NULL is fine. */
enum moe_code moe_output_dir_check(const struct moe_run *r, const char *path, struct moe_err *err);
/* MOE_EXISTS when a file stands at `path` that is neither empty nor of this kind, or a symbolic link to one
 * or to nothing.  (A link that passes is replaced itself, never what it leads to.) */
enum moe_code moe_output_ours(const char *path, const struct moe_file_kind *kind, struct moe_err *err);

#endif
