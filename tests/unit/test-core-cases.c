/* SPDX-License-Identifier: Apache-2.0 */
/* Tests single cases of the engine's core: what is refused, how requests end, what a failure reaches, what a
 * step allocates. */
#include "tests/ok.h"
#include "base/thread.h"
#include "runtime/engine/core.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static struct moe_err err = MOE_ERR_INIT;
static struct moe_engine *e;
static struct moe_core *core;
static struct moe_event ev;
static double now;

/* ---- calls of malloc, where they can be counted ---- */

static long allocated;
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
enum { COUNTED = 1 };
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n) { return allocated++, __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return allocated++, __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return allocated++, __libc_realloc(p, n); }
#else
enum { COUNTED = 0 };
#endif

/* ---- helpers ---- */

static double clock_of(void *ctx) { return *(double *)ctx; }

static void open_core(struct moe_core_options o)
{
    o.now = clock_of;
    o.clock = &now;
    OK(moe_core_open(&core, e, &o, &err) == MOE_OK);
}

static void close_core(void) { moe_core_close(&core); }

/* A prompt of n tokens, which differ between values of `from`. */
static uint64_t submit_with(struct moe_request q, int64_t n, int from)
{
    int32_t ids[300];
    uint64_t id;
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)((i * 131 + from * 17) % 1000);
    q.ids = ids;
    q.n_ids = n;
    OK(moe_core_submit(core, &q, &id, &err) == MOE_OK);
    memset(ids, 0xff, sizeof ids); /* everything was copied */
    return id;
}

static uint64_t submit(int64_t n, int from, int64_t max_tokens)
{
    const struct moe_request q = { .max_tokens = max_tokens, .ignore_eos = true, .logprobs = -1 };
    return submit_with(q, n, from);
}

static bool step(void)
{
    bool worked;
    OK(moe_core_step(core, &worked, &err) == MOE_OK && !moe_core_check(core));
    return worked;
}

static bool event(uint64_t id)
{
    bool there;
    OK(moe_core_events(core, id, 0, &ev, &there, &err) == MOE_OK);
    return there;
}

/* Runs until nothing is left to do; the request's end is then the event, with its whole answer where it was
 * not read before. */
static void finish(uint64_t id)
{
    while (step()) continue;
    OK(event(id) && ev.end && ev.id == id);
}

/* ---- cases ---- */

static void test_refusals(void)
{
    static const int32_t ids[2] = { 1, 1024 };
    struct moe_request q = { .ids = ids, .n_ids = 0, .max_tokens = 5, .logprobs = -1 };
    uint64_t id;
    open_core((struct moe_core_options){ .queue = 2 });
    FAILS(MOE_USAGE, moe_core_submit(core, &q, &id, &err));
    SAYS("the prompt is empty");
    q.n_ids = 257;
    FAILS(MOE_USAGE, moe_core_submit(core, &q, &id, &err));
    SAYS("257 tokens do not fit the context of 256");
    q.n_ids = 2;
    FAILS(MOE_MISMATCH, moe_core_submit(core, &q, &id, &err));
    SAYS("token 1024 is outside the model's vocabulary of 1024");
    q.n_ids = 1;
    q.logprobs = 21;
    FAILS(MOE_USAGE, moe_core_submit(core, &q, &id, &err));
    q.logprobs = -1;
    submit(3, 1, 1);
    submit(3, 1, 1);
    FAILS(MOE_BUSY, moe_core_submit(core, &q, &id, &err));
    SAYS("2 requests wait already");
    step(); /* both have begun */
    OK(moe_core_submit(core, &q, &id, &err) == MOE_OK);
    close_core();
    struct moe_core_options one = { .positions = 64 };
    open_core(one);
    q.n_ids = 65;
    FAILS(MOE_USAGE, moe_core_submit(core, &q, &id, &err));
    SAYS("65 tokens do not fit the cache of 64 (raise the cache or --memory)");
    id = submit(60, 1, 50); /* the cache ends it */
    finish(id);
    OK(ev.finish == MOE_FINISH_LENGTH && ev.n_tokens == 4 && ev.usage.generated == 4);
    close_core();
    one = (struct moe_core_options){ .cache = 1 };
    FAILS(MOE_USAGE, moe_core_open(&core, e, &one, &err));
    OK(!core);
    uint64_t spare = e->spare;
    e->spare = 0; /* as if memory held one context and no more */
    one = (struct moe_core_options){ .cache = 1 << 30 };
    FAILS(MOE_NOMEM, moe_core_open(&core, e, &one, &err));
    SAYS("does not fit what memory leaves");
    e->spare = spare;
}

