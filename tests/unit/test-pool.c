/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the thread pool: every item runs once, for any number of threads; the order, slots and failures of
 * the pipeline. */
#include "tests/ok.h"
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { N = 5000 };
static const int counts[] = { 1, 2, 7 };

struct loop { unsigned char hits[N]; int threads; atomic_int bad; };

static void hit(void *ctx, int64_t i, int worker)
{
    struct loop *l = ctx;
    l->hits[i]++;
    if (worker < 0 || worker >= l->threads) atomic_fetch_add(&l->bad, 1);
}

static void test_run(struct moe_pool *pool)
{
    static struct loop l;
    l.threads = moe_pool_threads(pool);
    for (int n = 0, rounds = 0; n <= N; n = n < 9 ? n + 1 : n * 3, rounds++) {
        memset(l.hits, 0, sizeof l.hits);
        moe_pool_run(pool, n, hit, &l);
        int wrong = 0;
        for (int i = 0; i < N; i++) wrong += l.hits[i] != (i < n);
        OK(!wrong && !atomic_load(&l.bad));
    }
    /* many short loops: no lost wake-up */
    for (int round = 0; round < 2000; round++) moe_pool_run(pool, 3, hit, &l);
    OK(!atomic_load(&l.bad));
}

struct pipe_ctx {
    int slots;
    int64_t fail_produce, fail_consume, in_flight[64], consumed;
    atomic_int started, overlap;
    pthread_t caller;
};

static enum moe_code produce(void *ctx, int64_t i, int slot, struct moe_err *err)
{
    struct pipe_ctx *c = ctx;
    atomic_fetch_add(&c->started, 1);
    if (slot < 0 || slot >= c->slots || c->in_flight[slot] != -1) atomic_fetch_add(&c->overlap, 1);
    c->in_flight[slot] = i;
    for (volatile int k = 0; k < (int)(i * 7919 % 997); k++) ;
    if (i >= c->fail_produce) return moe_fail_at(err, MOE_CORRUPT, "f", NULL, "item %lld", (long long)i);
    return MOE_OK;
}

static enum moe_code consume(void *ctx, int64_t i, int slot, struct moe_err *err)
{
    struct pipe_ctx *c = ctx;
    if (i != c->consumed || c->in_flight[slot] != i || !pthread_equal(c->caller, pthread_self()))
        atomic_fetch_add(&c->overlap, 1);
    c->in_flight[slot] = -1;
    if (i == c->fail_consume) return moe_fail(err, MOE_NOSPACE, "consumer %lld", (long long)i);
    c->consumed++;
    return MOE_OK;
}

static enum moe_code pipe_once(struct moe_pool *pool, int64_t n, int slots, int64_t fp, int64_t fc,
                               struct pipe_ctx *c, struct moe_err *err)
{
    *c =
        (struct pipe_ctx){ .slots = slots, .fail_produce = fp, .fail_consume = fc, .caller = pthread_self() };
    for (int i = 0; i < slots; i++) c->in_flight[i] = -1;
    return moe_pipe_run(pool, n, slots, produce, consume, c, err);
}

static void test_pipe(struct moe_pool *pool)
{
    struct moe_err err = MOE_ERR_INIT;
    struct pipe_ctx c;
    static const int slots[] = { 1, 2, 3, 16 };
    for (int s = 0; s < 4; s++) {
        OK(pipe_once(pool, 0, slots[s], N, -1, &c, &err) == MOE_OK && c.consumed == 0);
        OK(pipe_once(pool, 500, slots[s], N, -1, &c, &err) == MOE_OK && c.consumed == 500 && !c.overlap &&
           c.started == 500);
        for (int64_t at = 0; at < 60; at += 29) {
            /* Every item from `at` on fails: the lowest is reported, and all before it were consumed. */
            FAILS(MOE_CORRUPT, pipe_once(pool, 500, slots[s], at, -1, &c, &err));
            char want[32];
            snprintf(want, sizeof want, "'f': item %lld", (long long)at);
            OK(!strcmp(err.msg, want) && !strcmp(err.file, "f") && c.consumed == at && !c.overlap &&
               c.started <= at + slots[s]);
            FAILS(MOE_NOSPACE, pipe_once(pool, 500, slots[s], N, at, &c, &err));
            OK(c.consumed == at && !c.overlap && c.started <= at + slots[s]);
        }
    }
}

int main(void)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_pool *pool = NULL;
    test_run(NULL);
    test_pipe(NULL);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        OK(moe_pool_open(&pool, counts[i], &err) == MOE_OK && moe_pool_threads(pool) == counts[i]);
        test_run(pool);
        test_pipe(pool);
        moe_pool_close(&pool);
        OK(!pool);
    }
    OK(moe_pool_open(&pool, 0, &err) == MOE_OK && moe_pool_threads(pool) >= 1);
    moe_pool_close(&pool);
    moe_pool_close(&pool);
    printf("test-pool: %ld checks\n", checks);
    return 0;
}
