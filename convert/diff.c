/* SPDX-License-Identifier: Apache-2.0 */
/* Two models compared: each tensor as stored, then by value; the sums in the order of the tensors. */
#include "convert/diff.h"

#include "convert/rows.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20, LISTED_MAX = 1000 };

/* The result of comparing two tensors by value. */
struct difference {
    double num, den, max;                   /* sum of (a - b)^2 and of a^2; the largest |a - b| */
    int64_t weights, different, not_finite; /* not_finite: values that are not finite and not the same */
    int64_t row, col;                       /* where the largest difference is, and the two values there */
    float first, second;
};

struct worker {
    struct moe_rows a, b;
    unsigned char *x, *y; /* PIECE bytes each */
    char what[160];       /* how the present tensor differs; "": it is the same */
    bool shape, type, compared;
    struct difference difference;
};

struct worst { const struct moe_tensor *t, *u; struct difference difference; };

/* The tensors of one type that were compared by value with tensors of another type. */
struct pair { int64_t tensors; double num, den; };

struct diff {
    const struct moe_source *a, *b;
    struct moe_progress *progress;
    const struct moe_cancel *cancel;
    struct worker *worker;
    int workers;
    cJSON *list;
    int64_t same, different, only_first, only_second, shape, type, values, unequal;
    double num, den;
    struct pair pair[MOE_DTYPE_COUNT][MOE_DTYPE_COUNT];
    struct worst *worst; /* [top] */
    int64_t n_worst, top;
};

/* ---- as stored ---- */

static enum moe_code plane_same(const struct diff *d, struct worker *k, const struct moe_tensor *t,
                                const struct moe_tensor *u, int plane, bool *same, struct moe_err *err)
{
    uint64_t bytes = t->plane[plane].bytes;
    *same = bytes == u->plane[plane].bytes;
    if (*same && d->a->kind == MOE_CONTAINER && d->b->kind == MOE_CONTAINER)
        return *same = t->hash[plane] == u->hash[plane], MOE_OK;
    for (uint64_t at = 0, n; *same && at < bytes; at += n) {
        n = bytes - at < PIECE ? bytes - at : PIECE;
        MOE_TRY(moe_source_read(d->a, t, plane, at, (size_t)n, k->x, err));
        MOE_TRY(moe_source_read(d->b, u, plane, at, (size_t)n, k->y, err));
        *same = !memcmp(k->x, k->y, (size_t)n);
    }
    moe_source_drop(d->a, &t->plane[plane]);
    moe_source_drop(d->b, &u->plane[plane]);
    return MOE_OK;
}

/* Compares NVFP4 scales of which one model has tiles and the other rows.  128 rows are consecutive bytes in
 * both layouts. */
static enum moe_code scales_same(const struct diff *d, const struct moe_tensor *t, const struct moe_tensor *u,
                                 bool *same, struct moe_err *err)
{
    const struct moe_source *ts = d->a, *us = d->b;
    if (t->layout == MOE_LAYOUT_LINEAR) { /* from here on t is the tensor with tiles */
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
        if (code == MOE_OK)
            code = moe_source_read(us, u, MOE_PLANE_SCALE, (uint64_t)m * blocks, rows * blocks, y, err);
        for (size_t r = 0; code == MOE_OK && r < rows; r++)
            for (size_t c = 0; c < blocks; c++)
                *same &= x[moe_tile_offset(r, c, blocks)] == y[r * blocks + c];
    }
    free(x);
    free(y);
    return code;
}

static float input_scale(const struct moe_tensor *t)
{
    return t->plane[MOE_PLANE_INPUT].file < 0 ? 1.0f : t->input_scale;
}

/* Compares two tensors as they are stored; k->what tells the first difference. */
static enum moe_code stored(const struct diff *d, struct worker *k, const struct moe_tensor *t,
                            const struct moe_tensor *u, struct moe_err *err)
{
    bool same = true;
    k->what[0] = 0;
    k->shape = t->rows != u->rows || t->cols != u->cols;
    k->type = !k->shape && t->type != u->type;
    if (k->shape)
        snprintf(k->what, sizeof k->what, "%lld x %lld, %lld x %lld in the second", (long long)t->rows,
                 (long long)t->cols, (long long)u->rows, (long long)u->cols);
    else if (k->type)
        snprintf(k->what, sizeof k->what, "%s, %s in the second", moe_dtype_name(t->type),
                 moe_dtype_name(u->type));
    else if (t->type == MOE_NVFP4 && (t->global != u->global || t->reciprocal != u->reciprocal))
        snprintf(k->what, sizeof k->what, "global scale %s%.9g, %s%.9g in the second",
                 t->reciprocal ? "1/" : "", (double)t->global, u->reciprocal ? "1/" : "", (double)u->global);
    else if (t->type == MOE_NVFP4 && input_scale(t) != input_scale(u))
        snprintf(k->what, sizeof k->what, "input scale %.9g, %.9g in the second", (double)input_scale(t),
                 (double)input_scale(u));
    if (k->what[0]) return MOE_OK;
    MOE_TRY(plane_same(d, k, t, u, MOE_PLANE_DATA, &same, err));
    if (!same) return snprintf(k->what, sizeof k->what, "other values"), MOE_OK;
    if (t->plane[MOE_PLANE_SCALE].file >= 0)
        MOE_TRY(t->layout == u->layout ? plane_same(d, k, t, u, MOE_PLANE_SCALE, &same, err)
                                       : scales_same(d, t, u, &same, err));
    if (!same) snprintf(k->what, sizeof k->what, "other scales");
    return MOE_OK;
}

