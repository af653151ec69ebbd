/* SPDX-License-Identifier: Apache-2.0 */
/* formats/grammar/schema-internal.h - what the parts of the schema compiler share; only for formats/grammar/.
 *
 * A schema is compiled rule by rule: scalars become part of the rule around them; each object, array and
 * target of "$ref" has its own, which is made later, from a queue, so that schemas may refer to themselves.
 */
#ifndef MOE_FORMATS_GRAMMAR_SCHEMA_INTERNAL_H
#define MOE_FORMATS_GRAMMAR_SCHEMA_INTERNAL_H

#include "base/arena.h"
#include "base/strmap.h"
#include "formats/grammar/grammar-internal.h"

#include <cjson/cJSON.h>

/* What a rule is made of: the whole of a schema, its object, its array; ", " and a value that meets it; ", "
 * and an additional member of that object. */
enum moe_rule_of { MOE_RULE_VALUE, MOE_RULE_OBJECT, MOE_RULE_ARRAY, MOE_RULE_ELEMENT, MOE_RULE_MEMBER };

struct moe_schema_job { enum moe_rule_of of; const cJSON *schema; uint32_t rule; };

struct moe_schema {               /* one compilation */
    struct moe_rules *r;
    struct moe_work *w;
    const cJSON *root;
    bool closed;
    struct moe_schema_job *jobs;
    size_t n_jobs, job_cap;
    struct moe_strmap known;      /* what and of which schema -> rule */
    struct moe_arena arena;       /* the keys of `known` */
    cJSON **made;                 /* schemas that were merged from others */
    size_t n_made, made_cap;
    int depth;                    /* of references and merges inside one another */
};

/* The rule of a part of a schema, which is made later if it is new.  schema NULL: any value. */
uint32_t moe_schema_rule(struct moe_schema *c, enum moe_rule_of of, const cJSON *schema);
/* Edges for a value that meets the schema; NULL: any value. */
void moe_schema_value(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                      uint32_t to);
void moe_schema_object(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                       uint32_t to);
void moe_schema_member(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                       uint32_t to);
void moe_schema_array(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                      uint32_t to);
void moe_schema_string(struct moe_schema *c, struct moe_nfa *n, uint32_t from, const cJSON *schema,
                       uint32_t to);
/* The canonical spellings, without quotes, of the strings that meet the schema; NULL: all strings. */
void moe_schema_words(struct moe_schema *c, const cJSON *schema, struct moe_dfa *d);

/* White space where the model may break a line, and that after a colon; both return the state after it. */
uint32_t moe_schema_break(struct moe_schema *c, struct moe_nfa *n, uint32_t from);
uint32_t moe_schema_gap(struct moe_nfa *n, uint32_t from);
/* Edges for `min` to `max` (MOE_NO_LIMIT: any number) times a rule. */
void moe_schema_repeat(struct moe_schema *c, struct moe_nfa *n, uint32_t from, uint32_t rule, uint64_t min,
                       uint64_t max, uint32_t to);
/* A string's canonical spelling; with quotes or without.  Returns the state after it. */
uint32_t moe_schema_text(struct moe_nfa *n, uint32_t from, const char *s, bool quotes);
uint32_t moe_schema_literal(struct moe_nfa *n, uint32_t from, const cJSON *v);

/* Refuse keywords that are not supported and values of the wrong type; false then. */
bool moe_schema_check(struct moe_schema *c, const cJSON *schema);
/* Whether a schema says more than annotations and the keyword `but` (may be NULL). */
bool moe_schema_says(const cJSON *schema, const char *but);
/* A non-negative whole number; `otherwise` when the schema does not have the keyword. */
uint64_t moe_schema_count(struct moe_schema *c, const cJSON *schema, const char *key, uint64_t otherwise);
/* The schema to which "$ref" refers; NULL after a failure. */
const cJSON *moe_schema_target(struct moe_schema *c, const cJSON *schema);
/* Keep a new schema until the end of the compilation; v NULL: out of memory. */
const cJSON *moe_schema_keep(struct moe_schema *c, cJSON *v);

/* A schema that a value meets when it meets both, `a` without its keyword `but` (may be NULL).  NULL after a
 * failure.  Objects of the result may have "allOf". */
const cJSON *moe_schema_both(struct moe_schema *c, const cJSON *a, const char *but, const cJSON *b);
/* Whether it is certain that no value meets both. */
bool moe_schema_disjoint(struct moe_schema *c, const cJSON *a, const cJSON *b);

/* Types as bits; an integer is a number, too. */
enum {
    MOE_TYPE_NULL = 1, MOE_TYPE_BOOLEAN = 2, MOE_TYPE_INTEGER = 4, MOE_TYPE_NUMBER = 8, MOE_TYPE_STRING = 16,
    MOE_TYPE_ARRAY = 32, MOE_TYPE_OBJECT = 64, MOE_TYPES = 127
};
unsigned moe_schema_types(const cJSON *schema); /* those that "type" names; all without it */
bool moe_schema_has_type(const cJSON *value, unsigned types);

#endif
