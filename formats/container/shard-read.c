/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the head of a shard file, with all checks that are possible with one file alone, and comparing its
 * planes with the hashes in the head. */
#include "formats/container/container-internal.h"

#include "base/cancel.h"
#include "base/io.h"
#include "base/progress.h"
#include "base/show.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEAD = sizeof(struct moe_shard_header), RECORD = sizeof(struct moe_shard_record) };

static enum moe_code check_header(const struct moe_shard_header *h, const char *path, uint64_t size,
                                  struct moe_err *err)
{
    struct moe_shard_header z = *h;
#define BAD(code, ...) return moe_fail_at(err, code, path, NULL, __VA_ARGS__)
    if (memcmp(h->magic, MOE_SHARD_MAGIC, sizeof h->magic))
        BAD(MOE_CORRUPT, "not a shard file (its first bytes are wrong)");
    if (h->version != MOE_SHARD_VERSION)
        BAD(MOE_UNSUPPORTED, "shard version %u (this program reads version %d)", h->version,
            MOE_SHARD_VERSION);
    z.header_hash = 0;
    if (moe_hash64(&z, HEAD) != h->header_hash)
        BAD(MOE_CORRUPT, "the header does not match its checksum (copy the file again)");
    if (h->incompatible & ~(uint64_t)MOE_SHARD_STAGED)
        BAD(MOE_UNSUPPORTED, "it needs features 0x%llx (use a newer program)",
            (unsigned long long)h->incompatible);
    if (h->header_bytes != HEAD || h->record_bytes != RECORD || h->table_offset != HEAD)
        BAD(MOE_CORRUPT, "impossible sizes in the header");
    if (h->reserved[0] || h->reserved[1]) BAD(MOE_CORRUPT, "reserved fields of the header are not zero");
    if (h->file_bytes != size)
        BAD(MOE_CORRUPT, "%llu byte%s, should be %llu (the file is truncated or overlong)",
            (unsigned long long)size, moe_plural((int64_t)size), (unsigned long long)h->file_bytes);
    if (!h->record_count || h->record_count > MOE_HEAD_LIMIT / RECORD ||
        HEAD + h->record_count * RECORD > size)
        BAD(MOE_CORRUPT, "a table of %llu records does not fit", (unsigned long long)h->record_count);
    if (h->data_offset < HEAD + h->record_count * RECORD || h->data_offset > size)
        BAD(MOE_CORRUPT, "the data offset is outside the file");
    if (h->alignment < 64 || h->alignment > 2u << 20 || h->alignment & (h->alignment - 1))
        BAD(MOE_CORRUPT, "alignment %u", h->alignment);
    if (h->layer < -1 || h->layer > INT16_MAX || h->experts < 0)
        BAD(MOE_CORRUPT, "layer %d with %d experts", h->layer, h->experts);
    if (h->layer == -1 && (h->experts || h->extent_bytes || h->extent_offset || h->alignment != 64))
        BAD(MOE_CORRUPT, "expert extents in a file that holds none");
    if (h->layer >= 0 && (!h->experts || h->extent_offset != h->data_offset ||
                          h->extent_offset % h->alignment || h->alignment < 256 || !h->extent_bytes ||
                          h->extent_bytes % h->alignment || (size - h->extent_offset) % h->extent_bytes ||
                          (size - h->extent_offset) / h->extent_bytes != (uint64_t)h->experts))
        BAD(MOE_CORRUPT, "impossible expert extents");
#undef BAD
    return MOE_OK;
}

enum moe_code moe_shard_read_head(int fd, const char *path, uint64_t size, unsigned char **head,
                                  size_t *bytes, struct moe_err *err)
{
    struct moe_shard_header h;
    *head = NULL;
    if (size < HEAD)
        return moe_fail_at(err, MOE_CORRUPT, path, NULL, "%llu byte%s, too short for a shard file",
                           (unsigned long long)size, moe_plural((int64_t)size));
    MOE_TRY(moe_pread(fd, path, &h, HEAD, 0, err));
    MOE_TRY(check_header(&h, path, size, err));
    *bytes = HEAD + (size_t)h.record_count * RECORD;
    unsigned char *p = malloc(*bytes);
    if (!p) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its table");
    memcpy(p, &h, HEAD);
    enum moe_code code = moe_pread(fd, path, p + HEAD, *bytes - HEAD, HEAD, err);
    if (code == MOE_OK && moe_hash64(p + HEAD, *bytes - HEAD) != h.table_hash)
        code = moe_fail_at(err, MOE_CORRUPT, path, NULL,
                           "the table does not match its checksum (copy the file again)");
    if (code != MOE_OK) {
        free(p);
        return code;
    }
    *head = p;
    return MOE_OK;
}

