/* SPDX-License-Identifier: Apache-2.0 */
/* One tensor streamed from a source into a shard, by chunks and blocks of rows. */
#include "model/rewrite/emit.h"

#include "base/hash.h"
#include "base/io.h"
#include "kernels/kernels.h"
#include "kernels/many.h"
#include "kernels/scalar.h"
#include "model/chunk.h"
#include "model/rewrite/rewrite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A chunk of rows (model/chunk.h) is processed in blocks of rows, small enough that a block in all its forms
 * fits into a core's second-level cache. */
enum { BLOCK_VALUES = 1 << 16 };

enum { HASH_SRC_DATA, HASH_SRC_SCALE, HASH_OUT_DATA, HASH_OUT_SCALE, HASHES };

struct moe_emit {
    const struct moe_source *src;
    const struct moe_kernels *k;
    struct moe_hash *hash[HASHES];
    uint8_t *raw, *scale;            /* the chunk as the source stores it */
    float *x, *row;                  /* the values of a block; a row of what is written, decoded */
    uint8_t *data, *linear, *tile;   /* the chunk as it is written (F32 and BF16: a block of it) */
    void *memory;                    /* the memory of all these buffers */
    double mark, seconds[MOE_EMIT_PHASES];
};

/* Counts the time since the last mark for this phase. */
static void spent(struct moe_emit *e, enum moe_emit_phase phase)
{
    double now = moe_now();
    e->seconds[phase] += now - e->mark;
    e->mark = now;
}

static int64_t block_rows(const struct moe_tensor *t)
{
    int64_t n = BLOCK_VALUES / t->cols, chunk = moe_chunk_rows(t);
    return n < 1 ? 1 : n < chunk ? n : chunk;
}

struct sizes { size_t raw, scale, x, row, data, linear, tile; };

static size_t up(size_t n) { return (n + 63) / 64 * 64; }
static void at_least(size_t *a, int64_t b) { if (b > 0 && up((size_t)b) > *a) *a = up((size_t)b); }

/* The sizes of the buffers: each holds the largest chunk or block of any tensor. */
static struct sizes measure(const struct moe_source *src)
{
    struct sizes s = { 0 };

    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        int64_t n = moe_chunk_rows(t), block = block_rows(t) * t->cols;
        at_least(&s.raw, moe_plane_bytes(t->type, t->layout, MOE_PLANE_DATA, n, t->cols));
        at_least(&s.scale, moe_plane_bytes(t->type, t->layout, MOE_PLANE_SCALE, n, t->cols));
        at_least(&s.x, block * 4);
        at_least(&s.row, t->cols * 4);
        at_least(&s.data, block * 4);
        if (t->cols % 16) continue;
        at_least(&s.data, moe_plane_bytes(MOE_NVFP4, 0, MOE_PLANE_DATA, n, t->cols));
        at_least(&s.linear, moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_LINEAR, MOE_PLANE_SCALE, n, t->cols));
        at_least(&s.tile, moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, n, t->cols));
    }
    return s;
}

static size_t total(const struct sizes *s)
{
    return s->raw + s->scale + s->x + s->row + s->data + s->linear + s->tile;
}

uint64_t moe_emit_estimate(const struct moe_source *src)
{
    struct sizes s = measure(src);
    return total(&s) + HASHES * 1024;
}

enum moe_code moe_emit_open(struct moe_emit **out, const struct moe_source *src, struct moe_err *err)
{
    struct sizes s = measure(src);
    struct moe_emit *e = calloc(1, sizeof *e);
    uint8_t *p = e ? aligned_alloc(64, up(total(&s) + 64)) : NULL;

