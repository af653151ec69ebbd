/* SPDX-License-Identifier: Apache-2.0 */
/* The compiler of JSON schemas: the queue of rules, and values of each type. */
#include "base/grow.h"
#include "base/json.h"
#include "formats/grammar/number-internal.h"
#include "formats/grammar/schema-internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REFER_MAX = 64 }; /* references and merges inside one another */

uint32_t moe_schema_rule(struct moe_schema *c, enum moe_rule_of of, const cJSON *schema)
{
    struct key { uint64_t of; const cJSON *schema; } key = { of, schema }, *kept;
    int64_t old = moe_strmap_get(&c->known, &key, sizeof key);
    if (old >= 0) return (uint32_t)old;
    uint32_t rule = moe_rules_add(c->r);
    kept = MOE_NEW(&c->arena, struct key);
    if (!kept || !MOE_GROW(c->jobs, c->job_cap, c->n_jobs + 1)) {
        moe_work_nomem(c->w);
        return 0;
    }
    *kept = key;
    if (c->w->code != MOE_OK) return 0;
    if (moe_strmap_add(&c->known, kept, sizeof *kept, rule, NULL) < 0) moe_work_nomem(c->w);
    c->jobs[c->n_jobs++] = (struct moe_schema_job){ of, schema, rule };
    return rule;
}

/* ---- small pieces ---- */

/* One space, or the end of a line and its indentation: at most 32 spaces or 8 tabs. */
static uint32_t space_rule(struct moe_schema *c)
{
    if (c->r->space || c->w->code != MOE_OK) return c->r->space - 1;
    struct moe_nfa n = { .work = c->w };
    uint32_t rule = moe_rules_add(c->r), from = moe_nfa_state(&n), to = moe_nfa_state(&n);
    moe_nfa_range(&n, from, ' ', ' ', to);
    uint32_t line = moe_nfa_bytes(&n, from, "\n", 1);
    moe_nfa_empty(&n, line, to);
    for (int i = 0, max = 32; i < 2; i++, max = 8) {
        uint32_t at = line;
        for (int k = 0; k < max; k++) moe_nfa_empty(&n, at = moe_nfa_bytes(&n, at, i ? "\t" : " ", 1), to);
    }
    moe_rules_define(c->r, rule, &n, from, to);
    moe_nfa_release(&n);
    c->r->space = rule + 1;
    return rule;
}

uint32_t moe_schema_break(struct moe_schema *c, struct moe_nfa *n, uint32_t from)
{
    uint32_t to = moe_nfa_state(n);
    moe_nfa_empty(n, from, to);
    moe_nfa_call(n, from, space_rule(c), to);
    return to;
}

uint32_t moe_schema_gap(struct moe_nfa *n, uint32_t from)
{
    uint32_t to = moe_nfa_state(n);
    moe_nfa_empty(n, from, to);
    moe_nfa_range(n, from, ' ', ' ', to);
    return to;
}

void moe_schema_repeat(struct moe_schema *c, struct moe_nfa *n, uint32_t from, uint32_t rule, uint64_t min,
                       uint64_t max, uint32_t to)
{
    if (min > max) return;
    if (min > UINT32_MAX - 2) {
        moe_work_fail(c->w, MOE_UNSUPPORTED, "a count of %llu is too large", (unsigned long long)min);
        return;
    }
    if (min == 0) moe_nfa_empty(n, from, to);
    if (max == 0) return;
    uint32_t counter = moe_rules_add(c->r);
    moe_rules_count(c->r, counter, rule, min ? (uint32_t)min : 1, max < MOE_NO_LIMIT ? (uint32_t)max
                                                                                     : MOE_NO_LIMIT);
    moe_nfa_call(n, from, counter, to);
}

uint32_t moe_schema_text(struct moe_nfa *n, uint32_t from, const char *s, bool quotes)
{
    if (quotes) from = moe_nfa_bytes(n, from, "\"", 1);
    for (; *s && n->work->code == MOE_OK; s++) {
        unsigned char u = (unsigned char)*s;
        if (u >= 0x80) {
            from = moe_nfa_bytes(n, from, s, 1);
        } else {
            uint32_t to = moe_nfa_state(n);
            moe_nfa_chars(n, from, u, u, MOE_IN_JSON, to);
            from = to;
        }
    }
    return quotes ? moe_nfa_bytes(n, from, "\"", 1) : from;
}

