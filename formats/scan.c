/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/scan.h"

#include "base/show.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 64 };

static void skip_space(struct moe_scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r')) s->at++;
}

void moe_scan_skip_mark(struct moe_scan *s)
{
    if (s->end - s->at >= 3 && !memcmp(s->at, "\xef\xbb\xbf", 3)) s->at += 3;
}

bool moe_scan_take(struct moe_scan *s, char c)
{
    skip_space(s);
    if (s->at >= s->end || *s->at != c) return false;
    s->at++;
    return true;
}

/* The value of four hexadecimal digits at p; -1 when they are not there. */
static int hex4(const char *p, const char *end)
{
    int v = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9' ? c - '0'
              : c >= 'a' && c <= 'f' ? c - 'a' + 10
              : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                     : -1;
        if (d < 0) return -1;
        v = 16 * v + d;
    }
    return v;
}

/* Write the character c and return where the next one goes. */
static char *put_utf8(char *out, unsigned c)
{
    if (c < 0x80) *out++ = (char)c;
    else if (c < 0x800) *out++ = (char)(0xc0 | c >> 6);
    else if (c < 0x10000) *out++ = (char)(0xe0 | c >> 12), *out++ = (char)(0x80 | (c >> 6 & 63));
    else
        *out++ = (char)(0xf0 | c >> 18), *out++ = (char)(0x80 | (c >> 12 & 63)),
        *out++ = (char)(0x80 | (c >> 6 & 63));
    if (c >= 0x80) *out++ = (char)(0x80 | (c & 63));
    return out;
}

/* Decode \uXXXX after its 'u', a surrogate pair as one character; the result is never longer than the
 * escape. */
static const char *decode_unicode(struct moe_scan *s, char **out)
{
    int c = hex4(s->at, s->end);
    if (c <= 0) return c ? "a bad \\u escape" : "a NUL in a string";
    s->at += 4;
    if (c >= 0xdc00 && c < 0xe000) return "half a surrogate pair";
    if (c >= 0xd800 && c < 0xdc00) {
        int low = s->end - s->at >= 6 && s->at[0] == '\\' && s->at[1] == 'u' ? hex4(s->at + 2, s->end) : -1;
        if (low < 0xdc00 || low >= 0xe000) return "half a surrogate pair";
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        s->at += 6;
    }
    *out = put_utf8(*out, (unsigned)c);
    return NULL;
}

/* Decode an escape after its backslash; *out advances by what was written. */
static const char *decode_escape(struct moe_scan *s, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s->at >= s->end) return "a string without end";
    char c = *s->at++;
    if (c == 'u') return decode_unicode(s, out);
    const char *k = c ? strchr(from, c) : NULL;
    if (!k) return "a bad escape";
    *(*out)++ = to[k - from];
    return NULL;
}


const char *moe_scan_string(struct moe_scan *s, char **text, size_t *len)
{
    if (!moe_scan_take(s, '"')) return "a string is missing";
    char *out = *text = s->at;
    for (;;) {
        if (s->at >= s->end) return "a string without end";
        unsigned char c = (unsigned char)*s->at;
        if (c == '"') break;
        if (c < 0x20) return "a raw control character in a string";
        if (c == '\\') {
            s->at++;
            const char *why = decode_escape(s, &out);
            if (why) return why;
            continue;
        }
        int n = moe_utf8_char((const unsigned char *)s->at, (size_t)(s->end - s->at));
        if (!n) return "invalid UTF-8";
        while (n--) *out++ = *s->at++;
    }
    s->at++;
    *out = 0;
    *len = (size_t)(out - *text);
    return NULL;
}

const char *moe_scan_u64(struct moe_scan *s, uint64_t *v)
{
    skip_space(s);
    char *first = s->at;
    for (*v = 0; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++)
        if (__builtin_mul_overflow(*v, (uint64_t)10, v) ||
            __builtin_add_overflow(*v, (uint64_t)(*s->at - '0'), v) || *v >> 63)
            return "a number too large";
    if (s->at == first || (s->at - first > 1 && *first == '0')) return "not a whole number";
    if (s->at < s->end && (*s->at == '.' || *s->at == 'e' || *s->at == 'E')) return "not a whole number";
    return NULL;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

const char *moe_scan_rounded(struct moe_scan *s, uint64_t *v, bool *exact)
{
    char text[64] = "", *end, *dot;
    size_t n = 0;
    skip_space(s);
    char *first = s->at;
    const char *why = moe_scan_u64(s, v);
    *exact = !why;
    /* digits and then something else: the whole number is read again as a double, by JSON's rules */
    if (!why || s->at == first || s->at >= s->end || is_digit(*s->at)) return why;
    while (first + n < s->end && first[n] && strchr("+-.0123456789eE", first[n])) n++;
    if (n >= sizeof text) return "a number too long";
    memcpy(text, first, n);
    double d = strtod(text, &end);
    dot = strchr(text, '.');
    if (*end || (dot && !is_digit(dot[1])) || (*text == '0' && is_digit(text[1]))) return "bad syntax";
    if (!(d < 0x1p63)) return "a number too large";
    *v = (uint64_t)nearbyint(d);
    *exact = (double)*v == d;
    s->at = first + n;
    return NULL;
}

/* Step over true, false, null or a number.  The syntax of a number is not checked, since nothing reads its
 * value. */
static const char *skip_scalar(struct moe_scan *s)
{
    static const char *const words[] = { "true", "false", "null" };
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(s->end - s->at) >= n && !memcmp(s->at, words[i], n)) {
            s->at += n;
            return NULL;
        }
    }
    char *first = s->at;
    while (s->at < s->end && *s->at && strchr("+-.0123456789eE", *s->at)) s->at++;
    return s->at == first ? "bad syntax" : NULL;
}

static const char *skip_value(struct moe_scan *s, int depth)
{
    char *text, close;
    size_t len;
    skip_space(s);
    if (s->at >= s->end) return "bad syntax";
    if (*s->at == '"') return moe_scan_string(s, &text, &len);
    if (*s->at != '{' && *s->at != '[') return skip_scalar(s);
    if (depth >= DEPTH) return "nested too deeply";
    close = *s->at++ == '{' ? '}' : ']';
    if (moe_scan_take(s, close)) return NULL;
    do {
        const char *why = close == '}' ? moe_scan_string(s, &text, &len) : NULL;
        if (!why && close == '}' && !moe_scan_take(s, ':')) why = "bad syntax";
        if (!why) why = skip_value(s, depth + 1);
        if (why) return why;
    } while (moe_scan_take(s, ','));
    return moe_scan_take(s, close) ? NULL : "bad syntax";
}

const char *moe_scan_skip(struct moe_scan *s) { return skip_value(s, 0); }

const char *moe_scan_end(struct moe_scan *s)
{
    skip_space(s);
    return s->at == s->end ? NULL : "text after the value";
}
