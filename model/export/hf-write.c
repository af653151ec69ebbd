/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the tensors of an NVFP4 checkpoint, streamed by chunks of rows. */
#include "base/hash.h"
#include "base/io.h"
#include "formats/checkpoint/safetensors.h"
#include "kernels/kernels.h"
#include "kernels/many.h"
#include "kernels/scalar.h"
#include "model/chunk.h"
#include "model/export/hf-internal.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

enum { PIECE = 4 << 20 };

struct writer {
    const struct moe_hf_plan *p;
    const struct moe_kernels *k;
    struct moe_progress *progress;
    struct moe_hash *data_hash, *scale_hash;
    struct moe_st_writer *st;         /* the next bytes are appended here; NULL: they go to offset `at` of */
    struct moe_hf_files *files;       /* the file number `shard` of these */
    int64_t shard;
    uint64_t at;
    unsigned char *raw, *scale, *out; /* a chunk as the container has it (two planes), and as it is written */
    float *x, *y;                     /* the chunk's values; one row of them after quantizing again */
    double num, den;                  /* sum of (w - w')^2 and of w^2 of the weights quantized again */
};

/* Writes the next n bytes of the checkpoint. */
static enum moe_code put(struct writer *w, const void *data, size_t n, struct moe_err *err)
{
    if (w->st) return moe_st_write(w->st, data, n, err);
    MOE_TRY(moe_hf_files_write(w->files, w->shard, w->at, data, n, err));
    w->at += n;
    return MOE_OK;
}

/* ---- reading ---- */

/* Reads and hashes rows [r0, r0+n) of a plane. */
static enum moe_code read_rows(struct writer *w, const struct moe_tensor *t, int plane, int64_t r0, int64_t n,
                               unsigned char *to, struct moe_err *err)
{
    int64_t bytes = moe_plane_bytes(t->type, t->layout, plane, n, t->cols);
    uint64_t at = r0 ? (uint64_t)moe_plane_bytes(t->type, t->layout, plane, r0, t->cols) : 0;
    if (!bytes) return MOE_OK;
    MOE_TRY(moe_source_read(w->p->src, t, plane, at, (size_t)bytes, to, err));
    moe_hash_add64(plane == MOE_PLANE_DATA ? w->data_hash : w->scale_hash, to, (size_t)bytes);
    return MOE_OK;
}

static void begin(struct writer *w)
{
    moe_hash_reset64(w->data_hash);
    moe_hash_reset64(w->scale_hash);
}

/* MOE_CORRUPT when a plane that was read from end to end does not match the container's hash.  data, scale:
 * which planes were read. */
static enum moe_code check(struct writer *w, const struct moe_tensor *t, bool data, bool scale,
                           struct moe_err *err)
{
    char name[128];
    bool bad_data = data && moe_hash_get64(w->data_hash) != t->hash[MOE_PLANE_DATA];
    bool bad_scale = scale && t->plane[MOE_PLANE_SCALE].file >= 0 &&
                     moe_hash_get64(w->scale_hash) != t->hash[MOE_PLANE_SCALE];
    int plane = bad_data ? MOE_PLANE_DATA : MOE_PLANE_SCALE;
    if (!bad_data && !bad_scale) return MOE_OK;
    return moe_fail_at(err, MOE_CORRUPT, w->p->src->files[t->plane[plane].file].path,
                       moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                       "the %s plane does not match its checksum (copy the file again)",
                       moe_plane_word(plane));
}

/* Reads rows [r0, r0+n) and dequantizes them into w->x; *amax is the largest magnitude. */
static enum moe_code read_values(struct writer *w, const struct moe_tensor *t, int64_t r0, int64_t n,
                                 float *amax, struct moe_err *err)
{
    char name[128];
    struct moe_weight q = { .type = t->type,
                            .layout = t->layout,
                            .reciprocal = t->reciprocal,
                            .rows = n,
                            .cols = t->cols,
                            .data = w->raw,
                            .scale = w->scale,
                            .global = t->global };

    MOE_TRY(read_rows(w, t, MOE_PLANE_DATA, r0, n, w->raw, err));
    MOE_TRY(read_rows(w, t, MOE_PLANE_SCALE, r0, n, w->scale, err));
    moe_dequantize_many(&q, 0, n, w->x);
    *amax = w->k->amax(w->x, n * t->cols);
    if (isfinite(*amax)) return MOE_OK;
    return moe_fail_at(err, MOE_NONFINITE, w->p->src->files[t->plane[MOE_PLANE_DATA].file].path,
                       moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                       "a value is NaN or Inf");
}

