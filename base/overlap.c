/* SPDX-License-Identifier: Apache-2.0 */
#include "base/overlap.h"

#include "base/io.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

/* Whether `path` itself or a directory above it is the file that `what` describes. */
static bool lies_in(const char *path, const struct stat *what)
{
    char *real = realpath(path, NULL), up[PATH_MAX];
    bool found = false;
    for (bool more = real != NULL; more && !found; ) {
        struct stat st;
        found = !stat(real, &st) && same_file(&st, what);
        more = strcmp(real, "/") != 0;
        moe_path_parent(real, up);
        snprintf(real, strlen(real) + 1, "%s", up);
    }
    free(real);
    return found;
}

/* The last part of a path, without slashes behind it. */
static const char *last_part(const char *path, size_t *n)
{
    size_t end = strlen(path), start;
    while (end > 1 && path[end - 1] == '/') end--;
    for (start = end; start > 0 && path[start - 1] != '/'; start--) { }
    *n = end - start;
    return path + start;
}

/* Whether two paths, of which not both exist, would name the same file: the same last component in the same
 * directory. */
static bool same_name(const char *a, const char *b)
{
    char in_a[PATH_MAX], in_b[PATH_MAX];
    struct stat at_a, at_b;
    size_t n, m;
    const char *x = last_part(a, &n), *y = last_part(b, &m);
    moe_path_parent(a, in_a);
    moe_path_parent(b, in_b);
    return n == m && !memcmp(x, y, n) && !stat(in_a, &at_a) && !stat(in_b, &at_b) && same_file(&at_a, &at_b);
}

static enum moe_code refuse(const char *shown, const char *how, const char *other, const char *which,
                            struct moe_err *err)
{
    if (!strcmp(shown, other))
        return moe_fail_at(err, MOE_USAGE, shown, NULL,
                           "is to be written, but is also the path which %s (choose another name)", which);
    return moe_fail_at(err, MOE_USAGE, shown, NULL, "%s '%s', which %s (choose another name)", how, other,
                       which);
}

enum moe_code moe_check_overlap(const char *shown, const char *out, const char *other, const char *which,
                                struct moe_err *err)
{
    char dir[PATH_MAX];
    struct stat st, at;
    bool there = !stat(out, &st), other_there = !stat(other, &at);
    bool same = there && other_there ? same_file(&st, &at) : same_name(out, other);
    if (same) return refuse(shown, "is", other, which, err);
    if (!other_there) return MOE_OK;
    if (there && S_ISDIR(st.st_mode) && lies_in(other, &st)) return refuse(shown, "holds", other, which, err);
    moe_path_parent(out, dir);
    return lies_in(dir, &at) ? refuse(shown, "lies in", other, which, err) : MOE_OK;
}
