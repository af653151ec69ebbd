/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the schedule with a model that is a hash: a row of the cache is made of the row before it, read where
 * the block table says, and of its token; a token is made of all rows of its sequence.  So a row that is
 * missing, stale or another sequence's changes the text, which has to be the one that the sequence gets
 * alone.
 *
 *   test-schedule [N]      N random schedules; by default 1000, under sanitizers 200 */
#include "tests/ok.h"
#include "runtime/engine/schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct moe_err err;

/* ---- the model ---- */

enum { PAGES = 64, LONGEST = 320, VOCAB = 5 };
static uint64_t row[PAGES][MOE_PAGE];

static uint64_t mixed(uint64_t a, uint64_t b)
{
    a = (a ^ b) * 0x9e3779b97f4a7c15u;
    return a ^ a >> 29;
}

static uint64_t *row_of(const struct moe_table *t, int64_t position)
{
    OK(position / MOE_PAGE < t->n);
    return &row[t->page[position / MOE_PAGE]][position % MOE_PAGE];
}

static int32_t token_of(uint64_t sum, uint64_t salt, int64_t position)
{
    return (int32_t)(mixed(sum, mixed(salt, (uint64_t)position)) % VOCAB);
}

/* The next token after ids [n], without a cache. */
static int32_t alone(const int32_t *ids, int64_t n, uint64_t salt)
{
    uint64_t at = salt, sum = 0;
    for (int64_t i = 0; i < n; i++) sum += at = mixed(at, (uint64_t)ids[i]);
    return token_of(sum, salt, n);
}

/* ---- requests ---- */

struct request {
    struct moe_job job;
    int32_t ids[LONGEST];
    int64_t max_tokens;
    uint64_t salt;
    bool live;
    int64_t begun, ended;               /* steps */
};

static uint64_t seed;
static int64_t below(int64_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((seed >> 33) % (uint64_t)n);
}

static void compute(const struct moe_schedule_step *step)
{
    for (int64_t i = 0; i < step->n_copies; i++)
        memcpy(row[step->copy[i].to], row[step->copy[i].from], (size_t)step->copy[i].rows * sizeof **row);
    for (int64_t i = 0; i < step->n_rows; i++) {
        const struct moe_schedule_row *r = &step->row[i];
        struct request *q = (struct request *)(void *)r->job;
        for (int64_t p = r->first; p < r->first + r->n; p++)
            *row_of(&r->job->table, p) =
                mixed(p ? *row_of(&r->job->table, p - 1) : q->salt, (uint64_t)r->job->ids[p]);
    }
}

/* Samples the token of a job whose row was its last.  True when the request ends with it. */
static bool sample(struct request *q)
{
    uint64_t sum = 0;
    struct moe_job *j = &q->job;
    for (int64_t p = 0; p < j->n_ids; p++) sum += *row_of(&j->table, p);
    if (j->n_ids - j->prompt == q->max_tokens) return true;
    int32_t id = token_of(sum, q->salt, j->n_ids);
    OK(id == alone(j->ids, j->n_ids, q->salt));
    j->ids[j->n_ids++] = id;
    return j->n_ids - j->prompt == q->max_tokens;
}

static void check_step(const struct moe_schedule_step *step, const struct moe_schedule_limits *l)
{
    int64_t tokens = 0;
    for (int64_t i = 0; i < step->n_rows; i++) {
        const struct moe_schedule_row *r = &step->row[i];
        const struct moe_job *j = r->job;
        OK(r->n > 0 && r->first == j->table.positions && r->first + r->n <= j->n_ids);
        OK(r->last == (r->first + r->n == j->n_ids) && j->table.n * MOE_PAGE >= r->first + r->n);
        OK(!l->chunk || r->n <= l->chunk);
        for (int64_t k = 0; k < i; k++) OK(step->row[k].job != j);
        tokens += r->n;
    }
    OK(tokens == step->tokens && tokens <= l->batch_tokens && step->padded >= tokens);
    OK(step->n_rows <= l->running);
}

/* ---- random schedules ---- */

enum { REQUESTS = 40 };
struct world {
    struct moe_pages *pages;
    struct moe_schedule *s;
    struct moe_schedule_limits limits;
    struct request q[REQUESTS];
    int64_t n, begun, ended, steps;
};

