/* SPDX-License-Identifier: Apache-2.0 */
/* The summary of a model, and the lists of its tensors and experts. */
#include "convert/inspect.h"

#include "base/io.h"
#include "base/re.h"
#include "formats/container/container.h"

#include <stdlib.h>
#include <string.h>

/* False for an expert that was not staged into this part. */
static bool is_there(const struct moe_tensor *t) { return t->plane[MOE_PLANE_DATA].file >= 0; }

/* ---- summary ---- */

bool moe_inspect_add_types(cJSON *into, const struct moe_tensor *t, int64_t n)
{
    int64_t tensors[MOE_DTYPE_COUNT] = { 0 };
    uint64_t bytes[MOE_DTYPE_COUNT] = { 0 };
    cJSON *types = moe_json_add_object(into, "types");
    for (int64_t i = 0; i < n; i++)
        if (is_there(&t[i])) tensors[t[i].type]++, bytes[t[i].type] += moe_tensor_bytes(&t[i]);
    bool ok = types != NULL;
    for (int k = 0; ok && k < MOE_DTYPE_COUNT; k++) {
        if (!tensors[k]) continue;
        cJSON *one = moe_json_add_object(types, moe_dtype_name(k));
        ok = one && moe_json_add_i64(one, "tensors", tensors[k]) &&
             moe_json_add_i64(one, "bytes", (int64_t)bytes[k]);
    }
    return ok;
}

static bool add_staged(cJSON *into, const struct moe_staged *s)
{
    const int ranks[] = { s->first, s->last };
    cJSON *o = moe_json_add_object(into, "staged"), *pair = o ? moe_json_add_array(o, "ranks") : NULL;
    bool ok = pair != NULL;
    for (int i = 0; ok && i < 2; i++) ok = moe_json_append(pair, cJSON_CreateNumber(ranks[i]));
    return ok && moe_json_add_i64(o, "of", s->ranks) && moe_json_add_i64(o, "experts_absent", s->absent) &&
           moe_json_add_str(o, "from", s->from) && moe_json_add_str(o, "plan", s->plan);
}

enum moe_code moe_inspect_summary(const struct moe_source *src, cJSON **out, struct moe_err *err)
{
    const struct moe_config *c = &src->config;
    bool container = src->kind == MOE_CONTAINER;
    uint64_t bytes = 0;
    int64_t there = 0;
    for (int64_t i = 0; container && i < src->n_tensors; i++)
        bytes += moe_tensor_bytes(&src->tensors[i]), there += is_there(&src->tensors[i]);
    for (int64_t i = 0; !container && i < src->n_raws; i++) bytes += src->raws[i].span.bytes;
    cJSON *j = cJSON_CreateObject();
    bool ok = j && moe_json_add_str(j, "kind", container ? "container" : "checkpoint") &&
              moe_json_add_str(j, "layout", src->layout ? src->layout : "unknown") &&
              moe_json_add_str(j, "architecture", c->architecture) &&
              moe_json_add_i64(j, "layers", c->num_hidden_layers) &&
              moe_json_add_i64(j, "experts", c->n_routed_experts) &&
              moe_json_add_i64(j, "experts_per_token", c->num_experts_per_tok) &&
              moe_json_add_i64(j, "hidden_size", c->hidden_size) &&
              moe_json_add_i64(j, "vocab_size", c->vocab_size) &&
              moe_json_add_i64(j, "parameters", (int64_t)moe_config_parameters(c)) &&
              moe_json_add_i64(j, "parameters_active", (int64_t)moe_config_parameters_active(c)) &&
              moe_json_add_i64(j, "tensors", container ? there : src->n_raws) &&
              moe_json_add_i64(j, "bytes", (int64_t)bytes) &&
              moe_inspect_add_types(j, src->tensors, src->n_tensors);
    if (ok && src->is_part) {
        cJSON *part = cJSON_CreateIntArray((const int[]){ src->part.first, src->part.last }, 2);
        ok = moe_json_add(j, "part", part);
    }
    if (ok && src->staged) ok = add_staged(j, src->staged);
    if (!ok) {
        cJSON_Delete(j);
        return moe_fail(err, MOE_NOMEM, "no memory for the summary");
    }
    *out = j;
    return MOE_OK;
}

/* ---- tensors ---- */

static cJSON *tensor_row(const char *name, const char *type, const int64_t *shape, int ndim, uint64_t bytes,
                         const char *file, uint64_t offset)
{
    cJSON *row = cJSON_CreateObject(), *s = NULL;
    bool ok = row && moe_json_add_str(row, "name", name) &&
              moe_json_add_str(row, "type", type) && (s = moe_json_add_array(row, "shape"));
    for (int i = 0; ok && i < ndim; i++) ok = moe_json_append(s, cJSON_CreateNumber((double)shape[i]));
    if (ok && moe_json_add_i64(row, "bytes", (int64_t)bytes) && moe_json_add_str(row, "file", file) &&
        moe_json_add_i64(row, "offset", (int64_t)offset)) return row;
    cJSON_Delete(row);
    return NULL;
}

static bool add_tensor(cJSON *list, const struct moe_source *src, const struct moe_tensor *t,
                       const struct moe_re *re)
{
    char name[128];
    if (!is_there(t)) return true;
    moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name);
    if (re && !moe_re_match(re, name, strlen(name))) return true;
    int64_t shape[2] = { t->rows, t->cols };
    const struct moe_span *s = &t->plane[MOE_PLANE_DATA];
    cJSON *row = tensor_row(name, moe_dtype_name(t->type), t->rows == 1 ? shape + 1 : shape,
                            t->rows == 1 ? 1 : 2, moe_tensor_bytes(t),
                            s->file >= 0 ? src->files[s->file].name : "", s->offset);
    return moe_json_append(list, row);
}