/* A prompt of every length that matters, and answers of every number of tokens that does. */
static void test_lengths(void)
{
    open_core((struct moe_core_options){ .queue = 0 });
    uint64_t zero = submit(9, 1, 0), full = submit(256, 2, -1), last = submit(255, 3, -1);
    finish(zero);
    OK(ev.finish == MOE_FINISH_LENGTH && ev.n_tokens == 0 && ev.text_bytes == 0);
    finish(full);
    OK(ev.finish == MOE_FINISH_LENGTH && ev.n_tokens == 0 && ev.usage.prompt == 256);
    finish(last);
    OK(ev.finish == MOE_FINISH_LENGTH && ev.n_tokens == 1);
    FAILS(MOE_NOT_FOUND, moe_core_events(core, last, 0, &ev, &(bool){ false }, &err));
    moe_core_cancel(core, last);
    moe_core_cancel(core, 12345);
    OK(!step() && !event(MOE_ANY_REQUEST));
    close_core();
}

static void test_cancel(void)
{
    open_core((struct moe_core_options){ .batch_tokens = 50, .sequences = 2 });
    uint64_t decoding = submit(10, 1, 100), prefill = submit(200, 2, 100), queued = submit(10, 3, 100);
    step();
    step();
    OK(event(decoding) && ev.n_tokens == 2 && !event(prefill));
    OK(moe_core_stats(core).waiting == 1 && moe_core_stats(core).running == 2);
    uint64_t all[] = { queued, prefill, decoding };
    for (int i = 0; i < 3; i++) {
        moe_core_cancel(core, all[i]);
        moe_core_cancel(core, all[i]);
        step();
        OK(event(all[i]) && ev.end && ev.finish == MOE_FINISH_CANCELLED);
    }
    OK(moe_core_stats(core).pages_used == 0 && ev.usage.generated == 4 && ev.n_tokens == 2);
    queued = submit(10, 3, 100);
    moe_core_cancel(core, queued); /* before any step has seen it */
    step();
    OK(event(queued) && ev.finish == MOE_FINISH_CANCELLED && ev.usage.generated == 0);
    close_core();
}

static void test_deadline(void)
{
    open_core((struct moe_core_options){ .batch_tokens = 50, .sequences = 1 });
    struct moe_request q = { .max_tokens = 100, .ignore_eos = true, .logprobs = -1, .deadline = now + 5 };
    uint64_t runs = submit_with(q, 10, 1), waits = submit_with(q, 10, 2);
    q.deadline = now + 4;
    uint64_t sooner = submit_with(q, 10, 2);
    for (int i = 0; i < 3; i++) step();
    now += 4;
    step();
    OK(event(sooner) && ev.finish == MOE_FINISH_DEADLINE && ev.n_tokens == 0 && !event(waits));
    now += 1;
    step();
    OK(event(runs) && ev.finish == MOE_FINISH_DEADLINE && ev.n_tokens == 4);
    OK(event(waits) && ev.finish == MOE_FINISH_DEADLINE);
    OK(moe_core_stats(core).finished[MOE_FINISH_DEADLINE] == 3);
    close_core();
}

