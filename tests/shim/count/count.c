/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/count/count.c - joins accesses into requests of warps, and counts these (count.h). */
#include "tests/shim/count/count.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARP = 32, WARPS = 32, SECTOR = 32, BANKS = 32, SITES = 1 << 13 };

/* What an instruction does; FILL is the part of an asynchronous copy that writes. */
enum kind { GLOBAL_LOAD, GLOBAL_STORE, SHARED_LOAD, SHARED_STORE, FILL };

struct request { uint32_t lanes; uintptr_t at[WARP]; uint8_t bytes[WARP]; };

/* A place in the program as a warp uses it since its last meeting. */
struct place { unsigned site; uint32_t visits[WARP]; struct request *request; uint32_t n, room; };

static struct {
    const struct shim_kernel *kernel;
    struct shim_region *region;
    int n;
    struct shim_counts *counts;
    uintptr_t from, to;                    /* what the regions lie in */
    uint32_t *seen[2];                     /* a bit a sector of that: loaded, stored */
    struct site { uintptr_t pc; enum kind kind; uint64_t requests, excess; } site[SITES];
    struct warp {
        struct place *place[SITES];        /* of each site; NULL: never met */
        unsigned touched[SITES], n_touched; /* since the last meeting */
        uint64_t meetings;
    } *warp[WARPS];
    uint64_t meetings[WARP * WARPS];       /* of each thread */
    unsigned begun, left;                  /* threads of the block */
} C;

/* ---- requests ---- */

static struct shim_region *region_of(uintptr_t at)
{
    for (int i = 0; i < C.n; i++)
        if (at - (uintptr_t)C.region[i].at < C.region[i].bytes) return &C.region[i];
    return NULL;
}

static void see(uint32_t *seen, uintptr_t sector)
{
    uintptr_t i = sector - C.from / SECTOR;
    seen[i / 32] |= 1u << i % 32;
}

/* Counts v once, if it is not among list [*n]. */
static bool add(uintptr_t *list, unsigned *n, uintptr_t v)
{
    for (unsigned i = *n; i--;)
        if (list[i] == v) return false;
    list[(*n)++] = v;
    return true;
}

/* Returns the sectors beyond the least. */
static unsigned finish_global(const struct request *r, bool store)
{
    uintptr_t sector[2 * WARP], start[WARP];
    unsigned sectors = 0, starts = 0, distinct = 0;
    struct shim_traffic *t = NULL;
    for (unsigned l = 0; l < WARP; l++) {
        if (!(r->lanes >> l & 1)) continue;
        struct shim_region *g = region_of(r->at[l]);
        if (!t) t = store ? &g->store : &g->load;
        t->bytes += r->bytes[l];
        if (add(start, &starts, r->at[l])) distinct += r->bytes[l];
        for (uintptr_t s = r->at[l] / SECTOR; s <= (r->at[l] + r->bytes[l] - 1) / SECTOR; s++)
            if (add(sector, &sectors, s)) see(C.seen[store], s);
    }
    t->requests++;
    t->sectors += sectors;
    t->least += (distinct + SECTOR - 1) / SECTOR;
    return sectors - (distinct + SECTOR - 1) / SECTOR;
}

/* The waves of lanes [first, first + n). */
static unsigned waves_of(const struct request *r, unsigned first, unsigned n)
{
    uintptr_t word[BANKS][WARP];
    unsigned words[BANKS] = { 0 }, most = 0;
    for (unsigned l = first; l < first + n; l++) {
        if (!(r->lanes >> l & 1)) continue;
        for (uintptr_t w = r->at[l] / 4; w <= (r->at[l] + r->bytes[l] - 1) / 4; w++) {
            unsigned b = w % BANKS;
            add(word[b], &words[b], w);
            most = words[b] > most ? words[b] : most;
        }
    }
    return most;
}

/* Returns the conflicts. */
static unsigned finish_shared(const struct request *r, struct shim_banks *b)
{
    unsigned width = 0, conflicts = 0;
    for (unsigned l = 0; l < WARP; l++)
        if (r->lanes >> l & 1 && r->bytes[l] > width) width = r->bytes[l];
    const unsigned lanes = width <= 4 ? 32 : width <= 8 ? 16 : 8;
    b->requests++;
    for (unsigned l = 0; l < WARP; l += lanes) {
        unsigned waves = waves_of(r, l, lanes);
        b->waves += waves;
        conflicts += waves ? waves - 1 : 0;
    }
    b->conflicts += conflicts;
    return conflicts;
}

static void finish(struct site *s, struct request *r)
{
    if (!r->lanes) return;
    s->requests++;
    if (s->kind <= GLOBAL_STORE) s->excess += finish_global(r, s->kind == GLOBAL_STORE);
    else
        s->excess += finish_shared(r, s->kind == SHARED_LOAD ? &C.counts->load
                                      : s->kind == SHARED_STORE ? &C.counts->store : &C.counts->fill);
    r->lanes = 0;
}

