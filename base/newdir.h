/* SPDX-License-Identifier: Apache-2.0 */
/* base/newdir.h - a directory that is being built: as NAME.partial, locked, and published as NAME, whole.
 *
 * NAME.partial is made by this process or is recognisably unfinished work of this tool; a stranger's, a
 * link, and one that another process has locked are refused and left as they are.  Publishing replaces
 * nothing unless the caller says what may be replaced.  What is unfinished has the sticky bit, which is set
 * with the directory and goes by one call once it has its final name: a mark that is never among its files.
 *
 * Two ways to use it: a writer that keeps journals (formats/container/writer.c) recognises its work by itself
 * and calls _name, _lock and _publish; one that starts over when it was interrupted calls _begin, _publish
 * and _end.  A struct belongs to one thread.  Nothing here knows what is in a directory. */
#ifndef MOE_BASE_NEWDIR_H
#define MOE_BASE_NEWDIR_H

#include "base/err.h"
#include "base/leftover.h"

#include <stdbool.h>

struct moe_newdir {
    char path[MOE_PATH_BYTES];  /* NAME.partial: where to build */
    char final[MOE_PATH_BYTES]; /* NAME, without slashes at its end */
    int lock;             /* descriptor of path; -1: not locked */
    bool created;         /* by _lock, now */
    bool keep;            /* published, or whole and without its name: _end removes nothing */
    bool whole;           /* an earlier run left this work finished: nothing is to be written */
    struct moe_record record; /* after _begin: kept in the file that marks path, too, until it is whole */
};

/* look: MOE_OK when the directory at `path` is of the caller's kind (a container, an export), nothing else in
 * it, so that this tool may replace it; MOE_EXISTS with a sentence when it is not.  `with` is handed on.
 * work: what is written (base/leftover.h).  unfinished: the same as look for a directory that was begun, so
 * that files may be missing.  These two are for _begin alone. */
struct moe_newdir_kind {
    enum moe_code (*look)(const char *path, const void *with, struct moe_err *err);
    const void *with;
    const char *work;
    enum moe_code (*unfinished)(const char *path, const void *with, struct moe_err *err);
};

/* Fill in the two names.  MOE_USAGE when the last part of `out` is no name ("", ".", ".."). */
enum moe_code moe_newdir_name(struct moe_newdir *d, const char *out, struct moe_err *err);
/* MOE_USAGE when `out` or its .partial is `input`, lies in it or holds it, by whatever links the two are
 * reached; `which` as in base/apart.h. */
enum moe_code moe_newdir_apart(const char *out, const char *input, const char *which, struct moe_err *err);

/* Make path, or take the one that is there, and lock it: MOE_EXISTS when another process has it, when it is
 * no directory, or when `final` is a symbolic link, whose place no directory takes. */
enum moe_code moe_newdir_lock(struct moe_newdir *d, struct moe_err *err);
void moe_newdir_unlock(struct moe_newdir *d);
/* After _lock: set the mark on path (one made by _lock has it), as far as the file system keeps such bits. */
void moe_newdir_mark(const struct moe_newdir *d);
enum moe_code moe_newdir_is_marked(const char *dir, bool *marked, struct moe_err *err);

/* _name and _lock; then path is empty but for a file that marks it, too (or holds, under
 * MOE_LEFT_UNFINISHED_KEPT, what the same work left in it), or d->whole is set and it is to be published as
 * it is.  What an earlier run left goes as `left` says, else MOE_EXISTS, or MOE_MISMATCH when
 * another work left it unfinished.  What is unfinished has that file, and nothing that is not of this kind;
 * what is whole has the mark alone and is of this kind.  After a failure nothing is to be ended. */
enum moe_code moe_newdir_begin(struct moe_newdir *d, const char *out, const struct moe_newdir_kind *kind,
                               enum moe_left left, struct moe_err *err);
/* After _name: whether path is work that may replace what stands under the final name: only then can
 * MOE_LEFT_UNFINISHED_GOES end well.  After _begin: whether what stands there is what stood there when this
 * work was begun with MOE_LEFT_GOES. */
bool moe_newdir_resumes(const struct moe_newdir *d);
enum moe_code moe_newdir_may_replace(const struct moe_newdir *d, bool *may, struct moe_err *err);
/* After _name, when what stands under the final name is this work's already: remove what is left beside it of
 * this work, unfinished, or of what it replaced. Anything else stays. */
enum moe_code moe_newdir_drop(struct moe_newdir *d, const struct moe_newdir_kind *kind, struct moe_err *err);
/* After _begin: unlock; what was not published is removed, unless it is whole and only its name was taken
 * (MOE_EXISTS of _publish). */
void moe_newdir_end(struct moe_newdir *d);

/* Say, durably, that path is whole: a later run of the same work has only to publish it.  (_publish does the
 * same.) */
enum moe_code moe_newdir_whole(struct moe_newdir *d, struct moe_err *err);
/* Sync path and rename it to `final`.  Does something stand there, then it is MOE_EXISTS, path stays, and
 * the sentence says where it is; but when `kind` is given and accepts what is there, the two are
 * exchanged and the old one is removed. */
enum moe_code moe_newdir_publish(struct moe_newdir *d, const struct moe_newdir_kind *kind,
                                 struct moe_err *err);

/* When `code` is an interruption of a run under --resume that has not looked at its work yet: its sentence
 * from now on, which names out.partial (or `shown`, unless NULL) when that is there.  Returns code. */
enum moe_code moe_newdir_interrupted(enum moe_code code, const char *out, const char *shown,
                                     struct moe_err *err);

#define MOE_NEWDIR_MARK ".moe-export" /* that file; older versions have it, too */

#endif