/* A reader that lags is waited for while another one's request goes on; then its request is cut. */
static void test_lagging(void)
{
    open_core((struct moe_core_options){ .unread = 3, .patience = 10 });
    uint64_t lags = submit(10, 1, 12), reads = submit(10, 2, 12);
    for (int i = 0; i < 12; i++) {
        step();
        OK(event(reads) && ev.n_tokens == 1 && ev.end == (i == 11));
    }
    OK(!step() && moe_core_stats(core).held == 1 && moe_core_stats(core).pages_used == 0);
    OK(event(lags) && ev.n_tokens == 3 && !ev.end && step());
    now += 9;
    step(), step(), step();
    OK(moe_core_stats(core).held == 1);
    now += 11;
    moe_core_wait(core, 100); /* it does not wait: the time has come */
    OK(step() && event(lags) && ev.end && ev.finish == MOE_FINISH_ERROR && ev.n_tokens == 3);
    OK(ev.err.code == MOE_IO && strstr(ev.err.msg, "was not read for 11 seconds"));
    close_core();
}

/* A request that is paused is passed over by whoever reads all, and held; what it had comes once it goes on,
 * and its end comes whether it is paused or not. */
static void test_paused(void)
{
    open_core((struct moe_core_options){ .unread = 3, .patience = 10 });
    uint64_t slow = submit(10, 1, 12), fast = submit(10, 2, 12);
    step();
    moe_core_pause(core, slow, true);
    OK(event(MOE_ANY_REQUEST) && ev.id == fast && !event(MOE_ANY_REQUEST) && !event(slow));
    for (int i = 1; i < 12; i++) {
        step();
        OK(event(MOE_ANY_REQUEST) && ev.id == fast && ev.end == (i == 11));
        OK(!event(MOE_ANY_REQUEST));
    }
    OK(moe_core_stats(core).held == 1 && moe_core_stats(core).pages_used == 0);
    moe_core_pause(core, slow, false);
    OK(event(MOE_ANY_REQUEST) && ev.id == slow && ev.n_tokens == 3 && !ev.end);
    moe_core_pause(core, slow, true);
    step(), step();
    OK(!event(MOE_ANY_REQUEST));
    moe_core_cancel(core, slow);
    step();
    OK(event(MOE_ANY_REQUEST) && ev.id == slow && ev.end && ev.finish == MOE_FINISH_CANCELLED);
    moe_core_pause(core, slow, true); /* there is no such request any more */
    close_core();
}

static void test_found(void)
{
    open_core((struct moe_core_options){ .queue = 0 });
    finish(submit(200, 1, 1));
    OK(ev.usage.cached == 0);
    finish(submit(200, 1, 1));
    OK(ev.usage.cached == 199);
    finish(submit_with((struct moe_request){ .max_tokens = 1, .salt = "x", .salt_bytes = 1, .logprobs = -1 },
                       200, 1));
    OK(ev.usage.cached == 0);
    struct moe_core_stats s = moe_core_stats(core);
    OK(s.prompt_found == 199 && s.prompt_computed == 401 && s.pages_kept > 0);
    close_core();
}

/* End tokens do not come before min_tokens; then one ends the answer. */
static void test_min_tokens(void)
{
    int32_t first;
    open_core((struct moe_core_options){ .queue = 0 });
    finish(submit(20, 1, 8));
    first = ev.tokens[0];
    struct moe_request q = { .max_tokens = 8, .ignore_eos = true, .logprobs = 2, .stop_ids = &first,
                             .n_stop_ids = 1 };
    finish(submit_with(q, 20, 1));
    OK(ev.finish == MOE_FINISH_STOP && ev.n_tokens == 0);
    q.min_tokens = 3;
    finish(submit_with(q, 20, 1));
    OK(ev.n_tokens >= 3 && ev.usage.generated == ev.n_tokens);
    for (int64_t i = 0; i < ev.n_tokens; i++) OK(ev.tokens[i] != first);
    /* the logarithms are the model's: the token that was ruled out is still the most probable one */
    OK(ev.logprobs[0].top[0].id == first && ev.logprobs[0].top[0].logprob > ev.logprobs[0].logprob);
    close_core();
}

