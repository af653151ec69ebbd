/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/schedule.h"

#include "base/grow.h"
#include "base/minmax.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a token counts when tenants are compared. */
enum { PROMPT_WEIGHT = 1, GENERATED_WEIGHT = 2 };

struct moe_tenant {
    uint64_t id;
    int64_t served;                     /* tokens it was given, weighted */
    int64_t jobs;                       /* that wait or run */
    struct moe_job **heap; size_t cap;  /* those that wait; the first in order is heap[0] */
    int64_t n;
};

struct moe_schedule {
    struct moe_schedule_limits limits;
    struct moe_pages *pages;
    struct moe_tenant **tenant; size_t tenants_cap;
    int64_t n_tenants;
    struct moe_job **running;           /* [limits.running], in order */
    int64_t n_running, submitted;
    int64_t left_served;                /* what the tenant was given whose last job ended last */
    struct moe_job *blocked;            /* who is first in line and found too few pages; NULL: nobody */
    int64_t blocked_left;               /* the pages that were left then */
    int64_t blocked_steps;              /* steps since then */
    struct moe_schedule_step step;
    struct moe_schedule_stats stats;
};

/* ---- order ---- */

static bool before(const struct moe_job *a, const struct moe_job *b)
{
    return a->key < b->key || (a->key == b->key && a->number < b->number);
}

static void put(struct moe_job **list, int64_t i, struct moe_job *j)
{
    list[i] = j;
    j->place = i;
}

/* ---- the jobs of a tenant that wait: a binary heap ---- */

static void sift_up(struct moe_tenant *t, int64_t i, struct moe_job *j)
{
    for (; i > 0 && before(j, t->heap[(i - 1) / 2]); i = (i - 1) / 2) put(t->heap, i, t->heap[(i - 1) / 2]);
    put(t->heap, i, j);
}

static void sift_down(struct moe_tenant *t, int64_t i, struct moe_job *j)
{
    for (int64_t child; (child = 2 * i + 1) < t->n; i = child) {
        if (child + 1 < t->n && before(t->heap[child + 1], t->heap[child])) child++;
        if (!before(t->heap[child], j)) break;
        put(t->heap, i, t->heap[child]);
    }
    put(t->heap, i, j);
}

/* There is room: submit made it, for all jobs of the tenant. */
static void wait_in_line(struct moe_schedule *s, struct moe_job *j)
{
    struct moe_tenant *t = j->of;
    j->state = MOE_JOB_WAITING;
    t->n++;
    s->stats.waiting++;
    sift_up(t, t->n - 1, j);
}

static void leave_line(struct moe_schedule *s, struct moe_job *j)
{
    struct moe_tenant *t = j->of;
    struct moe_job *last = t->heap[--t->n];
    int64_t i = j->place;
    s->stats.waiting--;
    if (last == j) return;
    if (i > 0 && before(last, t->heap[(i - 1) / 2])) sift_up(t, i, last);
    else sift_down(t, i, last);
}

/* ---- tenants ---- */

/* What the least served of the tenants with jobs was given.  Where none has any, what the one was that left
 * last: so nobody who comes to an idle schedule is behind by all that he was ever given (Sheng et al.). */
static int64_t least_served(const struct moe_schedule *s)
{
    int64_t least = -1;
    for (int64_t i = 0; i < s->n_tenants; i++) {
        const struct moe_tenant *t = s->tenant[i];
        if (t->jobs && (least < 0 || t->served < least)) least = t->served;
    }
    return least < 0 ? s->left_served : least;
}

static void free_tenant(struct moe_tenant *t)
{
    free(t->heap);
    free(t);
}

/* Forgets the tenants without jobs that would begin anew at `least` or above what they have. */
static void forget_idle(struct moe_schedule *s, int64_t least)
{
    int64_t n = 0;
    for (int64_t i = 0; i < s->n_tenants; i++)
        if (s->tenant[i]->jobs || s->tenant[i]->served > least) s->tenant[n++] = s->tenant[i];
        else free_tenant(s->tenant[i]);
    s->n_tenants = n;
}

