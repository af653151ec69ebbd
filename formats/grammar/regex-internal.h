/* SPDX-License-Identifier: Apache-2.0 */
/* formats/grammar/regex-internal.h - regular expressions as automata; only for formats/grammar/.
 *
 * The syntax is that of ECMA-262, which JSON Schema names, as far as it is regular: characters, escapes,
 * classes, groups, alternatives, greedy and lazy quantifiers, and the anchors ^ and $ at the ends of the
 * whole pattern or of its alternatives.  \d, \w and \s are ASCII's, except that \s has Unicode's spaces, too.
 * Refused by name: look-around, back references, \b, \p, inline flags, anchors elsewhere. */
#ifndef MOE_FORMATS_GRAMMAR_REGEX_INTERNAL_H
#define MOE_FORMATS_GRAMMAR_REGEX_INTERNAL_H

#include "formats/grammar/automaton-internal.h"

/* Edges for the texts that the pattern, `bytes` bytes of UTF-8, matches: as a whole, or with `search`
 * anywhere in the text, unless it is anchored.  MOE_CORRUPT for what is no regular expression,
 * MOE_UNSUPPORTED for what is not supported; both name the byte's offset. */
void moe_nfa_regex(struct moe_nfa *n, uint32_t from, const char *pattern, size_t bytes,
                   enum moe_spelling spelling, bool search, uint32_t to);

#endif
