/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has_room(struct moe_buffer *b, size_t n)
{
    if (b->failed || n < b->cap - b->n) return !b->failed;
    size_t cap = 2 * b->cap + n + 256;
    char *p = realloc(b->p, cap);
    b->failed = !p;
    if (!p) return false;
    b->p = p;
    b->cap = cap;
    return true;
}

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