static struct moe_tenant *new_tenant(struct moe_schedule *s, uint64_t id)
{
    if ((size_t)s->n_tenants == s->tenants_cap) forget_idle(s, least_served(s));
    if (!MOE_GROW(s->tenant, s->tenants_cap, (size_t)s->n_tenants + 1)) return NULL;
    struct moe_tenant *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->id = id;
    return s->tenant[s->n_tenants++] = t;
}

/* The tenant of a job that comes; NULL without memory.  One that had no jobs begins where the others are. */
static struct moe_tenant *tenant_of(struct moe_schedule *s, uint64_t id)
{
    struct moe_tenant *t = NULL;
    for (int64_t i = 0; i < s->n_tenants && !t; i++)
        if (s->tenant[i]->id == id) t = s->tenant[i];
    if (!t) t = new_tenant(s, id);
    if (t && !t->jobs) t->served = moe_max_i64(t->served, least_served(s));
    return t;
}

/* The tenant whose turn it is: of those with waiting jobs the least served, and of equals the one whose job
 * is first in order.  NULL: nobody waits. */
static struct moe_tenant *next_tenant(const struct moe_schedule *s)
{
    struct moe_tenant *best = NULL;
    for (int64_t i = 0; i < s->n_tenants; i++) {
        struct moe_tenant *t = s->tenant[i];
        if (t->n && (!best || t->served < best->served ||
                     (t->served == best->served && before(t->heap[0], best->heap[0]))))
            best = t;
    }
    return best;
}

/* ---- running jobs ---- */

static void run(struct moe_schedule *s, struct moe_job *j)
{
    int64_t i = s->n_running++;
    for (; i > 0 && before(j, s->running[i - 1]); i--) put(s->running, i, s->running[i - 1]);
    put(s->running, i, j);
    j->state = MOE_JOB_RUNNING;
}

static void stop(struct moe_schedule *s, struct moe_job *j)
{
    s->n_running--;
    for (int64_t i = j->place; i < s->n_running; i++) put(s->running, i, s->running[i + 1]);
    moe_pages_release(s->pages, &j->table, j->ids);
}

static void preempt(struct moe_schedule *s, struct moe_job *j)
{
    stop(s, j);
    wait_in_line(s, j);
    j->preempted++;
    s->stats.preemptions++;
}

static int64_t pages_for(int64_t positions) { return (positions + MOE_PAGE - 1) / MOE_PAGE; }

/* Tokens of the job that are not computed. */
static int64_t todo(const struct moe_job *j) { return j->n_ids - j->table.positions; }

/* Gives the running job pages for up to n more tokens, and says for how many there are any.  Without one it
 * takes those of the last jobs in order; where the job itself is the last, it is preempted: 0. */
static int64_t secure(struct moe_schedule *s, struct moe_job *j, int64_t n)
{
    int64_t room;
    while ((room = (j->table.n + moe_pages_left(s->pages)) * MOE_PAGE - j->table.positions) < 1) {
        struct moe_job *last = s->running[s->n_running - 1];
        preempt(s, last);
        if (last == j) return 0;
    }
    n = moe_min_i64(n, room);
    MOE_CHECK(moe_pages_grow(s->pages, &j->table, j->table.positions + n));
    return n;
}

/* ---- a step ---- */

static void add_row(struct moe_schedule *s, struct moe_job *j, int64_t n)
{
    struct moe_schedule_step *step = &s->step;
    step->row[step->n_rows++] =
        (struct moe_schedule_row){ j, j->table.positions, n, j->table.positions + n == j->n_ids };
    step->tokens += n;
}

/* How many tokens of the job a step may compute, of which `budget` are left. */
static int64_t most(const struct moe_schedule *s, const struct moe_job *j, int64_t budget)
{
    return moe_min_i64(moe_min_i64(todo(j), s->limits.chunk), budget);
}

