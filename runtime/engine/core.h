/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/core.h - the engine's core: computes the answers to many requests at once (continuous
 * batching over a paged cache).
 *
 *     moe_core_submit(core, &request, &id, err);                          any thread, at any time
 *     while (moe_core_step(core, &worked, err) == MOE_OK)                 one thread drives it
 *         if (!worked) moe_core_wait(core, 1.0);
 *     moe_core_events(core, id, 1.0, &event, &there, err);                any thread
 *
 * A step takes in what was submitted and cancelled, plans the tokens to compute (schedule.h), computes them
 * in one forward pass, samples the next token of each sequence that is up to date, and reports.  A request
 * gets the same tokens, bit for bit, as it would alone: neither company, nor the cutting of prompts, nor
 * preemption, nor pages found in the cache change them.
 *
 * READERS.  Tokens are reported as they come, and what a reader has not taken yet is reported together.  A
 * request whose reader lags by `unread` tokens is held: it is not computed and gives its pages up, until the
 * reader has come; others go on.  One that is held for longer than `patience` ends with an error.  Every
 * request ends with one event whose `end` is true, and takes memory until that was read.
 *
 * FAILURES.  What is wrong with one request ends that request.  A failure of the device, or of memory for
 * the pass, ends the core: all its requests end with that error, and every later call fails with it.
 *
 * THREADS.  submit, cancel, events, pause and stats may be called from any thread, also while another is in
 * step; step and wait belong to one thread, which calls no other function of the engine meanwhile. */
#ifndef MOE_RUNTIME_ENGINE_CORE_H
#define MOE_RUNTIME_ENGINE_CORE_H

#include "runtime/engine/engine.h"

struct moe_core;

/* Zeroes are the defaults. */
struct moe_core_options {
    uint64_t cache;             /* bytes for pages; 0: as many as the engine's memory leaves */
    int64_t positions;          /* more than these are of no use in the cache; 0: unknown */
    int64_t batch_tokens;       /* tokens of a step; 0, or more than the engine's batch: that */
    int64_t chunk;              /* tokens of one prompt in a step; 0: batch_tokens */
    int64_t sequences;          /* that run at once; 0, or more than batch_tokens: as many */
    int64_t queue;              /* requests that wait for their first step; 0: any number */
    double aging;               /* seconds that a step of priority is worth (schedule.h) */
    bool apart;                 /* requests share no pages, so that each token of each is computed */
    int64_t unread;             /* tokens after which a request is held; 0: never */
    double patience;            /* seconds for which a request is held; 0: for ever */
    double (*now)(void *ctx);   /* seconds of the clock for deadlines, patience and the order of arrival,
                                   called from all threads; NULL: moe_now */
    void *clock;                /* its ctx */
};

/* Bytes of a page of the cache, with its share of the books. */
uint64_t moe_core_page_bytes(const struct moe_config *g, enum moe_latent_type type);

/* Opens a core on e, which must stay open and is not used otherwise meanwhile.  MOE_USAGE for a cache that
 * holds no page, MOE_NOMEM, also for one that is larger than what the engine's memory leaves; *core is then
 * NULL. */
enum moe_code moe_core_open(struct moe_core **core, struct moe_engine *e, const struct moe_core_options *o,
                            struct moe_err *err);
/* Ends what still runs, without events.  No other thread may be in a call.  NULL-safe; nulls. */
void moe_core_close(struct moe_core **core);

/* Lets the request wait to be computed; *id, never 0, is its name from now on.  Everything it points to is
 * copied, except ctx.  MOE_USAGE for what can never run: an empty prompt, one that does not fit the context
 * or the cache, more than 20 alternatives, an answer so far that has ended already; MOE_MISMATCH for a token
 * outside the vocabulary; MOE_BUSY when as many as may wait do already; MOE_NOMEM; the error that ended the
 * core. */
enum moe_code moe_core_submit(struct moe_core *core, const struct moe_request *q, uint64_t *id,
                              struct moe_err *err);
/* Ends the request with the next step, in whatever state it is.  Does nothing where it has ended. */
void moe_core_cancel(struct moe_core *core, uint64_t id);

/* One step.  *worked: something was computed or taken in; false: there is nothing to do before a call of
 * another function.  Fails with the error that ends the core. */
enum moe_code moe_core_step(struct moe_core *core, bool *worked, struct moe_err *err);
/* Waits until there is something to do: a submission, a cancellation, a reader who came, a deadline.  At
 * most so many seconds. */
void moe_core_wait(struct moe_core *core, double seconds);

/* generated: tokens of the answer, also those that the request came with. */
struct moe_usage { int64_t prompt, cached, generated, preemptions; };

/* What is new of one request.  The caller zeroes it before the first use, may use it again, and releases it
 * in the end; pointers are valid until then. */
struct moe_event {
    uint64_t id;
    void *ctx;                          /* of the request */
    int32_t *tokens; int64_t n_tokens;  /* without the end token */
    struct moe_logprobs *logprobs;      /* [n_tokens]; NULL: none were asked for */
    char *text; size_t text_bytes;      /* whole characters, with a NUL behind; it may lag behind the tokens,
                                           where a character or a stop text may have begun */
    bool end;                           /* nothing comes after this; what follows is set only then */
    enum moe_finish finish;
    struct moe_err err;                 /* of MOE_FINISH_ERROR */
    struct moe_usage usage;
    size_t tokens_cap, logprobs_cap, text_cap;
};
void moe_event_release(struct moe_event *ev);

enum { MOE_ANY_REQUEST = 0 };

/* Waits, at most so many seconds, until the request `id`, or any, has something new, and takes it.  *there:
 * it had.  MOE_NOT_FOUND: there is no such request, or its end was read already; MOE_NOMEM: nothing was
 * taken; the error that ended the core, once all ends were read. */
enum moe_code moe_core_events(struct moe_core *core, uint64_t id, double seconds, struct moe_event *ev,
                              bool *there, struct moe_err *err);

/* While a request is paused, moe_core_events gives nothing of it before it has ended, so that a reader of all
 * requests can leave one unread whose own reader is slow: it is then held as READERS says.  Does nothing
 * where the end was read. */
void moe_core_pause(struct moe_core *core, uint64_t id, bool paused);

/* What docs/reference/engine.md describes.  Counts are since open. */
struct moe_core_stats {
    int64_t waiting, running, held;             /* requests now */
    int64_t pages, pages_used, pages_kept, pages_peak;
    uint64_t cache_bytes, page_bytes;
    int64_t prompt_found, prompt_computed, generated, again; /* tokens */
    int64_t preemptions, evicted, steps;
    int64_t submitted, finished[MOE_FINISH_COUNT];
    double seconds_plan, seconds_pass, seconds_sample;
};
/* As of the end of the last step. */
struct moe_core_stats moe_core_stats(struct moe_core *core);

/* NULL, or a sentence about what is wrong with the books; between steps, in the thread that drives.  For
 * tests. */
const char *moe_core_check(struct moe_core *core);

#endif
