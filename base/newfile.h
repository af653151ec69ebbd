/* SPDX-License-Identifier: Apache-2.0 */
/* base/newfile.h - a file that gets its name only when it is complete.
 *
 * Until then it has no name (O_TMPFILE): a killed process leaves nothing behind, nobody can replace it, and
 * two writers of one path do not disturb each other.  Where the file system has no such files, it has a
 * random name in the same directory; it is created so that no link is followed and no existing file is
 * opened.  Nothing here knows what is in a file.
 *
 *     struct moe_newfile f;
 *     MOE_TRY(moe_newfile_open(&f, path, err));
 *     enum moe_code code = moe_pwrite(f.fd, path, data, size, 0, err);
 *     if (code == MOE_OK) code = moe_newfile_publish(&f, false, err);
 *     else moe_newfile_abort(&f);
 *
 * One thread at a time calls these functions on one file; any thread may write to fd. */
#ifndef MOE_BASE_NEWFILE_H
#define MOE_BASE_NEWFILE_H

#include "base/err.h"
#include "base/leftover.h"

#include <stdbool.h>
#include <stddef.h>

struct moe_newfile {
    int fd;       /* open for reading and writing; -1: closed */
    char *path;   /* its final name */
    char *tmp;    /* its present name; NULL: it has none */
    bool partial; /* tmp is path.partial, and locked */
    bool synced;
    bool whole;   /* an earlier run of the same work finished it: nothing is to be written */
    struct moe_record record; /* when partial */
};

/* Whether a file may be written at `path`.  MOE_USAGE when it is no file name (empty, "x/", ".");
 * MOE_NOT_FOUND when its directory does not exist; MOE_IO when that directory cannot be written; MOE_EXISTS
 * when a directory, a device or a pipe exists at `path`, or, unless `replace`, anything at all.  A symbolic
 * link is replaced itself, not what it points to.  Tools that write their file last call this first. */
enum moe_code moe_newfile_check(const char *path, bool replace, struct moe_err *err);

/* Begin the file; `path` itself is not touched before moe_newfile_publish.  On failure nothing is open and
 * moe_newfile_abort does nothing. */
enum moe_code moe_newfile_open(struct moe_newfile *f, const char *path, struct moe_err *err);

/* The same for a file that takes long to write: it grows as path.partial, where people can see it, under a
 * lock, so that a second writer is refused (MOE_EXISTS).  Its first MOE_RECORD_BYTES bytes are the record of
 * `work` (base/leftover.h); the caller overwrites them last of all.  A path.partial that exists counts as an
 * earlier writer's when it is empty, has such a record, or ours(fd) returns true (fd is open for reading);
 * then `policy` decides whether it is emptied, kept, or found finished (f->whole).  Any other file is left
 * alone (MOE_EXISTS).  With MOE_LEFTOVER_DISCARD, publish may replace what exists at `path` now; so may a
 * later run that resumes this work. */
enum moe_code moe_newfile_open_partial(struct moe_newfile *f, const char *path, bool (*ours)(int fd),
                                       enum moe_leftover_policy policy, const char *work,
                                       struct moe_err *err);
/* Whether path.partial is work that may replace what exists at `path`; without this MOE_LEFTOVER_RESTART
 * cannot succeed where something exists there. */
bool moe_newfile_resumes(const char *path);

/* Sync the file before it is published, for a writer that has to know that this succeeded.  Nothing may be
 * written afterwards. */
enum moe_code moe_newfile_sync(struct moe_newfile *f, struct moe_err *err);
/* Sync the file, give it its name and sync the directory.  Without `replace`, a file that has appeared
 * under that name is kept and the result is MOE_EXISTS; a path.partial is then left, complete.  With
 * `replace`, a partial file replaces only what existed at `path` when it was begun.  The file is closed in
 * any case; after any other failure it is removed. */
enum moe_code moe_newfile_publish(struct moe_newfile *f, bool replace, struct moe_err *err);
/* Throw the file away; does nothing to a closed one. */
void moe_newfile_abort(struct moe_newfile *f);

/* Open, write and publish a file.  (moe_write_file of base/io.h is this with `replace`.) */
enum moe_code moe_newfile_write(const char *path, const void *data, size_t size, bool replace,
                                struct moe_err *err);

/* Whether `name` has the form of this header's random names; a killed process may have left such a file. */
bool moe_newfile_is_temporary(const char *name);

#endif
