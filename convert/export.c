#include "convert/export.h"

#include "base/io.h"
#include "base/tool.h"
#include "convert/export-dir.h"
#include "convert/provenance.h"
#include "formats/names.h"
#include "formats/safetensors.h"
#include "kernels/nvfp4.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 4 << 20 };

struct exporter {
    const struct moe_source *src;
    const char *dir;                 /* out.partial */
    struct moe_provenance *p;
    struct moe_progress *progress;
    struct moe_export_result *r;
    unsigned char *buffer;           /* PIECE, or a stripe of scales and its tile when that is more */
    struct moe_hash *hash;
};

/* ---- what a source tensor was made of ---- */

/* The plane of the container that holds entry `e`; MOE_UNSUPPORTED when it was changed, MOE_CORRUPT when it is not there. */
static enum moe_code resolve(const struct moe_source *src, struct moe_origin *e, struct moe_err *err)
{
    struct moe_name n;
    if (!moe_name_parse(e->name, &n)) return moe_fail_at(err, MOE_CORRUPT, "source.jsonl", e->name, "not a name of this model");
    e->tensor = moe_source_find(src, n.role, n.layer, n.expert);
    if (!e->tensor) return moe_fail_at(err, MOE_CORRUPT, "source.jsonl", e->name, "the container has no such tensor");
    e->plane = moe_name_plane(&n, e->tensor->type);
    const struct moe_span *s = e->plane >= 0 ? &e->tensor->plane[e->plane] : NULL;
    uint64_t stored = !s || s->file < 0 ? 0
                    : e->plane == MOE_PLANE_SCALE ? (uint64_t)moe_plane_bytes(e->tensor->type, MOE_LAYOUT_LINEAR, MOE_PLANE_SCALE,
                                                                             e->tensor->rows, e->tensor->cols) : s->bytes;
    if (stored != e->bytes)
        return moe_fail_at(err, MOE_UNSUPPORTED, src->path, e->name,
                           "is stored as %s, the source had %s: a quantized container does not go back with --to hf",
                           moe_dtype_name(e->tensor->type), e->dtype);
    return MOE_OK;
}

static enum moe_code resolve_all(struct exporter *x, struct moe_err *err)
{
    for (int64_t i = 0; i < x->p->n; i++) {
        struct moe_origin *e = &x->p->entries[i];
        if (e->literal_bytes) {
            x->r->tensors++;
            x->r->output_bytes += e->bytes;
        } else if (e->skipped) {
            if (!x->r->skipped++) snprintf(x->r->first_skipped, sizeof x->r->first_skipped, "%s", e->name);
        } else {
            MOE_TRY(resolve(x->src, e, err));
            x->r->tensors++;
            x->r->output_bytes += e->bytes;
        }
    }
    x->r->input_bytes = x->r->output_bytes;
    return MOE_OK;
}

/* ---- bytes ---- */

static enum moe_code copy_plane(struct exporter *x, const struct moe_origin *e, struct moe_st_writer *w, struct moe_err *err)
{
    for (uint64_t at = 0; at < e->bytes; at += PIECE) {
        size_t n = e->bytes - at < PIECE ? (size_t)(e->bytes - at) : PIECE;
        MOE_TRY(moe_source_read(x->src, e->tensor, e->plane, at, n, x->buffer, err));
        moe_hash_add64(x->hash, x->buffer, n);
        MOE_TRY(moe_st_write(w, x->buffer, n, err));
    }
    return MOE_OK;
}

/* Scales lie in tiles of 128 rows; a checkpoint has them by rows. */
static enum moe_code copy_tiles(struct exporter *x, const struct moe_origin *e, struct moe_st_writer *w, struct moe_err *err)
{
    int64_t rows = e->tensor->rows, blocks = e->tensor->cols / 16;
    size_t tile = (size_t)moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, 1, e->tensor->cols);
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

static enum moe_code write_entry(struct exporter *x, const struct moe_origin *e, struct moe_st_writer *w, struct moe_err *err)
{
    if (e->literal_bytes) return moe_st_write(w, e->literal, (size_t)e->bytes, err);
    moe_hash_reset64(x->hash);
    bool tiled = e->plane == MOE_PLANE_SCALE && e->tensor->layout == MOE_LAYOUT_TILE_128X4;
    MOE_TRY(tiled ? copy_tiles(x, e, w, err) : copy_plane(x, e, w, err));
    if (moe_hash_get64(x->hash) != e->hash)
        return moe_fail_at(err, MOE_VERIFY, x->src->path, e->name,
                           "its bytes are not those that were converted (moe-inspect --verify finds where)");
    moe_progress_add(x->progress, e->bytes);
    return moe_interrupted_resumable(err);
}