    *out = NULL;
    if (!p) {
        free(e);
        return moe_fail(err, MOE_NOMEM, "no memory for a worker's buffers (%zu bytes; try fewer --threads)",
                        total(&s));
    }
    e->src = src;
    e->k = moe_kernels();
    e->memory = p;
    e->raw = p;                     p += s.raw;
    e->scale = p;                   p += s.scale;
    e->x = (float *)(void *)p;      p += s.x;
    e->row = (float *)(void *)p;    p += s.row;
    e->data = p;                    p += s.data;
    e->linear = p;                  p += s.linear;
    e->tile = p;
    for (int i = 0; i < HASHES; i++)
        if (!(e->hash[i] = moe_hash_new())) {
            moe_emit_close(&e);
            return moe_fail(err, MOE_NOMEM, "no memory for a hash");
        }
    *out = e;
    return MOE_OK;
}

void moe_emit_close(struct moe_emit **pe)
{
    struct moe_emit *e = *pe;
    if (!e) return;
    for (int i = 0; i < HASHES; i++) moe_hash_free(e->hash[i]);
    free(e->memory);
    free(e);
    *pe = NULL;
}

/* The offset of row r0 in a plane.  r0 begins a stripe, so this is the size of a plane of r0 rows. */
static uint64_t plane_offset(const struct moe_tensor *t, int type, int layout, int plane, int64_t r0)
{
    return r0 ? (uint64_t)moe_plane_bytes(type, layout, plane, r0, t->cols) : 0;
}

/* Begins the chunk of rows [r0, r0+n): reads its scales, and describes it as a weight of n rows whose
 * data come block by block. */
static enum moe_code load_chunk(struct moe_emit *e, const struct moe_tensor *t, int64_t r0, int64_t n,
                                bool hash, struct moe_weight *w, struct moe_err *err)
{
    *w = (struct moe_weight){ .type = t->type,
                              .layout = t->layout,
                              .reciprocal = t->reciprocal,
                              .rows = n,
                              .cols = t->cols,
                              .data = e->raw,
                              .scale = e->scale,
                              .global = t->global,
                              .input_scale = t->input_scale };
    int64_t bytes = moe_plane_bytes(t->type, t->layout, MOE_PLANE_SCALE, n, t->cols);
    if (!bytes) return MOE_OK;
    uint64_t at = plane_offset(t, t->type, t->layout, MOE_PLANE_SCALE, r0);
    MOE_TRY(moe_source_read(e->src, t, MOE_PLANE_SCALE, at, (size_t)bytes, e->scale, err));
    spent(e, MOE_EMIT_READ);
    if (hash) moe_hash_add64(e->hash[HASH_SRC_SCALE], e->scale, (size_t)bytes);
    spent(e, MOE_EMIT_HASH);
    return MOE_OK;
}

/* Reads rows [b, b+m) of the chunk that begins at row r0 to their place in e->raw. */
static enum moe_code read_block(struct moe_emit *e, const struct moe_tensor *t, int64_t r0, int64_t b,
                                int64_t m, bool hash, struct moe_err *err)
{
    uint64_t at = plane_offset(t, t->type, t->layout, MOE_PLANE_DATA, b);
    size_t bytes = (size_t)moe_plane_bytes(t->type, t->layout, MOE_PLANE_DATA, m, t->cols);
    uint64_t from = plane_offset(t, t->type, t->layout, MOE_PLANE_DATA, r0) + at;
    MOE_TRY(moe_source_read(e->src, t, MOE_PLANE_DATA, from, bytes, e->raw + at, err));
    spent(e, MOE_EMIT_READ);
    if (hash) moe_hash_add64(e->hash[HASH_SRC_DATA], e->raw + at, bytes);
    spent(e, MOE_EMIT_HASH);
    return MOE_OK;
}

/* Decodes rows [b, b+m) of the chunk `w` to e->x. */
static void decode_block(struct moe_emit *e, const struct moe_weight *w, int64_t b, int64_t m)
{
    moe_dequantize_many(w, b, b + m, e->x);
    spent(e, MOE_EMIT_DECODE);
}

