/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays and strings of JSON schemas. */
#include "formats/grammar/regex-internal.h"
#include "formats/grammar/schema-internal.h"

#include <string.h>

/* ---- arrays ---- */

static const cJSON *get(const cJSON *schema, const char *key)
{
    return schema ? cJSON_GetObjectItemCaseSensitive(schema, key) : NULL;
}

/* What follows the first k elements of an array, which is not empty: any number of further ones. */
static void more_elements(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *items,
                          uint64_t min, uint64_t max, uint32_t to)
{
    if (min <= 1 && max >= MOE_NO_LIMIT) { /* a loop needs no count */
        uint32_t loop = moe_nfa_state(n), at = moe_schema_break(c, n, moe_nfa_bytes(n, loop, ",", 1));
        if (min == 0) moe_nfa_empty(n, from, to);
        moe_nfa_empty(n, from, loop);
        uint32_t end = moe_nfa_state(n);
        moe_schema_value(c, n, at, items, end);
        moe_nfa_empty(n, end, loop), moe_nfa_empty(n, end, to);
    } else {
        moe_schema_repeat(c, n, from, moe_schema_rule(c, MOE_RULE_ELEMENT, items), min, max, to);
    }
}

void moe_schema_array(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                      uint32_t to)
{
    const cJSON *prefix = get(schema, "prefixItems"), *items = get(schema, "items");
    uint64_t min = moe_schema_count(c, schema, "minItems", 0), k = 0;
    uint64_t max = moe_schema_count(c, schema, "maxItems", MOE_NO_LIMIT);
    if (cJSON_IsArray(items)) { /* as in drafts before 2020-12 */
        prefix = items;
        items = get(schema, "additionalItems");
    }
    from = moe_nfa_bytes(n, from, "[", 1);
    uint32_t close = moe_nfa_state(n), begin = moe_schema_break(c, n, from), last = begin;
    if (min == 0) moe_nfa_empty(n, from, close);
    for (const cJSON *x = prefix ? prefix->child : NULL; x && k < max; x = x->next, k++) {
        uint32_t after = moe_nfa_state(n);
        moe_schema_value(c, n, k ? moe_schema_break(c, n, moe_nfa_bytes(n, last, ",", 1)) : last, x, after);
        if (k + 1 >= min) moe_nfa_empty(n, after, close);
        last = after;
    }
    if (k < max && !cJSON_IsFalse(items)) {
        if (k == 0) {
            last = moe_nfa_state(n);
            moe_schema_value(c, n, begin, items, last);
            k = 1;
        }
        more_elements(c, n, last, items, min > k ? min - k : 0, max < MOE_NO_LIMIT ? max - k : max, close);
    }
    moe_nfa_empty(n, moe_nfa_bytes(n, moe_schema_break(c, n, close), "]", 1), to);
}

/* ---- strings ---- */

#define DAYS  "(((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01]))|((0[469]|11)-(0[1-9]|[12][0-9]|30))|" \
              "02-(0[1-9]|1[0-9]|2[0-8]))"
#define YEAR  "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
#define LEAP  "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)-02-29"
#define DATE  "(" YEAR "-" DAYS "|" LEAP ")"
#define TIME  "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define HOST  LABEL "(\\." LABEL "){0,8}"
#define ATOM  "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}"
#define BYTE_ "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4  BYTE_ "(\\." BYTE_ "){3}"
#define H     "[0-9A-Fa-f]{1,4}"
#define HMS   "([0-9]{1,9}H([0-9]{1,9}M([0-9]{1,9}S)?)?|[0-9]{1,9}M([0-9]{1,9}S)?|[0-9]{1,9}S)"
#define YMD   "([0-9]{1,9}Y([0-9]{1,9}M([0-9]{1,9}D)?)?|[0-9]{1,9}M([0-9]{1,9}D)?|[0-9]{1,9}D)"
#define URIC  "([A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"

static const struct { const char *name, *pattern;
} formats[] = {
    { "date", DATE },
    { "time", TIME },
    { "date-time", DATE "T" TIME },
    { "duration", "P([0-9]{1,9}W|" YMD "(T" HMS ")?|T" HMS ")" },
    { "email", ATOM "(\\." ATOM "){0,4}@" HOST },
    { "hostname", HOST },
    { "ipv4", IPV4 },
    { "ipv6", "(" H ":){7}" H "|(" H ":){1,7}:|(" H ":){1,6}:" H "|(" H ":){1,5}(:" H "){1,2}|(" H
              ":){1,4}(:" H "){1,3}|(" H ":){1,3}(:" H "){1,4}|(" H ":){1,2}(:" H "){1,5}|" H ":(:" H
              "){1,6}|:((:" H "){1,7}|:)" },
    { "uuid", "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}" },
    { "uri", "[A-Za-z][A-Za-z0-9+.-]{0,31}:" URIC "{1,}(#" URIC "*)?" },
};

