/* SPDX-License-Identifier: Apache-2.0 */
/* The head of a GGUF file, as JSON and printed. */
#include "convert/inspect-gguf.h"

#include "base/re.h"
#include "base/show.h"
#include "base/cli/tool.h"
#include "formats/gguf/gguf-read.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS_SHOWN = 40, TYPES_MAX = 64 };

static const char *type_name(uint32_t type, char room[32])
{
    const char *name = moe_gguf_type_name(type);
    snprintf(room, 32, "type %u", type);
    return name ? name : room;
}

/* ---- as JSON ---- */

static cJSON *item(enum moe_gguf_value type, const struct moe_gguf_scalar *v)
{
    char digits[32];
    if (type == MOE_GGUF_BOOL) return cJSON_CreateBool(v->whole != 0);
    if (type == MOE_GGUF_FLOAT64) return cJSON_CreateNumber(v->number);
    /* written as digits, because a double does not hold every integer of 64 bits */
    if (type == MOE_GGUF_U64) snprintf(digits, sizeof digits, "%" PRIu64, (uint64_t)v->whole);
    else snprintf(digits, sizeof digits, "%" PRId64, v->whole);
    return cJSON_CreateRaw(digits);
}

/* A text for a number that JSON does not have. */
static const char *not_finite(double v) { return isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity"; }

static bool add_value(cJSON *to, const char *key, enum moe_gguf_value type, const struct moe_gguf_scalar *v)
{
    if (type == MOE_GGUF_STRING) return moe_json_add_text(to, key, v->text, v->kept);
    bool real = type == MOE_GGUF_FLOAT32 || type == MOE_GGUF_FLOAT64;
    if (real && !isfinite(v->number)) return moe_json_add_str(to, key, not_finite(v->number));
    if (type == MOE_GGUF_FLOAT32) return moe_json_add_f32(to, key, (float)v->number);
    return moe_json_add(to, key, item(type, v));
}

/* Adds an array's first elements.  They are made as members of an object, because only the function for
 * members takes text with arbitrary bytes. */
static bool add_first(cJSON *o, const struct moe_gguf_pair *p)
{
    cJSON *first = moe_json_add_array(o, "first"), *bag = cJSON_CreateObject();
    bool ok = first && bag;
    for (int i = 0; ok && i < p->shown; i++) {
        ok = add_value(bag, "v", p->item, &p->value[i]);
        cJSON *v = ok ? cJSON_DetachItemFromObjectCaseSensitive(bag, "v") : NULL;
        ok = moe_json_append(first, v);
    }
    cJSON_Delete(bag);
    return ok;
}

static bool add_metadata(cJSON *j, const struct moe_gguf_head *h)
{
    cJSON *m = moe_json_add_object(j, "metadata");
    bool ok = m != NULL;
    for (int64_t i = 0; ok && i < h->n_pairs; i++) {
        const struct moe_gguf_pair *p = &h->pairs[i];
        if (p->type != MOE_GGUF_ARRAY) {
            ok = add_value(m, p->key, p->type, &p->value[0]);
            continue;
        }
        cJSON *o = moe_json_add_object(m, p->key);
        ok = o && moe_json_add_str(o, "type", moe_gguf_value_type_name(p->item)) &&
             moe_json_add_i64(o, "count", (int64_t)p->count) && add_first(o, p);
    }
    return ok;
}

/* Adds "bytes"; null for tensors of a type that this build does not know. */
static bool add_bytes(cJSON *o, bool known, uint64_t bytes)
{
    return known ? moe_json_add_i64(o, "bytes", (int64_t)bytes) != NULL
                 : moe_json_add_null(o, "bytes") != NULL;
}

static bool add_types(cJSON *j, const struct moe_gguf_head *h)
{
    int64_t tensors[TYPES_MAX + 1] = { 0 };
    uint64_t bytes[TYPES_MAX + 1] = { 0 };
    for (int64_t i = 0; i < h->n_tensors; i++) {
        const struct moe_gguf_entry *t = &h->tensors[i];
        uint32_t k = t->type < TYPES_MAX ? t->type : TYPES_MAX;
        tensors[k]++;
        bytes[k] += t->bytes;
    }
    cJSON *types = moe_json_add_object(j, "types");
    bool ok = types != NULL;
    for (uint32_t k = 0; ok && k <= TYPES_MAX; k++) {
        char room[32];
        if (!tensors[k]) continue;
        cJSON *o = moe_json_add_object(types, k < TYPES_MAX ? type_name(k, room) : "other types");
        ok = o && moe_json_add_i64(o, "tensors", tensors[k]) && add_bytes(o, moe_gguf_type_name(k), bytes[k]);
    }
    return ok;
}

static bool add_all_bytes(cJSON *j, const struct moe_gguf_head *h)
{
    uint64_t bytes = 0;
    bool known = true;
    for (int64_t i = 0; i < h->n_tensors; i++) {
        bytes += h->tensors[i].bytes;
        known &= moe_gguf_type_name(h->tensors[i].type) != NULL;
    }
    return add_bytes(j, known, bytes);
}

static bool add_string(cJSON *j, const char *as, const struct moe_gguf_head *h, const char *key)
{
    const struct moe_gguf_pair *p = moe_gguf_find(h, key);
    if (!p || p->type != MOE_GGUF_STRING) return moe_json_add_null(j, as);
    return moe_json_add_text(j, as, p->value[0].text, p->value[0].kept);
}

static cJSON *summary(const struct moe_gguf_head *h)
{
    cJSON *j = cJSON_CreateObject();
    bool ok = j && moe_json_add_str(j, "kind", "gguf") && moe_json_add_i64(j, "version", h->version) &&
              add_string(j, "architecture", h, "general.architecture") &&
              add_string(j, "name", h, "general.name") && moe_json_add_i64(j, "tensors", h->n_tensors) &&
              add_all_bytes(j, h) && add_types(j, h);
    ok = ok && add_metadata(j, h) && moe_json_add_null(j, "verified") &&
         moe_json_add_array(j, "problems");
    if (ok) return j;
    cJSON_Delete(j);
    return NULL;
}

static bool add_tensor(cJSON *list, const struct moe_gguf_entry *t)
{
    char room[32];
    cJSON *row = moe_json_append(list, cJSON_CreateObject()), *shape = NULL;
    bool ok = moe_json_add_str(row, "name", t->name) &&
              moe_json_add_str(row, "type", type_name(t->type, room)) &&
              (shape = moe_json_add_array(row, "shape"));
    for (uint32_t d = 0; ok && d < t->ndim; d++)
        ok = moe_json_append(shape, cJSON_CreateNumber((double)t->ne[d]));
    return ok && add_bytes(row, moe_gguf_type_name(t->type), t->bytes) &&
           moe_json_add_i64(row, "offset", (int64_t)t->offset);
}

static enum moe_code list_tensors(cJSON *j, const struct moe_gguf_head *h, const char *pattern,
                                  struct moe_err *err)
{
    struct moe_re *re = NULL;
    if (*pattern) MOE_TRY(moe_re_open(&re, pattern, err));
    cJSON *list = moe_json_add_array(j, "tensor_list");
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < h->n_tensors; i++)
        if (!re || moe_re_match(re, h->tensors[i].name, strlen(h->tensors[i].name)))
            ok = add_tensor(list, &h->tensors[i]);
    moe_re_close(&re);
    return ok ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for the list of tensors");
}