/* MOE_NONFINITE for the first such value in e->x, which holds n rows from row r0 on. */
static enum moe_code nonfinite(const struct moe_emit *e, const struct moe_tensor *t, int64_t r0, int64_t n,
                               struct moe_err *err)
{
    char name[128];
    int64_t i = 0;
    while (i < n * t->cols - 1 && isfinite(e->x[i])) i++;
    return moe_fail_at(err, MOE_NONFINITE, e->src->files[t->plane[0].file].name,
                       moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                       "the value at row %lld, column %lld is %s (the checkpoint is damaged; fetch it again)",
                       (long long)(r0 + i / t->cols), (long long)(i % t->cols),
                       isnan(e->x[i]) ? "NaN" : "Inf");
}

/* Reads and hashes a block, finds its largest magnitude, and refuses NaN and Inf.  A block of BF16 is not
 * decoded for this; any other is then decoded in e->x. */
static enum moe_code load_checked(struct moe_emit *e, const struct moe_tensor *t, const struct moe_weight *w,
                                  int64_t r0, int64_t b, int64_t m, float *amax, struct moe_err *err)
{
    MOE_TRY(read_block(e, t, r0, b, m, true, err));
    if (t->type == MOE_BF16) {
        *amax = e->k->amax_bf16(w->data + 2 * b * t->cols, m * t->cols);
    } else {
        decode_block(e, w, b, m);
        *amax = e->k->amax(e->x, m * t->cols);
    }
    spent(e, MOE_EMIT_DECODE);
    if (isfinite(*amax)) return MOE_OK;
    decode_block(e, w, b, m);
    return nonfinite(e, t, r0 + b, m, err);
}

/* Resets the hashes and the clock for another tensor. */
static void begin(struct moe_emit *e)
{
    for (int i = 0; i < HASHES; i++) moe_hash_reset64(e->hash[i]);
    e->mark = moe_now();
}

/* MOE_CORRUPT when a container's plane does not match its hash, so that damaged bytes are not written again
 * under a new hash that matches them. */
static enum moe_code check_hashes(const struct moe_emit *e, const struct moe_tensor *t,
                                  const struct moe_emitted *d, struct moe_err *err)
{
    char name[128];
    for (int p = 0; p < MOE_PLANE_COUNT && e->src->kind == MOE_CONTAINER; p++)
        if (t->plane[p].file >= 0 && d->source_hash[p] != t->hash[p])
            return moe_fail_at(err, MOE_CORRUPT, e->src->files[t->plane[p].file].path,
                               moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                               "the %s plane does not match its checksum (copy the file again)",
                               moe_plane_word(p));
    return MOE_OK;
}

static void drop(const struct moe_emit *e, const struct moe_tensor *t)
{
    for (int p = 0; p < MOE_PLANE_COUNT; p++)
        if (t->plane[p].file >= 0) moe_source_drop(e->src, &t->plane[p]);
}

/* Completes and checks the hashes of the source's planes, including those of its two scalars.  last: the
 * tensor is not read again, so its pages are dropped from the page cache. */
static enum moe_code end_source(struct moe_emit *e, const struct moe_tensor *t, struct moe_emitted *d,
                                bool last, struct moe_err *err)
{
    d->source_hash[MOE_PLANE_DATA] = moe_hash_get64(e->hash[HASH_SRC_DATA]);
    d->source_hash[MOE_PLANE_SCALE] = moe_hash_get64(e->hash[HASH_SRC_SCALE]);
    for (int p = MOE_PLANE_GLOBAL; p <= MOE_PLANE_INPUT; p++) {
        uint8_t b[4];
        if (t->plane[p].file < 0 || t->plane[p].bytes != sizeof b) continue;
        MOE_TRY(moe_source_read(e->src, t, p, 0, sizeof b, b, err));
        d->source_hash[p] = moe_hash64(b, sizeof b);
    }
    if (last) drop(e, t);
    return check_hashes(e, t, d, err);
}