/* How many of the running jobs from number i on have one token to compute. */
static int64_t singles(const struct moe_schedule *s, int64_t i)
{
    int64_t n = 0;
    for (; i < s->n_running; i++) n += todo(s->running[i]) == 1;
    return n;
}

/* Running jobs, in order.  Single tokens keep their share of the budget, whatever prompts come first.  Who is
 * preempted stands behind the present job, and has no row yet. */
static void plan_running(struct moe_schedule *s)
{
    int64_t single = singles(s, 0);
    for (int64_t i = 0; i < s->n_running; i++) {
        struct moe_job *j = s->running[i];
        int64_t n = todo(j), preemptions = s->stats.preemptions;
        if (n == 1) single--;
        else n = most(s, j, s->limits.batch_tokens - s->step.tokens - single);
        if (n > 0 && (n = secure(s, j, n)) > 0) add_row(s, j, n);
        if (s->stats.preemptions != preemptions) single = singles(s, i + 1);
    }
}

/* Whether it is of no use to try to admit the job again.  To look for its pages takes time for each of them,
 * which a long prompt that waits would take from every step.  Pages that others compute meanwhile may be
 * found, too, so it is tried again from time to time. */
static bool is_blocked(struct moe_schedule *s, const struct moe_job *j)
{
    enum { STEPS = 256 };
    return j == s->blocked && moe_pages_left(s->pages) <= s->blocked_left && s->n_running > 0 &&
           ++s->blocked_steps < STEPS;
}

/* Lets the first job of the tenant run, if pages for all its tokens, and one more where others run, are left;
 * else returns NULL. */
static struct moe_job *admit(struct moe_schedule *s, struct moe_tenant *t)
{
    struct moe_job *j = t->heap[0];
    if (is_blocked(s, j)) return NULL;
    s->blocked = NULL;
    int64_t found = moe_pages_find(s->pages, &j->table, j->root, j->ids, j->n_ids - 1);
    if (pages_for(j->n_ids) - j->table.n + (s->n_running > 0) > moe_pages_left(s->pages)) {
        moe_pages_release(s->pages, &j->table, j->ids);
        s->blocked = j;
        s->blocked_left = moe_pages_left(s->pages);
        s->blocked_steps = 0;
        return NULL;
    }
    struct moe_page_copy *copy = &s->step.copy[s->step.n_copies];
    if (moe_pages_find_rows(s->pages, &j->table, j->ids, j->n_ids - 1, copy)) {
        found += copy->rows;
        s->step.n_copies++;
    }
    if (!j->admitted) j->found = moe_min_i64(found, j->prompt);
    j->admitted = true;
    leave_line(s, j);
    run(s, j);
    return j;
}

/* Whether the step computes a page that the job would then find: those before it can be found already. */
static bool is_coming(const struct moe_schedule *s, const struct moe_job *j)
{
    for (int64_t i = 0; i < s->step.n_rows; i++) {
        const struct moe_schedule_row *r = &s->step.row[i];
        int64_t end = (r->first / MOE_PAGE + 1) * MOE_PAGE;
        if (r->first + r->n >= end && j->n_ids > end && r->job->root.a == j->root.a &&
            r->job->root.b == j->root.b && !memcmp(r->job->ids, j->ids, (size_t)end * sizeof *j->ids))
            return true;
    }
    return false;
}

/* Several prompts that begin alike and come together are so computed once.  Those that wait for a page keep
 * their place in the order, and a place among the running. */
static void plan_waiting(struct moe_schedule *s)
{
    enum { DEFERRED = 64 };
    struct moe_job *deferred = NULL;
    for (int64_t n = 0; n < DEFERRED && s->step.tokens < s->limits.batch_tokens &&
                        s->n_running + n < s->limits.running; ) {
        struct moe_tenant *t = next_tenant(s);
        struct moe_job *j = t ? t->heap[0] : NULL;
        if (j && is_coming(s, j)) {
            leave_line(s, j);
            j->next_deferred = deferred;
            deferred = j;
            n++;
            continue;
        }
        j = j ? admit(s, t) : NULL;
        if (!j) break;
        add_row(s, j, secure(s, j, most(s, j, s->limits.batch_tokens - s->step.tokens)));
    }
    for (; deferred; deferred = deferred->next_deferred) wait_in_line(s, deferred);
}