/* Prompts often begin as another one does, and some are the same. */
static void draw_request(struct world *w, int64_t i)
{
    struct request *q = &w->q[i], *other = &w->q[below(i + 1)];
    int64_t same = below(3) ? below(2) ? other->job.prompt : below(other->job.prompt + 1) : 0;
    int64_t room = moe_pages_stats(w->pages).pages * MOE_PAGE, most = room < LONGEST ? room : LONGEST;
    int64_t prompt = 1 + below(below(4) ? most / 3 : most - 40);
    memset(q, 0, sizeof *q);
    q->salt = below(6) ? 0 : 99;
    for (int64_t k = 0; k < prompt; k++) q->ids[k] = k < same ? other->ids[k] : (int32_t)below(VOCAB);
    q->max_tokens = below(8) ? 1 + below(below(2) ? 39 : most - prompt) : 0;
    q->job = (struct moe_job){ .ids = q->ids, .n_ids = prompt, .prompt = prompt, .tenant = (uint64_t)below(4),
                               .max_positions = prompt + q->max_tokens, .priority = (int)below(3),
                               .arrival = (double)w->steps, .root = moe_pages_root(&q->salt, 8) };
}

static void finish(struct world *w, struct request *q)
{
    moe_schedule_end(w->s, &q->job);
    q->live = false;
    q->ended = w->steps;
    w->ended++;
}

/* The running job that is first in order; NULL where none runs. */
static struct moe_job *first_running(struct world *w)
{
    struct moe_job *first = NULL;
    for (int64_t i = 0; i < w->begun; i++) {
        struct moe_job *j = &w->q[i].job;
        if (j->state != MOE_JOB_RUNNING) continue;
        if (!first || j->key < first->key || (j->key == first->key && j->number < first->number)) first = j;
    }
    return first;
}

static void step(struct world *w)
{
    struct request *done[REQUESTS];
    int64_t n = 0;
    while (w->begun < w->n && !below(3)) {
        struct request *q = &w->q[w->begun];
        draw_request(w, w->begun++);
        OK(moe_schedule_submit(w->s, &q->job, &err) == MOE_OK);
        q->live = true;
    }
    if (!below(12) && w->begun) {
        struct request *q = &w->q[below(w->begun)];
        if (q->live) finish(w, q); /* cancelled, wherever it stands */
    }
    struct moe_job *first = first_running(w);
    const struct moe_schedule_step *step = moe_schedule_plan(w->s);
    OK(!first || (step->n_rows > 0 && step->row[0].job == first)); /* it advances in each step */
    struct moe_schedule_stats st = moe_schedule_stats(w->s);
    OK(step->n_rows > 0 || st.waiting + st.running == 0);
    check_step(step, &w->limits);
    compute(step);
    int64_t rows = step->n_rows;
    struct moe_schedule_row copy[REQUESTS];
    memcpy(copy, step->row, (size_t)rows * sizeof *copy);
    moe_schedule_computed(w->s);
    for (int64_t i = 0; i < rows; i++)
        if (copy[i].last && sample((struct request *)(void *)copy[i].job))
            done[n++] = (struct request *)(void *)copy[i].job;
    for (int64_t i = 0; i < n; i++) finish(w, done[i]);
    w->steps++;
    OK(!moe_schedule_check(w->s));
}

static void one_schedule(uint64_t number, struct moe_schedule_stats *all, int64_t *found)
{
    static struct world w;
    memset(&w, 0, sizeof w);
    seed = number * 77777 + 5;
    OK(moe_pages_open(&w.pages, 3 + below(below(2) ? 10 : PAGES - 3), &err) == MOE_OK);
    w.limits.running = 1 + below(12);
    w.limits.batch_tokens = w.limits.running + below(below(2) ? 20 : 300);
    w.limits.chunk = below(2) ? 1 + below(64) : 0;
    w.limits.aging = (double)below(30);
    w.n = 1 + below(REQUESTS);
    OK(moe_schedule_open(&w.s, w.pages, &w.limits, &err) == MOE_OK);
    for (; w.ended < w.n; step(&w)) OK(w.steps < 200000);
    struct moe_schedule_stats st = moe_schedule_stats(w.s);
    all->preemptions += st.preemptions, all->tokens_again += st.tokens_again, all->steps += st.steps;
    *found += moe_pages_stats(w.pages).found + moe_pages_stats(w.pages).copied;
    OK(st.waiting == 0 && st.running == 0 && moe_pages_stats(w.pages).used == 0);
    moe_schedule_close(&w.s);
    moe_pages_close(&w.pages);
}

