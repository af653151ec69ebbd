#include "model/emit.h"

#include "base/hash.h"
#include "kernels/kernels.h"
#include "kernels/scalar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows come in chunks that start at a multiple of 128: FP8 scale blocks and scale tiles then never straddle two chunks. */
enum { STRIPE = 128, CHUNK_VALUES = 1 << 20 };

enum { HASH_SRC_DATA, HASH_SRC_SCALE, HASH_OUT_DATA, HASH_OUT_SCALE, HASHES };

struct moe_emit {
    const struct moe_source *src;
    const struct moe_kernels *k;
    struct moe_hash *hash[HASHES];
    uint8_t *raw, *scale;            /* the chunk as the source stores it */
    float *x, *row;                  /* decoded chunk; one row decoded back */
    uint8_t *data, *linear, *tile;   /* the chunk as it is written */
    void *block;                     /* all of the above */
};

static int64_t chunk_rows(const struct moe_tensor *t)
{
    int64_t n = CHUNK_VALUES / t->cols / STRIPE * STRIPE;
    if (n < STRIPE) n = STRIPE;
    return n < t->rows ? n : t->rows;
}

struct sizes { size_t raw, scale, x, row, data, linear, tile; };

static size_t up(size_t n) { return (n + 63) / 64 * 64; }
static void at_least(size_t *a, int64_t b) { if (b > 0 && up((size_t)b) > *a) *a = up((size_t)b); }

/* The largest chunk of any tensor, in every form it can take. */
static struct sizes measure(const struct moe_source *src)
{
    struct sizes s = { 0 };
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        int64_t n = chunk_rows(t);
        at_least(&s.raw, moe_plane_bytes(t->type, t->layout, MOE_PLANE_DATA, n, t->cols));
        at_least(&s.scale, moe_plane_bytes(t->type, t->layout, MOE_PLANE_SCALE, n, t->cols));
        at_least(&s.x, n * t->cols * 4);
        at_least(&s.row, t->cols * 4);
        at_least(&s.data, moe_plane_bytes(MOE_F32, 0, MOE_PLANE_DATA, n, t->cols));
        if (t->cols % 16) continue;
        at_least(&s.linear, moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_LINEAR, MOE_PLANE_SCALE, n, t->cols));
        at_least(&s.tile, moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, n, t->cols));
    }
    return s;
}

static size_t total(const struct sizes *s) { return s->raw + s->scale + s->x + s->row + s->data + s->linear + s->tile; }

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
        return moe_fail(err, MOE_NOMEM, "no memory for a worker's buffers (%zu bytes; try fewer --threads)", total(&s));
    }
    e->src = src;
    e->k = moe_kernels();
    e->block = p;
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
    free(e->block);
    free(e);
    *pe = NULL;
}

/* Where rows [r0, r0+n) lie in a plane: planes are made of whole stripes, so this is the size of what comes before. */
static uint64_t plane_offset(const struct moe_tensor *t, int type, int layout, int plane, int64_t r0)
{
    return r0 ? (uint64_t)moe_plane_bytes(type, layout, plane, r0, t->cols) : 0;
}

/* Read rows [r0, r0+n) into e->raw and e->scale, add them to the source hashes, and describe them as a weight of n rows. */
static enum moe_code load(struct moe_emit *e, const struct moe_tensor *t, int64_t r0, int64_t n, struct moe_weight *w,
                          struct moe_err *err)
{
    *w = (struct moe_weight){ .type = t->type, .layout = t->layout, .reciprocal = t->reciprocal, .rows = n, .cols = t->cols,
                              .data = e->raw, .scale = e->scale, .global = t->global, .input_scale = t->input_scale };
    for (int p = MOE_PLANE_DATA; p <= MOE_PLANE_SCALE; p++) {
        int64_t bytes = moe_plane_bytes(t->type, t->layout, p, n, t->cols);
        uint8_t *to = p == MOE_PLANE_DATA ? e->raw : e->scale;
        if (!bytes) continue;
        MOE_TRY(moe_source_read(e->src, t, p, plane_offset(t, t->type, t->layout, p, r0), (size_t)bytes, to, err));
        moe_hash_add64(e->hash[p == MOE_PLANE_DATA ? HASH_SRC_DATA : HASH_SRC_SCALE], to, (size_t)bytes);
    }
    return MOE_OK;
}

static enum moe_code nonfinite(const struct moe_emit *e, const struct moe_tensor *t, int64_t r0, int64_t n, struct moe_err *err)
{
    char name[128];
    int64_t i = 0;
    while (i < n * t->cols - 1 && isfinite(e->x[i])) i++;
    return moe_fail_at(err, MOE_NONFINITE, e->src->files[t->plane[0].file].name,
                       moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                       "the value at row %lld, column %lld is %s (the checkpoint is damaged; fetch it again)",
                       (long long)(r0 + i / t->cols), (long long)(i % t->cols), isnan(e->x[i]) ? "NaN" : "Inf");
}