/* ---- as values ---- */

/* Counts elements of which one is not finite, and sets both to 0 so that the sums leave them out. */
static void mask_nonfinite(float *x, float *y, int64_t n, struct difference *g)
{
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(x[i]) && isfinite(y[i])) continue;
        bool equal = (isnan(x[i]) && isnan(y[i])) || x[i] == y[i];
        g->not_finite += !equal;
        g->different += !equal;
        x[i] = y[i] = 0;
    }
}

/* Adds the difference of two rows of n values to *g. */
static void add_row(struct difference *g, float *x, float *y, int64_t n, int64_t row)
{
    const struct moe_kernels *k = moe_kernels();
    float most = -1;
    int64_t at = 0, different = 0;
    if (!isfinite(k->amax(x, n)) || !isfinite(k->amax(y, n))) mask_nonfinite(x, y, n, g);
    k->sqerr(x, y, n, &g->num, &g->den);
    for (int64_t i = 0; i < n; i++) {
        float difference = fabsf(x[i] - y[i]);
        different += x[i] != y[i];
        if (difference > most) most = difference, at = i;
    }
    g->weights += n;
    g->different += different;
    if ((double)most <= g->max) return;
    g->max = (double)most;
    g->row = row;
    g->col = at;
    g->first = x[at];
    g->second = y[at];
}

static enum moe_code compare_values(struct worker *k, const struct moe_tensor *t, const struct moe_tensor *u,
                                    struct moe_err *err)
{
    bool more;
    k->difference = (struct difference){ 0 };
    moe_rows_begin(&k->a, t);
    moe_rows_begin(&k->b, u);
    for (;;) { /* both tensors have the same chunks, which depend on the shape alone */
        MOE_TRY(moe_rows_next(&k->a, &more, err));
        MOE_TRY(moe_rows_next(&k->b, &more, err));
        if (!more) return MOE_OK;
        MOE_TRY(moe_rows_decode(&k->a, false, err));
        MOE_TRY(moe_rows_decode(&k->b, false, err));
        for (int64_t r = 0; r < k->a.w.rows; r++)
            add_row(&k->difference, k->a.values + r * t->cols, k->b.values + r * t->cols, t->cols,
                    k->a.first + r);
    }
}

static double relative(double num, double den)
{
    return num == 0 ? 0 : den > 0 ? sqrt(num / den) : (double)INFINITY;
}

static enum moe_code produce(void *ctx, int64_t i, int slot, struct moe_err *err)
{
    struct diff *d = ctx;
    struct worker *k = &d->worker[slot];
    const struct moe_tensor *t = &d->a->tensors[i],
                            *u = moe_source_find(d->b, (enum moe_role)t->role, t->layer, t->expert);
    k->compared = false;
    if (!u) return snprintf(k->what, sizeof k->what, "only in the first"), MOE_OK;
    MOE_TRY(stored(d, k, t, u, err));
    if (!k->what[0] || k->shape) return MOE_OK;
    k->compared = true;
    return compare_values(k, t, u, err);
}

/* ---- adding up, in the order of the tensors ---- */

static enum moe_code list(struct diff *d, const struct moe_tensor *t, const char *what, struct moe_err *err)
{
    char name[128], line[400];
    if (d->different++ >= LISTED_MAX) return MOE_OK;
    snprintf(line, sizeof line, "%s: %s", moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
             what);
    return moe_json_append(d->list, cJSON_CreateString(line))
             ? MOE_OK
             : moe_fail(err, MOE_NOMEM, "no memory for the list of differences");
}

static bool worse(const struct difference *g, const struct difference *h)
{
    if (!g->not_finite != !h->not_finite) return g->not_finite != 0;
    return relative(g->num, g->den) > relative(h->num, h->den);
}

static void rank(struct diff *d, const struct moe_tensor *t, const struct moe_tensor *u,
                 const struct difference *g)
{
    int64_t at = d->n_worst;
    if (!g->different) return;
    while (at > 0 && worse(g, &d->worst[at - 1].difference)) at--;
    if (at == d->top) return;
    if (d->n_worst < d->top) d->n_worst++;
    memmove(&d->worst[at + 1], &d->worst[at], (size_t)(d->n_worst - at - 1) * sizeof *d->worst);
    d->worst[at] = (struct worst){ t, u, *g };
}