/* ---- one tensor of the checkpoint ---- */

static enum moe_code write_plain(struct writer *w, const struct moe_tensor *t, struct moe_err *err)
{
    uint64_t bytes = t->plane[MOE_PLANE_DATA].bytes;
    begin(w);
    for (uint64_t at = 0; at < bytes; at += PIECE) {
        size_t n = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;
        MOE_TRY(moe_source_read(w->p->src, t, MOE_PLANE_DATA, at, n, w->raw, err));
        moe_hash_add64(w->data_hash, w->raw, n);
        MOE_TRY(put(w, w->raw, n, err));
    }
    return check(w, t, true, false, err);
}

static enum moe_code write_decoded(struct writer *w, const struct moe_tensor *t, struct moe_err *err)
{
    char name[128];

    begin(w);
    MOE_FOR_CHUNKS(t, r0, n) {
        float amax;
        MOE_TRY(read_values(w, t, r0, n, &amax, err));
        if (!isfinite(moe_bf16_to_f32(moe_f32_to_bf16(amax))))
            return moe_fail_at(err, MOE_NONFINITE, w->p->src->path,
                               moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                               "the value %g is too large for bf16", (double)amax);
        for (int64_t i = 0; i < n * t->cols; i++) {
            uint16_t b = moe_f32_to_bf16(w->x[i]);
            w->out[2 * i] = (unsigned char)b;
            w->out[2 * i + 1] = (unsigned char)(b >> 8);
        }
        MOE_TRY(put(w, w->out, (size_t)(2 * n * t->cols), err));
    }
    return check(w, t, true, true, err);
}

/* Writes block scales row by row, as a checkpoint has them; the container has them in tiles of 128 rows. */
static enum moe_code write_scales(struct writer *w, const struct moe_tensor *t, struct moe_err *err)
{
    begin(w);
    MOE_FOR_CHUNKS(t, r0, n) {
        MOE_TRY(read_rows(w, t, MOE_PLANE_SCALE, r0, n, w->scale, err));
        moe_scales_from_tile(w->scale, 0, n, t->cols / 16, w->out);
        MOE_TRY(put(w, w->out, (size_t)(n * t->cols / 16), err));
    }
    return check(w, t, false, true, err);
}

static void add_error(struct writer *w, const struct moe_tensor *t, int64_t n, float global,
                      const unsigned char *scales)
{
    struct moe_weight q = { .type = MOE_NVFP4,
                            .layout = MOE_LAYOUT_LINEAR,
                            .rows = n,
                            .cols = t->cols,
                            .data = w->out,
                            .scale = scales,
                            .global = global };
    for (int64_t r = 0; r < n; r++) {
        w->k->dequantize(&q, r, 0, t->cols, w->y);
        w->k->sqerr(w->x + r * t->cols, w->y, t->cols, &w->num, &w->den);
    }
}

/* Quantizes the weight's values again under its partner's larger global scale, and writes the codes or the
 * block scales.  The search finds the same values where they can be represented, for example when the ratio
 * of the two global scales is a power of two and no block scale gets too small. */
