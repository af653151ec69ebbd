/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/schedule.h - which tokens of which sequences the next forward pass computes.
 *
 * It decides and keeps books (model/pages.h); it computes nothing, has no clock and knows no text.  In each
 * step, within a budget of tokens:
 *
 *   1. every running sequence whose tokens are computed but for the last one computes that one,
 *   2. the prompts that have begun go on, the first in order getting as much as it can use,
 *   3. waiting sequences are admitted while tokens, pages and places are left; but one that begins as a
 *      prompt does of which this step computes a page waits, in order, until it can find that page.
 *
 * ORDER.  Sequences are ordered by the time they arrived, less `aging` seconds for each step of priority; so
 * a low priority waits longer, but not for ever.  That order holds within a tenant.  Of several tenants with
 * waiting sequences, the one that was served least is next (a virtual token counter: Sheng et al. 2024,
 * "Fairness in Serving Large Language Models"): a prompt's token counts 1, a generated one 2; who comes back
 * after a pause has no claim on the time it was away.
 *
 * PREEMPTION.  Where a running sequence needs a page and there is none, the last one in order gives its pages
 * up and waits again; what it had computed can still be found as long as its pages are not needed.  The first
 * in order is never preempted, so at least that one advances in each step.
 *
 * Which tokens a sequence gets depends on none of this.  One thread at a time uses a schedule.  A step
 * allocates nothing. */
#ifndef MOE_RUNTIME_ENGINE_SCHEDULE_H
#define MOE_RUNTIME_ENGINE_SCHEDULE_H

#include "model/pages.h"

enum moe_job_state { MOE_JOB_NEW, MOE_JOB_WAITING, MOE_JOB_RUNNING };

struct moe_tenant;

/* A sequence.  The caller owns it, keeps it where it is from submit to end, and sets the first part. */
struct moe_job {
    int32_t *ids; int64_t n_ids;    /* prompt and generated tokens; the caller appends to them */
    int64_t prompt;                 /* how many of them are the prompt */
    int64_t max_positions;          /* n_ids never exceeds it */
    struct moe_page_key root;       /* moe_pages_root of the request's salt */
    uint64_t tenant;
    int priority;                   /* higher is sooner */
    double arrival;                 /* seconds by any clock */

    /* the schedule's: */
    enum moe_job_state state;
    struct moe_table table;         /* table.positions tokens are computed */
    struct moe_tenant *of;
    double key;                     /* its place in the order: the smallest is first */
    int64_t number;                 /* of submission: breaks ties */
    int64_t place;                  /* among those that wait or run */
    int64_t found;                  /* positions of its prompt that its first admission found computed */
    int64_t reached;                /* positions that were computed for it, before preemptions too */
    int64_t preempted;              /* how often it lost its pages */
    bool admitted;                  /* at least once */
    struct moe_job *next_deferred;
};

struct moe_schedule_limits {
    int64_t batch_tokens;           /* tokens of a step */
    int64_t chunk;                  /* tokens of one prompt in a step; 0: batch_tokens */
    int64_t running;                /* sequences at once, batch_tokens at most */
    double aging;                   /* seconds that a step of priority is worth */
};

/* The tokens [first, first + n) of a job. */
struct moe_schedule_row {
    struct moe_job *job;
    int64_t first, n;
    bool last;                      /* these end with the job's last token, whose logits are wanted */
};

struct moe_schedule_step {
    struct moe_schedule_row *row; int64_t n_rows;
    int64_t tokens;                 /* of all rows */
    int64_t padded;                 /* tokens, rounded up to a size for which a device has a graph */
    /* what has to be copied before the pass, in this order */
    struct moe_page_copy *copy; int64_t n_copies;
};

struct moe_schedule_stats {
    int64_t waiting, running;
    int64_t steps, preemptions;     /* since open */
    int64_t tokens_prompt, tokens_generated, tokens_again; /* computed; again: also before a preemption */
};

struct moe_schedule;

/* pages: the books, which only this schedule may use until close.  MOE_USAGE for limits that allow nothing,
 * MOE_NOMEM. */
enum moe_code moe_schedule_open(struct moe_schedule **s, struct moe_pages *pages,
                                const struct moe_schedule_limits *limits, struct moe_err *err);
void moe_schedule_close(struct moe_schedule **s); /* NULL-safe; nulls; every job must have ended */

/* Lets the job wait.  MOE_USAGE where it has no token, or needs more pages than there are; MOE_NOMEM. */
enum moe_code moe_schedule_submit(struct moe_schedule *s, struct moe_job *j, struct moe_err *err);
/* Takes the job out, in whatever state it is: its pages are given up at once.  A step that is planned and not
 * yet computed goes on without the job's row. */
void moe_schedule_end(struct moe_schedule *s, struct moe_job *j);

/* Chooses the next step, which stays valid until it is computed.  No rows: no job has
 * anything to compute. */
const struct moe_schedule_step *moe_schedule_plan(struct moe_schedule *s);
/* Notes that the step's rows are computed.  Afterwards the caller appends a token to each job whose row was
 * its last, or ends it. */
void moe_schedule_computed(struct moe_schedule *s);

struct moe_schedule_stats moe_schedule_stats(const struct moe_schedule *s);
/* NULL, or a sentence about what is wrong with the books.  For tests. */
const char *moe_schedule_check(const struct moe_schedule *s);

#endif
