/* SPDX-License-Identifier: Apache-2.0 */
#include "base/show.h"

#include <limits.h>
#include <string.h>

int moe_utf8_char(const unsigned char *s, size_t len)
{
    if (len == 0) return 0;
    if (s[0] < 0x80) return 1;
    int n = s[0] >= 0xc2 && s[0] <= 0xdf ? 2
          : (s[0] & 0xf0) == 0xe0        ? 3
          : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                         : 0;
    if (n == 0 || len < (size_t)n) return 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (s[0] == 0xe0 && s[1] < 0xa0) return 0; /* overlong */
    if (s[0] == 0xed && s[1] > 0x9f) return 0; /* surrogate */
    if (s[0] == 0xf0 && s[1] < 0x90) return 0; /* overlong */
    if (s[0] == 0xf4 && s[1] > 0x8f) return 0; /* above U+10FFFF */
    return n;
}

int moe_utf8_decode(const unsigned char *s, size_t len, uint32_t *code)
{
    int n = moe_utf8_char(s, len);
    if (n == 1) *code = s[0];
    if (n == 2) *code = (s[0] & 31u) << 6 | (s[1] & 63u);
    if (n == 3) *code = (s[0] & 15u) << 12 | (s[1] & 63u) << 6 | (s[2] & 63u);
    if (n == 4) *code = (s[0] & 7u) << 18 | (s[1] & 63u) << 12 | (s[2] & 63u) << 6 | (s[3] & 63u);
    return n;
}

size_t moe_utf8_prefix(const unsigned char *s, size_t len)
{
    size_t i = 0;
    for (;;) {
        uint64_t v;
        for (; i + 8 <= len; i += 8) {
            memcpy(&v, s + i, 8);
            if (v & 0x8080808080808080u) break;
        }
        int n = moe_utf8_char(s + i, len - i);
        if (n == 0) return i;
        i += (size_t)n;
    }
}

bool moe_must_escape(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0)      /* C0, DEL, C1 */
        || c == 0x61c || c == 0x200e || c == 0x200f /* direction marks */
        || (c >= 0x2028 && c <= 0x202e)             /* line separators, embeddings, overrides */
        || (c >= 0x2066 && c <= 0x2069);            /* isolates */
}

/* ---- one character ---- */

enum { ESCAPE = 8 }; /* bytes of the longest escape, with its NUL */

/* Decide how the first character of s[0..n), n > 0, is shown: *len gets its length, and `escape` what is
 * shown instead of it, or "" when it is shown as it is.  Returns the number of bytes shown. */
static size_t escape_one(const unsigned char *s, size_t n, size_t *len, char escape[ESCAPE])
{
    uint32_t code = s[0]; /* kept when the byte begins no valid character */
    int whole = moe_utf8_decode(s, n, &code);
    escape[0] = 0;
    *len = whole ? (size_t)whole : 1;
    if (whole && !moe_must_escape(code)) return *len;
    const char *fmt = code == '\n' ? "\\n" : code == '\t' ? "\\t" : code < 256 ? "\\x%02x" : "\\u%04x";
    return (size_t)snprintf(escape, ESCAPE, fmt, (unsigned)code);
}

/* The number of bytes at the start of s that are printable ASCII and never need an escape. */
static size_t plain_prefix(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && (unsigned char)s[i] >= 0x20 && (unsigned char)s[i] < 0x7f) i++;
    return i;
}

void moe_show(char *text, size_t cap)
{
    const unsigned char *s = (const unsigned char *)text;
    /* the first `used` bytes of the text become `result` bytes; len and one are those of one character */
    size_t bytes = strlen(text), len, used = plain_prefix(text, bytes), result = used, one;
    char escape[ESCAPE];
    if (used == bytes) return; /* nothing to escape, the usual case */
    for (; used < bytes; used += len, result += one) {
        one = escape_one(s + used, bytes - used, &len, escape);
        if (result + one >= cap) break;
    }
    /* Escapes make the text longer: the input is first moved to the end of the space that the result needs,
     * so that nothing is overwritten before it is read. */
    size_t from = result - used, to = 0;
    memmove(text + from, text, used);
    while (from < result) {
        one = escape_one(s + from, result - from, &len, escape);
        memmove(text + to, *escape ? escape : text + from, one);
        from += len;
        to += one;
    }
    text[result] = 0;
}

void moe_show_print(FILE *out, const char *text, size_t n, bool layout)
{
    size_t len;
    char escape[ESCAPE];
    for (size_t at = 0; at < n; at += len) {
        if ((len = plain_prefix(text + at, n - at))) {
            fwrite(text + at, 1, len, out);
            continue;
        }
        size_t one = escape_one((const unsigned char *)text + at, n - at, &len, escape);
        bool as_it_is = !*escape || (layout && (text[at] == '\n' || text[at] == '\t'));
        fwrite(as_it_is ? text + at : escape, 1, as_it_is ? len : one, out);
    }
}

