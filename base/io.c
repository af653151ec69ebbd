/* SPDX-License-Identifier: Apache-2.0 */
#include "base/io.h"

#include "base/grow.h"
#include "base/show.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { STEP_MAX = 1 << 30 }; /* one read or write call never asks for more */

enum moe_code moe_open_input(const char *path, int *fd, uint64_t *size, bool *piped, struct moe_err *err)
{
    struct stat st;
    *fd = moe_open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK); /* opening a FIFO must not wait */
    if (*fd < 0) return moe_fail_errno(err, errno, path, "cannot open");
    if (fstat(*fd, &st)) {
        int e = errno;
        close(*fd);
        return moe_fail_errno(err, e, path, "cannot stat");
    }
    bool pipe = S_ISFIFO(st.st_mode);
    if (!S_ISREG(st.st_mode) && !(pipe && piped)) {
        close(*fd);
        return moe_fail_at(err, MOE_IO, path, NULL, "%s%s", S_ISDIR(st.st_mode) ? "is a directory, " : "",
                           piped ? "neither a file nor a pipe" : "not a regular file");
    }
    if (piped) *piped = pipe;
    *size = pipe ? UINT64_MAX : (uint64_t)st.st_size;
    return MOE_OK;
}

enum moe_code moe_open_read(const char *path, int *fd, uint64_t *size, struct moe_err *err)
{
    return moe_open_input(path, fd, size, NULL, err);
}

enum moe_code moe_written_at(int fd, const char *path, int64_t *when, uint64_t *size, struct moe_err *err)
{
    struct stat st;
    if (fstat(fd, &st)) return moe_fail_errno(err, errno, path, "cannot stat");
    *when = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    *size = (uint64_t)st.st_size;
    return MOE_OK;
}

