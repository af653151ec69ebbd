/* SPDX-License-Identifier: Apache-2.0 */
/* base/pool.h - threads: a parallel loop, and an ordered pipeline.
 *
 * Results must never depend on the number of threads: work items write to places that belong to their index
 * alone, and whatever is summed over items is summed in index order by the caller. */
#ifndef MOE_BASE_POOL_H
#define MOE_BASE_POOL_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct moe_pool;

/* `threads` >= 1 counts the caller; 0 means one for each processor this process may use. */
enum moe_code moe_pool_open(struct moe_pool **pool, int threads, struct moe_err *err);
void moe_pool_close(struct moe_pool **pool); /* NULL-safe; nulls */
int moe_pool_threads(const struct moe_pool *pool); /* 1 for NULL */

/* Run fn(ctx, i, worker) for i in [0, n), each exactly once, on all threads; returns when all are done.
 * worker is in [0, threads): an index for scratch memory.  A NULL pool runs in the caller.  Not reentrant:
 * fn must not call it on the same pool.  Waiting workers spin for a few microseconds, then sleep. */
void moe_pool_run(struct moe_pool *pool, int64_t n, void (*fn)(void *ctx, int64_t i, int worker), void *ctx);

/* The ordered pipeline.  For each i in [0, n), produce(ctx, i, slot, err) runs on any thread; the calls are
 * started in the order of i.  Then consume(ctx, i, slot, err) runs on the calling thread, strictly in the
 * order of i.  Item i owns its slot, in [0, slots), from the start of its produce to the end of its consume,
 * so at most `slots` items are in progress.  With a pool of several threads, one thread more than the pool
 * has is used, as far as there are slots: items read and write files, and one may wait for the disk while the
 * others compute.  The first failure (the one with the lowest i, consume included) stops the rest and is
 * returned with its message. */
enum moe_code moe_pipe_run(struct moe_pool *pool, int64_t n, int slots,
                           enum moe_code (*produce)(void *ctx, int64_t i, int slot, struct moe_err *err),
                           enum moe_code (*consume)(void *ctx, int64_t i, int slot, struct moe_err *err),
                           void *ctx, struct moe_err *err);

#endif
