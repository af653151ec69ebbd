/* SPDX-License-Identifier: Apache-2.0 */
/* The reader thread: takes events of the core and writes them into the answers. */
#include "runtime/server/server-internal.h"

#include "base/io.h"
#include "base/thread.h"

#include <string.h>
#include <time.h>

/* ---- with the exchange's lock held ---- */

static void count_usage(struct moe_exchange *x, const struct moe_exchange_choice *c,
                        const struct moe_usage *u)
{
    x->generated_tokens += u->generated;
    if (c->index % x->per_prompt) return; /* the choices of one prompt share it */
    x->prompt_tokens += u->prompt;
    x->cached_tokens += u->cached;
}

/* Answers whole, once all choices have ended. */
static void finish_whole(struct moe_exchange *x)
{
    struct moe_api_error e = { 0 };
    for (int64_t i = 0; i < x->n_choices; i++) {
        if (x->choice[i].got.finish != MOE_FINISH_ERROR) continue;
        e.err = x->choice[i].got.err;
        moe_api_fail_code(&e, NULL);
        if (e.status < 500) e.status = 500, e.type = "server_error"; /* the request was sound */
        moe_exchange_refuse_locked(x, &e);
        return;
    }
    moe_exchange_answer_locked(x, 200, x->format->whole(x));
}

static void finish_stream(struct moe_exchange *x)
{
    if (x->include_usage) moe_exchange_event(x, x->format->usage(x));
    moe_exchange_end_stream(x);
}

static void stream(struct moe_exchange *x, struct moe_exchange_choice *c, const struct moe_event *ev)
{
    if (ev->end && ev->finish == MOE_FINISH_ERROR) {
        struct moe_api_error e = { .err = ev->err };
        moe_api_fail_code(&e, NULL);
        moe_exchange_event(x, moe_api_error_json(&e));
    } else {
        x->format->put(x, c, ev);
    }
    if (!x->n_live) finish_stream(x);
    else moe_exchange_throttle(x);
}

/* ---- events ---- */

static void take(struct moe_event *ev)
{
    struct moe_exchange_choice *c = ev->ctx;
    struct moe_exchange *x = c->exchange;
    bool end = ev->end;
    pthread_mutex_lock(&x->lock);
    if (ev->n_tokens && !x->first_seen) {
        x->first_seen = true;
        moe_histogram_add(&x->server->metrics.first, moe_now() - x->begun);
    }
    if (end) {
        c->live = false;
        x->n_live--;
        count_usage(x, c, &ev->usage);
    }
    if (!x->dropped && x->stream) {
        stream(x, c, ev);
    } else if (!x->dropped) {
        c->got = *ev;
        *ev = (struct moe_event){ .id = 0 }; /* its memory is the choice's now */
        if (!x->n_live) finish_whole(x);
    }
    pthread_mutex_unlock(&x->lock);
    if (end) moe_exchange_drop(x);
}

static void *run(void *arg)
{
    struct moe_server *s = arg;
    struct moe_event ev = { 0 };
    enum { WAIT_MS = 200, RETRY_MS = 10 };
    for (bool there = true; there || !atomic_load(&s->stop_reader);) {
        struct moe_err err;
        enum moe_code code = moe_core_events(s->core, MOE_ANY_REQUEST, WAIT_MS * 1e-3, &ev, &there, &err);
        if (there) take(&ev);
        if (code == MOE_NOMEM) nanosleep(&(struct timespec){ .tv_nsec = RETRY_MS * 1000000 }, NULL);
        else if (code != MOE_OK) break; /* the core has ended, and all were told */
    }
    moe_event_release(&ev);
    return NULL;
}

enum moe_code moe_reader_open(struct moe_server *s, struct moe_err *err)
{
    int e = moe_thread_start(&s->reader_thread, run, s);
    if (e) return moe_fail(err, MOE_NOMEM, "cannot start a thread: %s", strerror(e));
    s->has_reader = true;
    return MOE_OK;
}

void moe_reader_close(struct moe_server *s)
{
    if (!s->has_reader) return;
    atomic_store(&s->stop_reader, true);
    pthread_join(s->reader_thread, NULL);
    s->has_reader = false;
}