enum moe_code moe_pread(int fd, const char *path, void *buf, size_t bytes, uint64_t offset,
                        struct moe_err *err)
{
    unsigned char *p = buf;
    while (bytes) {
        ssize_t n = pread(fd, p, bytes < STEP_MAX ? bytes : STEP_MAX, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return moe_fail_errno(err, errno, path, "cannot read");
        if (n == 0)
            return moe_fail_at(err, MOE_CORRUPT, path, NULL, "%zu byte%s short (the file is truncated)",
                               bytes, moe_plural((int64_t)bytes));
        p += n;
        bytes -= (size_t)n;
        offset += (uint64_t)n;
    }
    return MOE_OK;
}

enum moe_code moe_pwrite(int fd, const char *path, const void *buf, size_t bytes, uint64_t offset,
                         struct moe_err *err)
{
    const unsigned char *p = buf;
    while (bytes) {
        ssize_t n = pwrite(fd, p, bytes < STEP_MAX ? bytes : STEP_MAX, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return moe_fail_errno(err, errno, path, "cannot write");
        p += n;
        bytes -= (size_t)n;
        offset += (uint64_t)n;
    }
    return MOE_OK;
}

enum moe_code moe_read_file(const char *path, size_t limit, char **data, size_t *size, struct moe_err *err)
{
    int fd;
    uint64_t n;
    *data = NULL;
    MOE_TRY(moe_open_read(path, &fd, &n, err));
    enum moe_code code = MOE_OK;
    char *p = NULL;
    if (n > limit)
        code = moe_fail_at(err, MOE_CORRUPT, path, NULL, "%llu bytes, more than the %zu allowed here",
                           (unsigned long long)n, limit);
    else if (!(p = malloc((size_t)n + 1)))
        code = moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for %llu bytes", (unsigned long long)n);
    else
        code = moe_pread(fd, path, p, (size_t)n, 0, err);
    close(fd);
    if (code != MOE_OK) {
        free(p);
        return code;
    }
    p[n] = 0;
    *data = p;
    *size = (size_t)n;
    return MOE_OK;
}

void moe_path_parent(const char *path, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s", path);
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') out[--n] = 0;
    char *slash = strrchr(out, '/');
    if (!slash) snprintf(out, PATH_MAX, ".");
    else if (slash == out) out[1] = 0;
    else *slash = 0;
}

enum moe_code moe_fsync_path(const char *path, struct moe_err *err)
{
    int fd = moe_open(path, O_RDONLY);
    if (fd < 0) return moe_fail_errno(err, errno, path, "cannot open");
    int r = moe_fsync(fd), e = errno;
    close(fd);
    if (r && e != EINVAL && e != EROFS) return moe_fail_errno(err, e, path, "cannot sync");
    return MOE_OK;
}

enum moe_code moe_fsync_parent(const char *path, int fd, struct moe_err *err)
{
    char dir[PATH_MAX];
    moe_path_parent(path, dir);
    int parent = moe_open(dir, O_RDONLY), own = -1;
    if (parent < 0 && fd < 0) fd = own = moe_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (parent < 0 && fd < 0) return moe_fail_errno(err, errno, dir, "cannot open");
    int r = parent < 0 ? syncfs(fd) : moe_fsync(parent), e = errno;
    if (parent >= 0) close(parent);
    if (own >= 0) close(own);
    if (r && e != EINVAL && e != EROFS) return moe_fail_errno(err, e, dir, "cannot sync");
    return MOE_OK;
}

enum moe_code moe_not_lfs(const void *head, size_t n, const char *path, struct moe_err *err)
{
    static const char pointer[] = "version https://git-lfs";
    if (n < sizeof pointer - 1 || memcmp(head, pointer, sizeof pointer - 1)) return MOE_OK;
    return moe_fail_at(
        err, MOE_CORRUPT, path, NULL,
        "is a Git LFS pointer, not the file itself (fetch it: git lfs pull, or download the model again)");
}

enum moe_code moe_mkdir_new(const char *path, unsigned mode, bool *created, struct moe_err *err)
{
    *created = !mkdir(path, mode);
    if (*created) return moe_fsync_parent(path, -1, err);
    if (errno == EEXIST) return MOE_OK;
    if (errno == ENOENT)
        return moe_fail_at(err, MOE_NOT_FOUND, path, NULL,
                           "cannot create the directory: the one that it is to be in does not exist");
    return moe_fail_errno(err, errno, path, "cannot create the directory");
}

enum moe_code moe_mkdir(const char *path, struct moe_err *err)
{
    struct stat st;
    bool created;
    MOE_TRY(moe_mkdir_new(path, 0777, &created, err));
    if (created) return MOE_OK;
    if (lstat(path, &st)) return moe_fail_errno(err, errno, path, "cannot stat");
    return S_ISDIR(st.st_mode) ? MOE_OK : moe_fail_errno(err, EEXIST, path, "cannot create the directory");
}

static enum moe_code remove_at(int at, const char *name, const char *shown, struct moe_err *err)
{
    if (!unlinkat(at, name, 0) || errno == ENOENT) return MOE_OK;
    if (errno != EISDIR && errno != EPERM) return moe_fail_errno(err, errno, shown, "cannot remove");
    int fd;
    do fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        int e = errno;
        if (fd >= 0) close(fd);
        return moe_fail_errno(err, e, shown, "cannot remove");
    }
    enum moe_code code = MOE_OK;
    for (struct dirent *e; code == MOE_OK && (errno = 0, e = readdir(d)); )
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) code = remove_at(fd, e->d_name, shown, err);
    if (code == MOE_OK && errno) code = moe_fail_errno(err, errno, shown, "cannot list");
    closedir(d);
    if (code == MOE_OK && unlinkat(at, name, AT_REMOVEDIR))
        code = moe_fail_errno(err, errno, shown, "cannot remove");
    return code;
}

enum moe_code moe_remove_tree(const char *path, struct moe_err *err)
{
    return remove_at(AT_FDCWD, path, path, err);
}

enum moe_code moe_rename(const char *from, const char *to, struct moe_err *err)
{
    if (rename(from, to)) return moe_fail_errno(err, errno, to, "cannot rename into place");
    return moe_fsync_parent(to, -1, err);
}

/* Where the file system has no rename without replacement, a file is linked instead, and a directory can at
 * most replace an empty one. */
int moe_rename_new(const char *from, const char *to)
{
    struct stat st;
    if (!renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE)) return 0;
    if (errno == ENOTEMPTY) errno = EEXIST;
    if ((errno != EINVAL && errno != ENOSYS) || lstat(from, &st)) return -1;
    if (!S_ISDIR(st.st_mode)) {
        if (!linkat(AT_FDCWD, from, AT_FDCWD, to, 0)) return unlink(from);
        if (errno != EPERM && errno != EOPNOTSUPP) return -1;
        if (!lstat(to, &st)) return errno = EEXIST, -1; /* without hard links a check has to do */
    }
    int r = rename(from, to);
    if (r && (errno == ENOTEMPTY || errno == ENOTDIR)) errno = EEXIST;
    return r;
}

