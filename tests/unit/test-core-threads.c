/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the engine's core from several threads: one drives it, four submit, cancel and read at the same time;
 * each answer is the one that the request gets alone.  make check-threads runs it under ThreadSanitizer. */
#include "tests/ok.h"
#include "base/thread.h"
#include "runtime/engine/core.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS = 8, CLIENTS = 4, EACH = 40, PROMPT = 90, ANSWER = 24 };

struct kind { int32_t ids[PROMPT], token[ANSWER]; int64_t n, n_tokens; };

static struct moe_engine *e;
static struct moe_core *core;
static struct kind kind[KINDS];
static atomic_bool over;
static atomic_long cancelled, answered;

struct client { pthread_t id; uint64_t seed; long checks; };

/* assert without the counter of tests/ok.h, which belongs to one thread */
#define MUST(cond) (assert(cond), c->checks++)

static struct moe_request request(const struct kind *k)
{
    return (struct moe_request){ .ids = k->ids,
                                 .n_ids = k->n,
                                 .max_tokens = ANSWER,
                                 .sampler = { .temperature = 1, .top_p = 1 },
                                 .seed = 7,
                                 .logprobs = -1,
                                 .ignore_eos = true,
                                 .ctx = (void *)(uintptr_t)k };
}

static void *drive(void *arg)
{
    struct moe_err err;
    bool worked;
    (void)arg;
    while (!atomic_load(&over)) {
        assert(moe_core_step(core, &worked, &err) == MOE_OK);
        if (!worked) moe_core_wait(core, 0.05);
    }
    return NULL;
}

static uint64_t draw(struct client *c, uint64_t n)
{
    c->seed = c->seed * 6364136223846793005u + 1442695040888963407u;
    return (c->seed >> 33) % n;
}

/* Reads the answer to its end, or asks for an early one meanwhile. */
static void read_all(struct client *c, uint64_t id, const struct kind *k)
{
    struct moe_event ev = { .id = 0 };
    struct moe_err err;
    int64_t n = 0;
    bool there;
    while (!ev.end) {
        if (!draw(c, 30)) moe_core_cancel(core, id);
        MUST(moe_core_events(core, id, 10, &ev, &there, &err) == MOE_OK && there);
        MUST(ev.ctx == k && n + ev.n_tokens <= k->n_tokens);
        MUST(!memcmp(ev.tokens, k->token + n, (size_t)ev.n_tokens * 4));
        n += ev.n_tokens;
    }
    MUST(ev.finish == MOE_FINISH_CANCELLED || (ev.finish == MOE_FINISH_LENGTH && n == k->n_tokens));
    MUST(ev.usage.generated == n && moe_core_stats(core).steps > 0);
    atomic_fetch_add(ev.finish == MOE_FINISH_CANCELLED ? &cancelled : &answered, 1);
    moe_event_release(&ev);
}

static void *work(void *arg)
{
    struct client *c = arg;
    struct moe_err err;
    for (int i = 0; i < EACH; i++) {
        uint64_t id[3], n = 1 + draw(c, 3);
        const struct kind *k[3];
        for (uint64_t j = 0; j < n; j++) {
            k[j] = &kind[draw(c, KINDS)];
            struct moe_request q = request(k[j]);
            MUST(moe_core_submit(core, &q, &id[j], &err) == MOE_OK);
        }
        for (uint64_t j = 0; j < n; j++) read_all(c, id[j], k[j]);
    }
    return NULL;
}

/* What each kind gets alone. */
static void learn(struct moe_err *err)
{
    struct moe_event ev = { .id = 0 };
    for (int i = 0; i < KINDS; i++) {
        struct kind *k = &kind[i];
        uint64_t id;
        bool worked = true, there;
        k->n = 20 + 10 * i;
        for (int64_t j = 0; j < k->n; j++) k->ids[j] = (int32_t)(j < 64 && i % 2 ? j % 7 : (j + i) % 8);
        struct moe_request q = request(k);
        q.whole = true;
        OK(moe_core_submit(core, &q, &id, err) == MOE_OK);
        while (worked) OK(moe_core_step(core, &worked, err) == MOE_OK);
        OK(moe_core_events(core, id, 0, &ev, &there, err) == MOE_OK && there && ev.end);
        k->n_tokens = ev.n_tokens;
        memcpy(k->token, ev.tokens, (size_t)ev.n_tokens * 4);
    }
    moe_event_release(&ev);
}

int main(void)
{
    struct moe_err err = MOE_ERR_INIT;
    const struct moe_engine_options o = { .batch = 64 };
    const struct moe_core_options co = { .batch_tokens = 48, .sequences = 6, .unread = 4, .positions = 640 };
    struct client client[CLIENTS] = { { .seed = 1 } };
    pthread_t driver;
    OK(moe_engine_open(&e, "tests/data/golden-v1.moe", &o, NULL, &err) == MOE_OK);
    OK(moe_core_open(&core, e, &co, &err) == MOE_OK);
    learn(&err);
    OK(!moe_thread_start(&driver, drive, NULL));
    for (int i = 0; i < CLIENTS; i++) {
        client[i].seed = (uint64_t)i + 1;
        OK(!moe_thread_start(&client[i].id, work, &client[i]));
    }
    for (int i = 0; i < CLIENTS; i++) {
        OK(!pthread_join(client[i].id, NULL));
        checks += client[i].checks;
    }
    atomic_store(&over, true);
    OK(!pthread_join(driver, NULL));
    OK(!moe_core_check(core) && cancelled > 5 && answered > 50);
    OK(moe_core_stats(core).finished[MOE_FINISH_CANCELLED] == cancelled);
    moe_core_close(&core);
    moe_engine_close(&e);
    printf("test-core-threads: %ld checks, %ld cancelled, %ld answered\n", checks, cancelled, answered);
    return 0;
}
