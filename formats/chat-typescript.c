/* formats/chat-typescript.c - tools as TypeScript declarations, by the rules of Moonshot's encoder
 * (tool_declaration_ts.py of K2.5). */
#include "formats/chat-internal.h"

#include "base/json.h"

#include <math.h>
#include <string.h>

/* A member, null ones too. */
static const cJSON *get(const cJSON *o, const char *key) { return cJSON_GetObjectItemCaseSensitive(o, key); }

/* ---- what the encoder takes ---- */

/* A function's schemas by name, and whether one refers to the whole. */
struct defs { const cJSON *v[256]; int n; bool self, refused; };

static bool check(struct defs *d, const cJSON *schema);

static void add_defs(struct defs *d, const cJSON *list)
{
    for (const cJSON *c = list ? list->child : NULL; c; c = c->next) {
        int i = 0;
        while (i < d->n && strcmp(d->v[i]->string, c->string)) i++;
        if (i == (int)(sizeof d->v / sizeof *d->v)) {
            d->refused = true;
            return;
        }
        d->v[i] = c;
        d->n += i == d->n;
    }
}

static bool check_object(struct defs *d, const cJSON *schema)
{
    const cJSON *defs = moe_json_get(schema, "$defs"), *more = moe_json_get(schema, "additionalProperties");
    const cJSON *properties = get(schema, "properties"), *required = get(schema, "required");
    const cJSON *description = get(schema, "description");
    if (defs && !cJSON_IsObject(defs)) return false;
    add_defs(d, defs);
    if (description && !cJSON_IsString(description)) return false;
    if (more && !cJSON_IsBool(more) && !(cJSON_IsObject(more) && check(d, more))) return false;
    if (!properties) return true;
    if (!cJSON_IsObject(properties) || (required && !cJSON_IsArray(required))) return false;
    for (const cJSON *c = properties->child; c; c = c->next)
        if (!check(d, c)) return false;
    return true;
}

static bool check_ref(struct defs *d, const cJSON *ref)
{
    static const char head[] = "#/$defs/";
    if (!cJSON_IsString(ref)) return false;
    if (!strcmp(ref->valuestring, "#")) return d->self = true;
    if (strncmp(ref->valuestring, head, sizeof head - 1)) return false;
    for (int i = 0; i < d->n; i++)
        if (!strcmp(d->v[i]->string, strrchr(ref->valuestring, '/') + 1)) return true;
    return false;
}

static bool whole(const cJSON *v)
{
    return v->valuestring ? !strpbrk(v->valuestring, ".eE") : v->valuedouble == floor(v->valuedouble);
}

