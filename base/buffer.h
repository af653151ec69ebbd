/* SPDX-License-Identifier: Apache-2.0 */
/* base/buffer.h - bytes that grow at their end. */
#ifndef MOE_BASE_BUFFER_H
#define MOE_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

/* A zero-initialised buffer is empty.  p holds n bytes; once something was put a NUL follows them, and the
 * owner calls free(p).  When memory runs out `failed` is set and further puts do nothing, so it is enough to
 * look at it once, at the end. */
struct moe_buffer { char *p; size_t n, cap; bool failed; };

void moe_buffer_put(struct moe_buffer *b, const char *s, size_t n);
void moe_buffer_printf(struct moe_buffer *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
