/* SPDX-License-Identifier: Apache-2.0 */
/* model/vision.c - vision.safetensors: what of a multimodal checkpoint no runtime here reads, kept byte for
 * byte for --to hf. */
#include "model/files.h"

#include "base/io.h"
#include "base/tool.h"
#include "formats/original.h"
#include "formats/safetensors.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 4 << 20 };

static bool is_vision(const struct moe_raw *r)
{
    return r->tensor < 0 && r->skipped && !strcmp(r->skipped, "vision");
}

static enum moe_code copy_raw(const struct moe_source *src, const struct moe_raw *r, struct moe_st_writer *w,
                              unsigned char *piece, struct moe_err *err)
{
    for (uint64_t at = 0; at < r->span.bytes; at += PIECE) {
        size_t n = r->span.bytes - at < PIECE ? (size_t)(r->span.bytes - at) : PIECE;
        MOE_TRY(moe_source_read_raw(src, r, at, n, piece, err));
        MOE_TRY(moe_st_write(w, piece, n, err));
        MOE_TRY(moe_interrupted_resumable(err));
    }
    moe_source_drop(src, &r->span);
    return MOE_OK;
}

static enum moe_code gather(const struct moe_source *src, const char *path, int64_t n, unsigned char *piece,
                            struct moe_err *err)
{
    struct moe_st_writer *w;
    struct moe_st_entry *t = calloc((size_t)n, sizeof *t);
    int64_t k = 0;
    if (!t) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its header");
    for (int64_t i = 0; i < src->n_raws; i++) {
        const struct moe_raw *r = &src->raws[i];
        if (!is_vision(r)) continue;
        t[k] = (struct moe_st_entry){ .name = r->name, .dtype = r->dtype, .ndim = r->ndim };
        memcpy(t[k++].shape, r->shape, sizeof t->shape);
    }
    enum moe_code code = moe_st_create(&w, path, t, n, err);
    free(t);
    MOE_TRY(code);
    for (int64_t i = 0; code == MOE_OK && i < src->n_raws; i++)
        if (is_vision(&src->raws[i])) code = copy_raw(src, &src->raws[i], w, piece, err);
    if (code == MOE_OK) return moe_st_finish(&w, err);
    moe_st_abort(&w);
    return code;
}

/* The same file again, which has been held against its digest. */
static enum moe_code copy(const char *from, int fd, uint64_t size, const char *to, unsigned char *piece,
                          struct moe_err *err)
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
        code = moe_pread(fd, from, piece, (size_t)k, at, err);
        if (code == MOE_OK) code = moe_st_write(w, piece, (size_t)k, err);
        if (code == MOE_OK) code = moe_interrupted_resumable(err);
    }
    if (code == MOE_OK) return moe_st_finish(&w, err);
    moe_st_abort(&w);
    return code;
}

static enum moe_code copy_container(const struct moe_source *src, const char *to, unsigned char *piece,
                                    struct moe_err *err)
{
    char from[PATH_MAX];
    uint64_t size;
    int fd;
    MOE_TRY(moe_container_check_file(src, MOE_VISION_NAME, from, err));
    MOE_TRY(moe_open_read(from, &fd, &size, err));
    enum moe_code code = copy(from, fd, size, to, piece, err);
    close(fd);
    return code;
}

static int64_t count(const struct moe_source *src)
{
    int64_t n = 0;
    for (int64_t i = 0; i < src->n_raws; i++) n += is_vision(&src->raws[i]);
    return n;
}

uint64_t moe_vision_bytes(const struct moe_source *src)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < src->n_raws; i++)
        if (is_vision(&src->raws[i])) bytes += src->raws[i].span.bytes;
    return bytes;
}

enum moe_code moe_keep_vision(const struct moe_source *src, struct moe_writer *w, struct moe_err *err)
{
    char path[PATH_MAX];
    int64_t n = count(src);
    if (!n && !moe_container_lists(src, MOE_VISION_NAME)) return MOE_OK;
    unsigned char *piece = malloc(PIECE);
    if (!piece) return moe_fail(err, MOE_NOMEM, "no memory for a buffer");
    enum moe_code code = moe_path_join(path, sizeof path, moe_writer_dir(w), MOE_VISION_NAME, err);
    if (code == MOE_OK) code = n ? gather(src, path, n, piece, err) : copy_container(src, path, piece, err);
    free(piece);
    return code == MOE_OK ? moe_writer_adopt_file(w, MOE_VISION_NAME, err) : code;
}
