/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include "base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { SPINS = 2000, THREADS_MAX = 4096 };

struct worker { struct moe_pool *pool; pthread_t thread; int index; };

struct moe_pool {
    int threads;                     /* the caller included */
    struct worker *workers;          /* [threads - 1] */
    void (*fn)(void *, int64_t, int);
    void *ctx;
    int64_t n;
    atomic_int_fast64_t next;        /* the next item of the loop at hand */
    atomic_uint generation;          /* grows by one for each loop; workers wait for it to change */
    atomic_int busy;                 /* workers that have not finished the loop */
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t start, finished;
};

static int processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < 1 ? 1 : n;
}

static void work(struct moe_pool *p, int worker)
{
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (i >= p->n) return;
        p->fn(p->ctx, i, worker);
    }
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Wait until the generation is not `seen`: spin a little, then sleep. */
static void wait_for_work(struct moe_pool *p, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&p->generation, memory_order_acquire) != seen) return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    while (atomic_load_explicit(&p->generation, memory_order_acquire) == seen)
        pthread_cond_wait(&p->start, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

static void *run_worker(void *arg)
{
    struct worker *w = arg;
    struct moe_pool *p = w->pool;
    for (unsigned seen = 0; ; seen++) {
        wait_for_work(p, seen);
        if (atomic_load(&p->stop)) return NULL;
        work(p, w->index);
        if (atomic_fetch_sub_explicit(&p->busy, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->finished);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

enum moe_code moe_pool_open(struct moe_pool **out, int threads, struct moe_err *err)
{
    *out = NULL;
    if (threads <= 0) threads = processors();
    if (threads > THREADS_MAX) threads = THREADS_MAX;
    struct moe_pool *p = calloc(1, sizeof *p);
    struct worker *w = calloc((size_t)threads, sizeof *w);
    if (!p || !w) {
        free(p);
        free(w);
        return moe_fail(err, MOE_NOMEM, "no memory for %d threads", threads);
    }
    p->workers = w;
    p->threads = 1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->start, NULL);
    pthread_cond_init(&p->finished, NULL);
    for (int i = 1; i < threads; i++) {
        w[i - 1] = (struct worker){ .pool = p, .index = i };
        if (moe_thread_start(&w[i - 1].thread, run_worker, &w[i - 1])) {
            moe_pool_close(&p);
            return moe_fail(err, MOE_NOMEM, "cannot start thread %d of %d (try fewer --threads)", i + 1,
                            threads);
        }
        p->threads++;
    }
    *out = p;
    return MOE_OK;
}

static void wake(struct moe_pool *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_release);
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->lock);
}

void moe_pool_close(struct moe_pool **pp)
{
    struct moe_pool *p = *pp;
    if (!p) return;
    atomic_store(&p->stop, true);
    wake(p);
    for (int i = 0; i < p->threads - 1; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->start);
    pthread_cond_destroy(&p->finished);
    free(p->workers);
    free(p);
    *pp = NULL;
}

int moe_pool_threads(const struct moe_pool *p) { return p ? p->threads : 1; }

void moe_pool_run(struct moe_pool *p, int64_t n, void (*fn)(void *, int64_t, int), void *ctx)
{
    if (!p || p->threads == 1 || n <= 1) {
        for (int64_t i = 0; i < n; i++) fn(ctx, i, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    p->n = n;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->busy, p->threads - 1, memory_order_relaxed);
    wake(p);
    work(p, 0);
    for (int i = 0; i < SPINS; i++) {
        if (!atomic_load_explicit(&p->busy, memory_order_acquire)) return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    while (atomic_load_explicit(&p->busy, memory_order_acquire)) pthread_cond_wait(&p->finished, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

/* ---- the ordered pipeline ---- */

enum state { FREE, WORKING, READY, FAILED };

struct pipe {
    int64_t n, next, done;           /* next: to start; done: consumed */
    int slots;
    enum state *state;               /* by slot; item i uses slot i % slots */
    struct moe_err *errs;            /* by slot */
    bool stop;
    enum moe_code (*produce)(void *, int64_t, int, struct moe_err *);
    enum moe_code (*consume)(void *, int64_t, int, struct moe_err *);
    void *ctx;
    struct moe_err *err;
    enum moe_code code;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

/* Start the next item if a slot is free; -1 when there is none now, -2 when there never will be. */
static int64_t take(struct pipe *p)
{
    if (p->stop || p->next >= p->n) return -2;
    if (p->next - p->done >= p->slots) return -1;
    p->state[p->next % p->slots] = WORKING;
    return p->next++;
}

/* Produce item i.  The lock is held on entry and on return, but not while p->produce runs. */
static void make(struct pipe *p, int64_t i)
{
    int slot = (int)(i % p->slots);
    pthread_mutex_unlock(&p->lock);
    enum moe_code code = p->produce(p->ctx, i, slot, &p->errs[slot]);
    pthread_mutex_lock(&p->lock);
    p->state[slot] = code == MOE_OK ? READY : FAILED;
    pthread_cond_broadcast(&p->changed);
}

static void produce_loop(struct pipe *p)
{
    pthread_mutex_lock(&p->lock);
    for (int64_t i; (i = take(p)) != -2; )
        if (i >= 0) make(p, i);
        else pthread_cond_wait(&p->changed, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

static void fail(struct pipe *p, const struct moe_err *e)
{
    *p->err = *e;
    p->code = e->code;
    p->stop = true;
    pthread_cond_broadcast(&p->changed);
}

/* The caller consumes what is ready and helps to produce in between. */
static void consume_loop(struct pipe *p)
{
    pthread_mutex_lock(&p->lock);
    while (p->done < p->n && !p->stop) {
        int slot = (int)(p->done % p->slots);
        if (p->done < p->next && p->state[slot] == FAILED) {
            fail(p, &p->errs[slot]);
        } else if (p->done < p->next && p->state[slot] == READY) {
            struct moe_err e;
            pthread_mutex_unlock(&p->lock);
            enum moe_code code = p->consume(p->ctx, p->done, slot, &e);
            pthread_mutex_lock(&p->lock);
            p->state[slot] = FREE;
            p->done++;
            if (code != MOE_OK) fail(p, &e);
            pthread_cond_broadcast(&p->changed);
        } else {
            int64_t i = take(p);
            if (i >= 0) make(p, i);
            else pthread_cond_wait(&p->changed, &p->lock);
        }
    }
    pthread_mutex_unlock(&p->lock);
}

static void *run_helper(void *arg)
{
    produce_loop(arg);
    return NULL;
}

enum moe_code moe_pipe_run(struct moe_pool *pool, int64_t n, int slots,
                           enum moe_code (*produce)(void *, int64_t, int, struct moe_err *),
                           enum moe_code (*consume)(void *, int64_t, int, struct moe_err *), void *ctx,
                           struct moe_err *err)
{
    struct pipe p = {
        .n = n, .slots = slots, .produce = produce, .consume = consume, .ctx = ctx, .err = err
    };
    int helpers = moe_pool_threads(pool) > 1 ? moe_pool_threads(pool) : 0, started = 0;
    if (helpers > slots - 1) helpers = slots - 1;
    p.state = calloc((size_t)slots, sizeof *p.state);
    p.errs = calloc((size_t)slots, sizeof *p.errs);
    pthread_t *h = calloc((size_t)helpers + 1, sizeof *h);
    if (!p.state || !p.errs || !h) {
        free(p.state);
        free(p.errs);
        free(h);
        return moe_fail(err, MOE_NOMEM, "no memory for a pipeline of %d", slots);
    }
    pthread_mutex_init(&p.lock, NULL);
    pthread_cond_init(&p.changed, NULL);
    /* Threads of its own and not the pool's: the consumer must stay on the calling thread, which a pool's
     * loop does not promise. */
    for (; started < helpers; started++)
        if (moe_thread_start(&h[started], run_helper, &p)) break;
    consume_loop(&p);
    for (int i = 0; i < started; i++) pthread_join(h[i], NULL);
    pthread_mutex_destroy(&p.lock);
    pthread_cond_destroy(&p.changed);
    free(p.state);
    free(p.errs);
    free(h);
    return p.code;
}
