/* SPDX-License-Identifier: Apache-2.0 */
/* JSON output: building trees that record a failed addition, and printing them. */
#include "base/json.h"

#include "base/buffer.h"
#include "base/show.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A flag in cJSON's `type`, above the bits that cJSON uses (8 for the type, 2 flags), which cJSON copies and
 * never tests: something that was to be added to this object or array is missing. */
enum { LACKING = 1 << 16 };

static cJSON *lack(cJSON *o)
{
    if (o) o->type |= LACKING;
    return NULL;
}

bool moe_json_whole(const cJSON *tree)
{
    bool whole = tree && !(tree->type & LACKING);
    for (const cJSON *c = whole ? tree->child : NULL; whole && c; c = c->next) whole = moe_json_whole(c);
    return whole;
}

cJSON *moe_json_add(cJSON *o, const char *key, cJSON *v)
{
    if (v && cJSON_AddItemToObject(o, key, v)) return v;
    cJSON_Delete(v);
    return lack(o);
}

cJSON *moe_json_append(cJSON *array, cJSON *v)
{
    if (v && cJSON_AddItemToArray(array, v)) return v;
    cJSON_Delete(v);
    return lack(array);
}

cJSON *moe_json_replace(cJSON *o, const char *key, cJSON *v)
{
    /* cJSON 1.7.15 adds the value without a name when it has no memory for the name */
    if (cJSON_ReplaceItemInObjectCaseSensitive(o, key, v)) return v->string ? v : lack(o);
    cJSON_Delete(v);
    return lack(o);
}

cJSON *moe_json_ref(const cJSON *v)
{
    cJSON *r = cJSON_CreateNull();
    if (!r) return NULL;
    r->type = (v->type & ~cJSON_StringIsConst) | cJSON_IsReference; /* the node's own name is a copy */
    r->child = v->child;
    r->valuestring = v->valuestring;
    r->valueint = v->valueint;
    r->valuedouble = v->valuedouble;
    return r;
}

cJSON *moe_json_add_object(cJSON *o, const char *key) { return moe_json_add(o, key, cJSON_CreateObject()); }
cJSON *moe_json_add_array(cJSON *o, const char *key) { return moe_json_add(o, key, cJSON_CreateArray()); }
cJSON *moe_json_add_null(cJSON *o, const char *key) { return moe_json_add(o, key, cJSON_CreateNull()); }

cJSON *moe_json_add_bool(cJSON *o, const char *key, bool v)
{
    return moe_json_add(o, key, cJSON_CreateBool(v));
}

cJSON *moe_json_add_str(cJSON *o, const char *key, const char *s)
{
    return moe_json_add(o, key, cJSON_CreateString(s));
}

cJSON *moe_json_add_f64(cJSON *o, const char *key, double v)
{
    return moe_json_add(o, key, cJSON_CreateNumber(v));
}

cJSON *moe_json_add_i64(cJSON *o, const char *key, int64_t v)
{
    return moe_json_add_f64(o, key, (double)v);
}

cJSON *moe_json_add_f32(cJSON *o, const char *key, float v)
{
    char s[40];
    for (int digits = 6; isfinite(v) && digits <= 9; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, (double)v);
        if (strtof(s, NULL) == v) break;
    }
    return moe_json_add_f64(o, key, isfinite(v) ? strtod(s, NULL) : (double)v);
}

cJSON *moe_json_add_measured(cJSON *o, const char *key, double v)
{
    char s[40];
    snprintf(s, sizeof s, "%.6g", v);
    return moe_json_add_f64(o, key, isfinite(v) ? strtod(s, NULL) : v);
}

void moe_json_add_err(cJSON *o, enum moe_code code, const struct moe_err *e)
{
    moe_json_add_f64(o, "code", code);
    moe_json_add_str(o, "name", moe_code_name(code));
    moe_json_add_str(o, "message", e->msg);
    if (e->file[0]) moe_json_add_str(o, "file", e->file);
    else moe_json_add_null(o, "file");
    if (e->tensor[0]) moe_json_add_str(o, "tensor", e->tensor);
    else moe_json_add_null(o, "tensor");
}

/* ---- printing: cJSON's own printer has neither our number format nor a readable indent ---- */

