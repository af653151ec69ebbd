/* SPDX-License-Identifier: Apache-2.0 */
/* formats/grammar/number-internal.h - JSON numbers within a range as automata; only for formats/grammar/.
 *
 * A number has at most 32 digits before its point, 32 after it, and an exponent of at most two digits, so
 * that no number goes on for ever and none overflows a double.  With a range or a multiple it has no
 * exponent, and zero has no sign. */
#ifndef MOE_FORMATS_GRAMMAR_NUMBER_INTERNAL_H
#define MOE_FORMATS_GRAMMAR_NUMBER_INTERNAL_H

#include "formats/grammar/automaton-internal.h"

enum { MOE_NUMBER_DIGITS = 32, MOE_MULTIPLE_MAX = 1000 };

/* whole: digits without leading zeros, "0" for none; part: those after the point, without trailing zeros. */
struct moe_decimal { bool negative; int n_whole, n_part; char whole[80], part[80]; };

/* Read the spelling of a JSON number; false when it has more than 32 digits on a side. */
bool moe_decimal_read(struct moe_decimal *d, const char *text);
int moe_decimal_compare(const struct moe_decimal *a, const struct moe_decimal *b);

struct moe_number {
    bool integer;                 /* no point, no exponent */
    bool has_min, has_max, min_exclusive, max_exclusive, has_multiple;
    struct moe_decimal min, max;
    struct moe_decimal multiple;  /* an integer from 1 to 1000, or 1, 0.1, 0.01, ...: MOE_UNSUPPORTED else */
};

/* Edges for the numbers that meet all of it; none where no number does. */
void moe_nfa_number(struct moe_nfa *n, uint32_t from, const struct moe_number *x, uint32_t to);

#endif