/* Cut the words of *d down to those of an automaton from `from` to `to`; *has: whether *d is one already. */
static void cut(struct moe_schema *c, struct moe_dfa *d, bool *has, const struct moe_nfa *n, uint32_t from,
                uint32_t to)
{
    struct moe_dfa x, both;
    moe_dfa_make(&x, n, from, to);
    if (!*has) {
        *d = x;
        *has = true;
        return;
    }
    moe_dfa_combine(&both, d, &x, true, c->w);
    moe_dfa_release(d), moe_dfa_release(&x);
    *d = both;
}

static void cut_by_pattern(struct moe_schema *c, struct moe_dfa *d, bool *has, const char *pattern,
                           bool search)
{
    struct moe_nfa n = { .work = c->w };
    uint32_t from = moe_nfa_state(&n), to = moe_nfa_state(&n);
    moe_nfa_regex(&n, from, pattern, strlen(pattern), MOE_IN_JSON, search, to);
    cut(c, d, has, &n, from, to);
    moe_nfa_release(&n);
}

static void cut_by_length(struct moe_schema *c, struct moe_dfa *d, bool *has, uint64_t min, uint64_t max)
{
    struct moe_nfa n = { .work = c->w };
    uint32_t at = moe_nfa_state(&n), from = at, to = moe_nfa_state(&n);
    for (uint64_t i = 0; i < (max < MOE_NO_LIMIT ? max : min) && c->w->code == MOE_OK; i++) {
        uint32_t next = moe_nfa_state(&n);
        if (i >= min) moe_nfa_empty(&n, at, to);
        moe_nfa_chars(&n, at, 0, 0x10ffff, MOE_IN_JSON, next);
        at = next;
    }
    if (max >= MOE_NO_LIMIT) moe_nfa_chars(&n, at, 0, 0x10ffff, MOE_IN_JSON, at);
    if (min <= max) moe_nfa_empty(&n, at, to);
    cut(c, d, has, &n, from, to);
    moe_nfa_release(&n);
}

/* The regular expression of "format", if it is about strings; refuses those that are unknown. */
static const char *format_of(struct moe_schema *c, const cJSON *schema)
{
    const cJSON *f = get(schema, "format");
    if (!f) return NULL;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(f->valuestring, formats[i].name)) return formats[i].pattern;
    for (const char *const *p = (const char *const[]){ "int32", "int64", "float", "double", NULL }; *p; p++)
        if (!strcmp(f->valuestring, *p)) return NULL;
    moe_work_fail(c->w, MOE_UNSUPPORTED, "format '%s' is not supported", f->valuestring);
    return NULL;
}

void moe_schema_words(struct moe_schema *c, const cJSON *schema, struct moe_dfa *d)
{
    const cJSON *pattern = get(schema, "pattern");
    const char *format = format_of(c, schema);
    uint64_t min = moe_schema_count(c, schema, "minLength", 0);
    uint64_t max = moe_schema_count(c, schema, "maxLength", MOE_NO_LIMIT);
    bool has = false;
    *d = (struct moe_dfa){ 0 };
    if (pattern) cut_by_pattern(c, d, &has, pattern->valuestring, true);
    if (format) cut_by_pattern(c, d, &has, format, false);
    if (!has || min || max < MOE_NO_LIMIT) cut_by_length(c, d, &has, min, max);
}

/* The rule of one character of a string. */
static uint32_t char_rule(struct moe_schema *c)
{
    if (!c->r->one_char) {
        struct moe_nfa n = { .work = c->w };
        uint32_t rule = moe_rules_add(c->r), from = moe_nfa_state(&n), to = moe_nfa_state(&n);
        moe_nfa_json_char(&n, from, to);
        moe_rules_define(c->r, rule, &n, from, to);
        moe_nfa_release(&n);
        c->r->one_char = rule + 1;
    }
    return c->r->one_char - 1;
}

void moe_schema_string(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                       uint32_t to)
{
    uint64_t min = moe_schema_count(c, schema, "minLength", 0);
    uint64_t max = moe_schema_count(c, schema, "maxLength", MOE_NO_LIMIT);
    uint32_t end = moe_nfa_state(n);
    from = moe_nfa_bytes(n, from, "\"", 1);
    if (get(schema, "pattern") || format_of(c, schema)) {
        struct moe_dfa d;
        moe_schema_words(c, schema, &d);
        moe_nfa_words(n, from, &d, end);
        moe_dfa_release(&d);
    } else if (min <= 1 && max >= MOE_NO_LIMIT) { /* a loop needs no count */
        uint32_t loop = moe_nfa_state(n);
        if (min) moe_nfa_json_char(n, from, loop);
        else moe_nfa_empty(n, from, loop);
        moe_nfa_json_char(n, loop, loop);
        moe_nfa_empty(n, loop, end);
    } else {
        moe_schema_repeat(c, n, from, char_rule(c), min, max, end);
    }
    moe_nfa_empty(n, moe_nfa_bytes(n, end, "\"", 1), to);
}
