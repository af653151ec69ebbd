/* SPDX-License-Identifier: Apache-2.0 */
/* base/leftover.h - what an earlier run left behind: an unfinished or finished output under its name with
 * .partial, or an output under its final name.
 *
 * A finished output that has not got its final name yet is not thrown away by a run that would start over:
 * the same work gives it the name, any other work refuses.  An unfinished output is started over only by the
 * same work.  "Work" is a line of text that says what is read and with which options.  It is stored in a
 * record, together with the identity of the file that the output may replace: as an extended attribute until
 * the output has its final name, and also as text in the unfinished output, for file systems without extended
 * attributes.  On those no finished output can be recognised as the same work's. */
#ifndef MOE_BASE_LEFTOVER_H
#define MOE_BASE_LEFTOVER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* What a new run does with a leftover.  REFUSE: it is kept and the run fails with MOE_EXISTS.  RESTART: the
 * same work starts an unfinished one over and publishes a finished one; other work fails with MOE_MISMATCH or
 * MOE_EXISTS.  CONTINUE: the same, but the contents of an unfinished one are kept for a writer that
 * continues.  DISCARD: it is started over, whatever it is. */
enum moe_leftover_policy {
    MOE_LEFTOVER_REFUSE,
    MOE_LEFTOVER_RESTART,
    MOE_LEFTOVER_CONTINUE,
    MOE_LEFTOVER_DISCARD
};

/* bytes with the NUL */
enum { MOE_WORK_BYTES = 256, MOE_IDENTITY_BYTES = 96, MOE_RECORD_BYTES = 384 };

/* replaces: the identity (moe_file_identity) of what existed under the final name and may be replaced; "" for
 * nothing. */
struct moe_record { char work[MOE_WORK_BYTES], replaces[MOE_IDENTITY_BYTES]; };

/* Print the record into `text`, which has MOE_RECORD_BYTES bytes; returns the length without the NUL. */
size_t moe_record_text(const struct moe_record *r, char *text);
/* Parse a record at the beginning of n bytes; false when there is none.  Its first line is one that no other
 * program writes. */
bool moe_record_parse(const char *text, size_t n, struct moe_record *r);

/* An identity of the file or directory at `path` as it is now: device, inode and time of last change; "" when
 * nothing exists there. */
enum moe_code moe_file_identity(const char *path, char identity[MOE_IDENTITY_BYTES], struct moe_err *err);

/* Store the record in an extended attribute of the open file or directory fd (does nothing where that is not
 * possible), remove it, read it (false: there is none). */
void moe_work_put(int fd, const struct moe_record *r);
void moe_work_drop(int fd);
bool moe_work_get(int fd, struct moe_record *r);

/* The same for a line that stays when the output has its final name.  It records the state (size, time) in
 * which the file was made, so that a later run that is asked to replace it can see whether it was changed.
 * get: "" when there is none, or where the file system has no extended attributes. */
void moe_made_state_put(int fd, const char *line);
void moe_made_state_get(int fd, char line[MOE_WORK_BYTES]);

/* A second such line, which records the whole command that made the file. */
void moe_made_command_put(int fd, const char *line);
void moe_made_command_get(int fd, char line[MOE_WORK_BYTES]);

/* Fails with MOE_EXISTS: `partial` is finished and is kept; `final` is the name that it should get. */
enum moe_code moe_fail_leftover_finished(const char *partial, const char *final, struct moe_err *err);
/* Fails with MOE_MISMATCH: the unfinished output at `partial` belongs to other work. */
enum moe_code moe_fail_leftover_other_work(const char *partial, struct moe_err *err);

#endif