uint32_t moe_schema_literal(struct moe_nfa *n, uint32_t from, const cJSON *v)
{
    const char *word = cJSON_IsNull(v)    ? "null"
                       : cJSON_IsTrue(v)  ? "true"
                       : cJSON_IsFalse(v) ? "false"
                                          : NULL;
    char number[32];
    bool object = cJSON_IsObject(v);
    if (cJSON_IsString(v)) return moe_schema_text(n, from, v->valuestring, true);
    if (cJSON_IsNumber(v)) {
        snprintf(number, sizeof number, "%.17g", v->valuedouble);
        word = v->valuestring ? v->valuestring : number;
    }
    if (word) return moe_nfa_bytes(n, from, word, strlen(word));
    from = moe_nfa_bytes(n, from, object ? "{" : "[", 1);
    for (const cJSON *x = v->child; x && n->work->code == MOE_OK; x = x->next) {
        if (x != v->child) from = moe_nfa_bytes(n, from, ",", 1);
        if (object) from = moe_nfa_bytes(n, moe_schema_text(n, from, x->string, true), ":", 1);
        from = moe_schema_literal(n, from, x);
    }
    return moe_nfa_bytes(n, from, object ? "}" : "]", 1);
}

/* ---- values ---- */

/* The stricter of the bounds `key` and exclusive-`key`; sign 1: the larger one is stricter, -1: the smaller.
 */
static bool bound(struct moe_schema *c, const cJSON *schema, const char *key, const char *exclusive_key,
                  int sign, struct moe_decimal *d, bool *exclusive)
{
    bool has = false;
    for (int i = 0; i < 2; i++) {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(schema, i ? exclusive_key : key);
        struct moe_decimal x;
        char spelled[32];
        if (!v) continue;
        if (cJSON_IsBool(v)) { /* as in drafts before 6 */
            if (has) *exclusive = cJSON_IsTrue(v);
            continue;
        }
        snprintf(spelled, sizeof spelled, "%.17g", v->valuedouble);
        if (!moe_decimal_read(&x, v->valuestring ? v->valuestring : spelled)) {
            moe_work_fail(c->w, MOE_UNSUPPORTED, "'%s' has more than %d digits", i ? exclusive_key : key,
                          MOE_NUMBER_DIGITS);
            return false;
        }
        int order = has ? sign * moe_decimal_compare(&x, d) : 1;
        if (order > 0 || (order == 0 && i)) *d = x, *exclusive = i;
        has = true;
    }
    return has;
}

static void narrow(struct moe_number *x, const char *min, const char *max)
{
    struct moe_decimal lo, hi;
    moe_decimal_read(&lo, min), moe_decimal_read(&hi, max);
    if (!x->has_min || moe_decimal_compare(&lo, &x->min) > 0) x->min = lo, x->min_exclusive = false;
    if (!x->has_max || moe_decimal_compare(&hi, &x->max) < 0) x->max = hi, x->max_exclusive = false;
    x->has_min = x->has_max = true;
}

static void number(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema, bool integer,
                   uint32_t to)
{
    struct moe_number x = { .integer = integer };
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(schema, "multipleOf");
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(schema, "format");
    x.has_min = bound(c, schema, "minimum", "exclusiveMinimum", 1, &x.min, &x.min_exclusive);
    x.has_max = bound(c, schema, "maximum", "exclusiveMaximum", -1, &x.max, &x.max_exclusive);
    x.has_multiple = m;
    if (m && !moe_decimal_read(&x.multiple, m->valuestring ? m->valuestring : "0.3")) m = NULL;
    if (format && !strcmp(format->valuestring, "int32")) narrow(&x, "-2147483648", "2147483647");
    if (format && !strcmp(format->valuestring, "int64"))
        narrow(&x, "-9223372036854775808", "9223372036854775807");
    moe_nfa_number(n, from, &x, to);
}

