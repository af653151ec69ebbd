/* base/leftover.h - what an earlier run left: under a .partial name, is it finished, and of which work; and under
 * its final name, is it what this tool made.
 *
 * A file or directory that is whole and only waits for its name is not thrown away by a run that would start
 * over: the same work gives it the name, any other one refuses.  The work is a line of text (what is read,
 * and with which options) that is kept with the file as an extended attribute until the file has its name.
 * Where the file system keeps none, no work is the same. */
#ifndef MOE_BASE_LEFTOVER_H
#define MOE_BASE_LEFTOVER_H

#include "base/err.h"

#include <stdbool.h>

/* What becomes of it: it stays (MOE_EXISTS); what is unfinished is started over, and what is whole stays, or
 * is published by the same work; all of it is started over. */
enum moe_left { MOE_LEFT_STAYS, MOE_LEFT_UNFINISHED_GOES, MOE_LEFT_GOES };

enum { MOE_WORK_BYTES = 256 }; /* of the line, with its end */

/* fd: the open file or directory.  Keep the line with it (as far as that can be), drop it, compare it. */
void moe_work_put(int fd, const char *work);
void moe_work_drop(int fd);
bool moe_work_is(int fd, const char *work);

/* The same for a line that stays when it has its name, for whoever is asked to replace it: it says in which state it
 * was made.  get: "" when there is none, also where none can be kept. */
void moe_made_put(int fd, const char *line);
void moe_made_get(int fd, char line[MOE_WORK_BYTES]);

/* MOE_EXISTS: `partial` is whole, and stays.  final: the name that it waits for. */
enum moe_code moe_left_whole(const char *partial, const char *final, struct moe_err *err);

#endif
