/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/container/container-internal.h"

#include "base/io.h"
#include "base/show.h"
#include "base/writeback.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEAD = sizeof(struct moe_shard_header), RECORD = sizeof(struct moe_shard_record) };
#define SHARD_MAX ((uint64_t)1 << 60)

/* ---- layout ---- */

/* The largest power of two, of at most 2 MiB (a huge page) and at least 256 bytes, with which padding adds no
 * more than 1/32 to an expert and, before the first extent, to the file. */
uint64_t moe_extent_alignment(uint64_t expert_bytes, uint64_t head_bytes, uint64_t experts)
{
    uint64_t a = (uint64_t)2 << 20;
    for (; a > 256; a /= 2) {
        uint64_t tail = moe_round_up(expert_bytes, a) - expert_bytes,
                 front = moe_round_up(head_bytes, a) - head_bytes;
        if (tail <= expert_bytes / 32 && front <= experts * expert_bytes / 32) break;
    }
    return a;
}

/* The largest power of two, of at most 64 KiB and at least 64 bytes, that is at most 1/32 of the plane. */
uint64_t moe_dense_alignment(uint64_t plane_bytes)
{
    uint64_t a = 64;
    while (a < 65536 && 2 * a <= plane_bytes / 32) a *= 2;
    return a;
}

/* Set what follows from a tensor's type: its layout and the size of each plane.  Offsets are set later. */
static enum moe_code size_planes(struct moe_tensor *t, uint64_t *records, struct moe_err *err)
{
    char name[128];
    t->layout = t->type == MOE_NVFP4 ? MOE_LAYOUT_TILE_128X4 : MOE_LAYOUT_LINEAR;
    for (int p = 0; p < MOE_PLANE_COUNT; p++) {
        int64_t bytes = moe_plane_bytes(t->type, t->layout, p, t->rows, t->cols);
        if (bytes < 0)
            return moe_fail_at(err, MOE_UNSUPPORTED, NULL,
                               moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                               "%lld x %lld does not suit type %s (choose another type for it)",
                               (long long)t->rows, (long long)t->cols,
                               moe_dtype_name(t->type) ? moe_dtype_name(t->type) : "unknown");
        t->plane[p] = (struct moe_span){ bytes ? 0 : -1, 0, (uint64_t)bytes };
        *records += bytes != 0;
    }
    return MOE_OK;
}

static uint64_t place_dense(struct moe_tensor *t, int64_t n, uint64_t at)
{
    for (int64_t i = 0; i < n && at < SHARD_MAX; i++)
        for (int p = 0; p < MOE_PLANE_COUNT; p++) {
            struct moe_span *s = &t[i].plane[p];
            if (s->file < 0) continue;
            s->offset = moe_round_up(at, moe_dense_alignment(s->bytes));
            at = s->offset + s->bytes;
        }
    return at;
}

/* Place one expert's planes from byte `base` on: all data planes, then all scales, and so on.  Returns where
 * they end. */
static uint64_t place_expert(struct moe_tensor *t, int64_t n, uint64_t base)
{
    uint64_t at = base;
    for (int p = 0; p < MOE_PLANE_COUNT; p++)
        for (int64_t i = 0; i < n && at < SHARD_MAX; i++) {
            struct moe_span *s = &t[i].plane[p];
            if (s->file < 0) continue;
            s->offset = base + moe_round_up(at - base, p == MOE_PLANE_DATA || p == MOE_PLANE_SCALE ? 256 : 4);
            at = s->offset + s->bytes;
        }
    return at;
}

/* How many of the n tensors belong to the first one's expert. */
static int64_t group_length(const struct moe_tensor *t, int64_t n)
{
    int64_t k = 1;
    while (k < n && t[k].expert == t[0].expert) k++;
    return k;
}

static enum moe_code place_experts(struct moe_tensor *t, int64_t n, struct moe_shard_header *h,
                                   struct moe_err *err)
{
    uint64_t largest = 0, experts = 0;
    for (int64_t i = 0, k; i < n; i += k, experts++) {
        k = group_length(t + i, n - i);
        MOE_CHECK(t[i].expert == (int64_t)experts);
        for (int64_t j = i; j < i + k; j++) MOE_CHECK(t[j].layer == h->layer);
        uint64_t end = place_expert(t + i, k, 0);
        if (end > largest) largest = end;
    }
    if (largest >= SHARD_MAX / (experts + 1))
        return moe_fail(err, MOE_UNSUPPORTED, "the experts of layer %d are too large", h->layer);
    h->alignment = (uint32_t)moe_extent_alignment(largest, h->data_offset, experts);
    h->extent_bytes = moe_round_up(largest, h->alignment);
    h->data_offset = h->extent_offset = moe_round_up(h->data_offset, h->alignment);
    h->experts = (int32_t)experts;
    h->file_bytes = h->extent_offset + experts * h->extent_bytes;
    for (int64_t i = 0, k; i < n; i += k) {
        k = group_length(t + i, n - i);
        place_expert(t + i, k, h->extent_offset + (uint64_t)t[i].expert * h->extent_bytes);
    }
    return MOE_OK;
}

