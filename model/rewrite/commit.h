/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/commit.h - makes finished units durable while the next one is being written.
 *
 * The end of a unit is waiting: fsync of its shard, rename, fsync of the directory, journal, fsync.  A
 * thread of its own does it, one unit at a time and in the order they are handed over; so what a crash
 * leaves is what it would leave without: the first units whole, each durable once its journal is.  All
 * calls from one thread.  While a unit is on its way nothing else may use the writer, but moe_writer_dir
 * and moe_writer_unit_path. */
#ifndef MOE_MODEL_REWRITE_COMMIT_H
#define MOE_MODEL_REWRITE_COMMIT_H

#include "formats/container/container.h"

struct moe_commit;

/* A unit whose planes are all written and hashed; source and report as in
 * moe_writer_commit_unit, NULL allowed. */
struct moe_finished { char name[24]; struct moe_shard_writer *shard; cJSON *source, *report; };

/* `thread`: false to do everything in moe_commit_unit itself.  Where no thread can be
 * started that happens by itself. */
enum moe_code moe_commit_open(struct moe_commit **c, struct moe_writer *w, bool thread, struct moe_err *err);

/* Hand over a unit, once the one before it is durable.  Shard, source and report belong to the committer
 * from here on, whatever is
 * returned: the failure of this unit or of one before it.  After a failure no later unit is committed. */
enum moe_code moe_commit_unit(struct moe_commit *c, const struct moe_finished *u, struct moe_err *err);

/* The failure of a unit on its way, when it has failed by now; does not wait. */
enum moe_code moe_commit_check(struct moe_commit *c, struct moe_err *err);

/* Wait until all are durable. */
enum moe_code moe_commit_wait(struct moe_commit *c, struct moe_err *err);

double moe_commit_seconds(const struct moe_commit *c); /* spent on it; after moe_commit_wait */
void moe_commit_close(struct moe_commit **c);          /* waits; NULL-safe; nulls */

#endif
