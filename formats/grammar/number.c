/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers within a range: the decimal digits of a number are compared with those of the bound, from the left.
 */
#include "formats/grammar/number-internal.h"

#include <stdlib.h>
#include <string.h>

enum { DIGITS = MOE_NUMBER_DIGITS };

/* ---- decimals ---- */

bool moe_decimal_read(struct moe_decimal *d, const char *text)
{
    char digits[200];
    int n = 0, point = 0;
    bool seen = false;
    *d = (struct moe_decimal){ .negative = *text == '-' };
    for (text += d->negative; (*text >= '0' && *text <= '9') || *text == '.'; text++) {
        if (*text == '.') { seen = true; continue; }
        if (n == 150) return false;
        digits[n++] = *text;
        point += !seen;
    }
    if (*text == 'e' || *text == 'E') {
        long e = strtol(text + 1, NULL, 10);
        if (e > 100 || e < -100) return false;
        point += (int)e;
    }
    int begin = 0;
    while (begin < n && digits[begin] == '0') begin++, point--;
    while (n > begin && digits[n - 1] == '0') n--;
    n -= begin;
    if (n == 0) point = 0, d->negative = false;
    if (point > DIGITS || n - point > DIGITS) return false;
    for (int i = 0; i < point; i++) d->whole[d->n_whole++] = i < n ? digits[begin + i] : '0';
    for (int i = point; i < n; i++) d->part[d->n_part++] = i < 0 ? '0' : digits[begin + i];
    if (!d->n_whole) d->whole[d->n_whole++] = '0';
    return true;
}

static int compare_magnitudes(const struct moe_decimal *a, const struct moe_decimal *b)
{
    if (a->n_whole != b->n_whole) return a->n_whole < b->n_whole ? -1 : 1;
    int c = memcmp(a->whole, b->whole, (size_t)a->n_whole);
    return c ? c : strcmp(a->part, b->part);
}

int moe_decimal_compare(const struct moe_decimal *a, const struct moe_decimal *b)
{
    if (a->negative != b->negative) return a->negative ? -1 : 1;
    return a->negative ? compare_magnitudes(b, a) : compare_magnitudes(a, b);
}

/* ---- pieces of numbers ---- */

static uint32_t digit(struct moe_nfa *n, uint32_t from, int lo, int hi)
{
    uint32_t s = moe_nfa_state(n);
    if (lo <= hi) moe_nfa_range(n, from, '0' + (unsigned)lo, '0' + (unsigned)hi, s);
    return s;
}

/* min to max digits, 0 to 9 each */
static void digits(struct moe_nfa *n, uint32_t from, int min, int max, uint32_t to)
{
    for (int i = 0; i < min; i++) from = digit(n, from, 0, 9);
    moe_nfa_empty(n, from, to);
    for (int i = min; i < max; i++) {
        from = digit(n, from, 0, 9);
        moe_nfa_empty(n, from, to);
    }
}

/* what may follow the last digit before the point, where the fraction does not matter */
static void any_fraction(struct moe_nfa *n, uint32_t from, bool integer, uint32_t to)
{
    moe_nfa_empty(n, from, to);
    if (!integer) digits(n, moe_nfa_bytes(n, from, ".", 1), 1, DIGITS, to);
}

/* the digits after the point from the i-th on, where at least one must not be 0 */
static void some_digit(struct moe_nfa *n, uint32_t from, int i, uint32_t to)
{
    for (; i < DIGITS; i++) {
        digits(n, digit(n, from, 1, 9), 0, DIGITS - 1 - i, to);
        from = digit(n, from, 0, 0);
    }
}

static void zeros(struct moe_nfa *n, uint32_t from, int i, uint32_t to)
{
    for (; i < DIGITS; i++) {
        from = digit(n, from, 0, 0);
        moe_nfa_empty(n, from, to);
    }
}

/* ---- bounds of magnitudes ---- */

static int least_digit(const struct moe_decimal *a, int i) { return i == 0 && a->n_whole > 1; }

/* Edges for the whole numbers of as many digits as the bound that are larger (or smaller) than its whole
 * part, with any fraction; returns the state after digits that are equal to it. */
