/* SPDX-License-Identifier: Apache-2.0 */
/* Schemas that a value has to meet at once become one schema; and schemas that no value meets at once. */
#include "base/json.h"
#include "formats/grammar/schema-internal.h"

#include <string.h>

enum { CHOICES_MAX = 64, DISJOINT_DEPTH = 8 };

static const cJSON *get(const cJSON *o, const char *key) { return cJSON_GetObjectItemCaseSensitive(o, key); }

static const char *const object_keys[] = { "properties", "patternProperties", "additionalProperties",
                                           "propertyNames", "required", NULL };

static bool is_one_of(const char *s, const char *const *names)
{
    while (*names && strcmp(*names, s)) names++;
    return *names;
}

static uint64_t size_of(const cJSON *v)
{
    uint64_t n = 1;
    for (const cJSON *x = v->child; x; x = x->next) n += size_of(x);
    return n;
}

static cJSON *copy(struct moe_schema *c, const cJSON *v)
{
    if (!moe_work_states(c->w, size_of(v))) return NULL;
    return cJSON_Duplicate(v, true);
}

/* {"allOf": [a, b]}; each may be NULL, which says nothing. */
static cJSON *both_of(struct moe_schema *c, const cJSON *a, const cJSON *b)
{
    if (!a || !b) return a || b ? copy(c, a ? a : b) : cJSON_CreateTrue();
    cJSON *o = cJSON_CreateObject(), *list = moe_json_add_array(o, "allOf");
    moe_json_append(list, copy(c, a));
    moe_json_append(list, copy(c, b));
    return o;
}

/* ---- single keywords ---- */

static cJSON *common(struct moe_schema *c, const cJSON *a, const cJSON *b)
{
    cJSON *list = cJSON_CreateArray();
    for (const cJSON *x = a->child; x && moe_work_steps(c->w, 1); x = x->next)
        for (const cJSON *y = b->child; y && moe_work_steps(c->w, 8); y = y->next)
            if (cJSON_Compare(x, y, true)) {
                moe_json_append(list, copy(c, x));
                break;
            }
    return list;
}

static cJSON *union_of(struct moe_schema *c, const cJSON *a, const cJSON *b)
{
    cJSON *list = copy(c, a);
    for (const cJSON *y = b->child; y; y = y->next) {
        const cJSON *x = a->child;
        while (x && moe_work_steps(c->w, 8) && !cJSON_Compare(x, y, true)) x = x->next;
        if (!x) moe_json_append(list, copy(c, y));
    }
    return list;
}

static cJSON *types_of_both(const cJSON *a, const cJSON *b)
{
    static const char *const names[] = {
        "null", "boolean", "integer", "number", "string", "array", "object"
    };
    unsigned bits = moe_schema_types(a) & moe_schema_types(b);
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < 7; i++)
        if (bits >> i & 1 && !(i == 2 && bits & MOE_TYPE_NUMBER))
            moe_json_append(list, cJSON_CreateString(names[i]));
    return list;
}

/* each pair of an alternative of a and one of b */
static cJSON *pairs(struct moe_schema *c, const cJSON *a, const cJSON *b)
{
    cJSON *list = cJSON_CreateArray();
    if (cJSON_GetArraySize(a) * (long)cJSON_GetArraySize(b) > CHOICES_MAX)
        moe_work_fail(c->w, MOE_UNSUPPORTED, "two lists of alternatives whose pairs are more than %d",
                      CHOICES_MAX);
    for (const cJSON *x = a->child; x && c->w->code == MOE_OK; x = x->next)
        for (const cJSON *y = b->child; y; y = y->next) moe_json_append(list, both_of(c, x, y));
    return list;
}

/* What `key` says when a value has to meet both x and y; NULL after a failure. */
static cJSON *both_values(struct moe_schema *c, const char *key, const cJSON *x, const cJSON *y)
{
    static const char *const larger[] = { "minLength", "minItems", "minProperties", "minimum",
                                          "exclusiveMinimum", NULL };
    static const char *const smaller[] = { "maxLength", "maxItems", "maxProperties", "maximum",
                                           "exclusiveMaximum", NULL };
    bool up = is_one_of(key, larger), down = is_one_of(key, smaller);
    if (cJSON_Compare(x, y, true)) return copy(c, x);
    if ((up || down) && cJSON_IsNumber(x) && cJSON_IsNumber(y))
        return copy(c, (x->valuedouble > y->valuedouble) == up ? x : y);
    if (!strcmp(key, "enum")) return common(c, x, y);
    if (!strcmp(key, "anyOf")) return pairs(c, x, y);
    if (!strcmp(key, "items") && !cJSON_IsArray(x) && !cJSON_IsArray(y)) return both_of(c, x, y);
    if (!strcmp(key, "allOf")) return union_of(c, x, y);
    moe_work_fail(c->w, MOE_UNSUPPORTED, "'%s' in two schemas that both apply is not supported", key);
    return NULL;
}

