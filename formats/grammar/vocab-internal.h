/* SPDX-License-Identifier: Apache-2.0 */
/* formats/grammar/vocab-internal.h - the tries and sets of a vocabulary; only for formats/grammar/.
 *
 * A plain character is one that stands in a JSON string as it is: no quote, no backslash, no control
 * character; U+2028 and U+2029, which the . of patterns leaves out, are left out, too.  A plain token
 * consists of whole plain characters; most tokens of a vocabulary do.  Inside a string they need not be
 * looked at one by one: those of at most n characters are a set that is kept. */
#ifndef MOE_FORMATS_GRAMMAR_VOCAB_INTERNAL_H
#define MOE_FORMATS_GRAMMAR_VOCAB_INTERNAL_H

#include "formats/grammar/vocab.h"

/* A node of a trie, in the order of a walk that takes parents first: skip is the index of the next node that
 * is not below this one.  depth: of its byte in the token, from 0.  id: the token that ends here; -1: none.
 */
struct moe_trie_node { uint32_t skip; int32_t id; uint16_t depth; uint8_t byte; };
struct moe_trie {
    struct moe_trie_node *nodes;
    size_t n, cap;
    int depth;
}; /* depth: bytes of the longest token */

struct moe_plain_set { uint32_t chars; uint32_t *bits; }; /* plain tokens of at most so many characters */

struct moe_vocab {
    int64_t n;
    size_t words;
    /* the longest token, in bytes; and the longest beginning, before any control character, of one that is
     * not plain: no token takes a string further on than its own characters */
    uint32_t longest, longest_other;
    char *pool;                   /* the bytes of all tokens */
    uint32_t *start;              /* those of token i are pool[start[i]...start[i + 1]) */
    struct moe_trie plain, other; /* plain tokens, and all others */
    uint32_t *any;                /* all tokens that are not special, as a mask */
    struct moe_plain_set sets[24];
    int n_sets;                   /* ascending; the last has all plain tokens */
    int32_t *by_chars;            /* plain tokens, by the number of their characters */
    uint32_t *first,
        max_chars; /* first[c]: the first of by_chars with c characters or more; c to max_chars + 1 */
};

const char *moe_vocab_bytes(const struct moe_vocab *v, int64_t id, size_t *n);

#endif