enum moe_code moe_exchange(const char *a, const char *b, int fd, struct moe_err *err)
{
    if (!renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE)) return moe_fsync_parent(b, fd, err);
    if (errno != EINVAL && errno != ENOSYS) return moe_fail_errno(err, errno, b, "cannot exchange");
    /* A file system without exchange (NFS): the old one is renamed to b.old, then a to b.  A crash between
     * the two renames leaves it there, complete. */
    char aside[PATH_MAX];
    if (snprintf(aside, sizeof aside, "%s.old", b) >= (int)sizeof aside)
        return moe_fail_at(err, MOE_IO, b, NULL, "the path is too long");
    if (moe_exists(aside) != MOE_ABSENT)
        return moe_fail_at(
            err, MOE_EXISTS, aside, NULL,
            "is in the way (an earlier run ended here: it is what was replaced then; remove it)");
    if (moe_rename_new(b, aside)) return moe_fail_errno(err, errno, aside, "cannot rename into place");
    MOE_TRY(moe_rename(a, b, err));
    return moe_rename(aside, a, err);
}

enum moe_code moe_lock_dir(const char *path, int *fd, struct moe_err *err)
{
    *fd = moe_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    int r, e = errno;
    if (*fd < 0 && (e == ELOOP || e == ENOTDIR) && moe_exists(path) != MOE_ABSENT)
        return moe_fail_at(err, MOE_EXISTS, path, NULL,
                           "is in the way: it is no directory (choose another name with -o)");
    if (*fd < 0) return moe_fail_errno(err, e, path, "cannot open");
    do r = flock(*fd, LOCK_EX | LOCK_NB); while (r && errno == EINTR);
    if (!r) return MOE_OK;
    e = errno;
    close(*fd);
    *fd = -1;
    if (e == EWOULDBLOCK)
        return moe_fail_at(err, MOE_EXISTS, path, NULL,
                           "another process is writing it (wait for it, or stop it)");
    return moe_fail_errno(err, e, path, "cannot lock");
}

void moe_unlock(int fd)
{
    if (fd >= 0) close(fd);
}

enum moe_code moe_fd_is_path_find(int fd, const char *path, bool *is, struct moe_err *err)
{
    struct stat a, b;
    if (fstat(fd, &a)) return moe_fail_errno(err, errno, path, "cannot stat");
    bool there = !lstat(path, &b);
    if (!there && errno != ENOENT) return moe_fail_errno(err, errno, path, "cannot stat");
    *is = there && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
    return MOE_OK;
}

enum moe_code moe_fd_is_path_check(int fd, const char *path, struct moe_err *err)
{
    bool is;
    MOE_TRY(moe_fd_is_path_find(fd, path, &is, err));
    return is ? MOE_OK
              : moe_fail_at(err, MOE_EXISTS, path, NULL,
                            "was taken away while this was written, and what stands there now is not this "
                            "run's (run it again)");
}

bool moe_fd_is_path(int fd, const char *path)
{
    struct moe_err ignored;
    bool is;
    return moe_fd_is_path_find(fd, path, &is, &ignored) == MOE_OK && is;
}

enum moe_code moe_look(const char *path, enum moe_exists *what, struct moe_err *err)
{
    struct stat st;
    *what = MOE_ABSENT;
    if (!stat(path, &st)) *what = S_ISREG(st.st_mode) ? MOE_FILE : S_ISDIR(st.st_mode) ? MOE_DIR : MOE_OTHER;
    else if (errno != ENOENT && errno != ENOTDIR) return moe_fail_errno(err, errno, path, "cannot stat");
    else if (!lstat(path, &st)) *what = MOE_OTHER;
    else if (errno != ENOENT && errno != ENOTDIR) return moe_fail_errno(err, errno, path, "cannot stat");
    return MOE_OK;
}

enum moe_exists moe_exists(const char *path)
{
    struct moe_err e;
    enum moe_exists what;
    return moe_look(path, &what, &e) == MOE_OK ? what : MOE_OTHER;
}

