/* SPDX-License-Identifier: Apache-2.0 */
/* Compares the pre-tokenizer with the plain form of its pattern, on hostile text and long runs, with and
 * without JIT. */
#undef NDEBUG
#define PCRE2_CODE_UNIT_WIDTH 8
#include "base/show.h"
#include "formats/tokenizer/pretoken.h"
#include "tests/unit/tokenizer-texts.h"

#include <assert.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>

static long checks;
static struct moe_err err;

/* K2's pattern as it is written, but for the class intersections and white space. */
#define S \
    "[\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}]"
#define NOT_S \
    "[^\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}]"
#define UPPER  "(?:(?!\\p{sc:Han})[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}])"
#define LOWER  "(?:(?!\\p{sc:Han})[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}])"
#define SUFFIX "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
static const char plain[] =
    "[\\p{sc:Han}]+"
    "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" SUFFIX
    "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" SUFFIX
    "|\\p{N}{1,3}"
    "| ?(?:(?!" S ")[^\\p{L}\\p{N}])+[\\r\\n]*"
    "|" S "*[\\r\\n]+"
    "|" S "+(?!" NOT_S ")"
    "|" S "+";

static pcre2_code *plain_code;
static pcre2_match_data *plain_data;

static void open_plain(void)
{
    int number;
    PCRE2_SIZE offset;
    plain_code = pcre2_compile((PCRE2_SPTR)plain, sizeof plain - 1, PCRE2_UTF, &number, &offset, NULL);
    assert(plain_code);
    plain_data = pcre2_match_data_create(1, NULL);
    assert(plain_data);
}

/* Checks that every piece of the text ends where the plain pattern ends it; returns the number of pieces. */
static size_t compare(struct moe_pretoken_scan *s, const char *text, size_t len)
{
    size_t pieces = 0;
    for (size_t at = 0, end; at < len; at = end, pieces++) {
        assert(pcre2_match(plain_code, (PCRE2_SPTR)text, len, at, 0, plain_data, NULL) > 0);
        PCRE2_SIZE *want = pcre2_get_ovector_pointer(plain_data);
        assert(want[0] == at);
        assert(moe_pretoken_next(s, text, len, at, &end, &err) == MOE_OK);
        if (end != want[1]) {
            fprintf(stderr, "piece at %zu of %zu: ends at %zu, not %zu: ", at, len, end, want[1]);
            for (size_t i = 0; i < len; i++) fprintf(stderr, "%02x", (unsigned char)text[i]);
            fputc('\n', stderr);
            abort();
        }
        checks++;
    }
    return pieces;
}

static void test_hostile(struct moe_pretoken_scan *s, int rounds)
{
    static char text[64 * 16];
    uint64_t state = 88172645463325252u;
    for (int i = 0; i < rounds; i++) compare(s, text, random_text(&state, text, i % 4 ? 6 : 60));
    for (size_t a = 0; a < TEXT_ATOMS; a++)
        for (size_t b = 0; b < TEXT_ATOMS; b++)
            compare(s, text, (size_t)sprintf(text, "%s%s", text_atoms[a], text_atoms[b]));
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) { out[0] = (char)c; return 1; }
    if (c < 0x800) { out[0] = (char)(0xc0 | c >> 6); out[1] = (char)(0x80 | (c & 63)); return 2; }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* Every character of Unicode, between others. */
static void test_every(struct moe_pretoken_scan *s)
{
    char text[32];
    for (uint32_t c = 0; c < 0x110000; c += c < 0x30000 ? 1 : 61) {
        if (c >= 0xd800 && c <= 0xdfff) continue;
        char u[5];
        size_t n = put_utf8(u, c), len = 0;
        assert(moe_utf8_char((unsigned char *)u, n) == (int)n && moe_utf8_prefix((unsigned char *)u, n) == n);
        text[len++] = 'A';
        for (int i = 0; i < 2; i++) { memcpy(text + len, u, n); len += n; }
        memcpy(text + len, " b", 2);
        compare(s, text, len + 2);
    }
}