/* ---- files ---- */

static enum moe_code write_shard(struct exporter *x, int64_t first, int64_t n, struct moe_err *err)
{
    char path[PATH_MAX];
    struct moe_st_writer *w;
    struct moe_st_entry *t = calloc((size_t)n + 1, sizeof *t);
    int64_t kept = 0;
    if (!t) return moe_fail(err, MOE_NOMEM, "no memory for a header");
    for (int64_t i = first; i < first + n; i++) {
        const struct moe_origin *e = &x->p->entries[i];
        if (e->skipped && !e->literal_bytes) continue;
        t[kept] = (struct moe_st_entry){ .name = e->name, .dtype = e->dtype, .ndim = e->ndim };
        memcpy(t[kept++].shape, e->shape, sizeof e->shape);
    }
    enum moe_code code = moe_path_join(path, sizeof path, x->dir, x->p->entries[first].file, err);
    if (code == MOE_OK && kept) code = moe_st_create(&w, path, t, kept, err);
    if (code != MOE_OK || !kept) {
        free(t);
        return code;
    }
    for (int64_t i = first; code == MOE_OK && i < first + n; i++)
        if (!x->p->entries[i].skipped || x->p->entries[i].literal_bytes) code = write_entry(x, &x->p->entries[i], w, err);
    if (code == MOE_OK) code = moe_st_finish(&w, err);
    else moe_st_abort(&w);
    free(t);
    return code;
}

static enum moe_code write_shards(struct exporter *x, struct moe_err *err)
{
    const struct moe_provenance *p = x->p;
    int64_t files = 0, kept = 0;
    struct moe_st_entry *index = calloc((size_t)p->n + 1, sizeof *index);
    const char **in = calloc((size_t)p->n + 1, sizeof *in);
    enum moe_code code = index && in ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for an index");
    for (int64_t i = 0, n; code == MOE_OK && i < p->n; i += n, files++) {
        for (n = 1; i + n < p->n && p->entries[i + n].file == p->entries[i].file; n++) { }
        code = write_shard(x, i, n, err);
    }
    for (int64_t i = 0; code == MOE_OK && i < p->n; i++)
        if (!p->entries[i].skipped || p->entries[i].literal_bytes) {
            index[kept].name = p->entries[i].name;
            in[kept++] = p->entries[i].file;
        }
    if (code == MOE_OK && (files > 1 || strcmp(p->entries[0].file, "model.safetensors")))
        code = moe_st_write_index(x->dir, index, in, kept, x->r->output_bytes, err);
    free(index);
    free(in);
    return code;
}

static enum moe_code export_all(struct exporter *x, const char *out, const struct moe_export_options *o, struct moe_err *err)
{
    static const char *const all[] = { NULL };
    struct moe_export_dir d;
    enum moe_code code = moe_export_dir_begin(&d, out, o->mode, err);
    x->dir = d.path;
    if (code == MOE_OK) code = moe_need_space(d.path, x->r->output_bytes + (1 << 20), out, err);
    moe_progress_begin(x->progress, "export", x->r->output_bytes, MOE_UNIT_BYTES);
    if (code == MOE_OK) code = write_shards(x, err);
    if (code == MOE_OK) code = moe_export_small_files(x->src, d.path, all, err);
    moe_progress_end(x->progress);
    if (code == MOE_OK) code = moe_export_dir_publish(&d, out, err);
    moe_export_dir_end(&d, code);
    return code;
}

enum moe_code moe_export_hf(const struct moe_source *src, const char *out, const struct moe_export_options *o,
                            struct moe_progress *progress, struct moe_export_result *r, struct moe_err *err)
{
    *r = (struct moe_export_result){ 0 };
    if (src->kind != MOE_CONTAINER)
        return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL, "is a checkpoint already (--to hf wants a container NAME.moe)");
    struct exporter x = { .src = src, .progress = progress, .r = r, .buffer = malloc(PIECE), .hash = moe_hash_new() };
    enum moe_code code = x.buffer && x.hash ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for a buffer");
    if (code == MOE_OK) code = moe_provenance_open(&x.p, src, err);
    if (code == MOE_OK) code = resolve_all(&x, err);
    r->memory_bytes = moe_peak_rss() + PIECE;
    if (code == MOE_OK && !o->dry_run) code = export_all(&x, out, o, err);
    moe_provenance_close(&x.p);
    moe_hash_free(x.hash);
    free(x.buffer);
    return code;
}