/* Powers of two up to 256, then its multiples. */
static int64_t padded(int64_t tokens)
{
    int64_t size = 1;
    while (size < tokens && size < 256) size *= 2;
    return (tokens + size - 1) / size * size;
}

const struct moe_schedule_step *moe_schedule_plan(struct moe_schedule *s)
{
    int64_t preemptions = s->stats.preemptions;
    s->step.n_rows = s->step.tokens = s->step.n_copies = 0;
    plan_running(s);
    /* while pages are taken from some, nobody else gets any */
    if (s->stats.preemptions == preemptions) plan_waiting(s);
    s->step.padded = padded(s->step.tokens);
    return &s->step;
}

/* What the tokens [from, to) of the job are, counted into the books. */
static void count_tokens(struct moe_schedule *s, struct moe_job *j, int64_t from, int64_t to)
{
    int64_t prompt = moe_max_i64(0, moe_min_i64(to, j->prompt) - from), generated = to - from - prompt;
    s->stats.tokens_prompt += prompt;
    s->stats.tokens_generated += generated;
    s->stats.tokens_again += moe_max_i64(0, moe_min_i64(to, j->reached) - from);
    j->of->served += PROMPT_WEIGHT * prompt + GENERATED_WEIGHT * generated;
    j->reached = moe_max_i64(j->reached, to);
}

void moe_schedule_computed(struct moe_schedule *s)
{
    for (int64_t i = 0; i < s->step.n_rows; i++) {
        const struct moe_schedule_row *r = &s->step.row[i];
        moe_pages_written(s->pages, &r->job->table, r->job->ids, r->first + r->n);
        count_tokens(s, r->job, r->first, r->first + r->n);
    }
    s->stats.steps++;
    s->step.n_rows = s->step.n_copies = 0;
}

/* ---- jobs ---- */

enum moe_code moe_schedule_submit(struct moe_schedule *s, struct moe_job *j, struct moe_err *err)
{
    int64_t pages = moe_pages_stats(s->pages).pages;
    MOE_CHECK(j->state == MOE_JOB_NEW && j->n_ids <= j->max_positions);
    if (j->n_ids < 1) return moe_fail(err, MOE_USAGE, "the prompt is empty");
    if (pages_for(j->max_positions) > pages)
        return moe_fail(err, MOE_USAGE, "%lld positions do not fit the cache of %lld",
                        (long long)j->max_positions, (long long)pages * MOE_PAGE);
    MOE_TRY(moe_table_reserve(&j->table, j->max_positions, err));
    struct moe_tenant *t = tenant_of(s, j->tenant);
    if (!t || !MOE_GROW(t->heap, t->cap, (size_t)t->jobs + 1)) {
        moe_table_free(&j->table);
        return moe_fail(err, MOE_NOMEM, "no memory for a request");
    }
    j->of = t;
    t->jobs++;
    j->key = j->arrival - s->limits.aging * j->priority;
    j->number = s->submitted++;
    wait_in_line(s, j);
    return MOE_OK;
}

/* Takes the job's row, where it has one, out of the step that is not yet computed. */
static void drop_row(struct moe_schedule *s, const struct moe_job *j)
{
    struct moe_schedule_step *step = &s->step;
    int64_t n = 0;
    for (int64_t i = 0; i < step->n_rows; i++) {
        if (step->row[i].job != j) step->row[n++] = step->row[i];
        else step->tokens -= step->row[i].n;
    }
    step->n_rows = n;
}

void moe_schedule_end(struct moe_schedule *s, struct moe_job *j)
{
    if (j->state == MOE_JOB_NEW) return;
    if (s->blocked == j) s->blocked = NULL;
    if (j->state == MOE_JOB_RUNNING) drop_row(s, j);
    if (j->state == MOE_JOB_RUNNING) stop(s, j);
    else leave_line(s, j);
    if (!--j->of->jobs) s->left_served = j->of->served;
    j->of = NULL;
    j->state = MOE_JOB_NEW;
    moe_table_free(&j->table);
}

