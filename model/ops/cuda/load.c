/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what was planned into pinned slots, compares checksums, and copies to the GPU meanwhile. */
#include "model/ops/cuda/load.h"

#include "base/hash.h"
#include "base/io.h"
#include "base/pool.h"
#include "model/ops/cuda/gpu-internal.h"
#include "model/ops/cuda/load-internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_SLOTS = 16, SLOTS = 4 };
#define SLOT_BYTES (64ull << 20)

/* A slot, and the copies from it: `began` and `ended` are recorded around them.  at: pinned memory, or
 * where the read lies in the mapping of its file. */
struct slot { unsigned char *at; moe_cu_event began, ended; bool copying; };

struct loader {
    struct moe_gpu *g;
    const struct moe_source *src;
    const struct moe_load_options *o;
    struct moe_load_plan plan;
    struct moe_load_result *r;
    struct slot slot[MOST_SLOTS]; int n_slots;
    uint64_t slot_bytes;
    moe_cu_stream stream;
    bool mapped;                     /* r->path is MAPPED: slots have no memory, stream is the GPU's own */
    struct moe_hash *hash;           /* of a piece that several reads bring */
    uint8_t *tiles;                  /* of a piece of scales, as far as it was read; NULL between two */
    pthread_mutex_t lock;            /* of the seconds and bytes in *r, which threads add to */
};

const char *moe_load_path_name(enum moe_load_path p)
{
    static const char *const names[] = { "auto", "direct", "cached", "mapped", "attached" };
    return names[p];
}

bool moe_load_path_parse(const char *text, enum moe_load_path *p)
{
    for (int i = MOE_LOAD_AUTO; i <= MOE_LOAD_MAPPED; i++)
        if (!strcmp(text, moe_load_path_name((enum moe_load_path)i))) {
            *p = (enum moe_load_path)i;
            return true;
        }
    return false;
}

enum moe_code moe_load_check(const struct moe_gpu_info *info, enum moe_load_path p, struct moe_err *err)
{
    if (p != MOE_LOAD_MAPPED || info->host_pages) return MOE_OK;
    return moe_fail(err, MOE_UNSUPPORTED, "GPU %d (%s) cannot read host memory through the host's page "
                    "tables, as loading from mapped files needs (use --load-from auto)", info->index,
                    info->name);
}

/* ---- reading, by any thread ---- */

static void count(struct loader *l, double *seconds, double since, uint64_t bytes)
{
    pthread_mutex_lock(&l->lock);
    *seconds += moe_now() - since;
    l->r->bytes_read += bytes;
    pthread_mutex_unlock(&l->lock);
}

/* The copies from a slot are done, so that it may be filled again; counts how long they took. */
static enum moe_code finish_slot(struct loader *l, struct slot *s, struct moe_err *err)
{
    const struct moe_driver *d = l->g->d;
    float ms = 0;
    if (!s->copying) return MOE_OK;
    moe_cu_result r = d->cuCtxSetCurrent(l->g->context);
    if (r == MOE_CU_OK) r = d->cuEventSynchronize(s->ended);
    if (r == MOE_CU_OK) r = d->cuEventElapsedTime(&ms, s->began, s->ended);
    if (r != MOE_CU_OK) return moe_driver_fail(d, r, err, "GPU %d: cuEventSynchronize", l->g->info.index);
    s->copying = false;
    pthread_mutex_lock(&l->lock);
    l->r->copying += ms * 1e-3;
    pthread_mutex_unlock(&l->lock);
    return MOE_OK;
}

/* Reads as much of the file as there is in [offset, offset + bytes), and at least `least` bytes. */
static enum moe_code read_file(struct loader *l, const struct moe_load_read *r, unsigned char *to,
                               uint64_t least, struct moe_err *err)
{
    const char *path = l->src->files[r->file].path;
    int fd = moe_load_open(path, l->r->path == MOE_LOAD_DIRECT);
    if (fd < 0) return moe_fail_errno(err, errno, path, "cannot open");
    uint64_t done = 0;
    enum moe_code code = MOE_OK;
    while (done < r->bytes && code == MOE_OK) {
        ssize_t n = pread(fd, to + done, r->bytes - done, (off_t)(r->offset + done));
        if (n < 0 && errno != EINTR) code = moe_fail_errno(err, errno, path, "cannot read");
        if (n == 0) break;
        if (n > 0) done += (uint64_t)n;
        /* a direct read that stops within a block is at the end of the file */
        if (n > 0 && done % MOE_LOAD_ALIGN && done >= least) break;
    }
    close(fd);
    if (code != MOE_OK || done >= least) return code;
    return moe_fail_at(err, MOE_CORRUPT, path, NULL, "%llu bytes short (it was changed while it was loaded)",
                       (unsigned long long)(least - done));
}

