/* SPDX-License-Identifier: Apache-2.0 */
/* formats/grammar/automaton-internal.h - finite automata over bytes and special tokens, from which the rules
 * of a grammar are compiled; nobody outside formats/grammar/ includes it.
 *
 * Symbols 0 to 255 are bytes; 256 + i is the i-th special token of the grammar.  An automaton may also call
 * another rule of the grammar: such an edge is taken by any word of that rule.
 *
 * Functions that build return nothing that can fail: the first failure is kept in struct moe_work, after
 * which they do nothing.  Callers look at work->code at the end. */
#ifndef MOE_FORMATS_GRAMMAR_AUTOMATON_INTERNAL_H
#define MOE_FORMATS_GRAMMAR_AUTOMATON_INTERNAL_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one compilation may still spend, and its first failure.  `steps` bounds time; `states` bounds memory:
 * about 100 bytes for each.  A hostile schema or regex runs out of one of them and is refused. */
struct moe_work { struct moe_err *err; enum moe_code code; uint64_t steps, states; };

#define MOE_WORK_STEPS  (UINT64_C(1) << 27)
#define MOE_WORK_STATES (UINT64_C(1) << 20)

__attribute__((format(printf, 3, 4)))
void moe_work_fail(struct moe_work *w, enum moe_code code, const char *fmt, ...);
/* Fill in the failure "out of memory". */
void moe_work_nomem(struct moe_work *w);
/* Spend steps or states; false, with a failure, when not so many are left or there was a failure before. */
bool moe_work_steps(struct moe_work *w, uint64_t n);
bool moe_work_states(struct moe_work *w, uint64_t n);

/* ---- nondeterministic automata, while a rule is built ---- */

/* An edge for the symbols lo to hi; lo > hi: one that is taken without a symbol, or by the call of rule
 * call - 1 where call is not 0.  next: another edge of the same state, plus 1. */
struct moe_nfa_edge { uint16_t lo, hi; uint32_t to, next, call; };

struct moe_nfa {                 /* zero-initialised, but for `work`, it has no states */
    struct moe_work *work;
    struct moe_nfa_edge *edges;
    uint32_t *first;             /* for each state its first edge plus 1; 0: none */
    size_t n, cap, n_edges, edge_cap;
};

void moe_nfa_release(struct moe_nfa *n);
uint32_t moe_nfa_state(struct moe_nfa *n);                         /* a new state */
void moe_nfa_empty(struct moe_nfa *n, uint32_t from, uint32_t to); /* an edge without a symbol */
void moe_nfa_range(struct moe_nfa *n, uint32_t from, unsigned lo, unsigned hi, uint32_t to);
void moe_nfa_call(struct moe_nfa *n, uint32_t from, uint32_t rule, uint32_t to);
/* Edges for the bytes, one after the other; returns the state after them. */
uint32_t moe_nfa_bytes(struct moe_nfa *n, uint32_t from, const char *s, size_t bytes);

/* How characters are written: as UTF-8; or as in a JSON string in the way json.dumps(ensure_ascii=False)
 * writes them: escaped only where they must be, with the short escape where there is one. */
enum moe_spelling { MOE_RAW, MOE_IN_JSON };
/* Edges for each of the code points lo to hi, surrogates left out. */
void moe_nfa_chars(struct moe_nfa *n, uint32_t from, uint32_t lo, uint32_t hi, enum moe_spelling spelling,
                   uint32_t to);
/* Edges for one character of a JSON string, in any spelling that JSON has for it. */
void moe_nfa_json_char(struct moe_nfa *n, uint32_t from, uint32_t to);

/* ---- deterministic automata ---- */

struct moe_dfa_edge { uint16_t lo, hi; uint32_t to; };  /* those of a state: disjoint, ascending */
struct moe_dfa_call { uint32_t rule, to; };             /* those of a state: each rule once */
struct moe_dfa_state { uint32_t edge, call; uint16_t n_edges, n_calls; bool accept; };

struct moe_dfa {                 /* state 0 is where it starts */
    struct moe_dfa_state *states;
    struct moe_dfa_edge *edges;
    struct moe_dfa_call *calls;
    size_t n, cap, n_edges, edge_cap, n_calls, call_cap;
};

void moe_dfa_release(struct moe_dfa *d);
/* The automaton of the words that lead from `start` to `final`.  *d is empty on failure. */
void moe_dfa_make(struct moe_dfa *d, const struct moe_nfa *n, uint32_t start, uint32_t final);
/* The words of `a` that are words of `b` (both) or are not (else).  Neither may have calls. */
void moe_dfa_combine(struct moe_dfa *d, const struct moe_dfa *a, const struct moe_dfa *b, bool both,
                     struct moe_work *w);
/* Whether there is no word at all. */
bool moe_dfa_is_empty(const struct moe_dfa *d);
/* Edges for the words of *d. */
void moe_nfa_words(struct moe_nfa *n, uint32_t from, const struct moe_dfa *d, uint32_t to);
/* The state after `symbol`; -1 when there is none. */
int64_t moe_dfa_next(const struct moe_dfa *d, size_t state, unsigned symbol);

#endif
