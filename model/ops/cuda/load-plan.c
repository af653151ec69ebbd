/* SPDX-License-Identifier: Apache-2.0 */
/* Finds where pieces come from, divides them into reads, and finds out how their files can be read. */
#include "model/ops/cuda/load-internal.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* A gap between two pieces of a file that is read along, because another read would cost more. */
enum { GAP = 64 << 10 };

/* ---- where the pieces come from ---- */

static int32_t file_of(const struct moe_source *src, const void *from, uint64_t *offset)
{
    for (int32_t f = 0; f < src->n_files; f++) {
        uintptr_t map = (uintptr_t)src->files[f].map, at = (uintptr_t)from;
        if (!map || at < map || at - map >= src->files[f].size) continue;
        *offset = at - map;
        return f;
    }
    return -1;
}

/* Planes with checksums, ascending by (file, offset). */
struct known { int32_t file, plane; uint64_t offset; const struct moe_tensor *tensor; };

static int compare_known(const void *x, const void *y)
{
    const struct known *a = x, *b = y;
    if (a->file != b->file) return a->file < b->file ? -1 : 1;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static int compare_located(const void *x, const void *y)
{
    const struct moe_located *a = x, *b = y;
    if (a->file != b->file) return a->file < b->file ? -1 : 1;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    return a->piece < b->piece ? -1 : a->piece > b->piece;
}

/* A checkpoint has no checksums.  *n: how many planes were found; NULL when out of memory. */
static struct known *list_known(struct moe_arena *a, const struct moe_source *src, int64_t *n)
{
    struct known *k = MOE_NEWN(a, struct known, src->n_tensors * MOE_PLANE_COUNT + 1);
    *n = 0;
    for (int64_t i = 0; k && src->kind == MOE_CONTAINER && i < src->n_tensors; i++)
        for (int p = 0; p < MOE_PLANE_COUNT; p++) {
            const struct moe_tensor *t = &src->tensors[i];
            if (t->plane[p].file < 0 || !t->plane[p].bytes) continue;
            k[(*n)++] = (struct known){ t->plane[p].file, p, t->plane[p].offset, t };
        }
    if (k) qsort(k, (size_t)*n, sizeof *k, compare_known);
    return k;
}

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for the list of what a GPU loads");
}

static enum moe_code locate(struct moe_load_plan *p, const struct moe_source *src,
                            const struct moe_load_piece *piece, int64_t n, struct moe_err *err)
{
    int64_t n_known;
    struct known *known = list_known(&p->arena, src, &n_known);
    p->located = MOE_NEWN(&p->arena, struct moe_located, n + 1);
    if (!known || !p->located) return no_memory(err);
    for (int64_t i = 0; i < n; i++) {
        struct moe_located l = { .piece = &piece[i] };
        if (!piece[i].bytes) continue;
        MOE_CHECK(piece[i].to % 256 == 0);
        l.file = file_of(src, piece[i].from, &l.offset);
        MOE_CHECK(l.file < 0 || piece[i].bytes <= src->files[l.file].size - l.offset);
        struct known key = { .file = l.file, .offset = l.offset }, *k =
            bsearch(&key, known, (size_t)n_known, sizeof *known, compare_known);
        if (k && k->tensor->plane[k->plane].bytes == piece[i].bytes) l.tensor = k->tensor, l.plane = k->plane;
        p->n_host += l.file < 0;
        p->located[p->n++] = l;
    }
    qsort(p->located, (size_t)p->n, sizeof *p->located, compare_located);
    return MOE_OK;
}

/* ---- reads ---- */

static uint64_t down(uint64_t n) { return n / MOE_LOAD_ALIGN * MOE_LOAD_ALIGN; }
static uint64_t up(uint64_t n) { return down(n + MOE_LOAD_ALIGN - 1); }

/* Puts a part of a piece, which begins `done` bytes after the piece, into the last read, or into a new one
 * that begins with it; returns the bytes of the part.  A piece can begin before the last read, where another
 * piece of the same bytes has filled several.  The arrays are NULL while they are only counted. */