static void test_random(uint64_t n)
{
    struct moe_schedule_stats all = { 0 };
    int64_t found = 0;
    for (uint64_t i = 0; i < n; i++) one_schedule(i, &all, &found);
    printf("%lld schedules, %lld steps, %lld preemptions, %lld tokens computed again, %lld found\n",
           (long long)n, (long long)all.steps, (long long)all.preemptions, (long long)all.tokens_again,
           (long long)found);
    OK(n < 100 || (all.preemptions > (int64_t)n / 10 && found > 1000));
}

/* ---- cases ---- */

static struct world *open_world(int64_t pages, int64_t running, int64_t tokens, int64_t chunk, double aging)
{
    static struct world w;
    memset(&w, 0, sizeof w);
    w.limits = (struct moe_schedule_limits){ tokens, chunk, running, aging };
    OK(moe_pages_open(&w.pages, pages, &err) == MOE_OK);
    OK(moe_schedule_open(&w.s, w.pages, &w.limits, &err) == MOE_OK);
    return &w;
}

static void close_world(struct world *w)
{
    for (int64_t i = 0; i < w->begun; i++) moe_schedule_end(w->s, &w->q[i].job);
    moe_schedule_close(&w->s);
    moe_schedule_close(&w->s);
    moe_pages_close(&w->pages);
}

/* A request of n tokens that are no other's. */
static struct request *submit(struct world *w, int64_t n, uint64_t tenant, int priority, double arrival)
{
    struct request *q = &w->q[w->begun++];
    for (int64_t k = 0; k < n; k++) q->ids[k] = (int32_t)(1000 * w->begun + k);
    q->job = (struct moe_job){ .ids = q->ids, .n_ids = n, .prompt = n, .max_positions = n + 5,
                               .tenant = tenant, .priority = priority, .arrival = arrival };
    OK(moe_schedule_submit(w->s, &q->job, &err) == MOE_OK);
    return q;
}

/* Plans and computes a step.  Each job whose row was its last gets a token. */
static struct moe_schedule_step turn(struct world *w)
{
    struct moe_schedule_step s = *moe_schedule_plan(w->s);
    for (int64_t i = 0; i < s.n_rows; i++)
        if (s.row[i].last) s.row[i].job->ids[s.row[i].job->n_ids] = 7;
    int64_t n = s.n_rows;
    moe_schedule_computed(w->s);
    for (int64_t i = 0; i < n; i++) s.row[i].job->n_ids += s.row[i].last;
    return s;
}

static void test_budget(void)
{
    struct world *w = open_world(40, 4, 50, 30, 0);
    struct request *a = submit(w, 10, 0, 0, 0), *b = submit(w, 100, 0, 0, 1), *c = submit(w, 100, 0, 0, 2);
    struct moe_schedule_step s = turn(w); /* a whole, 30 of b by the chunk, 10 of c by the budget */
    OK(s.n_rows == 3 && s.row[0].job == &a->job && s.row[0].n == 10 && s.row[0].last);
    OK(s.row[1].job == &b->job && s.row[1].n == 30 && s.row[2].job == &c->job && s.row[2].n == 10);
    OK(s.tokens == 50 && s.padded == 64 && !s.row[1].last);
    s = turn(w); /* the token of a first, then prompts in order */
    OK(s.n_rows == 3 && s.row[0].n == 1 && s.row[1].n == 30 && s.row[2].n == 19);
    moe_schedule_end(w->s, &a->job);
    moe_schedule_end(w->s, &a->job);
    s = turn(w);
    OK(s.n_rows == 2 && s.row[0].first == 60 && s.row[0].n == 30);
    close_world(w);
}

