/* SPDX-License-Identifier: Apache-2.0 */
/* Regular expressions: parsed to a tree, because a quantifier repeats what stands before it, then to an
 * automaton. */
#include "formats/grammar/regex-internal.h"

#include "base/arena.h"
#include "base/grow.h"

#include <stdlib.h>
#include <string.h>

enum kind { SET, SEQUENCE, CHOICE, REPEAT, BEGIN, END };
enum { NEST_MAX = 100, COUNT_MAX = 100000, LAST_CHAR = 0x10ffff };

struct range { uint32_t lo, hi; };

struct part {
    enum kind kind;
    struct part *first, *next;    /* what is in it; what follows it in the sequence or choice around it */
    struct range *ranges;         /* of a SET: ascending and disjoint */
    size_t n;
    int64_t min, max;             /* of a REPEAT; max -1: no limit */
};

struct parser {
    struct moe_work *w;
    struct moe_arena arena;
    const char *s;
    size_t n, at;
    int nest;
    struct range *set;            /* the class that is being read */
    size_t set_n, set_cap;
    struct part none;             /* what stands for a part after a failure */
};

static void bad(struct parser *p, enum moe_code code, const char *what)
{
    moe_work_fail(p->w, code, "regular expression, byte %zu: %s", p->at, what);
}

static void corrupt(struct parser *p, const char *what) { bad(p, MOE_CORRUPT, what); }
static void unsupported(struct parser *p, const char *what) { bad(p, MOE_UNSUPPORTED, what); }

static bool more(const struct parser *p) { return p->w->code == MOE_OK && p->at < p->n; }
static int peek(const struct parser *p) { return more(p) ? (unsigned char)p->s[p->at] : -1; }

static bool take(struct parser *p, char c)
{
    if (peek(p) != (unsigned char)c) return false;
    p->at++;
    return true;
}

static struct part *new_part(struct parser *p, enum kind kind)
{
    struct part *part = moe_work_states(p->w, 1) ? MOE_NEW(&p->arena, struct part) : &p->none;
    if (!part) moe_work_nomem(p->w);
    if (!part || part == &p->none) return &p->none;
    part->kind = kind;
    return part;
}

/* ---- sets of characters ---- */

static void set_add(struct parser *p, uint32_t lo, uint32_t hi)
{
    if (!MOE_GROW(p->set, p->set_cap, p->set_n + 1)) {
        moe_work_nomem(p->w);
        return;
    }
    p->set[p->set_n++] = (struct range){ lo, hi };
}

static int by_lo(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

/* Sort and join the ranges from `begin` on; with `negate` they become all other characters. */
static void set_finish(struct parser *p, size_t begin, bool negate)
{
    struct range *r = p->set ? p->set + begin : NULL;
    size_t n = p->set_n - begin, k = 0;
    if (n) qsort(r, n, sizeof *r, by_lo);
    for (size_t i = 0; i < n; i++) {
        if (k && r[i].lo <= r[k - 1].hi + 1) {
            if (r[i].hi > r[k - 1].hi) r[k - 1].hi = r[i].hi;
        } else {
            r[k++] = r[i];
        }
    }
    p->set_n = begin + k;
    if (!negate) return;
    uint32_t from = 0;
    for (size_t i = 0; i < k; i++) { /* what lies before each range takes its place */
        struct range x = p->set[begin + i];
        p->set[begin + i] = (struct range){ from, x.lo - 1 };
        if (x.lo == from) p->set[begin + i] = (struct range){ 1, 0 };
        from = x.hi + 1;
    }
    if (from <= LAST_CHAR) set_add(p, from, LAST_CHAR);
    for (size_t i = k = begin; i < p->set_n; i++)
        if (p->set[i].lo <= p->set[i].hi) p->set[k++] = p->set[i];
    p->set_n = k;
}

static struct part *set_part(struct parser *p)
{
    struct part *part = new_part(p, SET);
    struct range *r = MOE_NEWN(&p->arena, struct range, p->set_n + 1);
    if (!r) moe_work_nomem(p->w);
    if (p->w->code != MOE_OK) return part;
    if (p->set_n) memcpy(r, p->set, p->set_n * sizeof *r);
    part->ranges = r, part->n = p->set_n;
    return part;
}

/* Add the class of \d, \w, \s or, in capitals, its complement. */
static void set_add_class(struct parser *p, char c)
{
    static const struct range digits[] = { { '0', '9' } },
        word[] = { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } },
        space[] = { { 9, 13 }, { 32, 32 }, { 0xa0, 0xa0 }, { 0x1680, 0x1680 }, { 0x2000, 0x200a },
                    { 0x2028, 0x2029 }, { 0x202f, 0x202f }, { 0x205f, 0x205f }, { 0x3000, 0x3000 },
                    { 0xfeff, 0xfeff } };
    const struct range *r = (c | 32) == 'd' ? digits : (c | 32) == 'w' ? word : space;
    int n = r == digits ? 1 : r == word ? 4 : 10;
    size_t begin = p->set_n;
    for (int i = 0; i < n; i++) set_add(p, r[i].lo, r[i].hi);
    set_finish(p, begin, c < 'a');
}

