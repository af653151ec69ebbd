/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a checkpoint, opened on demand and shared by threads. */
#include "model/export/hf-files.h"

#include "base/io.h"
#include "base/newfile.h"
#include "base/show.h"
#include "base/writeback.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OPEN_MOST = 16 }; /* files that stay open while no thread uses them */

struct file {
    char *path;
    int fd, users;                /* fd -1: not open; users: threads that read or write it now */
    struct moe_writeback *behind;
};

struct moe_hf_files {
    const char *dir;
    struct file *v;
    int64_t n, idle;              /* idle: the number of files that are open and have no user */
    int64_t next;                 /* where the search for a file to close goes on */
    pthread_mutex_t lock;         /* for fd, users, idle and next */
};

enum moe_code moe_hf_files_open(struct moe_hf_files **out, const char *dir, int64_t n, struct moe_err *err)
{
    struct moe_hf_files *f = calloc(1, sizeof *f);

    *out = NULL;
    if (f) f->v = calloc((size_t)n, sizeof *f->v);
    if (!f || !f->v) {
        free(f);
        return moe_fail(err, MOE_NOMEM, "no memory for the names of %lld files", (long long)n);
    }
    f->dir = dir;
    f->n = n;
    for (int64_t i = 0; i < n; i++) f->v[i].fd = -1;
    pthread_mutex_init(&f->lock, NULL);
    *out = f;
    return MOE_OK;
}

/* Closes a file; returns what close does.  The descriptor is closed even when that is a failure. */
static int shut(struct file *f)
{
    moe_writeback_close(&f->behind);
    int r = f->fd >= 0 ? close(f->fd) : 0;
    f->fd = -1;
    return r;
}

void moe_hf_files_close(struct moe_hf_files **pf)
{
    struct moe_hf_files *f = *pf;
    if (!f) return;
    for (int64_t i = 0; i < f->n; i++) {
        shut(&f->v[i]);
        free(f->v[i].path);
    }
    pthread_mutex_destroy(&f->lock);
    free(f->v);
    free(f);
    *pf = NULL;
}

enum moe_code moe_hf_files_set_name(struct moe_hf_files *f, int64_t i, const char *name, struct moe_err *err)
{
    char path[PATH_MAX];
    MOE_TRY(moe_path_join(path, sizeof path, f->dir, name, err));
    free(f->v[i].path);
    f->v[i].path = strdup(path);
    return f->v[i].path ? MOE_OK : moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its name");
}

const char *moe_hf_files_path(const struct moe_hf_files *f, int64_t i) { return f->v[i].path; }

/* ---- open when needed ---- */

/* Closes files that no thread uses until fewer than OPEN_MOST of these are open.  To be called under the
 * lock. */
static enum moe_code close_idle(struct moe_hf_files *f, struct moe_err *err)
{
    for (; f->idle >= OPEN_MOST; f->next = (f->next + 1) % f->n) {
        struct file *old = &f->v[f->next];
        if (old->fd < 0 || old->users) continue;
        f->idle--;
        if (shut(old)) return moe_fail_errno(err, errno, old->path, "cannot close");
    }
    return MOE_OK;
}

/* To be called under the lock. */
static enum moe_code open_file(struct moe_hf_files *f, struct file *file, struct moe_err *err)
{
    MOE_TRY(close_idle(f, err));
    file->fd = moe_open(file->path, O_RDWR | O_NOFOLLOW);
    if (file->fd < 0) return moe_fail_errno(err, errno, file->path, "cannot open");
    file->behind = moe_writeback_open(file->fd, MOE_WRITEBACK_WINDOW);
    f->idle++;
    return MOE_OK;
}

/* Opens file i if it is not open, and counts the caller as a user of it until `give`. */
static enum moe_code take(struct moe_hf_files *f, int64_t i, struct file **file, struct moe_err *err)
{
    enum moe_code code = MOE_OK;
    *file = &f->v[i];
    pthread_mutex_lock(&f->lock);
    if ((*file)->fd < 0) code = open_file(f, *file, err);
    if (code == MOE_OK && !(*file)->users++) f->idle--;
    pthread_mutex_unlock(&f->lock);
    return code;
}

static void give(struct moe_hf_files *f, struct file *file)
{
    pthread_mutex_lock(&f->lock);
    if (!--file->users) f->idle++;
    pthread_mutex_unlock(&f->lock);
}

