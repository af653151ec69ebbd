/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/container/original.h"

#include "base/grow.h"
#include "base/io.h"
#include "base/json.h"
#include "formats/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kinds[] = { "header", "index", "file", "directory" };
enum { KINDS = sizeof kinds / sizeof *kinds };

/* ---- tensors that no unit has a place for ---- */

const char *const moe_extra_files[MOE_EXTRA_COUNT] = { "vision.safetensors", "superseded.safetensors" };

enum moe_extra_kind moe_extra_kind_of(const char *skipped)
{
    static const char *const why[MOE_EXTRA_COUNT] = { "vision", MOE_SUPERSEDED };
    int k = 0;
    while (k < MOE_EXTRA_COUNT && (!skipped || strcmp(skipped, why[k]))) k++;
    return (enum moe_extra_kind)k;
}

const char *moe_extra_name(struct moe_arena *a, enum moe_extra_kind kind, const char *file, const char *name)
{
    if (kind != MOE_EXTRA_SUPERSEDED) return name;
    size_t n = strlen(file) + strlen(name) + 2;
    char *s = moe_arena_alloc(a, n);
    if (s) snprintf(s, n, "%s/%s", file, name);
    return s;
}

bool moe_extra_is_file(const char *name)
{
    for (int k = 0; k < MOE_EXTRA_COUNT; k++)
        if (!strcmp(name, moe_extra_files[k])) return true;
    return false;
}

/* ---- writing ---- */

/* The first line of a record, ["kind", "name", head, bytes, tail, spaces]; free() it, NULL when out of
 * memory. */
static char *line_of(enum moe_original_kind kind, const char *name, size_t head, size_t n, size_t tail,
                     size_t spaces)
{
    const double numbers[4] = { (double)head, (double)n, (double)tail, (double)spaces };
    cJSON *a = cJSON_CreateArray();
    bool ok = a && moe_json_append(a, cJSON_CreateString(kinds[kind])) &&
              moe_json_append(a, cJSON_CreateString(name));
    for (int i = 0; ok && i < 4; i++) ok = moe_json_append(a, cJSON_CreateNumber(numbers[i]));
    char *line = ok ? moe_json_print(a, 0) : NULL;
    cJSON_Delete(a);
    return line;
}

enum moe_code moe_original_add(struct moe_buffer *out, enum moe_original_kind kind, const char *name,
                               const char *text, size_t n,
                               const char *plain, size_t n_plain, struct moe_err *err)
{
    size_t spaces = 0, head = 0, tail = 0;
    while (spaces < n && text[n - spaces - 1] == ' ') spaces++;
    n -= spaces;
    size_t least = n < n_plain ? n : n_plain;
    while (head < least && text[head] == plain[head]) head++;
    while (tail < least - head && text[n - tail - 1] == plain[n_plain - tail - 1]) tail++;
    size_t middle = n - head - tail;
    char *line = line_of(kind, name, head, middle, tail, spaces);
    if (line) moe_buffer_printf(out, "%s\n", line);
    if (line) moe_buffer_put(out, text + head, middle);
    if (line) moe_buffer_put(out, "\n", 1);
    bool ok = line && !out->failed;
    free(line);
    return ok ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for '%.200s'", name);
}

/* ---- reading ---- */

bool moe_original_name(const char *name)
{
    char part[256];
    for (const char *slash; (slash = strchr(name, '/')); name = slash + 1) {
        size_t n = (size_t)(slash - name);
        if (*name == '.' || n >= sizeof part) return false;
        memcpy(part, name, n);
        part[n] = 0;
        if (!moe_plain_name(part)) return false;
    }
    return strlen(name) < sizeof part && moe_plain_name(name);
}

