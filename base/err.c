#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *moe_code_name(enum moe_code code)
{
    switch (code) {
#define X(name, value, word, text) case MOE_##name: return word;
        MOE_CODES(X)
#undef X
    }
    return "unknown";
}

const char *moe_code_text(enum moe_code code)
{
    switch (code) {
#define X(name, value, word, text) case MOE_##name: return text;
        MOE_CODES(X)
#undef X
    }
    return "unknown error";
}

/* The character at s when it must not reach a terminal, 0 else; *n gets its bytes. */
static unsigned hidden(const unsigned char *s, size_t *n)
{
    *n = 1;
    if (*s < 0x20 || *s == 0x7f) return *s;
    *n = 2;
    if (*s == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0) return s[1];
    *n = 3;
    unsigned u = *s == 0xe2 && (s[1] == 0x80 || s[1] == 0x81) ? 0x2000u + (s[1] & 3u) * 64 + (s[2] & 63u) : 0;
    return (u >= 0x2028 && u <= 0x202e) || (u >= 0x2066 && u <= 0x2069) ? u : 0;
}

void moe_show(char *text, size_t cap)
{
    char out[sizeof ((struct moe_err *)0)->msg];
    size_t at = 0, n, shown;
    const char *s = text;
    while (*s && (unsigned char)*s >= 0x20 && *s != 0x7f && (unsigned char)*s != 0xc2 && (unsigned char)*s != 0xe2) s++;
    if (!*s) return; /* nearly always */
    if (cap > sizeof out) cap = sizeof out;
    for (s = text; *s; s += n, at += shown) {
        char e[8];
        unsigned u = hidden((const unsigned char *)s, &n);
        if (!u) e[0] = *s, shown = n = 1;
        else shown = (size_t)snprintf(e, sizeof e, u == '\n' ? "\\n" : u == '\t' ? "\\t" : u < 256 ? "\\x%02x" : "\\u%04x", u);
        if (at + shown >= cap) break;
        memcpy(out + at, e, shown);
    }
    memcpy(text, out, at);
    text[at] = 0;
}

enum moe_code moe_fail(struct moe_err *err, enum moe_code code, const char *fmt, ...)
{
    va_list ap;
    err->code = code;
    err->file[0] = err->tensor[0] = 0;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    moe_show(err->msg, sizeof err->msg);
    return code;
}

enum moe_code moe_fail_at(struct moe_err *err, enum moe_code code, const char *file, const char *tensor,
                          const char *fmt, ...)
{
    char what[sizeof err->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    err->code = code;
    snprintf(err->file, sizeof err->file, "%s", file ? file : "");
    snprintf(err->tensor, sizeof err->tensor, "%s", tensor ? tensor : "");
    int n = snprintf(err->msg, sizeof err->msg, "%s%s%s%s%s%s", file ? "'" : "", file ? file : "", file ? "': " : "",
                     tensor ? "tensor '" : "", tensor ? tensor : "", tensor ? "': " : "");
    if (n >= 0 && (size_t)n < sizeof err->msg)
        snprintf(err->msg + n, sizeof err->msg - (size_t)n, "%.*s", (int)(sizeof err->msg - (size_t)n - 1), what);
    moe_show(err->msg, sizeof err->msg);
    return code;
}

enum moe_code moe_wrap(struct moe_err *err, const char *fmt, ...)
{
    char old[sizeof err->msg];
    va_list ap;

    memcpy(old, err->msg, sizeof old);
    va_start(ap, fmt);
    int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n + 3 < sizeof err->msg)
        snprintf(err->msg + n, sizeof err->msg - (size_t)n, ": %.*s",
                 (int)(sizeof err->msg - (size_t)n - 3), old);
    moe_show(err->msg, sizeof err->msg);
    return err->code;
}

enum moe_code moe_fail_errno(struct moe_err *err, int e, const char *file, const char *what)
{
    enum moe_code code = e == ENOSPC || e == EDQUOT ? MOE_NOSPACE : e == ENOENT || e == ENOTDIR ? MOE_NOT_FOUND
                       : e == ENOMEM ? MOE_NOMEM : e == EEXIST ? MOE_EXISTS : MOE_IO;
    return moe_fail_at(err, code, file, NULL, "%s: %s", what, strerror(e));
}

_Noreturn void moe_bug(const char *cond, const char *file, int line)
{
    fprintf(stderr, "bug: %s:%d: %s\n", file, line, cond);
    abort();
}
