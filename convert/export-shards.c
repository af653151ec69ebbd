/* SPDX-License-Identifier: Apache-2.0 */
/* convert/export-shards.c - writes the safetensors files of the source checkpoint, and their index. */
#include "convert/export-internal.h"

#include "base/io.h"
#include "formats/checkpoint/fused.h"
#include "formats/checkpoint/safetensors.h"
#include "kernels/nvfp4.h"

#include <stdlib.h>
#include <string.h>
/* ---- bytes ---- */

static enum moe_code copy_plane(struct moe_exporter *x, const struct moe_origin *e, struct moe_st_writer *w,
                                struct moe_err *err)
{
    for (uint64_t at = 0; at < e->bytes; at += MOE_EXPORT_PIECE) {
        size_t n = e->bytes - at < MOE_EXPORT_PIECE ? (size_t)(e->bytes - at) : MOE_EXPORT_PIECE;
        MOE_TRY(moe_source_read(x->src, e->tensor, e->plane, at, n, x->buffer, err));
        moe_hash_add64(x->hash, x->buffer, n);
        MOE_TRY(moe_st_write(w, x->buffer, n, err));
    }
    return MOE_OK;
}

/* Writes block scales row by row, as a checkpoint has them; the container has them in tiles of 128 rows. */
static enum moe_code copy_tiles(struct moe_exporter *x, const struct moe_origin *e, struct moe_st_writer *w,
                                struct moe_err *err)
{
    int64_t rows = e->tensor->rows, blocks = e->tensor->cols / 16;
    size_t tile = (size_t)moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, 1,
                                          e->tensor->cols);
    unsigned char *tiles = malloc(tile + 128 * (size_t)blocks), *linear = tiles + tile;
    if (!tiles) return moe_fail(err, MOE_NOMEM, "no memory for a stripe of scales");
    enum moe_code code = MOE_OK;
    for (int64_t r = 0; code == MOE_OK && r < rows; r += 128) {
        int64_t n = rows - r < 128 ? rows - r : 128;
        code = moe_source_read(x->src, e->tensor, e->plane, (uint64_t)(r / 128) * tile, tile, tiles, err);
        if (code != MOE_OK) break;
        moe_scales_from_tile(tiles, 0, n, blocks, linear);
        moe_hash_add64(x->hash, linear, (size_t)(n * blocks));
        code = moe_st_write(w, linear, (size_t)(n * blocks), err);
    }
    free(tiles);
    return code;
}

/* Copies an entry from vision.safetensors or superseded.safetensors, whose digest was checked at opening. */
static enum moe_code copy_extra(struct moe_exporter *x, const struct moe_origin *e, struct moe_st_writer *w,
                                struct moe_err *err)
{
    enum moe_extra_kind kind = moe_extra_kind_of(e->skipped);
    for (uint64_t at = 0; at < e->bytes; at += MOE_EXPORT_PIECE) {
        size_t n = e->bytes - at < MOE_EXPORT_PIECE ? (size_t)(e->bytes - at) : MOE_EXPORT_PIECE;
        MOE_TRY(moe_pread(x->extra_fd[kind], x->extra_path[kind], x->buffer, n, e->extra_at + at, err));
        MOE_TRY(moe_st_write(w, x->buffer, n, err));
    }
    moe_progress_add(x->progress, e->bytes);
    return moe_cancel_check_resumable(x->cancel, err);
}

static enum moe_code write_entry(struct moe_exporter *x, const struct moe_origin *e, struct moe_st_writer *w,
                                 struct moe_err *err)
{
    if (e->extra_at) return copy_extra(x, e, w, err);
    if (e->literal_bytes) return moe_st_write(w, e->literal, (size_t)e->bytes, err);
    moe_hash_reset64(x->hash);
    bool tiled = e->plane == MOE_PLANE_SCALE && e->tensor->layout == MOE_LAYOUT_TILE_128X4;
    MOE_TRY(tiled ? copy_tiles(x, e, w, err) : copy_plane(x, e, w, err));
    if (moe_hash_get64(x->hash) != e->hash)
        return moe_fail_at(err, MOE_VERIFY, x->src->path, e->name,
                           "its bytes are not those that were converted (moe-inspect --verify finds where)");
    moe_progress_add(x->progress, e->bytes);
    return moe_cancel_check_resumable(x->cancel, err);
}

