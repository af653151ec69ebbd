/* SPDX-License-Identifier: Apache-2.0 */
/* base/aligned.h - a fixed set of large buffers, aligned for vectors, that are allocated and freed together.
 *
 * The same calls that allocate them can also only count their bytes, so that an estimate cannot differ from
 * what is allocated.  One thread at a time uses a set. */
#ifndef MOE_BASE_ALIGNED_H
#define MOE_BASE_ALIGNED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A zero-initialised set is empty. */
struct moe_aligned {
    void *buffer[24]; int n;
    uint64_t bytes;   /* of all that was asked for */
    bool counting;    /* set by the caller at first: only bytes are counted, and every buffer is NULL */
    bool failed;      /* memory ran out */
};

/* A buffer of n >= 0 items of `size` bytes, aligned to 64 bytes.  It is not cleared, so pages that nobody
 * reaches are never touched.  NULL where a->counting is set or memory runs out. */
void *moe_aligned_take(struct moe_aligned *a, int64_t n, size_t size);
void moe_aligned_release(struct moe_aligned *a); /* frees all of them */

#endif
