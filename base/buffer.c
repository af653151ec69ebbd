/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buffer.h"

#include "base/grow.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has_room(struct moe_buffer *b, size_t n)
{
    size_t left = SIZE_MAX - 1 - b->n;
    if (!b->failed) b->failed = n > left || !MOE_GROW(b->p, b->cap, b->n + n + 1);
    return !b->failed;
}

char *moe_buffer_room(struct moe_buffer *b, size_t n) { return has_room(b, n) ? b->p + b->n : NULL; }

void moe_buffer_put(struct moe_buffer *b, const char *s, size_t n)
{
    if (!has_room(b, n)) return;
    if (n) memcpy(b->p + b->n, s, n);
    b->n += n;
    b->p[b->n] = 0;
}

void moe_buffer_printf(struct moe_buffer *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) b->failed = true;
    if (!has_room(b, (size_t)n)) return;
    va_start(ap, fmt);
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
}

enum moe_code moe_buffer_finish(struct moe_buffer *b, char **text, struct moe_err *err)
{
    moe_buffer_put(b, "", 0);
    bool failed = b->failed;
    if (failed) free(b->p);
    *text = failed ? NULL : b->p;
    *b = (struct moe_buffer){ 0 };
    return failed ? moe_fail(err, MOE_NOMEM, "no memory for a text") : MOE_OK;
}