enum moe_code moe_shard_layout(struct moe_tensor *t, int64_t n, int layer, struct moe_shard_header *h,
                               struct moe_err *err)
{
    uint64_t records = 0;
    MOE_CHECK(n > 0);
    for (int64_t i = 0; i < n; i++) MOE_TRY(size_planes(&t[i], &records, err));
    *h = (struct moe_shard_header){ .version = MOE_SHARD_VERSION,
                                    .header_bytes = HEAD,
                                    .table_offset = HEAD,
                                    .record_count = records,
                                    .record_bytes = RECORD,
                                    .alignment = 64,
                                    .layer = layer };
    memcpy(h->magic, MOE_SHARD_MAGIC, sizeof h->magic);
    h->data_offset = HEAD + records * RECORD;
    if (layer >= 0) return place_experts(t, n, h, err);
    h->layer = -1;
    h->file_bytes = place_dense(t, n, h->data_offset);
    if (h->file_bytes >= SHARD_MAX)
        return moe_fail(err, MOE_UNSUPPORTED, "the model's dense tensors are too large");
    return MOE_OK;
}

/* ---- writing ---- */

struct moe_shard_writer {
    int fd;
    char *path;
    struct moe_writeback *behind;
    struct moe_shard_header head;
    struct moe_tensor *t;
    int64_t n;
    bool (*hashed)[MOE_PLANE_COUNT];
    struct moe_plane_sink sink;         /* write NULL: all planes go into the file */
};

static void writer_free(struct moe_shard_writer *w)
{
    if (w->sink.close) w->sink.close(w->sink.ctx);
    moe_writeback_close(&w->behind);
    if (w->fd >= 0) close(w->fd);
    free(w->path);
    free(w->t);
    free(w->hashed);
    free(w);
}

/* Give the file its full size, with disk space reserved unless it is to have holes. */
static enum moe_code reserve(struct moe_shard_writer *w, bool holes, struct moe_err *err)
{
    char size[16];
    if (!(holes ? moe_ftruncate(w->fd, w->head.file_bytes) : moe_reserve(w->fd, w->head.file_bytes)))
        return MOE_OK;
    if (errno == ENOSPC || errno == EDQUOT)
        return moe_fail_at(err, MOE_NOSPACE, w->path, NULL,
                           "no space left: this file needs %s (free some and use --resume)",
                           moe_human_bytes(w->head.file_bytes, size));
    return moe_fail_errno(err, errno, w->path, "cannot reserve space");
}

static enum moe_code create(struct moe_shard_writer **out, const char *path, const struct moe_tensor *t,
                            int64_t n, const struct moe_shard_header *h, bool holes, struct moe_err *err)
{
    *out = NULL;
    struct moe_shard_writer *w = calloc(1, sizeof *w);
    if (!w) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to write it");
    w->head = *h;
    w->n = n;
    w->path = strdup(path);
    w->t = malloc((size_t)n * sizeof *t);
    w->hashed = calloc((size_t)n, sizeof *w->hashed);
    /* The directory belongs to this writer, so a file of this temporary name is left from a run that was
     * killed.  It is removed; no link is followed. */
    w->fd = unlink(path) && errno != ENOENT ? -1 : moe_open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW);
    enum moe_code code;
    if (w->fd < 0) code = moe_fail_errno(err, errno, path, "cannot create");
    else if (!w->path || !w->t || !w->hashed)
        code = moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to write it");
    else code = reserve(w, holes, err);
    if (code != MOE_OK) {
        if (w->fd >= 0) unlink(path);
        writer_free(w);
        return code;
    }
    memcpy(w->t, t, (size_t)n * sizeof *t);
    w->behind = moe_writeback_open(w->fd, MOE_WRITEBACK_WINDOW);
    *out = w;
    return MOE_OK;
}

enum moe_code moe_shard_create(struct moe_shard_writer **out, const char *path, const struct moe_tensor *t,
                               int64_t n, const struct moe_shard_header *h, struct moe_err *err)
{
    return create(out, path, t, n, h, false, err);
}

