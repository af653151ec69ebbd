/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in for NVIDIA's driver: device memory, address ranges, handles, pinned memory.
 *
 * Physical memory is a part of a memory file (memfd).  It is mapped twice: under the device address, where
 * nobody may touch it unless kernels run, and under an alias, through which the stand-in copies.  What an
 * allocation does not use of its pages lies in front of it, and a page without memory before and after them,
 * so that a kernel that runs past its end faults. */
#include "tests/shim/cuda/driver.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMORY_NAME "moe-stand-in-for-a-gpu"

struct drv_physical {
    int fd, handles, device;          /* handles: types that may be exported */
    int users;                               /* handles and pieces */
    bool own_fd, imported;
    off_t offset;
    size_t bytes;
    unsigned char *alias;
};

/* Addresses that belong to devices, with or without memory. */
struct span { struct span *next; uintptr_t at; size_t bytes; bool reserved; };
struct pinned { struct pinned *next; unsigned char *at; size_t bytes; };

static struct span *spans;
static struct drv_piece *pieces;
static struct pinned *pinned;
static uint64_t used[DRV_DEVICES];
static int pool = -1;                        /* the file of all memory that is not exported */
static off_t pool_end;

static size_t page_bytes(void) { return (size_t)sysconf(_SC_PAGESIZE); }
static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* ---- physical memory ---- */

static bool open_file(struct drv_physical *p)
{
    p->own_fd = p->handles != MOE_CU_HANDLE_NONE;
    if (p->own_fd || pool < 0) {
        p->fd = memfd_create(MEMORY_NAME, MFD_CLOEXEC);
        if (p->fd < 0) return false;
        if (!p->own_fd) pool = p->fd;
    }
    if (p->own_fd) return ftruncate(p->fd, (off_t)p->bytes) == 0;
    p->fd = pool;
    p->offset = pool_end;
    pool_end += (off_t)p->bytes;
    return ftruncate(pool, pool_end) == 0;
}

static void drop(struct drv_physical *p)
{
    if (--p->users > 0) return;
    munmap(p->alias, p->bytes);
    if (p->own_fd) close(p->fd);
    else (void)!fallocate(pool, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, p->offset, (off_t)p->bytes);
    if (!p->imported) used[p->device] -= p->bytes;
    free(p);
}

static bool map_alias(struct drv_physical *p)
{
    void *a = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, p->offset);
    p->alias = a == MAP_FAILED ? NULL : a;
    return p->alias;
}

bool drv_take(int device, int64_t bytes)
{
    if (bytes > 0 && (uint64_t)bytes > drv_memory() - used[device]) return false;
    used[device] += (uint64_t)bytes;
    return true;
}

static struct drv_physical *create(size_t bytes, int handles, int device)
{
    if (bytes > drv_memory() - used[device]) return NULL;
    struct drv_physical *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    *p = (struct drv_physical){ .fd = -1, .handles = handles, .users = 1, .device = device, .bytes = bytes };
    if (!open_file(p) || !map_alias(p)) {
        if (p->own_fd && p->fd >= 0) close(p->fd);
        free(p);
        return NULL;
    }
    used[device] += bytes;
    return p;
}

/* ---- addresses ---- */