/* Load and decode rows into e->x; *amax gets their largest magnitude. */
static enum moe_code load_values(struct moe_emit *e, const struct moe_tensor *t, int64_t r0, int64_t n, struct moe_weight *w,
                                 float *amax, struct moe_err *err)
{
    MOE_TRY(load(e, t, r0, n, w, err));
    for (int64_t r = 0; r < n; r++) e->k->decode(w, r, 0, t->cols, e->x + r * t->cols);
    *amax = e->k->amax(e->x, n * t->cols);
    return isfinite(*amax) ? MOE_OK : nonfinite(e, t, r0, n, err);
}

static void begin(struct moe_emit *e)
{
    for (int i = 0; i < HASHES; i++) moe_hash_reset64(e->hash[i]);
}

/* A container says what each plane's hash is: damage must not be written again under a hash of its own. */
static enum moe_code check_hashes(const struct moe_emit *e, const struct moe_tensor *t, const struct moe_emitted *d, struct moe_err *err)
{
    char name[128];
    for (int p = 0; p < MOE_PLANE_COUNT && e->src->kind == MOE_CONTAINER; p++)
        if (t->plane[p].file >= 0 && d->source_hash[p] != t->hash[p])
            return moe_fail_at(err, MOE_CORRUPT, e->src->files[t->plane[p].file].path,
                               moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                               "the %s plane does not match its checksum (copy the file again)", moe_plane_word(p));
    return MOE_OK;
}

/* The last of the source's hashes, its two scalars; and what they must be. */
static enum moe_code end_source(struct moe_emit *e, const struct moe_tensor *t, struct moe_emitted *d, struct moe_err *err)
{
    d->source_hash[MOE_PLANE_DATA] = moe_hash_get64(e->hash[HASH_SRC_DATA]);
    d->source_hash[MOE_PLANE_SCALE] = moe_hash_get64(e->hash[HASH_SRC_SCALE]);
    for (int p = MOE_PLANE_GLOBAL; p <= MOE_PLANE_INPUT; p++) {
        uint8_t b[4];
        if (t->plane[p].file < 0 || t->plane[p].bytes != sizeof b) continue;
        MOE_TRY(moe_source_read(e->src, t, p, 0, sizeof b, b, err));
        d->source_hash[p] = moe_hash64(b, sizeof b);
    }
    for (int p = 0; p < MOE_PLANE_COUNT; p++)
        if (t->plane[p].file >= 0) moe_source_drop(e->src, &t->plane[p]);
    return check_hashes(e, t, d, err);
}

static enum moe_code put(struct moe_emit *e, struct moe_shard_writer *w, int64_t at, int plane, uint64_t offset, const void *data,
                         int64_t bytes, struct moe_err *err)
{
    moe_hash_add64(e->hash[plane == MOE_PLANE_DATA ? HASH_OUT_DATA : HASH_OUT_SCALE], data, (size_t)bytes);
    return moe_shard_write(w, at, plane, offset, data, (size_t)bytes, err);
}

static void end_planes(struct moe_emit *e, struct moe_shard_writer *w, int64_t at, bool scales)
{
    moe_shard_set_hash(w, at, MOE_PLANE_DATA, moe_hash_get64(e->hash[HASH_OUT_DATA]));
    if (scales) moe_shard_set_hash(w, at, MOE_PLANE_SCALE, moe_hash_get64(e->hash[HASH_OUT_SCALE]));
}

static enum moe_code put_scalar(struct moe_shard_writer *w, int64_t at, int plane, float v, struct moe_err *err)
{
    uint32_t u = moe_f32_bits(v);
    uint8_t b[4] = { (uint8_t)u, (uint8_t)(u >> 8), (uint8_t)(u >> 16), (uint8_t)(u >> 24) };
    moe_shard_set_hash(w, at, plane, moe_hash64(b, sizeof b));
    return moe_shard_write(w, at, plane, 0, b, sizeof b, err);
}

/* Write the linear scales of rows [r0, r0+n) in tile order. */
static enum moe_code put_scales(struct moe_emit *e, const struct moe_tensor *t, int64_t r0, int64_t n, const uint8_t *linear,
                                struct moe_shard_writer *w, int64_t at, struct moe_err *err)
{
    moe_scales_to_tile(linear, n, t->cols / 16, e->tile);
    return put(e, w, at, MOE_PLANE_SCALE, plane_offset(t, MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, r0), e->tile,
               moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, n, t->cols), err);
}

#define FOR_CHUNKS(t, r0, n) \
    for (int64_t step_ = chunk_rows(t), r0 = 0, n; r0 < (t)->rows && (n = (t)->rows - r0 < step_ ? (t)->rows - r0 : step_); r0 += n)

enum moe_code moe_emit_amax(struct moe_emit *e, const struct moe_tensor *in, float *amax, struct moe_emitted *d, struct moe_err *err)
{
    *amax = 0;
    begin(e);
    FOR_CHUNKS(in, r0, n) {
        struct moe_weight w;
        float a;
        MOE_TRY(load_values(e, in, r0, n, &w, &a, err));
        if (a > *amax) *amax = a;
    }
    return end_source(e, in, d, err);
}

