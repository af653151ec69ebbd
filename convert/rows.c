/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of a tensor, streamed. */
#include "convert/rows.h"

#include "kernels/kernels.h"
#include "kernels/many.h"

#include <math.h>
#include <stdlib.h>

struct sizes { size_t raw, scale, linear, values; };

static void at_least(size_t *a, int64_t b)
{
    size_t n = b > 0 ? ((size_t)b + 63) / 64 * 64 : 0;
    if (n > *a) *a = n;
}

static struct sizes measure(const struct moe_source *src)
{
    struct sizes s = { 0 };
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        int64_t n = moe_chunk_rows(t);
        at_least(&s.raw, moe_plane_bytes(t->type, t->layout, MOE_PLANE_DATA, n, t->cols));
        at_least(&s.scale, moe_plane_bytes(t->type, t->layout, MOE_PLANE_SCALE, n, t->cols));
        at_least(&s.values, n * t->cols * 4);
        if (t->type == MOE_NVFP4) at_least(&s.linear, n * t->cols / 16);
    }
    return s;
}

static size_t total(const struct sizes *s) { return s->raw + s->scale + s->linear + s->values; }

uint64_t moe_rows_estimate(const struct moe_source *src)
{
    struct sizes s = measure(src);
    return total(&s);
}

enum moe_code moe_rows_open(struct moe_rows *r, const struct moe_source *src, struct moe_err *err)
{
    struct sizes s = measure(src);
    uint8_t *p = aligned_alloc(64, total(&s) + 64);
    *r = (struct moe_rows){ .src = src, .block = p, .hash = { moe_hash_new(), moe_hash_new() } };
    if (!p || !r->hash[0] || !r->hash[1]) {
        moe_rows_release(r);
        return moe_fail(err, MOE_NOMEM, "no memory for a worker's buffers (%zu bytes; try fewer --threads)",
                        total(&s));
    }
    r->raw = p;
    r->scale = p + s.raw;
    r->linear = r->scale + s.scale;
    r->values = (float *)(void *)(r->linear + s.linear);
    return MOE_OK;
}

void moe_rows_release(struct moe_rows *r)
{
    free(r->block);
    moe_hash_free(r->hash[0]);
    moe_hash_free(r->hash[1]);
    *r = (struct moe_rows){ 0 };
}

void moe_rows_begin(struct moe_rows *r, const struct moe_tensor *t)
{
    r->t = t;
    r->next = 0;
    moe_hash_reset64(r->hash[0]);
    moe_hash_reset64(r->hash[1]);
}

/* After the last row: MOE_VERIFY when a plane of a container does not match its hash. */
static enum moe_code end(struct moe_rows *r, struct moe_err *err)
{
    char name[128];
    for (int p = MOE_PLANE_DATA; p <= MOE_PLANE_SCALE; p++) {
        if (r->t->plane[p].file < 0) continue;
        moe_source_drop(r->src, &r->t->plane[p]);
        if (r->src->kind == MOE_CONTAINER && moe_hash_get64(r->hash[p]) != r->t->hash[p])
            return moe_fail_at(
                err, MOE_VERIFY, r->src->files[r->t->plane[p].file].name,
                moe_tensor_name((enum moe_role)r->t->role, r->t->layer, r->t->expert, name),
                "its bytes are not those that were written (moe-inspect --verify finds where)");
    }
    return MOE_OK;
}

enum moe_code moe_rows_next(struct moe_rows *r, bool *more, struct moe_err *err)
{
    const struct moe_tensor *t = r->t;
    int64_t n = moe_chunk_rows(t);
    *more = r->next < t->rows;
    if (!*more) return end(r, err);
    if (n > t->rows - r->next) n = t->rows - r->next;
    r->first = r->next;
    r->w = (struct moe_weight){ .type = t->type,
                                .layout = t->layout,
                                .reciprocal = t->reciprocal,
                                .rows = n,
                                .cols = t->cols,
                                .data = r->raw,
                                .scale = r->scale,
                                .global = t->global,
                                .input_scale = t->input_scale };
    for (int p = MOE_PLANE_DATA; p <= MOE_PLANE_SCALE; p++) {
        int64_t bytes = moe_plane_bytes(t->type, t->layout, p, n, t->cols);
        uint64_t at = r->first ? (uint64_t)moe_plane_bytes(t->type, t->layout, p, r->first, t->cols) : 0;
        uint8_t *to = p == MOE_PLANE_DATA ? r->raw : r->scale;
        if (!bytes) continue;
        MOE_TRY(moe_source_read(r->src, t, p, at, (size_t)bytes, to, err));
        if (r->src->kind == MOE_CONTAINER) moe_hash_add64(r->hash[p], to, (size_t)bytes);
    }
    r->next += n;
    return MOE_OK;
}

enum moe_code moe_rows_decode(struct moe_rows *r, bool finite, struct moe_err *err)
{
    const struct moe_kernels *k = moe_kernels();
    int64_t n = r->w.rows * r->w.cols, i = 0;
    moe_dequantize_many(&r->w, 0, r->w.rows, r->values);
    if (!finite || isfinite(k->amax(r->values, n))) return MOE_OK;
    char name[128];
    while (i < n - 1 && isfinite(r->values[i])) i++;
    return moe_fail_at(err, MOE_NONFINITE, r->src->files[r->t->plane[0].file].name,
                       moe_tensor_name((enum moe_role)r->t->role, r->t->layer, r->t->expert, name),
                       "the value at row %lld, column %lld is %s (the model is damaged)",
                       (long long)(r->first + i / r->w.cols), (long long)(i % r->w.cols),
                       isnan(r->values[i]) ? "NaN" : "Inf");
}

const uint8_t *moe_rows_scales(struct moe_rows *r)
{
    if (r->w.layout != MOE_LAYOUT_TILE_128X4) return r->scale;
    moe_scales_from_tile(r->scale, 0, r->w.rows, r->w.cols / 16, r->linear);
    return r->linear;
}