/* ---- characters ---- */

static uint32_t utf8_char(struct parser *p)
{
    unsigned char c = (unsigned char)p->s[p->at];
    int len = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    uint32_t v = len == 1 ? c : c & (0x7fu >> len);
    if ((len > 1 && c < 0xc2) || c > 0xf4 || p->n - p->at < (size_t)len) {
        corrupt(p, "invalid UTF-8");
        return 0;
    }
    for (int i = 1; i < len; i++) {
        unsigned char d = (unsigned char)p->s[p->at + (size_t)i];
        if ((d & 0xc0) != 0x80) corrupt(p, "invalid UTF-8");
        v = v << 6 | (d & 63);
    }
    p->at += (size_t)len;
    return v > LAST_CHAR ? 0 : v;
}

static uint32_t hex(struct parser *p, int digits)
{
    uint32_t v = 0;
    for (int i = 0; i < digits; i++, p->at++) {
        int c = peek(p), low = c | 32;
        if (c >= '0' && c <= '9') v = v << 4 | (uint32_t)(c - '0');
        else if (c >= 0 && low >= 'a' && low <= 'f') v = v << 4 | (uint32_t)(low - 'a' + 10);
        else corrupt(p, "a hexadecimal digit is missing");
    }
    return v;
}

static uint32_t unicode_escape(struct parser *p)
{
    uint32_t v = 0;
    if (!take(p, '{')) {
        v = hex(p, 4);
        if (v >= 0xd800 && v < 0xdc00 && p->n - p->at >= 6 && p->s[p->at] == '\\' && p->s[p->at + 1] == 'u') {
            p->at += 2;
            v = 0x10000 + ((v - 0xd800) << 10) + ((hex(p, 4) - 0xdc00) & 0x3ff);
        }
        return v;
    }
    for (int i = 0; i < 6 && peek(p) != '}'; i++) v = v << 4 | hex(p, 1);
    if (!take(p, '}') || v > LAST_CHAR) corrupt(p, "\\u{...} is not a character");
    return v > LAST_CHAR ? 0 : v;
}

/* An escape after its backslash: true with *c a character, false when it is a class, added to the set. */
static bool escape(struct parser *p, bool in_class, uint32_t *c)
{
    static const char names[] = "fnrtv", values[] = "\f\n\r\t\v";
    int e = peek(p);
    const char *name = e > 0 ? strchr(names, e) : NULL;
    if (e < 0) corrupt(p, "it ends with a backslash");
    else if (strchr("dwsDWS", e)) { p->at++, set_add_class(p, (char)e); return false; }
    else if (name) { p->at++, *c = (unsigned char)values[name - names]; }
    else if (e == 'b' && in_class) { p->at++, *c = 8; }
    else if (e == 'x') { p->at++, *c = hex(p, 2); }
    else if (e == 'u') { p->at++, *c = unicode_escape(p);
    } else if (e == '0' && !(p->at + 1 < p->n && p->s[p->at + 1] >= '0' && p->s[p->at + 1] <= '9'))
        p->at++, *c = 0;
    else if (e == 'b' || e == 'B') unsupported(p, "\\b is not supported");
    else if (e == 'p' || e == 'P') unsupported(p, "\\p{...} is not supported");
    else if ((e >= '0' && e <= '9') || e == 'k') unsupported(p, "back references are not supported");
    else if ((e | 32) >= 'a' && (e | 32) <= 'z' && e < 128) unsupported(p, "this escape is not supported");
    else *c = utf8_char(p);
    return true;
}

