/* SPDX-License-Identifier: Apache-2.0 */
/* K2's pattern (class intersections as in Rust's regex crate; the alternatives are tried in this order,
 * leftmost, greedy, backtracking):
 *
 *   1  [\p{Han}]+
 *   2  [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*
 *          [\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
 *   3  [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+
 *          [\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
 *   4  \p{N}{1,3}
 *   5   ?[^\s\p{L}\p{N}]+[\r\n]*
 *   6  \s*[\r\n]+
 *   7  \s+(?!\S)
 *   8  \s+
 *
 * Below it is written so that it never backtracks into a run of characters, which keeps time linear and the
 * stack flat.  Why each rewritten alternative finds the same piece (tests/unit/test-tokenizer.c compares them
 * with the plain form on hostile text), where U is the first bracket of 2 and 3 and L the second:
 *
 * 1, 4, 5, 8: nothing that can fail follows the repeats, so giving characters back never helps (in 5 the
 * optional space is not in the class after it), and the repeats are possessive.
 *
 * 3: `L*` after `U+` cannot fail, so all is possessive but the optional first character.
 *
 * 2: write A for \p{Lu}\p{Lt}, B for \p{Ll}, C for what both brackets contain.  `U*` takes the longest run of
 * A and C.  If a B follows, `L+` continues from there: `U*+L++`.  If not, `U*` gives characters back until a
 * C comes next, and `L+` takes that C alone, because an A or the end of the run follows it.  So the piece
 * ends after the last C of the run: `(?:A*+C++)++`, whose last, failing iteration is undone.  Without a C
 * there is no match.  The optional first character is tried with both forms, then left out, as backtracking
 * would do.
 *
 * 6: `\s*` gives characters back until a newline comes next, so the piece ends after the last newline of the
 * white space: `(?:[^\S\r\n]*+[\r\n]++)++`.
 *
 * 7: it gives back at most one character; of two or more, the one given back is white space and satisfies
 * (?!\S).
 *
 * Time is linear over the whole text: a run is scanned a bounded number of times and then consumed.  The
 * exceptions are the second form of 2, which leaves a tail of A's only, and 7, which leaves one character;
 * neither tail meets that form again.
 *
 * PCRE2 differs from the engine that K2 uses in three points.  Its \s includes U+180E, so White_Space is
 * spelled out.  Its \p{Han} means script extensions since 10.40, so \p{sc:Han} is used.  It has no &&, so a
 * negative look-ahead stands before each character; ASCII characters skip it.  The Unicode version is that of
 * the library (docs/reference/tokenizer.md). */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "formats/tokenizer/pretoken.h"

#include <pcre2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define WHITE \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}"
#define BLANK \
    "\\x09\\x0b\\x0c\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}"
/* The next character is neither Han nor ASCII; U and L match ASCII letters as [A-Z] and [a-z], which are
 * faster without this look-ahead. */
#define NOTHAN "(?![\\x00-\\x7f]|\\p{sc:Han})"
#define A      "[\\p{Lu}\\p{Lt}]"
#define C      "(?:" NOTHAN "[\\p{Lm}\\p{Lo}\\p{M}])"
#define U      "(?:[A-Z]++|" NOTHAN "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}])"
#define L      "(?:[a-z]++|" NOTHAN "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}])"
#define FIRST  "[^\\r\\n\\p{L}\\p{N}]?"
#define SUFFIX "(?i:'s|'t|'re|'ve|'m|'ll|'d)?+"

static const char pattern[] =
    "(?![\\x00-\\x7f])\\p{sc:Han}++"
    "|" FIRST "(?:" U "*+" L "++|(?:" A "*+" C "++)++)" SUFFIX
    "|" FIRST U "++" L "*+" SUFFIX
    "|\\p{N}{1,3}+"
    "| ?+[^" WHITE "\\p{L}\\p{N}]++[\\r\\n]*+"
    "|(?:[" BLANK "]*+[\\r\\n]++)++"
    "|[" WHITE "]+(?![^" WHITE "])"
    "|[" WHITE "]++";

struct moe_pretoken {
    pcre2_code *code;
    pcre2_match_context *limits;
    bool jit;
};

struct moe_pretoken_scan {
    const struct moe_pretoken *p;
    pcre2_match_data *data;
};

enum moe_code moe_pretoken_open(struct moe_pretoken **out, struct moe_err *err)
{
    struct moe_pretoken *p = calloc(1, sizeof *p);
    int number = 0;
    PCRE2_SIZE offset = 0;
    if (!p) return moe_fail(err, MOE_NOMEM, "out of memory for the pre-tokenizer");
    p->code = pcre2_compile((PCRE2_SPTR)pattern, sizeof pattern - 1,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NO_START_OPTIMIZE, &number,
                            &offset, NULL);
    p->limits = pcre2_match_context_create(NULL);
    if (!p->code || !p->limits) {
        PCRE2_UCHAR why[128] = "";
        pcre2_get_error_message(number, why, sizeof why);
        bool memory = p->code || number == PCRE2_ERROR_HEAP_FAILED;
        moe_pretoken_close(&p);
        if (memory) return moe_fail(err, MOE_NOMEM, "out of memory for the pre-tokenizer");
        return moe_fail(
            err, MOE_UNSUPPORTED,
            "this PCRE2 does not take the pre-tokenizer pattern: at %zu: %s (needs 10.40 or newer)", offset,
            (char *)why);
    }
    /* These limits are meant to stop exponential patterns; this one is linear, and a long run must not reach
     * them. */
    pcre2_set_match_limit(p->limits, UINT32_MAX);
    pcre2_set_depth_limit(p->limits, UINT32_MAX);
    pcre2_set_heap_limit(p->limits, UINT32_MAX);
    /* the system may forbid JIT compilation; matching works without it */
    p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
    *out = p;
    return MOE_OK;
}

void moe_pretoken_no_jit(struct moe_pretoken *p) { p->jit = false; }

void moe_pretoken_close(struct moe_pretoken **p)
{
    if (!*p) return;
    pcre2_code_free((*p)->code);
    pcre2_match_context_free((*p)->limits);
    free(*p);
    *p = NULL;
}

struct moe_pretoken_scan *moe_pretoken_scan_new(const struct moe_pretoken *p)
{
    struct moe_pretoken_scan *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->p = p;
    s->data = pcre2_match_data_create(1, NULL);
    if (s->data) return s;
    free(s);
    return NULL;
}

void moe_pretoken_scan_free(struct moe_pretoken_scan *s)
{
    if (!s) return;
    pcre2_match_data_free(s->data);
    free(s);
}

enum moe_code moe_pretoken_next(struct moe_pretoken_scan *s, const char *text, size_t len, size_t at,
                                size_t *end, struct moe_err *err)
{
    const struct moe_pretoken *p = s->p;
    int got = PCRE2_ERROR_JIT_STACKLIMIT;
    if (p->jit)
        got = pcre2_jit_match(p->code, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK, s->data, p->limits);
    if (got == PCRE2_ERROR_JIT_STACKLIMIT)
        got = pcre2_match(p->code, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->data,
                          p->limits);
    if (got == PCRE2_ERROR_NOMEMORY || got == PCRE2_ERROR_HEAPLIMIT)
        return moe_fail(err, MOE_NOMEM, "out of memory in the pre-tokenizer");
    *end = got > 0 ? pcre2_get_ovector_pointer(s->data)[1] : at;
    if (*end <= at)
        return moe_fail(err, MOE_INTERNAL, "pre-tokenizer stopped at byte %zu (PCRE2 error %d)", at, got);
    return MOE_OK;
}
