/* SPDX-License-Identifier: Apache-2.0 */
/* base/grow.h - arrays that grow while they are filled.
 *
 *     struct line *lines = NULL;  size_t n = 0, cap = 0;
 *     if (!MOE_GROW(lines, cap, n + 1)) return no_memory(err);
 *     lines[n++] = line;
 *
 * For bytes and text there is base/buffer.h.  Code that promises not to exceed a memory limit does not use
 * these, since they allocate up to twice what is needed. */
#ifndef MOE_BASE_GROW_H
#define MOE_BASE_GROW_H

#include <stdbool.h>
#include <stddef.h>

/* Make sure that `array`, from malloc or NULL, has room for `need` items; `cap`, a size_t, is the number of
 * items for which it has room.  What is added is not initialised.  False when memory runs out or the number
 * of bytes overflows: array and cap are then as they were. */
#define MOE_GROW(array, cap, need) moe_grow(&(array), &(cap), (need), sizeof *(array))

/* The same for the pointer at `array` and items of `size` bytes; called through the macro, which knows the
 * size. */
bool moe_grow(void *array, size_t *cap, size_t need, size_t size);

#endif