/* ---- objects ---- */

/* What a schema says of the member `key`; NULL: nothing. */
static const cJSON *says_of(const struct moe_schema *c, const cJSON *schema, const char *key)
{
    static const cJSON never = { .type = cJSON_False };
    const cJSON *properties = get(schema, "properties"), *p = properties ? get(properties, key) : NULL;
    const cJSON *more = get(schema, "additionalProperties");
    return p ? p : more ? more : c->closed && properties ? &never : NULL;
}

static void both_objects(struct moe_schema *c, cJSON *o, const cJSON *a, const cJSON *b)
{
    const cJSON *schemas[] = { a, b }, *x;
    const cJSON *more[] = { get(a, "additionalProperties"), get(b, "additionalProperties") };
    for (int i = 0; i < 2; i++)
        if (get(schemas[i], "patternProperties") || get(schemas[i], "propertyNames"))
            moe_work_fail(c->w, MOE_UNSUPPORTED,
                          "'patternProperties' and 'propertyNames' in one of two schemas of "
                          "objects that both apply are not supported");
    if (c->w->code != MOE_OK) return;
    bool closed = c->closed && (get(a, "properties") || get(b, "properties"));
    cJSON *properties =
        get(a, "properties") || get(b, "properties") ? moe_json_add_object(o, "properties") : NULL;
    for (int i = 0; i < 2; i++)
        cJSON_ArrayForEach(x, get(schemas[i], "properties"))
            if (moe_work_steps(c->w, 4 * (uint64_t)cJSON_GetArraySize(properties) + 1) &&
                !get(properties, x->string)) {
                /* under `closed` a schema without the property does not forbid it to the other one */
                const cJSON *p = closed && !more[0] && !get(get(a, "properties"), x->string)
                                     ? NULL
                                     : says_of(c, a, x->string);
                const cJSON *q = closed && !more[1] && !get(get(b, "properties"), x->string)
                                     ? NULL
                                     : says_of(c, b, x->string);
                moe_json_add(properties, x->string, both_of(c, p, q));
            }
    const cJSON *r = get(a, "required"), *s = get(b, "required");
    if (r || s) moe_json_add(o, "required", r && s ? union_of(c, r, s) : copy(c, r ? r : s));
    if (more[0] || more[1]) moe_json_add(o, "additionalProperties", both_of(c, more[0], more[1]));
}

/* ---- whole schemas ---- */

static bool is_object_key(const char *key) { return is_one_of(key, object_keys); }

static bool says_object(const cJSON *s, const char *but)
{
    for (const char *const *k = object_keys; *k; k++)
        if (get(s, *k) && !(but && !strcmp(but, *k))) return true;
    return false;
}

static bool is_note(const cJSON *v)
{
    cJSON alone = { .type = cJSON_Object, .child = &(cJSON){ .type = v->type, .string = v->string } };
    return !moe_schema_says(&alone, NULL) && strcmp(v->string, "nullable");
}

static void merge(struct moe_schema *c, cJSON *o, const cJSON *a, const char *but, const cJSON *b)
{
    const cJSON *v;
    bool objects = says_object(a, but) && says_object(b, NULL);
    if (get(a, "type") || get(b, "type")) moe_json_add(o, "type", types_of_both(a, b));
    cJSON_ArrayForEach(v, a) {
        const cJSON *w = get(b, v->string);
        if ((but && !strcmp(v->string, but)) || is_note(v) || !strcmp(v->string, "type") ||
            !strcmp(v->string, "nullable") || (objects && is_object_key(v->string)))
            continue;
        moe_json_add(o, v->string, w ? both_values(c, v->string, v, w) : copy(c, v));
        if (c->w->code != MOE_OK) return;
    }
    cJSON_ArrayForEach(v, b) {
        if (get(o, v->string) || is_note(v) || !strcmp(v->string, "nullable") ||
            (objects && is_object_key(v->string)))
            continue;
        moe_json_add(o, v->string, copy(c, v));
    }
    if (objects) both_objects(c, o, a, b);
}

