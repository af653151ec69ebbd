/* SPDX-License-Identifier: Apache-2.0 */
/* base/newfile.h - a file that is being written: it gets its name whole, or never.
 *
 * Until then it has no name (O_TMPFILE): a killed process leaves nothing, nobody can put anything in its
 * place, and two writers of one path cannot meet.  Where the file system has no such files it has a random
 * name in the same directory, created so that no link is followed and nothing that is there is opened.
 * Nothing here knows what is in a file.
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
    char *path;   /* the name that it gets */
    char *tmp;    /* the name that it has until then; NULL: none */
    bool partial; /* tmp is path.partial, and locked */
    bool synced;
    bool whole;   /* tmp was left finished by this work: nothing is to be written */
    struct moe_record record; /* of a partial one */
};

/* Whether `path` may become a file: MOE_USAGE when it is no name for one (empty, "x/", "."),
 * MOE_NOT_FOUND without its directory, MOE_IO when that may not be written.  MOE_EXISTS when a directory,
 * a device or a pipe stands there, and, unless `replace`, when anything does.  A symbolic link is
 * replaced itself, never what it points to. For tools whose file is written last, so that they fail
 * before they work. */
enum moe_code moe_newfile_check(const char *path, bool replace, struct moe_err *err);

/* Begin the file `path`, which is not touched before publish.  On failure nothing is open and abort does
 * nothing. */
enum moe_code moe_newfile_open(struct moe_newfile *f, const char *path, struct moe_err *err);

/* The same for a file that takes long: it grows as path.partial, where it can be seen, under a lock, so
 * that a second writer is refused (MOE_EXISTS).  Its first MOE_RECORD_BYTES bytes are the record of `work`
 * (base/leftover.h) until the caller writes what belongs there, last of all.  What an earlier writer left
 * there, which is empty, has such a record or is `ours` (whole: fd is open for reading), is emptied as `left`
 * says, or f->whole is set; anything else is left alone (MOE_EXISTS).  With MOE_LEFT_GOES publish may replace
 * what stands at `path` now, and so may a later run of the same work that goes on with it. */
enum moe_code moe_newfile_open_partial(struct moe_newfile *f, const char *path, bool (*ours)(int fd),
                                       enum moe_left left, const char *work, struct moe_err *err);
/* Whether path.partial is work that may replace what stands at `path`: only then can MOE_LEFT_UNFINISHED_GOES
 * end well. */
bool moe_newfile_resumes(const char *path);

/* For a writer that has to know before the name is given: nothing may be written after it. */
enum moe_code moe_newfile_sync(struct moe_newfile *f, struct moe_err *err);
/* Sync the file, give it its name, sync the directory.  Without `replace` whatever has appeared under
 * that name stays, and the code is MOE_EXISTS; path.partial, whole, is left then, and it never replaces what
 * came after it was begun.  Closes the file either way; after any other failure it is gone. */
enum moe_code moe_newfile_publish(struct moe_newfile *f, bool replace, struct moe_err *err);
/* Throw the file away; does nothing to a closed one. */
void moe_newfile_abort(struct moe_newfile *f);

/* Open, write, publish.  (moe_write_file in base/io.h is this with `replace`.) */
enum moe_code moe_newfile_write(const char *path, const void *data, size_t size, bool replace,
                                struct moe_err *err);

/* True for a random name of this header: a killed process may have left such a file. */
bool moe_newfile_is_temporary(const char *name);

#endif