/* ---- records ---- */

static bool same_tensor(const struct moe_shard_record *a, const struct moe_shard_record *b)
{
    return a->role == b->role && a->layer == b->layer && a->expert == b->expert;
}

static const char *record_name(const struct moe_shard_record *r, char out[128])
{
    return r->role >= 0 && r->role < MOE_ROLE_COUNT
             ? moe_tensor_name((enum moe_role)r->role, r->layer, r->expert, out)
             : NULL;
}

#define BAD(code, ...) return moe_fail_at(err, code, path, record_name(r, name), __VA_ARGS__)

/* Check that a record's tensor is known and belongs into this file. */
static enum moe_code check_identity(const struct moe_shard_header *h, const struct moe_shard_record *r,
                                    const char *path, struct moe_err *err)
{
    char name[128];
    if (r->role < 0 || r->role >= MOE_ROLE_COUNT)
        BAD(MOE_UNSUPPORTED, "a tensor of unknown role %d (use a newer program)", r->role);
    if (!moe_dtype_name(r->type))
        BAD(MOE_UNSUPPORTED, "unknown element type %d (use a newer program)", r->type);
    if (r->plane >= MOE_PLANE_COUNT) BAD(MOE_UNSUPPORTED, "unknown plane %d (use a newer program)", r->plane);
    if (r->flags & ~1u) BAD(MOE_UNSUPPORTED, "unknown flags 0x%x (use a newer program)", r->flags);
    enum moe_class class = moe_role_class((enum moe_role)r->role);
    if (h->layer < 0
            ? class == MOE_CLASS_EXPERT || r->expert != -1 ||
                  (class == MOE_CLASS_MODEL) != (r->layer == -1) || r->layer < -1
            : class != MOE_CLASS_EXPERT || r->layer != h->layer || r->expert < 0 || r->expert >= h->experts)
        BAD(MOE_CORRUPT, "does not belong in this file");
    if (r->flags && r->type != MOE_NVFP4)
        BAD(MOE_CORRUPT, "flags 0x%x on a tensor without globals", r->flags);
    if (r->reserved || r->reserved2) BAD(MOE_CORRUPT, "reserved fields of its record are not zero");
    return MOE_OK;
}

/* Check that its plane has the size that the type demands, lies inside the file (and its expert's extent),
 * and is aligned. */
static enum moe_code check_place(const struct moe_shard_header *h, const struct moe_shard_record *r,
                                 const char *path, struct moe_err *err)
{
    char name[128];
    int layout = r->type == MOE_NVFP4 && r->plane == MOE_PLANE_SCALE ? MOE_LAYOUT_TILE_128X4
                                                                     : MOE_LAYOUT_LINEAR;
    uint64_t from = h->data_offset, to = h->file_bytes;
    uint64_t align = h->layer < 0 ? 64 : r->plane == MOE_PLANE_DATA || r->plane == MOE_PLANE_SCALE ? 256 : 4;
    if (h->layer >= 0) {
        from = h->extent_offset + (uint64_t)r->expert * h->extent_bytes;
        to = from + h->extent_bytes;
    }
    if (r->layout != layout)
        BAD(MOE_CORRUPT, "plane %d has layout %d, should be %d", r->plane, r->layout, layout);
    int64_t bytes = r->rows > (uint64_t)1 << 40 || r->cols > (uint64_t)1 << 40 ? -1
                  : moe_plane_bytes(r->type, layout, r->plane, (int64_t)r->rows, (int64_t)r->cols);
    if (bytes <= 0 || (uint64_t)bytes != r->bytes)
        BAD(MOE_CORRUPT, "plane %d: %llu bytes do not hold %llu x %llu of type %s", r->plane,
            (unsigned long long)r->bytes, (unsigned long long)r->rows, (unsigned long long)r->cols,
            moe_dtype_name(r->type));
    if (r->offset < from || r->offset > to || r->bytes > to - r->offset)
        BAD(MOE_CORRUPT, "plane %d lies outside of its place in the file", r->plane);
    if (r->offset % align)
        BAD(MOE_CORRUPT, "plane %d is not aligned to %llu bytes", r->plane, (unsigned long long)align);
    return MOE_OK;
}

