/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/export.h"

#include "base/io.h"
#include "convert/provenance.h"
#include "formats/checkpoint/fused.h"
#include "formats/checkpoint/safetensors.h"
#include "formats/container/original.h"
#include "formats/names.h"
#include "kernels/nvfp4.h"
#include "model/rewrite/export-dir.h"
#include "model/rewrite/model-config.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 4 << 20 };

struct exporter {
    const struct moe_source *src;
    const char *dir;                 /* out.partial */
    struct moe_provenance *p;
    struct moe_progress *progress;
    const struct moe_cancel *cancel;
    struct moe_export_result *r;
    unsigned char *buffer;           /* PIECE, or a stripe of scales and its tile when that is more */
    struct moe_hash *hash;
    struct moe_originals own;        /* records of source.rest; none in a container of an older version */
    char *own_text;
    struct moe_left_out left;        /* kinds of tensors that do not go out */
    uint64_t index_bytes;            /* of the tensors that an index names */
    int aside_fd[MOE_ASIDE_COUNT];   /* vision.safetensors, superseded.safetensors, or -1 */
    char aside_path[MOE_ASIDE_COUNT][PATH_MAX];
    int64_t at;                      /* where the search for the next record begins */
};

/* ---- what a source tensor was made of ---- */

/* The plane of the container that holds entry `e`; MOE_UNSUPPORTED when it was changed,
 * MOE_CORRUPT when it is not there. */
static enum moe_code resolve(const struct moe_source *src, struct moe_origin *e, struct moe_err *err)
{
    struct moe_name n;
    if (!moe_name_parse(e->name, &n))
        return moe_fail_at(err, MOE_CORRUPT, "source.jsonl", e->name, "not a name of this model");
    e->tensor = moe_source_find(src, n.role, n.layer, n.expert);
    if (!e->tensor)
        return moe_fail_at(err, MOE_CORRUPT, "source.jsonl", e->name, "the container has no such tensor");
    e->plane = moe_name_plane(&n, e->tensor->type);
    const struct moe_span *s = e->plane >= 0 ? &e->tensor->plane[e->plane] : NULL;
    uint64_t stored = !s || s->file < 0 ? 0
                    : e->plane == MOE_PLANE_SCALE
                        ? (uint64_t)moe_plane_bytes(e->tensor->type, MOE_LAYOUT_LINEAR, MOE_PLANE_SCALE,
                                                    e->tensor->rows, e->tensor->cols)
                        : s->bytes;
    if (stored != e->bytes)
        return moe_fail_at(
            err, MOE_UNSUPPORTED, src->path, e->name,
            "is stored as %s, the source had %s: a quantized container does not go back with --to hf",
            moe_dtype_name(e->tensor->type), e->dtype);
    return MOE_OK;
}

/* The entries of source.jsonl that are of this kind are those of the file's header, in its order: where they
 * are in it. */
static enum moe_code match_aside(struct exporter *x, enum moe_aside kind, const struct moe_st_header *h,
                                 struct moe_arena *names, struct moe_err *err)
{
    int64_t k = 0;
    for (int64_t i = 0; i < x->p->n; i++) {
        struct moe_origin *e = &x->p->entries[i];
        if (moe_aside_of(e->skipped) != kind) continue;
        const char *name = moe_aside_name(names, kind, e->file, e->name);
        if (!name) return moe_fail_at(err, MOE_NOMEM, x->aside_path[kind], NULL, "no memory for its names");
        if (k == h->n || strcmp(h->entries[k].name, name) || strcmp(h->entries[k].dtype, e->dtype) ||
            h->entries[k].bytes != e->bytes)
            return moe_fail_at(err, MOE_CORRUPT, x->aside_path[kind], e->name,
                               "is not where source.jsonl has it");
        e->aside = h->entries[k++].offset;
    }
    return MOE_OK;
}

static enum moe_code find_aside(struct exporter *x, enum moe_aside kind, struct moe_err *err)
{
    struct moe_arena names = MOE_ARENA_INIT;
    struct moe_st_header h = { 0 };
    uint64_t size;
    const char *path = x->aside_path[kind];
    if (!moe_container_lists(x->src, moe_aside_files[kind])) return MOE_OK;
    MOE_TRY(moe_container_check_file(x->src, moe_aside_files[kind], x->aside_path[kind], err));
    MOE_TRY(moe_open_read(path, &x->aside_fd[kind], &size, err));
    enum moe_code code = moe_st_read(x->aside_fd[kind], path, size, &names, &h, err);
    if (code == MOE_OK) code = moe_st_check_size(&h, path, size, err);
    if (code == MOE_OK) code = match_aside(x, kind, &h, &names, err);
    free(h.entries);
    moe_arena_clear(&names);
    return code;
}

