/* SPDX-License-Identifier: Apache-2.0 */
/* base/file-kind.h - whether a file that exists was written by one of this project's writers, which may then
 * replace it.  The content decides, not the name. */
#ifndef MOE_BASE_FILE_KIND_H
#define MOE_BASE_FILE_KIND_H

#include "base/err.h"

#include <stddef.h>

/* A mark by which a file of ours is recognised: its bytes from `at` on are `begins`, and both texts of
 * `holds` (NULL: none) occur in its first 64 KiB.  A gzipped file is decompressed for this. */
struct moe_file_mark { size_t at; const char *begins, *holds[2]; };
/* name: what messages call it, "a report".  A file is of this kind when one of the marks fits; the list ends
 * with a mark whose `begins` is NULL. */
struct moe_file_kind { const char *name; struct moe_file_mark marks[5]; };

/* MOE_EXISTS when the file at `path` is neither empty nor of this kind, or when `path` is a symbolic link to
 * such a file or to nothing.  (A link that passes is itself replaced, not the file that it points to.)
 * MOE_OK when nothing exists there, and for directories and devices, which moe_newfile_check refuses. */
enum moe_code moe_file_kind_check(const char *path, const struct moe_file_kind *kind, struct moe_err *err);

#endif