enum moe_code moe_no_link(const char *path, const char *what, struct moe_err *err)
{
    char to[PATH_MAX];
    ssize_t n = readlink(path, to, sizeof to - 1);
    if (n < 0) return MOE_OK; /* no link, or nothing at all */
    to[n] = 0;
    return moe_fail_at(err, MOE_EXISTS, path, NULL,
                       "is a symbolic link to '%.300s', and a new %s would lie beside the link "
                       "(name what it points to, or remove the link)", to, what);
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bool add_name(struct moe_names *l, const char *name)
{
    if (!MOE_GROW(l->v, l->cap, l->n + 1) || !(l->v[l->n] = strdup(name))) return false;
    l->n++;
    return true;
}

enum moe_code moe_list_dir(const char *path, struct moe_names *l, struct moe_err *err)
{
    enum moe_code code = MOE_OK;
    *l = (struct moe_names){ 0 };
    DIR *d = opendir(path);
    if (!d) return moe_fail_errno(err, errno, path, "cannot list");
    for (struct dirent *e; code == MOE_OK && (errno = 0, e = readdir(d)); )
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && !add_name(l, e->d_name))
            code = moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to list it");
    if (code == MOE_OK && errno) code = moe_fail_errno(err, errno, path, "cannot list");
    closedir(d);
    if (code != MOE_OK) moe_names_release(l);
    else if (l->n) qsort(l->v, l->n, sizeof *l->v, by_bytes);
    return code;
}

void moe_names_release(struct moe_names *l)
{
    for (size_t i = 0; i < l->n; i++) free(l->v[i]);
    free(l->v);
    *l = (struct moe_names){ 0 };
}

enum moe_code moe_free_space(const char *path, uint64_t *bytes, struct moe_err *err)
{
    char dir[PATH_MAX], up[PATH_MAX];
    struct statvfs v;
    snprintf(dir, sizeof dir, "%s", path);
    while (statvfs(dir, &v)) {
        if (errno == EINTR) continue;
        if (errno != ENOENT && errno != ENOTDIR)
            return moe_fail_errno(err, errno, dir, "cannot ask for free space");
        moe_path_parent(dir, up);
        if (!strcmp(up, dir)) return moe_fail_errno(err, errno, dir, "cannot ask for free space");
        memcpy(dir, up, sizeof dir);
    }
    *bytes = (uint64_t)v.f_bavail * v.f_frsize;
    return MOE_OK;
}

enum moe_code moe_need_space(const char *path, uint64_t bytes, const char *shown, struct moe_err *err)
{
    uint64_t have;
    char a[16], b[16];
    MOE_TRY(moe_free_space(path, &have, err));
    if (have >= bytes) return MOE_OK;
    return moe_fail_at(err, MOE_NOSPACE, shown, NULL, "needs %s, %s free (choose another disk with -o)",
                       moe_human_bytes(bytes, a), moe_human_bytes(have, b));
}

enum moe_code moe_path_join(char *out, size_t cap, const char *dir, const char *name, struct moe_err *err)
{
    size_t n = strlen(dir);
    int len = snprintf(out, cap, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
    if (len < 0 || (size_t)len >= cap) return moe_fail_at(err, MOE_IO, dir, NULL, "the path is too long");
    return MOE_OK;
}

bool moe_ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

bool moe_plain_name(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

static uint64_t status_kib(const char *file, const char *key)
{
    char line[256];
    unsigned long long v = 0;
    FILE *f = fopen(file, "re");
    if (!f) return 0;
    size_t n = strlen(key);
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, n) && sscanf(line + n, " %llu", &v) == 1) break;
    fclose(f);
    return (uint64_t)v * 1024;
}

uint64_t moe_peak_rss(void)
{
    uint64_t n = status_kib("/proc/self/status", "VmHWM:");
    if (n) return n;
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)u.ru_maxrss * 1024;
}

/* The kernel records no peak of anonymous pages alone.  This is the present value; it is read at the end of a
 * run, whose buffers are still allocated then. */
uint64_t moe_peak_anonymous(void) { return status_kib("/proc/self/status", "RssAnon:"); }

uint64_t moe_available_memory(void)
{
    uint64_t n = status_kib("/proc/meminfo", "MemAvailable:");
    return n ? n : (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE); /* no /proc here */
}

static double clock_seconds(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double moe_now(void) { return clock_seconds(CLOCK_MONOTONIC); }
double moe_cpu_seconds(void) { return clock_seconds(CLOCK_PROCESS_CPUTIME_ID); }