static bool is_superseded(const struct moe_origin *e)
{
    return moe_aside_of(e->skipped) == MOE_ASIDE_SUPERSEDED;
}

/* Whether anything but copies that do not count is not there to go out.  Then those do not go out, either:
 * they are for a directory that is the source's in every byte. */
static bool lacks_any(const struct exporter *x)
{
    for (int64_t i = 0; i < x->p->n; i++) {
        const struct moe_origin *e = &x->p->entries[i];
        if (e->skipped && !e->literal_bytes && !e->aside && !is_superseded(e)) return true;
    }
    return false;
}

static void leave_out(struct exporter *x, const struct moe_origin *e)
{
    if (!x->r->skipped++) snprintf(x->r->first_skipped, sizeof x->r->first_skipped, "%s", e->name);
    x->left.vision |= !strcmp(e->skipped, "vision");
    x->left.prediction |= !strcmp(e->skipped, "multi-token prediction");
    x->left.kv_scales |= !strcmp(e->skipped, "kv scale");
}

static enum moe_code resolve_all(struct exporter *x, struct moe_err *err)
{
    bool lacks = lacks_any(x);
    for (int64_t i = 0; i < x->p->n; i++) {
        struct moe_origin *e = &x->p->entries[i];
        e->kept = !e->skipped || e->literal_bytes || (e->aside && !(lacks && is_superseded(e)));
        if (!e->kept) {
            leave_out(x, e);
            continue;
        }
        if (!e->skipped) MOE_TRY(resolve(x->src, e, err));
        x->r->tensors++;
        x->r->output_bytes += e->bytes;
        if (!is_superseded(e)) x->index_bytes += e->bytes;
    }
    x->r->input_bytes = x->r->output_bytes;
    x->r->text_only = x->left.vision;
    return MOE_OK;
}

/* A text model's tensors have its own names: "model.layers.0..." for "language_model.model.layers.0..." or
 * "language_model.layers.0...". */
static enum moe_code text_names(struct exporter *x, struct moe_err *err)
{
    static const char wrap[] = "language_model.";
    for (int64_t i = 0; i < x->p->n; i++) {
        struct moe_origin *e = &x->p->entries[i];
        if (strncmp(e->name, wrap, sizeof wrap - 1)) continue;
        e->name += sizeof wrap - 1;
        if (!strncmp(e->name, "model.", 6) || !strncmp(e->name, "lm_head.", 8)) continue;
        size_t n = strlen(e->name) + 7;
        char *name = moe_arena_alloc(&x->p->arena, n);
        if (!name) return moe_fail(err, MOE_NOMEM, "no memory for names");
        snprintf(name, n, "model.%s", e->name);
        e->name = name;
    }
    return MOE_OK;
}

/* ---- bytes ---- */