static enum moe_code write_plane(struct moe_emit *e, struct moe_shard_writer *w, int64_t at, int plane,
                                 uint64_t offset, const void *data, int64_t bytes, struct moe_err *err)
{
    MOE_TRY(moe_shard_write(w, at, plane, offset, data, (size_t)bytes, err));
    spent(e, MOE_EMIT_WRITE);
    return MOE_OK;
}

static void hash_out(struct moe_emit *e, int plane, const void *data, int64_t bytes)
{
    moe_hash_add64(e->hash[plane == MOE_PLANE_DATA ? HASH_OUT_DATA : HASH_OUT_SCALE], data, (size_t)bytes);
    spent(e, MOE_EMIT_HASH);
}

static enum moe_code put_scalar(struct moe_shard_writer *w, int64_t at, int plane, float v,
                                struct moe_err *err)
{
    uint32_t u = moe_f32_bits(v);
    uint8_t b[4] = { (uint8_t)u, (uint8_t)(u >> 8), (uint8_t)(u >> 16), (uint8_t)(u >> 24) };
    moe_shard_set_hash(w, at, plane, moe_hash64(b, sizeof b));
    return moe_shard_write(w, at, plane, 0, b, sizeof b, err);
}

/* Writes the linear scales of rows [r0, r0+n) in tile order. */
static enum moe_code put_scales(struct moe_emit *e, const struct moe_tensor *t, int64_t r0, int64_t n,
                                const uint8_t *linear, struct moe_shard_writer *w, int64_t at,
                                struct moe_err *err)
{
    int64_t bytes = moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, n, t->cols);
    moe_scales_to_tile(linear, n, t->cols / 16, e->tile);
    spent(e, MOE_EMIT_QUANTIZE);
    hash_out(e, MOE_PLANE_SCALE, e->tile, bytes);
    return write_plane(e, w, at, MOE_PLANE_SCALE,
                       plane_offset(t, MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, r0), e->tile, bytes,
                       err);
}

/* Sets a plane's hash to one of e->hash: that of the bytes written, or that of the source's where they are
 * the same. */
static void set_hash(struct moe_emit *e, struct moe_shard_writer *w, int64_t at, int plane, int from)
{
    moe_shard_set_hash(w, at, plane, moe_hash_get64(e->hash[from]));
}

enum moe_code moe_emit_amax(struct moe_emit *e, const struct moe_tensor *in, float *amax,
                            struct moe_emitted *d, struct moe_err *err)
{
    *amax = 0;
    begin(e);
    MOE_FOR_CHUNKS(in, r0, n) {
        struct moe_weight w;
        MOE_TRY(load_chunk(e, in, r0, n, true, &w, err));
        MOE_FOR_ROWS(n, block_rows(in), b, m) {
            float a;
            MOE_TRY(load_checked(e, in, &w, r0, b, m, &a, err));
            if (a > *amax) *amax = a;
        }
    }
    return end_source(e, in, d, false, err);
}

/* Adds to *d the error of rows [b, b+m) of `w`, as they are written, against the values in e->x. */
static void add_error(struct moe_emit *e, const struct moe_weight *w, int64_t b, int64_t m,
                      struct moe_emitted *d)
{
    for (int64_t r = 0; r < m; r++) {
        e->k->dequantize(w, b + r, 0, w->cols, e->row);
        e->k->sqerr(e->x + r * w->cols, e->row, w->cols, &d->num, &d->den);
    }
    spent(e, MOE_EMIT_ERROR);
}

/* Quantizes the chunk of n rows from r0 into e->data and e->linear. */
static enum moe_code quantize_chunk(struct moe_emit *e, const struct moe_tensor *in,
                                    enum moe_nvfp4_method method, float global, int64_t r0, int64_t n,
                                    struct moe_emitted *d, struct moe_err *err)
{
    struct moe_weight q = { .type = MOE_NVFP4,
                            .layout = MOE_LAYOUT_LINEAR,
                            .rows = n,
                            .cols = in->cols,
                            .data = e->data,
                            .scale = e->linear,
                            .global = global };
    struct moe_weight s;

