/* SPDX-License-Identifier: Apache-2.0 */
#include "base/newdir.h"

#include "base/overlap.h"
#include "base/cancel.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 5 };

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

/* ---- names ---- */

enum moe_code moe_newdir_name(struct moe_newdir *d, const char *out, struct moe_err *err)
{
    size_t n = strlen(out);
    *d = (struct moe_newdir){ .lock = -1 };
    while (n > 1 && out[n - 1] == '/') n--;
    if (snprintf(d->path, sizeof d->path, "%.*s.partial", (int)n, out) >= (int)sizeof d->path)
        return moe_fail_at(err, MOE_IO, out, NULL, "the path is too long");
    snprintf(d->final, sizeof d->final, "%.*s", (int)n, out);
    const char *slash = strrchr(d->final, '/');
    if (moe_plain_name(slash ? slash + 1 : d->final)) return MOE_OK;
    return moe_fail_at(err, MOE_USAGE, out, NULL,
                       "is no name for a new directory (choose another one with -o)");
}

enum moe_code moe_newdir_check_overlap(const char *out, const char *input, const char *which,
                                       struct moe_err *err)
{
    struct moe_newdir d;
    MOE_TRY(moe_newdir_name(&d, out, err));
    MOE_TRY(moe_check_overlap(d.final, d.final, input, which, err));
    return moe_check_overlap(d.path, d.path, input, which, err);
}

/* ---- the lock ---- */

void moe_newdir_mark(const struct moe_newdir *d)
{
    struct stat st;
    if (!fstat(d->lock, &st) && !(st.st_mode & S_ISVTX))
        (void)!fchmod(d->lock, (st.st_mode & 07777) | S_ISVTX);
}

enum moe_code moe_newdir_is_marked(const char *dir, bool *marked, struct moe_err *err)
{
    struct stat st;
    if (lstat(dir, &st)) return moe_fail_errno(err, errno, dir, "cannot stat");
    *marked = st.st_mode & S_ISVTX;
    return MOE_OK;
}

static void unmark(int fd)
{
    struct stat st;
    if (!fstat(fd, &st)) (void)!fchmod(fd, st.st_mode & 07777 & ~(mode_t)S_ISVTX);
}

void moe_newdir_unlock(struct moe_newdir *d)
{
    moe_unlock(d->lock);
    d->lock = -1;
}

static enum moe_code busy(const struct moe_newdir *d, struct moe_err *err)
{
    return moe_fail_at(err, MOE_EXISTS, d->path, NULL,
                       "another process is writing it (wait for it, or stop it)");
}

/* Try once to create and lock the directory; *again is set when it was renamed or removed meanwhile.  When
 * this process created it and finds it locked, another process was faster and owns it now; where it cannot be
 * opened or locked at all, nobody owns it. */
static enum moe_code try_lock(struct moe_newdir *d, bool *again, struct moe_err *err)
{
    enum moe_code code = moe_mkdir_new(d->path, 0777 | S_ISVTX, &d->created, err);
    *again = false;
    if (code == MOE_OK) {
        code = moe_lock_dir(d->path, &d->lock, err);
        *again = code == MOE_NOT_FOUND || (code == MOE_OK && !moe_fd_is_path(d->lock, d->path));
    }
    if (*again) moe_newdir_unlock(d);
    else if (code != MOE_OK && code != MOE_EXISTS && d->created) rmdir(d->path);
    return *again ? MOE_OK : code;
}

enum moe_code moe_newdir_lock(struct moe_newdir *d, struct moe_err *err)
{
    bool again = true;
    MOE_TRY(moe_no_link(d->final, "directory", err));
    for (int i = 0; again && i < TRIES; i++) MOE_TRY(try_lock(d, &again, err));
    return again ? busy(d, err) : MOE_OK;
}

/* ---- a writer that starts over after an interruption ---- */

/* Write the mark file; record is NULL for a directory that is being removed. */
static enum moe_code write_mark(const char *dir, const struct moe_record *record, struct moe_err *err)
{
    char mark[PATH_MAX], text[MOE_RECORD_BYTES];
    MOE_TRY(moe_path_join(mark, sizeof mark, dir, MOE_NEWDIR_MARK, err));
    return moe_write_file(mark, text, record ? moe_record_text(record, text) : 0, err);
}

/* Read the record from the mark file or, failing that, from the extended attribute of the directory, which is
 * open as fd. */