static enum moe_code consume(void *ctx, int64_t i, int slot, struct moe_err *err)
{
    struct diff *d = ctx;
    const struct worker *k = &d->worker[slot];
    const struct moe_tensor *t = &d->a->tensors[i],
                            *u = moe_source_find(d->b, (enum moe_role)t->role, t->layer, t->expert);
    const struct difference *g = &k->difference;
    char line[256];
    int n = snprintf(line, sizeof line, "%s", k->what);
    moe_progress_add(d->progress, 1);
    MOE_TRY(moe_cancel_check(d->cancel, err));
    if (!k->what[0]) return d->same++, MOE_OK;
    d->only_first += !u;
    d->shape += u && k->shape;
    if (!k->compared) return d->unequal++, list(d, t, line, err);
    *(k->type ? &d->type : &d->values) += 1;
    d->unequal += g->different > 0;
    d->num += g->num;
    d->den += g->den;
    struct pair *p = &d->pair[t->type][u->type];
    p->tensors++;
    p->num += g->num;
    p->den += g->den;
    rank(d, t, u, g);
    if (g->not_finite)
        snprintf(line + n, sizeof line - (size_t)n, ": %lld value%s not finite in one",
                 (long long)g->not_finite, g->not_finite == 1 ? " is" : "s are");
    else if (!g->different) snprintf(line + n, sizeof line - (size_t)n, ": the same values");
    else snprintf(line + n, sizeof line - (size_t)n, ": relative error %.3g", relative(g->num, g->den));
    return list(d, t, line, err);
}

static enum moe_code open_workers(struct diff *d, struct moe_pool *pool, struct moe_err *err)
{
    d->workers = moe_pool_threads(pool) + (moe_pool_threads(pool) > 1);
    d->worker = calloc((size_t)d->workers, sizeof *d->worker);
    if (!d->worker) return moe_fail(err, MOE_NOMEM, "no memory to compare");
    for (int i = 0; i < d->workers; i++) {
        struct worker *k = &d->worker[i];
        MOE_TRY(moe_rows_open(&k->a, d->a, err));
        MOE_TRY(moe_rows_open(&k->b, d->b, err));
        k->x = malloc(PIECE);
        k->y = malloc(PIECE);
        if (!k->x || !k->y) return moe_fail(err, MOE_NOMEM, "no memory to compare (try fewer --threads)");
    }
    return MOE_OK;
}

static void close_workers(struct diff *d)
{
    for (int i = 0; d->worker && i < d->workers; i++) {
        moe_rows_release(&d->worker[i].a);
        moe_rows_release(&d->worker[i].b);
        free(d->worker[i].x);
        free(d->worker[i].y);
    }
    free(d->worker);
}

static enum moe_code compare_all(struct diff *d, struct moe_pool *pool, struct moe_err *err)
{
    MOE_TRY(open_workers(d, pool, err));
    MOE_TRY(moe_pipe_run(pool, d->a->n_tensors, d->workers, produce, consume, d, err));
    for (int64_t i = 0; i < d->b->n_tensors; i++) {
        const struct moe_tensor *u = &d->b->tensors[i];
        if (moe_source_find(d->a, (enum moe_role)u->role, u->layer, u->expert)) continue;
        d->only_second++;
        d->unequal++;
        MOE_TRY(list(d, u, "only in the second", err));
    }
    return MOE_OK;
}

/* ---- as JSON ---- */

/* Adds a line for each key of config a that b lacks or has with another value; with only_missing, a is the
 * second model's config and only keys that b lacks count. */
static bool config_lines(const cJSON *a, const cJSON *b, cJSON *lines, bool only_missing)
{
    bool ok = true;
    for (const cJSON *v = a->child; ok && v; v = v->next) {
        const cJSON *w = cJSON_GetObjectItemCaseSensitive(b, v->string);
        if (w && (only_missing || cJSON_Compare(v, w, true))) continue;
        char *first = moe_json_print(v, 0), *second = w ? moe_json_print(w, 0) : NULL, line[400];
        if (only_missing)
            snprintf(line, sizeof line, "%s: only in the second, %s", v->string, first ? first : "");
        else if (!w)
            snprintf(line, sizeof line, "%s: %s, nothing in the second", v->string, first ? first : "");
        else
            snprintf(line, sizeof line, "%s: %s, %s in the second", v->string, first ? first : "",
                     second ? second : "");
        ok = first && (second || !w) && moe_json_append(lines, cJSON_CreateString(line));
        free(first);
        free(second);
    }
    return ok;
}

