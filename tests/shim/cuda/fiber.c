/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/fiber.c - launches, and the threads of a block as fibers (shim.h). */
#include "tests/shim/cuda/internal.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MOST_THREADS = 1024, WARP = 32, MOST_WARPS = MOST_THREADS / WARP, STACK = 256 << 10, GUARD = 4096 };

/* Why a thread does not run. */
static const char at_barrier[] = "__syncthreads";

struct shim_thread {
    struct shim_context context;
    unsigned char *stack;      /* STACK bytes, above a page that nobody may touch */
    struct shim_copies copies; /* asynchronous ones, not yet waited for */
    const char *waits;         /* for what; NULL: it can run */
    unsigned number;
};

struct warp {
    uint32_t live, ready, arrived;
    const char *what; /* the meeting that lanes wait in */
    unsigned char in[WARP][64], out[WARP][64];
};

static struct {
    const struct shim_kernel *kernel;
    const void *args;
    struct shim_thread thread[MOST_THREADS];
    struct warp warp[MOST_WARPS];
    unsigned n, n_warps, live, at_barrier, yes, yes_before, now;
    struct shim_context home;
    uint64_t random;
} B;

struct shim_place shim_here;
struct shim_dim shim_block, shim_threads, shim_grid;

static uint64_t random_bits(void)
{
    B.random ^= B.random << 13, B.random ^= B.random >> 7, B.random ^= B.random << 17;
    return B.random;
}

void shim_fail(const char *format, ...)
{
    va_list va;
    fprintf(stderr, "shim: kernel '%s', block (%u, %u, %u), thread %u: ", B.kernel ? B.kernel->name : "none",
            shim_block.x, shim_block.y, shim_block.z, shim_here.of ? shim_here.of->number : 0);
    va_start(va, format);
    vfprintf(stderr, format, va);
    va_end(va);
    fputc('\n', stderr);
    fflush(stderr);
    abort();
}

/* ---- which thread runs ---- */

/* One of the lanes in `ready`, by chance. */
static unsigned any_lane(uint32_t ready)
{
    unsigned r = (unsigned)random_bits() % WARP;
    uint32_t turned = r ? ready >> r | ready << (WARP - r) : ready;
    return ((unsigned)__builtin_ctz(turned) + r) % WARP;
}

static _Noreturn void nobody_can_run(void)
{
    const struct shim_thread *one = NULL, *other = NULL;
    for (unsigned i = 0; i < B.n; i++) {
        const struct shim_thread *t = &B.thread[i];
        if (!t->waits) continue;
        if (!one) one = t;
        else if (t->waits != one->waits) other = t;
    }
    shim_here.of = &B.thread[one->number];
    if (other)
        shim_fail("waits in %s while thread %u waits in %s: they can never meet", one->waits, other->number,
                  other->waits);
    shim_fail("waits in %s for threads that have left", one->waits);
}

/* The thread that goes on: mostly of the warp that ran last, sometimes of another. */
static struct shim_thread *choose(void)
{
    unsigned w = B.now / WARP;
    if (!B.warp[w].ready || random_bits() % 16 == 0) {
        unsigned first = (unsigned)(random_bits() % B.n_warps), i = 0;
        while (i < B.n_warps && !B.warp[(first + i) % B.n_warps].ready) i++;
        if (i == B.n_warps) nobody_can_run();
        w = (first + i) % B.n_warps;
    }
    return &B.thread[w * WARP + any_lane(B.warp[w].ready)];
}

static void go(struct shim_context *from, struct shim_thread *t)
{
    B.now = t->number;
    shim_here.thread.x = t->number;
    shim_here.of = t;
    shim_switch(from, &t->context);
}

/* Waits until somebody has made this thread ready. */
static void wait(struct shim_thread *t, const char *what)
{
    t->waits = what;
    B.warp[t->number / WARP].ready &= ~(1u << t->number % WARP);
    struct shim_thread *next = choose();
    if (next != t) go(&t->context, next);
}

static void make_ready(struct warp *w, unsigned index)
{
    for (unsigned i = 0; i < WARP; i++) B.thread[index * WARP + i].waits = NULL;
    w->ready = w->live;
}

/* ---- meetings ---- */

unsigned shim_barrier(int value)
{
    struct shim_thread *t = shim_here.of;
    if (B.live != B.n) shim_fail("waits in __syncthreads after %u threads have left", B.n - B.live);
    B.yes += value != 0;
    if (++B.at_barrier < B.n) {
        wait(t, at_barrier);
        return B.yes_before;
    }
    B.yes_before = B.yes;
    B.at_barrier = B.yes = 0;
    for (unsigned i = 0; i < B.n_warps; i++) make_ready(&B.warp[i], i);
    /* another may go first */
    struct shim_thread *next = choose();
    if (next != t) go(&t->context, next);
    return B.yes_before;
}

void shim_meet(const char *what, shim_compute *compute, const void *in, size_t bytes, void *out,
               size_t result)
{
    struct shim_thread *t = shim_here.of;
    unsigned lane = t->number % WARP;
    struct warp *w = &B.warp[t->number / WARP];
    if (w->live != 0xffffffffu) shim_fail("does %s after lanes of its warp have left", what);
    if (w->arrived && w->what != what)
        shim_fail("does %s while a lane of its warp waits in %s", what, w->what);
    w->what = what;
    if (bytes) memcpy(w->in[lane], in, bytes);
    w->arrived |= 1u << lane;
    if (w->arrived != 0xffffffffu) {
        wait(t, what);
    } else {
        w->arrived = 0;
        if (compute) compute((const unsigned char(*)[64])w->in, w->out);
        make_ready(w, t->number / WARP);
    }
    if (result) memcpy(out, w->out[lane], result);
}

