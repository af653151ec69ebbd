/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/core-internal.h - what the .c files of core.h share: the state of the core and of a request.
 *
 * Fields under `lock` are those that readers and callers of other threads see; all others belong to the
 * thread that drives the core. */
#ifndef MOE_RUNTIME_ENGINE_CORE_INTERNAL_H
#define MOE_RUNTIME_ENGINE_CORE_INTERNAL_H

#include "runtime/engine/answer.h"
#include "runtime/engine/core.h"
#include "runtime/engine/schedule.h"

enum moe_entry_state {
    MOE_ENTRY_NEW,              /* submitted, and not yet taken in by a step */
    MOE_ENTRY_SCHEDULED,
    MOE_ENTRY_HELD,             /* for its reader: the schedule does not know it */
    MOE_ENTRY_ENDED
};

/* What other threads ask of a request, as bits. */
enum { MOE_ASK_BEGIN = 1, MOE_ASK_CANCEL = 2, MOE_ASK_RESUME = 4 };

/* A request that was submitted.  The job is first, so that a pointer to it is one to this. */
struct moe_entry {
    struct moe_job job;                 /* job.ids holds prompt and answer */
    struct moe_answer answer;
    struct moe_logit_edits edits; bool edits_any;   /* there are, or may come some */
    struct moe_request q;               /* with copies of what it points to */
    uint64_t id;
    int64_t max_tokens;
    enum moe_entry_state state;
    bool begun;                         /* it had tokens in a step */
    bool live;                          /* counted in core.n_live */
    struct moe_logprobs *logprobs;      /* [logprobs_cap], token i at i % logprobs_cap; NULL: none wanted */
    int64_t logprobs_cap;
    /* the time at which something happens to it; its place in core.timer, -1: none */
    double due; int64_t timer_place;
    double held_since;
    struct moe_entry *next_changed;     /* of those that the step has news of */
    bool changed;
    enum moe_finish finish; enum moe_code code;
    struct moe_err *err;                /* of a failure; NULL: there was no memory for it */

    /* under core.lock */
    int asked; struct moe_entry *next_asked;
    bool orphan;                        /* its end was read while it was in that list */
    bool held, paused;
    int64_t shown, read;                /* tokens */
    size_t shown_text, read_text;
    bool ended;
    struct moe_usage usage;
    bool ready; struct moe_entry *ready_before, *ready_after;
};

struct moe_slot { struct moe_entry *entry; uint32_t generation; int32_t next_free; };

struct moe_core {
    struct moe_engine *e;
    struct moe_core_options o;
    struct moe_ends ends;
    struct moe_pages *pages;
    struct moe_latent cache;
    struct moe_schedule *schedule;
    struct moe_segment *segment;        /* [sequences] of the present pass */
    struct moe_entry **wanted;          /* [sequences]: whose logits the present pass gives */
    int32_t *row;                       /* [sequences]: and which of its rows these are */
    int32_t *tokens;                    /* [batch_tokens] of the present pass */
    float *logits; int64_t rows;        /* [rows, V]: logits are computed for at most `rows` tokens at once */
    int32_t *order; float *p;           /* [V] scratch memory for sampling */
    struct moe_entry **timer; size_t timer_cap; /* a heap by `due` */
    int64_t n_timer;
    struct moe_entry *changed, **changed_end; /* in the order in which they changed */
    int64_t n_begun;                    /* requests whose first tokens the present step computes */
    int64_t n_held, n_live;             /* requests for readers; that are scheduled or held */
    enum moe_code code;                 /* of the failure that ended the core */
    struct moe_err err;
    struct moe_core_stats stats;

    pthread_mutex_t lock;
    pthread_cond_t work, news;          /* something was asked; something was shown */
    struct moe_slot *slot; size_t slots_cap;
    int64_t n_slots;
    int32_t free_slot;                  /* the first of a list; -1: none */
    struct moe_entry *asked, **asked_end;
    struct moe_entry *ready_first, *ready_last;
    int64_t queued;                     /* requests that wait for their first step */
    enum moe_code closed;               /* code, for other threads */
    struct moe_core_stats shown;
};

double moe_core_now(const struct moe_core *c);

/* ---- core-submit.c, with lock held ---- */

struct moe_entry *moe_core_find(const struct moe_core *c, uint64_t id);     /* NULL: there is none */
void moe_core_ask(struct moe_core *c, struct moe_entry *e, int what);
void moe_core_forget_id(struct moe_core *c, const struct moe_entry *e);
void moe_entry_free(struct moe_entry *e);                                   /* NULL-safe */

/* ---- core-books.c ---- */

/* Takes in what was asked.  True: there was something. */
bool moe_core_drain(struct moe_core *c);
/* Ends those whose time has come.  True: there were any. */
bool moe_core_expire(struct moe_core *c);
/* Notes that the request has something to show. */
void moe_core_change(struct moe_core *c, struct moe_entry *e);
/* Ends the request, with `err` for MOE_FINISH_ERROR, else NULL. */
void moe_core_end(struct moe_core *c, struct moe_entry *e, enum moe_finish finish, const struct moe_err *err);
/* Lets moe_core_events find the request, once; with lock held. */
void moe_core_make_ready(struct moe_core *c, struct moe_entry *e);
/* Shows what has changed to readers, and holds those whose readers lag. */
void moe_core_publish(struct moe_core *c);

/* ---- core-pass.c: the only file that calls the forward pass ---- */

/* Computes the step.  Afterwards c->wanted and c->row tell whose states are wanted; there are *wanted.  Ends
 * requests whose values are not finite, and computes the others. */
enum moe_code moe_core_pass(struct moe_core *c, const struct moe_schedule_step *step, int64_t *wanted,
                            struct moe_err *err);
/* Computes the logits of c->wanted[from, from + n) into c->logits, and ends those for whom they are not
 * finite. */
enum moe_code moe_core_logits(struct moe_core *c, int64_t from, int64_t n, struct moe_err *err);

/* ---- core-sample.c ---- */

/* Begins what the request changes in logits: penalties, biases, and end tokens that may not come yet.  From
 * any thread.  MOE_NOMEM. */
enum moe_code moe_core_begin_edits(struct moe_core *c, struct moe_entry *e, struct moe_err *err);
/* Samples the next token of the request from its logits, which it may change. */
enum moe_code moe_core_sample(struct moe_core *c, struct moe_entry *e, float *logits, struct moe_err *err);

#endif
