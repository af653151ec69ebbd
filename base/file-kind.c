/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file-kind.h"

#include "base/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { HEAD = 1 << 16 }; /* bytes in which marks are looked for */

static bool holds(const char *head, size_t n, const char *text)
{
    return !text || memmem(head, n, text, strlen(text));
}

static bool is_of_kind(const char *head, size_t n, const struct moe_file_kind *kind)
{
    for (const struct moe_file_mark *m = kind->marks; m->begins; m++) {
        size_t begin = strlen(m->begins);
        if (n >= m->at + begin && !memcmp(head + m->at, m->begins, begin) && holds(head, n, m->holds[0]) &&
            holds(head, n, m->holds[1]))
            return true;
    }
    return false;
}

/* The first bytes of a file, decompressed if it is gzipped; *n is 0 for a damaged gzip file. */
static enum moe_code read_head(const char *path, char *head, size_t *n, struct moe_err *err)
{
    struct moe_stream *s;
    MOE_TRY(moe_stream_open(&s, path, NULL, err));
    enum moe_code code = moe_stream_read(s, head, HEAD, n, err);
    moe_stream_close(&s);
    if (code == MOE_CORRUPT) *n = 0;
    return code == MOE_CORRUPT ? MOE_OK : code;
}

static enum moe_code check_content(const char *path, const struct moe_file_kind *kind, bool *fits,
                                   struct moe_err *err)
{
    size_t n = 0;
    char *head = malloc(HEAD);
    if (!head) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to read it");
    enum moe_code code = read_head(path, head, &n, err);
    *fits = code == MOE_OK && is_of_kind(head, n, kind);
    free(head);
    return code;
}

enum moe_code moe_file_kind_check(const char *path, const struct moe_file_kind *kind, struct moe_err *err)
{
    struct stat st;
    bool there = !lstat(path, &st), dangling = there && S_ISLNK(st.st_mode) && stat(path, &st), ours = false;
    if ((!there || dangling) && errno != ENOENT && errno != ENOTDIR)
        return moe_fail_errno(err, errno, path, "cannot stat");
    if (!there || (!dangling && (!S_ISREG(st.st_mode) || !st.st_size))) return MOE_OK;
    if (!dangling) MOE_TRY(check_content(path, kind, &ours, err));
    if (ours) return MOE_OK;
    return moe_fail_at(err, MOE_EXISTS, path, NULL,
                       "already exists and is not %s (choose another name, or move it away)", kind->name);
}
