/* SPDX-License-Identifier: Apache-2.0 */
#include "base/newfile.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* A temporary name is HEAD, RANDOM hexadecimal digits and TAIL, whatever the file is called, so that it is
 * never longer than allowed. */
#define HEAD ".moe-"
#define TAIL ".tmp"
enum { RANDOM = 16, TRIES = 100 };

/* ---- names ---- */

bool moe_newfile_is_temporary(const char *name)
{
    size_t h = strlen(HEAD);
    return strlen(name) == h + RANDOM + strlen(TAIL) && !strncmp(name, HEAD, h) &&
           strspn(name + h, "0123456789abcdef") == RANDOM && !strcmp(name + h + RANDOM, TAIL);
}

/* A new random name in the directory of `path`; malloc'd, NULL when out of memory. */
static char *temporary_beside(const char *path)
{
    static unsigned long long count;
    unsigned long long r;
    char dir[PATH_MAX], *name;
    moe_path_parent(path, dir);
    if (getrandom(&r, sizeof r, 0) != sizeof r) { /* a guessable name is safe too, because of O_EXCL */
        r = (unsigned long long)getpid() << 40 ^ (unsigned long long)(moe_now() * 1e9);
        r ^= __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
    }
    return asprintf(&name, "%s/" HEAD "%016llx" TAIL, dir, r) < 0 ? NULL : name;
}

static enum moe_code check_name(const char *path, struct moe_err *err)
{
    const char *slash = strrchr(path, '/');
    if (moe_plain_name(slash ? slash + 1 : path)) return MOE_OK;
    return moe_fail_at(err, MOE_USAGE, path, NULL, "is no name for a file");
}

/* Check what exists under the final name: nothing, a file, or a symbolic link to a file or to nothing is
 * accepted. */
static enum moe_code check_there(const char *path, bool replace, struct moe_err *err)
{
    struct stat st;
    char to[PATH_MAX] = "";
    bool there = !lstat(path, &st);
    if (!there && errno != ENOENT && errno != ENOTDIR) return moe_fail_errno(err, errno, path, "cannot stat");
    if (!there) return MOE_OK;
    bool link = S_ISLNK(st.st_mode);
    bool to_proc = link && readlink(path, to, sizeof to - 1) > 0; /* like the link /dev/stdout */
    to_proc = to_proc && !strncmp(to, "/proc/", 6);
    bool dangling = link && stat(path, &st);
    if (dangling && errno != ENOENT && errno != ENOTDIR)
        return moe_fail_errno(err, errno, path, "cannot stat");
    if (!dangling && S_ISDIR(st.st_mode))
        return moe_fail_at(err, MOE_EXISTS, path, NULL, "is a directory (choose another name)");
    if (to_proc || (!dangling && !S_ISREG(st.st_mode)))
        return moe_fail_at(err, MOE_EXISTS, path, NULL, "is there and is not a file (choose another name)");
    if (replace) return MOE_OK;
    if (dangling)
        return moe_fail_at(err, MOE_EXISTS, path, NULL,
                           "is a symbolic link to '%.300s', where nothing is (remove the link, or choose "
                           "another name)", to);
    if (link)
        return moe_fail_at(err, MOE_EXISTS, path, NULL,
                           "is a symbolic link to '%.300s' (--force replaces the link, not what it "
                           "points to)", to);
    return moe_fail_at(err, MOE_EXISTS, path, NULL, "already exists (replace it with --force)");
}

enum moe_code moe_newfile_check(const char *path, bool replace, struct moe_err *err)
{
    char dir[PATH_MAX];
    MOE_TRY(check_name(path, err));
    MOE_TRY(check_there(path, replace, err));
    moe_path_parent(path, dir);
    if (faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS))
        return moe_fail_errno(err, errno, path, "cannot create");
    return MOE_OK;
}

/* ---- opening ---- */

static enum moe_code no_memory(struct moe_newfile *f, const char *path, struct moe_err *err)
{
    moe_newfile_abort(f);
    return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to write it");
}

/* Whether a nameless file can get a name later: linkat needs its entry in /proc. */
static bool can_be_named(int fd)
{
    char proc[40];
    struct stat st;
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
    return !lstat(proc, &st);
}