static enum moe_code differs(const struct loader *l, const struct moe_located *p, struct moe_err *err)
{
    char name[128];
    const struct moe_tensor *t = p->tensor;
    moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name);
    return moe_fail_at(err, MOE_CORRUPT, l->src->files[p->file].path, name,
                       "does not match its checksum (moe-inspect --verify lists all damage)");
}

/* Compares the pieces that lie in the slot whole. */
static enum moe_code check_whole(struct loader *l, const struct moe_load_read *r, const unsigned char *slot,
                                 struct moe_err *err)
{
    for (int64_t i = 0; i < r->n_parts; i++) {
        const struct moe_load_part *p = &l->plan.part[r->part + i];
        if (!p->of->tensor || !p->first || !p->last) continue;
        if (moe_hash64(slot + p->at, p->bytes) != p->of->tensor->hash[p->of->plane])
            return differs(l, p->of, err);
    }
    return MOE_OK;
}

static enum moe_code produce(void *ctx, int64_t i, int slot, struct moe_err *err)
{
    struct loader *l = ctx;
    struct slot *s = &l->slot[slot];
    const struct moe_load_read *r = &l->plan.read[i];
    const struct moe_load_part *last = &l->plan.part[r->part + r->n_parts - 1];
    MOE_CHECK(r->bytes <= l->slot_bytes);
    MOE_TRY(moe_cancel_check(l->o->cancel, err));
    MOE_TRY(finish_slot(l, s, err));
    double start = moe_now();
    uint64_t least = last->at + last->bytes;
    MOE_TRY(l->mapped ? moe_load_reach(l->src, r, least, &s->at, err) : read_file(l, r, s->at, least, err));
    count(l, &l->r->reading, start, l->mapped ? least : r->bytes);
    start = moe_now();
    MOE_TRY(check_whole(l, r, s->at, err));
    count(l, &l->r->checking, start, 0);
    return MOE_OK;
}

/* ---- copying, by the caller's thread, in the order of the reads ---- */

static enum moe_code check_divided(struct loader *l, const struct moe_load_part *p, const unsigned char *at,
                                   struct moe_err *err)
{
    if (!p->of->tensor || (p->first && p->last)) return MOE_OK;
    if (p->first) moe_hash_reset64(l->hash);
    moe_hash_add64(l->hash, at, p->bytes);
    bool same = !p->last || moe_hash_get64(l->hash) == p->of->tensor->hash[p->of->plane];
    return same ? MOE_OK : differs(l, p->of, err);
}

static uint64_t tile_bytes(const struct moe_load_piece *p)
{
    int64_t rows = (int64_t)p->bytes / p->blocks;
    return (uint64_t)moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, rows, 16 * p->blocks);
}

/* Lays out a part of a piece of scales; the parts of a piece come one after the other. */
static enum moe_code lay_tiles(struct loader *l, const struct moe_load_part *p, const uint8_t *from,
                               struct moe_err *err)
{
    const struct moe_load_piece *piece = p->of->piece;
    size_t blocks = (size_t)piece->blocks, at = (size_t)(p->to - piece->to), row = at / blocks;
    size_t k = at % blocks, bytes = (size_t)tile_bytes(piece);
    if (p->first) l->tiles = calloc(1, bytes);
    if (!l->tiles) return moe_fail(err, MOE_NOMEM, "no memory to lay out scales");
    for (size_t i = 0; i < p->bytes; i++) {
        l->tiles[moe_tile_offset(row, k, blocks)] = from[i];
        if (++k == blocks) k = 0, row++;
    }
    if (!p->last) return MOE_OK;
    enum moe_code code = moe_gpu_write(l->g, (struct moe_addr){ piece->to }, l->tiles, bytes, err);
    free(l->tiles);
    l->tiles = NULL;
    return code;
}

/* Whether the copy of b can continue that of [a's end]: what lies between belongs to a (moe_load_piece). */
static bool continues(const struct moe_load_part *b, uint64_t at, uint64_t to)
{
    return !b->of->piece->blocks && b->at >= at && b->at - at < 256 && b->to >= to &&
           b->to - to == b->at - at;
}

