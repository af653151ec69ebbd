/* SPDX-License-Identifier: Apache-2.0 */
/* base/newdir.h - a directory that is built as NAME.partial, under a lock, and gets the name NAME only when
 * it is complete.
 *
 * NAME.partial is created by this process, or it is recognised as unfinished work of this tool.  A directory
 * of other origin, a symbolic link, or one that another process has locked is refused and left as it is.
 * Publishing replaces nothing unless the caller says what may be replaced.  An unfinished directory has the
 * sticky bit set: it is set when the directory is created and cleared by one chmod once it has its final
 * name, so the mark needs no file in the directory.
 *
 * There are two ways to use this.  A writer that keeps journals (formats/container/writer.c) recognises its
 * own work and calls moe_newdir_name, _lock and _publish.  A writer that starts over after an interruption
 * calls _begin, _publish and _end.  A struct belongs to one thread.  Nothing here knows what is in a
 * directory. */
#ifndef MOE_BASE_NEWDIR_H
#define MOE_BASE_NEWDIR_H

#include "base/err.h"
#include "base/leftover.h"

#include <stdbool.h>

struct moe_newdir {
    char path[MOE_PATH_BYTES];  /* NAME.partial: where to build */
    char final[MOE_PATH_BYTES]; /* NAME, without slashes at its end */
    int lock;                 /* descriptor of path; -1: not locked */
    bool created;             /* _lock created path in this run */
    bool keep;                /* published, or complete without its name: _end removes nothing */
    bool whole;               /* an earlier run finished this work: nothing is to be written */
    struct moe_record record; /* set by _begin; also stored in the mark file until path is complete */
};

/* What a caller's directories are.  look: MOE_OK when the directory at `path` is of the caller's kind (a
 * container, an export) and contains nothing else, so that this tool may replace it; MOE_EXISTS with a
 * message when it is not.  with: passed to look and unfinished.  work: what is written (base/leftover.h).
 * unfinished: like look, for a directory that was only begun, so that files may be missing.  Only _begin and
 * _drop use work and unfinished. */
struct moe_newdir_kind {
    enum moe_code (*look)(const char *path, const void *with, struct moe_err *err);
    const void *with;
    const char *work;
    enum moe_code (*unfinished)(const char *path, const void *with, struct moe_err *err);
};

/* Fill in the two names.  MOE_USAGE when the last component of `out` is no name ("", ".", ".."). */
enum moe_code moe_newdir_name(struct moe_newdir *d, const char *out, struct moe_err *err);
/* MOE_USAGE when `out` or out.partial is the same as `input`, lies in it or contains it; `which` is as in
 * base/overlap.h. */
enum moe_code moe_newdir_check_overlap(const char *out, const char *input, const char *which,
                                       struct moe_err *err);

/* Create path, or take the directory that exists there, and lock it.  MOE_EXISTS when another process
 * has locked it, when it is no directory, or when `final` is a symbolic link, which a directory must not
 * replace. */
enum moe_code moe_newdir_lock(struct moe_newdir *d, struct moe_err *err);
void moe_newdir_unlock(struct moe_newdir *d);
/* After _lock: sets the sticky bit of path, which marks it as unfinished, where the file system keeps such
 * bits.  (A directory that _lock created has it.) */
void moe_newdir_mark(const struct moe_newdir *d);
enum moe_code moe_newdir_is_marked(const char *dir, bool *marked, struct moe_err *err);

/* Call _name and _lock.  After success path is empty but for the mark file MOE_NEWDIR_MARK; or, with
 * MOE_LEFTOVER_CONTINUE, it still holds what the same work left there; or d->whole is set and path is to
 * be published as it is.  `policy` decides about what an earlier run left there; what must stay gives
 * MOE_EXISTS, or MOE_MISMATCH when it is other, unfinished work.  An earlier run's directory is unfinished
 * when it has the mark file and kind->unfinished accepts it; it is complete when it has the sticky bit alone
 * and kind->look accepts it.  After a failure _end need not be called. */
enum moe_code moe_newdir_begin(struct moe_newdir *d, const char *out, const struct moe_newdir_kind *kind,
                               enum moe_leftover_policy policy, struct moe_err *err);
/* _resumes: after _name, whether path holds work that may replace what exists under the final name; without
 * this MOE_LEFTOVER_RESTART cannot succeed where something exists there.  _may_replace: after _begin,
 * whether what exists under the final name is still what existed there when this work was begun with
 * MOE_LEFTOVER_DISCARD. */
bool moe_newdir_resumes(const struct moe_newdir *d);
enum moe_code moe_newdir_may_replace(const struct moe_newdir *d, bool *may, struct moe_err *err);
/* After _name, when the final name has this work's result already: removes NAME.partial when it is unfinished
 * and of the same work, or is the remainder of a directory that was replaced.  Anything else stays. */
enum moe_code moe_newdir_drop(struct moe_newdir *d, const struct moe_newdir_kind *kind, struct moe_err *err);
/* After _begin: unlocks.  A directory that was not published is removed, unless it is complete and only its
 * name was taken (_publish returned MOE_EXISTS). */
void moe_newdir_end(struct moe_newdir *d);

/* Record durably that path is complete: a later run of the same work only has to publish it.  (_publish does
 * this itself.) */
enum moe_code moe_newdir_whole(struct moe_newdir *d, struct moe_err *err);
/* Sync path and rename it to `final`.  When something exists there and `kind` is NULL or does not accept
 * it, the result is MOE_EXISTS, path stays, and the message says where it is.  When `kind` accepts it, the
 * two are exchanged and the old one is removed. */
enum moe_code moe_newdir_publish(struct moe_newdir *d, const struct moe_newdir_kind *kind,
                                 struct moe_err *err);

/* For a run under --resume that is interrupted before it has looked at its unfinished work: when `code` is an
 * interruption and out.partial exists, replaces the message by one that names it (as `shown`, unless NULL).
 * Returns `code`. */
enum moe_code moe_newdir_interrupted(enum moe_code code, const char *out, const char *shown,
                                     struct moe_err *err);

#define MOE_NEWDIR_MARK ".moe-export" /* the mark file; older versions write it too */

#endif
