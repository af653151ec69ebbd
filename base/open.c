/* SPDX-License-Identifier: Apache-2.0 */
/* Creating files, reserving space for them, syncing them; system calls are restarted after a signal. */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static int open_again(const char *path, int flags, mode_t mode)
{
    int fd;
    do fd = open(path, flags | O_CLOEXEC, mode); while (fd < 0 && errno == EINTR);
    return fd;
}

int moe_open(const char *path, int flags) { return open_again(path, flags, 0666); }

int moe_open_nameless(const char *dir, unsigned mode)
{
    int fd = open_again(dir, O_TMPFILE | O_RDWR, mode);
    if (fd < 0 && (errno == EISDIR || errno == EINVAL || errno == ENOSYS)) errno = EOPNOTSUPP;
    return fd;
}

int moe_fsync(int fd)
{
    int r;
    do r = fsync(fd); while (r && errno == EINTR);
    return r;
}

int moe_ftruncate(int fd, uint64_t bytes)
{
    int r;
    do r = ftruncate(fd, (off_t)bytes); while (r && errno == EINTR);
    return r;
}

uint64_t moe_hole(int fd, uint64_t offset, uint64_t bytes)
{
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    if (data < 0) return errno == ENXIO ? bytes : 0;
    return (uint64_t)data - offset < bytes ? (uint64_t)data - offset : bytes;
}

/* Not posix_fallocate: where the file system cannot reserve space, glibc's emulation writes every block. */
int moe_reserve(int fd, uint64_t bytes)
{
    int r;
    do r = fallocate(fd, 0, 0, (off_t)bytes); while (r && errno == EINTR);
    return r && (errno == EOPNOTSUPP || errno == ENOSYS) ? moe_ftruncate(fd, bytes) : r;
}

/* A nameless file; where the file system has none, a named one that is unlinked at once. */
static enum moe_code open_nameless(const char *dir, char *path, size_t cap, int *fd, struct moe_err *err)
{
    if (snprintf(path, cap, "%s", dir) >= (int)cap)
        return moe_fail_at(err, MOE_IO, dir, NULL, "the path is too long");
    *fd = moe_open_nameless(dir, 0600);
    if (*fd >= 0) return MOE_OK;
    if (errno != EOPNOTSUPP) return moe_fail_errno(err, errno, dir, "cannot make a file in --scratch");
    if (snprintf(path, cap, "%s/moe-states-XXXXXX", dir) >= (int)cap)
        return moe_fail_at(err, MOE_IO, dir, NULL, "the path is too long");
    *fd = mkostemp(path, O_CLOEXEC);
    if (*fd < 0) return moe_fail_errno(err, errno, dir, "cannot make a file in --scratch");
    return unlink(path) ? moe_fail_errno(err, errno, path, "cannot remove the name of a scratch file")
                        : MOE_OK;
}

enum moe_code moe_scratch_open(const char *dir, uint64_t bytes, char *path, size_t cap, int *fd,
                               struct moe_err *err)
{
    *fd = -1;
    MOE_TRY(moe_need_space(dir, bytes, dir, err));
    enum moe_code code = open_nameless(dir, path, cap, fd, err);
    if (code == MOE_OK) code = moe_scratch_clear(*fd, path, bytes, err);
    if (code == MOE_OK || *fd < 0) return code;
    close(*fd);
    *fd = -1;
    return code;
}

enum moe_code moe_scratch_clear(int fd, const char *path, uint64_t bytes, struct moe_err *err)
{
    if (moe_ftruncate(fd, 0)) return moe_fail_errno(err, errno, path, "cannot clear a scratch file");
    return moe_reserve(fd, bytes) ? moe_fail_errno(err, errno, path, "cannot keep room in --scratch")
                                  : MOE_OK;
}

enum moe_code moe_want_files(uint64_t least, uint64_t want, struct moe_err *err)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur >= want) return MOE_OK;
    l.rlim_cur = l.rlim_max < want ? l.rlim_max : want;
    if (l.rlim_cur < least)
        return moe_fail(err, MOE_IO,
                        "needs %" PRIu64 " open files, the limit is %" PRIu64 " (raise ulimit -Hn)", least,
                        (uint64_t)l.rlim_max);
    return setrlimit(RLIMIT_NOFILE, &l) ? moe_fail(err, MOE_IO, "cannot raise the limit of open files")
                                        : MOE_OK;
}
