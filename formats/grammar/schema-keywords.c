/* SPDX-License-Identifier: Apache-2.0 */
/* Which keywords a schema may have, and what their values look like; types; references. */
#include "base/grow.h"
#include "formats/grammar/schema-internal.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a keyword's value has to be. */
enum shape {
    NOTE,
    SCHEMA,
    SCHEMAS,
    SCHEMA_MAP,
    NAMES,
    COUNT,
    NUMBER,
    TEXT,
    VALUES,
    VALUE,
    TYPE,
    BOUND,
    ITEMS,
    NO
};

static const struct { const char *name; enum shape shape;
} keywords[] = {
    { "type", TYPE },
    { "enum", VALUES },
    { "const", VALUE },
    { "$ref", TEXT },
    { "allOf", SCHEMAS },
    { "anyOf", SCHEMAS },
    { "oneOf", SCHEMAS },
    { "nullable", NO },
    { "properties", SCHEMA_MAP },
    { "patternProperties", SCHEMA_MAP },
    { "additionalProperties", SCHEMA },
    { "propertyNames", SCHEMA },
    { "required", NAMES },
    { "minProperties", COUNT },
    { "maxProperties", COUNT },
    { "prefixItems", SCHEMAS },
    { "items", ITEMS },
    { "additionalItems", SCHEMA },
    { "minItems", COUNT },
    { "maxItems", COUNT },
    { "uniqueItems", NO },
    { "minLength", COUNT },
    { "maxLength", COUNT },
    { "pattern", TEXT },
    { "format", TEXT },
    { "minimum", NUMBER },
    { "maximum", NUMBER },
    { "exclusiveMinimum", BOUND },
    { "exclusiveMaximum", BOUND },
    { "multipleOf", NUMBER },
    { "title", NOTE },
    { "description", NOTE },
    { "default", NOTE },
    { "examples", NOTE },
    { "example", NOTE },
    { "$schema", NOTE },
    { "$id", NOTE },
    { "$comment", NOTE },
    { "deprecated", NOTE },
    { "readOnly", NOTE },
    { "writeOnly", NOTE },
    { "$defs", NOTE },
    { "definitions", NOTE },
};

static int find_keyword(const char *name)
{
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        if (!strcmp(keywords[i].name, name)) return (int)i;
    return -1;
}

static bool is_schema(const cJSON *v) { return cJSON_IsObject(v) || cJSON_IsBool(v); }

static bool all(const cJSON *list, bool (*is)(const cJSON *))
{
    for (const cJSON *v = list->child; v; v = v->next)
        if (!is(v)) return false;
    return true;
}

static bool is_text(const cJSON *v) { return cJSON_IsString(v); }

static const char *const type_names[] = {
    "null", "boolean", "integer", "number", "string", "array", "object"
};

static bool is_type(const cJSON *v)
{
    for (int i = 0; cJSON_IsString(v) && i < 7; i++)
        if (!strcmp(v->valuestring, type_names[i])) return true;
    return false;
}

static bool is_count(const cJSON *v)
{
    return cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble == floor(v->valuedouble);
}

static bool fits(const cJSON *v, enum shape shape)
{
    switch (shape) {
    case SCHEMA: return is_schema(v);
    case SCHEMAS: return cJSON_IsArray(v) && v->child && all(v, is_schema);
    case SCHEMA_MAP: return cJSON_IsObject(v) && all(v, is_schema);
    case ITEMS: return is_schema(v) || (cJSON_IsArray(v) && all(v, is_schema));
    case NAMES: return cJSON_IsArray(v) && all(v, is_text);
    case COUNT: return is_count(v);
    case NUMBER: return cJSON_IsNumber(v);
    case BOUND: return cJSON_IsNumber(v) || cJSON_IsBool(v);
    case TEXT: return cJSON_IsString(v);
    case VALUES: return cJSON_IsArray(v);
    case TYPE: return is_type(v) || (cJSON_IsArray(v) && v->child && all(v, is_type));
    case NO: return cJSON_IsBool(v);
    default: return true;
    }
}

bool moe_schema_check(struct moe_schema *c, const cJSON *schema)
{
    if (!cJSON_IsObject(schema)) {
        moe_work_fail(c->w, MOE_CORRUPT, "a schema must be an object or a boolean");
        return false;
    }
    for (const cJSON *v = schema->child; v && c->w->code == MOE_OK; v = v->next) {
        int i = find_keyword(v->string);
        if (i < 0 && v->string[0] == 'x' && v->string[1] == '-') continue;
        if (i < 0)
            moe_work_fail(c->w, MOE_UNSUPPORTED, "the schema keyword '%s' is not supported", v->string);
        else if (!fits(v, keywords[i].shape))
            moe_work_fail(c->w, MOE_CORRUPT, "the value of the schema keyword '%s' is of the wrong kind",
                          v->string);
        else if (!strcmp(v->string, "uniqueItems") && cJSON_IsTrue(v))
            moe_work_fail(c->w, MOE_UNSUPPORTED, "the schema keyword 'uniqueItems' is not supported");
    }
    return c->w->code == MOE_OK;
}

