/* SPDX-License-Identifier: Apache-2.0 */
/* formats/grammar/grammar-internal.h - compiled grammars, and how a text is followed through one; only for
 * formats/grammar/.
 *
 * A grammar is a set of rules.  Each rule is a deterministic automaton whose edges are symbols or calls of
 * other rules; a rule that counts repeats one other rule a number of times instead.  No rule but the root
 * accepts the empty text, and no rule calls itself before a symbol.  So a text is followed by a set of items,
 * each a state and the stack of calls that led to it.  Stacks are shared: a node stands for one call of a
 * rule at one place of the text and lists all places to return to, as in GLL parsers (Scott and Johnstone,
 * "GLL Parsing", 2010). */
#ifndef MOE_FORMATS_GRAMMAR_GRAMMAR_INTERNAL_H
#define MOE_FORMATS_GRAMMAR_GRAMMAR_INTERNAL_H

#include "formats/grammar/automaton-internal.h"
#include "formats/grammar/grammar.h"

#include <stdatomic.h>

enum {
    MOE_STACK_DEPTH = 200,        /* calls inside one another; a JSON array or object takes up to three */
    MOE_ITEMS_MAX = 1024,         /* items of one set */
    MOE_GRAMMAR_SPECIALS = 16,
};
#define MOE_NEVER UINT8_MAX       /* of need: no text leads to the rule's end */
#define MOE_NO_LIMIT UINT32_MAX

/* In the rule of a call: call the (count - 1)-th rule after this one, where `count` is how often the rule
 * that the caller returns to has repeated it. */
#define MOE_BY_COUNT UINT32_C(0x80000000)

/* min: at least 1.  A rule that counts has one state, its start, without edges.  exact: the count itself is
 * in the text (MOE_BY_COUNT). */
struct moe_rule { uint32_t start, element, min, max; bool counts, exact; };

enum { MOE_STATE_COUNTS = 1, MOE_STATE_ANY = 2, MOE_STATE_CHAR = 4 };
#define MOE_ALWAYS UINT8_MAX      /* of ahead */

struct moe_cache;

struct moe_grammar {
    atomic_int refs;
    struct moe_dfa_state *states;
    struct moe_dfa_edge *edges;
    struct moe_dfa_call *calls;
    struct moe_rule *rules;
    /* for each state: how many calls inside one another every way from it to the rule's end takes, at least
     */
    uint8_t *need;
    /* for each state: whether it counts; ANY: each byte leads back to it; CHAR: it begins a character of a
     * string */
    uint8_t *flags;
    /* for each state: after so many plain characters, whichever they are, there is still a way; 255: any
     * number */
    uint8_t *ahead;
    uint32_t *rule_of;            /* for a state that counts, its rule */
    size_t n_states, n_rules;
    uint32_t root, start;         /* the root rule and its first state */
    int32_t special[MOE_GRAMMAR_SPECIALS];
    int n_special;
    size_t bytes;                 /* memory of the arrays */
    const struct moe_vocab *vocab;
    struct moe_cache *cache;
};

/* ---- compiling ---- */

struct moe_new_rule { struct moe_dfa dfa; bool counts, exact; uint32_t element, min, max; };

struct moe_rules {                /* all rules of a grammar that is being compiled */
    struct moe_work work;
    struct moe_new_rule *rules;
    size_t n, cap;
    /* the rules of white space and of one character of a string, plus 1; 0: there is none yet */
    uint32_t space, one_char;
    int32_t special[MOE_GRAMMAR_SPECIALS];
    int n_special;
};

void moe_rules_begin(struct moe_rules *r, struct moe_err *err);
void moe_rules_release(struct moe_rules *r);
uint32_t moe_rules_add(struct moe_rules *r); /* a new rule, to be defined by one of the next two */
void moe_rules_define(struct moe_rules *r, uint32_t rule, const struct moe_nfa *n, uint32_t start,
                      uint32_t final);
/* min, at least 1, to max times the rule `element`; max MOE_NO_LIMIT: no maximum. */
void moe_rules_count(struct moe_rules *r, uint32_t rule, uint32_t element, uint32_t min, uint32_t max);
/* Make the grammar of the texts of `root`; releases *r in any case.  MOE_UNSUPPORTED when no text meets it,
 * or when a rule calls itself before any symbol. */
enum moe_code moe_rules_finish(struct moe_rules *r, uint32_t root, const struct moe_vocab *vocab,
                               const struct moe_grammar_options *options, struct moe_grammar **g);

/* The rule of a JSON value that meets a schema, which is given as text; with `object` of those values that
 * are objects. */
enum moe_code moe_schema_rules(struct moe_rules *r, const char *text, size_t bytes, bool object,
                               const struct moe_grammar_options *options, uint32_t *root);
/* Rules for a JSON object of any content. */
uint32_t moe_rules_any_object(struct moe_rules *r);

/* ---- following a text ---- */

struct moe_item { uint32_t state, node; };
struct moe_entry {
    uint32_t state, count, node, next;
}; /* where to return to; next: another of the node, plus 1 */
struct moe_node { uint32_t rule, depth, entry; };        /* entry: its first, plus 1 */

/* A set of items, which are at items[item...]; the rest are the lengths of the three arrays just after it. */
struct moe_frame { uint32_t item, n_items, n_nodes, n_entries; bool may_end; };

struct moe_machine {
    const struct moe_grammar *g;
    struct moe_item *items;
    struct moe_node *nodes;       /* node 0 is the root's, which returns nowhere */
    struct moe_entry *entries;
    size_t item_cap, node_cap, entry_cap;
    uint32_t n_items, n_nodes, n_entries;
    uint32_t new_nodes;           /* nodes from here on were made in the present step */
    struct moe_frame *out;        /* the set that is being made */
    bool nomem, overflow;
};

bool moe_machine_start(struct moe_machine *m, const struct moe_grammar *g, struct moe_frame *f);
void moe_machine_release(struct moe_machine *m);
/* Make *out the items after `symbol`; what came after `in` in the arrays is overwritten.  False when there
 * are none, or more than MOE_ITEMS_MAX, or memory ran out. */
bool moe_machine_step(struct moe_machine *m, const struct moe_frame *in, unsigned symbol,
                      struct moe_frame *out);
/* Forget all nodes that *f does not need, and number the rest in the order in which its items lead to them.
 */
bool moe_machine_compact(struct moe_machine *m, struct moe_frame *f);

struct moe_grammar_state { struct moe_machine m; struct moe_frame f; };

/* ---- masks ---- */

struct moe_cache *moe_cache_new(size_t bytes);
void moe_cache_free(struct moe_cache *c);

#endif
