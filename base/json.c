/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include "base/io.h"
#include "base/show.h"
#include "base/strmap.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdatomic.h>
#include <string.h>

enum { DEPTH = 64 };

/* The length of the JSON number at s; 0 for what only strtod takes (01, 1., .5, 1e). */
static size_t number(const char *s, size_t n)
{
    size_t i = n && *s == '-', digits = i;
    while (i < n && s[i] >= '0' && s[i] <= '9') i++;
    if (i == digits || (s[digits] == '0' && i > digits + 1)) return 0;
    if (i < n && s[i] == '.') {
        for (digits = ++i; i < n && s[i] >= '0' && s[i] <= '9'; i++) ;
        if (i == digits) return 0;
    }
    if (i < n && (s[i] == 'e' || s[i] == 'E')) {
        i++;
        if (i < n && (s[i] == '+' || s[i] == '-')) i++;
        for (digits = i; i < n && s[i] >= '0' && s[i] <= '9'; i++) ;
        if (i == digits) return 0;
    }
    return i;
}

/* Sound JSON, but texts end at a NUL here. */
static const char no_nul[] = "holds a text with a NUL (\\u0000), which is not taken,";

/* cJSON accepts raw control bytes, invalid UTF-8, a NUL in a string, loose numbers and any depth up to
 * 1000: look at the text first. */
static const char *bad_text(const char *s, size_t n, size_t *at)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        *at = i;
        if (!c) return "a NUL byte";
        if (in_string && c < 0x20) return "a raw control character in a string";
        if (in_string && c == '\\') {
            if (n - i >= 6 && !memcmp(s + i, "\\u0000", 6)) return no_nul;
            i++;
            continue;
        }
        if (c == '"') in_string = !in_string;
        if (in_string) {
            if (c < 0x80) continue;
            size_t len = (size_t)moe_utf8_char((const unsigned char *)s + i, n - i);
            if (!len) return "invalid UTF-8";
            i += len - 1;
            continue;
        }
        if (c >= 0x80 || (c < 0x20 && c != '\t' && c != '\n' && c != '\r')) return "a stray character";
        if (c == '-' || (c >= '0' && c <= '9')) {
            size_t len = number(s + i, n - i);
            if (!len) return "a bad number";
            i += len - 1;
            continue;
        }
        if ((c == '{' || c == '[') && ++depth > DEPTH) return "nested too deeply";
        if ((c == '}' || c == ']') && depth) depth--;
    }
    return NULL;
}

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

/* cJSON says NULL for bad text and for no memory alike, and a tree built without looking lacks what did not
 * fit: so its allocations are watched. */
static atomic_bool any_failed;
static _Thread_local bool failed;

static void *watched(size_t n)
{
    void *p = malloc(n);
    if (!p) atomic_store(&any_failed, failed = true);
    return p;
}

__attribute__((constructor)) static void watch(void)
{
    cJSON_InitHooks(&(cJSON_Hooks){ watched, free });
}

bool moe_json_failed(void) { return atomic_load(&any_failed); }

size_t moe_json_space(const char *s, size_t n, size_t i)
{
    while (i < n && (s[i] == ' ' || s[i] == '\t' || s[i] == '\r' || s[i] == '\n')) i++;
    return i;
}

/* Does an object go on at s[i], behind its brace?  A line may end inside of its key, where a row was cut off:
 * the next line tells then. */
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