/* Finishes what the warp has done since its last meeting. */
static void finish_warp(struct warp *w)
{
    for (unsigned i = 0; i < w->n_touched; i++) {
        struct place *p = w->place[w->touched[i]];
        for (uint32_t k = 0; k < p->n; k++) finish(&C.site[p->site], &p->request[k]);
        memset(p->visits, 0, sizeof p->visits);
        p->n = 0;
    }
    w->n_touched = 0;
}

static void *checked(void *p)
{
    if (p) return p;
    fprintf(stderr, "shim: no memory for counts\n");
    abort();
}

static unsigned site_of(uintptr_t pc, enum kind kind)
{
    unsigned i = (unsigned)((pc * 8 + kind) * 0x9e3779b97f4a7c15u >> 51), tried = 0;
    while (C.site[i].pc && (C.site[i].pc != pc || C.site[i].kind != kind)) {
        i = (i + 1) % SITES;
        if (++tried == SITES) shim_fail("has more than %d places that touch memory", SITES);
    }
    C.site[i].pc = pc, C.site[i].kind = kind;
    return i;
}

static void count(uintptr_t pc, uintptr_t at, unsigned bytes, enum kind kind)
{
    const unsigned thread = shim_here.thread.x, lane = thread % WARP, site = site_of(pc, kind);
    struct warp *w = C.warp[thread / WARP];
    struct place *p = w->place[site];
    if (!p) {
        p = w->place[site] = checked(calloc(1, sizeof *p));
        p->site = site;
    }
    if (!p->n) w->touched[w->n_touched++] = site;
    const uint32_t k = p->visits[lane]++;
    if (k == p->n) {
        if (p->n == p->room) {
            p->room = p->room ? 2 * p->room : 4;
            p->request = checked(realloc(p->request, p->room * sizeof *p->request));
        }
        p->request[p->n++].lanes = 0;
    }
    struct request *r = &p->request[k];
    r->lanes |= 1u << lane, r->at[lane] = at, r->bytes[lane] = (uint8_t)bytes;
    if (r->lanes == 0xffffffffu) finish(&C.site[site], r);
}

/* An access of any size, in pieces of at most 16 bytes. */
static void access(uintptr_t pc, const void *p, size_t bytes, bool store)
{
    uintptr_t at = (uintptr_t)p;
    if (!C.kernel || !shim_here.of) return;
    const bool shared = shim_is_shared(p, bytes);
    if (!shared && (at < C.from || at >= C.to || !region_of(at))) return;
    const enum kind kind = shared ? store ? SHARED_STORE : SHARED_LOAD : store ? GLOBAL_STORE : GLOBAL_LOAD;
    for (size_t n; bytes; bytes -= n, at += n) {
        n = bytes < 16 ? bytes : 16;
        count(pc, at, (unsigned)n, kind);
    }
}

/* ---- what compilers call with -fsanitize=thread ---- */

#define HERE ((uintptr_t)__builtin_return_address(0))
#define HOOK(name, bytes, store)  \
    void __tsan_##name(void *p);  \
    void __tsan_##name(void *p) { access(HERE, p, bytes, store); }
HOOK(read1, 1, false) HOOK(read2, 2, false) HOOK(read4, 4, false) HOOK(read8, 8, false)
HOOK(read16, 16, false) HOOK(write1, 1, true) HOOK(write2, 2, true) HOOK(write4, 4, true)
HOOK(write8, 8, true) HOOK(write16, 16, true)
HOOK(unaligned_read2, 2, false) HOOK(unaligned_read4, 4, false) HOOK(unaligned_read8, 8, false)
HOOK(unaligned_read16, 16, false) HOOK(unaligned_write2, 2, true) HOOK(unaligned_write4, 4, true)
HOOK(unaligned_write8, 8, true) HOOK(unaligned_write16, 16, true)

void __tsan_read_range(void *p, size_t n);
void __tsan_read_range(void *p, size_t n) { access(HERE, p, n, false); }
void __tsan_write_range(void *p, size_t n);
void __tsan_write_range(void *p, size_t n) { access(HERE, p, n, true); }
void *__tsan_memcpy(void *to, const void *from, size_t n);
void *__tsan_memcpy(void *to, const void *from, size_t n)
{
    access(HERE, from, n, false), access(HERE, to, n, true);
    return memcpy(to, from, n);
}
void *__tsan_memset(void *to, int c, size_t n);
void *__tsan_memset(void *to, int c, size_t n)
{
    access(HERE, to, n, true);
    return memset(to, c, n);
}
void __tsan_init(void);
void __tsan_init(void) {}
void __tsan_func_entry(void *caller);
void __tsan_func_entry(void *caller) { (void)caller; }
void __tsan_func_exit(void);
void __tsan_func_exit(void) {}

/* ---- the shim's own operations, which the linker lets pass through here (--wrap) ---- */

#define WRAPS(type, name, ...)        \
    type __real_shim_##name(__VA_ARGS__); \
    type __wrap_shim_##name(__VA_ARGS__); \
    type __wrap_shim_##name(__VA_ARGS__)

/* This thread has met the others of its warp, and whoever does so first finishes what was before. */
static void met(void)
{
    if (!C.kernel) return;
    const unsigned thread = shim_here.thread.x;
    struct warp *w = C.warp[thread / WARP];
    if (++C.meetings[thread] <= w->meetings) return;
    w->meetings = C.meetings[thread];
    finish_warp(w);
}