/* File names are arbitrary bytes and messages may be cut anywhere, so bytes that are not UTF-8 are printed as
 * U+FFFD and the output stays valid JSON.  Characters that must not reach a terminal are escaped, because
 * people also read JSON there. */
static void put_string(struct moe_buffer *t, const char *s, size_t n)
{
    static const char special[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    size_t len;
    moe_buffer_put(t, "\"", 1);
    for (const char *end = s + n; s < end; s += len) {
        char esc[8] = { '\\' };
        uint32_t code = 0;
        const char *short_form = *s ? strchr(special, *s) : NULL;
        int whole = moe_utf8_decode((const unsigned char *)s, (size_t)(end - s), &code);
        len = whole ? (size_t)whole : 1;
        if (!whole) moe_buffer_put(t, "\xef\xbf\xbd", 3);
        else if (short_form) esc[1] = letters[short_form - special], moe_buffer_put(t, esc, 2);
        else if (moe_must_escape(code)) moe_buffer_printf(t, "\\u%04x", code);
        else moe_buffer_put(t, s, len);
    }
    moe_buffer_put(t, "\"", 1);
}

static void put_number(struct moe_buffer *t, double v)
{
    char s[40];
    if (!isfinite(v)) snprintf(s, sizeof s, "null");
    else if (v == floor(v) && fabs(v) < 0x1p53) snprintf(s, sizeof s, "%.0f", v == 0 ? 0.0 : v);
    else
        for (int digits = 6; digits <= 17; digits++) {
            snprintf(s, sizeof s, "%.*g", digits, v);
            if (strtod(s, NULL) == v) break;
        }
    moe_buffer_put(t, s, strlen(s));
}

static void newline(struct moe_buffer *t, int indent, int depth)
{
    if (!indent) return;
    moe_buffer_put(t, "\n", 1);
    for (int i = 0; i < indent * depth; i++) moe_buffer_put(t, " ", 1);
}

static void put_value(struct moe_buffer *t, const cJSON *v, int indent, int depth)
{
    if (v->type & LACKING) t->failed = true;
    else if (cJSON_IsNumber(v)) put_number(t, v->valuedouble);
    else if (cJSON_IsString(v)) put_string(t, v->valuestring, strlen(v->valuestring));
    else if (cJSON_IsRaw(v)) /* a string from moe_json_add_text, escaped already */
        moe_buffer_put(t, v->valuestring, strlen(v->valuestring));
    else if (cJSON_IsBool(v)) moe_buffer_put(t, cJSON_IsTrue(v) ? "true" : "false", cJSON_IsTrue(v) ? 4 : 5);
    else if (cJSON_IsArray(v) || cJSON_IsObject(v)) {
        bool flat = cJSON_IsArray(v) && (!v->child || !(v->child->type & (cJSON_Array | cJSON_Object)));
        moe_buffer_put(t, cJSON_IsArray(v) ? "[" : "{", 1);
        for (const cJSON *c = v->child; c; c = c->next) {
            if (!flat) newline(t, indent, depth + 1);
            if (cJSON_IsObject(v)) {
                put_string(t, c->string, strlen(c->string));
                moe_buffer_put(t, ": ", 2);
            }
            put_value(t, c, indent, depth + 1);
            if (c->next) moe_buffer_put(t, indent && !flat ? "," : ", ", indent && !flat ? 1 : 2);
        }
        if (v->child && !flat) newline(t, indent, depth);
        moe_buffer_put(t, cJSON_IsArray(v) ? "]" : "}", 1);
    } else {
        moe_buffer_put(t, "null", 4);
    }
}

char *moe_json_print(const cJSON *o, int indent)
{
    struct moe_buffer t = { 0 };
    if (!o) return NULL;
    put_value(&t, o, indent, 0);
    if (indent) moe_buffer_put(&t, "\n", 1);
    if (!t.failed) return t.p;
    free(t.p);
    return NULL;
}

cJSON *moe_json_add_text(cJSON *o, const char *key, const char *s, size_t n)
{
    struct moe_buffer t = { 0 };
    put_string(&t, s, n);
    cJSON *added = moe_json_add(o, key, t.failed ? NULL : cJSON_CreateRaw(t.p));
    free(t.p);
    return added;
}
