/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat-typescript.c - tools as TypeScript declarations, by the rules of Moonshot's encoder
 * (tool_declaration_ts.py of K2.5). */
#include "base/grow.h"
#include "formats/tokenizer/chat-internal.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A member, also one whose value is null. */
static const cJSON *get(const cJSON *o, const char *key) { return cJSON_GetObjectItemCaseSensitive(o, key); }

/* ---- which schemas the encoder accepts ---- */

/* The named schemas of a function ("$defs"); self: a schema refers to the whole parameters. */
struct defs { const cJSON **v; int n; size_t cap; bool self, nomem; };

/* Check a schema; `documented`: its description and constraints will be written, too. */
static bool check(struct defs *d, const cJSON *schema, bool documented);

static bool truthy(const cJSON *v)
{
    if (!v || cJSON_IsNull(v) || cJSON_IsFalse(v)) return false;
    if (cJSON_IsString(v)) return *v->valuestring != 0;
    return cJSON_IsNumber(v) ? v->valuedouble != 0 : cJSON_IsTrue(v) || v->child;
}

/* Add named schemas; one of the same name replaces an earlier one. */
static void add_defs(struct defs *d, const cJSON *list)
{
    for (const cJSON *c = list ? list->child : NULL; c && !d->nomem; c = c->next) {
        int i = 0;
        while (i < d->n && strcmp(d->v[i]->string, c->string)) i++;
        d->nomem = !MOE_GROW(d->v, d->cap, (size_t)i + 1);
        if (d->nomem) return;
        d->v[i] = c;
        d->n += i == d->n;
    }
}

/* Whether Python's set() accepts `required`: a list of values that can be hashed, the keys of an object, the
 * characters of a string. */
static bool check_required(const cJSON *required)
{
    for (const cJSON *c = cJSON_IsArray(required) ? required->child : NULL; c; c = c->next)
        if (cJSON_IsArray(c) || cJSON_IsObject(c)) return false;
    return !required || cJSON_IsArray(required) || cJSON_IsObject(required) || cJSON_IsString(required);
}

static bool check_object(struct defs *d, const cJSON *schema)
{
    const cJSON *defs = get(schema, "$defs"), *more = moe_json_get(schema, "additionalProperties");
    const cJSON *properties = get(schema, "properties");
    if (truthy(defs) && !cJSON_IsObject(defs)) return false;
    add_defs(d, defs);
    if (more && !cJSON_IsBool(more) && !(cJSON_IsObject(more) && check(d, more, false))) return false;
    if (!properties) return true;
    if (!cJSON_IsObject(properties) || !check_required(get(schema, "required"))) return false;
    for (const cJSON *c = properties->child; c; c = c->next)
        if (!check(d, c, true)) return false;
    return true;
}

static bool check_ref(struct defs *d, const cJSON *ref)
{
    static const char head[] = "#/$defs/";
    if (!cJSON_IsString(ref)) return false;
    if (!strcmp(ref->valuestring, "#")) return d->self = true;
    if (strncmp(ref->valuestring, head, sizeof head - 1)) return false;
    for (int i = 0; i < d->n; i++)
        if (!strcmp(d->v[i]->string, strrchr(ref->valuestring, '/') + 1)) return cJSON_IsObject(d->v[i]);
    return false;
}

static bool whole(const cJSON *v)
{
    return v->valuestring ? !strpbrk(v->valuestring, ".eE") : v->valuedouble == floor(v->valuedouble);
}

/* The type that all values of an enum must have; false when `type` lists several. */
static bool enum_type(const cJSON *type, const char **name)
{
    *name = "";
    if (cJSON_IsArray(type)) {
        int n = cJSON_GetArraySize(type);
        const cJSON *a = type->child, *b = n == 2 ? a->next : NULL;
        bool null_a = n && cJSON_IsString(a) && !strcmp(a->valuestring, "null");
        bool null_b = b && cJSON_IsString(b) && !strcmp(b->valuestring, "null");
        if (n != 1 && !(n == 2 && (null_a || null_b))) return false;
        type = b && null_a ? b : a;
    }
    if (cJSON_IsString(type)) *name = type->valuestring;
    return true;
}

/* Check that an enum's values are of its type, if it has one; null fits any type.  In place of a list an
 * object stands for its keys, and a string for its characters. */