/* ---- files ---- */

/* The record of a file's header or of the index; NULL when there is none.  Records are in the order of the
 * source's files, so the search begins after the last one found. */
static const struct moe_original *record_of(struct moe_exporter *x, enum moe_original_kind kind,
                                            const char *file)
{
    for (int64_t i = 0; i < x->own.n; i++) {
        const struct moe_original *o = &x->own.v[(x->at + i) % x->own.n];
        if (o->kind != kind || strcmp(o->name, file)) continue;
        x->at = (x->at + i + 1) % x->own.n;
        return o;
    }
    return NULL;
}

static bool same_entry(const struct moe_st_entry *a, const struct moe_st_entry *b)
{
    return !strcmp(a->name, b->name) && !strcmp(a->dtype, b->dtype) && a->ndim == b->ndim &&
           !memcmp(a->shape, b->shape, (size_t)b->ndim * sizeof *b->shape);
}

/* Whether a header's entry is t[*at] or, if it is a tensor of several experts, the next entries of t, one for
 * each slice.  *at moves behind them. */
static bool stands_for(const struct moe_exporter *x, const struct moe_st_entry *e,
                       const struct moe_st_entry *t, int64_t count, int64_t *at)
{
    struct moe_fused f;
    struct moe_err why;
    bool fused;
    if (moe_fused_parse(&x->src->config, e, &fused, &f, &why) != MOE_OK || !fused)
        return *at < count && same_entry(e, &t[(*at)++]);
    for (int64_t i = 0; i < f.slices; i++) {
        char name[MOE_FUSED_NAME];
        struct moe_st_entry slice;
        moe_fused_slice(&f, e, i, name, &slice);
        if (*at == count || !same_entry(&slice, &t[(*at)++])) return false;
    }
    return true;
}

/* MOE_CORRUPT unless a header names exactly these tensors in this order. */
static enum moe_code check_header(const struct moe_exporter *x, const char *path, const char *text, size_t n,
                                  const struct moe_st_entry *t, int64_t count, struct moe_err *err)
{
    struct moe_arena names = MOE_ARENA_INIT;
    struct moe_st_header h = { 0 };
    char *copy = malloc(n + 1);
    if (!copy) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for a header");
    memcpy(copy, text, n + 1);
    enum moe_code code = moe_st_parse(copy, n, path, &names, &h, err);
    int64_t at = 0;
    bool same = code == MOE_OK;
    for (int64_t i = 0; same && i < h.n; i++) same = stands_for(x, &h.entries[i], t, count, &at);
    if (code == MOE_OK && (!same || at < count))
        code = moe_fail_at(err, MOE_CORRUPT, path, NULL, "its header names other tensors than source.jsonl");
    free(h.entries);
    moe_arena_clear(&names);
    free(copy);
    return code;
}

/* Creates a file of these tensors, with the source's header when the record `o` has it, else with the header
 * that this tool makes. */
static enum moe_code create(struct moe_exporter *x, const char *path, const struct moe_original *o,
                            struct moe_st_entry *t, int64_t n,
                            struct moe_st_writer **w, struct moe_err *err)
{
    char *plain, *text = NULL;
    size_t plain_n, text_n;
    if (!o) return moe_st_create(w, path, t, n, err);
    MOE_TRY(moe_st_header_text(t, n, path, &plain, &plain_n, err));
    enum moe_code code = moe_original_text(o, plain, plain_n, MOE_ST_HEADER_MAX, x->src->path, &text, &text_n,
                                           err);
    if (code == MOE_OK) code = check_header(x, path, text, text_n, t, n, err);
    uint64_t data = n ? t[n - 1].offset + t[n - 1].bytes : 0;
    if (code == MOE_OK) code = moe_st_create_as(w, path, text, text_n, data, err);
    free(plain);
    free(text);
    return code;
}