static void test_order(void)
{
    struct world *w = open_world(40, 1, 50, 0, 10);
    struct request *low = submit(w, 5, 0, 0, 0);
    struct request *late = submit(w, 5, 0, 2, 25), *high = submit(w, 5, 0, 2, 15);
    struct request *of[] = { high, low, late }; /* 15 - 20, 0, 25 - 20 */
    for (int i = 0; i < 3; i++) {
        OK(turn(w).row[0].job == &of[i]->job);
        moe_schedule_end(w->s, &of[i]->job);
    }
    close_world(w);
}

/* A tenant that floods the line delays another one's first request by no more than the job that runs. */
static void test_tenants(void)
{
    struct world *w = open_world(40, 1, 50, 0, 0);
    for (int i = 0; i < 10; i++) submit(w, 20, 1, 0, i);
    for (int i = 0; i < 3; i++) {
        turn(w);
        moe_schedule_end(w->s, &w->q[i].job);
    }
    struct request *other = submit(w, 20, 2, 0, 99);
    int64_t turns = 0;
    for (int i = 3; !other->job.admitted; i++, turns++) {
        turn(w);
        if (!other->job.admitted) moe_schedule_end(w->s, &w->q[i].job);
    }
    OK(turns == 2); /* it begins where the first tenant was, and the earlier request wins the tie */
    moe_schedule_end(w->s, &other->job);
    for (int i = 0; i < 3; i++) submit(w, 20, 2, 0, 100 + i);
    int64_t served[2] = { 0 };
    for (int i = 0; i < 4; i++) { /* from now on they alternate */
        struct moe_job *j = turn(w).row[0].job;
        served[j->tenant - 1]++;
        moe_schedule_end(w->s, j);
    }
    OK(served[0] == 2 && served[1] == 2);
    close_world(w);
}

/* Who comes to an idle schedule begins where the one was who left last. */
static void test_newcomer(void)
{
    struct world *w = open_world(40, 1, 50, 0, 0);
    for (int i = 0; i < 5; i++) {
        struct request *q = submit(w, 40, 1, 0, i);
        turn(w);
        moe_schedule_end(w->s, &q->job);
    }
    for (int i = 0; i < 4; i++) submit(w, 20, 2, 0, 10);
    struct request *old = submit(w, 20, 1, 0, 11);
    int turns = 0;
    for (; !old->job.admitted; turns++) moe_schedule_end(w->s, turn(w).row[0].job);
    OK(turns == 2);
    close_world(w);
}

/* Prompts that begin alike and come together: the beginning is computed once, and others go on meanwhile. */
static void test_alike(void)
{
    struct world *w = open_world(40, 4, 300, 100, 0);
    struct request *a = submit(w, 200, 0, 0, 0), *b = submit(w, 200, 0, 0, 1), *c = submit(w, 10, 0, 0, 2);
    memcpy(b->ids, a->ids, 150 * sizeof *b->ids);
    struct moe_schedule_step s = turn(w); /* b waits for the page that a computes, and c does not */
    OK(s.n_rows == 2 && s.row[0].job == &a->job && s.row[0].n == 100 && s.row[1].job == &c->job);
    s = turn(w); /* and for the second page that both have */
    OK(s.n_rows == 2 && a->job.table.positions == 200 && b->job.state == MOE_JOB_WAITING);
    s = turn(w); /* it takes over these two and rows of the third, and computes the rest */
    OK(s.n_rows == 3 && b->job.found == 150 && b->job.table.positions == 200);
    OK(!moe_schedule_check(w->s));
    close_world(w);
    w = open_world(40, 2, 300, 0, 0); /* who waits for a page keeps a place */
    a = submit(w, 200, 0, 0, 0), b = submit(w, 200, 0, 0, 1), c = submit(w, 10, 0, 0, 2);
    memcpy(b->ids, a->ids, 200 * sizeof *b->ids);
    turn(w);
    OK(b->job.state == MOE_JOB_WAITING && c->job.state == MOE_JOB_WAITING);
    turn(w);
    OK(b->job.state == MOE_JOB_RUNNING && b->job.found == 192 && c->job.state == MOE_JOB_WAITING);
    close_world(w);
    w = open_world(40, 4, 300, 0, 0); /* with another salt there is nothing to wait for */
    a = submit(w, 100, 0, 0, 0), b = submit(w, 100, 0, 0, 1);
    memcpy(b->ids, a->ids, 100 * sizeof *b->ids);
    b->job.root.a++;
    OK(turn(w).n_rows == 2);
    close_world(w);
}

