/* SPDX-License-Identifier: Apache-2.0 */
/* base/progress.h - how far long work has come, told to whoever shows it.
 *
 * Work is handed a struct moe_progress and reports to it; what becomes of that is up to the function in it:
 * the tools draw a bar (base/cli/bar.h), a program that uses the library has a callback (base/api.h).  All
 * calls but init and release accept NULL and then do nothing; all are safe from any thread.  There is one
 * piece of work at a time: a second begin without an end is a bug. */
#ifndef MOE_BASE_PROGRESS_H
#define MOE_BASE_PROGRESS_H

#include <moe/progress.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* One piece of work.  done includes `skipped`, which an earlier run has done. */
struct moe_progress_work { char label[48]; uint64_t done, skipped, total; enum moe_unit unit; };

enum moe_progress_event { MOE_PROGRESS_BEGUN, MOE_PROGRESS_ADDED, MOE_PROGRESS_ENDED };

/* Called by the thread that reports, for one event at a time; it may not report itself. */
typedef void moe_progress_fn(void *ctx, const struct moe_progress_work *w, enum moe_progress_event event);

struct moe_progress {
    moe_progress_fn *told;
    void *ctx;
    pthread_mutex_t lock; /* held while `told` is called */
    struct moe_progress_work work;
    bool begun;
};

void moe_progress_init(struct moe_progress *p, moe_progress_fn *told, void *ctx);
/* Ends the work if it was begun. */
void moe_progress_release(struct moe_progress *p);

/* Begin work of `total` units, which moe_progress_add counts. */
void moe_progress_begin(struct moe_progress *p, const char *label, uint64_t total, enum moe_unit unit);
void moe_progress_add(struct moe_progress *p, uint64_t amount);
/* Count an amount that an earlier run has done.  Nobody is told before the next add. */
void moe_progress_skip(struct moe_progress *p, uint64_t amount);
/* Another phase of the same work.  Nobody is told before the next add. */
void moe_progress_label(struct moe_progress *p, const char *label);
void moe_progress_end(struct moe_progress *p);

#endif