static bool add_raw(cJSON *list, const struct moe_source *src, const struct moe_raw *r,
                    const struct moe_re *re)
{
    if (re && !moe_re_match(re, r->name, strlen(r->name))) return true;
    cJSON *row = tensor_row(r->name, r->dtype, r->shape, r->ndim, r->span.bytes,
                            src->files[r->span.file].name, r->span.offset);
    moe_json_append(list, row);
    return r->skipped ? moe_json_add_str(row, "skipped", r->skipped) : moe_json_add_null(row, "skipped");
}

enum moe_code moe_inspect_tensors(const struct moe_source *src, const char *pattern, cJSON **out,
                                  struct moe_err *err)
{
    struct moe_re *re = NULL;
    if (*pattern) MOE_TRY(moe_re_open(&re, pattern, err));
    cJSON *list = cJSON_CreateArray();
    bool ok = list != NULL;
    if (src->kind == MOE_CONTAINER)
        for (int64_t i = 0; ok && i < src->n_tensors; i++) ok = add_tensor(list, src, &src->tensors[i], re);
    else
        for (int64_t i = 0; ok && i < src->n_raws; i++) ok = add_raw(list, src, &src->raws[i], re);
    moe_re_close(&re);
    if (!ok) {
        cJSON_Delete(list);
        return moe_fail(err, MOE_NOMEM, "no memory for the list of tensors");
    }
    *out = list;
    return MOE_OK;
}

/* ---- experts ---- */

/* Adds the shard's extents.  t: a tensor of an expert that was staged; NULL: there is none. */
static bool add_extents(cJSON *row, const struct moe_source *src, const struct moe_tensor *t,
                        struct moe_err *err)
{
    static const char *const keys[] = { "file", "alignment", "extent_offset", "extent_bytes" };
    struct moe_shard_header h;
    bool ok = true;
    if (src->kind == MOE_CHECKPOINT || !t) {
        for (int i = 0; ok && i < 4; i++) ok = moe_json_add_null(row, keys[i]);
        return ok || moe_fail(err, MOE_NOMEM, "no memory for the list of experts") == MOE_OK;
    }
    const struct moe_file *f = &src->files[t->plane[MOE_PLANE_DATA].file];
    if (moe_pread(f->fd, f->path, &h, sizeof h, 0, err) != MOE_OK) return false;
    ok = moe_json_add_str(row, keys[0], f->name) && moe_json_add_i64(row, keys[1], h.alignment) &&
         moe_json_add_i64(row, keys[2], (int64_t)h.extent_offset) &&
         moe_json_add_i64(row, keys[3], (int64_t)h.extent_bytes);
    return ok || moe_fail(err, MOE_NOMEM, "no memory for the list of experts") == MOE_OK;
}

/* Adds the row of a layer; t[0..n) are all its expert tensors, sorted by expert. */
static bool add_layer(cJSON *list, const struct moe_source *src, const struct moe_tensor *t, int64_t n,
                      struct moe_err *err)
{
    uint64_t least = UINT64_MAX, most = 0, sum = 0;
    int64_t experts = 0;
    const struct moe_tensor *one = NULL;
    for (int64_t i = 0; i < n; i++) {
        if (!is_there(&t[i])) continue;
        one = &t[i];
        sum += moe_tensor_bytes(&t[i]);
        if (i + 1 < n && t[i + 1].expert == t[i].expert) continue;
        if (sum < least) least = sum;
        if (sum > most) most = sum;
        experts++;
        sum = 0;
    }
    cJSON *row = moe_json_append(list, cJSON_CreateObject());
    if (!row) return moe_fail(err, MOE_NOMEM, "no memory for the list of experts") == MOE_OK;
    bool ok = moe_json_add_i64(row, "layer", t->layer) && moe_json_add_i64(row, "experts", experts);
    if (ok && !add_extents(row, src, one, err)) return false;
    ok = ok && moe_json_add_i64(row, "expert_bytes_min", experts ? (int64_t)least : 0) &&
         moe_json_add_i64(row, "expert_bytes_max", (int64_t)most) && moe_inspect_add_types(row, t, n);
    return ok || moe_fail(err, MOE_NOMEM, "no memory for the list of experts") == MOE_OK;
}

enum moe_code moe_inspect_experts(const struct moe_source *src, cJSON **out, struct moe_err *err)
{
    cJSON *list = cJSON_CreateArray();
    if (!list) return moe_fail(err, MOE_NOMEM, "no memory for the list of experts");
    for (int64_t i = 0, k; i < src->n_tensors; i = k) {
        for (; i < src->n_tensors && src->tensors[i].expert < 0; i++) continue;
        for (k = i; k < src->n_tensors && src->tensors[k].expert >= 0 &&
                    src->tensors[k].layer == src->tensors[i].layer;
             k++)
            continue;
        if (k > i && !add_layer(list, src, src->tensors + i, k - i, err)) {
            cJSON_Delete(list);
            return err->code;
        }
    }
    *out = list;
    return MOE_OK;
}

char *moe_base64(const void *data, size_t n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = data;
    char *out = malloc((n + 2) / 3 * 4 + 1), *o = out;
    for (size_t i = 0; out && i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        *o++ = digit[v >> 18];
        *o++ = digit[v >> 12 & 63];
        *o++ = i + 1 < n ? digit[v >> 6 & 63] : '=';
        *o++ = i + 2 < n ? digit[v & 63] : '=';
    }
    if (out) *o = 0;
    return out;
}
