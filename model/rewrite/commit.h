/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/commit.h - makes finished units durable while the next one is being written.
 *
 * Finishing a unit is mostly waiting: fsync of its shard, rename, fsync of the directory, journal, fsync.  A
 * separate thread does this, one unit at a time and in the order in which units are handed over.  So after a
 * crash the disk holds what it would hold without the thread: the first units, each of them complete, and
 * durable once its journal is.  All calls must come from one thread.  While a unit is being finished, no
 * function may be called on the writer but moe_writer_dir and moe_writer_unit_path. */
#ifndef MOE_MODEL_REWRITE_COMMIT_H
#define MOE_MODEL_REWRITE_COMMIT_H

#include "formats/container/container.h"

struct moe_commit;

/* A unit whose planes are all written and hashed.  source and report are those of moe_writer_commit_unit, or
 * NULL. */
struct moe_finished {
    char name[MOE_UNIT_NAME_BYTES];
    struct moe_shard_writer *shard;
    cJSON *source, *report;
};

/* thread: false to do all work in moe_commit_unit itself, which also happens when no thread can be started.
 * w must outlive *c. */
enum moe_code moe_commit_open(struct moe_commit **c, struct moe_writer *w, bool thread, struct moe_err *err);

/* Waits until the unit before is durable, then hands over this one.  Shard, source and report belong to the
 * committer from here on, on failure too.  Returns the failure of an earlier unit or, without a thread, of
 * this one; after a failure no later unit is committed. */
enum moe_code moe_commit_unit(struct moe_commit *c, const struct moe_finished *u, struct moe_err *err);

/* Returns the failure of the unit that is being finished, when it has failed by now; does not wait. */
enum moe_code moe_commit_check(struct moe_commit *c, struct moe_err *err);

/* Waits until all units are durable, or one has failed. */
enum moe_code moe_commit_wait(struct moe_commit *c, struct moe_err *err);

double moe_commit_seconds(const struct moe_commit *c); /* time spent finishing; after moe_commit_wait */
void moe_commit_close(struct moe_commit **c);          /* waits; NULL-safe; nulls */

#endif