static enum moe_code copy_parts(struct loader *l, const struct moe_load_read *r, const struct slot *s,
                                struct moe_err *err)
{
    const struct moe_load_part *p = &l->plan.part[r->part], *end = p + r->n_parts;
    while (p < end) {
        const struct moe_load_part *first = p;
        if (p->of->piece->blocks) {
            MOE_TRY(lay_tiles(l, p++, s->at + first->at, err));
            continue;
        }
        uint64_t at = p->at + p->bytes, to = p->to + p->bytes;
        for (p++; p < end && continues(p, at, to); p++) at = p->at + p->bytes, to = p->to + p->bytes;
        uint64_t n = at - first->at;
        if (l->mapped) {
            MOE_TRY(moe_load_copy(l->g, first->to, s->at + first->at, n, err));
            continue;
        }
        MOE_TRY(moe_gpu_check(l->g, l->g->d->cuMemcpyHtoDAsync_v2(first->to, s->at + first->at, n, l->stream),
                              err, "cuMemcpyHtoDAsync of %llu bytes of weights", (unsigned long long)n));
    }
    return MOE_OK;
}

static enum moe_code consume(void *ctx, int64_t i, int slot, struct moe_err *err)
{
    struct loader *l = ctx;
    struct slot *s = &l->slot[slot];
    const struct moe_load_read *r = &l->plan.read[i];
    uint64_t bytes = 0;
    double start = moe_now();
    for (int64_t k = 0; k < r->n_parts; k++) {
        const struct moe_load_part *p = &l->plan.part[r->part + k];
        MOE_TRY(check_divided(l, p, s->at + p->at, err));
        bytes += p->bytes;
    }
    count(l, &l->r->checking, start, 0);
    MOE_TRY(moe_gpu_enter(l->g, err));
    MOE_TRY(moe_gpu_check(l->g, l->g->d->cuEventRecord(s->began, l->stream), err, "cuEventRecord"));
    s->copying = true;
    MOE_TRY(copy_parts(l, r, s, err));
    MOE_TRY(moe_gpu_check(l->g, l->g->d->cuEventRecord(s->ended, l->stream), err, "cuEventRecord"));
    moe_progress_add(l->o->progress, bytes);
    return MOE_OK;
}

/* ---- slots ---- */

static enum moe_code pin_slot(struct loader *l, struct slot *s, struct moe_err *err)
{
    void *p;
    MOE_TRY(moe_gpu_pin(l->g, l->slot_bytes, &p, err));
    s->at = p;
    l->r->pinned_bytes += l->slot_bytes;
    return MOE_OK;
}

static enum moe_code open_slots(struct loader *l, struct moe_err *err)
{
    const struct moe_driver *d = l->g->d;
    moe_cu_result r = MOE_CU_OK;
    MOE_TRY(moe_gpu_enter(l->g, err));
    if (l->mapped) l->stream = l->g->stream;
    else r = d->cuStreamCreate(&l->stream, MOE_CU_STREAM_NON_BLOCKING);
    if (r != MOE_CU_OK) l->stream = NULL;
    MOE_TRY(moe_gpu_check(l->g, r, err, "cuStreamCreate"));
    for (int i = 0; i < l->n_slots; i++) {
        struct slot *s = &l->slot[i];
        if (!l->mapped) MOE_TRY(pin_slot(l, s, err));
        r = d->cuEventCreate(&s->began, MOE_CU_EVENT_TIMED);
        if (r != MOE_CU_OK) s->began = NULL;
        MOE_TRY(moe_gpu_check(l->g, r, err, "cuEventCreate"));
        r = d->cuEventCreate(&s->ended, MOE_CU_EVENT_BLOCKING);
        if (r != MOE_CU_OK) s->ended = NULL;
        MOE_TRY(moe_gpu_check(l->g, r, err, "cuEventCreate"));
    }
    return MOE_OK;
}

static void close_slots(struct loader *l)
{
    const struct moe_driver *d = l->g->d;
    d->cuCtxSetCurrent(l->g->context);
    if (l->stream) d->cuStreamSynchronize(l->stream);
    for (int i = 0; i < l->n_slots; i++) {
        struct slot *s = &l->slot[i];
        if (s->began) d->cuEventDestroy_v2(s->began);
        if (s->ended) d->cuEventDestroy_v2(s->ended);
        if (s->at && !l->mapped) d->cuMemFreeHost(s->at);
    }
    if (l->stream && !l->mapped) d->cuStreamDestroy_v2(l->stream);
}