enum moe_code moe_json_parse(const char *text, size_t size, const char *file, cJSON **out,
                             struct moe_err *err)
{
    size_t at = 0;
    if (size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, size -= 3; /* a byte order mark */
    const char *end = NULL, *why = bad_text(text, size, &at);
    *out = NULL;
    MOE_TRY(moe_not_lfs(text, size, file, err));
    if (moe_json_space(text, size, 0) == size) return moe_fail_at(err, MOE_CORRUPT, file, NULL, "is empty");
    if (why)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "%s%s at byte %zu",
                           why == no_nul ? "" : "is not JSON: ", why, at);
    failed = false;
    cJSON *j = cJSON_ParseWithLengthOpts(text, size, &end, false);
    if (!j && failed) return moe_fail_at(err, MOE_NOMEM, file, NULL, "no memory for its JSON");
    if (!j) return moe_fail_at(err, MOE_CORRUPT, file, NULL, "is not JSON: bad syntax at byte %zu",
                               end && end >= text ? (size_t)(end - text) : 0);
    for (; end < text + size; end++)
        if (!strchr(" \t\r\n", *end)) {
            cJSON_Delete(j);
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "is not JSON: text after the value at byte %zu",
                               (size_t)(end - text));
        }
    enum moe_code code = check_keys(j, file, err);
    if (code != MOE_OK) cJSON_Delete(j);
    else *out = j;
    return code;
}

/* The next number in the text, strings passed over; its length in *n. */
static const char *next_number(const char *s, const char *end, size_t *n)
{
    for (bool in_string = false; s < end; s++) {
        if (in_string && *s == '\\') s++;
        else if (*s == '"') in_string = !in_string;
        else if (!in_string && (*s == '-' || (*s >= '0' && *s <= '9'))) {
            *n = number(s, (size_t)(end - s));
            return s;
        }
    }
    return NULL;
}

/* The numbers of a tree, in the order they have in the text. */
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

/* Blocks of malloc: a node, a spelling or a string with its header, and what looking for duplicates takes of
 * a key while the map grows. */
enum { NODE = 80, SHORT = 32, KEY = 160 };

uint64_t moe_json_need(const char *s, size_t n)
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
    uint64_t need = row->memory ? moe_json_need(text, size) : 0;
    *out = NULL;
    if (need > row->memory)
        return moe_fail_at(err, MOE_NOMEM, row->file, NULL,
                           "line %lld: its JSON takes up to %llu bytes of memory, and %llu are there for it "
                           "(try a larger --memory, or shorter rows)",
                           (long long)row->line, (unsigned long long)need, (unsigned long long)row->memory);
    struct moe_err why = MOE_ERR_INIT;
    enum moe_code code = parse_kept(text, size, out, &why);
    if (code == MOE_OK) return MOE_OK;
    bool say = code == MOE_CORRUPT && row->why && strncmp(why.msg, no_nul, sizeof no_nul - 1);
    return moe_fail_at(err, code, row->file, NULL, "line %lld: %s%s%s%s", (long long)row->line, why.msg,
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

cJSON *moe_json_add_f32(cJSON *o, const char *key, float v)
{
    char s[40];
    for (int digits = 6; isfinite(v) && digits <= 9; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, (double)v);
        if (strtof(s, NULL) == v) break;
    }
    return cJSON_AddNumberToObject(o, key, isfinite(v) ? strtod(s, NULL) : (double)v);
}

cJSON *moe_json_add_measured(cJSON *o, const char *key, double v)
{
    char s[40];
    snprintf(s, sizeof s, "%.6g", v);
    return cJSON_AddNumberToObject(o, key, isfinite(v) ? strtod(s, NULL) : v);
}

cJSON *moe_json_add_i64(cJSON *o, const char *key, int64_t v)
{
    return cJSON_AddNumberToObject(o, key, (double)v);
}

/* ---- printing: cJSON's own printer has neither our number format nor an indent that people like ---- */

struct text { char *p; size_t n, cap; bool failed; };

static void put(struct text *t, const char *s, size_t n)
{
    if (t->failed) return;
    if (t->n + n + 1 > t->cap) {
        size_t cap = 2 * t->cap + n + 256;
        char *p = realloc(t->p, cap);
        if (!p) {
            t->failed = true;
            return;
        }
        t->p = p;
        t->cap = cap;
    }
    memcpy(t->p + t->n, s, n);
    t->n += n;
    t->p[t->n] = 0;
}

/* Names of files are bytes, and messages are cut anywhere: what is not UTF-8 becomes U+FFFD, so that it stays
 * JSON.  What must not reach a terminal is escaped: people look at JSON, too. */
