/* SPDX-License-Identifier: Apache-2.0 */
/* What readers see of requests. */
#include "runtime/engine/core-internal.h"

#include "base/grow.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The moment in so many seconds; a day at most. */
static struct timespec after(double seconds)
{
    struct timespec t;
    if (!(seconds < 86400)) seconds = 86400;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double whole = floor(seconds);
    t.tv_sec += (time_t)whole;
    t.tv_nsec += (long)((seconds - whole) * 1e9);
    if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
    return t;
}

void moe_core_wait(struct moe_core *c, double seconds)
{
    if (c->n_timer) seconds = fmin(seconds, c->timer[0]->due - moe_core_now(c));
    if (seconds <= 0) return;
    struct timespec until = after(seconds);
    pthread_mutex_lock(&c->lock);
    while (!c->asked && pthread_cond_timedwait(&c->work, &c->lock, &until) != ETIMEDOUT) continue;
    pthread_mutex_unlock(&c->lock);
}

void moe_event_release(struct moe_event *ev)
{
    free(ev->tokens);
    free(ev->logprobs);
    free(ev->text);
    *ev = (struct moe_event){ 0 };
}

/* ---- with lock held ---- */

static bool reserve(struct moe_event *ev, const struct moe_entry *e, size_t n, size_t bytes)
{
    return MOE_GROW(ev->tokens, ev->tokens_cap, n + 1) && MOE_GROW(ev->text, ev->text_cap, bytes + 1) &&
           (!e->logprobs || MOE_GROW(ev->logprobs, ev->logprobs_cap, n + 1));
}

static void fill_end(struct moe_event *ev, const struct moe_entry *e)
{
    ev->finish = e->finish;
    ev->usage = e->usage;
    if (e->err) ev->err = *e->err;
    else if (e->code != MOE_OK) moe_fail(&ev->err, e->code, "%s", moe_code_text(e->code));
}

/* Copies what is new.  False: no memory. */
static bool fill(struct moe_event *ev, const struct moe_entry *e)
{
    int64_t n = e->shown - e->read;
    size_t bytes = e->shown_text - e->read_text;
    if (!reserve(ev, e, (size_t)n, bytes)) return false;
    ev->id = e->id;
    ev->ctx = e->q.ctx;
    ev->n_tokens = n;
    ev->text_bytes = bytes;
    ev->end = e->ended;
    memcpy(ev->tokens, e->job.ids + e->job.prompt + e->read, (size_t)n * sizeof *ev->tokens);
    memcpy(ev->text, e->answer.text + e->read_text, bytes);
    ev->text[bytes] = 0;
    if (!e->logprobs) free(ev->logprobs), ev->logprobs = NULL, ev->logprobs_cap = 0;
    for (int64_t i = 0; e->logprobs && i < n; i++)
        ev->logprobs[i] = e->logprobs[(e->read + i) % e->logprobs_cap];
    if (e->ended) fill_end(ev, e);
    return true;
}

static void unready(struct moe_core *c, struct moe_entry *e)
{
    if (e->ready_before) e->ready_before->ready_after = e->ready_after;
    else c->ready_first = e->ready_after;
    if (e->ready_after) e->ready_after->ready_before = e->ready_before;
    else c->ready_last = e->ready_before;
    e->ready = false;
}

/* Notes that the event was read.  Returns the request where it has to be freed. */
static struct moe_entry *take(struct moe_core *c, struct moe_entry *e)
{
    unready(c, e);
    e->read = e->shown;
    e->read_text = e->shown_text;
    if (e->held) {
        e->held = false;
        moe_core_ask(c, e, MOE_ASK_RESUME);
    }
    if (!e->ended) return NULL;
    moe_core_forget_id(c, e);
    e->orphan = true;
    return e->asked ? NULL : e;
}

/* ---- public ---- */

enum moe_code moe_core_events(struct moe_core *c, uint64_t id, double seconds, struct moe_event *ev,
                              bool *there, struct moe_err *err)
{
    struct timespec until = after(seconds > 0 ? seconds : 0);
    struct moe_entry *e, *done = NULL;
    enum moe_code code = MOE_OK;
    bool late = !(seconds > 0);
    *there = false;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        e = id == MOE_ANY_REQUEST ? c->ready_first : moe_core_find(c, id);
        if (late || (e && e->ready) || (!e && id != MOE_ANY_REQUEST) || c->closed != MOE_OK) break;
        late = pthread_cond_timedwait(&c->news, &c->lock, &until) == ETIMEDOUT;
    }
    if (!e && id != MOE_ANY_REQUEST) {
        code = moe_fail(err, MOE_NOT_FOUND, "there is no request %llu", (unsigned long long)id);
    } else if (e && e->ready) {
        *there = fill(ev, e);
        if (*there) done = take(c, e);
        else code = moe_fail(err, MOE_NOMEM, "no memory for an answer");
    } else if (c->closed != MOE_OK) {
        *err = c->err;
        code = c->closed;
    }
    pthread_mutex_unlock(&c->lock);
    moe_entry_free(done);
    return code;
}

void moe_core_pause(struct moe_core *c, uint64_t id, bool paused)
{
    pthread_mutex_lock(&c->lock);
    struct moe_entry *e = moe_core_find(c, id);
    if (e && !e->ended) {
        e->paused = paused;
        if (paused && e->ready) unready(c, e);
        if (!paused && !e->q.whole && e->shown > e->read) moe_core_make_ready(c, e);
        if (!paused) pthread_cond_broadcast(&c->news);
    }
    pthread_mutex_unlock(&c->lock);
}

struct moe_core_stats moe_core_stats(struct moe_core *c)
{
    pthread_mutex_lock(&c->lock);
    struct moe_core_stats s = c->shown;
    pthread_mutex_unlock(&c->lock);
    return s;
}
