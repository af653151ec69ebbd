/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/shared.c - a block's shared memory, and asynchronous copies into it (shim.h). */
#include "tests/shim/cuda/internal.h"

#include <stdlib.h>
#include <string.h>

#if SHIM_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

/* Dynamic memory lies first, then the static arrays, each followed by bytes that belong to nobody. */
enum { ALIGN = 128, BETWEEN = 128 };
static _Alignas(1024) unsigned char memory[SHIM_SHARED + SHIM_STATIC + 64 * (ALIGN + BETWEEN)];
static size_t dynamic, used, statics;
static int allowed;
static uint64_t block;

/* The manual of the driver, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: without the attribute static and
 * dynamic memory share 48 KiB; with it, the static memory and the attribute's value share what a block can
 * have at most.  Static arrays are known here only when a thread comes to their declarations, so a kernel is
 * stopped there, where a GPU would not start it. */
static void check_sizes(void)
{
    if (statics > SHIM_STATIC) shim_fail("has %zu bytes of shared arrays (at most %d)", statics, SHIM_STATIC);
    if (allowed == SHIM_NOT_ALLOWED && statics + dynamic > SHIM_STATIC)
        shim_fail("has %zu bytes of shared memory, and was allowed no more than %d", statics + dynamic,
                  SHIM_STATIC);
    if (allowed != SHIM_NOT_ALLOWED && dynamic > (size_t)allowed)
        shim_fail("has %zu bytes of dynamic shared memory, and was allowed %d", dynamic, allowed);
    if (allowed != SHIM_NOT_ALLOWED && statics + (size_t)allowed > SHIM_SHARED)
        shim_fail("has %zu bytes of shared arrays and was allowed %d more (together at most %d)", statics,
                  allowed, SHIM_SHARED);
}

void shim_shared_size(size_t n, int most)
{
    dynamic = n;
    allowed = most;
    statics = 0;
    check_sizes();
}

void shim_shared_begin(void)
{
    block++;
    ASAN_UNPOISON_MEMORY_REGION(memory, sizeof memory);
    memset(memory, 0xff, dynamic);
    ASAN_POISON_MEMORY_REGION(memory + dynamic, sizeof memory - dynamic);
    statics = 0;
    used = (dynamic + BETWEEN + ALIGN - 1) / ALIGN * ALIGN;
}

void *shim_shared(struct shim_site *site, size_t bytes)
{
    if (site->block == block) return site->at;
    statics += (bytes + 15) / 16 * 16;
    check_sizes();
    site->block = block;
    site->at = memory + used;
    ASAN_UNPOISON_MEMORY_REGION(site->at, bytes);
    memset(site->at, 0xff, bytes);
    used += (bytes + BETWEEN + ALIGN - 1) / ALIGN * ALIGN;
    return site->at;
}

void *shim_dynamic(void) { return memory; }

bool shim_is_shared(const void *p, size_t n)
{
    uintptr_t at = (uintptr_t)p, begin = (uintptr_t)memory;
    return at >= begin && at + n <= begin + used;
}

/* ---- copies ---- */

void shim_copy(void *to, const void *from, unsigned n, unsigned size)
{
    struct shim_copies *c = shim_copies_here();
    if (n > size) shim_fail("copies %u bytes where cp.async copies at most %u", n, size);
    if ((uintptr_t)to % size || (uintptr_t)from % size)
        shim_fail("an asynchronous copy of %u bytes has an address that is no multiple of %u", size, size);
    if (!shim_is_shared(to, size)) shim_fail("an asynchronous copy goes to memory that is not shared");
    if (c->n == c->room) {
        c->room = c->room ? 2 * c->room : 16;
        c->copy = realloc(c->copy, c->room * sizeof *c->copy);
        if (!c->copy) abort();
    }
    memset(to, 0xff, size);
    c->copy[c->n++] = (struct shim_one_copy){ to, from, n, size, c->group };
}

void shim_copy_commit(void) { shim_copies_here()->group++; }

void shim_copy_wait(unsigned newest)
{
    struct shim_copies *c = shim_copies_here();
    size_t done = 0;
    /* a copy that was not committed belongs to no group, and is not waited for */
    while (done < c->n && c->copy[done].group + newest < c->group) {
        const struct shim_one_copy *o = &c->copy[done++];
        if (o->n) memcpy(o->to, o->from, o->n);
        memset(o->to + o->n, 0, o->size - o->n);
    }
    c->n -= done;
    if (done) memmove(c->copy, c->copy + done, c->n * sizeof *c->copy);
}

void shim_move(void *to, const void *from, size_t n, const void *aligned)
{
    if ((uintptr_t)aligned % n)
        shim_fail("an access of %zu bytes has an address that is no multiple of it", n);
    memcpy(to, from, n);
}