static enum moe_code take_record(const struct moe_shard_header *h, const struct moe_shard_record *first,
                                 const struct moe_shard_record *r, int32_t file, const char *path,
                                 struct moe_tensor *t, struct moe_err *err)
{
    char name[128];
    MOE_TRY(check_identity(h, r, path, err));
    MOE_TRY(check_place(h, r, path, err));
    if (r->type != first->type || r->flags != first->flags || r->rows != first->rows ||
        r->cols != first->cols)
        BAD(MOE_CORRUPT, "its planes disagree on type or shape");
    if (t->plane[r->plane].file >= 0) BAD(MOE_CORRUPT, "plane %d is there twice", r->plane);
    t->plane[r->plane] = (struct moe_span){ file, r->offset, r->bytes };
    t->hash[r->plane] = r->hash;
    if (r->plane == MOE_PLANE_SCALE) t->layout = r->layout;
    return MOE_OK;
}

enum moe_code moe_shard_tensor(const struct moe_shard_header *h, const struct moe_shard_record *r, uint64_t n,
                               int32_t file, const char *path, struct moe_tensor *t, uint64_t *used,
                               struct moe_err *err)
{
    char name[128];
    for (*used = 1; *used < n && same_tensor(r, r + *used); ) ++*used;
    *t = (struct moe_tensor){ .role = r->role,
                              .layer = r->layer,
                              .expert = r->expert,
                              .type = r->type,
                              .reciprocal = r->flags & 1,
                              .rows = (int64_t)r->rows,
                              .cols = (int64_t)r->cols };
    for (int p = 0; p < MOE_PLANE_COUNT; p++) t->plane[p].file = -1;
    for (uint64_t i = 0; i < *used; i++) MOE_TRY(take_record(h, r, r + i, file, path, t, err));
    for (int p = 0; p < MOE_PLANE_COUNT; p++)
        if (t->plane[p].file < 0 && moe_plane_bytes(t->type, t->layout, p, t->rows, t->cols) != 0)
            BAD(MOE_CORRUPT, "plane %d is missing", p);
    return MOE_OK;
}
#undef BAD

static int by_offset(const void *a, const void *b)
{
    const struct moe_shard_record *const *x = a, *const *y = b;
    return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

enum moe_code moe_shard_check_overlap(const struct moe_shard_record *r, uint64_t n, const char *path,
                                      struct moe_err *err)
{
    char name[128];
    const struct moe_shard_record **sorted = malloc((size_t)n * sizeof *sorted);
    if (!sorted) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to check it");
    for (uint64_t i = 0; i < n; i++) sorted[i] = r + i;
    qsort(sorted, (size_t)n, sizeof *sorted, by_offset);
    enum moe_code code = MOE_OK;
    for (uint64_t i = 1; i < n && code == MOE_OK; i++)
        if (sorted[i]->offset - sorted[i - 1]->offset < sorted[i - 1]->bytes)
            code = moe_fail_at(err, MOE_CORRUPT, path, record_name(sorted[i], name),
                               "plane %d overlaps another", sorted[i]->plane);
    free(sorted);
    return code;
}

static bool is_record_of(const struct moe_shard_record *r, const struct moe_tensor *t, int plane)
{
    return r->role == t->role && r->layer == t->layer && r->expert == t->expert && r->type == t->type &&
           r->plane == plane && r->offset == t->plane[plane].offset && r->bytes == t->plane[plane].bytes;
}

static enum moe_code take_hashes(const unsigned char *head, size_t bytes, const char *path,
                                 struct moe_tensor *t, int64_t n, struct moe_err *err)
{
    size_t at = HEAD;
    bool same = true;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; same && k < MOE_PLANE_COUNT; k++) {
            struct moe_shard_record r;
            if (t[i].plane[k].file < 0) continue;
            same = bytes - at >= RECORD;
            if (!same) break;
            memcpy(&r, head + at, RECORD);
            same = is_record_of(&r, &t[i], k);
            t[i].hash[k] = r.hash;
            at += RECORD;
        }
    if (same && at == bytes) return MOE_OK;
    return moe_fail_at(err, MOE_CORRUPT, path, NULL, "its table lists other tensors than were written to it");
}

