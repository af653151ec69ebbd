/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cli/output.h"

#include "base/overlap.h"
#include "base/io.h"
#include "base/newdir.h"
#include "base/newfile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- the other paths of the command line ---- */

/* Check that an output does not overlap `other`: the output is a file, or it is built as PATH.partial.
 * which: how the message describes `other` (base/overlap.h). */
typedef enum moe_code overlap_fn(const char *out, const char *other, const char *which,
                                 struct moe_err *err);

static enum moe_code check_file_overlap(const char *out, const char *other, const char *which,
                                        struct moe_err *err)
{
    return moe_check_overlap(out, out, other, which, err);
}

static enum moe_code check_option(overlap_fn *check, const char *out, const struct moe_opt *opt,
                                  const char *value, struct moe_err *err)
{
    char which[64];
    /* pointers are compared, since another option with the same text as the output's is what must be found */
    if (!value || !*value || value == out) return MOE_OK;
    snprintf(which, sizeof which, "--%s names", opt->name);
    return check(out, value, which, err);
}

static enum moe_code check_options(overlap_fn *check, const struct moe_tool_run *r, const char *out,
                                   struct moe_err *err)
{
    for (const struct moe_opt *o = r->tool->opts; o->kind != MOE_OPT_END; o++) {
        if (!moe_opt_names_file(o)) continue;
        if (o->kind != MOE_OPT_LIST) {
            MOE_TRY(check_option(check, out, o, *(const char *const *)o->value, err));
            continue;
        }
        const struct moe_strlist *l = o->value;
        for (size_t i = 0; i < l->n; i++) MOE_TRY(check_option(check, out, o, l->v[i], err));
    }
    return MOE_OK;
}

static enum moe_code check_other_paths(overlap_fn *check, const struct moe_tool_run *r, const char *out,
                                       const char *into, struct moe_err *err)
{
    struct stat st;
    for (int i = 0; i < r->argc; i++) /* an operand that does not exist is reported by whoever reads it */
        if (r->argv[i] != into && !stat(r->argv[i], &st)) MOE_TRY(check(out, r->argv[i], "is read", err));
    return check_options(check, r, out, err);
}

/* ---- files and directories ---- */

/* To many tools "-" means standard output; the outputs of these tools need a name. */
static enum moe_code check_not_dash(const char *path, struct moe_err *err)
{
    if (path[0] != '-' || path[1 + strspn(path + 1, "/")]) return MOE_OK;
    return moe_fail_at(err, MOE_USAGE, path, NULL,
                       "is not standard output here: an output needs a name (./- is a file called -)");
}

enum moe_code moe_output_check(const struct moe_tool_run *r, const struct moe_output *o, struct moe_err *err)
{
    struct stat st;
    if (!o->path) return MOE_OK;
    MOE_TRY(check_not_dash(o->path, err));
    MOE_TRY(moe_newfile_check(o->path, o->replace, err));
    enum moe_code code = check_other_paths(check_file_overlap, r, o->path, o->into, err);
    if (code == MOE_USAGE && !lstat(o->path, &st)) err->code = code = MOE_EXISTS;
    MOE_TRY(code);
    return o->kind ? moe_file_kind_check(o->path, o->kind, err) : MOE_OK;
}

enum moe_code moe_output_partial_check(const struct moe_tool_run *r, const char *path, struct moe_err *err)
{
    if (!path) return MOE_OK;
    MOE_TRY(check_not_dash(path, err));
    return check_other_paths(moe_newdir_check_overlap, r, path, NULL, err);
}