static enum moe_code read_record(const char *dir, int fd, struct moe_record *was, bool *has,
                                 struct moe_err *err)
{
    char mark[PATH_MAX], *text;
    size_t n;
    enum moe_exists there;
    *has = false;
    MOE_TRY(moe_path_join(mark, sizeof mark, dir, MOE_NEWDIR_MARK, err));
    MOE_TRY(moe_look(mark, &there, err));
    if (there == MOE_FILE) {
        enum moe_code code = moe_read_file(mark, MOE_RECORD_BYTES, &text, &n, err);
        if (code != MOE_OK && code != MOE_CORRUPT) return code; /* MOE_CORRUPT: too large to be ours */
        *has = code == MOE_OK && moe_record_parse(text, n, was);
        if (code == MOE_OK) free(text);
    }
    if (!*has) *has = moe_work_get(fd, was);
    return MOE_OK;
}

/* Remove everything in the directory but the mark file. */
static enum moe_code empty(const char *dir, const struct moe_names *names, struct moe_err *err)
{
    for (size_t i = 0; i < names->n; i++) {
        char path[PATH_MAX];
        if (!strcmp(names->v[i], MOE_NEWDIR_MARK)) continue;
        MOE_TRY(moe_path_join(path, sizeof path, dir, names->v[i], err));
        MOE_TRY(moe_remove_tree(path, err));
    }
    return MOE_OK;
}

/* Remove a directory in such a way that the remainder is recognised after a kill: the mark file is written
 * first and removed last. */
static enum moe_code discard(const char *dir, struct moe_err *err)
{
    struct moe_names names;
    MOE_TRY(write_mark(dir, NULL, err));
    MOE_TRY(moe_list_dir(dir, &names, err));
    enum moe_code code = empty(dir, &names, err);
    moe_names_release(&names);
    return code == MOE_OK ? moe_remove_tree(dir, err) : code;
}

static bool has_mark_file(const struct moe_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        if (!strcmp(names->v[i], MOE_NEWDIR_MARK) || !strcmp(names->v[i], MOE_NEWDIR_MARK ".tmp"))
            return true;
    return false;
}

/* The directory existed before this run: check that an earlier run left it, and whether it is complete. */
static enum moe_code whose(const struct moe_newdir *d, const struct moe_names *names,
                           const struct moe_newdir_kind *kind, bool *whole, struct moe_err *err)
{
    bool marked = false, ours = false;
    *whole = !has_mark_file(names);
    if (!*whole) return kind->unfinished(d->path, kind->with, err);
    MOE_TRY(moe_newdir_is_marked(d->path, &marked, err));
    if (marked) {
        enum moe_code code = kind->look(d->path, kind->with, err);
        if (code != MOE_OK && code != MOE_EXISTS) return code;
        ours = code == MOE_OK;
    }
    if (ours) return MOE_OK;
    return moe_fail_at(err, MOE_EXISTS, d->path, NULL,
                       "is in the way and not from an export or a stage (move it away, or choose "
                       "another name with -o)");
}

/* Keep or empty an earlier run's work as `policy` says; anything else stays. */
static enum moe_code take_over(struct moe_newdir *d, const struct moe_names *names,
                               const struct moe_newdir_kind *kind, enum moe_leftover_policy policy,
                               struct moe_err *err)
{
    struct moe_record was;
    bool whole, has;
    MOE_TRY(whose(d, names, kind, &whole, err));
    MOE_TRY(read_record(d->path, d->lock, &was, &has, err));
    bool same = has && !strcmp(was.work, kind->work);
    bool go_on = policy == MOE_LEFTOVER_RESTART || policy == MOE_LEFTOVER_CONTINUE;
    if (same && go_on) d->record = was;
    if (whole && policy != MOE_LEFTOVER_DISCARD) {
        d->whole = d->keep = policy != MOE_LEFTOVER_REFUSE && same;
        return d->whole ? MOE_OK : moe_fail_leftover_finished(d->path, d->final, err);
    }
    if (policy == MOE_LEFTOVER_REFUSE)
        return moe_fail_at(err, MOE_EXISTS, d->path, NULL,
                           "holds unfinished work (go on with --resume, start over with --force)");
    if (go_on && !same) return moe_fail_leftover_other_work(d->path, err);
    moe_newdir_mark(d);
    if (policy == MOE_LEFTOVER_CONTINUE) return MOE_OK;
    MOE_TRY(write_mark(d->path, &d->record, err));
    return empty(d->path, names, err);
}