static bool parse_line(const cJSON *a, struct moe_original *o)
{
    double v[4];
    int n = 0, kind = 0;
    const cJSON *word = cJSON_IsArray(a) ? a->child : NULL, *name = word ? word->next : NULL;
    if (!cJSON_IsString(word) || !cJSON_IsString(name) || !moe_original_name(name->valuestring)) return false;
    while (kind < KINDS && strcmp(kinds[kind], word->valuestring)) kind++;
    if (kind == KINDS || (kind < MOE_ORIGINAL_FILE && !moe_plain_name(name->valuestring))) return false;
    for (const cJSON *i = name->next; i; i = i->next, n++) {
        if (n == 4 || !cJSON_IsNumber(i) || !(i->valuedouble >= 0) || i->valuedouble > 1e12) return false;
        v[n] = i->valuedouble;
        if (v[n] != (double)(uint64_t)v[n]) return false;
    }
    if (n != 4 || (kind == MOE_ORIGINAL_DIRECTORY && (v[0] > 0 || v[1] > 0 || v[2] > 0 || v[3] > 0)))
        return false;
    *o = (struct moe_original){ .kind = (enum moe_original_kind)kind, .head = (uint64_t)v[0],
                                .n = (size_t)v[1], .tail = (uint64_t)v[2], .spaces = (uint64_t)v[3] };
    return true;
}

/* Parse the record at byte *at; *at moves to the next one. */
static enum moe_code parse_record(const char *data, size_t size, size_t *at, const char *path,
                                  struct moe_original *o, struct moe_err *err)
{
    const char *line = data + *at, *end = memchr(line, '\n', size - *at);
    cJSON *a;
    if (!end) return moe_fail_at(err, MOE_CORRUPT, path, NULL, "its last record is cut short");
    MOE_TRY(moe_json_parse(line, (size_t)(end - line), path, &a, err));
    bool ok = parse_line(a, o);
    size_t left = size - (size_t)(end + 1 - data);
    if (ok) ok = o->n < left && end[1 + o->n] == '\n';
    o->name = ok ? strdup(a->child->next->valuestring) : NULL;
    cJSON_Delete(a);
    if (!ok) return moe_fail_at(err, MOE_CORRUPT, path, NULL, "the record at byte %zu is malformed", *at);
    if (!o->name) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its records");
    o->middle = end + 1;
    *at = (size_t)(end + 1 - data) + o->n + 1;
    return MOE_OK;
}

enum moe_code moe_originals_parse(const char *data, size_t size, const char *path, struct moe_originals *o,
                                  struct moe_err *err)
{
    size_t cap = 0;
    enum moe_code code = MOE_OK;
    *o = (struct moe_originals){ 0 };
    for (size_t at = 0; code == MOE_OK && at < size;) {
        if (!MOE_GROW(o->v, cap, (size_t)o->n + 1))
            code = moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its records");
        if (code == MOE_OK) code = parse_record(data, size, &at, path, &o->v[o->n], err);
        if (code == MOE_OK) o->n++;
    }
    if (code != MOE_OK) moe_originals_release(o);
    return code;
}

void moe_originals_release(struct moe_originals *o)
{
    for (int64_t i = 0; i < o->n; i++) free(o->v[i].name);
    free(o->v);
    *o = (struct moe_originals){ 0 };
}

enum moe_code moe_original_text(const struct moe_original *o, const char *plain, size_t n_plain, size_t limit,
                                const char *path, char **text,
                                size_t *n, struct moe_err *err)
{
    *text = NULL;
    if (o->head > n_plain || o->tail > n_plain || o->n > limit || o->spaces > limit ||
        o->head + o->n + o->tail + o->spaces > limit)
        return moe_fail_at(err, MOE_CORRUPT, path, NULL,
                           "the record of '%.200s' does not fit what source.jsonl says of it", o->name);
    *n = (size_t)(o->head + o->n + o->tail + o->spaces);
    char *p = malloc(*n + 1);
    if (!p) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for '%.200s'", o->name);
    memcpy(p, plain, o->head);
    memcpy(p + o->head, o->middle, o->n);
    memcpy(p + o->head + o->n, plain + n_plain - o->tail, o->tail);
    memset(p + o->head + o->n + o->tail, ' ', o->spaces);
    p[*n] = 0;
    *text = p;
    return MOE_OK;
}
