#include "convert/diff.h"

#include "base/tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20, LISTED_MAX = 1000 };

struct diff {
    const struct moe_source *a, *b;
    struct moe_progress *progress;
    cJSON *list;
    int64_t same, different;
    unsigned char *x, *y; /* PIECE bytes each */
};

/* One difference; what "" is none. */
static enum moe_code note(struct diff *d, const struct moe_tensor *t, const char *what, struct moe_err *err)
{
    char name[128], line[400];
    if (!*what) return d->same++, MOE_OK;
    if (d->different++ >= LISTED_MAX) return MOE_OK;
    snprintf(line, sizeof line, "%s: %s", moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name), what);
    cJSON *s = cJSON_CreateString(line);
    return s && cJSON_AddItemToArray(d->list, s) ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for the list of differences");
}

static enum moe_code plane_same(struct diff *d, const struct moe_tensor *t, const struct moe_tensor *u, int plane, bool *same, struct moe_err *err)
{
    uint64_t bytes = t->plane[plane].bytes;
    *same = bytes == u->plane[plane].bytes;
    if (*same && d->a->kind == MOE_CONTAINER && d->b->kind == MOE_CONTAINER) return *same = t->hash[plane] == u->hash[plane], MOE_OK;
    for (uint64_t at = 0, n; *same && at < bytes; at += n) {
        n = bytes - at < PIECE ? bytes - at : PIECE;
        MOE_TRY(moe_source_read(d->a, t, plane, at, (size_t)n, d->x, err));
        MOE_TRY(moe_source_read(d->b, u, plane, at, (size_t)n, d->y, err));
        *same = !memcmp(d->x, d->y, (size_t)n);
    }
    moe_source_drop(d->a, &t->plane[plane]);
    moe_source_drop(d->b, &u->plane[plane]);
    return MOE_OK;
}

/* NVFP4 scales, tiles against rows: 128 rows are one stretch of either. */
static enum moe_code scales_same(struct diff *d, const struct moe_tensor *t, const struct moe_tensor *u, bool *same, struct moe_err *err)
{
    const struct moe_source *ts = d->a, *us = d->b;
    if (t->layout == MOE_LAYOUT_LINEAR) { /* t is the tiled one from here on */
        const struct moe_tensor *v = t;
        t = u, u = v, ts = d->b, us = d->a;
    }
    size_t blocks = (size_t)t->cols / 16, tile_row = (blocks + 3) / 4 * 512;
    unsigned char *x = malloc(tile_row), *y = malloc(128 * blocks);
    enum moe_code code = x && y ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory to compare scales");
    *same = true;
    for (int64_t m = 0; code == MOE_OK && *same && m < t->rows; m += 128) {
        size_t rows = t->rows - m < 128 ? (size_t)(t->rows - m) : 128;
        code = moe_source_read(ts, t, MOE_PLANE_SCALE, (uint64_t)(m / 128) * tile_row, tile_row, x, err);
        if (code == MOE_OK) code = moe_source_read(us, u, MOE_PLANE_SCALE, (uint64_t)m * blocks, rows * blocks, y, err);
        for (size_t r = 0; code == MOE_OK && r < rows; r++)
            for (size_t k = 0; k < blocks; k++) *same &= x[moe_tile_offset(r, k, blocks)] == y[r * blocks + k];
    }
    free(x);
    free(y);
    return code;
}

static enum moe_code compare(struct diff *d, const struct moe_tensor *t, const struct moe_tensor *u, struct moe_err *err)
{
    char what[160] = "";
    bool same = true;
    if (t->rows != u->rows || t->cols != u->cols)
        snprintf(what, sizeof what, "%lld x %lld, %lld x %lld in the second", (long long)t->rows, (long long)t->cols, (long long)u->rows, (long long)u->cols);
    else if (t->type != u->type)
        snprintf(what, sizeof what, "%s, %s in the second", moe_dtype_name(t->type), moe_dtype_name(u->type));
    else if (t->type == MOE_NVFP4 && (t->global != u->global || t->reciprocal != u->reciprocal))
        snprintf(what, sizeof what, "global scale %s%.9g, %s%.9g in the second", t->reciprocal ? "1/" : "", (double)t->global,
                 u->reciprocal ? "1/" : "", (double)u->global);
    if (*what) return note(d, t, what, err);
    MOE_TRY(plane_same(d, t, u, MOE_PLANE_DATA, &same, err));
    if (!same) return note(d, t, "other values", err);
    if (t->plane[MOE_PLANE_SCALE].file >= 0)
        MOE_TRY(t->layout == u->layout ? plane_same(d, t, u, MOE_PLANE_SCALE, &same, err) : scales_same(d, t, u, &same, err));
    return note(d, t, same ? "" : "other scales", err);
}

static enum moe_code compare_all(struct diff *d, struct moe_err *err)
{
    for (int64_t i = 0; i < d->a->n_tensors; i++) {
        const struct moe_tensor *t = &d->a->tensors[i], *u = moe_source_find(d->b, (enum moe_role)t->role, t->layer, t->expert);
        MOE_TRY(moe_interrupted(err));
        if (!u) MOE_TRY(note(d, t, "only in the first", err));
        else MOE_TRY(compare(d, t, u, err));
        moe_progress_add(d->progress, 1);
    }
    for (int64_t i = 0; i < d->b->n_tensors; i++) {
        const struct moe_tensor *u = &d->b->tensors[i];
        if (!moe_source_find(d->a, (enum moe_role)u->role, u->layer, u->expert)) MOE_TRY(note(d, u, "only in the second", err));
    }
    return MOE_OK;
}

enum moe_code moe_inspect_diff(const struct moe_source *a, const struct moe_source *b, struct moe_progress *progress, cJSON **out,
                               struct moe_err *err)
{
    struct diff d = { .a = a, .b = b, .progress = progress, .x = malloc(PIECE), .y = malloc(PIECE), .list = cJSON_CreateArray() };
    cJSON *j = cJSON_CreateObject();
    enum moe_code code = d.x && d.y && d.list && j ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory to compare");
    if (code == MOE_OK) {
        moe_progress_begin(progress, "compare", (uint64_t)a->n_tensors, MOE_UNIT_ITEMS);
        code = compare_all(&d, err);
        moe_progress_end(progress);
    }
    if (code == MOE_OK && !(cJSON_AddBoolToObject(j, "same", !d.different) && moe_json_add_i64(j, "tensors_same", d.same) &&
                            moe_json_add_i64(j, "tensors_different", d.different) && cJSON_AddItemToObject(j, "differences", d.list)))
        code = moe_fail(err, MOE_NOMEM, "no memory to compare");
    free(d.x);
    free(d.y);
    if (code == MOE_OK) return *out = j, MOE_OK;
    cJSON_Delete(d.list);
    cJSON_Delete(j);
    return code;
}