static struct span *add_span(size_t bytes, bool reserved, size_t align)
{
    struct span *s = calloc(1, sizeof *s);
    void *at = s ? mmap(NULL, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                 : MAP_FAILED;
    if (at == MAP_FAILED) {
        free(s);
        return NULL;
    }
    uintptr_t first = round_up((uintptr_t)at, align), end = first + bytes;
    if (first > (uintptr_t)at) munmap(at, first - (uintptr_t)at);
    munmap((void *)end, (uintptr_t)at + bytes + align - end);
    *s = (struct span){ spans, first, bytes, reserved };
    spans = s;
    return s;
}

static struct span *find_span(uintptr_t at, size_t bytes)
{
    for (struct span *s = spans; s; s = s->next)
        if (at >= s->at && at - s->at < s->bytes && bytes <= s->bytes - (at - s->at)) return s;
    return NULL;
}

static void remove_span(struct span *s)
{
    struct span **i = &spans;
    while (*i != s) i = &(*i)->next;
    *i = s->next;
    munmap((void *)s->at, s->bytes);
    free(s);
}

bool drv_is_device(uintptr_t at) { return find_span(at, 1); }

static struct drv_piece *find_piece(uintptr_t at)
{
    for (struct drv_piece *p = pieces; p; p = p->next)
        if (at >= p->at && at - p->at < p->bytes) return p;
    return NULL;
}

static void remove_piece(struct drv_piece *p)
{
    struct drv_piece **i = &pieces;
    while (*i != p) i = &(*i)->next;
    *i = p->next;
    drop(p->physical);
    free(p);
}

/* Puts physical memory at the addresses [page, page + its bytes); the piece begins `skip` bytes after. */
static struct drv_piece *add_piece(struct drv_physical *physical, uintptr_t page, size_t skip, size_t bytes)
{
    struct drv_piece *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    if (mmap((void *)page, physical->bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, physical->fd,
             physical->offset) == MAP_FAILED) {
        free(p);
        return NULL;
    }
    *p = (struct drv_piece){ .next = pieces, .at = page + skip, .bytes = bytes, .physical = physical,
                             .alias = physical->alias + skip, .page = page, .page_bytes = physical->bytes };
    physical->users++;
    pieces = p;
    return p;
}

unsigned char *drv_alias(moe_cu_ptr at, size_t *bytes, bool write)
{
    const struct drv_piece *p = find_piece(at);
    int need = write ? MOE_CU_ACCESS_WRITE : MOE_CU_ACCESS_READ;
    if (!p || (p->access & need) != need) return NULL;
    size_t here = p->bytes - (at - p->at);
    if (*bytes > here) *bytes = here;
    return p->alias + (at - p->at);
}

bool drv_can(moe_cu_ptr at, size_t bytes, bool write)
{
    for (size_t n = bytes; bytes; bytes -= n, at += n, n = bytes)
        if (!drv_alias(at, &n, write)) return false;
    return true;
}

static int protection(const struct drv_piece *p)
{
    return p->access == MOE_CU_ACCESS_WRITE ? PROT_READ | PROT_WRITE : p->access ? PROT_READ : PROT_NONE;
}

static bool is_open;

void drv_open_memory(void)
{
    if (is_open) return;
    is_open = true;
    for (struct drv_piece *p = pieces; p; p = p->next)
        mprotect((void *)p->page, p->page_bytes, protection(p));
}

void drv_close_memory(void)
{
    if (!is_open) return;
    is_open = false;
    for (struct drv_piece *p = pieces; p; p = p->next) mprotect((void *)p->page, p->page_bytes, PROT_NONE);
}

/* ---- allocations ---- */

/* The manual, "Memory Management", cuMemAlloc: 0 bytes are an invalid value; what it gives is aligned for any
 * type (here to 256 bytes, as on every GPU). */
moe_cu_result cuMemAlloc_v2(moe_cu_ptr *p, size_t bytes)
{
    ENTER(cuMemAlloc_v2, DRV_CONTEXT);
    moe_cu_result r = drv_not_capturing();
    if (r == MOE_CU_OK && !bytes) r = MOE_CU_INVALID_VALUE;
    if (r == MOE_CU_OK && bytes > drv_memory()) r = MOE_CU_OUT_OF_MEMORY;
    if (r != MOE_CU_OK) return drv_leave(r);
    size_t page = page_bytes(), mine = round_up(bytes, 256), whole = round_up(mine, page);
    struct drv_physical *physical = create(whole, MOE_CU_HANDLE_NONE, drv_context()->device);
    struct span *s = physical ? add_span(whole + 2 * page, false, page) : NULL;
    struct drv_piece *piece = s ? add_piece(physical, s->at + page, whole - mine, bytes) : NULL;
    if (physical) drop(physical);
    if (!piece && s) remove_span(s);
    if (!piece) return drv_leave(MOE_CU_OUT_OF_MEMORY);
    memset(physical->alias, 0xff, whole);
    piece->access = MOE_CU_ACCESS_WRITE;
    piece->allocated = true;
    drv_left.allocations++;
    *p = piece->at;
    return drv_leave(MOE_CU_OK);
}

/* It waits for everything first, as the manual says of the calls that free memory. */
moe_cu_result cuMemFree_v2(moe_cu_ptr p)
{
    ENTER(cuMemFree_v2, DRV_BACK);
    moe_cu_result r = drv_not_capturing();
    struct drv_piece *piece = r == MOE_CU_OK ? find_piece(p) : NULL;
    if (r != MOE_CU_OK) return drv_leave(r);
    if (!piece || piece->at != p || !piece->allocated) return drv_leave(MOE_CU_INVALID_VALUE);
    r = drv_drain_all();
    remove_piece(piece);
    remove_span(find_span(p, 1));
    drv_left.allocations--;
    return drv_leave(r);
}

moe_cu_result cuMemGetInfo_v2(size_t *left, size_t *total)
{
    ENTER(cuMemGetInfo_v2, DRV_CONTEXT);
    *total = drv_memory();
    *left = *total - used[drv_context()->device];
    return drv_leave(MOE_CU_OK);
}

/* ---- pinned memory ---- */

moe_cu_result cuMemHostAlloc(void **p, size_t bytes, unsigned flags)
{
    ENTER(cuMemHostAlloc, DRV_CONTEXT);
    moe_cu_result r = drv_not_capturing();
    if (r == MOE_CU_OK && (!bytes || flags & ~7u)) r = MOE_CU_INVALID_VALUE;
    if (r != MOE_CU_OK) return drv_leave(r);
    struct pinned *n = calloc(1, sizeof *n);
    void *at = n ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
    if (at == MAP_FAILED) {
        free(n);
        return drv_leave(MOE_CU_OUT_OF_MEMORY);
    }
    *n = (struct pinned){ pinned, at, bytes };
    pinned = n;
    drv_left.pinned++;
    *p = at;
    return drv_leave(MOE_CU_OK);
}

moe_cu_result cuMemFreeHost(void *p)
{
    ENTER(cuMemFreeHost, DRV_BACK);
    struct pinned **i = &pinned;
    moe_cu_result r = drv_not_capturing();
    while (*i && (*i)->at != p) i = &(*i)->next;
    if (r == MOE_CU_OK && !*i) r = MOE_CU_INVALID_VALUE;
    if (r != MOE_CU_OK) return drv_leave(r);
    r = drv_drain_all();
    struct pinned *gone = *i;
    *i = gone->next;
    munmap(gone->at, gone->bytes);
    free(gone);
    drv_left.pinned--;
    return drv_leave(r);
}

bool drv_is_pinned(const void *p, size_t bytes)
{
    const unsigned char *at = p;
    for (const struct pinned *i = pinned; i; i = i->next)
        if (at >= i->at && at + bytes <= i->at + i->bytes) return true;
    return false;
}

/* ---- address ranges: the manual's page "Virtual Memory Management" ---- */

static bool whole_steps(uint64_t n) { return n && n % DRV_GRANULARITY == 0; }

moe_cu_result cuMemGetAllocationGranularity(size_t *bytes, const moe_cu_alloc_prop *p, moe_cu_granularity o)
{
    ENTER(cuMemGetAllocationGranularity, DRV_STARTED);
    if (!drv_has("vmm")) return drv_leave(MOE_CU_NOT_SUPPORTED);
    if (p->type != MOE_CU_PINNED || o < 0 || o > 1) return drv_leave(MOE_CU_INVALID_VALUE);
    *bytes = DRV_GRANULARITY;
    return drv_leave(MOE_CU_OK);
}

/* cuMemAddressReserve: the size is a multiple of the granularity, the alignment a power of two, flags 0. */
moe_cu_result cuMemAddressReserve(moe_cu_ptr *p, size_t bytes, size_t align, moe_cu_ptr wanted,
                                  unsigned long long flags)
{
    ENTER(cuMemAddressReserve, DRV_CONTEXT);
    (void)wanted; /* a wish */
    if (!drv_has("vmm")) return drv_leave(MOE_CU_NOT_SUPPORTED);
    if (!whole_steps(bytes) || (align & (align - 1)) || flags) return drv_leave(MOE_CU_INVALID_VALUE);
    struct span *s = add_span(bytes, true, align > DRV_GRANULARITY ? align : DRV_GRANULARITY);
    if (!s) return drv_leave(MOE_CU_OUT_OF_MEMORY);
    drv_left.ranges++;
    *p = s->at;
    return drv_leave(MOE_CU_OK);
}

/* cuMemAddressFree: the whole range, as it was reserved, with nothing mapped in it. */
moe_cu_result cuMemAddressFree(moe_cu_ptr p, size_t bytes)
{
    ENTER(cuMemAddressFree, DRV_BACK);
    struct span *s = find_span(p, bytes);
    if (!s || s->at != p || s->bytes != bytes || !s->reserved) return drv_leave(MOE_CU_INVALID_VALUE);
    for (const struct drv_piece *i = pieces; i; i = i->next)
        if (i->at >= s->at && i->at < s->at + s->bytes) return drv_leave(MOE_CU_INVALID_VALUE);
    remove_span(s);
    drv_left.ranges--;
    return drv_leave(MOE_CU_OK);
}

/* cuMemCreate: the size is a multiple of the granularity; the handle types are those that the device has
 * (FABRIC without access to an IMEX channel: CUDA_ERROR_NOT_PERMITTED). */
moe_cu_result cuMemCreate(moe_cu_handle *h, size_t bytes, const moe_cu_alloc_prop *p,
                          unsigned long long flags)
{
    ENTER(cuMemCreate, DRV_CONTEXT);
    if (!drv_has("vmm")) return drv_leave(MOE_CU_NOT_SUPPORTED);
    if (!whole_steps(bytes) || flags || p->type != MOE_CU_PINNED || p->location.type != MOE_CU_AT_DEVICE ||
        p->location.id != drv_context()->device || p->win32) return drv_leave(MOE_CU_INVALID_VALUE);
    if (p->handles & MOE_CU_HANDLE_FABRIC) return drv_leave(MOE_CU_NOT_PERMITTED);
    if (p->handles & ~MOE_CU_HANDLE_FD) return drv_leave(MOE_CU_INVALID_VALUE);
    if (p->handles && !drv_has("fd")) return drv_leave(MOE_CU_NOT_SUPPORTED);
    struct drv_physical *made = create(bytes, p->handles, p->location.id);
    if (!made) return drv_leave(MOE_CU_OUT_OF_MEMORY);
    drv_left.handles++;
    *h = (uintptr_t)made;
    return drv_leave(MOE_CU_OK);
}

/* cuMemRelease: the memory lives on while it is mapped. */
moe_cu_result cuMemRelease(moe_cu_handle h)
{
    ENTER(cuMemRelease, DRV_BACK);
    drop((struct drv_physical *)(uintptr_t)h);
    drv_left.handles--;
    return drv_leave(MOE_CU_OK);
}

/* cuMemMap: within one reserved range, address and size multiples of the granularity, offset 0, flags 0, and
 * nothing mapped there yet. */
moe_cu_result cuMemMap(moe_cu_ptr p, size_t bytes, size_t offset, moe_cu_handle h, unsigned long long flags)
{
    ENTER(cuMemMap, DRV_CONTEXT);
    struct drv_physical *physical = (struct drv_physical *)(uintptr_t)h;
    struct span *s = find_span(p, bytes);
    if (!s || !s->reserved || !whole_steps(bytes) || p % DRV_GRANULARITY || offset || flags ||
        bytes != physical->bytes) return drv_leave(MOE_CU_INVALID_VALUE);
    for (const struct drv_piece *i = pieces; i; i = i->next)
        if (i->at < p + bytes && p < i->at + i->bytes) return drv_leave(MOE_CU_INVALID_VALUE);
    if (!add_piece(physical, p, 0, bytes)) return drv_leave(MOE_CU_OUT_OF_MEMORY);
    drv_left.maps++;
    return drv_leave(MOE_CU_OK);
}

/* Whether mapped pieces cover [p, p + bytes) with nothing left over. */
static bool covered(moe_cu_ptr p, size_t bytes)
{
    for (moe_cu_ptr at = p; at < p + bytes; ) {
        const struct drv_piece *i = find_piece(at);
        if (!i || i->allocated || i->at != at || i->bytes > p + bytes - at) return false;
        at += i->bytes;
    }
    return bytes;
}

/* cuMemUnmap: whole mappings, as many as are wanted.  It does not wait for work that uses them. */
moe_cu_result cuMemUnmap(moe_cu_ptr p, size_t bytes)
{
    ENTER(cuMemUnmap, DRV_BACK);
    if (!covered(p, bytes)) return drv_leave(MOE_CU_INVALID_VALUE);
    mmap((void *)(uintptr_t)p, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
         0);
    for (moe_cu_ptr at = p; at < p + bytes; ) {
        struct drv_piece *i = find_piece(at);
        at += i->bytes;
        remove_piece(i);
        drv_left.maps--;
    }
    return drv_leave(MOE_CU_OK);
}

/* cuMemSetAccess: of mapped memory, for the device. */
moe_cu_result cuMemSetAccess(moe_cu_ptr p, size_t bytes, const moe_cu_access_desc *a, size_t n)
{
    ENTER(cuMemSetAccess, DRV_CONTEXT);
    if (n != 1 || a->location.type != MOE_CU_AT_DEVICE || a->location.id != drv_context()->device ||
        !covered(p, bytes)) return drv_leave(MOE_CU_INVALID_VALUE);
    if (a->flags && a->flags != MOE_CU_ACCESS_READ && a->flags != MOE_CU_ACCESS_WRITE)
        return drv_leave(MOE_CU_INVALID_VALUE);
    for (struct drv_piece *i = pieces; i; i = i->next)
        if (i->at >= p && i->at < p + bytes) i->access = a->flags;
    return drv_leave(MOE_CU_OK);
}

/* cuMemExportToShareableHandle: only of a type that was asked for when the memory was created. */
moe_cu_result cuMemExportToShareableHandle(void *out, moe_cu_handle h, moe_cu_handle_type t,
                                           unsigned long long flags)
{
    ENTER(cuMemExportToShareableHandle, DRV_CONTEXT);
    const struct drv_physical *p = (const struct drv_physical *)(uintptr_t)h;
    if (flags || t != MOE_CU_HANDLE_FD || !(p->handles & t)) return drv_leave(MOE_CU_INVALID_VALUE);
    int fd = dup(p->fd);
    if (fd >= 0) memcpy(out, &fd, sizeof fd);
    return drv_leave(fd >= 0 ? MOE_CU_OK : MOE_CU_OUT_OF_MEMORY);
}

static bool is_ours(int fd)
{
    char path[64], target[128];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, target, sizeof target - 1);
    target[n > 0 ? n : 0] = 0;
    return strstr(target, MEMORY_NAME);
}

/* cuMemImportFromShareableHandle: from another process, or this one; the descriptor stays the caller's. */
moe_cu_result cuMemImportFromShareableHandle(moe_cu_handle *h, void *from, moe_cu_handle_type t)
{
    ENTER(cuMemImportFromShareableHandle, DRV_CONTEXT);
    struct stat about;
    int fd = (int)(intptr_t)from;
    if (t != MOE_CU_HANDLE_FD || fstat(fd, &about) || !is_ours(fd)) return drv_leave(MOE_CU_INVALID_VALUE);
    struct drv_physical *p = calloc(1, sizeof *p);
    if (!p) return drv_leave(MOE_CU_OUT_OF_MEMORY);
    *p = (struct drv_physical){ .fd = dup(fd), .handles = t, .users = 1, .device = drv_context()->device,
                                .own_fd = true, .imported = true, .bytes = (size_t)about.st_size };
    if (p->fd < 0 || !map_alias(p)) {
        if (p->fd >= 0) close(p->fd);
        free(p);
        return drv_leave(MOE_CU_OUT_OF_MEMORY);
    }
    drv_left.handles++;
    *h = (uintptr_t)p;
    return drv_leave(MOE_CU_OK);
}