static uint32_t compare_whole(struct moe_nfa *n, uint32_t from, const struct moe_decimal *a, bool larger,
                              bool integer, uint32_t to)
{
    for (int i = 0; i < a->n_whole; i++) {
        int d = a->whole[i] - '0', lo = larger ? d + 1 : least_digit(a, i), hi = larger ? 9 : d - 1;
        if (lo <= hi) {
            uint32_t end = moe_nfa_state(n);
            digits(n, digit(n, from, lo, hi), a->n_whole - i - 1, a->n_whole - i - 1, end);
            any_fraction(n, end, integer, to);
        }
        from = digit(n, from, d, d);
    }
    return from;
}

static void at_least(struct moe_nfa *n, uint32_t from, const struct moe_decimal *a, bool exclusive,
                     bool integer, uint32_t to)
{
    if (a->n_whole < DIGITS) {
        uint32_t end = moe_nfa_state(n);
        digits(n, digit(n, from, 1, 9), a->n_whole, DIGITS - 1, end);
        any_fraction(n, end, integer, to);
    }
    uint32_t at = compare_whole(n, from, a, true, integer, to);
    if (!a->n_part && !exclusive) any_fraction(n, at, integer, to);
    if (integer || (!a->n_part && !exclusive)) return;
    at = moe_nfa_bytes(n, at, ".", 1);
    for (int i = 0; i < a->n_part; i++) {
        int d = a->part[i] - '0';
        if (d < 9) digits(n, digit(n, at, d + 1, 9), 0, DIGITS - 1 - i, to);
        at = digit(n, at, d, d);
    }
    if (exclusive) some_digit(n, at, a->n_part, to);
    else digits(n, at, 0, DIGITS - a->n_part, to);
}

static void at_most(struct moe_nfa *n, uint32_t from, const struct moe_decimal *a, bool exclusive,
                    bool integer, uint32_t to)
{
    for (int k = 1; k < a->n_whole; k++) {
        uint32_t end = moe_nfa_state(n);
        digits(n, digit(n, from, k > 1, 9), k - 1, k - 1, end);
        any_fraction(n, end, integer, to);
    }
    uint32_t at = compare_whole(n, from, a, false, integer, to);
    if (a->n_part || !exclusive) moe_nfa_empty(n, at, to);
    if (integer) return;
    at = moe_nfa_bytes(n, at, ".", 1);
    for (int i = 0; i < a->n_part; i++) {
        int d = a->part[i] - '0';
        if (d > 0) digits(n, digit(n, at, 0, d - 1), 0, DIGITS - 1 - i, to);
        at = digit(n, at, d, d);
        if (i + 1 < a->n_part || !exclusive) moe_nfa_empty(n, at, to);
    }
    if (!exclusive) zeros(n, at, a->n_part, to);
}

/* ---- ranges ---- */

static void automaton(struct moe_nfa *n, struct moe_dfa *d, const struct moe_decimal *a, bool least,
                      bool exclusive, bool integer)
{
    struct moe_nfa one = { .work = n->work };
    uint32_t from = moe_nfa_state(&one), to = moe_nfa_state(&one);
    (least ? at_least : at_most)(&one, from, a, exclusive, integer, to);
    moe_dfa_make(d, &one, from, to);
    moe_nfa_release(&one);
}

/* Magnitudes from lo to hi; hi may be NULL. */
static void magnitudes(struct moe_nfa *n, uint32_t from, const struct moe_decimal *lo, bool lo_exclusive,
                       const struct moe_decimal *hi, bool hi_exclusive, bool integer, uint32_t to)
{
    struct moe_dfa a, b, both;
    automaton(n, &a, lo, true, lo_exclusive, integer);
    if (!hi) {
        moe_nfa_words(n, from, &a, to);
    } else {
        automaton(n, &b, hi, false, hi_exclusive, integer);
        moe_dfa_combine(&both, &a, &b, true, n->work);
        moe_nfa_words(n, from, &both, to);
        moe_dfa_release(&b), moe_dfa_release(&both);
    }
    moe_dfa_release(&a);
}

static const struct moe_decimal zero = { false, 1, 0, "0", "" };

static void range(struct moe_nfa *n, uint32_t from, const struct moe_number *x, uint32_t to)
{
    bool above = x->has_min && moe_decimal_compare(&x->min, &zero) >= 0; /* no number is negative */
    bool below = x->has_max && x->max.negative;                          /* all numbers are */
    if (!below)
        magnitudes(n, from, above ? &x->min : &zero, above && x->min_exclusive, x->has_max ? &x->max : NULL,
                   x->max_exclusive, x->integer, to);
    if (!above)
        magnitudes(n, moe_nfa_bytes(n, from, "-", 1), below ? &x->max : &zero, !below || x->max_exclusive,
                   x->has_min ? &x->min : NULL, x->min_exclusive, x->integer, to);
}

