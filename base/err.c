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

enum moe_code moe_fail(struct moe_err *err, enum moe_code code, const char *fmt, ...)
{
    va_list ap;
    err->code = code;
    err->file[0] = err->tensor[0] = 0;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
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