/* ---- one line ---- */

enum {
    LINE_ROOM = 3 * PATH_MAX + 2048,
    WORD_LEAST = 32,   /* bytes that a shortened word keeps at least */
    SLASH_REACH = 64   /* how many bytes from the cut a slash may be to be cut at */
};

struct word { size_t at, n; };

/* The length of the quoted text that begins at s: its closing quote is one that the end, a space or
 * punctuation follows.  0 when there is none. */
static size_t quoted_length(const char *s)
{
    for (const char *e = s + 1; (e = strchr(e, '\'')); e++)
        if (!e[1] || strchr(" :,;)", e[1])) return (size_t)(e - s - 1);
    return 0;
}

/* Find the longest text between quotes or spaces. */
static struct word longest_word(const char *s)
{
    struct word best = { 0, 0 };
    for (size_t i = 0; s[i]; i++) {
        if (i && s[i - 1] != ' ' && s[i - 1] != '(') continue;
        size_t quoted = s[i] == '\'' ? quoted_length(s + i) : 0, n = strcspn(s + i, " ");
        struct word w = quoted ? (struct word){ i + 1, quoted } : (struct word){ i, n };
        if (w.n > best.n) best = w;
    }
    return best;
}

/* Whether the byte continues a UTF-8 character, so that no cut may be made before it. */
static bool is_continuation(char c) { return ((unsigned char)c & 0xc0) == 0x80; }

/* Replace the middle of a word by "...", if possible from slash to slash, so that the line gets at least
 * `excess` bytes shorter, or as much as the word allows; false when the word is too short to be cut. */
static bool cut_middle(char *s, struct word w, size_t excess)
{
    if (w.n < WORD_LEAST + 8) return false;
    size_t keep = w.n > WORD_LEAST + excess + 3 ? w.n - excess - 3 : WORD_LEAST;
    size_t head = w.at + keep / 3, tail = w.at + w.n - (keep - keep / 3);
    for (size_t i = head; i > w.at && i + SLASH_REACH > head; i--)
        if (s[i - 1] == '/') {
            head = i;
            break;
        }
    for (size_t i = tail; i + 1 < w.at + w.n && i < tail + SLASH_REACH; i++)
        if (s[i] == '/') {
            tail = i;
            break;
        }
    while (head > w.at && is_continuation(s[head])) head--;
    while (is_continuation(s[tail])) tail++;
    memcpy(s + head, "...", 3);
    memmove(s + head + 3, s + tail, strlen(s + tail) + 1);
    return true;
}

/* Shorten a line to less than `cap` bytes: its longest words lose their middles, and if that is not enough,
 * the line loses its end. */
static void fit_line(char *s, size_t cap)
{
    size_t n;
    while ((n = strlen(s)) >= cap && cut_middle(s, longest_word(s), n - (cap - 1))) { }
    if (n < cap) return;
    for (n = cap - 1; n > 0 && is_continuation(s[n]); n--) { }
    s[n] = 0;
}

void moe_show_line(char *out, size_t cap, const char *fmt, va_list ap)
{
    char line[LINE_ROOM];
    vsnprintf(line, sizeof line, fmt, ap);
    moe_show(line, sizeof line);
    fit_line(line, cap < sizeof line ? cap : sizeof line);
    memcpy(out, line, strlen(line) + 1);
}

/* ---- numbers ---- */

const char *moe_human_bytes(uint64_t bytes, char out[16])
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double v = (double)bytes;
    int u = 0;
    while (v >= 1024 && u < 4) v /= 1024, u++;
    snprintf(out, 16, u ? "%.1f %s" : "%.0f %s", v, units[u]);
    return out;
}

const char *moe_human_time(double s, char out[16])
{
    unsigned n = s < 3.6e8 ? (unsigned)s : 0;
    if (s < 10) snprintf(out, 16, "%.1f s", s);
    else if (s < 100) snprintf(out, 16, "%.0f s", s);
    else if (s < 6000) snprintf(out, 16, "%u min %02u s", n / 60 % 100, n % 60);
    else if (s < 172800) snprintf(out, 16, "%u h %02u min", n / 3600 % 100, n / 60 % 60);
    else if (s < 3.6e8) snprintf(out, 16, "%u days %u h", n / 86400 % 10000, n / 3600 % 24);
    else snprintf(out, 16, "forever");
    return out;
}