static bool check_enum(const cJSON *schema)
{
    const cJSON *list = get(schema, "enum");
    const char *t;
    if (!enum_type(get(schema, "type"), &t)) return false;
    if (cJSON_IsObject(list) || cJSON_IsString(list))
        return !truthy(list) || (strcmp(t, "number") && strcmp(t, "integer") && strcmp(t, "boolean"));
    if (!cJSON_IsArray(list)) return false;
    for (const cJSON *c = list->child; c; c = c->next) {
        bool number = cJSON_IsNumber(c) || cJSON_IsBool(c); /* in Python a bool is a number */
        if (cJSON_IsNull(c)) continue;
        if ((!strcmp(t, "string") && !cJSON_IsString(c)) || (!strcmp(t, "number") && !number) ||
            (!strcmp(t, "boolean") && !cJSON_IsBool(c)) ||
            (!strcmp(t, "integer") && (!number || (cJSON_IsNumber(c) && !whole(c))))) return false;
    }
    return true;
}

static const char *union_name(const cJSON *type)
{
    static const char *const names[][2] = {
        { "string", "string" }, { "number", "number" }, { "integer", "number" }, { "boolean", "boolean" },
        { "null", "null" }, { "object", "{}" }, { "array", "Array<any>" },
    };
    for (size_t i = 0; cJSON_IsString(type) && i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i][0], type->valuestring)) return names[i][1];
    return NULL;
}

/* Whether the type is not a string, for example null; where such a type may stand alone, it is written as
 * Python's str does. */
static bool odd(const cJSON *schema)
{
    const cJSON *type = get(schema, "type");
    return type && !cJSON_IsString(type) && !cJSON_IsArray(type) && !get(schema, "$ref") &&
        !get(schema, "anyOf") && !get(schema, "enum");
}

static bool check_list(struct defs *d, const cJSON *list)
{
    bool empty = (cJSON_IsObject(list) || cJSON_IsString(list)) && !truthy(list);
    if (!cJSON_IsArray(list) && !empty) return false;
    for (const cJSON *c = list->child; c; c = c->next)
        if (!check(d, c, false) || odd(c)) return false;
    return true;
}

/* The constraints that a schema of this type may have, sorted. */
static const char *const *constraints(const cJSON *schema)
{
    static const char *const none[] = { NULL }, *const text[] = { "maxLength", "minLength", "pattern", NULL },
                             *const number[] = { "maximum", "minimum", NULL },
                             *const list[] = { "maxItems", "minItems", NULL };
    const cJSON *type = get(schema, "type");
    if (!cJSON_IsString(type) || get(schema, "$ref") || get(schema, "anyOf") || get(schema, "enum"))
        return none;
    const char *t = type->valuestring;
    if (!strcmp(t, "number") || !strcmp(t, "integer")) return number;
    return !strcmp(t, "string") ? text : !strcmp(t, "array") ? list : none;
}

static bool has_docs(const cJSON *schema)
{
    bool any = truthy(get(schema, "description"));
    for (const char *const *k = constraints(schema); *k; k++) any = any || get(schema, *k);
    return any;
}

static bool check_description(const cJSON *o)
{
    const cJSON *description = get(o, "description");
    return !truthy(description) || cJSON_IsString(description);
}

static bool check(struct defs *d, const cJSON *schema, bool documented)
{
    const cJSON *type = get(schema, "type"), *any = get(schema, "anyOf");
    const cJSON *ref = get(schema, "$ref"), *items = get(schema, "items");
    if (cJSON_IsBool(schema)) return true;
    if (!cJSON_IsObject(schema) || (documented && !check_description(schema))) return false;
    if (ref) return check_ref(d, ref);
    if (any) return check_list(d, any);
    if (get(schema, "enum")) return check_enum(schema);
    if (!type) return !schema->child;
    if (cJSON_IsArray(type)) {
        for (const cJSON *c = type->child; c; c = c->next)
            if (!union_name(c)) return false;
        return true;
    }
    if (!cJSON_IsString(type)) return true;
    if (!strcmp(type->valuestring, "object")) return check_object(d, schema);
    if (strcmp(type->valuestring, "array") || !truthy(items)) return true;
    return check(d, items, true) && !(odd(items) && has_docs(items));
}

/* ---- writing ---- */

