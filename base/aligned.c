/* SPDX-License-Identifier: Apache-2.0 */
#include "base/aligned.h"

#include <stdlib.h>

void *moe_aligned_take(struct moe_aligned *a, int64_t n, size_t size)
{
    size_t bytes = ((size_t)n * size + 127) / 64 * 64;
    a->bytes += bytes;
    if (a->counting) return NULL;
    void *p = a->n < (int)(sizeof a->buffer / sizeof *a->buffer) ? aligned_alloc(64, bytes) : NULL;
    if (p) a->buffer[a->n++] = p;
    else a->failed = true;
    return p;
}

void moe_aligned_release(struct moe_aligned *a)
{
    for (int i = 0; i < a->n; i++) free(a->buffer[i]);
    *a = (struct moe_aligned){ 0 };
}
