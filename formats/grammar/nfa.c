/* SPDX-License-Identifier: Apache-2.0 */
#include "base/grow.h"
#include "formats/grammar/automaton-internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void moe_work_fail(struct moe_work *w, enum moe_code code, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    if (w->code != MOE_OK) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    w->code = moe_fail(w->err, code, "%s", text);
}

void moe_work_nomem(struct moe_work *w) { moe_work_fail(w, MOE_NOMEM, "out of memory for a grammar"); }

static bool spend(struct moe_work *w, uint64_t *left, uint64_t n)
{
    if (w->code != MOE_OK) return false;
    if (*left >= n) {
        *left -= n;
        return true;
    }
    moe_work_fail(w, MOE_UNSUPPORTED, "too large: its automaton needs more states or time than are allowed "
                                      "(use smaller counts, fewer alternatives, simpler patterns)");
    return false;
}

bool moe_work_steps(struct moe_work *w, uint64_t n) { return spend(w, &w->steps, n); }
bool moe_work_states(struct moe_work *w, uint64_t n) { return spend(w, &w->states, n); }

void moe_nfa_release(struct moe_nfa *n)
{
    free(n->edges), free(n->first);
    *n = (struct moe_nfa){ .work = n->work };
}

uint32_t moe_nfa_state(struct moe_nfa *n)
{
    if (!moe_work_states(n->work, 1)) return 0;
    if (!MOE_GROW(n->first, n->cap, n->n + 1)) {
        moe_work_nomem(n->work);
        return 0;
    }
    n->first[n->n] = 0;
    return (uint32_t)n->n++;
}

static void add_edge(struct moe_nfa *n, uint32_t from, struct moe_nfa_edge e)
{
    if (!moe_work_states(n->work, 1)) return;
    if (!MOE_GROW(n->edges, n->edge_cap, n->n_edges + 1)) {
        moe_work_nomem(n->work);
        return;
    }
    e.next = n->first[from];
    n->edges[n->n_edges++] = e;
    n->first[from] = (uint32_t)n->n_edges;
}

void moe_nfa_empty(struct moe_nfa *n, uint32_t from, uint32_t to)
{
    add_edge(n, from, (struct moe_nfa_edge){ .lo = 1, .to = to });
}

void moe_nfa_range(struct moe_nfa *n, uint32_t from, unsigned lo, unsigned hi, uint32_t to)
{
    add_edge(n, from, (struct moe_nfa_edge){ .lo = (uint16_t)lo, .hi = (uint16_t)hi, .to = to });
}

void moe_nfa_call(struct moe_nfa *n, uint32_t from, uint32_t rule, uint32_t to)
{
    add_edge(n, from, (struct moe_nfa_edge){ .lo = 1, .to = to, .call = rule + 1 });
}

uint32_t moe_nfa_bytes(struct moe_nfa *n, uint32_t from, const char *s, size_t bytes)
{
    for (size_t i = 0; i < bytes && n->work->code == MOE_OK; i++) {
        uint32_t to = moe_nfa_state(n);
        moe_nfa_range(n, from, (unsigned char)s[i], (unsigned char)s[i], to);
        from = to;
    }
    return from;
}

/* ---- characters ---- */

static int to_utf8(uint32_t c, unsigned char u[4])
{
    int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = { 0, 0xc0, 0xe0, 0xf0 };
    for (int i = more; i > 0; i--, c >>= 6) u[i] = (unsigned char)(0x80 | (c & 63));
    u[0] = (unsigned char)(lead[more] | c);
    return more + 1;
}

/* Edges for the byte sequences of n bytes from lo to hi, in the order of UTF-8; the sequences between them
 * differ from both only in bytes that may be any of 0x80 to 0xbf. */
static void add_sequences(struct moe_nfa *n, uint32_t from, const unsigned char *lo, const unsigned char *hi,
                          int len, uint32_t to)
{
    static const unsigned char least[] = { 0x80, 0x80, 0x80 }, most[] = { 0xbf, 0xbf, 0xbf };
    if (len == 1) {
        moe_nfa_range(n, from, lo[0], hi[0], to);
        return;
    }
    unsigned first = lo[0], last = hi[0];
    if (first == last || memcmp(lo + 1, least, (size_t)len - 1)) {
        uint32_t s = moe_nfa_state(n);
        moe_nfa_range(n, from, first, first, s);
        add_sequences(n, s, lo + 1, first == last ? hi + 1 : most, len - 1, to);
        if (first++ == last) return;
    }
    if (memcmp(hi + 1, most, (size_t)len - 1)) {
        uint32_t s = moe_nfa_state(n);
        moe_nfa_range(n, from, last, last, s);
        add_sequences(n, s, least, hi + 1, len - 1, to);
        last--;
    }
    if (first > last) return;
    uint32_t s = moe_nfa_state(n);
    moe_nfa_range(n, from, first, last, s);
    add_sequences(n, s, least, most, len - 1, to);
}