    MOE_TRY(load_chunk(e, in, r0, n, false, &s, err));
    MOE_FOR_ROWS(n, block_rows(in), b, m) {
        MOE_TRY(read_block(e, in, r0, b, m, false, err));
        decode_block(e, &s, b, m);
        uint8_t *codes = e->data + b * in->cols / 2, *scales = e->linear + b * in->cols / 16;
        if (in->type == MOE_BF16)
            e->k->nvfp4_quantize_bf16(method, s.data + 2 * b * in->cols, m * in->cols, global, codes, scales);
        else e->k->nvfp4_quantize(method, e->x, m * in->cols, global, codes, scales);
        spent(e, MOE_EMIT_QUANTIZE);
        add_error(e, &q, b, m, d);
        hash_out(e, MOE_PLANE_DATA, codes, m * in->cols / 2);
    }
    return MOE_OK;
}

enum moe_code moe_emit_nvfp4(struct moe_emit *e, const struct moe_tensor *in, enum moe_nvfp4_method method,
                             float global, float input_scale, struct moe_shard_writer *w, int64_t at,
                             struct moe_emitted *d, struct moe_err *err)
{
    d->num = d->den = 0;
    begin(e);
    MOE_FOR_CHUNKS(in, r0, n) {
        MOE_TRY(quantize_chunk(e, in, method, global, r0, n, d, err));
        MOE_TRY(write_plane(e, w, at, MOE_PLANE_DATA, plane_offset(in, MOE_NVFP4, 0, MOE_PLANE_DATA, r0),
                            e->data, n * in->cols / 2, err));
        MOE_TRY(put_scales(e, in, r0, n, e->linear, w, at, err));
    }
    drop(e, in);
    set_hash(e, w, at, MOE_PLANE_DATA, HASH_OUT_DATA);
    set_hash(e, w, at, MOE_PLANE_SCALE, HASH_OUT_SCALE);
    MOE_TRY(put_scalar(w, at, MOE_PLANE_GLOBAL, global, err));
    return put_scalar(w, at, MOE_PLANE_INPUT, input_scale, err);
}

enum moe_code moe_emit_chosen(struct moe_emit *e, const struct moe_tensor *in,
                              const struct moe_chosen_codes *c, struct moe_shard_writer *w, int64_t at,
                              struct moe_emitted *d, struct moe_err *err)
{
    d->num = c->num, d->den = c->den;
    begin(e);
    MOE_FOR_CHUNKS(in, r0, n) {
        const uint8_t *codes = c->codes + r0 * in->cols / 2;
        hash_out(e, MOE_PLANE_DATA, codes, n * in->cols / 2);
        MOE_TRY(write_plane(e, w, at, MOE_PLANE_DATA, plane_offset(in, MOE_NVFP4, 0, MOE_PLANE_DATA, r0),
                            codes, n * in->cols / 2, err));
        MOE_TRY(put_scales(e, in, r0, n, c->scales + r0 * in->cols / 16, w, at, err));
    }
    drop(e, in);
    set_hash(e, w, at, MOE_PLANE_DATA, HASH_OUT_DATA);
    set_hash(e, w, at, MOE_PLANE_SCALE, HASH_OUT_SCALE);
    return put_scalar(w, at, MOE_PLANE_GLOBAL, c->global, err);
}

enum moe_code moe_emit_input(struct moe_shard_writer *w, int64_t at, float input_scale, struct moe_err *err)
{
    return put_scalar(w, at, MOE_PLANE_INPUT, input_scale, err);
}