bool moe_schema_says(const cJSON *schema, const char *but)
{
    for (const cJSON *v = schema->child; v; v = v->next) {
        int i = find_keyword(v->string);
        if (but && !strcmp(but, v->string)) continue;
        if (i < 0 ? strncmp(v->string, "x-", 2) != 0 : keywords[i].shape != NOTE && keywords[i].shape != NO)
            return true;
    }
    return false;
}

uint64_t moe_schema_count(struct moe_schema *c, const cJSON *schema, const char *key, uint64_t otherwise)
{
    const cJSON *v = schema ? cJSON_GetObjectItemCaseSensitive(schema, key) : NULL;
    if (!v || c->w->code != MOE_OK) return otherwise;
    return v->valuedouble < MOE_NO_LIMIT ? (uint64_t)v->valuedouble : MOE_NO_LIMIT;
}

/* ---- types ---- */

static unsigned type_bits(const char *name)
{
    for (int i = 0; i < 7; i++)
        if (!strcmp(name, type_names[i])) return i == 3 ? MOE_TYPE_NUMBER | MOE_TYPE_INTEGER : 1u << i;
    return 0;
}

unsigned moe_schema_types(const cJSON *schema)
{
    const cJSON *t = cJSON_GetObjectItemCaseSensitive(schema, "type");
    unsigned bits = 0;
    if (!t) return MOE_TYPES;
    if (cJSON_IsString(t)) bits = type_bits(t->valuestring);
    else
        for (const cJSON *v = t->child; v; v = v->next) bits |= type_bits(v->valuestring);
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(schema, "nullable"))) bits |= MOE_TYPE_NULL;
    return bits;
}

bool moe_schema_has_type(const cJSON *v, unsigned types)
{
    if (cJSON_IsNumber(v)) {
        bool whole = v->valuedouble == floor(v->valuedouble);
        return types & MOE_TYPE_NUMBER || (whole && types & MOE_TYPE_INTEGER);
    }
    return types & (cJSON_IsNull(v) ? MOE_TYPE_NULL : cJSON_IsBool(v) ? MOE_TYPE_BOOLEAN
                    : cJSON_IsString(v) ? MOE_TYPE_STRING : cJSON_IsArray(v) ? MOE_TYPE_ARRAY
                                                                            : MOE_TYPE_OBJECT);
}

/* ---- references ---- */

/* Decode one step of a JSON pointer in a fragment, with %XX, ~0 and ~1; *s moves to its end. */
static void pointer_step(const char **s, char *out, size_t room)
{
    size_t n = 0;
    for (; **s && **s != '/'; ++*s) {
        char ch = **s, hex[3] = { 0 };
        if (ch == '%' && isxdigit((unsigned char)(*s)[1]) && isxdigit((unsigned char)(*s)[2])) {
            memcpy(hex, *s + 1, 2);
            ch = (char)strtol(hex, NULL, 16);
            *s += 2;
        }
        if (n + 1 < room) out[n++] = ch;
    }
    out[n] = 0;
    size_t k = 0;
    for (size_t i = 0; i < n; i++, k++) {
        bool escape = out[i] == '~' && (out[i + 1] == '0' || out[i + 1] == '1');
        out[k] = escape ? (out[i + 1] == '0' ? '~' : '/') : out[i];
        i += escape;
    }
    out[k] = 0;
}

const cJSON *moe_schema_target(struct moe_schema *c, const cJSON *schema)
{
    const char *ref = cJSON_GetObjectItemCaseSensitive(schema, "$ref")->valuestring, *s = ref;
    const cJSON *v = c->root;
    char step[512];
    if (*s != '#' || (s[1] && s[1] != '/')) {
        moe_work_fail(c->w, MOE_UNSUPPORTED,
                      "reference '%s': only references within the schema are supported "
                      "('#/...')",
                      ref);
        return NULL;
    }
    for (s++; *s && v;) {
        s++;
        pointer_step(&s, step, sizeof step);
        if (cJSON_IsArray(v))
            v = isdigit((unsigned char)*step) ? cJSON_GetArrayItem(v, (int)strtol(step, NULL, 10)) : NULL;
        else v = cJSON_IsObject(v) ? cJSON_GetObjectItemCaseSensitive(v, step) : NULL;
    }
    if (!v || !is_schema(v)) {
        moe_work_fail(c->w, MOE_CORRUPT, "reference '%s' refers to no schema", ref);
        return NULL;
    }
    return v;
}

const cJSON *moe_schema_keep(struct moe_schema *c, cJSON *v)
{
    if (!v || !MOE_GROW(c->made, c->made_cap, c->n_made + 1)) {
        cJSON_Delete(v);
        moe_work_nomem(c->w);
        return NULL;
    }
    return c->made[c->n_made++] = v;
}