static cJSON *config_json(const struct diff *d)
{
    cJSON *a = moe_config_json(&d->a->config), *b = moe_config_json(&d->b->config),
          *lines = cJSON_CreateArray();
    bool ok = a && b && lines && config_lines(a, b, lines, false) && config_lines(b, a, lines, true);
    cJSON_Delete(a);
    cJSON_Delete(b);
    if (ok) return lines;
    cJSON_Delete(lines);
    return NULL;
}

static bool add_worst(cJSON *rows, const struct worst *w)
{
    char name[128];
    const struct difference *g = &w->difference;
    cJSON *o = moe_json_append(rows, cJSON_CreateObject());
    return moe_json_add_str(
               o, "tensor", moe_tensor_name((enum moe_role)w->t->role, w->t->layer, w->t->expert, name)) &&
           moe_json_add_str(o, "type", moe_dtype_name(w->t->type)) &&
           moe_json_add_str(o, "type_second", moe_dtype_name(w->u->type)) &&
           moe_json_add_f64(o, "relative_error", relative(g->num, g->den)) &&
           moe_json_add_i64(o, "weights", g->weights) &&
           moe_json_add_i64(o, "weights_different", g->different) &&
           moe_json_add_i64(o, "not_finite", g->not_finite) &&
           moe_json_add_f64(o, "max_difference", g->max) && moe_json_add_i64(o, "row", g->row) &&
           moe_json_add_i64(o, "column", g->col) && moe_json_add_f32(o, "first", g->first) &&
           moe_json_add_f32(o, "second", g->second);
}

static bool add_pairs(cJSON *rows, const struct diff *d)
{
    bool ok = rows != NULL;
    for (int t = 0; ok && t < MOE_DTYPE_COUNT; t++)
        for (int u = 0; ok && u < MOE_DTYPE_COUNT; u++) {
            const struct pair *p = &d->pair[t][u];
            cJSON *o = p->tensors ? cJSON_CreateObject() : NULL;
            ok = !p->tensors || (moe_json_append(rows, o) &&
                                 moe_json_add_str(o, "type", moe_dtype_name(t)) &&
                                 moe_json_add_str(o, "type_second", moe_dtype_name(u)) &&
                                 moe_json_add_i64(o, "tensors", p->tensors) &&
                                 moe_json_add_f64(o, "relative_error", relative(p->num, p->den)));
        }
    return ok;
}

static cJSON *result(const struct diff *d)
{
    cJSON *j = cJSON_CreateObject(), *rows = NULL, *config = config_json(d);
    bool same = config && !config->child && !d->different;
    bool ok = j && config && moe_json_add_bool(j, "same", same) &&
              moe_json_add_bool(j, "values_same", !d->unequal) &&
              moe_json_add_i64(j, "tensors_same", d->same) &&
              moe_json_add_i64(j, "tensors_different", d->different) &&
              moe_json_add_i64(j, "tensors_only_first", d->only_first) &&
              moe_json_add_i64(j, "tensors_only_second", d->only_second) &&
              moe_json_add_i64(j, "tensors_shape", d->shape) &&
              moe_json_add_i64(j, "tensors_type", d->type) &&
              moe_json_add_i64(j, "tensors_values", d->values) &&
              moe_json_add_f64(j, "relative_error", relative(d->num, d->den)) &&
              add_pairs(moe_json_add_array(j, "types"), d) && (rows = moe_json_add_array(j, "worst"));
    for (int64_t i = 0; ok && i < d->n_worst; i++) ok = add_worst(rows, &d->worst[i]);
    ok = moe_json_add(j, "config", config) && ok;
    if (ok) return j;
    cJSON_Delete(j);
    return NULL;
}

enum moe_code moe_inspect_diff(const struct moe_source *a, const struct moe_source *b, int64_t top,
                               struct moe_pool *pool, struct moe_progress *progress,
                               const struct moe_cancel *cancel, cJSON **out, struct moe_err *err)
{
    struct diff d = { .a = a, .b = b, .top = top, .progress = progress, .cancel = cancel };
    d.list = cJSON_CreateArray();
    d.worst = calloc((size_t)top + 1, sizeof *d.worst);
    enum moe_code code = d.list && d.worst ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory to compare");
    moe_progress_begin(progress, "compare", (uint64_t)a->n_tensors, MOE_UNIT_ITEMS);
    if (code == MOE_OK) code = compare_all(&d, pool, err);
    moe_progress_end(progress);
    close_workers(&d);
    *out = code == MOE_OK ? result(&d) : NULL;
    free(d.worst);
    if (!moe_json_add(*out, "differences", d.list) && code == MOE_OK)
        code = moe_fail(err, MOE_NOMEM, "no memory to compare");
    else if (code == MOE_OK) return MOE_OK;
    cJSON_Delete(*out);
    *out = NULL;
    return code;
}
