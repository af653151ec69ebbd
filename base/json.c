/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include "base/io.h"
#include "base/json-internal.h"
#include "base/strmap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum moe_code check_keys(const cJSON *o, const char *file, struct moe_err *err)
{
    struct moe_strmap seen = { 0 };
    enum moe_code code = MOE_OK;
    for (const cJSON *c = o->child; c && code == MOE_OK; c = c->next) {
        int added = cJSON_IsObject(o) ? moe_strmap_add(&seen, c->string, strlen(c->string), 0, NULL) : 1;
        if (added < 0) code = moe_fail_at(err, MOE_NOMEM, file, NULL, "no memory to check it");
        else if (!added)
            code = moe_fail_at(err, MOE_CORRUPT, file, NULL, "the key '%.100s' appears twice", c->string);
        else if (c->child) code = check_keys(c, file, err);
    }
    moe_strmap_release(&seen);
    return code;
}

size_t moe_json_space(const char *s, size_t n, size_t i)
{
    while (i < n && (s[i] == ' ' || s[i] == '\t' || s[i] == '\r' || s[i] == '\n')) i++;
    return i;
}

/* Whether an object continues at s[i], after its brace.  A row that was cut off may end inside its key; then
 * the next line decides. */
static bool object_goes_on(const char *s, size_t n, size_t i)
{
    for (;;) {
        i = moe_json_space(s, n, i);
        if (i == n || s[i] != '"') return i < n && s[i] == '}';
        for (i++; i < n && s[i] != '"' && (unsigned char)s[i] >= ' '; i++) i += s[i] == '\\';
        if (i >= n || s[i] == '"') break;
        i = moe_json_space(s, n, i);
        if (i == n || s[i++] != '{') return false;
    }
    i = i < n ? moe_json_space(s, n, i + 1) : n;
    return i == n || s[i] == ':';
}

enum moe_json_start moe_json_begins(const char *s, size_t n)
{
    size_t i = moe_json_space(s, n, 0), next = i < n ? moe_json_space(s, n, i + 1) : n;
    if (i < n && s[i] == '{') return object_goes_on(s, n, i + 1) ? MOE_JSON_OBJECT : MOE_JSON_NONE;
    if (next == n || s[i] != '[' || s[next] != '{') return MOE_JSON_NONE;
    return object_goes_on(s, n, next + 1) ? MOE_JSON_ARRAY : MOE_JSON_NONE;
}

/* The next number in the text outside strings; *n gets its length. */
static const char *next_number(const char *s, const char *end, size_t *n)
{
    for (bool in_string = false; s < end; s++) {
        if (in_string && *s == '\\') s++;
        else if (*s == '"') in_string = !in_string;
        else if (!in_string && (*s == '-' || (*s >= '0' && *s <= '9'))) {
            *n = moe_json_number_length(s, (size_t)(end - s));
            return s;
        }
    }
    return NULL;
}

/* Older releases of cJSON read only 63 characters of a number and fail on the rest. */
static bool has_long_number(const char *s, const char *end)
{
    for (size_t n; (s = next_number(s, end, &n)); s += n)
        if (n > 63) return true;
    return false;
}

enum moe_code moe_json_parse(const char *text, size_t size, const char *file, cJSON **out,
                             struct moe_err *err)
{
    size_t at = 0;
    if (size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, size -= 3; /* a byte order mark */
    const char *why = moe_json_check(text, size, &at);
    *out = NULL;
    MOE_TRY(moe_not_lfs(text, size, file, err));
    if (moe_json_space(text, size, 0) == size) return moe_fail_at(err, MOE_CORRUPT, file, NULL, "is empty");
    if (why) /* for a text that ends too early the last byte is named */
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "%s%s at byte %zu",
                           why == moe_json_no_nul ? "" : "is not JSON: ", why, at < size ? at : size - 1);
    cJSON *j = cJSON_ParseWithLengthOpts(text, size, NULL, false);
    if (!j && has_long_number(text, text + size))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "has a number of more than 63 characters");
    if (!j) return moe_fail_at(err, MOE_NOMEM, file, NULL, "no memory for its JSON");
    enum moe_code code = check_keys(j, file, err);
    if (code != MOE_OK) cJSON_Delete(j);
    else *out = j;
    return code;
}

/* Store the spellings of a tree's numbers; the tree and the text have the numbers in the same order. */
static bool keep_numbers(cJSON *v, const char **at, const char *end)
{
    size_t n;
    if (cJSON_IsNumber(v)) {
        const char *s = next_number(*at, end, &n);
        v->valuestring = s ? cJSON_malloc(n + 1) : NULL;
        if (!v->valuestring) return false;
        memcpy(v->valuestring, s, n);
        v->valuestring[n] = 0;
        *at = s + n;
    }
    for (cJSON *c = v->child; c; c = c->next)
        if (!keep_numbers(c, at, end)) return false;
    return true;
}

enum moe_code moe_json_keep_numbers(cJSON *root, const char *text, size_t size, struct moe_err *err)
{
    return keep_numbers(root, &text, text + size) ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for JSON");
}