/* ---- creating and checking files ---- */

static enum moe_code fill(const struct moe_newfile *file, const void *head, size_t bytes, uint64_t all,
                          struct moe_err *err)
{
    char size[16];
    MOE_TRY(moe_pwrite(file->fd, file->path, head, bytes, 0, err));
    if (!moe_reserve(file->fd, all)) return MOE_OK;
    if (errno == ENOSPC || errno == EDQUOT)
        return moe_fail_at(err, MOE_NOSPACE, file->path, NULL,
                           "no space left: this file needs %s (free some)", moe_human_bytes(all, size));
    return moe_fail_errno(err, errno, file->path, "cannot reserve space");
}

enum moe_code moe_hf_files_make(struct moe_hf_files *f, int64_t i, const void *head, size_t bytes,
                                uint64_t all, struct moe_err *err)
{
    struct moe_newfile file;
    MOE_TRY(moe_newfile_open(&file, f->v[i].path, err));
    enum moe_code code = fill(&file, head, bytes, all, err);
    if (code == MOE_OK) return moe_newfile_publish(&file, true, err);
    moe_newfile_abort(&file);
    return code;
}

static enum moe_code same_head(struct moe_hf_files *f, int64_t i, const void *head, size_t bytes,
                               uint64_t all, bool *is, struct moe_err *err)
{
    struct file *file;
    struct stat st;
    char *there = malloc(bytes);

    if (!there) return moe_fail_at(err, MOE_NOMEM, f->v[i].path, NULL, "no memory for its header");
    enum moe_code code = take(f, i, &file, err);
    if (code == MOE_OK) {
        if (fstat(file->fd, &st)) code = moe_fail_errno(err, errno, file->path, "cannot stat");
        else if ((uint64_t)st.st_size == all && all >= bytes) {
            code = moe_pread(file->fd, file->path, there, bytes, 0, err);
            *is = code == MOE_OK && !memcmp(there, head, bytes);
        }
        give(f, file);
    }
    free(there);
    return code;
}

enum moe_code moe_hf_files_matches(struct moe_hf_files *f, int64_t i, const void *head, size_t bytes,
                                   uint64_t all, bool *is, struct moe_err *err)
{
    enum moe_exists there;
    *is = false;
    MOE_TRY(moe_look(f->v[i].path, &there, err));
    return there == MOE_FILE ? same_head(f, i, head, bytes, all, is, err) : MOE_OK;
}

enum moe_code moe_hf_files_check(struct moe_hf_files *f, int64_t i, const void *head, size_t bytes,
                                 uint64_t all, struct moe_err *err)
{
    bool is;
    MOE_TRY(moe_hf_files_matches(f, i, head, bytes, all, &is, err));
    if (is) return MOE_OK;
    return moe_fail_at(err, MOE_MISMATCH, f->v[i].path, NULL,
                       "is not the file that was begun (start over with --force)");
}

/* ---- reading and writing ---- */

enum moe_code moe_hf_files_write(struct moe_hf_files *f, int64_t i, uint64_t offset, const void *data,
                                 size_t bytes, struct moe_err *err)
{
    struct file *file;
    MOE_TRY(take(f, i, &file, err));
    enum moe_code code = moe_pwrite(file->fd, file->path, data, bytes, offset, err);
    if (code == MOE_OK) moe_writeback_add(file->behind, offset, bytes);
    give(f, file);
    return code;
}

enum moe_code moe_hf_files_read(struct moe_hf_files *f, int64_t i, uint64_t offset, void *to, size_t bytes,
                                struct moe_err *err)
{
    struct file *file;
    MOE_TRY(take(f, i, &file, err));
    enum moe_code code = moe_pread(file->fd, file->path, to, bytes, offset, err);
    give(f, file);
    return code;
}

enum moe_code moe_hf_files_sync(struct moe_hf_files *f, int64_t i, struct moe_err *err)
{
    struct file *file;
    struct stat st;
    MOE_TRY(take(f, i, &file, err));
    enum moe_code code = moe_fsync(file->fd) ? moe_fail_errno(err, errno, file->path, "cannot sync") : MOE_OK;
    if (code == MOE_OK && !fstat(file->fd, &st)) moe_writeback_drop(file->behind, (uint64_t)st.st_size);
    give(f, file);
    return code;
}