static int open_unnamed(const char *path)
{
    char dir[PATH_MAX];
    moe_path_parent(path, dir);
    int fd = moe_open_nameless(dir, 0666);
    if (fd < 0 || can_be_named(fd)) return fd;
    close(fd);
    errno = EOPNOTSUPP;
    return -1;
}

/* Create the file under a random name that does not exist yet. */
static int open_random(struct moe_newfile *f)
{
    for (int i = 0; i < TRIES; i++) {
        free(f->tmp);
        if (!(f->tmp = temporary_beside(f->path))) return errno = ENOMEM, -1;
        int fd = moe_open(f->tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

enum moe_code moe_newfile_open(struct moe_newfile *f, const char *path, struct moe_err *err)
{
    *f = (struct moe_newfile){ .fd = -1 };
    MOE_TRY(check_name(path, err));
    MOE_TRY(check_there(path, true, err));
    if (!(f->path = strdup(path))) return no_memory(f, path, err);
    f->fd = open_unnamed(path);
    if (f->fd < 0 && errno == EOPNOTSUPP) f->fd = open_random(f);
    if (f->fd >= 0) return MOE_OK;
    int e = errno;
    free(f->tmp); /* no file was created under this name, so none may be removed */
    f->tmp = NULL;
    moe_newfile_abort(f);
    return moe_fail_errno(err, e, path, "cannot create");
}

/* ---- path.partial ---- */

static enum moe_code busy(const struct moe_newfile *f, struct moe_err *err)
{
    return moe_fail_at(err, MOE_EXISTS, f->tmp, NULL,
                       "another process is writing it (wait for it, or stop it)");
}

static enum moe_code in_the_way(const struct moe_newfile *f, struct moe_err *err)
{
    return moe_fail_at(err, MOE_EXISTS, f->tmp, NULL,
                       "is in the way and not from an export (move it away, or choose another name with -o)");
}

/* Lock path.partial for this process alone.  After the lock is taken, the file may turn out to be renamed or
 * removed: then another writer was faster. */
static enum moe_code lock_partial(const struct moe_newfile *f, struct moe_err *err)
{
    int r;
    do r = flock(f->fd, LOCK_EX | LOCK_NB); while (r && errno == EINTR);
    if (r && errno == EWOULDBLOCK) return busy(f, err);
    if (r) return moe_fail_errno(err, errno, f->tmp, "cannot lock");
    bool held;
    MOE_TRY(moe_fd_is_path_find(f->fd, f->tmp, &held, err));
    return held ? MOE_OK : busy(f, err);
}

/* The sticky bit marks a file that is complete but has not got its name, where the file system keeps such
 * bits. */
static void set_whole(int fd, bool whole)
{
    struct stat st;
    if (fstat(fd, &st)) return;
    mode_t mode = st.st_mode & 07777 & ~(mode_t)S_ISVTX;
    (void)!fchmod(fd, whole ? mode | S_ISVTX : mode);
}

/* Read the record at the beginning of the file or, failing that, from its extended attribute. */
static enum moe_code read_record(const struct moe_newfile *f, const struct stat *st, struct moe_record *was,
                                 bool *has, struct moe_err *err)
{
    char head[MOE_RECORD_BYTES];
    size_t n = (uint64_t)st->st_size < sizeof head ? (size_t)st->st_size : sizeof head;
    if (n) MOE_TRY(moe_pread(f->fd, f->tmp, head, n, 0, err));
    *has = moe_record_parse(head, n, was) || moe_work_get(f->fd, was);
    return MOE_OK;
}

/* Check that an earlier writer of such files left this one; then empty it, or find it complete.  An empty
 * file holds nothing: another process may have created it and lost the lock to this one just now. */
static enum moe_code take_over(struct moe_newfile *f, bool (*ours)(int fd), enum moe_leftover_policy policy,
                               struct moe_err *err)
{
    struct moe_record was;
    struct stat st;
    bool has;
    if (fstat(f->fd, &st)) return moe_fail_errno(err, errno, f->tmp, "cannot stat");
    if (!S_ISREG(st.st_mode)) return in_the_way(f, err);
    MOE_TRY(read_record(f, &st, &was, &has, err));
    if (st.st_size && !has && !ours(f->fd)) return in_the_way(f, err);
    bool same = has && !strcmp(was.work, f->record.work);
    if (same && policy == MOE_LEFTOVER_RESTART) f->record = was;
    if (st.st_mode & S_ISVTX && policy != MOE_LEFTOVER_DISCARD) {
        f->whole = policy != MOE_LEFTOVER_REFUSE && same;
        return f->whole ? MOE_OK : moe_fail_leftover_finished(f->tmp, f->path, err);
    }
    if (policy == MOE_LEFTOVER_REFUSE && st.st_size)
        return moe_fail_at(err, MOE_EXISTS, f->tmp, NULL,
                           "holds unfinished work (start over with --resume or --force)");
    if (policy == MOE_LEFTOVER_RESTART && st.st_size && !same)
        return moe_fail_leftover_other_work(f->tmp, err);
    set_whole(f->fd, false);
    return moe_ftruncate(f->fd, 0) ? moe_fail_errno(err, errno, f->tmp, "cannot empty") : MOE_OK;
}

static enum moe_code put_record(const struct moe_newfile *f, struct moe_err *err)
{
    char text[MOE_RECORD_BYTES];
    moe_work_put(f->fd, &f->record);
    return moe_pwrite(f->fd, f->tmp, text, moe_record_text(&f->record, text), 0, err);
}

bool moe_newfile_resumes(const char *path)
{
    struct moe_newfile f = { .fd = -1 };
    struct moe_record was;
    struct moe_err ignored;
    struct stat st;
    char identity[MOE_IDENTITY_BYTES];
    bool has = false;
    if (moe_file_identity(path, identity, &ignored) != MOE_OK) return false;
    if (asprintf(&f.tmp, "%s.partial", path) < 0) return false;
    f.fd = moe_open(f.tmp, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    bool file = f.fd >= 0 && !fstat(f.fd, &st) && S_ISREG(st.st_mode);
    bool read = file && read_record(&f, &st, &was, &has, &ignored) == MOE_OK && has;
    if (f.fd >= 0) close(f.fd);
    free(f.tmp);
    return read && *identity && !strcmp(was.replaces, identity);
}

static enum moe_code open_or_create(struct moe_newfile *f, bool *created, struct moe_err *err)
{
    for (int i = 0; i < TRIES; i++) { /* try again when it was removed between the two calls */
        f->fd = moe_open(f->tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW);
        *created = f->fd >= 0;
        if (f->fd < 0 && errno == EEXIST)
            f->fd = moe_open(f->tmp, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
        if (f->fd >= 0) return MOE_OK;
        if (errno != ENOENT) break;
    }
    if (errno == ELOOP || errno == EISDIR || errno == ENXIO) return in_the_way(f, err);
    return moe_fail_errno(err, errno, f->tmp, "cannot create");
}

enum moe_code moe_newfile_open_partial(struct moe_newfile *f, const char *path, bool (*ours)(int fd),
                                       enum moe_leftover_policy policy, const char *work, struct moe_err *err)
{
    bool created = false;
    *f = (struct moe_newfile){ .fd = -1, .partial = true };
    snprintf(f->record.work, sizeof f->record.work, "%s", work);
    if (policy == MOE_LEFTOVER_DISCARD) MOE_TRY(moe_file_identity(path, f->record.replaces, err));
    MOE_TRY(check_name(path, err));
    MOE_TRY(check_there(path, true, err));
    if (asprintf(&f->tmp, "%s.partial", path) < 0) f->tmp = NULL;
    if (!f->tmp || !(f->path = strdup(path))) return no_memory(f, path, err);
    enum moe_code code = open_or_create(f, &created, err), locked = MOE_OK;
    if (code == MOE_OK) code = locked = lock_partial(f, err);
    if (code == MOE_OK && !created) code = take_over(f, ours, policy, err);
    if (code == MOE_OK && !f->whole) code = put_record(f, err);
    if (code == MOE_OK) return MOE_OK;
    if (!created || locked != MOE_OK) { /* this process must not remove the file */
        if (f->fd >= 0) close(f->fd);
        f->fd = -1;
    }
    moe_newfile_abort(f);
    return code;
}

/* ---- publishing and closing ---- */

static void release(struct moe_newfile *f)
{
    if (f->fd >= 0) close(f->fd); /* the data is synced or thrown away; closing also releases the lock */
    free(f->path);
    free(f->tmp);
    *f = (struct moe_newfile){ .fd = -1 };
}

void moe_newfile_abort(struct moe_newfile *f)
{
    if (f->fd >= 0 && f->tmp && !f->whole && moe_fd_is_path(f->fd, f->tmp)) unlink(f->tmp);
    release(f);
}

static int link_unnamed(int fd, const char *to)
{
    char from[40];
    snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW);
}

/* Give a nameless file a random name, from which it can be renamed. */
static int name_randomly(struct moe_newfile *f)
{
    for (int i = 0; i < TRIES; i++) {
        char *tmp = temporary_beside(f->path);
        if (!tmp) return errno = ENOMEM, -1;
        if (!link_unnamed(f->fd, tmp)) return f->tmp = tmp, 0;
        int e = errno;
        free(tmp);
        errno = e;
        if (errno != EEXIST) return -1;
    }
    return -1;
}

static enum moe_code appeared(const struct moe_newfile *f, struct moe_err *err)
{
    if (f->partial)
        return moe_fail_at(err, MOE_EXISTS, f->path, NULL,
                           "appeared while this was written, and is left as it is ('%s' is the "
                           "finished file: rename it, or replace what is there with --force)", f->tmp);
    return moe_fail_at(err, MOE_EXISTS, f->path, NULL,
                       "appeared while this was written, and is left as it is (replace it with --force)");
}

static enum moe_code take_name(struct moe_newfile *f, bool replace, struct moe_err *err)
{
    if (!f->tmp) {
        if (!link_unnamed(f->fd, f->path)) return MOE_OK;
        if (errno == EEXIST && !replace) return appeared(f, err);
        if (errno != EEXIST) return moe_fail_errno(err, errno, f->path, "cannot link into place");
        MOE_TRY(check_there(f->path, true, err));
        if (name_randomly(f)) return moe_fail_errno(err, errno, f->path, "cannot link into place");
    } else if (!replace) {
        if (!moe_rename_new(f->tmp, f->path)) return MOE_OK;
        return errno == EEXIST
                   ? appeared(f, err)
                   : moe_fail_errno(err, errno, f->path, "cannot rename into place");
    } else {
        MOE_TRY(check_there(f->path, true, err));
    }
    return rename(f->tmp, f->path) ? moe_fail_errno(err, errno, f->path, "cannot rename into place") : MOE_OK;
}

enum moe_code moe_newfile_sync(struct moe_newfile *f, struct moe_err *err)
{
    if (!f->synced && moe_fsync(f->fd)) return moe_fail_errno(err, errno, f->path, "cannot sync");
    f->synced = true;
    return MOE_OK;
}

/* Whether what exists under the final name is what existed there when the partial file was begun. */
static enum moe_code is_what_was(const struct moe_newfile *f, bool *is, struct moe_err *err)
{
    char identity[MOE_IDENTITY_BYTES];
    MOE_TRY(moe_file_identity(f->path, identity, err));
    *is = *identity && !strcmp(identity, f->record.replaces);
    return MOE_OK;
}

enum moe_code moe_newfile_publish(struct moe_newfile *f, bool replace, struct moe_err *err)
{
    enum moe_code code = moe_newfile_sync(f, err);
    if (code == MOE_OK && f->tmp) code = moe_fd_is_path_check(f->fd, f->tmp, err);
    if (code == MOE_OK && f->partial) set_whole(f->fd, true);
    if (code == MOE_OK && f->partial && replace) code = is_what_was(f, &replace, err);
    if (code == MOE_OK) code = take_name(f, replace, err);
    bool stays = f->whole || (f->partial && code == MOE_EXISTS);
    if (code != MOE_OK && f->tmp && !stays && moe_fd_is_path(f->fd, f->tmp)) unlink(f->tmp);
    if (code == MOE_OK && f->partial) {
        set_whole(f->fd, false);
        moe_work_drop(f->fd);
    }
    if (code == MOE_OK) code = moe_fsync_parent(f->path, f->fd, err);
    release(f);
    return code;
}

enum moe_code moe_newfile_write(const char *path, const void *data, size_t size, bool replace,
                                struct moe_err *err)
{
    struct moe_newfile f;
    MOE_TRY(moe_newfile_open(&f, path, err));
    enum moe_code code = moe_pwrite(f.fd, path, data, size, 0, err);
    if (code == MOE_OK) return moe_newfile_publish(&f, replace, err);
    moe_newfile_abort(&f);
    return code;
}

enum moe_code moe_write_file(const char *path, const void *data, size_t size, struct moe_err *err)
{
    return moe_newfile_write(path, data, size, true, err);
}
