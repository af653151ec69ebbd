/* SPDX-License-Identifier: Apache-2.0 */
/* The books of the thread that drives the core: what was asked, whose time has come, who has ended or waits
 * for its reader, and what readers are shown. */
#include "runtime/engine/core-internal.h"

#include "base/grow.h"

#include <stdlib.h>

/* ---- times: a binary heap of requests by `due` ---- */

static void put(struct moe_core *c, int64_t i, struct moe_entry *e)
{
    c->timer[i] = e;
    e->timer_place = i;
}

static void sift(struct moe_core *c, int64_t i, struct moe_entry *e)
{
    for (; i > 0 && e->due < c->timer[(i - 1) / 2]->due; i = (i - 1) / 2) put(c, i, c->timer[(i - 1) / 2]);
    for (int64_t k; (k = 2 * i + 1) < c->n_timer; i = k) {
        if (k + 1 < c->n_timer && c->timer[k + 1]->due < c->timer[k]->due) k++;
        if (c->timer[k]->due >= e->due) break;
        put(c, i, c->timer[k]);
    }
    put(c, i, e);
}

static void stop_timer(struct moe_core *c, struct moe_entry *e)
{
    if (e->timer_place < 0) return;
    struct moe_entry *last = c->timer[--c->n_timer];
    if (last != e) sift(c, e->timer_place, last);
    e->timer_place = -1;
}

/* Sets the time of what happens next to the request: its deadline, or the end of its reader's time. */
static void set_timer(struct moe_core *c, struct moe_entry *e)
{
    double late = e->state == MOE_ENTRY_HELD && c->o.patience > 0 ? e->held_since + c->o.patience : 0;
    stop_timer(c, e);
    e->due = e->q.deadline > 0 && (late == 0 || e->q.deadline < late) ? e->q.deadline : late;
    if (e->due > 0) sift(c, c->n_timer++, e);
}

/* ---- the end of a request ---- */

void moe_core_change(struct moe_core *c, struct moe_entry *e)
{
    if (e->changed) return;
    e->changed = true;
    e->next_changed = NULL;
    *c->changed_end = e;
    c->changed_end = &e->next_changed;
}

static void leave_schedule(struct moe_core *c, struct moe_entry *e)
{
    if (e->state == MOE_ENTRY_SCHEDULED) moe_schedule_end(c->schedule, &e->job);
    if (e->state == MOE_ENTRY_HELD) c->n_held--;
}

void moe_core_end(struct moe_core *c, struct moe_entry *e, enum moe_finish finish, const struct moe_err *err)
{
    struct moe_err ignored;
    if (e->state == MOE_ENTRY_ENDED) return;
    leave_schedule(c, e);
    stop_timer(c, e);
    c->n_live -= e->live;
    e->state = MOE_ENTRY_ENDED;
    e->finish = finish;
    if (err) {
        e->code = err->code;
        e->err = malloc(sizeof *err);
        if (e->err) *e->err = *err;
    }
    /* of an answer that is cut off, a character that was begun is left out; so it is without memory */
    if (finish > MOE_FINISH_LENGTH) e->answer.sent = e->answer.bytes;
    else moe_answer_end(&e->answer, &ignored);
    c->stats.finished[finish]++;
    moe_core_change(c, e);
}

/* ---- what was asked ---- */

static enum moe_code schedule(struct moe_core *c, struct moe_entry *e, struct moe_err *err)
{
    if (!MOE_GROW(c->timer, c->timer_cap, (size_t)c->n_live + 1))
        return moe_fail(err, MOE_NOMEM, "no memory for a request");
    MOE_TRY(moe_schedule_submit(c->schedule, &e->job, err));
    if (!e->live) e->live = true, c->n_live++;
    e->state = MOE_ENTRY_SCHEDULED;
    set_timer(c, e);
    return MOE_OK;
}

static void answer_asked(struct moe_core *c, struct moe_entry *e, int asked)
{
    struct moe_err err;
    if (e->state == MOE_ENTRY_ENDED) return;
    if (asked & MOE_ASK_BEGIN) c->stats.submitted++;
    if (asked & MOE_ASK_CANCEL) {
        moe_core_end(c, e, MOE_FINISH_CANCELLED, NULL);
        return;
    }
    bool begin = e->state == MOE_ENTRY_NEW, resume = e->state == MOE_ENTRY_HELD;
    if (!begin && !resume) return;
    c->n_held -= resume;
    e->state = MOE_ENTRY_NEW;
    if (schedule(c, e, &err) != MOE_OK) moe_core_end(c, e, MOE_FINISH_ERROR, &err);
}