enum moe_code moe_emit_copy(struct moe_emit *e, const struct moe_tensor *in, struct moe_shard_writer *w,
                            int64_t at, struct moe_emitted *d, struct moe_err *err)
{
    bool retile = in->type == MOE_NVFP4 && in->layout == MOE_LAYOUT_LINEAR;

    begin(e);
    MOE_FOR_CHUNKS(in, r0, n) {
        struct moe_weight s;
        float a;
        MOE_TRY(load_chunk(e, in, r0, n, true, &s, err));
        MOE_FOR_ROWS(n, block_rows(in), b, m) MOE_TRY(load_checked(e, in, &s, r0, b, m, &a, err));
        for (int p = MOE_PLANE_DATA; p <= MOE_PLANE_SCALE; p++) {
            int64_t bytes = moe_plane_bytes(in->type, in->layout, p, n, in->cols);
            if (!bytes) continue;
            if (p == MOE_PLANE_SCALE && retile) MOE_TRY(put_scales(e, in, r0, n, e->scale, w, at, err));
            else
                MOE_TRY(write_plane(e, w, at, p, plane_offset(in, in->type, in->layout, p, r0),
                                    p ? e->scale : e->raw, bytes, err));
        }
    }
    set_hash(e, w, at, MOE_PLANE_DATA, HASH_SRC_DATA);
    if (moe_plane_bytes(in->type, in->layout, MOE_PLANE_SCALE, in->rows, in->cols))
        set_hash(e, w, at, MOE_PLANE_SCALE, retile ? HASH_OUT_SCALE : HASH_SRC_SCALE);
    if (in->type == MOE_NVFP4) {
        MOE_TRY(put_scalar(w, at, MOE_PLANE_GLOBAL, in->global, err));
        MOE_TRY(put_scalar(w, at, MOE_PLANE_INPUT,
                           in->plane[MOE_PLANE_INPUT].file >= 0 ? in->input_scale : 1.0f, err));
    }
    return end_source(e, in, d, true, err);
}

static void to_bf16(const float *x, int64_t n, uint8_t *out)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t b = moe_f32_to_bf16(x[i]);
        out[2 * i] = (uint8_t)b;
        out[2 * i + 1] = (uint8_t)(b >> 8);
    }
}

/* Writes rows [b, b+m) of the tensor, whose values are in e->x, as `type`. */
static enum moe_code put_decoded(struct moe_emit *e, const struct moe_tensor *in, int type, int64_t b,
                                 int64_t m, struct moe_shard_writer *w, int64_t at, struct moe_emitted *d,
                                 struct moe_err *err)
{
    int64_t bytes = moe_plane_bytes(type, 0, MOE_PLANE_DATA, m, in->cols);
    struct moe_weight q = { .type = (uint8_t)type, .rows = m, .cols = in->cols, .data = e->data };
    if (type == MOE_BF16) to_bf16(e->x, m * in->cols, e->data);
    else memcpy(e->data, e->x, (size_t)bytes);
    spent(e, MOE_EMIT_QUANTIZE);
    add_error(e, &q, 0, m, d);
    hash_out(e, MOE_PLANE_DATA, e->data, bytes);
    return write_plane(e, w, at, MOE_PLANE_DATA, plane_offset(in, type, 0, MOE_PLANE_DATA, b), e->data, bytes,
                       err);
}

enum moe_code moe_emit_decoded(struct moe_emit *e, const struct moe_tensor *in, int type,
                               struct moe_shard_writer *w, int64_t at, struct moe_emitted *d,
                               struct moe_err *err)
{
    d->num = d->den = 0;
    begin(e);
    MOE_FOR_CHUNKS(in, r0, n) {
        struct moe_weight s;
        float a;
        MOE_TRY(load_chunk(e, in, r0, n, true, &s, err));
        MOE_FOR_ROWS(n, block_rows(in), b, m) {
            MOE_TRY(load_checked(e, in, &s, r0, b, m, &a, err));
            if (in->type == MOE_BF16) decode_block(e, &s, b, m);
            MOE_TRY(put_decoded(e, in, type, r0 + b, m, w, at, d, err));
        }
    }
    set_hash(e, w, at, MOE_PLANE_DATA, HASH_OUT_DATA);
    return end_source(e, in, d, true, err);
}

const double *moe_emit_seconds(const struct moe_emit *e) { return e->seconds; }