WRAPS(unsigned, barrier, int value)
{
    unsigned r = __real_shim_barrier(value);
    met();
    return r;
}
WRAPS(uint64_t, shuffle, uint64_t value, unsigned from)
{
    uint64_t r = __real_shim_shuffle(value, from);
    met();
    return r;
}
WRAPS(uint32_t, ballot, int predicate)
{
    uint32_t r = __real_shim_ballot(predicate);
    met();
    return r;
}
WRAPS(void, sync_warp, void) { __real_shim_sync_warp(), met(); }
WRAPS(uint32_t, movmatrix, uint32_t m)
{
    uint32_t r = __real_shim_movmatrix(m);
    met();
    return r;
}

static void count_mma(void)
{
    if (C.kernel && shim_here.thread.x % WARP == 0) C.counts->mma++;
    met();
}
WRAPS(void, mma_f16, float d[4], const uint32_t a[4], const uint32_t b[2])
{
    __real_shim_mma_f16(d, a, b);
    count_mma();
}
WRAPS(void, mma_bf16, float d[4], const uint32_t a[4], const uint32_t b[2])
{
    __real_shim_mma_bf16(d, a, b);
    count_mma();
}

WRAPS(void, ldmatrix, uint32_t *m, const void *row, int matrices, int transposed)
{
    if ((int)(shim_here.thread.x % WARP) < 8 * matrices) access(HERE, row, 16, false);
    __real_shim_ldmatrix(m, row, matrices, transposed);
    met();
}
WRAPS(void, copy, void *to, const void *from, unsigned n, unsigned size)
{
    if (n) access(HERE, from, n, false);
    if (C.kernel) {
        count(HERE, (uintptr_t)to, size, FILL);
        C.counts->copied += n;
    }
    __real_shim_copy(to, from, n, size);
}
WRAPS(void, move, void *to, const void *from, size_t n, const void *aligned)
{
    access(HERE, from, n, false);
    access(HERE, to, n, true);
    __real_shim_move(to, from, n, aligned);
}

/* ---- launches ---- */

static void finish_block(void)
{
    for (unsigned i = 0; i < WARPS; i++) {
        finish_warp(C.warp[i]);
        C.warp[i]->meetings = 0;
    }
    memset(C.meetings, 0, sizeof C.meetings);
}

/* A thread of the kernel. */
static void run(const void *args)
{
    C.begun++;
    C.kernel->run(args);
    if (++C.left < shim_threads.x) return;
    finish_block(); /* all of them have left */
    C.begun = C.left = 0;
}

static uint64_t seen_of(const uint32_t *seen, const struct shim_region *g)
{
    uint64_t n = 0, first = ((uintptr_t)g->at - C.from) / SECTOR;
    for (uint64_t i = first; i < first + (g->bytes + SECTOR - 1) / SECTOR; i++)
        n += seen[i / 32] >> i % 32 & 1;
    return n;
}

void shim_count(const struct shim_kernel *k, const unsigned grid[3], unsigned threads, size_t shared,
                const void *args, struct shim_region *region, int n, struct shim_counts *counts)
{
    struct shim_kernel counted = *k;
    counted.run = run;
    *counts = (struct shim_counts){ 0 };
    C.from = n ? (uintptr_t)region[0].at : 0;
    C.to = n ? (uintptr_t)region[n - 1].at + region[n - 1].bytes : 0;
    for (int i = 0; i < n; i++) region[i].load = region[i].store = (struct shim_traffic){ 0 };
    for (int i = 0; i < 2; i++) C.seen[i] = checked(calloc((C.to - C.from) / SECTOR / 32 + 2, 4));
    for (int i = 0; i < WARPS; i++)
        if (!C.warp[i]) C.warp[i] = checked(calloc(1, sizeof *C.warp[i]));
    memset(C.site, 0, sizeof C.site);
    C.region = region, C.n = n, C.counts = counts, C.begun = C.left = 0;
    C.kernel = k;
    shim_launch(&counted, grid, threads, shared, (int)shared, args);
    C.kernel = NULL;
    for (int i = 0; i < n; i++) {
        region[i].load.distinct = seen_of(C.seen[0], &region[i]);
        region[i].store.distinct = seen_of(C.seen[1], &region[i]);
    }
    free(C.seen[0]), free(C.seen[1]);
    for (int i = 0; i < WARPS; i++)
        for (int s = 0; s < SITES; s++) {
            if (C.warp[i]->place[s]) free(C.warp[i]->place[s]->request);
            free(C.warp[i]->place[s]);
            C.warp[i]->place[s] = NULL;
        }
}

void shim_count_places(void (*tell)(uintptr_t address, const char *what, uint64_t requests, uint64_t excess))
{
    static const char *const what[] = { "loads", "stores", "shared loads", "shared stores", "fills" };
    for (int i = 0; i < SITES; i++)
        if (C.site[i].excess)
            tell(C.site[i].pc - 1, what[C.site[i].kind], C.site[i].requests, C.site[i].excess);
}