/* An empty directory is used as if this process had created it: another process may have created it and not
 * locked it yet, and would create it again if it were removed. */
static enum moe_code begin(struct moe_newdir *d, const struct moe_newdir_kind *kind,
                           enum moe_leftover_policy policy, struct moe_err *err)
{
    struct moe_names names;
    MOE_TRY(moe_newdir_lock(d, err));
    MOE_TRY(moe_list_dir(d->path, &names, err));
    enum moe_code code = MOE_OK;
    d->created = !names.n;
    if (names.n) code = take_over(d, &names, kind, policy, err);
    else {
        moe_newdir_mark(d);
        code = write_mark(d->path, &d->record, err);
    }
    moe_names_release(&names);
    if (code == MOE_OK && !d->whole) moe_work_put(d->lock, &d->record);
    return code;
}

/* Whether what exists under the final name is what the record says may be replaced. */
static enum moe_code speaks_of_final(const struct moe_newdir *d, const struct moe_record *r, bool *speaks,
                                     struct moe_err *err)
{
    char identity[MOE_IDENTITY_BYTES];
    MOE_TRY(moe_file_identity(d->final, identity, err));
    *speaks = *identity && !strcmp(r->replaces, identity);
    return MOE_OK;
}

enum moe_code moe_newdir_may_replace(const struct moe_newdir *d, bool *may, struct moe_err *err)
{
    return speaks_of_final(d, &d->record, may, err);
}