/* Bytes of malloc'd blocks: a node; a number's spelling or a string, with the allocator's header; and what
 * the search for duplicate keys takes for one key while its map grows. */
enum { NODE = 80, SHORT = 32, KEY = 160 };

uint64_t moe_json_memory_bound(const char *s, size_t n)
{
    uint64_t values = 1, strings = 0, keys = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string && s[i] == '\\') i++;
        else if (s[i] == '"') strings += in_string = !in_string;
        else if (in_string) continue;
        else if (s[i] == ',' || s[i] == '[' || s[i] == '{') values++;
        else if (s[i] == ':') keys++;
    }
    return values * (NODE + SHORT) + strings * SHORT + keys * KEY + n;
}

static enum moe_code parse_kept(const char *text, size_t size, cJSON **out, struct moe_err *err)
{
    MOE_TRY(moe_json_parse(text, size, NULL, out, err));
    enum moe_code code = moe_json_keep_numbers(*out, text, size, err);
    if (code == MOE_OK) return MOE_OK;
    cJSON_Delete(*out);
    *out = NULL;
    return code;
}

enum moe_code moe_json_parse_row(const char *text, size_t size, const struct moe_json_row *row, cJSON **out,
                                 struct moe_err *err)
{
    uint64_t need = row->memory ? moe_json_memory_bound(text, size) : 0;
    char line[32] = "";
    *out = NULL;
    if (row->line) snprintf(line, sizeof line, "line %lld: ", (long long)row->line);
    if (need > row->memory)
        return moe_fail_at(err, MOE_NOMEM, row->file, NULL,
                           "%sits JSON takes up to %llu bytes of memory, and %llu are there for it "
                           "(try a larger --memory, or shorter rows)",
                           line, (unsigned long long)need, (unsigned long long)row->memory);
    struct moe_err why = MOE_ERR_INIT;
    enum moe_code code = parse_kept(text, size, out, &why);
    if (code == MOE_OK) return MOE_OK;
    bool say = code == MOE_CORRUPT && row->why && strncmp(why.msg, moe_json_no_nul, strlen(moe_json_no_nul));
    return moe_fail_at(err, code, row->file, NULL, "%s%s%s%s%s", line, why.msg,
                       say ? " (" : "", say ? row->why : "", say ? ")" : "");
}

enum moe_code moe_json_read(const char *path, size_t limit, cJSON **out, struct moe_err *err)
{
    char *text;
    size_t n;
    *out = NULL;
    MOE_TRY(moe_read_file(path, limit, &text, &n, err));
    enum moe_code code = moe_json_parse(text, n, path, out, err);
    free(text);
    return code;
}

const cJSON *moe_json_get(const cJSON *o, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return v && !cJSON_IsNull(v) ? v : NULL;
}

static enum moe_code member(const cJSON *o, const char *key, bool need, const cJSON **v, const char *file,
                            struct moe_err *err)
{
    *v = moe_json_get(o, key);
    return *v || !need ? MOE_OK : moe_fail_at(err, MOE_CORRUPT, file, NULL, "the key '%s' is missing", key);
}

enum moe_code moe_json_i64(const cJSON *o, const char *key, bool need, int64_t min, int64_t max, int64_t *out,
                           const char *file, struct moe_err *err)
{
    const cJSON *v;
    MOE_TRY(member(o, key, need, &v, file, err));
    if (!v) return MOE_OK;
    if (!cJSON_IsNumber(v) || v->valuedouble != floor(v->valuedouble))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'%s' is not a whole number", key);
    if (!(v->valuedouble >= (double)min && v->valuedouble <= (double)max && v->valuedouble < 0x1p63))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'%s' is %.17g, outside %lld to %lld", key,
                           v->valuedouble, (long long)min, (long long)max);
    *out = (int64_t)v->valuedouble;
    return MOE_OK;
}

enum moe_code moe_json_f64(const cJSON *o, const char *key, bool need, double *out, const char *file,
                           struct moe_err *err)
{
    const cJSON *v;
    MOE_TRY(member(o, key, need, &v, file, err));
    if (!v) return MOE_OK;
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'%s' is not a finite number", key);
    *out = v->valuedouble;
    return MOE_OK;
}

enum moe_code moe_json_bool(const cJSON *o, const char *key, bool need, bool *out, const char *file,
                            struct moe_err *err)
{
    const cJSON *v;
    MOE_TRY(member(o, key, need, &v, file, err));
    if (!v) return MOE_OK;
    if (!cJSON_IsBool(v)) return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'%s' is not true or false", key);
    *out = cJSON_IsTrue(v);
    return MOE_OK;
}

enum moe_code moe_json_str(const cJSON *o, const char *key, bool need, const char **out, const char *file,
                           struct moe_err *err)
{
    const cJSON *v;
    MOE_TRY(member(o, key, need, &v, file, err));
    if (!v) return MOE_OK;
    if (!cJSON_IsString(v)) return moe_fail_at(err, MOE_CORRUPT, file, NULL, "'%s' is not a string", key);
    *out = v->valuestring;
    return MOE_OK;
}