/* A request that was moved here with the beginning of its answer, and what it may say of that. */
static void test_moved(void)
{
    int32_t ids[28];
    uint64_t id;
    open_core((struct moe_core_options){ .queue = 0 });
    struct moe_request q = { .max_tokens = 8, .ignore_eos = true, .logprobs = -1 };
    for (int i = 0; i < 20; i++) ids[i] = i * 131 % 1000;
    q.ids = ids;
    q.n_ids = 20;
    OK(moe_core_submit(core, &q, &id, &err) == MOE_OK);
    finish(id);
    OK(ev.n_tokens == 8 && ev.text_bytes > 0);
    memcpy(ids + 20, ev.tokens, 8 * sizeof *ids);
    size_t bytes = ev.text_bytes;
    q.n_ids = 28, q.n_answer = 8;
    OK(moe_core_submit(core, &q, &id, &err) == MOE_OK);
    finish(id); /* all of it was there but for the text */
    OK(ev.finish == MOE_FINISH_LENGTH && ev.n_tokens == 0 && ev.text_bytes == bytes);
    OK(ev.usage.prompt == 20 && ev.usage.generated == 8 && ev.usage.cached == 20);
    OK(moe_core_stats(core).generated == 8);
    q.max_tokens = 7;
    FAILS(MOE_USAGE, moe_core_submit(core, &q, &id, &err));
    SAYS("go on behind 8 tokens ends at 7");
    q.max_tokens = 9, q.stop_ids = &ids[23], q.n_stop_ids = 1;
    FAILS(MOE_USAGE, moe_core_submit(core, &q, &id, &err));
    SAYS("ends at 3");
    q.n_stop_ids = 0, q.answer_bytes = bytes + 1;
    FAILS(MOE_USAGE, moe_core_submit(core, &q, &id, &err));
    SAYS("are said to be reported");
    q.answer_bytes = 0, q.n_answer = 28;
    FAILS(MOE_USAGE, moe_core_submit(core, &q, &id, &err));
    SAYS("the prompt is empty");
    q.n_answer = -1;
    FAILS(MOE_USAGE, moe_core_submit(core, &q, &id, &err));
    OK(!step());
    close_core();
}

/* Puts memory with the same content in the place of the file's pages where the row is. */
static unsigned char *writable(const unsigned char *row, size_t bytes)
{
    size_t page = 4096, before = (uintptr_t)row % page, n = (before + bytes + page - 1) / page * page;
    unsigned char *p = (unsigned char *)(uintptr_t)row, copy[8192];
    OK(n <= sizeof copy);
    memcpy(copy, p - before, n);
    const int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    OK(mmap(p - before, n, PROT_READ | PROT_WRITE, how, -1, 0) != MAP_FAILED);
    memcpy(p - before, copy, n);
    return p;
}

/* The row of a token becomes NaN: requests with it fail, and no others. */
static void test_nonfinite(void)
{
    const struct moe_weight *w = &e->model->embed;
    size_t row = (size_t)moe_plane_bytes(w->type, w->layout, MOE_PLANE_DATA, 1, w->cols);
    unsigned char *at = writable(w->data + 999 * row, row), whole[4096];
    int32_t ids[2] = { 5, 999 }, want[6];
    struct moe_request q = { .ids = ids, .n_ids = 2, .max_tokens = 6, .ignore_eos = true, .logprobs = -1 };
    uint64_t id;
    OK(row <= sizeof whole && w->type == MOE_BF16);
    open_core((struct moe_core_options){ .apart = true });
    finish(submit(40, 1, 6));
    memcpy(want, ev.tokens, sizeof want);
    memcpy(whole, at, row);
    memset(at, 0xff, row);
    uint64_t good = submit(40, 1, 6);
    OK(moe_core_submit(core, &q, &id, &err) == MOE_OK);
    finish(id);
    OK(ev.finish == MOE_FINISH_ERROR && ev.err.code == MOE_NONFINITE && strstr(ev.err.msg, "embed_tokens"));
    OK(event(good) && ev.finish == MOE_FINISH_LENGTH && !memcmp(ev.tokens, want, sizeof want));
    OK(moe_core_stats(core).finished[MOE_FINISH_ERROR] == 1 && moe_core_stats(core).pages_used == 0);
    /* others do not wait for one that fails in each step */
    good = submit(40, 1, 6);
    for (int i = 0; i < 6; i++) {
        OK(moe_core_submit(core, &q, &id, &err) == MOE_OK && step() && event(id));
        OK(ev.end && ev.err.code == MOE_NONFINITE && strstr(ev.err.msg, "embed_tokens"));
    }
    OK(event(good) && ev.finish == MOE_FINISH_LENGTH && !memcmp(ev.tokens, want, sizeof want));
    memcpy(at, whole, row);
    close_core();
}

