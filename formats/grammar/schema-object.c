/* SPDX-License-Identifier: Apache-2.0 */
/* Objects of JSON schemas: the declared properties in their order, each at most once; then any others. */
#include "formats/grammar/regex-internal.h"
#include "formats/grammar/schema-internal.h"

#include <string.h>

static const cJSON *get(const cJSON *schema, const char *key)
{
    return schema ? cJSON_GetObjectItemCaseSensitive(schema, key) : NULL;
}

static const cJSON never = { .type = cJSON_False };

/* The schema of further members: `never` if there may be none, NULL if they may be anything. */
static const cJSON *additional_of(const struct moe_schema *c, const cJSON *schema)
{
    const cJSON *a = get(schema, "additionalProperties");
    if (!a) return c->closed && get(schema, "properties") ? &never : NULL;
    return cJSON_IsFalse(a) ? &never : cJSON_IsTrue(a) ? NULL : a;
}

/* Whether the automaton takes the canonical spelling of a key. */
static bool takes(struct moe_schema *c, const struct moe_dfa *d, const char *key)
{
    struct moe_nfa n = { .work = c->w };
    struct moe_dfa one, both;
    uint32_t from = moe_nfa_state(&n), to = moe_schema_text(&n, from, key, false);
    moe_dfa_make(&one, &n, from, to);
    moe_dfa_combine(&both, &one, d, true, c->w);
    bool is = !moe_dfa_is_empty(&both);
    moe_dfa_release(&one), moe_dfa_release(&both);
    moe_nfa_release(&n);
    return is;
}

static void pattern_words(struct moe_schema *c, const char *pattern, struct moe_dfa *d)
{
    struct moe_nfa n = { .work = c->w };
    uint32_t from = moe_nfa_state(&n), to = moe_nfa_state(&n);
    moe_nfa_regex(&n, from, pattern, strlen(pattern), MOE_IN_JSON, true, to);
    moe_dfa_make(d, &n, from, to);
    moe_nfa_release(&n);
}

/* ---- declared properties ---- */

/* The schema of a declared property, cut down by the patterns and names that its key meets. */
static const cJSON *property_schema(struct moe_schema *c, const cJSON *object, const cJSON *value,
                                    const char *key)
{
    const cJSON *patterns = get(object, "patternProperties"), *names = get(object, "propertyNames");
    struct moe_dfa d;
    for (const cJSON *p = patterns ? patterns->child : NULL; p && c->w->code == MOE_OK; p = p->next) {
        pattern_words(c, p->string, &d);
        if (takes(c, &d, key)) value = moe_schema_both(c, value, NULL, p);
        moe_dfa_release(&d);
    }
    if (names && c->w->code == MOE_OK) {
        moe_schema_words(c, names, &d);
        if (!takes(c, &d, key)) value = &never;
        moe_dfa_release(&d);
    }
    return value ? value : &never;
}

static bool is_required(struct moe_schema *c, const cJSON *schema, const char *key)
{
    const cJSON *required = get(schema, "required"), *r;
    cJSON_ArrayForEach(r, required)
        if (!moe_work_steps(c->w, 1) || !strcmp(r->valuestring, key)) return true;
    return false;
}

/* Where an object's members stand: `none` before any was written, `some` after at least one. */
struct place { uint32_t none, some; };

static void property(struct moe_schema *c, struct moe_nfa *n, struct place *at, const char *key,
                     const cJSON *value, bool required)
{
    uint32_t begin = moe_nfa_state(n), none = moe_nfa_state(n), some = moe_nfa_state(n);
    moe_nfa_empty(n, at->none, begin);
    moe_nfa_empty(n, moe_schema_break(c, n, moe_nfa_bytes(n, at->some, ",", 1)), begin);
    uint32_t colon = moe_nfa_bytes(n, moe_schema_text(n, begin, key, true), ":", 1);
    moe_schema_value(c, n, moe_schema_gap(n, colon), value, some);
    if (!required) moe_nfa_empty(n, at->none, none), moe_nfa_empty(n, at->some, some);
    *at = (struct place){ none, some };
}