static enum moe_code write_reencoded(struct writer *w, const struct moe_tensor *t, bool codes,
                                     struct moe_err *err)
{
    float global = moe_hf_multiplier(moe_hf_global_owner(w->p->src, t));
    unsigned char *scales = w->out + (size_t)(moe_chunk_rows(t) * t->cols / 2);
    begin(w);
    MOE_FOR_CHUNKS(t, r0, n) {
        float amax;
        MOE_TRY(read_values(w, t, r0, n, &amax, err));
        w->k->nvfp4_quantize(MOE_NVFP4_SEARCH, w->x, n * t->cols, global, w->out, scales);
        if (codes) add_error(w, t, n, global, scales);
        MOE_TRY(put(w, codes ? w->out : scales, (size_t)(n * t->cols / (codes ? 2 : 16)), err));
    }
    return check(w, t, true, true, err);
}

static enum moe_code write_scalar(struct writer *w, float v, struct moe_err *err)
{
    uint32_t u = moe_f32_bits(v);
    unsigned char b[4] = { (unsigned char)u, (unsigned char)(u >> 8), (unsigned char)(u >> 16),
                           (unsigned char)(u >> 24) };
    return put(w, b, sizeof b, err);
}

static enum moe_code write_entry(struct writer *w, const struct moe_hf_entry *e, struct moe_err *err)
{
    const struct moe_tensor *t = &w->p->src->tensors[e->tensor];
    bool again = moe_hf_multiplier(moe_hf_global_owner(w->p->src, t)) != moe_hf_multiplier(t);
    switch ((enum moe_hf_part)e->part) {
    case MOE_HF_PLAIN: return write_plain(w, t, err);
    case MOE_HF_DECODED: return write_decoded(w, t, err);
    case MOE_HF_CODES: return again ? write_reencoded(w, t, true, err) : write_plain(w, t, err);
    case MOE_HF_SCALES: return again ? write_reencoded(w, t, false, err) : write_scales(w, t, err);
    case MOE_HF_GLOBAL: return write_scalar(w, moe_hf_global(w->p, t), err);
    default: return write_scalar(w, moe_hf_input_scale(w->p, t), err);
    }
}

/* ---- one file ---- */

static enum moe_code write_items(struct writer *w, const char *path, struct moe_hf_items *items,
                                 struct moe_err *err)
{
    MOE_TRY(moe_st_create(&w->st, path, items->header, items->n, err));
    enum moe_code code = MOE_OK;
    for (int64_t i = 0; code == MOE_OK && i < items->n; i++) {
        code = write_entry(w, &items->v[i].e, err);
        if (code == MOE_OK) code = moe_cancel_check_resumable(w->p->cancel, err);
        moe_progress_add(w->progress, moe_hf_entry_bytes(w->p, &items->v[i].e));
    }
    if (code == MOE_OK) return moe_st_finish(&w->st, err);
    moe_st_abort(&w->st);
    return code;
}

static enum moe_code write_shard(struct writer *w, const char *dir, int64_t shard, struct moe_err *err)
{
    char path[PATH_MAX], name[MOE_ST_NAME_BYTES];
    struct moe_hf_items items;
    MOE_TRY(moe_path_join(path, sizeof path, dir, moe_hf_shard_name(w->p, shard, name), err));
    MOE_TRY(moe_hf_items_open(&items, w->p, shard, err));
    enum moe_code code = write_items(w, path, &items, err);
    moe_hf_items_release(&items);
    return code;
}

/* ---- files that hold most of their values already ---- */

/* MOE_INTERNAL when a weight that is in the files already would have to be quantized again: hf-layout.c must
 * not have put it there. */
static enum moe_code check_filled(struct writer *w, const struct moe_hf_entry *e, struct moe_err *err)
{
    char name[128];
    const struct moe_tensor *t = &w->p->src->tensors[e->tensor];
    if (moe_hf_multiplier(moe_hf_global_owner(w->p->src, t)) == moe_hf_multiplier(t)) return MOE_OK;
    return moe_fail_at(err, MOE_INTERNAL, w->p->src->path,
                       moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                       "it was written under another global scale than the weight that engines fuse it with");
}

