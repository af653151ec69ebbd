/* SPDX-License-Identifier: Apache-2.0 */
/* Checks whether a text is JSON.  cJSON accepts raw control bytes, invalid UTF-8, a NUL in a string, loosely
 * written numbers and nesting up to 1000, and returns NULL both for bad text and when out of memory;
 * therefore every text is checked here before cJSON parses it. */
#include "base/json-internal.h"

#include "base/json.h"
#include "base/show.h"

#include <string.h>

enum { DEPTH = 64 }; /* brackets that may be open at once */

const char moe_json_no_nul[] = "holds a text with a NUL (\\u0000), which is not taken,";
static const char bad_syntax[] = "bad syntax";

/* A text, the index of its next byte, and the open brackets: bit d of `objects` is set when the bracket at
 * depth d is an object's. */
struct scan {
    const char *s;
    size_t n, i;
    uint64_t objects;
    int depth;
};

static size_t digits(const char *s, size_t n, size_t i)
{
    while (i < n && s[i] >= '0' && s[i] <= '9') i++;
    return i;
}

size_t moe_json_number_length(const char *s, size_t n)
{
    size_t first = n && *s == '-', i = digits(s, n, first);
    if (i == first || (s[first] == '0' && i > first + 1)) return 0;
    if (i < n && s[i] == '.') {
        first = i + 1;
        if ((i = digits(s, n, first)) == first) return 0;
    }
    if (i < n && (s[i] == 'e' || s[i] == 'E')) {
        first = i + 1;
        if (first < n && (s[first] == '+' || s[first] == '-')) first++;
        if ((i = digits(s, n, first)) == first) return 0;
    }
    return i;
}

/* Why the next byte is wrong; `else_why` when it is an ordinary character in the wrong place. */
static const char *unexpected(const struct scan *x, const char *else_why)
{
    if (x->i == x->n) return bad_syntax;
    unsigned char c = (unsigned char)x->s[x->i];
    return !c ? "a NUL byte" : c < 0x20 || c >= 0x80 ? "a stray character" : else_why;
}

/* The value of four hexadecimal digits; -1 when one of them is no digit. */
static int32_t hex4(const char *s)
{
    int32_t v = 0;
    for (int i = 0; i < 4; i++) {
        static const char hex[] = "0123456789abcdef";
        char lower = s[i] >= 'A' && s[i] <= 'F' ? (char)(s[i] - 'A' + 'a') : s[i];
        const char *at = lower ? strchr(hex, lower) : NULL;
        if (!at) return -1;
        v = 16 * v + (int32_t)(at - hex);
    }
    return v;
}

/* The length of the escape at s, for a surrogate pair that of both halves; 0 when it is not valid. */
static size_t escape(const char *s, size_t n)
{
    if (n < 2 || s[1] != 'u') return n >= 2 && s[1] && strchr("\"\\/bfnrt", s[1]) ? 2 : 0;
    int32_t code = n < 6 ? -1 : hex4(s + 2);
    if (code < 0xd800 || code > 0xdfff) return code < 0 ? 0 : 6;
    if (code > 0xdbff || n < 12 || s[6] != '\\' || s[7] != 'u') return 0;
    code = hex4(s + 8);
    return code >= 0xdc00 && code <= 0xdfff ? 12 : 0;
}

static const char *string(struct scan *x)
{
    for (x->i++; x->i < x->n && x->s[x->i] != '"';) {
        const char *s = x->s + x->i;
        size_t left = x->n - x->i, len = 1;
        if (!*s) return "a NUL byte";
        if ((unsigned char)*s < 0x20) return "a raw control character in a string";
        if (left >= 6 && !memcmp(s, "\\u0000", 6)) return moe_json_no_nul;
        if (*s == '\\' && !(len = escape(s, left))) return bad_syntax;
        if ((unsigned char)*s >= 0x80) len = (size_t)moe_utf8_char((const unsigned char *)s, left);
        if (!len) return "invalid UTF-8";
        x->i += len;
    }
    if (x->i == x->n) return bad_syntax;
    x->i++;
    return NULL;
}

/* Check a string, a number, true, false or null. */
static const char *scalar(struct scan *x)
{
    static const char *const words[] = { "true", "false", "null" };
    const char *s = x->s + x->i;
    size_t left = x->n - x->i, len = 0;
    if (left && *s == '"') return string(x);
    if (left && (*s == '-' || (*s >= '0' && *s <= '9'))) {
        len = moe_json_number_length(s, left);
        if (!len) return "a bad number";
    }
    for (int w = 0; !len && w < 3; w++)
        if (left >= strlen(words[w]) && !memcmp(s, words[w], strlen(words[w]))) len = strlen(words[w]);
    x->i += len;
    return len ? NULL : unexpected(x, bad_syntax);
}

static bool in_object(const struct scan *x) { return x->depth && x->objects >> (x->depth - 1) & 1; }

/* Whether c is the next byte after white space; if so, step over it. */
static bool takes(struct scan *x, char c)
{
    x->i = moe_json_space(x->s, x->n, x->i);
    if (x->i == x->n || x->s[x->i] != c) return false;
    x->i++;
    return true;
}

static bool closes(struct scan *x)
{
    if (!takes(x, in_object(x) ? '}' : ']')) return false;
    x->depth--;
    return true;
}

static const char *key(struct scan *x)
{
    x->i = moe_json_space(x->s, x->n, x->i);
    if (x->i == x->n || x->s[x->i] != '"') return unexpected(x, bad_syntax);
    const char *why = string(x);
    if (why) return why;
    return takes(x, ':') ? NULL : unexpected(x, bad_syntax);
}

/* Enter an object or array after its opening bracket; *empty is set when the closing bracket follows at
 * once. */
static const char *open(struct scan *x, bool object, bool *empty)
{
    if (x->depth == DEPTH) return x->i--, "nested too deeply";
    uint64_t bit = (uint64_t)1 << x->depth++;
    x->objects = object ? x->objects | bit : x->objects & ~bit;
    *empty = closes(x);
    return NULL;
}

/* Check one value, in an object with its key, and what may follow it: a comma, or the brackets that close
 * here. */
static const char *value(struct scan *x)
{
    bool empty = true;
    const char *why = in_object(x) ? key(x) : NULL;
    if (why) return why;
    if (takes(x, '{')) why = open(x, true, &empty);
    else if (takes(x, '[')) why = open(x, false, &empty);
    else why = scalar(x);
    if (why || !empty) return why;
    while (x->depth && closes(x)) continue;
    return !x->depth || takes(x, ',') ? NULL : unexpected(x, bad_syntax);
}

const char *moe_json_check(const char *s, size_t n, size_t *at)
{
    struct scan x = { .s = s, .n = n };
    const char *why = NULL;
    do why = value(&x);
    while (!why && x.depth);
    if (!why) {
        x.i = moe_json_space(s, n, x.i);
        if (x.i < n) why = unexpected(&x, "text after the value");
    }
    *at = x.i;
    return why;
}