static void enumerated(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                       uint32_t to)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(schema, "enum");
    const cJSON *one = cJSON_GetObjectItemCaseSensitive(schema, "const");
    unsigned types = moe_schema_types(schema);
    for (const cJSON *k = schema->child; k; k = k->next)
        if (strcmp(k->string, "enum") && strcmp(k->string, "const") && strcmp(k->string, "type")) {
            cJSON alone = { .type = cJSON_Object, .child = &(cJSON){ .type = k->type, .string = k->string } };
            if (moe_schema_says(&alone, NULL))
                moe_work_fail(c->w, MOE_UNSUPPORTED, "'%s' beside '%s' is not supported", k->string,
                              list ? "enum" : "const");
        }
    for (const cJSON *v = list ? list->child : one; v && c->w->code == MOE_OK; v = list ? v->next : NULL)
        if (moe_schema_has_type(v, types) && (!one || cJSON_Compare(v, one, true)))
            moe_nfa_empty(n, moe_schema_literal(n, from, v), to);
}

static void word(struct moe_nfa *n, uint32_t from, const char *s, uint32_t to)
{
    moe_nfa_empty(n, moe_nfa_bytes(n, from, s, strlen(s)), to);
}

static void typed(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema, uint32_t to)
{
    unsigned types = moe_schema_types(schema);
    if (types & MOE_TYPE_NULL) word(n, from, "null", to);
    if (types & MOE_TYPE_BOOLEAN) word(n, from, "true", to), word(n, from, "false", to);
    if (types & (MOE_TYPE_INTEGER | MOE_TYPE_NUMBER))
        number(c, n, from, schema, !(types & MOE_TYPE_NUMBER), to);
    if (types & MOE_TYPE_STRING) moe_schema_string(c, n, from, schema, to);
    if (types & MOE_TYPE_ARRAY) moe_nfa_call(n, from, moe_schema_rule(c, MOE_RULE_ARRAY, schema), to);
    if (types & MOE_TYPE_OBJECT) moe_nfa_call(n, from, moe_schema_rule(c, MOE_RULE_OBJECT, schema), to);
}

static void alternatives(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                         const char *key, uint32_t to)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(schema, key);
    bool alone = !moe_schema_says(schema, key);
    for (const cJSON *a = list->child; a && c->w->code == MOE_OK; a = a->next) {
        for (const cJSON *b = *key == 'o' ? list->child : a; b != a && c->w->code == MOE_OK; b = b->next)
            if (!moe_schema_disjoint(c, a, b))
                moe_work_fail(c->w, MOE_UNSUPPORTED,
                              "alternatives of 'oneOf' that a value may meet at once are not "
                              "supported (use 'anyOf')");
        const cJSON *both = alone ? a : moe_schema_both(c, schema, key, a);
        if (both) moe_schema_value(c, n, from, both, to);
    }
}

static void combined(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema, uint32_t to)
{
    const cJSON *all = cJSON_GetObjectItemCaseSensitive(schema, "allOf");
    if (cJSON_GetObjectItemCaseSensitive(schema, "$ref")) {
        const cJSON *target = moe_schema_target(c, schema);
        if (target && !moe_schema_says(schema, "$ref"))
            moe_nfa_call(n, from, moe_schema_rule(c, MOE_RULE_VALUE, target), to);
        else if (target && (target = moe_schema_both(c, schema, "$ref", target)))
            moe_schema_value(c, n, from, target, to);
    } else if (all) {
        const cJSON *x = all->child, *both = moe_schema_both(c, schema, "allOf", x);
        while (both && (x = x->next)) both = moe_schema_both(c, both, NULL, x);
        if (both) moe_schema_value(c, n, from, both, to);
    } else if (cJSON_GetObjectItemCaseSensitive(schema, "anyOf")) {
        alternatives(c, n, from, schema, "anyOf", to);
    } else if (cJSON_GetObjectItemCaseSensitive(schema, "oneOf")) {
        alternatives(c, n, from, schema, "oneOf", to);
    } else if (cJSON_GetObjectItemCaseSensitive(schema, "enum") ||
               cJSON_GetObjectItemCaseSensitive(schema, "const")) {
        enumerated(c, n, from, schema, to);
    } else {
        typed(c, n, from, schema, to);
    }
}