static void add_utf8(struct moe_nfa *n, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to)
{
    static const uint32_t ends[] = { 0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff, 0x10ffff };
    for (int i = 0; i < 6 && lo <= hi; i++) {
        if (lo > ends[i]) continue;
        uint32_t last = hi < ends[i] ? hi : ends[i];
        unsigned char a[4], b[4];
        int len = to_utf8(lo, a);
        to_utf8(last, b);
        if (i != 3) add_sequences(n, from, a, b, len, to); /* 3: surrogates */
        lo = last + 1;
    }
}

/* Edges for those of the characters lo to hi that a JSON string must escape; their spellings share what they
 * begin with, because patterns repeat them often. */
static void add_escaped(struct moe_nfa *n, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to)
{
    static const char of[] = "\b\f\n\r\t\"\\", as[] = "bfnrt\"\\", digits[] = "0123456789abcdef";
    uint32_t escape = 0, u = 0, high[2] = { 0 };
    for (uint32_t c = lo; c <= hi && c <= '\\'; c++) {
        const char *p = c ? strchr(of, (int)c) : NULL;
        if (!p && c >= 0x20) continue;
        if (!escape) escape = moe_nfa_bytes(n, from, "\\", 1);
        if (p) {
            moe_nfa_range(n, escape, (unsigned char)as[p - of], (unsigned char)as[p - of], to);
            continue;
        }
        if (!u) u = moe_nfa_bytes(n, escape, "u00", 3);
        if (!high[c >> 4]) high[c >> 4] = moe_nfa_bytes(n, u, &digits[c >> 4], 1);
        moe_nfa_range(n, high[c >> 4], (unsigned char)digits[c & 15], (unsigned char)digits[c & 15], to);
    }
}

void moe_nfa_chars(struct moe_nfa *n, uint32_t from, uint32_t lo, uint32_t hi, enum moe_spelling spelling,
                   uint32_t to)
{
    static const uint32_t ends[] = { '"', '\\', 0x110000 }; /* what lies before each is written as it is */
    if (spelling == MOE_RAW) {
        add_utf8(n, from, lo, hi, to);
        return;
    }
    add_escaped(n, from, lo, hi, to);
    if (lo < 0x20) lo = 0x20;
    for (int i = 0; i < 3 && lo <= hi; i++) {
        uint32_t last = hi < ends[i] ? hi : ends[i] - 1;
        if (lo <= last) add_utf8(n, from, lo, last, to);
        if (lo <= ends[i]) lo = ends[i] + 1;
    }
}

static uint32_t hex_digit(struct moe_nfa *n, uint32_t from)
{
    uint32_t s = moe_nfa_state(n);
    moe_nfa_range(n, from, '0', '9', s);
    moe_nfa_range(n, from, 'A', 'F', s);
    moe_nfa_range(n, from, 'a', 'f', s);
    return s;
}

/* A hexadecimal digit of either case, from lo to hi, which are both below 10 or both at least 10. */
static void hex_range(struct moe_nfa *n, uint32_t from, unsigned lo, unsigned hi, uint32_t to)
{
    if (lo < 10) {
        moe_nfa_range(n, from, '0' + lo, '0' + hi, to);
        return;
    }
    moe_nfa_range(n, from, 'a' + lo - 10, 'a' + hi - 10, to);
    moe_nfa_range(n, from, 'A' + lo - 10, 'A' + hi - 10, to);
}

/* After "\u": four digits that are no surrogate, or the two halves of a pair. */
static void add_hex(struct moe_nfa *n, uint32_t from, uint32_t to)
{
    uint32_t any = moe_nfa_state(n), d = moe_nfa_state(n), low = moe_nfa_state(n), high = moe_nfa_state(n);
    hex_range(n, from, 0, 9, any);
    hex_range(n, from, 10, 12, any);
    hex_range(n, from, 14, 15, any);
    hex_range(n, from, 13, 13, d);
    uint32_t last = hex_digit(n, any);
    moe_nfa_range(n, d, '0', '7', last); /* U+D000 to U+D7FF */
    moe_nfa_empty(n, hex_digit(n, hex_digit(n, last)), to);
    hex_range(n, d, 8, 9, high);
    hex_range(n, d, 10, 11, high);
    uint32_t s = moe_nfa_bytes(n, hex_digit(n, hex_digit(n, high)), "\\u", 2), second = moe_nfa_state(n);
    hex_range(n, s, 13, 13, second);
    hex_range(n, second, 12, 15, low);
    moe_nfa_empty(n, hex_digit(n, hex_digit(n, low)), to);
}

void moe_nfa_json_char(struct moe_nfa *n, uint32_t from, uint32_t to)
{
    uint32_t escape = moe_nfa_state(n), u = moe_nfa_state(n);
    add_utf8(n, from, 0x20, '"' - 1, to);
    add_utf8(n, from, '"' + 1, '\\' - 1, to);
    add_utf8(n, from, '\\' + 1, 0x10ffff, to);
    moe_nfa_range(n, from, '\\', '\\', escape);
    for (const char *p = "\"\\/bfnrt"; *p; p++)
        moe_nfa_range(n, escape, (unsigned char)*p, (unsigned char)*p, to);
    moe_nfa_range(n, escape, 'u', 'u', u);
    add_hex(n, u, to);
}