/* Values are of the type beside them, if there is one; null is of any. */
static bool check_enum(const cJSON *schema)
{
    const cJSON *list = moe_json_get(schema, "enum"), *type = get(schema, "type");
    if (!cJSON_IsArray(list)) return false;
    if (cJSON_IsArray(type)) {
        int n = cJSON_GetArraySize(type);
        const cJSON *a = n == 1 || n == 2 ? type->child : NULL, *b = n == 2 ? a->next : NULL;
        if (!cJSON_IsString(a) || (b && !cJSON_IsString(b))) return false;
        if (b && strcmp(a->valuestring, "null") && strcmp(b->valuestring, "null")) return false;
        type = b && !strcmp(a->valuestring, "null") ? b : a;
    }
    for (const cJSON *c = list->child; c; c = c->next) {
        const char *t = cJSON_IsString(type) ? type->valuestring : "";
        bool number = cJSON_IsNumber(c) || cJSON_IsBool(c); /* Python's bool is a number */
        if (cJSON_IsArray(c) || cJSON_IsObject(c)) return false;
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

static bool check_list(struct defs *d, const cJSON *list)
{
    if (!cJSON_IsArray(list)) return false;
    for (const cJSON *c = list->child; c; c = c->next)
        if (!check(d, c)) return false;
    return true;
}

static bool truthy(const cJSON *v)
{
    if (!v || cJSON_IsNull(v) || cJSON_IsFalse(v)) return false;
    if (cJSON_IsString(v)) return *v->valuestring != 0;
    return cJSON_IsNumber(v) ? v->valuedouble != 0 : cJSON_IsTrue(v) || v->child;
}

/* Constraints of one type, sorted; each a scalar. */
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

static bool check_docs(const cJSON *schema)
{
    const cJSON *description = get(schema, "description");
    if (truthy(description) && !cJSON_IsString(description)) return false;
    for (const char *const *k = constraints(schema); *k; k++) {
        const cJSON *v = get(schema, *k);
        if (cJSON_IsArray(v) || cJSON_IsObject(v)) return false;
    }
    return true;
}

static bool check(struct defs *d, const cJSON *schema)
{
    const cJSON *type = get(schema, "type"), *any = get(schema, "anyOf");
    const cJSON *ref = get(schema, "$ref"), *items = get(schema, "items");
    if (cJSON_IsBool(schema)) return true;
    if (!cJSON_IsObject(schema) || !check_docs(schema)) return false;
    if (ref) return check_ref(d, ref);
    if (any) return check_list(d, any);
    if (get(schema, "enum")) return check_enum(schema);
    if (!type) return !schema->child;
    if (cJSON_IsArray(type)) {
        for (const cJSON *c = type->child; c; c = c->next)
            if (!union_name(c)) return false;
        return true;
    }
    if (!cJSON_IsString(type)) return false;
    if (!strcmp(type->valuestring, "object")) return check_object(d, schema);
    return strcmp(type->valuestring, "array") || !truthy(items) || check(d, items);
}

/* ---- writing ---- */

static void put_type(struct moe_chat_out *o, const cJSON *schema, int indent);

static void put_indent(struct moe_chat_out *o, int indent)
{
    while (indent-- > 0) moe_chat_puts(o, "  ");
}

/* "// line" for every line of a description; an empty line stays empty. */
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

/* A scalar as Python's str has it. */
static void put_python(struct moe_chat_out *o, const cJSON *v)
{
    if (cJSON_IsString(v)) moe_chat_puts(o, v->valuestring);
    else if (cJSON_IsNumber(v)) moe_chat_number(o, v);
    else moe_chat_puts(o, cJSON_IsTrue(v) ? "True" : cJSON_IsFalse(v) ? "False" : "None");
}

static bool has_docs(const cJSON *schema)
{
    bool any = truthy(get(schema, "description"));
    for (const char *const *k = constraints(schema); *k; k++) any = any || get(schema, *k);
    return any;
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

static bool listed(const cJSON *list, const char *name)
{
    for (const cJSON *c = list ? list->child : NULL; c; c = c->next)
        if (cJSON_IsString(c) && !strcmp(c->valuestring, name)) return true;
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
        else moe_chat_json(o, preset, false);
        moe_chat_puts(o, "\n");
    }
    put_indent(o, indent);
    moe_chat_puts(o, schema->string);
    moe_chat_puts(o, optional ? "?: " : ": ");
    put_type(o, schema, indent);
}

/* The fields of an object: required ones, then the others; with `as_they_are` in one row. */
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

/* Alternatives: of anyOf, of enum, of a list of types. */
static void put_alternatives(struct moe_chat_out *o, const cJSON *list, char kind, int indent)
{
    for (const cJSON *c = list->child; c; c = c->next) {
        if (kind == 'a') put_type(o, c, indent);
        else if (kind == 't') moe_chat_puts(o, union_name(c));
        else {
            if (cJSON_IsString(c)) moe_chat_puts(o, "\"");
            put_python(o, c);
            if (cJSON_IsString(c)) moe_chat_puts(o, "\"");
        }
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
    else if (any) put_alternatives(o, any, 'a', indent);
    else if (values) put_alternatives(o, values, 'e', indent);
    else if (!type) moe_chat_puts(o, "any");
    else if (cJSON_IsArray(type)) put_alternatives(o, type, 't', indent);
    else if (!strcmp(type->valuestring, "object")) put_object(o, schema, indent);
    else if (!strcmp(type->valuestring, "array")) put_array(o, schema, indent);
    else moe_chat_puts(o, strcmp(type->valuestring, "integer") ? type->valuestring : "number");
}

/* Interfaces that others refer to; the whole as "parameters" when something refers to that. */
static void put_interfaces(struct moe_chat_out *o, const cJSON *parameters, const struct defs *d, bool self,
                           int named)
{
    if (self) {
        moe_chat_puts(o, "interface parameters {");
        if (put_fields(o, parameters, 1, true)) moe_chat_puts(o, "\n");
        moe_chat_puts(o, "}\n");
    }
    for (int i = 0; i < named; i++) {
        const cJSON *description = get(d->v[i], "description");
        if (truthy(description)) put_description(o, description->valuestring, 0);
        moe_chat_puts(o, "interface ");
        moe_chat_puts(o, d->v[i]->string);
        moe_chat_puts(o, " ");
        put_type(o, d->v[i], 0);
        moe_chat_puts(o, "\n");
    }
}

static bool put_function(struct moe_chat_out *o, const cJSON *f)
{
    static const cJSON nothing = { .type = cJSON_Object };
    struct defs d = { .n = 0 };
    const cJSON *parameters = get(f, "parameters"), *name = get(f, "name");
    const cJSON *description = get(f, "description");
    if (!truthy(parameters)) parameters = &nothing;
    if (!cJSON_IsObject(parameters) || !check_object(&d, parameters) || (name && !cJSON_IsString(name)))
        return false;
    if (truthy(description) && !cJSON_IsString(description)) return false;
    bool self = d.self;
    int named = d.n;
    for (int i = 0; i < named; i++)
        if (!cJSON_IsObject(d.v[i]) || !check(&d, d.v[i])) return false;
    if (d.refused) return false;
    put_interfaces(o, parameters, &d, self, named);
    if (truthy(description)) put_description(o, description->valuestring, 0);
    moe_chat_puts(o, "type ");
    moe_chat_puts(o, name ? name->valuestring : "function");
    moe_chat_puts(o, " = (_: ");
    if (self) moe_chat_puts(o, "parameters");
    else put_object(o, parameters, 0);
    moe_chat_puts(o, ") => any;\n");
    return true;
}

bool moe_chat_typescript(struct moe_chat_out *o, const cJSON *tools)
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
    else if (o->code == MOE_OK) o->text.n = before; /* no mark was put since: it is still there */
    return good || o->code != MOE_OK;
}