/* ---- further members ---- */

/* The keys of further members: all strings but the declared keys and those that meet a pattern, which are
 * canonically spelled, so that none can be a declared one in disguise. */
static void further_keys(struct moe_schema *c, const cJSON *schema, struct moe_dfa *d)
{
    const cJSON *lists[] = { get(schema, "properties"), get(schema, "required") }, *x;
    const cJSON *patterns = get(schema, "patternProperties");
    struct moe_nfa n = { .work = c->w };
    struct moe_dfa all, cut, names;
    uint32_t from = moe_nfa_state(&n), to = moe_nfa_state(&n);
    for (int i = 0; i < 2; i++)
        cJSON_ArrayForEach(x, lists[i])
            moe_nfa_empty(&n, moe_schema_text(&n, from, i ? x->valuestring : x->string, false), to);
    for (const cJSON *p = patterns ? patterns->child : NULL; p; p = p->next)
        moe_nfa_regex(&n, from, p->string, strlen(p->string), MOE_IN_JSON, true, to);
    moe_dfa_make(&cut, &n, from, to);
    moe_schema_words(c, NULL, &all);
    moe_dfa_combine(d, &all, &cut, false, c->w);
    moe_dfa_release(&all), moe_dfa_release(&cut);
    moe_nfa_release(&n);
    if (!get(schema, "propertyNames")) return;
    moe_schema_words(c, get(schema, "propertyNames"), &names);
    moe_dfa_combine(&all, d, &names, true, c->w);
    moe_dfa_release(d), moe_dfa_release(&names);
    *d = all;
}

static void member(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const struct moe_dfa *keys,
                   const cJSON *value, uint32_t to)
{
    uint32_t end = moe_nfa_state(n);
    moe_nfa_words(n, moe_nfa_bytes(n, from, "\"", 1), keys, end);
    moe_schema_value(c, n, moe_schema_gap(n, moe_nfa_bytes(n, end, "\":", 2)), value, to);
}

/* The keys that meet one pattern; refuses patterns that a key may meet at once. */
static void pattern_keys(struct moe_schema *c, const cJSON *schema, const cJSON *pattern, struct moe_dfa *d)
{
    const cJSON *lists[] = { get(schema, "properties"), get(schema, "required") }, *x;
    struct moe_nfa n = { .work = c->w };
    struct moe_dfa all, declared, both, names;
    uint32_t from = moe_nfa_state(&n), to = moe_nfa_state(&n);
    pattern_words(c, pattern->string, &all);
    for (const cJSON *p = pattern->next; p && c->w->code == MOE_OK; p = p->next) {
        pattern_words(c, p->string, &declared);
        moe_dfa_combine(&both, &all, &declared, true, c->w);
        if (c->w->code == MOE_OK && !moe_dfa_is_empty(&both))
            moe_work_fail(c->w, MOE_UNSUPPORTED,
                          "'patternProperties' that a key may meet at once are not supported");
        moe_dfa_release(&declared), moe_dfa_release(&both);
    }
    for (int i = 0; i < 2; i++)
        cJSON_ArrayForEach(x, lists[i])
            moe_nfa_empty(&n, moe_schema_text(&n, from, i ? x->valuestring : x->string, false), to);
    moe_dfa_make(&declared, &n, from, to);
    moe_dfa_combine(d, &all, &declared, false, c->w);
    moe_dfa_release(&all), moe_dfa_release(&declared);
    moe_nfa_release(&n);
    if (!get(schema, "propertyNames")) return;
    moe_schema_words(c, get(schema, "propertyNames"), &names);
    moe_dfa_combine(&all, d, &names, true, c->w);
    moe_dfa_release(d), moe_dfa_release(&names);
    *d = all;
}