static void shuffle(const unsigned char (*in)[64], unsigned char (*out)[64])
{
    for (unsigned i = 0; i < WARP; i++) {
        uint64_t from;
        memcpy(&from, in[i] + 8, 8);
        memcpy(out[i], in[from % WARP], 8);
    }
}
uint64_t shim_shuffle(uint64_t value, unsigned from)
{
    uint64_t in[2] = { value, from }, got;
    shim_meet("a shuffle", shuffle, in, sizeof in, &got, sizeof got);
    return got;
}

static void ballot(const unsigned char (*in)[64], unsigned char (*out)[64])
{
    uint32_t bits = 0;
    for (unsigned i = 0; i < WARP; i++) bits |= (uint32_t)(in[i][0] != 0) << i;
    for (unsigned i = 0; i < WARP; i++) memcpy(out[i], &bits, 4);
}
uint32_t shim_ballot(int predicate)
{
    unsigned char in = predicate != 0;
    uint32_t got;
    shim_meet("a vote", ballot, &in, 1, &got, sizeof got);
    return got;
}

void shim_sync_warp(void) { shim_meet("__syncwarp", NULL, NULL, 0, NULL, 0); }

/* ---- asynchronous copies ---- */

struct shim_copies *shim_copies_here(void) { return &shim_here.of->copies; }

/* ---- blocks and launches ---- */

/* The whole life of a thread.  Its stack is used again by the thread of the next block. */
void shim_thread_main(void)
{
    shim_switched(NULL);
    B.kernel->run(B.args);
    struct shim_thread *t = shim_here.of;
    struct warp *w = &B.warp[t->number / WARP];
    if (t->copies.n) shim_fail("leaves with %zu asynchronous copies that it has not waited for", t->copies.n);
    if (w->arrived) shim_fail("leaves while a lane of its warp waits in %s", w->what);
    if (B.at_barrier) shim_fail("leaves while %u threads wait in __syncthreads", B.at_barrier);
    w->live &= ~(1u << t->number % WARP);
    w->ready &= w->live;
    if (--B.live) go(NULL, choose());
    shim_switch(NULL, &B.home);
    abort(); /* nobody switches to a thread that has left */
}

static void run_block(void)
{
    B.live = B.n;
    B.at_barrier = B.yes = 0;
    shim_shared_begin();
    for (unsigned i = 0; i < B.n_warps; i++) {
        B.warp[i].live = B.warp[i].ready = 0xffffffffu;
        B.warp[i].arrived = 0;
    }
    for (unsigned i = 0; i < B.n; i++) {
        struct shim_thread *t = &B.thread[i];
        t->waits = NULL, t->copies.n = 0, t->copies.group = 0;
        shim_context_begin(&t->context, t->stack, STACK);
    }
    B.now = (unsigned)(random_bits() % B.n);
    go(&B.home, choose());
}

static void make_stacks(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct shim_thread *t = &B.thread[i];
        if (t->stack) continue;
        unsigned char *m = mmap(NULL, GUARD + STACK, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (m == MAP_FAILED || mprotect(m, GUARD, PROT_NONE)) {
            fprintf(stderr, "shim: no memory for the stacks of %u threads\n", n);
            abort();
        }
        t->stack = m + GUARD;
        t->number = i;
    }
}

static void check_launch(const unsigned grid[3], unsigned threads)
{
    if (threads == 0 || threads % WARP || threads > B.kernel->threads || threads > MOST_THREADS)
        shim_fail("launched with %u threads a block (a multiple of 32, at most %u)", threads,
                  B.kernel->threads);
    if (!grid[0] || !grid[1] || !grid[2] || grid[0] > INT32_MAX || grid[1] > 65535 || grid[2] > 65535)
        shim_fail("launched with a grid of %u x %u x %u blocks", grid[0], grid[1], grid[2]);
}

/* A number below n, and without a common divisor with it, so that its multiples reach every block. */
static uint64_t stride(uint64_t n)
{
    for (;;) {
        uint64_t s = random_bits() % n + (n == 1), a = s, b = n;
        while (b) {
            uint64_t r = a % b;
            a = b, b = r;
        }
        if (a == 1) return s;
    }
}

static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;

void shim_abandon(void)
{
    shim_context_left(&B.home);
    shim_here.of = NULL;
    pthread_mutex_unlock(&one);
}

void shim_launch(const struct shim_kernel *k, const unsigned grid[3], unsigned threads, size_t shared,
                 int allowed, const void *args)
{
    pthread_mutex_lock(&one);
    const char *seed = getenv("MOE_SHIM_SEED");
    B.random = (seed ? strtoull(seed, NULL, 10) : 0) * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
    for (int i = 0; i < 8; i++) random_bits();
    B.kernel = k, B.args = args, B.n = threads, B.n_warps = threads / WARP;
    shim_here.of = NULL;
    check_launch(grid, threads);
    make_stacks(threads);
    shim_context_here(&B.home);
    shim_threads = (struct shim_dim){ threads, 1, 1 };
    shim_grid = (struct shim_dim){ grid[0], grid[1], grid[2] };
    shim_shared_size(shared, allowed);
    uint64_t n = (uint64_t)grid[0] * grid[1] * grid[2], at = random_bits() % n, by = stride(n);
    for (uint64_t i = 0; i < n; i++, at = (at + by) % n) {
        shim_block.x = (unsigned)(at % grid[0]);
        shim_block.y = (unsigned)(at / grid[0] % grid[1]);
        shim_block.z = (unsigned)(at / grid[0] / grid[1]);
        run_block();
    }
    shim_here.of = NULL;
    pthread_mutex_unlock(&one);
}