/* A class after its opening bracket. */
static struct part *char_class(struct parser *p)
{
    bool negate = take(p, '^');
    p->set_n = 0;
    while (more(p) && peek(p) != ']') {
        uint32_t lo = 0, hi;
        bool one = take(p, '\\') ? escape(p, true, &lo) : (lo = utf8_char(p), true);
        if (!one) {
            if (peek(p) == '-' && p->at + 1 < p->n && p->s[p->at + 1] != ']')
                corrupt(p, "a range of a class that is no character");
            continue;
        }
        hi = lo;
        if (peek(p) == '-' && p->at + 1 < p->n && p->s[p->at + 1] != ']') {
            p->at++;
            bool end = take(p, '\\') ? escape(p, true, &hi) : (hi = utf8_char(p), true);
            if (!end || hi < lo) corrupt(p, "a range that is out of order");
        }
        set_add(p, lo, hi);
    }
    if (!take(p, ']')) corrupt(p, "a class without its closing bracket");
    set_finish(p, 0, negate);
    return set_part(p);
}

static struct part *any_char(struct parser *p)
{
    p->set_n = 0;
    set_add(p, '\n', '\n'), set_add(p, '\r', '\r'), set_add(p, 0x2028, 0x2029);
    set_finish(p, 0, true);
    return set_part(p);
}

static struct part *one_char(struct parser *p)
{
    uint32_t c = 0;
    p->set_n = 0;
    bool one = take(p, '\\') ? escape(p, false, &c) : (c = utf8_char(p), true);
    if (one) set_add(p, c, c);
    return set_part(p);
}

/* ---- structure ---- */

static struct part *choice(struct parser *p);

static struct part *group(struct parser *p)
{
    if (take(p, '?')) {
        if (take(p, '<') && peek(p) != '=' && peek(p) != '!') {
            while (more(p) && peek(p) != '>') p->at++;
            if (!take(p, '>')) corrupt(p, "a group's name without its end");
        } else if (!take(p, ':')) {
            unsupported(p, strchr("=!", peek(p) < 0 ? 'x' : peek(p)) ? "look-around is not supported"
                                                                    : "inline flags are not supported");
        }
    }
    if (++p->nest > NEST_MAX) unsupported(p, "groups are nested deeper than 100");
    struct part *inner = choice(p);
    p->nest--;
    if (!take(p, ')')) corrupt(p, "a group without its closing parenthesis");
    return inner;
}

static int64_t number(struct parser *p)
{
    int64_t v = -1;
    for (int c; (c = peek(p)) >= '0' && c <= '9'; p->at++) {
        v = (v < 0 ? 0 : v) * 10 + (c - '0');
        if (v > COUNT_MAX) {
            unsupported(p, "a count above 100000");
            return 0;
        }
    }
    return v;
}

/* {3}, {3,}, {3,5}: false, with nothing read, where the brace is an ordinary character. */
static bool counts(struct parser *p, int64_t *min, int64_t *max)
{
    size_t begin = p->at;
    if (!take(p, '{')) return false;
    *min = *max = number(p);
    if (*min >= 0 && take(p, ',')) *max = number(p);
    if (*min >= 0 && take(p, '}')) {
        if (*max >= 0 && *max < *min) corrupt(p, "a count whose maximum is below its minimum");
        return true;
    }
    p->at = begin;
    return false;
}

static bool quantifier(struct parser *p, int64_t *min, int64_t *max)
{
    *max = -1;
    if (take(p, '*')) *min = 0;
    else if (take(p, '+')) *min = 1;
    else if (take(p, '?')) *min = 0, *max = 1;
    else if (!counts(p, min, max)) return false;
    if (!take(p, '?') && peek(p) == '+') unsupported(p, "possessive quantifiers are not supported");
    return true;
}

static struct part *item(struct parser *p)
{
    int c = peek(p);
    int64_t min, max;
    struct part *part;
    if (c == '*' || c == '+' || c == '?') corrupt(p, "a quantifier without anything before it");
    if (take(p, '^')) part = new_part(p, BEGIN);
    else if (take(p, '$')) part = new_part(p, END);
    else if (take(p, '(')) part = group(p);
    else if (take(p, '[')) part = char_class(p);
    else if (take(p, '.')) part = any_char(p);
    else part = one_char(p);
    while (quantifier(p, &min, &max)) {
        struct part *repeat = new_part(p, REPEAT);
        if (part->kind == BEGIN || part->kind == END || part->kind == REPEAT)
            corrupt(p, "a quantifier without anything before it");
        repeat->first = part, repeat->min = min, repeat->max = max;
        part = repeat;
    }
    return part;
}