void moe_schema_value(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                      uint32_t to)
{
    static const cJSON anything = { .type = cJSON_Object };
    if (!moe_work_steps(c->w, 16) || cJSON_IsFalse(schema)) return;
    if (!schema || cJSON_IsTrue(schema) || (cJSON_IsObject(schema) && !moe_schema_says(schema, NULL)))
        schema = &anything;
    if (schema != &anything && !moe_schema_check(c, schema)) return;
    if (++c->depth > REFER_MAX)
        moe_work_fail(c->w, MOE_UNSUPPORTED, "references and combinations are nested deeper than %d",
                      REFER_MAX);
    else if (schema == &anything && c->depth > 1)
        moe_nfa_call(n, from, moe_schema_rule(c, MOE_RULE_VALUE, NULL), to);
    else combined(c, n, from, schema, to);
    c->depth--;
}

/* ---- the queue ---- */

static void make_rule(struct moe_schema *c, const struct moe_schema_job *job)
{
    struct moe_nfa n = { .work = c->w };
    uint32_t from = moe_nfa_state(&n), to = moe_nfa_state(&n), at;
    switch (job->of) {
    case MOE_RULE_VALUE:
        c->depth = 0;
        moe_schema_value(c, &n, from, job->schema, to);
        break;
    case MOE_RULE_OBJECT:
        moe_schema_object(c, &n, from, job->schema, to);
        break;
    case MOE_RULE_ARRAY:
        moe_schema_array(c, &n, from, job->schema, to);
        break;
    case MOE_RULE_ELEMENT:
        at = moe_schema_break(c, &n, moe_nfa_bytes(&n, from, ",", 1));
        moe_schema_value(c, &n, at, job->schema, to);
        break;
    case MOE_RULE_MEMBER:
        moe_schema_member(c, &n, moe_schema_break(c, &n, moe_nfa_bytes(&n, from, ",", 1)), job->schema, to);
    }
    moe_rules_define(c->r, job->rule, &n, from, to);
    moe_nfa_release(&n);
}

static void run(struct moe_schema *c)
{
    for (size_t i = 0; i < c->n_jobs && c->w->code == MOE_OK; i++) {
        struct moe_schema_job job = c->jobs[i];
        c->depth = 1;
        make_rule(c, &job);
    }
    for (size_t i = 0; i < c->n_made; i++) cJSON_Delete(c->made[i]);
    free(c->made), free(c->jobs);
    moe_strmap_release(&c->known);
    moe_arena_clear(&c->arena);
}

/* A schema cut down to objects. */
static const cJSON *object_only(struct moe_schema *c, const cJSON *schema)
{
    char object[] = "object", type[] = "type";
    cJSON word = { .type = cJSON_String, .valuestring = object, .string = type };
    cJSON only = { .type = cJSON_Object, .child = &word };
    if (cJSON_IsObject(schema) && moe_schema_check(c, schema) && moe_schema_types(schema) == MOE_TYPE_OBJECT)
        return schema;
    const cJSON *both = moe_schema_both(c, schema, NULL, &only);
    if (both && (cJSON_IsFalse(both) || !(moe_schema_types(both) & MOE_TYPE_OBJECT)))
        moe_work_fail(c->w, MOE_UNSUPPORTED, "its schema allows no object");
    return both;
}

uint32_t moe_rules_any_object(struct moe_rules *r)
{
    struct moe_schema c = { .r = r, .w = &r->work };
    uint32_t root = moe_schema_rule(&c, MOE_RULE_OBJECT, NULL);
    run(&c);
    return root;
}

enum moe_code moe_schema_rules(struct moe_rules *r, const char *text, size_t bytes, bool object,
                               const struct moe_grammar_options *options, uint32_t *root)
{
    struct moe_schema c = { .r = r, .w = &r->work, .closed = options && options->closed };
    struct moe_err err = MOE_ERR_INIT;
    cJSON *tree = NULL;
    enum moe_code code = moe_json_parse(text, bytes, NULL, &tree, &err);
    if (code == MOE_OK) code = moe_json_keep_numbers(tree, text, bytes, &err);
    if (code != MOE_OK) moe_work_fail(c.w, code, "schema: %s", err.msg);
    c.root = tree;
    if (code == MOE_OK) *root = moe_schema_rule(&c, MOE_RULE_VALUE, object ? object_only(&c, tree) : tree);
    run(&c);
    cJSON_Delete(tree);
    return r->work.code;
}
