/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include "base/show.h"

#include <errno.h>
#include <limits.h>
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

/* Format the message of *err, shortened to its size. */
__attribute__((format(printf, 2, 3)))
static void say(struct moe_err *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    moe_show_line(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
}

enum moe_code moe_fail(struct moe_err *err, enum moe_code code, const char *fmt, ...)
{
    va_list ap;
    err->code = code;
    err->file[0] = err->tensor[0] = 0;
    va_start(ap, fmt);
    moe_show_line(err->msg, sizeof err->msg, fmt, ap);
    va_end(ap);
    return code;
}

/* Bytes for one part of a message, which may contain two paths of full length. */
enum { PART = 2 * PATH_MAX + 1024 };

enum moe_code moe_fail_at(struct moe_err *err, enum moe_code code, const char *file, const char *tensor,
                          const char *fmt, ...)
{
    char what[PART];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    err->code = code;
    snprintf(err->file, sizeof err->file, "%s", file ? file : "");
    snprintf(err->tensor, sizeof err->tensor, "%s", tensor ? tensor : "");
    say(err, "%s%s%s%s%s%s%s", file ? "'" : "", file ? file : "", file ? "': " : "", tensor ? "tensor '" : "",
        tensor ? tensor : "", tensor ? "': " : "", what);
    return code;
}

enum moe_code moe_wrap(struct moe_err *err, const char *fmt, ...)
{
    char head[PART], old[sizeof err->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    memcpy(old, err->msg, sizeof old);
    say(err, "%s: %s", head, old);
    return err->code;
}

/* The opening bracket of the pair that ends a text; NULL when the text does not end with a bracket. */
static char *last_brackets(char *s)
{
    int depth = 0;
    for (size_t i = strlen(s); i--;) {
        depth += (s[i] == ')') - (s[i] == '(');
        if (depth <= 0) return depth == 0 && s[i] == '(' ? s + i : NULL;
    }
    return NULL;
}

enum moe_code moe_err_remedy(struct moe_err *err, const char *remedy)
{
    char old[sizeof err->msg];
    memcpy(old, err->msg, sizeof old);
    char *at = last_brackets(old);
    if (at && at > old && at[-1] == ' ') at[-1] = 0;
    say(err, "%s (%s)", old, remedy);
    return err->code;
}

enum moe_code moe_fail_errno(struct moe_err *err, int e, const char *file, const char *what)
{
    enum moe_code code = e == ENOSPC || e == EDQUOT  ? MOE_NOSPACE
                       : e == ENOENT || e == ENOTDIR ? MOE_NOT_FOUND
                       : e == ENOMEM                 ? MOE_NOMEM
                       : e == EEXIST                 ? MOE_EXISTS
                                                     : MOE_IO;
    return moe_fail_at(err, code, file, NULL, "%s: %s", what, strerror(e));
}

_Noreturn void moe_bug(const char *cond, const char *file, int line)
{
    fprintf(stderr, "bug: %s:%d: %s\n", file, line, cond);
    abort();
}
