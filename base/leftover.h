/* SPDX-License-Identifier: Apache-2.0 */
/* base/leftover.h - what an earlier run left: under a .partial name, is it finished, and of which work; and
 * under its final name, is it what this tool made.
 *
 * A file or directory that is whole and only waits for its name is not thrown away by a run that would start
 * over: the same work gives it the name, any other one refuses; what is unfinished is started over by the
 * same work alone.  The work is a line of text (what is read, and with which options), and it is kept with
 * what may go when it gets its name: as an extended attribute until then, and as a text in it while it is
 * unfinished, for file systems that keep no such attributes.  There no work is the same as what is whole. */
#ifndef MOE_BASE_LEFTOVER_H
#define MOE_BASE_LEFTOVER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* What becomes of it: it stays (MOE_EXISTS); what the same work left unfinished is started over
 * (MOE_MISMATCH of another one), and what is whole stays, or is published by the same work; the same, but
 * what is unfinished is kept, for a writer that goes on with it; all of it is started over. */
enum moe_left { MOE_LEFT_STAYS, MOE_LEFT_UNFINISHED_GOES, MOE_LEFT_UNFINISHED_KEPT, MOE_LEFT_GOES };

enum { MOE_WORK_BYTES = 256, MOE_WHICH_BYTES = 96, MOE_RECORD_BYTES = 384 }; /* with their ends */

/* replaces: what stood under the final name and may go (moe_which); "" for nothing. */
struct moe_record { char work[MOE_WORK_BYTES], replaces[MOE_WHICH_BYTES]; };

/* As a text, which MOE_RECORD_BYTES bytes hold with its end; gives its length. */
size_t moe_record_text(const struct moe_record *r, char *text);
/* False when the n bytes do not begin with such a text, which no other program writes. */
bool moe_record_parse(const char *text, size_t n, struct moe_record *r);

/* Which file or directory `path` is, and when something was last changed in it; "" when nothing is there. */
enum moe_code moe_which(const char *path, char which[MOE_WHICH_BYTES], struct moe_err *err);

/* fd: the open file or directory.  Keep the record with it (as far as that can be), drop it, read it (false:
 * there is none). */
void moe_work_put(int fd, const struct moe_record *r);
void moe_work_drop(int fd);
bool moe_work_get(int fd, struct moe_record *r);

/* The same for a line that stays when it has its name, for whoever is asked to replace it: it says in which
 * state it was made.  get: "" when there is none, also where none can be kept. */
void moe_made_put(int fd, const char *line);
void moe_made_get(int fd, char line[MOE_WORK_BYTES]);

/* And a second one, of the whole command that made it. */
void moe_made_by_put(int fd, const char *line);
void moe_made_by_get(int fd, char line[MOE_WORK_BYTES]);

/* MOE_EXISTS: `partial` is whole, and stays.  final: the name that it waits for. */
enum moe_code moe_left_whole(const char *partial, const char *final, struct moe_err *err);
/* MOE_MISMATCH: what is unfinished at `partial` is another work's. */
enum moe_code moe_left_other(const char *partial, struct moe_err *err);

#endif
