/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static bool grow(struct moe_text *t, size_t more)
{
    if (t->n + more < t->cap) return true;
    size_t cap = 2 * t->cap + more + 4096;
    char *v = realloc(t->v, cap);
    if (!v) return false;
    t->v = v;
    t->cap = cap;
    return true;
}

void moe_text_add(struct moe_text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || t->failed || !grow(t, (size_t)n + 1)) {
        t->failed = true;
        return;
    }
    va_start(ap, fmt);
    vsnprintf(t->v + t->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    t->n += (size_t)n;
}

enum moe_code moe_text_finish(struct moe_text *t, char **out, struct moe_err *err)
{
    if (!t->failed && !t->v) moe_text_add(t, "%s", "");
    *out = t->failed ? NULL : t->v;
    if (!t->failed) return MOE_OK;
    free(t->v);
    *t = (struct moe_text){ 0 };
    return moe_fail(err, MOE_NOMEM, "no memory for a text");
}