static enum moe_code copy_plane(struct exporter *x, const struct moe_origin *e, struct moe_st_writer *w,
                                struct moe_err *err)
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
static enum moe_code copy_tiles(struct exporter *x, const struct moe_origin *e, struct moe_st_writer *w,
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

/* The file was held against its digest when it was opened. */
static enum moe_code copy_aside(struct exporter *x, const struct moe_origin *e, struct moe_st_writer *w,
                                struct moe_err *err)
{
    enum moe_aside kind = moe_aside_of(e->skipped);
    for (uint64_t at = 0; at < e->bytes; at += PIECE) {
        size_t n = e->bytes - at < PIECE ? (size_t)(e->bytes - at) : PIECE;
        MOE_TRY(moe_pread(x->aside_fd[kind], x->aside_path[kind], x->buffer, n, e->aside + at, err));
        MOE_TRY(moe_st_write(w, x->buffer, n, err));
    }
    moe_progress_add(x->progress, e->bytes);
    return moe_cancel_check_resumable(x->cancel, err);
}

static enum moe_code write_entry(struct exporter *x, const struct moe_origin *e, struct moe_st_writer *w,
                                 struct moe_err *err)
{
    if (e->aside) return copy_aside(x, e, w, err);
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

/* The record of a file's header or of the index, NULL when there is none; records stand in the order of the
 * source's files. */
static const struct moe_original *record_of(struct exporter *x, enum moe_original_kind kind, const char *file)
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

/* A header's entry stands for t[*at], or, of experts fused into one tensor, for as many as it has slices; *at
 * moves on. */
static bool stands_for(const struct exporter *x, const struct moe_st_entry *e, const struct moe_st_entry *t,
                       int64_t count, int64_t *at)
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

/* That a header names these tensors in this order, and nothing else. */
static enum moe_code check_header(const struct exporter *x, const char *path, const char *text, size_t n,
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

/* Create a file of these tensors: with the source's header when the record `o` keeps it, else with our
 * own. */
static enum moe_code create(struct exporter *x, const char *path, const struct moe_original *o,
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

static enum moe_code write_shard(struct exporter *x, const char *file, int64_t first, int64_t n,
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

/* Files that hold no tensor have a record alone. */
static enum moe_code write_empty_shards(struct exporter *x, struct moe_err *err)
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

/* The source's index when all of it is there; else one of what is there, unless it is one file that needs
 * none. */
static enum moe_code write_index(struct exporter *x, const char *const *names, const char *const *files,
                                 int64_t n, int64_t n_files, struct moe_err *err)
{
    char path[PATH_MAX], *plain, *text;
    size_t plain_n, text_n;
    const struct moe_original *o = x->r->skipped ? NULL : record_of(x, MOE_ORIGINAL_INDEX, MOE_INDEX_NAME);
    if (!o && x->own.n && !x->r->skipped) return MOE_OK; /* the source had none */
    if (!o && n_files == 1 && !strcmp(files[0], "model.safetensors")) return MOE_OK;
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

static enum moe_code write_shards(struct exporter *x, struct moe_err *err)
{
    const struct moe_provenance *p = x->p;
    int64_t files = 0, kept = 0;
    const char **names = calloc((size_t)p->n + 1, sizeof *names), **in = calloc((size_t)p->n + 1, sizeof *in);
    enum moe_code code = names && in ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for an index");
    for (int64_t i = 0, n; code == MOE_OK && i < p->n; i += n) {
        int64_t before = kept;
        for (n = 1; i + n < p->n && p->entries[i + n].file == p->entries[i].file; n++) { }
        for (int64_t k = i; k < i + n; k++)
            if (p->entries[k].kept && !is_superseded(&p->entries[k]))
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

/* ---- the other files ---- */

/* The directories of "docs/figures/a.png" under the export. */
static enum moe_code make_folders(const struct exporter *x, const char *name, struct moe_err *err)
{
    char folder[PATH_MAX], path[PATH_MAX];
    for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - name), name);
        MOE_TRY(moe_path_join(path, sizeof path, x->dir, folder, err));
        MOE_TRY(moe_mkdir(path, err));
    }
    return MOE_OK;
}

static enum moe_code write_others(struct exporter *x, struct moe_err *err)
{
    for (int64_t i = 0; i < x->own.n; i++) {
        const struct moe_original *o = &x->own.v[i];
        char path[PATH_MAX], *text;
        size_t n;
        if (o->kind != MOE_ORIGINAL_FILE && o->kind != MOE_ORIGINAL_DIRECTORY) continue;
        MOE_TRY(make_folders(x, o->name, err));
        MOE_TRY(moe_path_join(path, sizeof path, x->dir, o->name, err));
        if (o->kind == MOE_ORIGINAL_DIRECTORY) {
            MOE_TRY(moe_mkdir(path, err));
            continue;
        }
        MOE_TRY(moe_original_text(o, "", 0, (size_t)1 << 30, x->src->path, &text, &n, err));
        enum moe_code code = moe_write_file(path, text, n, err);
        free(text);
        MOE_TRY(code);
    }
    return MOE_OK;
}

/* config.json, and hf_quant_config.json where there is one, without what is left out. */
static enum moe_code write_configs(struct exporter *x, struct moe_err *err)
{
    cJSON *config;
    char *text;
    size_t n;
    struct moe_left_out left = x->left;
    MOE_TRY(moe_model_config(x->src, &left, &config, err));
    enum moe_code code = moe_export_json(x->dir, "config.json", config, err);
    cJSON_Delete(config);
    MOE_TRY(code);
    code = moe_container_read_file(x->src, "hf/hf_quant_config.json", &text, &n, err);
    if (code == MOE_NOT_FOUND) return MOE_OK;
    MOE_TRY(code);
    code = moe_json_parse(text, n, "hf/hf_quant_config.json", &config, err);
    free(text);
    MOE_TRY(code);
    code = moe_model_quant_config(x->src, &left, config, err);
    if (code == MOE_OK) code = moe_export_json(x->dir, "hf_quant_config.json", config, err);
    cJSON_Delete(config);
    return code;
}

static enum moe_code write_small_files(struct exporter *x, struct moe_err *err)
{
    static const char *const all[] = { NULL };
    static const char *const replaced[] = { "config.json", "hf_quant_config.json", NULL };
    bool changed = x->left.vision || x->left.prediction || x->left.kv_scales;
    MOE_TRY(moe_export_small_files(x->src, x->dir, changed ? replaced : all, !x->left.vision, err));
    if (changed) MOE_TRY(write_configs(x, err));
    return write_others(x, err);
}

static enum moe_code export_all(struct exporter *x, const char *out, const struct moe_export_options *o,
                                struct moe_err *err)
{
    struct moe_newdir d;
    const struct moe_export_dir e = { .src = x->src,
                                      .options = o->vision ? "hf --keep-vision" : "hf",
                                      .mode = o->mode,
                                      .cancel = o->cancel,
                                      .proof = x->r->skipped ? MOE_PROOF_NONE : MOE_PROOF_SAME };
    MOE_TRY(moe_export_dir_begin(&d, &e, out, err));
    x->r->was_done = d.whole;
    if (d.whole) return moe_export_dir_end(&d, &e, MOE_OK, err);
    x->dir = d.path;
    enum moe_code code = moe_need_space(d.path, x->r->output_bytes + (1 << 20), out, err);
    moe_progress_begin(x->progress, "export", x->r->output_bytes, MOE_UNIT_BYTES);
    if (code == MOE_OK) code = write_shards(x, err);
    if (code == MOE_OK) code = write_small_files(x, err);
    moe_progress_end(x->progress);
    return moe_export_dir_end(&d, &e, code, err);
}

static enum moe_code read_rest(struct exporter *x, struct moe_err *err)
{
    size_t n;
    enum moe_code code = moe_container_read_file(x->src, MOE_ORIGINAL_NAME, &x->own_text, &n, err);
    if (code == MOE_NOT_FOUND) return MOE_OK;
    MOE_TRY(code);
    return moe_originals_parse(x->own_text, n, MOE_ORIGINAL_NAME, &x->own, err);
}

enum moe_code moe_export_hf(const struct moe_source *src, const char *out, const struct moe_export_options *o,
                            struct moe_progress *progress, struct moe_export_result *r, struct moe_err *err)
{
    *r = (struct moe_export_result){ 0 };
    if (src->kind != MOE_CONTAINER)
        return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL,
                           "is a checkpoint already (--to hf wants a container NAME.moe)");
    struct exporter x = { .src = src, .progress = progress, .cancel = o->cancel, .r = r,
                          .buffer = malloc(PIECE),
                          .hash = moe_hash_new() };
    enum moe_code code = x.buffer && x.hash ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for a buffer");
    if (code == MOE_OK) code = moe_provenance_open(&x.p, src, err);
    for (int k = 0; k < MOE_ASIDE_COUNT; k++) x.aside_fd[k] = -1;
    if (code == MOE_OK && o->vision) code = find_aside(&x, MOE_ASIDE_VISION, err);
    if (code == MOE_OK) code = find_aside(&x, MOE_ASIDE_SUPERSEDED, err);
    if (code == MOE_OK) code = resolve_all(&x, err);
    if (code == MOE_OK && x.left.vision) code = text_names(&x, err);
    if (code == MOE_OK) code = read_rest(&x, err);
    r->memory_bytes = moe_peak_rss() + PIECE;
    if (code == MOE_OK && !o->dry_run) code = export_all(&x, out, o, err);
    moe_provenance_close(&x.p);
    moe_originals_release(&x.own);
    free(x.own_text);
    for (int k = 0; k < MOE_ASIDE_COUNT; k++)
        if (x.aside_fd[k] >= 0) close(x.aside_fd[k]);
    moe_hash_free(x.hash);
    free(x.buffer);
    return code;
}