static enum moe_code fill_entry(struct writer *w, const struct moe_hf_layout *layout,
                                const struct moe_hf_entry *e, uint64_t at, struct moe_err *err)
{
    bool weight = e->part < MOE_HF_GLOBAL;
    if (weight && moe_hf_layout_holds(layout, e->tensor, MOE_PLANE_DATA)) return check_filled(w, e, err);
    w->at = at;
    MOE_TRY(write_entry(w, e, err));
    if (weight) moe_progress_add(w->progress, moe_hf_entry_bytes(w->p, e));
    return moe_cancel_check_resumable(w->p->cancel, err);
}

static enum moe_code fill_shard(struct writer *w, const struct moe_hf_layout *layout, int64_t shard,
                                struct moe_err *err)
{
    struct moe_hf_items items;
    char *head;
    size_t bytes;
    uint64_t all;

    MOE_TRY(moe_hf_items_open(&items, w->p, shard, err));
    enum moe_code code = moe_st_head(items.header, items.n, MOE_ST_SINGLE, &head, &bytes, &all, err);
    if (code == MOE_OK) {
        w->shard = shard;
        code = moe_hf_files_check(w->files, shard, head, bytes, all, err);
        for (int64_t i = 0; code == MOE_OK && i < items.n; i++)
            code = fill_entry(w, layout, &items.v[i].e, items.header[i].offset, err);
        free(head);
    }
    if (code == MOE_OK) code = moe_hf_files_sync(w->files, shard, err);
    moe_hf_items_release(&items);
    return code;
}

/* ---- all of it ---- */

struct sizes { size_t raw, scale, out, x, y; };

static void at_least(size_t *a, int64_t b) { if (b > 0 && (size_t)b > *a) *a = (size_t)b; }

/* The sizes of the buffers: each holds the largest chunk of any tensor. */
static struct sizes measure(const struct moe_source *src)
{
    struct sizes s = { .raw = PIECE };
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        int64_t n = moe_chunk_rows(t);
        if (moe_dtype_plain(t->type)) continue;
        at_least(&s.raw, moe_plane_bytes(t->type, t->layout, MOE_PLANE_DATA, n, t->cols));
        at_least(&s.scale, moe_plane_bytes(t->type, t->layout, MOE_PLANE_SCALE, n, t->cols));
        at_least(&s.out, n * t->cols * 2);
        at_least(&s.x, n * t->cols * 4);
        at_least(&s.y, t->cols * 4);
    }
    return s;
}

uint64_t moe_hf_write_memory(const struct moe_source *src)
{
    struct sizes s = measure(src);
    return s.raw + s.scale + s.out + s.x + s.y;
}

static enum moe_code start(struct writer *w, struct moe_err *err)
{
    struct sizes s = measure(w->p->src);
    w->raw = malloc(s.raw);
    w->scale = malloc(s.scale);
    w->out = malloc(s.out);
    w->x = malloc(s.x);
    w->y = malloc(s.y);
    w->data_hash = moe_hash_new();
    w->scale_hash = moe_hash_new();
    if (w->raw && w->scale && w->out && w->x && w->y && w->data_hash && w->scale_hash) return MOE_OK;
    return moe_fail(err, MOE_NOMEM, "no memory for a buffer");
}

static void stop(struct writer *w)
{
    free(w->raw);
    free(w->scale);
    free(w->out);
    free(w->x);
    free(w->y);
    moe_hash_free(w->data_hash);
    moe_hash_free(w->scale_hash);
}

enum moe_code moe_hf_write_shards(const struct moe_hf_plan *p, const struct moe_hf_layout *layout,
                                  const char *dir, struct moe_progress *progress, struct moe_hf_result *r,
                                  struct moe_err *err)
{
    struct writer w = { .p = p, .k = moe_kernels(), .progress = progress,
                        .files = layout ? moe_hf_layout_files(layout) : NULL };
    enum moe_code code = start(&w, err);
    for (int64_t s = 0; code == MOE_OK && s < p->n_shards; s++)
        code = layout ? fill_shard(&w, layout, s, err) : write_shard(&w, dir, s, err);
    if (code == MOE_OK) code = moe_hf_write_index(p, dir, err);
    r->relative_error = w.den > 0 ? sqrt(w.num / w.den) : 0;
    stop(&w);
    return code;
}
