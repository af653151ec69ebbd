/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/rewrite-internal.h - what rewrite.c (options, estimate and result of a run), rewrite-units.c
 * (the pipeline of units) and rewrite-hf.c (a run that writes a checkpoint) share. */
#ifndef MOE_MODEL_REWRITE_REWRITE_INTERNAL_H
#define MOE_MODEL_REWRITE_REWRITE_INTERNAL_H

#include "model/rewrite/commit.h"
#include "model/rewrite/emit.h"
#include "model/rewrite/report.h"
#include "model/rewrite/rewrite.h"
#include "model/unit.h"

#include <pthread.h>

/* A unit that is still to be written.  The items of all these units form one sequence, of which this unit has
 * [first, end). */
struct moe_todo { int number; int64_t first, end; };

/* A unit that is being written, from its first item's start until it is handed to the committer. */
struct moe_open_unit {
    bool open;
    struct moe_shard_unit unit;
    struct moe_shard_writer *shard;
    cJSON *source;                  /* entries of its raw tensors; NULL when the source is a container */
    struct moe_tally tally;
};

/* A run: the units it has still to write, and what its threads share. */
struct moe_rewrite_run {
    const struct moe_source *src;
    const struct moe_rewrite_options *o;
    struct moe_pool *pool;
    struct moe_progress *progress;
    struct moe_writer *writer;
    struct moe_identity before;     /* the source's identity when the work began */
    uint8_t *type;                  /* [n_tensors] a precision map (moe_rewrite_types) */
    int32_t *raw_of;                /* [n_tensors * MOE_PLANE_COUNT] a plane's raw tensor; -1: none */
    int workers;                    /* how many items are written at once */
    int slots;                      /* `workers`, and the finished items that may wait for their turn */
    struct moe_emit **emit;         /* [workers] */
    struct moe_emitted (*done)[3];  /* [slots] what was measured of an item's tensors */
    struct moe_todo *todo;          /* [n_todo] */
    int n_todo, n_finished;         /* n_finished: units that an earlier run finished */
    int current;                    /* with a chooser, which takes the units one by one: the present one */
    struct moe_commit *commit;
    double sync;                    /* seconds spent making units and the whole container durable */
    /* `lock` guards what follows. */
    pthread_mutex_t lock;
    /* [slots]: unit t of todo is open_units[t % slots], and no more than `slots` are open at once */
    struct moe_open_unit *open_units;
    struct moe_emit **idle;         /* [n_idle] those of emit that no worker uses */
    int n_idle;
};

/* Sets the counts in *r that follow from the types alone. */
void moe_rewrite_count(const struct moe_source *src, const uint8_t *type, struct moe_rewrite_result *r);
/* Describes the work of a run in *work, by which --resume tells whether it goes on with the same work.  After
 * success moe_rewrite_work_release is due. */
enum moe_code moe_rewrite_work_init(const struct moe_source *src, const struct moe_rewrite_options *o,
                                    struct moe_work *work, struct moe_err *err);
void moe_rewrite_work_release(struct moe_work *work);

/* Sets e->workers to how many items can be written at once within o->memory, at least one, and from
 * that number memory_bytes, memory_limit and fits. */
void moe_rewrite_plan_memory(const struct moe_source *src, const struct moe_rewrite_options *o,
                             struct moe_pool *pool, struct moe_rewrite_estimate *e);

/* Writes all units that the writer does not have yet.  What it allocates stays in `k` until
 * moe_rewrite_release. */
enum moe_code moe_rewrite_units(struct moe_rewrite_run *k, const char *out, uint64_t input_bytes,
                                struct moe_err *err);
/* For a run with o->hf_layout: reads what an earlier run wrote of its finished units, in their own files in
 * `dir` and in the checkpoint's, and compares it with the hashes in `dir`; MOE_VERIFY names a tensor that
 * differs.  Without a writer the container is complete, so all units are checked. */
enum moe_code moe_rewrite_check_finished(struct moe_rewrite_run *k, const char *dir, struct moe_err *err);
/* Frees what moe_rewrite_units allocated.  The caller calls it in any case, before it closes the writer. */
void moe_rewrite_release(struct moe_rewrite_run *k);

#endif