/* ---- for people ---- */

/* The text for "bytes": "1.5 GiB", or for null that they are unknown. */
static const char *size_text(const cJSON *o, char room[16])
{
    const cJSON *bytes = moe_json_get(o, "bytes");
    return bytes ? moe_human_bytes((uint64_t)bytes->valuedouble, room)
                 : "bytes unknown (a type that this build does not know)";
}

/* Prints a value as JSON, so text is between quotes. */
static bool print_value(const char *key, const cJSON *v)
{
    const cJSON *type = moe_json_get(v, "type"), *count = moe_json_get(v, "count");
    char *json = moe_json_print(cJSON_IsObject(v) ? moe_json_get(v, "first") : v, 0);
    if (!json) return false;
    if (cJSON_IsObject(v))
        moe_print_line("  %s = %.0f of %s: %s", key, count->valuedouble, type->valuestring, json);
    else moe_print_line("  %s = %s", key, json);
    free(json);
    return true;
}

static bool print_all(const cJSON *j, const struct moe_gguf_head *h, bool everything)
{
    char human[16], room[32];
    const cJSON *m = moe_json_get(j, "metadata");
    char *arch = moe_json_print(cJSON_GetObjectItemCaseSensitive(j, "architecture"), 0);
    int64_t shown = 0;
    bool ok = arch != NULL;
    if (ok) moe_print_line("gguf, version %u, architecture %s", h->version, arch);
    free(arch);
    moe_print_line("  %lld tensor%s, %s", (long long)h->n_tensors, moe_plural(h->n_tensors),
                   size_text(j, human));
    for (const cJSON *t = moe_json_get(j, "types")->child; t; t = t->next)
        moe_print_line("  %-14s %8.0f tensors  %s", t->string, moe_json_get(t, "tensors")->valuedouble,
                       size_text(t, human));
    moe_print_line("%lld key%s of metadata:", (long long)h->n_pairs, moe_plural(h->n_pairs));
    for (const cJSON *v = m->child; ok && v; v = v->next)
        if (everything || shown < KEYS_SHOWN) ok = print_value(v->string, v), shown++;
    if (shown < h->n_pairs)
        moe_print_line("  and %lld more (--tensors or --json shows all)", (long long)(h->n_pairs - shown));
    for (const cJSON *r = everything ? moe_json_get(j, "tensor_list")->child : NULL; ok && r; r = r->next) {
        char *shape = moe_json_print(moe_json_get(r, "shape"), 0);
        const cJSON *bytes = moe_json_get(r, "bytes");
        snprintf(room, sizeof room, "%.0f", bytes ? bytes->valuedouble : 0);
        ok = shape != NULL;
        if (ok)
            moe_print_line("%s  %s  %s  %s bytes", moe_json_get(r, "name")->valuestring,
                           moe_json_get(r, "type")->valuestring, shape, bytes ? room : "unknown");
        free(shape);
    }
    return ok;
}

enum moe_code moe_inspect_gguf(const char *path, const char *pattern, bool text, cJSON **out,
                               struct moe_err *err)
{
    struct moe_gguf_head h;
    *out = NULL;
    MOE_TRY(moe_gguf_read(&h, path, err));
    cJSON *j = summary(&h);
    enum moe_code code = j ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for the summary");
    if (code == MOE_OK && pattern) code = list_tensors(j, &h, pattern, err);
    if (code == MOE_OK && text && !print_all(j, &h, pattern != NULL))
        code = moe_fail(err, MOE_NOMEM, "no memory to print it");
    moe_gguf_head_release(&h);
    if (code == MOE_OK) *out = j;
    else cJSON_Delete(j);
    return code;
}