/* A job that lacks pages is not looked for in each step. */
static void test_blocked(void)
{
    struct world *w = open_world(6, 4, 400, 0, 0);
    struct request *a = submit(w, 150, 0, 0, 0);
    turn(w);
    moe_schedule_end(w->s, &a->job); /* its pages can be found */
    struct request *b = submit(w, 250, 0, 0, 1);
    turn(w);
    struct request *c = submit(w, 150, 0, 0, 2);
    memcpy(c->ids, a->ids, sizeof c->ids);
    int64_t before = moe_pages_stats(w->pages).found;
    for (int i = 0; i < 30; i++) {
        turn(w);
        OK(c->job.state == MOE_JOB_WAITING);
    }
    OK(moe_pages_stats(w->pages).found <= before + 2 * MOE_PAGE);
    moe_schedule_end(w->s, &b->job);
    turn(w);
    OK(c->job.state == MOE_JOB_RUNNING && !moe_schedule_check(w->s));
    close_world(w);
}

static void test_preemption(void)
{
    struct world *w = open_world(4, 4, 300, 0, 0);
    struct request *a = submit(w, 64, 0, 0, 0), *b = submit(w, 64, 0, 0, 1);
    turn(w); /* a page each, and both need one more */
    OK(turn(w).n_rows == 2 && moe_pages_left(w->pages) == 0);
    struct request *c = submit(w, 3, 0, 0, -1); /* first in order, but it was not there */
    OK(turn(w).n_rows == 2 && c->job.state == MOE_JOB_WAITING);
    for (int i = 0; i < 2; i++) w->q[i].job.max_positions = 200;
    a->job.n_ids = 140; /* it fills the pages that it has, and then takes one of b's */
    OK(turn(w).row[0].n == 2 * MOE_PAGE - 66 && a->job.table.positions == 2 * MOE_PAGE);
    OK(turn(w).n_rows == 1 && b->job.state == MOE_JOB_WAITING && b->job.preempted == 1);
    OK(moe_schedule_stats(w->s).preemptions == 1 && !moe_schedule_check(w->s));
    moe_schedule_end(w->s, &a->job);
    turn(w);
    OK(c->job.state == MOE_JOB_RUNNING && b->job.state == MOE_JOB_RUNNING);
    close_world(w);
}

static void test_refusals(void)
{
    struct moe_schedule *s;
    struct world *w = open_world(4, 4, 300, 0, 0);
    struct moe_schedule_limits l = { 3, 0, 4, 0 };
    FAILS(MOE_USAGE, moe_schedule_open(&s, w->pages, &l, &err));
    OK(!s);
    l = (struct moe_schedule_limits){ 4, -1, 4, 0 };
    FAILS(MOE_USAGE, moe_schedule_open(&s, w->pages, &l, &err));
    SAYS("prompts in chunks of -1 tokens: want 0 or more");
    l = (struct moe_schedule_limits){ 4, 0, 4, (double)INFINITY };
    FAILS(MOE_USAGE, moe_schedule_open(&s, w->pages, &l, &err));
    SAYS("inf seconds for a step of priority");
    struct moe_job none = { .max_positions = 5 }, large = { .n_ids = 1, .max_positions = 257 };
    FAILS(MOE_USAGE, moe_schedule_submit(w->s, &none, &err));
    FAILS(MOE_USAGE, moe_schedule_submit(w->s, &large, &err));
    SAYS("do not fit the cache of 256");
    OK(moe_schedule_plan(w->s)->n_rows == 0);
    close_world(w);
}

int main(int argc, char **argv)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    const uint64_t few = 200;
#else
    const uint64_t few = 1000;
#endif
    test_budget();
    test_order();
    test_tenants();
    test_newcomer();
    test_alike();
    test_blocked();
    test_preemption();
    test_refusals();
    test_random(argc > 1 ? strtoull(argv[1], NULL, 10) : few);
    printf("test-schedule: %ld checks\n", checks);
    return 0;
}