/* ---- all of it ---- */

static enum moe_code load_host(struct loader *l, struct moe_err *err)
{
    for (int64_t i = 0; i < l->plan.n_host; i++) {
        const struct moe_load_piece *p = l->plan.located[i].piece;
        const struct moe_load_part all = { &l->plan.located[i], 0, p->bytes, p->to, true, true };
        if (p->blocks) MOE_TRY(lay_tiles(l, &all, p->from, err));
        else MOE_TRY(moe_gpu_write(l->g, (struct moe_addr){ p->to }, p->from, p->bytes, err));
        moe_progress_add(l->o->progress, p->bytes);
    }
    return moe_gpu_wait(l->g, err);
}

static enum moe_code load_files(struct loader *l, struct moe_err *err)
{
    struct moe_pool *pool = NULL;
    MOE_TRY(moe_pool_open(&pool, l->n_slots, err));
    enum moe_code code = open_slots(l, err);
    if (code == MOE_OK)
        code = moe_pipe_run(pool, l->plan.n_reads, l->n_slots, produce, consume, l, err);
    for (int i = 0; i < l->n_slots && code == MOE_OK; i++) code = finish_slot(l, &l->slot[i], err);
    if (code == MOE_OK) code = moe_gpu_wait(l->g, err); /* for tiles, which are written by its own stream */
    close_slots(l);
    moe_pool_close(&pool);
    return code;
}

static enum moe_load_path choose(const struct loader *l)
{
    if (l->o->path != MOE_LOAD_AUTO) return l->o->path;
    if (moe_load_is_cached(&l->plan, l->src)) return MOE_LOAD_CACHED;
    return moe_load_can_be_direct(&l->plan, l->src) ? MOE_LOAD_DIRECT : MOE_LOAD_CACHED;
}

static enum moe_code load_planned(struct loader *l, struct moe_err *err)
{
    l->r->path = choose(l);
    l->mapped = l->r->path == MOE_LOAD_MAPPED;
    if (l->o->path == MOE_LOAD_DIRECT && !moe_load_can_be_direct(&l->plan, l->src))
        return moe_fail_at(err, MOE_UNSUPPORTED, l->src->path, NULL,
                           "its file system cannot be read past the page cache (use --load-from cached)");
    l->hash = moe_hash_new();
    if (!l->hash) return moe_fail(err, MOE_NOMEM, "no memory for a checksum");
    moe_progress_begin(l->o->progress, moe_load_path_name(l->r->path), l->r->bytes, MOE_UNIT_BYTES);
    enum moe_code code = load_host(l, err);
    if (code == MOE_OK && l->plan.n_reads) code = load_files(l, err);
    moe_progress_end(l->o->progress);
    moe_hash_free(l->hash);
    free(l->tiles);
    return code == MOE_OK ? moe_cancel_check(l->o->cancel, err) : code;
}

/* Sizes slots so that a small model does not pin more than it has. */
static void size_slots(struct loader *l)
{
    l->n_slots = !l->o->slots ? SLOTS : l->o->slots < MOST_SLOTS ? l->o->slots : MOST_SLOTS;
    l->slot_bytes = l->o->slot_bytes ? l->o->slot_bytes : SLOT_BYTES;
    uint64_t blocks = l->r->bytes / (uint64_t)l->n_slots / MOE_LOAD_ALIGN;
    uint64_t enough = (blocks + 2) * MOE_LOAD_ALIGN;
    if (!l->o->slot_bytes && enough < l->slot_bytes) l->slot_bytes = enough;
}

enum moe_code moe_load(struct moe_gpu *g, const struct moe_source *src, const struct moe_load_piece *piece,
                       int64_t n, const struct moe_load_options *o, struct moe_load_result *r,
                       struct moe_err *err)
{
    struct loader l = { .g = g, .src = src, .o = o, .r = r };
    double start = moe_now();
    *r = (struct moe_load_result){ .path = o->path };
    MOE_TRY(moe_load_check(&g->info, o->path, err));
    for (int64_t i = 0; i < n; i++) r->bytes += piece[i].bytes;
    size_slots(&l);
    pthread_mutex_init(&l.lock, NULL);
    enum moe_code code = moe_load_plan(&l.plan, src, piece, n, l.slot_bytes, err);
    if (code == MOE_OK) code = load_planned(&l, err);
    moe_arena_clear(&l.plan.arena);
    pthread_mutex_destroy(&l.lock);
    r->seconds = moe_now() - start;
    return code;
}