static void any_number(struct moe_nfa *n, uint32_t from, bool integer, uint32_t to)
{
    uint32_t sign = moe_nfa_state(n), whole = moe_nfa_state(n), end = moe_nfa_state(n);
    moe_nfa_empty(n, from, sign);
    moe_nfa_range(n, from, '-', '-', sign);
    moe_nfa_range(n, sign, '0', '0', whole);
    digits(n, digit(n, sign, 1, 9), 0, DIGITS - 1, whole);
    any_fraction(n, whole, integer, end);
    moe_nfa_empty(n, end, to);
    if (integer) return;
    uint32_t e = moe_nfa_state(n), power = moe_nfa_state(n);
    moe_nfa_range(n, end, 'E', 'E', e);
    moe_nfa_range(n, end, 'e', 'e', e);
    moe_nfa_empty(n, e, power);
    moe_nfa_range(n, e, '+', '+', power);
    moe_nfa_range(n, e, '-', '-', power);
    digits(n, power, 1, 2, to);
}

/* ---- multiples ---- */

/* whole numbers, with a sign or without, that m divides: a state for each remainder */
static void divided(struct moe_nfa *n, uint32_t from, int m, uint32_t to)
{
    uint32_t first = (uint32_t)n->n, sign = moe_nfa_bytes(n, from, "-", 1);
    moe_nfa_empty(n, from, sign);
    first = (uint32_t)n->n;
    for (int r = 0; r < m; r++) moe_nfa_state(n);
    for (int r = -1; r < m && n->work->code == MOE_OK; r++)
        for (int d = 0; d < 10; d++) {
            uint32_t at = r < 0 ? sign : first + (uint32_t)r;
            moe_nfa_range(n, at, '0' + (unsigned)d, '0' + (unsigned)d,
                          first + (uint32_t)((r < 0 ? d : 10 * r + d) % m));
        }
    moe_nfa_empty(n, first, to);
}

/* numbers with at most `places` digits after the point */
static void rounded(struct moe_nfa *n, uint32_t from, int places, uint32_t to)
{
    uint32_t sign = moe_nfa_state(n), whole = moe_nfa_state(n);
    moe_nfa_empty(n, from, sign);
    moe_nfa_range(n, from, '-', '-', sign);
    digits(n, sign, 1, DIGITS, whole);
    moe_nfa_empty(n, whole, to);
    digits(n, moe_nfa_bytes(n, whole, ".", 1), 1, places, to);
}

static void multiples(struct moe_nfa *n, uint32_t from, const struct moe_decimal *m, uint32_t to)
{
    int places = m->n_part;
    bool tenths = places && m->whole[0] == '0' && m->part[places - 1] == '1';
    for (int i = 0; i + 1 < places; i++) tenths = tenths && m->part[i] == '0';
    if (tenths) {
        rounded(n, from, places, to);
        return;
    }
    long value = places || m->negative || m->n_whole > 4 ? 0 : strtol(m->whole, NULL, 10);
    if (value < 1 || value > MOE_MULTIPLE_MAX)
        moe_work_fail(n->work, MOE_UNSUPPORTED,
                      "'multipleOf' is supported only for integers from 1 to %d and "
                      "for 0.1, 0.01 and so on",
                      MOE_MULTIPLE_MAX);
    else divided(n, from, (int)value, to);
}

void moe_nfa_number(struct moe_nfa *n, uint32_t from, const struct moe_number *x, uint32_t to)
{
    struct moe_nfa a = { .work = n->work }, b = a;
    struct moe_dfa da, db, both;
    if (!x->has_min && !x->has_max && !x->has_multiple) {
        any_number(n, from, x->integer, to);
        return;
    }
    if (!x->has_multiple) {
        range(n, from, x, to);
        return;
    }
    for (int i = 0; i < 2; i++) moe_nfa_state(&a), moe_nfa_state(&b);
    range(&a, 0, x, 1);
    multiples(&b, 0, &x->multiple, 1);
    moe_dfa_make(&da, &a, 0, 1), moe_dfa_make(&db, &b, 0, 1);
    moe_dfa_combine(&both, &da, &db, true, n->work);
    moe_nfa_words(n, from, &both, to);
    moe_dfa_release(&da), moe_dfa_release(&db), moe_dfa_release(&both);
    moe_nfa_release(&a), moe_nfa_release(&b);
}