/* Add the error of the chunk `w` (as written) against e->x. */
static void add_error(struct moe_emit *e, const struct moe_weight *w, struct moe_emitted *d)
{
    for (int64_t r = 0; r < w->rows; r++) {
        e->k->decode(w, r, 0, w->cols, e->row);
        e->k->sqerr(e->x + r * w->cols, e->row, w->cols, &d->num, &d->den);
    }
}

enum moe_code moe_emit_nvfp4(struct moe_emit *e, const struct moe_tensor *in, enum moe_nvfp4_method method, float global,
                             float input_scale, struct moe_shard_writer *w, int64_t at, struct moe_emitted *d, struct moe_err *err)
{
    d->num = d->den = 0;
    begin(e);
    FOR_CHUNKS(in, r0, n) {
        struct moe_weight s;
        float a;
        MOE_TRY(load_values(e, in, r0, n, &s, &a, err));
        e->k->nvfp4_quantize(method, e->x, n * in->cols, global, e->data, e->linear);
        struct moe_weight q = { .type = MOE_NVFP4, .layout = MOE_LAYOUT_LINEAR, .rows = n, .cols = in->cols,
                                .data = e->data, .scale = e->linear, .global = global };
        add_error(e, &q, d);
        MOE_TRY(put(e, w, at, MOE_PLANE_DATA, plane_offset(in, MOE_NVFP4, 0, MOE_PLANE_DATA, r0), e->data, n * in->cols / 2, err));
        MOE_TRY(put_scales(e, in, r0, n, e->linear, w, at, err));
    }
    end_planes(e, w, at, true);
    MOE_TRY(put_scalar(w, at, MOE_PLANE_GLOBAL, global, err));
    return put_scalar(w, at, MOE_PLANE_INPUT, input_scale, err);
}

enum moe_code moe_emit_copy(struct moe_emit *e, const struct moe_tensor *in, struct moe_shard_writer *w, int64_t at,
                            struct moe_emitted *d, struct moe_err *err)
{
    bool retile = in->type == MOE_NVFP4 && in->layout == MOE_LAYOUT_LINEAR;
    begin(e);
    FOR_CHUNKS(in, r0, n) {
        struct moe_weight s;
        float a;
        MOE_TRY(load_values(e, in, r0, n, &s, &a, err));
        for (int p = MOE_PLANE_DATA; p <= MOE_PLANE_SCALE; p++) {
            int64_t bytes = moe_plane_bytes(in->type, in->layout, p, n, in->cols);
            if (!bytes) continue;
            if (p == MOE_PLANE_SCALE && retile) MOE_TRY(put_scales(e, in, r0, n, e->scale, w, at, err));
            else MOE_TRY(put(e, w, at, p, plane_offset(in, in->type, in->layout, p, r0), p ? e->scale : e->raw, bytes, err));
        }
    }
    end_planes(e, w, at, moe_plane_bytes(in->type, in->layout, MOE_PLANE_SCALE, in->rows, in->cols) > 0);
    if (in->type == MOE_NVFP4) {
        MOE_TRY(put_scalar(w, at, MOE_PLANE_GLOBAL, in->global, err));
        MOE_TRY(put_scalar(w, at, MOE_PLANE_INPUT, in->plane[MOE_PLANE_INPUT].file >= 0 ? in->input_scale : 1.0f, err));
    }
    return end_source(e, in, d, err);
}

static void to_bf16(const float *x, int64_t n, uint8_t *out)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t b = moe_f32_to_bf16(x[i]);
        out[2 * i] = (uint8_t)b;
        out[2 * i + 1] = (uint8_t)(b >> 8);
    }
}

enum moe_code moe_emit_decoded(struct moe_emit *e, const struct moe_tensor *in, int type, struct moe_shard_writer *w, int64_t at,
                               struct moe_emitted *d, struct moe_err *err)
{
    d->num = d->den = 0;
    begin(e);
    FOR_CHUNKS(in, r0, n) {
        struct moe_weight s;
        float a;
        MOE_TRY(load_values(e, in, r0, n, &s, &a, err));
        if (type == MOE_BF16) to_bf16(e->x, n * in->cols, e->data);
        else memcpy(e->data, e->x, (size_t)(n * in->cols) * 4);
        struct moe_weight q = { .type = (uint8_t)type, .rows = n, .cols = in->cols, .data = e->data };
        add_error(e, &q, d);
        MOE_TRY(put(e, w, at, MOE_PLANE_DATA, plane_offset(in, type, 0, MOE_PLANE_DATA, r0), e->data,
                    moe_plane_bytes(type, 0, MOE_PLANE_DATA, n, in->cols), err));
    }
    end_planes(e, w, at, false);
    return end_source(e, in, d, err);
}