void moe_schema_member(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                       uint32_t to)
{
    const cJSON *patterns = get(schema, "patternProperties"), *more = additional_of(c, schema);
    struct moe_dfa keys;
    for (const cJSON *p = patterns ? patterns->child : NULL; p && c->w->code == MOE_OK; p = p->next) {
        pattern_keys(c, schema, p, &keys);
        member(c, n, from, &keys, p, to);
        moe_dfa_release(&keys);
    }
    if (cJSON_IsFalse(more) || c->w->code != MOE_OK) return;
    further_keys(c, schema, &keys);
    member(c, n, from, &keys, more, to);
    moe_dfa_release(&keys);
}

static bool has_more(const struct moe_schema *c, const cJSON *schema)
{
    const cJSON *patterns = get(schema, "patternProperties");
    return (patterns && patterns->child) || !cJSON_IsFalse(additional_of(c, schema));
}

/* Objects without declared properties whose number of members has bounds. */
static void counted(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema, uint64_t min,
                    uint64_t max, uint32_t close)
{
    uint32_t first = moe_nfa_state(n);
    if (min == 0) moe_nfa_empty(n, from, close);
    if (max == 0) return;
    moe_schema_member(c, n, from, schema, first);
    moe_schema_repeat(c, n, first, moe_schema_rule(c, MOE_RULE_MEMBER, schema), min ? min - 1 : 0,
                      max < MOE_NO_LIMIT ? max - 1 : max, close);
}

static void members(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                    uint32_t close)
{
    const cJSON *properties = get(schema, "properties"), *required = get(schema, "required"), *x;
    const cJSON *more = additional_of(c, schema);
    struct place at = { from, moe_nfa_state(n) };
    cJSON_ArrayForEach(x, properties) {
        if (c->w->code != MOE_OK) return;
        property(c, n, &at, x->string, property_schema(c, schema, x, x->string),
                 is_required(c, schema, x->string));
    }
    cJSON_ArrayForEach(x, required) { /* those that are required without being declared */
        if (!moe_work_steps(c->w, (uint64_t)cJSON_GetArraySize(properties) + 1)) return;
        bool declared = properties && cJSON_GetObjectItemCaseSensitive(properties, x->valuestring);
        static const cJSON always = { .type = cJSON_True };
        if (!declared)
            property(c, n, &at, x->valuestring,
                     property_schema(c, schema, more ? more : &always, x->valuestring), true);
    }
    moe_nfa_empty(n, at.none, close), moe_nfa_empty(n, at.some, close);
    if (!has_more(c, schema)) return;
    uint32_t key = moe_nfa_state(n);
    moe_nfa_empty(n, at.none, key);
    moe_nfa_empty(n, moe_schema_break(c, n, moe_nfa_bytes(n, at.some, ",", 1)), key);
    moe_schema_member(c, n, key, schema, at.some);
}

void moe_schema_object(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                       uint32_t to)
{
    const cJSON *properties = get(schema, "properties"), *required = get(schema, "required"), *x;
    uint64_t min = moe_schema_count(c, schema, "minProperties", 0), n_required = 0, n_declared = 0;
    uint64_t max = moe_schema_count(c, schema, "maxProperties", MOE_NO_LIMIT);
    uint32_t begin = moe_schema_break(c, n, moe_nfa_bytes(n, from, "{", 1)), close = moe_nfa_state(n);
    cJSON_ArrayForEach(x, required) n_required++;
    cJSON_ArrayForEach(x, properties) n_declared++;
    bool few = min <= n_required, many = max >= MOE_NO_LIMIT || (!has_more(c, schema) && max >= n_declared);
    if (few && many) members(c, n, begin, schema, close);
    else if (!n_declared && !n_required) counted(c, n, begin, schema, min, max, close);
    else moe_work_fail(c->w, MOE_UNSUPPORTED, "'%s' beside declared properties is not supported",
                       few ? "maxProperties" : "minProperties");
    moe_nfa_empty(n, moe_nfa_bytes(n, moe_schema_break(c, n, close), "}", 1), to);
}