static void put_type(struct moe_chat_out *o, const cJSON *schema, int indent);

static void put_indent(struct moe_chat_out *o, int indent)
{
    while (indent-- > 0) moe_chat_puts(o, "  ");
}

/* Write "// line" for every line of a description; an empty line stays empty. */
static void put_description(struct moe_chat_out *o, const char *s, int indent)
{
    for (;;) {
        size_t n = strcspn(s, "\n");
        if (n) put_indent(o, indent);
        if (n) moe_chat_puts(o, "// ");
        moe_chat_put(o, s, n);
        moe_chat_puts(o, "\n");
        if (!s[n]) return;
        s += n + 1;
    }
}

/* Write a string as Python's repr does; all its characters are taken to be printable. */
static void put_repr(struct moe_chat_out *o, const char *s)
{
    char quote = strchr(s, '\'') && !strchr(s, '"') ? '"' : '\'';
    moe_chat_put(o, &quote, 1);
    for (; *s; s++) {
        const char *letter = strchr("\nn\tt\rr", *s);
        char escape[8];
        if (*s == quote || *s == '\\') moe_chat_put(o, (char[]){ '\\', *s }, 2);
        else if (*s == '\n' || *s == '\t' || *s == '\r') moe_chat_put(o, (char[]){ '\\', letter[1] }, 2);
        else if ((unsigned char)*s >= ' ' && *s != 0x7f) moe_chat_put(o, s, 1);
        else moe_chat_put(o, escape, (size_t)snprintf(escape, sizeof escape, "\\x%02x", (unsigned)*s));
    }
    moe_chat_put(o, &quote, 1);
}

/* Write a value as Python's str does, and the elements of a list or object as repr does. */
static void put_python(struct moe_chat_out *o, const cJSON *v)
{
    bool object = cJSON_IsObject(v);
    if (cJSON_IsString(v)) moe_chat_puts(o, v->valuestring);
    else if (cJSON_IsNumber(v)) moe_chat_put_number(o, v);
    else if (!object && !cJSON_IsArray(v))
        moe_chat_puts(o, cJSON_IsTrue(v) ? "True" : cJSON_IsFalse(v) ? "False" : "None");
    else {
        moe_chat_puts(o, object ? "{" : "[");
        for (const cJSON *c = v->child; c; c = c->next) {
            if (object) put_repr(o, c->string);
            if (object) moe_chat_puts(o, ": ");
            if (cJSON_IsString(c)) put_repr(o, c->valuestring);
            else put_python(o, c);
            if (c->next) moe_chat_puts(o, ", ");
        }
        moe_chat_puts(o, object ? "}" : "]");
    }
}

static void put_docs(struct moe_chat_out *o, const cJSON *schema, int indent)
{
    const cJSON *description = get(schema, "description");
    bool any = false;
    if (truthy(description)) put_description(o, description->valuestring, indent);
    for (const char *const *k = constraints(schema); *k; k++) {
        const cJSON *v = get(schema, *k);
        if (!v) continue;
        if (!any) put_indent(o, indent);
        moe_chat_puts(o, any ? ", " : "// ");
        moe_chat_puts(o, *k);
        moe_chat_puts(o, ": ");
        put_python(o, v);
        any = true;
    }
    if (any) moe_chat_puts(o, "\n");
}

/* Bytes of the first UTF-8 character of a text that is not empty. */
static size_t char_bytes(const char *s)
{
    size_t n = 1;
    while ((s[n] & 0xc0) == 0x80) n++;
    return n;
}

/* Whether `list`, which check_required has accepted, contains a name. */
static bool listed(const cJSON *list, const char *name)
{
    if (cJSON_IsString(list)) return *name && !name[char_bytes(name)] && strstr(list->valuestring, name);
    for (const cJSON *c = list ? list->child : NULL; c; c = c->next)
        if (cJSON_IsObject(list) ? !strcmp(c->string, name) :
            cJSON_IsString(c) && !strcmp(c->valuestring, name)) return true;
    return false;
}

static void put_field(struct moe_chat_out *o, const cJSON *schema, bool optional, int indent)
{
    const cJSON *preset = moe_json_get(schema, "default");
    put_docs(o, schema, indent);
    if (preset) {
        put_indent(o, indent);
        moe_chat_puts(o, "// Default: ");
        if (cJSON_IsBool(preset)) put_python(o, preset);
        else moe_chat_put_json(o, preset, false);
        moe_chat_puts(o, "\n");
    }
    put_indent(o, indent);
    moe_chat_puts(o, schema->string);
    moe_chat_puts(o, optional ? "?: " : ": ");
    put_type(o, schema, indent);
}