static void put_string(struct text *t, const char *s, size_t n)
{
    static const char special[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    size_t len;
    put(t, "\"", 1);
    for (const char *end = s + n; s < end; s += len) {
        char esc[8] = { '\\' };
        uint32_t code = 0;
        const char *short_form = *s ? strchr(special, *s) : NULL;
        int whole = moe_utf8_decode((const unsigned char *)s, (size_t)(end - s), &code);
        len = whole ? (size_t)whole : 1;
        if (!whole) put(t, "\xef\xbf\xbd", 3);
        else if (short_form) esc[1] = letters[short_form - special], put(t, esc, 2);
        else if (moe_is_hidden(code)) put(t, esc, (size_t)snprintf(esc, sizeof esc, "\\u%04x", code));
        else put(t, s, len);
    }
    put(t, "\"", 1);
}

static void put_number(struct text *t, double v)
{
    char s[40];
    if (!isfinite(v)) snprintf(s, sizeof s, "null");
    else if (v == floor(v) && fabs(v) < 0x1p53) snprintf(s, sizeof s, "%.0f", v == 0 ? 0.0 : v);
    else
        for (int digits = 6; digits <= 17; digits++) {
            snprintf(s, sizeof s, "%.*g", digits, v);
            if (strtod(s, NULL) == v) break;
        }
    put(t, s, strlen(s));
}

static void newline(struct text *t, int indent, int depth)
{
    if (!indent) return;
    put(t, "\n", 1);
    for (int i = 0; i < indent * depth; i++) put(t, " ", 1);
}

static void put_value(struct text *t, const cJSON *v, int indent, int depth)
{
    if (cJSON_IsNumber(v)) put_number(t, v->valuedouble);
    else if (cJSON_IsString(v)) put_string(t, v->valuestring, strlen(v->valuestring));
    else if (cJSON_IsRaw(v)) put(t, v->valuestring, strlen(v->valuestring)); /* moe_json_add_text made it */
    else if (cJSON_IsBool(v)) put(t, cJSON_IsTrue(v) ? "true" : "false", cJSON_IsTrue(v) ? 4 : 5);
    else if (cJSON_IsArray(v) || cJSON_IsObject(v)) {
        bool flat = cJSON_IsArray(v) && (!v->child || !(v->child->type & (cJSON_Array | cJSON_Object)));
        put(t, cJSON_IsArray(v) ? "[" : "{", 1);
        for (const cJSON *c = v->child; c; c = c->next) {
            if (!flat) newline(t, indent, depth + 1);
            if (cJSON_IsObject(v)) {
                put_string(t, c->string, strlen(c->string));
                put(t, ": ", 2);
            }
            put_value(t, c, indent, depth + 1);
            if (c->next) put(t, indent && !flat ? "," : ", ", indent && !flat ? 1 : 2);
        }
        if (v->child && !flat) newline(t, indent, depth);
        put(t, cJSON_IsArray(v) ? "]" : "}", 1);
    } else {
        put(t, "null", 4);
    }
}

char *moe_json_print(const cJSON *o, int indent)
{
    struct text t = { 0 };
    put_value(&t, o, indent, 0);
    if (indent) put(&t, "\n", 1);
    if (!t.failed) return t.p;
    free(t.p);
    return NULL;
}

bool moe_json_replace(cJSON *o, const char *key, cJSON *v)
{
    /* cJSON 1.7.15 has put it there without a name */
    if (cJSON_ReplaceItemInObjectCaseSensitive(o, key, v)) return v->string != NULL;
    cJSON_Delete(v);
    return false;
}

cJSON *moe_json_add_text(cJSON *o, const char *key, const char *s, size_t n)
{
    struct text t = { 0 };
    put_string(&t, s, n);
    cJSON *added = t.failed ? NULL : cJSON_AddRawToObject(o, key, t.p);
    if (!added) atomic_store(&any_failed, true);
    free(t.p);
    return added;
}
