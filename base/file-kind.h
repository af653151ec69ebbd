/* SPDX-License-Identifier: Apache-2.0 */
/* base/file-kind.h - whether a file that stands somewhere is one of those that a writer may replace, told by
 * what is in it. */
#ifndef MOE_BASE_FILE_KIND_H
#define MOE_BASE_FILE_KIND_H

#include "base/err.h"

#include <stddef.h>

/* What tells that a tool wrote a file: its bytes from `at` on begin so, and both texts of `holds` (NULL:
 * none) are among its first 64 KiB.  A gzipped file is told by what is packed in it. */
struct moe_file_mark { size_t at; const char *begins, *holds[2]; };
/* "a report"; any of the marks will do, the last is followed by one whose `begins` is NULL. */
struct moe_file_kind { const char *name; struct moe_file_mark marks[5]; };

/* MOE_EXISTS when a file stands at `path` that is neither empty nor of this kind, or a symbolic link to one
 * or to nothing.  (A link that passes is replaced itself, never what it leads to.) */
enum moe_code moe_file_kind_check(const char *path, const struct moe_file_kind *kind, struct moe_err *err);

#endif