/* Write the fields of an object: the required ones, then the others, or with `as_they_are` in their own
 * order.  Returns their number. */
static int put_fields(struct moe_chat_out *o, const cJSON *schema, int indent, bool as_they_are)
{
    const cJSON *properties = moe_json_get(schema, "properties"), *required = get(schema, "required");
    int n = 0;
    for (int pass = 0; pass < (as_they_are ? 1 : 2); pass++)
        for (const cJSON *c = properties ? properties->child : NULL; c; c = c->next) {
            bool optional = !listed(required, c->string);
            if (!as_they_are && optional != (pass == 1)) continue;
            moe_chat_puts(o, n++ ? ",\n" : "\n");
            put_field(o, c, optional, indent);
        }
    return n;
}

static void put_object(struct moe_chat_out *o, const cJSON *schema, int indent)
{
    const cJSON *more = moe_json_get(schema, "additionalProperties");
    moe_chat_puts(o, "{");
    int n = put_fields(o, schema, indent + 1, false);
    if (more) {
        moe_chat_puts(o, n++ ? ",\n" : "\n");
        put_indent(o, indent + 1);
        moe_chat_puts(o, "[k: string]: ");
        if (cJSON_IsBool(more)) moe_chat_puts(o, cJSON_IsTrue(more) ? "any" : "never");
        else put_type(o, more, indent + 1);
    }
    if (n) moe_chat_puts(o, "\n");
    if (n) put_indent(o, indent);
    moe_chat_puts(o, "}");
}

static void put_array(struct moe_chat_out *o, const cJSON *schema, int indent)
{
    const cJSON *items = get(schema, "items");
    if (!truthy(items)) moe_chat_puts(o, "Array<any>");
    else if (!has_docs(items)) {
        moe_chat_puts(o, "Array<");
        put_type(o, items, indent);
        moe_chat_puts(o, ">");
    } else {
        moe_chat_puts(o, "Array<\n");
        put_docs(o, items, indent + 1);
        put_indent(o, indent + 1);
        put_type(o, items, indent + 1);
        moe_chat_puts(o, "\n");
        put_indent(o, indent);
        moe_chat_puts(o, ">");
    }
}

/* Write alternatives, the schemas of an anyOf or the names of a list of types. */
static void put_alternatives(struct moe_chat_out *o, const cJSON *list, bool any, int indent)
{
    for (const cJSON *c = list->child; c; c = c->next) {
        if (any) put_type(o, c, indent);
        else moe_chat_puts(o, union_name(c));
        if (c->next) moe_chat_puts(o, " | ");
    }
}

static void put_quoted(struct moe_chat_out *o, const char *s, size_t n)
{
    moe_chat_puts(o, "\"");
    moe_chat_put(o, s, n);
    moe_chat_puts(o, "\"");
}

static void put_values(struct moe_chat_out *o, const cJSON *list)
{
    for (const char *s = cJSON_IsString(list) ? list->valuestring : ""; *s; ) {
        size_t n = char_bytes(s);
        put_quoted(o, s, n);
        s += n;
        if (*s) moe_chat_puts(o, " | ");
    }
    for (const cJSON *c = list->child; c; c = c->next) {
        const char *s = cJSON_IsObject(list) ? c->string : cJSON_IsString(c) ? c->valuestring : NULL;
        if (s) put_quoted(o, s, strlen(s));
        else put_python(o, c);
        if (c->next) moe_chat_puts(o, " | ");
    }
}