enum moe_code moe_shard_create_with_sink(struct moe_shard_writer **out, const char *path,
                                         const struct moe_tensor *t, int64_t n,
                                         const struct moe_shard_header *h, const struct moe_plane_sink *sink,
                                         struct moe_err *err)
{
    MOE_TRY(create(out, path, t, n, h, true, err));
    (*out)->sink = *sink;
    return MOE_OK;
}

enum moe_code moe_shard_write(struct moe_shard_writer *w, int64_t tensor, int plane, uint64_t offset,
                              const void *data, size_t bytes, struct moe_err *err)
{
    MOE_CHECK(tensor >= 0 && tensor < w->n && plane >= 0 && plane < MOE_PLANE_COUNT);
    const struct moe_span *s = &w->t[tensor].plane[plane];
    const struct moe_plane_sink *sink = &w->sink;
    MOE_CHECK(s->file >= 0 && offset <= s->bytes && bytes <= s->bytes - offset);
    if (sink->write && sink->takes(sink->ctx, tensor, plane))
        return sink->write(sink->ctx, tensor, plane, offset, data, bytes, err);
    MOE_TRY(moe_pwrite(w->fd, w->path, data, bytes, s->offset + offset, err));
    moe_writeback_add(w->behind, s->offset + offset, bytes);
    return MOE_OK;
}

void moe_shard_set_hash(struct moe_shard_writer *w, int64_t tensor, int plane, uint64_t hash)
{
    MOE_CHECK(tensor >= 0 && tensor < w->n && plane >= 0 && plane < MOE_PLANE_COUNT &&
              w->t[tensor].plane[plane].file >= 0);
    w->t[tensor].hash[plane] = hash;
    w->hashed[tensor][plane] = true;
}

/* Header and table as the file has them; malloc'd. */
static unsigned char *build_head(struct moe_shard_writer *w, size_t *bytes)
{
    size_t at = HEAD;
    *bytes = HEAD + (size_t)w->head.record_count * RECORD;
    unsigned char *p = malloc(*bytes);
    if (!p) return NULL;
    for (int64_t i = 0; i < w->n; i++)
        for (int k = 0; k < MOE_PLANE_COUNT; k++) {
            const struct moe_tensor *t = &w->t[i];
            if (t->plane[k].file < 0) continue;
            MOE_CHECK(w->hashed[i][k]);
            struct moe_shard_record r = { .role = t->role,
                                          .layer = t->layer,
                                          .expert = t->expert,
                                          .type = t->type,
                                          .layout = k == MOE_PLANE_SCALE ? t->layout : MOE_LAYOUT_LINEAR,
                                          .plane = (uint8_t)k,
                                          .flags = t->type == MOE_NVFP4 && t->reciprocal,
                                          .rows = (uint64_t)t->rows,
                                          .cols = (uint64_t)t->cols,
                                          .offset = t->plane[k].offset,
                                          .bytes = t->plane[k].bytes,
                                          .hash = t->hash[k] };
            memcpy(p + at, &r, RECORD);
            at += RECORD;
        }
    MOE_CHECK(at == *bytes);
    w->head.table_hash = moe_hash64(p + HEAD, at - HEAD);
    w->head.header_hash = 0;
    w->head.header_hash = moe_hash64(&w->head, HEAD);
    memcpy(p, &w->head, HEAD);
    return p;
}

enum moe_code moe_shard_finish(struct moe_shard_writer **out, uint64_t *bytes, struct moe_hash128 *digest,
                               struct moe_err *err)
{
    struct moe_shard_writer *w = *out;
    size_t n;
    int r;
    unsigned char *head = build_head(w, &n);
    enum moe_code code = head ? MOE_OK
        : moe_fail_at(err, MOE_NOMEM, w->path, NULL, "no memory for its table");
    if (code == MOE_OK && w->sink.sync) code = w->sink.sync(w->sink.ctx, err);
    if (code == MOE_OK) code = moe_pwrite(w->fd, w->path, head, n, 0, err);
    if (code == MOE_OK) {
        r = moe_fsync(w->fd);
        if (r) code = moe_fail_errno(err, errno, w->path, "cannot sync");
    }
    if (code == MOE_OK) {
        moe_writeback_drop(w->behind, w->head.file_bytes);
        *bytes = w->head.file_bytes;
        *digest = moe_hash128(head, n);
        r = close(w->fd);
        w->fd = -1;
        if (r) code = moe_fail_errno(err, errno, w->path, "cannot close");
    }
    free(head);
    if (code != MOE_OK) unlink(w->path);
    writer_free(w);
    *out = NULL;
    return code;
}

void moe_shard_abort(struct moe_shard_writer **w)
{
    if (!*w) return;
    unlink((*w)->path);
    writer_free(*w);
    *w = NULL;
}