static uint64_t add_part(struct moe_load_plan *p, const struct moe_located *l, uint64_t done,
                         uint64_t slot_bytes, struct moe_load_read *last)
{
    uint64_t offset = l->offset + done, left = l->piece->bytes - done;
    bool near = last->n_parts && last->file == l->file && offset >= last->offset &&
                offset <= last->offset + last->bytes + GAP && offset < last->offset + slot_bytes;
    if (!near) {
        *last = (struct moe_load_read){ .file = l->file, .offset = down(offset), .part = p->n_parts };
        p->n_reads++;
    }
    uint64_t at = offset - last->offset, room = slot_bytes - at, n = left < room ? left : room;
    if (up(at + n) > last->bytes) last->bytes = up(at + n);
    if (p->part)
        p->part[p->n_parts] = (struct moe_load_part){ l, at, n, l->piece->to + done, !done, n == left };
    p->n_parts++;
    last->n_parts++;
    if (p->read) p->read[p->n_reads - 1] = *last;
    return n;
}

static void divide(struct moe_load_plan *p, uint64_t slot_bytes)
{
    struct moe_load_read last = { 0 };
    p->n_reads = p->n_parts = 0;
    for (int64_t i = p->n_host; i < p->n; i++)
        for (uint64_t done = 0; done < p->located[i].piece->bytes; )
            done += add_part(p, &p->located[i], done, slot_bytes, &last);
}

enum moe_code moe_load_plan(struct moe_load_plan *p, const struct moe_source *src,
                            const struct moe_load_piece *piece, int64_t n, uint64_t slot_bytes,
                            struct moe_err *err)
{
    *p = (struct moe_load_plan){ .n = 0 };
    MOE_TRY(locate(p, src, piece, n, err));
    divide(p, slot_bytes);
    p->read = MOE_NEWN(&p->arena, struct moe_load_read, p->n_reads + 1);
    p->part = MOE_NEWN(&p->arena, struct moe_load_part, p->n_parts + 1);
    if (!p->read || !p->part) return no_memory(err);
    divide(p, slot_bytes);
    return MOE_OK;
}

/* ---- how files can be read ---- */

int moe_load_open(const char *path, bool direct)
{
    return moe_open(path, O_RDONLY | (direct ? O_DIRECT : 0));
}

/* Some file systems refuse O_DIRECT when a file is opened, some when it is read. */
static bool reads_direct(const struct moe_source *src, const struct moe_load_read *r, void *buffer)
{
    int fd = moe_load_open(src->files[r->file].path, true);
    ssize_t n = fd < 0 ? -1 : pread(fd, buffer, MOE_LOAD_ALIGN, (off_t)r->offset);
    if (fd >= 0) close(fd);
    return n > 0;
}

bool moe_load_can_be_direct(const struct moe_load_plan *p, const struct moe_source *src)
{
    void *buffer = aligned_alloc(MOE_LOAD_ALIGN, MOE_LOAD_ALIGN);
    bool all = buffer;
    for (int64_t i = 0; i < p->n_reads && all; i++)
        if (!i || p->read[i].file != p->read[i - 1].file) all = reads_direct(src, &p->read[i], buffer);
    free(buffer);
    return all;
}

/* Whether a page is in the page cache: a read that may not wait succeeds. */
static bool has_page(int fd, uint64_t offset)
{
    char byte;
    struct iovec one = { &byte, 1 };
    return preadv2(fd, &one, 1, (off_t)offset, RWF_NOWAIT) == 1;
}

bool moe_load_is_cached(const struct moe_load_plan *p, const struct moe_source *src)
{
    enum { SAMPLES = 1024 };
    int64_t step = p->n_reads > SAMPLES ? p->n_reads / SAMPLES : 1, asked = 0, there = 0;
    for (int64_t i = 0; i < p->n_reads; i += step) {
        int fd = moe_load_open(src->files[p->read[i].file].path, false);
        if (fd < 0) return false;
        const struct moe_load_part *first = &p->part[p->read[i].part], *last = first + p->read[i].n_parts - 1;
        /* a read that may not wait can start reading ahead: the last byte is asked for first */
        there += has_page(fd, p->read[i].offset + last->at + last->bytes - 1);
        there += has_page(fd, p->read[i].offset + first->at);
        asked += 2;
        close(fd);
    }
    return there * 10 >= asked * 9;
}