static void put_type(struct moe_chat_out *o, const cJSON *schema, int indent)
{
    const cJSON *type = get(schema, "type"), *any = get(schema, "anyOf");
    const cJSON *ref = get(schema, "$ref"), *values = get(schema, "enum");
    if (cJSON_IsBool(schema)) moe_chat_puts(o, cJSON_IsTrue(schema) ? "any" : "null");
    else if (ref)
        moe_chat_puts(o, strcmp(ref->valuestring, "#") ? strrchr(ref->valuestring, '/') + 1 : "parameters");
    else if (any) put_alternatives(o, any, true, indent);
    else if (values) put_values(o, values);
    else if (!type) moe_chat_puts(o, "any");
    else if (cJSON_IsArray(type)) put_alternatives(o, type, false, indent);
    else if (cJSON_IsString(type) && !strcmp(type->valuestring, "object")) put_object(o, schema, indent);
    else if (cJSON_IsString(type) && !strcmp(type->valuestring, "array")) put_array(o, schema, indent);
    else if (cJSON_IsString(type) && !strcmp(type->valuestring, "integer")) moe_chat_puts(o, "number");
    else put_python(o, type);
}

/* Write the whole parameters as an interface, because a schema refers to them. */
static void put_whole(struct moe_chat_out *o, const cJSON *parameters)
{
    moe_chat_puts(o, "interface parameters {");
    if (put_fields(o, parameters, 1, true)) moe_chat_puts(o, "\n");
    moe_chat_puts(o, "}\n");
}

/* Write the named schemas as interfaces: those that are known when the parameters have been read.  A schema
 * that one of them defines itself can be referred to from then on, but is not written. */
static bool put_interfaces(struct moe_chat_out *o, struct defs *d)
{
    int n = d->n;
    const cJSON **v = n ? malloc((size_t)n * sizeof *v) : NULL;
    if (n && !v) return !(d->nomem = true);
    if (n) memcpy(v, d->v, (size_t)n * sizeof *v);
    bool good = true;
    for (int i = 0; i < n && good; i++) {
        const cJSON *description = get(v[i], "description");
        good = cJSON_IsObject(v[i]) && check(d, v[i], false) && check_description(v[i]);
        if (!good) break;
        if (truthy(description)) put_description(o, description->valuestring, 0);
        moe_chat_puts(o, "interface ");
        moe_chat_puts(o, v[i]->string);
        moe_chat_puts(o, " ");
        put_type(o, v[i], 0);
        moe_chat_puts(o, "\n");
    }
    free(v);
    return good;
}

/* Write one function; false when a schema is refused: the caller then takes back what was written. */
static bool put_declaration(struct moe_chat_out *o, const cJSON *f, const cJSON *parameters, struct defs *d)
{
    const cJSON *name = get(f, "name"), *description = get(f, "description");
    if (!check_object(d, parameters) || !check_description(f)) return false;
    bool self = d->self; /* read now: a named schema that refers to the whole does not count */
    if (self) put_whole(o, parameters);
    if (!put_interfaces(o, d)) return false;
    if (truthy(description)) put_description(o, description->valuestring, 0);
    moe_chat_puts(o, "type ");
    if (name) put_python(o, name);
    else moe_chat_puts(o, "function");
    moe_chat_puts(o, " = (_: ");
    if (self) moe_chat_puts(o, "parameters");
    else put_object(o, parameters, 0);
    moe_chat_puts(o, ") => any;\n");
    return true;
}

static bool put_function(struct moe_chat_out *o, const cJSON *f)
{
    static const cJSON nothing = { .type = cJSON_Object };
    struct defs d = { .n = 0 };
    const cJSON *parameters = get(f, "parameters");
    if (!truthy(parameters)) parameters = &nothing;
    bool good = cJSON_IsObject(parameters) && put_declaration(o, f, parameters, &d);
    if (d.nomem) moe_chat_fail(o, MOE_NOMEM, -1, "no memory for tools");
    free(d.v);
    return good;
}

bool moe_chat_put_typescript(struct moe_chat_out *o, const cJSON *tools)
{
    size_t before = o->text.n, none;
    bool good = true;
    moe_chat_puts(o, "# Tools\n\n## functions\nnamespace functions {\n");
    none = o->text.n;
    for (const cJSON *c = tools->child; c && good; c = c->next) {
        const cJSON *type = get(c, "type"), *f = get(c, "function");
        bool function = cJSON_IsString(type) && !strcmp(type->valuestring, "function") && truthy(f);
        good = cJSON_IsObject(c) && (!function || (cJSON_IsObject(f) && put_function(o, f)));
    }
    good = good && o->text.n > none;
    if (good) moe_chat_puts(o, "}\n");
    else if (o->code == MOE_OK) o->text.n = before; /* no special token came since, so it is still there */
    return good || o->code != MOE_OK;
}
