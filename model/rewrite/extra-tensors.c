/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/extra-tensors.c - writes vision.safetensors and superseded.safetensors: tensors of a
 * checkpoint that no runtime here reads (the vision tower), and copies that its index does not name, kept
 * byte for byte for --to hf. */
#include "model/rewrite/files.h"

#include "base/io.h"
#include "formats/checkpoint/safetensors.h"
#include "formats/container/original.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 4 << 20 }; /* bytes that are copied at once */

/* Whether the raw tensor is part of no weight and belongs into the file of this kind. */
static bool is_extra(const struct moe_raw *r, enum moe_extra_kind kind)
{
    return r->tensor < 0 && moe_extra_kind_of(r->skipped) == kind;
}

/* The buffer, of PIECE bytes, through which bytes are copied, and the token that may end the copying. */
struct copying { unsigned char *piece; const struct moe_cancel *cancel; };

static enum moe_code copy_raw(const struct moe_source *src, const struct moe_raw *r, struct moe_st_writer *w,
                              const struct copying *c, struct moe_err *err)
{
    for (uint64_t at = 0; at < r->span.bytes; at += PIECE) {
        size_t n = r->span.bytes - at < PIECE ? (size_t)(r->span.bytes - at) : PIECE;
        MOE_TRY(moe_source_read_raw(src, r, at, n, c->piece, err));
        MOE_TRY(moe_st_write(w, c->piece, n, err));
        MOE_TRY(moe_cancel_check_resumable(c->cancel, err));
    }
    moe_source_drop(src, &r->span);
    return MOE_OK;
}

/* Fills t with the header entries of all tensors of this kind; their names are in the arena. */
static enum moe_code list_entries(const struct moe_source *src, enum moe_extra_kind kind,
                                  struct moe_arena *names, struct moe_st_entry *t, struct moe_err *err)
{
    int64_t k = 0;
    for (int64_t i = 0; i < src->n_raws; i++) {
        const struct moe_raw *r = &src->raws[i];
        if (!is_extra(r, kind)) continue;
        const char *name = moe_extra_name(names, kind, src->files[r->span.file].name, r->name);
        if (!name)
            return moe_fail_at(err, MOE_NOMEM, moe_extra_files[kind], NULL, "no memory for its header");
        t[k] = (struct moe_st_entry){ .name = name, .dtype = r->dtype, .ndim = r->ndim };
        memcpy(t[k++].shape, r->shape, sizeof t->shape);
    }
    return MOE_OK;
}

/* Writes the n tensors of this kind, from a checkpoint, to a file. */
static enum moe_code write_extra(const struct moe_source *src, enum moe_extra_kind kind, const char *path,
                                 int64_t n, const struct copying *c, struct moe_err *err)
{
    struct moe_st_writer *w;
    struct moe_arena names = MOE_ARENA_INIT;
    struct moe_st_entry *t = calloc((size_t)n, sizeof *t);

    if (!t) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its header");
    enum moe_code code = list_entries(src, kind, &names, t, err);
    if (code == MOE_OK) code = moe_st_create(&w, path, t, n, err);
    free(t);
    moe_arena_clear(&names);
    MOE_TRY(code);
    for (int64_t i = 0; code == MOE_OK && i < src->n_raws; i++)
        if (is_extra(&src->raws[i], kind)) code = copy_raw(src, &src->raws[i], w, c, err);
    if (code == MOE_OK) return moe_st_finish(&w, err);
    moe_st_abort(&w);
    return code;
}

/* Copies a container's file `from`, on which fd is open and whose digest has been checked, to `to`. */
static enum moe_code copy_file(const char *from, int fd, uint64_t size, const char *to,
                               const struct copying *c, struct moe_err *err)
{
    struct moe_st_writer *w;
    struct moe_arena names = MOE_ARENA_INIT;
    struct moe_st_header h = { 0 };

    MOE_TRY(moe_st_read(fd, from, size, &names, &h, err));
    size_t n = (size_t)h.data_offset - 8;
    char *header = malloc(n + 1);
    enum moe_code code = header ? moe_pread(fd, from, header, n, 8, err)
                         : moe_fail_at(err, MOE_NOMEM, to, NULL, "no memory for its header");
    if (code == MOE_OK) code = moe_st_create_as(&w, to, header, n, size - h.data_offset, err);
    free(header);
    free(h.entries);
    moe_arena_clear(&names);
    MOE_TRY(code);
    for (uint64_t at = h.data_offset, k; code == MOE_OK && at < size; at += k) {
        k = size - at < PIECE ? size - at : PIECE;
        code = moe_pread(fd, from, c->piece, (size_t)k, at, err);
        if (code == MOE_OK) code = moe_st_write(w, c->piece, (size_t)k, err);
        if (code == MOE_OK) code = moe_cancel_check_resumable(c->cancel, err);
    }
    if (code == MOE_OK) return moe_st_finish(&w, err);
    moe_st_abort(&w);
    return code;
}

/* Checks the digest of the container's file of this kind, and copies the file to `to`. */
static enum moe_code copy_from_container(const struct moe_source *src, enum moe_extra_kind kind,
                                         const char *to, const struct copying *c, struct moe_err *err)
{
    char from[PATH_MAX];
    uint64_t size;
    int fd;
    MOE_TRY(moe_container_check_file(src, moe_extra_files[kind], from, err));
    MOE_TRY(moe_open_read(from, &fd, &size, err));
    enum moe_code code = copy_file(from, fd, size, to, c, err);
    close(fd);
    return code;
}

uint64_t moe_extra_bytes(const struct moe_source *src, enum moe_extra_kind kind)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < src->n_raws; i++)
        if (is_extra(&src->raws[i], kind)) bytes += src->raws[i].span.bytes;
    return bytes;
}

enum moe_code moe_keep_extra(const struct moe_source *src, enum moe_extra_kind kind, struct moe_writer *w,
                             const struct moe_cancel *cancel, struct moe_err *err)
{
    char path[PATH_MAX];
    const char *name = moe_extra_files[kind];
    int64_t n = 0;
    for (int64_t i = 0; i < src->n_raws; i++) n += is_extra(&src->raws[i], kind);
    if (!n && !moe_container_lists(src, name)) return MOE_OK;
    struct copying c = { malloc(PIECE), cancel };
    if (!c.piece) return moe_fail(err, MOE_NOMEM, "no memory for a buffer");
    enum moe_code code = moe_path_join(path, sizeof path, moe_writer_dir(w), name, err);
    if (code == MOE_OK)
        code = n ? write_extra(src, kind, path, n, &c, err) : copy_from_container(src, kind, path, &c, err);
    free(c.piece);
    return code == MOE_OK ? moe_writer_adopt_file(w, name, err) : code;
}