static enum moe_code dispatch(void *ctx, struct moe_device *d, int layer, int64_t n, struct moe_addr x,
                              const struct moe_choices *c, struct moe_err *why)
{
    (void)ctx, (void)d, (void)layer, (void)n, (void)x, (void)c;
    return moe_fail(why, MOE_DEVICE, "the other rank is gone");
}

static enum moe_code combine(void *ctx, struct moe_device *d, const struct moe_choices *c,
                             struct moe_err *why)
{
    (void)ctx, (void)d, (void)c;
    return moe_fail(why, MOE_DEVICE, "the other rank is gone");
}

/* A failure of the device ends the core. */
static void test_device(void)
{
    struct moe_engine *own = e;
    bool worked;
    uint64_t late;
    static const int32_t ids[1] = { 1 };
    struct moe_request q = { .ids = ids, .n_ids = 1, .max_tokens = 6, .logprobs = -1 };
    const struct moe_engine_options o = { .context = 256, .batch = 64 };
    OK(moe_engine_open(&e, "tests/data/tiny-k2/bf16", &o, NULL, &err) == MOE_OK);
    moe_forward_dispatcher(e->forward, &(struct moe_dispatcher){ NULL, dispatch, combine });
    open_core((struct moe_core_options){ .sequences = 1 });
    uint64_t id[2] = { submit(10, 1, 5), submit(10, 2, 5) };
    FAILS(MOE_DEVICE, moe_core_step(core, &worked, &err));
    for (int i = 0; i < 2; i++)
        OK(event(id[i]) && ev.end && ev.finish == MOE_FINISH_ERROR && ev.err.code == MOE_DEVICE);
    FAILS(MOE_DEVICE, moe_core_step(core, &worked, &err));
    FAILS(MOE_DEVICE, moe_core_submit(core, &q, &late, &err));
    FAILS(MOE_DEVICE, moe_core_events(core, MOE_ANY_REQUEST, 60, &ev, &worked, &err));
    close_core();
    moe_engine_close(&e);
    e = own;
}

/* Nothing is allocated once prompts are computed. */
static void test_steady(void)
{
    open_core((struct moe_core_options){ .batch_tokens = 64, .sequences = 16 });
    for (int i = 0; i < 16; i++) submit(20, i, 150);
    for (int i = 0; i < 10; i++) step();
    OK(moe_core_stats(core).running == 16);
    bool worked;
    long before = allocated;
    for (int i = 0; i < 100; i++) OK(moe_core_step(core, &worked, &err) == MOE_OK && worked);
    OK(allocated == before && (!COUNTED || before > 0));
    close_core();
}

int main(int argc, char **argv)
{
    const struct moe_engine_options o = { .context = 256, .batch = 320 };
    OK(moe_engine_open(&e, "tests/data/tiny-k2/bf16", &o, NULL, &err) == MOE_OK);
    test_refusals();
    test_lengths();
    test_cancel();
    test_deadline();
    test_lagging();
    test_paused();
    test_found();
    test_min_tokens();
    test_moved();
    test_nonfinite();
    test_device();
    /* test-core-cases-checked: ops/checked allocates */
    if (argc < 1 || !strstr(argv[0], "-checked")) test_steady();
    moe_event_release(&ev);
    moe_engine_close(&e);
    printf("test-core-cases: %ld checks\n", checks);
    return 0;
}
