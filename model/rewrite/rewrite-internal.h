/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/rewrite-internal.h - what rewrite.c (the whole run: options, estimate, result) and
 * rewrite-units.c (the units' pipeline) share. */
#ifndef MOE_MODEL_REWRITE_REWRITE_INTERNAL_H
#define MOE_MODEL_REWRITE_REWRITE_INTERNAL_H

#include "model/rewrite/commit.h"
#include "model/rewrite/emit.h"
#include "model/rewrite/report.h"
#include "model/rewrite/rewrite.h"
#include "model/unit.h"

#include <pthread.h>

/* A unit that is still to be written.  The items of all of them are one sequence:
 * the unit has [first, end). */
struct moe_todo { int number; int64_t first, end; };

/* A unit that is being written, from its first item's start until it is handed to the committer. */
struct moe_live {
    bool open;
    struct moe_shard_unit unit;
    struct moe_shard_writer *shard;
    cJSON *source;                  /* NULL for a container */
    struct moe_tally tally;
};

struct moe_rewrite_work {
    const struct moe_source *src;
    const struct moe_rewrite_options *o;
    struct moe_pool *pool;
    struct moe_progress *progress;
    struct moe_writer *writer;
    struct moe_identity before;     /* of the source, when work began */
    uint8_t *type;                  /* [n_tensors] as from moe_precision_map */
    int32_t *raw_of;                /* [n_tensors * MOE_PLANE_COUNT] index of the raw tensor, -1 */
    /* items at work at once; those and the finished ones that wait for their turn */
    int workers, slots;
    struct moe_emit **emit;         /* [workers] */
    struct moe_emitted (*done)[3];  /* [slots] */
    struct moe_todo *todo;
    int n_todo, n_there;            /* ... and units that an earlier run finished */
    int now;                        /* with a coder units are done one after the other: this one of todo */
    struct moe_commit *commit;
    double sync;                    /* seconds in making units and the whole durable */
    /* under the lock */
    pthread_mutex_t lock;
    /* [slots]: unit t of todo is live[t % slots], and no more than `slots` are open at once */
    struct moe_live *live;
    struct moe_emit **idle;         /* [n_idle] of emit */
    int n_idle;
};

uint64_t moe_tensor_bytes(const struct moe_tensor *t); /* all planes, as the source stores it */

/* A sum over the model of what that means for it. */
void moe_rewrite_count(const struct moe_source *src, const uint8_t *type, struct moe_rewrite_result *r);
/* What --resume compares.  Release it. */
enum moe_code moe_rewrite_work(const struct moe_source *src, const struct moe_rewrite_options *o,
                               struct moe_work *work, struct moe_err *err);
void moe_rewrite_work_release(struct moe_work *work);

/* How many items at once fit in memory, and what that takes.  MOE_NOMEM when not one does. */
enum moe_code moe_rewrite_workers(const struct moe_source *src, const struct moe_rewrite_options *o,
                                  struct moe_pool *pool, int *workers, uint64_t *memory, struct moe_err *err);

/* Write all units that the writer does not have yet.  What it allocates stays in `k`
 * for moe_rewrite_release. */
enum moe_code moe_rewrite_units(struct moe_rewrite_work *k, const char *out, uint64_t input_bytes,
                                struct moe_err *err);
/* With o->place: what the container in `dir` says of the units that are there (all when it is whole, and
 * there is no writer) holds of their own files and of the checkpoint's, into which they were written. */
enum moe_code moe_rewrite_check_placed(struct moe_rewrite_work *k, const char *dir, struct moe_err *err);
/* after it, or without it; before the writer is closed */
void moe_rewrite_release(struct moe_rewrite_work *k);

#endif