/* ---- the schedule ---- */

static enum moe_code check_limits(const struct moe_schedule_limits *l, struct moe_err *err)
{
    if (l->running < 1 || l->running > l->batch_tokens)
        return moe_fail(err, MOE_USAGE,
                        "%lld sequences and %lld tokens in a step: want 1 or more, and as many tokens",
                        (long long)l->running, (long long)l->batch_tokens);
    if (l->chunk < 0)
        return moe_fail(err, MOE_USAGE, "prompts in chunks of %lld tokens: want 0 or more",
                        (long long)l->chunk);
    if (!(l->aging >= 0 && isfinite(l->aging)))
        return moe_fail(err, MOE_USAGE, "%g seconds for a step of priority: want 0 or more", l->aging);
    return MOE_OK;
}

enum moe_code moe_schedule_open(struct moe_schedule **out, struct moe_pages *pages,
                                const struct moe_schedule_limits *limits, struct moe_err *err)
{
    int64_t n = limits->running;
    *out = NULL;
    MOE_TRY(check_limits(limits, err));
    struct moe_schedule *s = calloc(1, sizeof *s);
    if (s) {
        s->limits = *limits;
        if (!s->limits.chunk) s->limits.chunk = limits->batch_tokens;
        s->pages = pages;
        s->running = calloc((size_t)n, sizeof *s->running);
        s->step.row = calloc((size_t)n, sizeof *s->step.row);
        s->step.copy = calloc((size_t)n, sizeof *s->step.copy);
    }
    *out = s;
    if (s && s->running && s->step.row && s->step.copy) return MOE_OK;
    moe_schedule_close(out);
    return moe_fail(err, MOE_NOMEM, "no memory for a schedule of %lld sequences", (long long)n);
}

void moe_schedule_close(struct moe_schedule **out)
{
    struct moe_schedule *s = *out;
    if (!s) return;
    for (int64_t i = 0; i < s->n_tenants; i++) {
        MOE_CHECK(!s->tenant[i]->jobs);
        free_tenant(s->tenant[i]);
    }
    free(s->tenant);
    free(s->running);
    free(s->step.row);
    free(s->step.copy);
    free(s);
    *out = NULL;
}

struct moe_schedule_stats moe_schedule_stats(const struct moe_schedule *s)
{
    struct moe_schedule_stats stats = s->stats;
    stats.running = s->n_running;
    return stats;
}

const char *moe_schedule_check(const struct moe_schedule *s)
{
    int64_t waiting = 0, jobs = 0;
    for (int64_t i = 0; i < s->n_tenants; i++) {
        const struct moe_tenant *t = s->tenant[i];
        waiting += t->n;
        jobs += t->jobs;
        for (int64_t k = 0; k < t->n; k++) {
            const struct moe_job *j = t->heap[k];
            if (j->place != k || j->of != t || j->state != MOE_JOB_WAITING || j->table.n)
                return "a waiting job is not where it should be, or has pages";
            if (k && before(j, t->heap[(k - 1) / 2])) return "the line of a tenant is out of order";
        }
    }
    if (waiting != s->stats.waiting || jobs != waiting + s->n_running) return "jobs are lost";
    for (int64_t i = 0; i < s->n_running; i++) {
        const struct moe_job *j = s->running[i];
        if (j->place != i || j->state != MOE_JOB_RUNNING) return "a running job is not where it should be";
        if (i && before(j, s->running[i - 1])) return "running jobs are out of order";
    }
    const struct moe_table **t = malloc((size_t)(s->n_running + 1) * sizeof *t);
    for (int64_t i = 0; t && i < s->n_running; i++) t[i] = &s->running[i]->table;
    const char *wrong = t ? moe_pages_check(s->pages, t, s->n_running) : "no memory for the check";
    free(t);
    return wrong;
}