static struct part *sequence(struct parser *p)
{
    struct part *whole = new_part(p, SEQUENCE), **last = &whole->first;
    while (more(p) && peek(p) != '|' && peek(p) != ')') {
        *last = item(p);
        last = &(*last)->next;
        if (p->w->code != MOE_OK) break;
    }
    return whole;
}

static struct part *choice(struct parser *p)
{
    struct part *whole = new_part(p, CHOICE), **last = &whole->first;
    do {
        *last = sequence(p);
        last = &(*last)->next;
    } while (p->w->code == MOE_OK && take(p, '|'));
    return whole;
}

/* ---- to an automaton ---- */

struct emitter { struct moe_nfa *n; enum moe_spelling spelling; bool search; };

static uint32_t emit(const struct emitter *e, uint32_t from, const struct part *part);

static uint32_t emit_repeat(const struct emitter *e, uint32_t from, const struct part *r)
{
    struct moe_work *w = e->n->work;
    for (int64_t i = 0; i < r->min && w->code == MOE_OK; i++) from = emit(e, from, r->first);
    if (r->max < 0) {
        uint32_t loop = moe_nfa_state(e->n);
        moe_nfa_empty(e->n, from, loop);
        moe_nfa_empty(e->n, emit(e, loop, r->first), loop);
        return loop;
    }
    uint32_t end = moe_nfa_state(e->n);
    moe_nfa_empty(e->n, from, end);
    for (int64_t i = r->min; i < r->max && w->code == MOE_OK; i++) {
        from = emit(e, from, r->first);
        moe_nfa_empty(e->n, from, end);
    }
    return end;
}

/* Edges for a part; returns the state after it. */
static uint32_t emit(const struct emitter *e, uint32_t from, const struct part *part)
{
    struct moe_work *w = e->n->work;
    uint32_t to;
    if (!moe_work_steps(w, 1)) return 0;
    switch (part->kind) {
    case SET:
        to = moe_nfa_state(e->n);
        for (size_t i = 0; i < part->n; i++)
            moe_nfa_chars(e->n, from, part->ranges[i].lo, part->ranges[i].hi, e->spelling, to);
        return to;
    case SEQUENCE:
        for (const struct part *i = part->first; i && w->code == MOE_OK; i = i->next) from = emit(e, from, i);
        return from;
    case CHOICE:
        to = moe_nfa_state(e->n);
        for (const struct part *i = part->first; i && w->code == MOE_OK; i = i->next)
            moe_nfa_empty(e->n, emit(e, from, i), to);
        return to;
    case REPEAT:
        return emit_repeat(e, from, part);
    default:
        moe_work_fail(w, MOE_UNSUPPORTED, "regular expression: ^ and $ are supported only at its ends or at "
                                          "those of its alternatives");
        return from;
    }
}

static void any_text(const struct emitter *e, uint32_t state)
{
    moe_nfa_chars(e->n, state, 0, LAST_CHAR, e->spelling, state);
}

/* A choice that is not inside a repetition or a sequence, whose alternatives may have anchors. */
static void emit_outermost(const struct emitter *e, uint32_t from, const struct part *whole, uint32_t to)
{
    for (const struct part *s = whole->first; s && e->n->work->code == MOE_OK; s = s->next) {
        const struct part *i = s->first;
        if (i && i->kind == CHOICE && !i->next) {
            emit_outermost(e, from, i, to);
            continue;
        }
        uint32_t at = moe_nfa_state(e->n);
        moe_nfa_empty(e->n, from, at);
        if (i && i->kind == BEGIN) i = i->next;
        else if (e->search) any_text(e, at);
        for (; i && i->kind != END; i = i->next) at = emit(e, at, i);
        if (i && i->next) emit(e, at, i); /* refuses the anchor */
        if (!i && e->search) {
            uint32_t rest = moe_nfa_state(e->n);
            moe_nfa_empty(e->n, at, rest);
            any_text(e, rest);
            at = rest;
        }
        moe_nfa_empty(e->n, at, to);
    }
}

void moe_nfa_regex(struct moe_nfa *n, uint32_t from, const char *pattern, size_t bytes,
                   enum moe_spelling spelling, bool search, uint32_t to)
{
    struct parser p = { .w = n->work, .s = pattern, .n = bytes };
    const struct emitter e = { n, spelling, search };
    struct part *whole = choice(&p);
    if (more(&p)) corrupt(&p, "a closing parenthesis without its group");
    if (n->work->code == MOE_OK) emit_outermost(&e, from, whole, to);
    free(p.set);
    moe_arena_clear(&p.arena);
}