static enum moe_code write_shard(struct moe_exporter *x, const char *file, int64_t first, int64_t n,
                                 struct moe_err *err)
{
    char path[PATH_MAX];
    struct moe_st_writer *w;
    struct moe_st_entry *t = calloc((size_t)n + 1, sizeof *t);
    int64_t kept = 0;
    if (!t) return moe_fail(err, MOE_NOMEM, "no memory for a header");
    for (int64_t i = first; i < first + n; i++) {
        const struct moe_origin *e = &x->p->entries[i];
        if (!e->kept) continue;
        t[kept] = (struct moe_st_entry){ .name = e->name, .dtype = e->dtype, .ndim = e->ndim };
        memcpy(t[kept++].shape, e->shape, sizeof e->shape);
    }
    enum moe_code code = moe_path_join(path, sizeof path, x->dir, file, err);
    bool whole = kept == n && !x->left.vision;
    const struct moe_original *o = whole ? record_of(x, MOE_ORIGINAL_HEADER, file) : NULL;
    if (code == MOE_OK && (kept || !n)) code = create(x, path, o, t, kept, &w, err);
    free(t);
    if (code != MOE_OK || (!kept && n)) return code;
    for (int64_t i = first; code == MOE_OK && i < first + n; i++)
        if (x->p->entries[i].kept) code = write_entry(x, &x->p->entries[i], w, err);
    if (code == MOE_OK) return moe_st_finish(&w, err);
    moe_st_abort(&w);
    return code;
}

/* Writes the files of the source that hold no tensor; only their records tell of them. */
static enum moe_code write_empty_shards(struct moe_exporter *x, struct moe_err *err)
{
    for (int64_t i = 0; i < x->own.n; i++) {
        bool has = x->own.v[i].kind != MOE_ORIGINAL_HEADER;
        for (int64_t k = 0; !has && k < x->p->n; k++)
            has = (!k || x->p->entries[k].file != x->p->entries[k - 1].file) &&
                  !strcmp(x->p->entries[k].file, x->own.v[i].name);
        if (!has) MOE_TRY(write_shard(x, x->own.v[i].name, 0, 0, err));
    }
    return MOE_OK;
}

/* Writes the source's index when all of its tensors are written, else one of those that are, unless these are
 * in one file that needs no index. */
static enum moe_code write_index(struct moe_exporter *x, const char *const *names, const char *const *files,
                                 int64_t n, int64_t n_files, struct moe_err *err)
{
    char path[PATH_MAX], *plain, *text;
    size_t plain_n, text_n;
    const struct moe_original *o = x->r->skipped ? NULL : record_of(x, MOE_ORIGINAL_INDEX, MOE_INDEX_NAME);
    if (!o && x->own.n && !x->r->skipped) return MOE_OK; /* the source had no index */
    if (!o && n_files == 1 && !strcmp(files[0], MOE_ST_SINGLE)) return MOE_OK;
    if (!o) return moe_st_write_index(x->dir, names, files, n, x->index_bytes, err);
    MOE_TRY(moe_path_join(path, sizeof path, x->dir, MOE_INDEX_NAME, err));
    MOE_TRY(moe_st_index_text(names, files, n, x->index_bytes, &plain, &plain_n, err));
    enum moe_code code = moe_original_text(o, plain, plain_n, (size_t)1 << 30, x->src->path, &text, &text_n,
                                           err);
    if (code == MOE_OK) code = moe_write_file(path, text, text_n, err);
    free(plain);
    free(text);
    return code;
}

enum moe_code moe_export_write_shards(struct moe_exporter *x, struct moe_err *err)
{
    const struct moe_provenance *p = x->p;
    int64_t files = 0, kept = 0;
    const char **names = calloc((size_t)p->n + 1, sizeof *names), **in = calloc((size_t)p->n + 1, sizeof *in);
    enum moe_code code = names && in ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for an index");
    for (int64_t i = 0, n; code == MOE_OK && i < p->n; i += n) {
        int64_t before = kept;
        for (n = 1; i + n < p->n && p->entries[i + n].file == p->entries[i].file; n++) { }
        for (int64_t k = i; k < i + n; k++)
            if (p->entries[k].kept && !moe_export_is_superseded(&p->entries[k]))
                names[kept] = p->entries[k].name, in[kept++] = p->entries[k].file;
        files += kept > before;
        code = write_shard(x, p->entries[i].file, i, n, err);
    }
    if (code == MOE_OK) code = write_empty_shards(x, err);
    if (code == MOE_OK) code = write_index(x, names, in, kept, files, err);
    free(names);
    free(in);
    return code;
}
