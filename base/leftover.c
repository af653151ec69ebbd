/* SPDX-License-Identifier: Apache-2.0 */
#include "base/leftover.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define WORK "user.moe.work"
#define MADE "user.moe.made"
#define MADE_BY "user.moe.madeby"
#define FIRST_LINE "moe: unfinished work\n"

/* ---- the record ---- */

size_t moe_record_text(const struct moe_record *r, char *text)
{
    return (size_t)snprintf(text, MOE_RECORD_BYTES, FIRST_LINE "%s\n%s\n", r->work, r->replaces);
}

/* Take the line that begins at *at and has less than `most` bytes; false when it is longer or has no end. */
static bool take_line(const char **at, const char *end, char *line, size_t most)
{
    const char *nl = memchr(*at, '\n', (size_t)(end - *at));
    if (!nl || (size_t)(nl - *at) >= most) return false;
    memcpy(line, *at, (size_t)(nl - *at));
    line[nl - *at] = 0;
    *at = nl + 1;
    return true;
}

bool moe_record_parse(const char *text, size_t n, struct moe_record *r)
{
    size_t first = strlen(FIRST_LINE);
    const char *at = text + first, *end = text + n;
    *r = (struct moe_record){ .work = "" };
    return n >= first && !memcmp(text, FIRST_LINE, first) && take_line(&at, end, r->work, sizeof r->work) &&
           take_line(&at, end, r->replaces, sizeof r->replaces);
}

enum moe_code moe_file_identity(const char *path, char identity[MOE_IDENTITY_BYTES], struct moe_err *err)
{
    struct stat st;
    *identity = 0;
    if (lstat(path, &st))
        return errno == ENOENT || errno == ENOTDIR ? MOE_OK : moe_fail_errno(err, errno, path, "cannot stat");
    snprintf(identity, MOE_IDENTITY_BYTES, "%llx:%llx %lld.%09ld", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino, (long long)st.st_mtim.tv_sec, (long)st.st_mtim.tv_nsec);
    return MOE_OK;
}

/* ---- extended attributes ---- */

void moe_work_put(int fd, const struct moe_record *r)
{
    char text[MOE_RECORD_BYTES];
    (void)!fsetxattr(fd, WORK, text, moe_record_text(r, text), 0);
}

void moe_work_drop(int fd)
{
    (void)!fremovexattr(fd, WORK);
}

/* An older version stored only the work, without a newline at its end. */
bool moe_work_get(int fd, struct moe_record *r)
{
    char text[MOE_RECORD_BYTES];
    ssize_t n = fgetxattr(fd, WORK, text, sizeof text);
    if (n <= 0) return false;
    if (!moe_record_parse(text, (size_t)n, r)) {
        *r = (struct moe_record){ .work = "" };
        if ((size_t)n >= sizeof r->work) return false;
        memcpy(r->work, text, (size_t)n);
    }
    return true;
}

static void put_line(int fd, const char *name, const char *line)
{
    (void)!fsetxattr(fd, name, line, strlen(line), 0);
}

static void get_line(int fd, const char *name, char line[MOE_WORK_BYTES])
{
    ssize_t n = fgetxattr(fd, name, line, MOE_WORK_BYTES - 1);
    line[n > 0 ? n : 0] = 0;
}

void moe_made_state_put(int fd, const char *line) { put_line(fd, MADE, line); }
void moe_made_state_get(int fd, char line[MOE_WORK_BYTES]) { get_line(fd, MADE, line); }
void moe_made_command_put(int fd, const char *line) { put_line(fd, MADE_BY, line); }
void moe_made_command_get(int fd, char line[MOE_WORK_BYTES]) { get_line(fd, MADE_BY, line); }

/* ---- messages ---- */

enum moe_code moe_fail_leftover_finished(const char *partial, const char *final, struct moe_err *err)
{
    return moe_fail_at(err, MOE_EXISTS, partial, NULL,
                       "is finished and waits for its name (rename it to '%s', or start over with --force)",
                       final);
}

enum moe_code moe_fail_leftover_other_work(const char *partial, struct moe_err *err)
{
    return moe_fail_at(
        err, MOE_MISMATCH, partial, NULL,
        "it was made from another input, with other options or by another version (start over with --force)");
}