const cJSON *moe_schema_both(struct moe_schema *c, const cJSON *a, const char *but, const cJSON *b)
{
    static const cJSON nothing = { .type = cJSON_Object };
    if (c->w->code != MOE_OK || !a || cJSON_IsFalse(a)) return c->w->code == MOE_OK ? a : NULL;
    if (cJSON_IsFalse(b) || cJSON_IsTrue(a)) return b;
    if (cJSON_IsTrue(b) && !but) return a;
    if (cJSON_IsTrue(b)) b = &nothing;
    if (!moe_schema_check(c, a) || !moe_schema_check(c, b)) return NULL;
    /* The keyword `but` of `a` has been dealt with; of the rest, references and combinations stay. */
    if (get(b, "$ref") && get(a, "$ref") && !(but && !strcmp(but, "$ref"))) {
        const cJSON *target = moe_schema_target(c, b);
        return target ? moe_schema_both(c, a, but, target) : NULL;
    }
    cJSON *o = cJSON_CreateObject();
    merge(c, o, a, but, b);
    if (c->w->code == MOE_OK && moe_json_whole(o)) return moe_schema_keep(c, o);
    cJSON_Delete(o);
    moe_work_nomem(c->w);
    return NULL;
}

/* ---- disjoint schemas ---- */

/* The values that a schema lists: those of "enum" or the one of "const", as *n nodes from *first on. */
static bool listed(const cJSON *s, const cJSON **first, bool *one)
{
    const cJSON *list = get(s, "enum"), *v = get(s, "const");
    *first = v ? v : list ? list->child : NULL;
    *one = v;
    return v || list;
}

static unsigned types_of(const cJSON *s)
{
    const cJSON *v;
    bool one;
    unsigned types = moe_schema_types(s), bits = 0;
    if (!listed(s, &v, &one)) return types;
    for (; v; v = one ? NULL : v->next)
        for (unsigned b = 1; b < MOE_TYPES; b <<= 1)
            if (moe_schema_has_type(v, types & b)) bits |= b;
    return bits;
}

static bool lists_disjoint(struct moe_schema *c, const cJSON *a, const cJSON *b)
{
    const cJSON *x, *y;
    bool one_x, one_y;
    if (!listed(a, &x, &one_x) || !listed(b, &y, &one_y)) return false;
    for (; x; x = one_x ? NULL : x->next)
        for (const cJSON *z = y; z && moe_work_steps(c->w, 8); z = one_y ? NULL : z->next)
            if (cJSON_Compare(x, z, true)) return false;
    return true;
}

static bool disjoint(struct moe_schema *c, const cJSON *a, const cJSON *b, int depth);

/* Whether a requires a member that cannot be the same in b. */
static bool members_differ(struct moe_schema *c, const cJSON *a, const cJSON *b, int depth)
{
    const cJSON *r, *required = get(b, "required");
    cJSON_ArrayForEach(r, get(a, "required")) {
        if (!cJSON_IsString(r) || !moe_work_steps(c->w, 1)) return false;
        const cJSON *x = says_of(c, a, r->valuestring), *y = says_of(c, b, r->valuestring), *k = NULL;
        if (y && cJSON_IsFalse(y)) return true;
        cJSON_ArrayForEach(k, required)
            if (cJSON_IsString(k) && !strcmp(k->valuestring, r->valuestring)) break;
        if (x && y && k && disjoint(c, x, y, depth + 1)) return true;
    }
    return false;
}

static bool disjoint(struct moe_schema *c, const cJSON *a, const cJSON *b, int depth)
{
    for (int i = 0; i < DISJOINT_DEPTH && a && get(a, "$ref"); i++) a = moe_schema_target(c, a);
    for (int i = 0; i < DISJOINT_DEPTH && b && get(b, "$ref"); i++) b = moe_schema_target(c, b);
    if (!a || !b || depth > DISJOINT_DEPTH || !moe_work_steps(c->w, 64)) return false;
    if (cJSON_IsFalse(a) || cJSON_IsFalse(b)) return true;
    if (!cJSON_IsObject(a) || !cJSON_IsObject(b) || !moe_schema_check(c, a) || !moe_schema_check(c, b))
        return false;
    unsigned types = types_of(a) & types_of(b);
    if (!types || lists_disjoint(c, a, b)) return true;
    return types == MOE_TYPE_OBJECT && (members_differ(c, a, b, depth) || members_differ(c, b, a, depth));
}

bool moe_schema_disjoint(struct moe_schema *c, const cJSON *a, const cJSON *b)
{
    return disjoint(c, a, b, 0);
}