enum moe_code moe_shard_read_hashes(const char *path, struct moe_tensor *t, int64_t n, struct moe_err *err)
{
    int fd;
    uint64_t size;
    unsigned char *head;
    size_t bytes;
    MOE_TRY(moe_open_read(path, &fd, &size, err));
    enum moe_code code = moe_shard_read_head(fd, path, size, &head, &bytes, err);
    close(fd);
    MOE_TRY(code);
    code = take_hashes(head, bytes, path, t, n, err);
    free(head);
    return code;
}

/* ---- the planes of a finished file ---- */

enum { CHECK_PIECE = 1 << 20 };

static bool is_own(const struct moe_tensor *t, int64_t i, int plane, const struct moe_plane_sink *sink)
{
    return t[i].plane[plane].file >= 0 && !sink->takes(sink->ctx, i, plane);
}

uint64_t moe_shard_own_bytes(const struct moe_tensor *t, int64_t n, const struct moe_plane_sink *sink)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < MOE_PLANE_COUNT; k++)
            if (is_own(t, i, k, sink)) bytes += t[i].plane[k].bytes;
    return bytes;
}

struct reader {
    int fd;
    const char *path;
    struct moe_hash *hash;
    uint8_t *piece;
    const struct moe_cancel *cancel;
};

static enum moe_code check_plane(const struct reader *r, const struct moe_tensor *t, int plane,
                                 struct moe_err *err)
{
    char name[128];
    const struct moe_span *s = &t->plane[plane];
    moe_hash_reset64(r->hash);
    for (uint64_t at = 0; at < s->bytes; at += CHECK_PIECE) {
        size_t n = s->bytes - at < CHECK_PIECE ? (size_t)(s->bytes - at) : CHECK_PIECE;
        MOE_TRY(moe_pread(r->fd, r->path, r->piece, n, s->offset + at, err));
        moe_hash_add64(r->hash, r->piece, n);
        MOE_TRY(moe_cancel_check_resumable(r->cancel, err));
    }
    if (moe_hash_get64(r->hash) == t->hash[plane]) return MOE_OK;
    return moe_fail_at(err, MOE_VERIFY, r->path,
                       moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                       "the %s plane is not what was written there: the file was damaged since (start over "
                       "with --force)", moe_plane_word(plane));
}

static enum moe_code check_own(const struct reader *r, const struct moe_tensor *t, int64_t n,
                               const struct moe_plane_sink *sink, struct moe_progress *progress,
                               struct moe_err *err)
{
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < MOE_PLANE_COUNT; k++) {
            if (!is_own(t, i, k, sink)) continue;
            MOE_TRY(check_plane(r, &t[i], k, err));
            moe_progress_add(progress, t[i].plane[k].bytes);
        }
    posix_fadvise(r->fd, 0, 0, POSIX_FADV_DONTNEED);
    return MOE_OK;
}

enum moe_code moe_shard_check_own(const char *path, const struct moe_tensor *t, int64_t n,
                                  const struct moe_plane_sink *sink, struct moe_progress *progress,
                                  const struct moe_cancel *cancel, struct moe_err *err)
{
    uint64_t size;
    struct reader r = { .path = path, .cancel = cancel };
    MOE_TRY(moe_open_read(path, &r.fd, &size, err));
    r.hash = moe_hash_new();
    r.piece = malloc(CHECK_PIECE);
    enum moe_code code = r.hash && r.piece ? check_own(&r, t, n, sink, progress, err)
                                           : moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to check it");
    moe_hash_free(r.hash);
    free(r.piece);
    close(r.fd);
    return code;
}