bool moe_core_drain(struct moe_core *c)
{
    bool any = false;
    for (;;) {
        pthread_mutex_lock(&c->lock);
        struct moe_entry *e = c->asked;
        int asked = 0;
        if (e) {
            c->asked = e->next_asked;
            if (!c->asked) c->asked_end = &c->asked;
            asked = e->asked;
            e->asked = 0;
        }
        /* one whose end is shown may be freed by its reader as soon as the lock is given up */
        bool orphan = e && e->orphan, ended = e && e->ended;
        pthread_mutex_unlock(&c->lock);
        if (!e) return any;
        any = true;
        if (orphan) moe_entry_free(e);
        else if (!ended) answer_asked(c, e, asked);
    }
}

bool moe_core_expire(struct moe_core *c)
{
    struct moe_err err;
    double now = c->n_timer ? moe_core_now(c) : 0;
    bool any = false;
    for (; c->n_timer && c->timer[0]->due <= now; any = true) {
        struct moe_entry *e = c->timer[0];
        if (e->q.deadline > 0 && e->q.deadline <= now) {
            moe_core_end(c, e, MOE_FINISH_DEADLINE, NULL);
        } else {
            moe_fail(&err, MOE_IO, "the answer was not read for %g seconds", now - e->held_since);
            moe_core_end(c, e, MOE_FINISH_ERROR, &err);
        }
    }
    return any;
}

/* ---- what readers see ---- */

void moe_core_make_ready(struct moe_core *c, struct moe_entry *e)
{
    if (e->ready) return;
    e->ready = true;
    e->ready_before = c->ready_last;
    e->ready_after = NULL;
    if (c->ready_last) c->ready_last->ready_after = e;
    else c->ready_first = e;
    c->ready_last = e;
}

/* With lock held.  True: the reader lags, and nothing more is computed before it has come. */
static bool show(struct moe_core *c, struct moe_entry *e)
{
    e->shown = e->answer.n;
    e->shown_text = e->answer.sent;
    e->ended = e->state == MOE_ENTRY_ENDED;
    if (e->ended && !e->begun) c->queued--;
    if (e->ended)
        e->usage = (struct moe_usage){ .prompt = e->job.prompt,
                                       .cached = e->job.found,
                                       .generated = e->answer.n,
                                       .preemptions = e->job.preempted };
    if (e->ended || (!e->q.whole && !e->paused && e->shown > e->read)) moe_core_make_ready(c, e);
    e->held = !e->ended && !e->q.whole && c->o.unread > 0 && e->shown - e->read >= c->o.unread;
    return e->held;
}

static void hold(struct moe_core *c, struct moe_entry *e)
{
    leave_schedule(c, e);
    e->state = MOE_ENTRY_HELD;
    e->held_since = moe_core_now(c);
    c->n_held++;
    set_timer(c, e);
}

static void gather_stats(struct moe_core *c)
{
    struct moe_schedule_stats s = moe_schedule_stats(c->schedule);
    struct moe_page_stats p = moe_pages_stats(c->pages);
    struct moe_core_stats *t = &c->stats;
    t->waiting = s.waiting, t->running = s.running, t->held = c->n_held;
    t->pages_used = p.used, t->pages_kept = p.kept, t->pages_peak = p.used_peak;
    t->prompt_computed = s.tokens_prompt, t->again = s.tokens_again;
    t->preemptions = s.preemptions, t->evicted = p.evicted, t->steps = s.steps;
}

void moe_core_publish(struct moe_core *c)
{
    struct moe_entry *lagging = NULL, *next;
    bool news = c->changed != NULL;
    pthread_mutex_lock(&c->lock);
    c->queued -= c->n_begun;
    /* an ended request may be freed by its reader as soon as the lock is given up */
    for (struct moe_entry *e = c->changed; e; e = next) {
        next = e->next_changed;
        e->changed = false;
        if (!show(c, e)) continue;
        e->next_changed = lagging;
        lagging = e;
    }
    c->changed = NULL;
    c->changed_end = &c->changed;
    c->n_begun = 0;
    pthread_mutex_unlock(&c->lock);
    for (; lagging; lagging = next) {
        next = lagging->next_changed;
        hold(c, lagging);
    }
    gather_stats(c);
    pthread_mutex_lock(&c->lock);
    c->shown = c->stats;
    c->closed = c->code;
    if (news) pthread_cond_broadcast(&c->news);
    pthread_mutex_unlock(&c->lock);
}
