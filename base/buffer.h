/* SPDX-License-Identifier: Apache-2.0 */
/* base/buffer.h - bytes that grow at their end. */
#ifndef MOE_BASE_BUFFER_H
#define MOE_BASE_BUFFER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* A zero-initialised buffer is empty.  p holds n bytes; once something was put a NUL follows them, and the
 * owner calls free(p).  When memory runs out `failed` is set and further puts do nothing, so it is enough to
 * look at it once, at the end. */
struct moe_buffer { char *p; size_t n, cap; bool failed; };

void moe_buffer_put(struct moe_buffer *b, const char *s, size_t n);
void moe_buffer_printf(struct moe_buffer *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Where n bytes may be written after the present ones, for a caller that then adds to b->n what it has
 * written; NULL when memory has run out. */
char *moe_buffer_room(struct moe_buffer *b, size_t n);
/* End the text: *text is what was put, "" if that was nothing, and the caller frees it; the buffer is empty
 * again.  MOE_NOMEM, with *text NULL, when memory had run out. */
enum moe_code moe_buffer_finish(struct moe_buffer *b, char **text, struct moe_err *err);

#endif