bool moe_newdir_resumes(const struct moe_newdir *d)
{
    struct moe_record was;
    struct moe_err ignored;
    bool has = false, speaks = false;
    int fd = moe_open(d->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (fd < 0) return false;
    bool read = read_record(d->path, fd, &was, &has, &ignored) == MOE_OK && has;
    close(fd);
    return read && speaks_of_final(d, &was, &speaks, &ignored) == MOE_OK && speaks;
}

enum moe_code moe_newdir_begin(struct moe_newdir *d, const char *out, const struct moe_newdir_kind *kind,
                               enum moe_leftover_policy policy, struct moe_err *err)
{
    struct moe_err ignored;
    MOE_TRY(moe_newdir_name(d, out, err));
    MOE_CHECK(kind->work && kind->unfinished);
    snprintf(d->record.work, sizeof d->record.work, "%s", kind->work);
    if (policy == MOE_LEFTOVER_DISCARD) MOE_TRY(moe_file_identity(d->final, d->record.replaces, err));
    enum moe_code code = begin(d, kind, policy, err);
    if (code == MOE_OK) return MOE_OK;
    if (d->created && d->lock >= 0) moe_remove_tree(d->path, &ignored);
    moe_newdir_unlock(d);
    return code;
}

/* The part of moe_newdir_drop under the lock. */
static enum moe_code drop(const struct moe_newdir *d, const struct moe_newdir_kind *kind, struct moe_err *err)
{
    struct moe_names names;
    struct moe_record was;
    bool has;
    MOE_TRY(moe_list_dir(d->path, &names, err));
    bool begun = has_mark_file(&names);
    moe_names_release(&names);
    if (!begun || !moe_fd_is_path(d->lock, d->path)) return MOE_OK;
    enum moe_code code = kind->unfinished(d->path, kind->with, err);
    if (code != MOE_OK) return code == MOE_EXISTS ? MOE_OK : code;
    MOE_TRY(read_record(d->path, d->lock, &was, &has, err));
    return has && strcmp(was.work, kind->work) ? MOE_OK : discard(d->path, err);
}

enum moe_code moe_newdir_drop(struct moe_newdir *d, const struct moe_newdir_kind *kind, struct moe_err *err)
{
    enum moe_exists there;
    MOE_TRY(moe_look(d->path, &there, err));
    if (there != MOE_DIR) return MOE_OK;
    enum moe_code code = moe_lock_dir(d->path, &d->lock, err);
    if (code == MOE_OK) code = drop(d, kind, err);
    moe_newdir_unlock(d);
    /* another process has it, or removed it */
    return code == MOE_EXISTS || code == MOE_NOT_FOUND ? MOE_OK : code;
}

void moe_newdir_end(struct moe_newdir *d)
{
    struct moe_err ignored;
    if (d->lock >= 0 && !d->keep && moe_fd_is_path(d->lock, d->path))
        moe_remove_tree(d->path, &ignored); /* an interrupted run leaves nothing that could be resumed */
    moe_newdir_unlock(d);
}

/* ---- publishing ---- */

static enum moe_code appeared(struct moe_newdir *d, struct moe_err *err)
{
    d->keep = true;
    return moe_fail_at(err, MOE_EXISTS, d->final, NULL,
                       "appeared while this was written, and is left as it is (what was written is "
                       "whole in '%s': rename that when the name is free)", d->path);
}

static enum moe_code drop_mark_file(const struct moe_newdir *d, struct moe_err *err)
{
    char mark[PATH_MAX];
    MOE_TRY(moe_path_join(mark, sizeof mark, d->path, MOE_NEWDIR_MARK, err));
    return moe_remove_tree(mark, err);
}

/* Exchange the two directories, then check that the one that came out is the one that `kind` accepted. */
static enum moe_code exchange(struct moe_newdir *d, const struct moe_newdir_kind *kind, struct moe_err *err)
{
    struct stat was, is;
    if (lstat(d->final, &was)) return moe_fail_errno(err, errno, d->final, "cannot stat");
    enum moe_code code = kind->look(d->final, kind->with, err);
    if (code != MOE_OK) return code == MOE_EXISTS ? appeared(d, err) : code;
    MOE_TRY(moe_exchange(d->path, d->final, d->lock, err));
    d->keep = true;
    if (lstat(d->path, &is)) return moe_fail_errno(err, errno, d->path, "cannot stat");
    if (same_file(&was, &is)) return MOE_OK;
    MOE_TRY(moe_exchange(d->path, d->final, d->lock, err));
    return appeared(d, err);
}

/* Replace and remove what exists under the final name; a symbolic link that has appeared there is kept. */
static enum moe_code replace(struct moe_newdir *d, const struct moe_newdir_kind *kind, struct moe_err *err)
{
    struct moe_newdir old = { .lock = -1 };
    struct stat st;
    if (!lstat(d->final, &st) && S_ISLNK(st.st_mode)) return appeared(d, err);
    MOE_TRY(moe_lock_dir(d->final, &old.lock, err));
    moe_newdir_mark(&old); /* after the exchange it is being removed: a kill then leaves it marked */
    enum moe_code code = exchange(d, kind, err);
    if (moe_fd_is_path(d->lock, d->final)) { /* also true when the exchange failed only in its sync */
        unmark(d->lock);
        moe_work_drop(d->lock);
    } else {
        unmark(old.lock);
    }
    if (code == MOE_OK) code = discard(d->path, err);
    moe_newdir_unlock(&old);
    return code;
}

enum moe_code moe_newdir_whole(struct moe_newdir *d, struct moe_err *err)
{
    MOE_TRY(moe_fd_is_path_check(d->lock, d->path, err));
    moe_newdir_mark(d);
    MOE_TRY(drop_mark_file(d, err));
    if (moe_fsync(d->lock) && errno != EINVAL && errno != EROFS)
        return moe_fail_errno(err, errno, d->path, "cannot sync");
    return MOE_OK;
}

enum moe_code moe_newdir_publish(struct moe_newdir *d, const struct moe_newdir_kind *kind,
                                 struct moe_err *err)
{
    MOE_TRY(moe_newdir_whole(d, err));
    if (!moe_rename_new(d->path, d->final)) {
        d->keep = true;
        unmark(d->lock);
        moe_work_drop(d->lock);
        return moe_fsync_parent(d->final, d->lock, err);
    }
    if (errno != EEXIST) return moe_fail_errno(err, errno, d->final, "cannot rename into place");
    return kind ? replace(d, kind, err) : appeared(d, err);
}

enum moe_code moe_newdir_interrupted(enum moe_code code, const char *out, const char *shown,
                                     struct moe_err *err)
{
    struct moe_newdir d;
    struct moe_err ignored;
    enum moe_exists there = MOE_ABSENT;
    if (moe_newdir_name(&d, out, &ignored) != MOE_OK || moe_look(d.path, &there, &ignored) != MOE_OK ||
        there != MOE_DIR)
        return moe_cancel_left(code, err, "nothing was finished yet by this run");
    return moe_cancel_left(code, err,
                           "nothing was finished by this run, what an earlier one left is kept in '%s' "
                           "(go on with the same command and --resume)",
                           shown ? shown : d.path);
}