/* Accepted are exactly the byte strings that RFC 3629 calls UTF-8. */
static void test_utf8(void)
{
    long valid = 0;
    for (uint32_t v = 0; v < 0x1000000; v++) { /* all of three bytes */
        unsigned char s[3] = { (unsigned char)(v >> 16), (unsigned char)(v >> 8), (unsigned char)v };
        if (s[0] < 0xe0) continue;
        valid += moe_utf8_char(s, 3) == 3;
    }
    assert(valid == 0x10000 - 0x800 - 0x800); /* U+0800 and up, without surrogates */
    assert(!moe_utf8_char((const unsigned char *)"\xc0\x80", 2) &&
           !moe_utf8_char((const unsigned char *)"\xc1\xbf", 2));
    assert(!moe_utf8_char((const unsigned char *)"\xf0\x8f\xbf\xbf", 4) &&
           moe_utf8_char((const unsigned char *)"\xf0\x90\x80\x80", 4) == 4);
    assert(!moe_utf8_char((const unsigned char *)"\xf4\x90\x80\x80", 4) &&
           moe_utf8_char((const unsigned char *)"\xf4\x8f\xbf\xbf", 4) == 4);
    assert(!moe_utf8_char((const unsigned char *)"\xf5\x80\x80\x80", 4) &&
           !moe_utf8_char((const unsigned char *)"\x80", 1));
    assert(!moe_utf8_char((const unsigned char *)"\xe4\xb8", 2) &&
           !moe_utf8_char((const unsigned char *)"", 0));
    assert(moe_utf8_prefix((const unsigned char *)"0123456789abc\xff", 14) == 13);
    checks += 12;
}

/* Runs in which the plain pattern backtracks over the whole run at every character, or
 * deepens its stack with each. */
static void test_runs(struct moe_pretoken_scan *s, size_t bytes)
{
    static const struct { const char *unit, *tail; size_t pieces;
    } runs[] = {
        /* pieces 0: many */
        { "a", "", 1 },
        { "A", "", 1 },
        { "A", "1", 2 },
        { " ", "", 1 },
        { " ", "x", 2 },
        { "\n", "", 1 },
        { " ", "\n", 1 },
        { "\n", "  x", 3 },
        { "!", "", 1 },
        { "!", "\r\n\n", 1 },
        { "\xe4\xb8\x96", "", 1 },
        { "\xe3\x80\x87", "1", 2 },
        { "\xcc\x81", "", 1 },
        { "\xe0\xb8\x81", "A", 2 },
        { "\xd0\x96", "", 1 },
        { "\xf0\x9f\x98\x80", "", 1 },
        { "\xf0\x90\x90\x80", "!", 2 },
        { "'", "s", 0 },
        { "aA", "", 0 },
        { "7", "", 0 },
        { "a's", "", 0 },
        { "\xca\xb0"
          "A",
          "", 0 },
        { " \n", "", 1 },
        { " \n ", "x", 2 },
        { "\xe4\xb8\x96"
          "a",
          "", 0 },
        { "!A", "", 0 },
    };
    char *text = malloc(bytes + 64);
    assert(text);
    for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
        size_t len = 0, unit = strlen(runs[r].unit), pieces = 0;
        while (len + unit <= bytes) { memcpy(text + len, runs[r].unit, unit); len += unit; }
        len += (size_t)sprintf(text + len, "%s", runs[r].tail);
        for (size_t at = 0, end; at < len; at = end, pieces++, checks++)
            assert(moe_pretoken_next(s, text, len, at, &end, &err) == MOE_OK && end > at);
        if (runs[r].pieces && pieces != runs[r].pieces) {
            fprintf(stderr, "run %zu: %zu pieces\n", r, pieces);
            abort();
        }
    }
    free(text);
}

int main(void)
{
    struct moe_pretoken *p;
    assert(moe_pretoken_open(&p, &err) == MOE_OK);
    struct moe_pretoken_scan *s = moe_pretoken_scan_new(p);
    assert(s);
    open_plain();
    test_utf8();
    test_hostile(s, 20000);
    test_every(s);
    test_runs(s, 1 << 20);
    moe_pretoken_no_jit(p);
    test_hostile(s, 2000);
    test_runs(s, 1 << 18);
    moe_pretoken_scan_free(s);
    moe_pretoken_close(&p);
    assert(!p);
    pcre2_match_data_free(plain_data);
    pcre2_code_free(plain_code);
    printf("test-pretoken: %ld checks\n", checks);
    return 0;
}
