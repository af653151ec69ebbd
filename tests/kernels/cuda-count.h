/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/cuda-count.h - launches of GPU kernels whose accesses to memory are counted
 * (tests/shim/count/count.h), and the table of them that check-cuda-count prints.
 *
 * Each array that a kernel gets is a region of its own, with the bytes that any kernel would have to move for
 * the result: its share of the `floor`. */
#ifndef CUDA_COUNT_H
#define CUDA_COUNT_H

#undef NDEBUG
#include "kernels/cuda/common.h"
#include "tests/shim/count/count.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT_MEMORY = 96 << 20, COUNT_ARRAYS = 24, COUNT_APART = 256, COUNT_SECTOR = 32 };

static unsigned char *count_memory;
static size_t count_used;
static struct shim_region count_array[COUNT_ARRAYS];
static int64_t count_must[COUNT_ARRAYS];
static int count_arrays;
static bool count_keep; /* whether arrays that are taken hold what the launch before left there */
static bool count_seen[MOE_CUDA_KERNELS];

/* What one launch did.  must: bytes of the floor; moved: of sectors that were touched, each once for loads
 * and once for stores, which memory has to move even if a cache keeps all; asked: of sectors of all requests,
 * which the caches have to move. */
struct counted {
    struct shim_counts c;
    struct shim_traffic load, store;
    int64_t must, moved, asked;
};

/* ---- arrays ---- */

/* Zeros, unless count_keep.  must: the bytes of the floor. */
static uint64_t count_take(int64_t bytes, int64_t must)
{
    assert(count_arrays < COUNT_ARRAYS);
    unsigned char *p = count_memory + count_used;
    count_used += ((size_t)bytes + COUNT_APART - 1) / COUNT_APART * COUNT_APART;
    assert(count_used <= COUNT_MEMORY);
    if (!count_keep) memset(p, 0, (size_t)bytes);
    count_array[count_arrays] = (struct shim_region){ .at = p, .bytes = (size_t)bytes };
    count_must[count_arrays++] = must;
    return (uint64_t)(uintptr_t)p;
}
/* An array that has to be read, or to be written. */
static uint64_t count_zeros(int64_t bytes) { return count_take(bytes, bytes); }
static uint64_t count_out(int64_t bytes) { return count_take(bytes, bytes); }
static uint64_t count_put(const void *from, int64_t bytes)
{
    uint64_t at = count_zeros(bytes);
    memcpy((void *)(uintptr_t)at, from, (size_t)bytes);
    return at;
}
/* n floats in (-1, 1). */
static inline uint64_t count_floats(int64_t n)
{
    uint64_t at = count_zeros(4 * n);
    uint32_t r = 12345;
    for (int64_t i = 0; i < n; i++) {
        r = r * 1664525u + 1013904223u;
        ((float *)(uintptr_t)at)[i] = (float)(int32_t)r * 0x1p-31f;
    }
    return at;
}

/* ---- rows of the table ---- */

static char count_text[80];
#define COUNT_SHAPE(...) (snprintf(count_text, sizeof count_text, __VA_ARGS__), count_text)

static void count_heading(void)
{
    printf("%-16s %-42s %9s %7s %7s %13s %13s %8s %9s %8s %9s\n", "kernel", "shape", "floor, kB", "moved",
           "asked", "loads", "stores", "waves", "conflicts", "mma", "copied, kB");
}

static void add_traffic(struct shim_traffic *to, const struct shim_traffic *from)
{
    to->requests += from->requests, to->bytes += from->bytes, to->sectors += from->sectors;
    to->least += from->least, to->distinct += from->distinct;
}

/* Sectors of a request, and the least there could be. */
static const char *sectors_of(const struct shim_traffic *t, char text[32])
{
    const double n = t->requests ? (double)t->requests : 1;
    if (!t->requests) return "-";
    snprintf(text, 32, "%.2f of %.2f", (double)t->sectors / n, (double)t->least / n);
    return text;
}

static void print_counted(const char *name, const char *shape, const struct counted *r)
{
    char load[32], store[32];
    const struct shim_counts *c = &r->c;
    printf("%-16s %-42s %9.1f %6.1f%% %6.1f%% %13s %13s %8llu %9llu %8llu %9.1f\n", name, shape,
           (double)r->must / 1e3, 100 * (double)r->moved / (double)r->must,
           100 * (double)r->asked / (double)r->must, sectors_of(&r->load, load), sectors_of(&r->store, store),
           (unsigned long long)(c->load.waves + c->store.waves + c->fill.waves),
           (unsigned long long)(c->load.conflicts + c->store.conflicts + c->fill.conflicts),
           (unsigned long long)c->mma, (double)c->copied / 1e3);
    fflush(stdout);
}

/* Of which kernel to print the places in the program that move more than they have to; NULL: of none. */
static const char *count_places;
static void print_place(uintptr_t address, const char *what, uint64_t requests, uint64_t excess)
{
    extern char __executable_start;
    const unsigned long long at = address - (uintptr_t)&__executable_start;
    printf("    %#llx: %llu %s, %llu %s too many\n", at, (unsigned long long)requests, what,
           (unsigned long long)excess,
           strchr(what, ' ') || *what == 'f' ? "waves" : "sectors");
}

/* Launches, prints a row, and takes all arrays back: their counts stay until the next is taken. */
static struct counted count_launch(enum moe_cuda_kernel k, const char *shape, struct moe_cuda_grid g,
                                   const void *args)
{
    static const char *const name[] = {
#define CUDA_KERNEL(name, arguments, threads) "moe_cuda_" #name,
#include "kernels/cuda/cuda.def"
#undef CUDA_KERNEL
    };
    struct counted r = { 0 };
    const unsigned grid[3] = { g.x, g.y, g.z };
    const struct shim_kernel *kernel = shim_find(name[k]);
    shim_count(kernel, grid, g.threads, g.shared, args, count_array, count_arrays, &r.c);
    for (int i = 0; i < count_arrays; i++) {
        add_traffic(&r.load, &count_array[i].load);
        add_traffic(&r.store, &count_array[i].store);
        r.must += count_must[i];
    }
    r.moved = COUNT_SECTOR * (int64_t)(r.load.distinct + r.store.distinct);
    r.asked = COUNT_SECTOR * (int64_t)(r.load.sectors + r.store.sectors);
    print_counted(name[k] + strlen("moe_cuda_"), shape, &r);
    if (count_places && !strcmp(count_places, name[k] + strlen("moe_cuda_"))) shim_count_places(print_place);
    count_seen[k] = true;
    count_arrays = 0, count_used = 0;
    return r;
}
#define COUNT_LAUNCH(name, shape, args) \
    count_launch(MOE_CUDA_##name, shape, moe_cuda_##name##_grid(&(args)), &(args))

/* Kernels of which there is no row. */
static int count_unseen(void)
{
    static const char *const name[] = {
#define CUDA_KERNEL(name, arguments, threads) #name,
#include "kernels/cuda/cuda.def"
#undef CUDA_KERNEL
    };
    int n = 0;
    for (int k = 0; k < MOE_CUDA_KERNELS; k++)
        if (!count_seen[k]) printf("%s %s", n++ ? "," : "not counted:", name[k]);
    if (n) printf("\n");
    return n;
}

#endif
