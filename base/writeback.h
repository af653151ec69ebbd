/* SPDX-License-Identifier: Apache-2.0 */
/* base/writeback.h - a sliding window behind a writer: what is written goes to the disk at once and
 * then leaves the page cache.
 *
 * Without it a kernel lets dirty pages pile up to a share of memory and writes them all when fsync is called:
 * nothing is written while the program computes, and a 1 TB output pushes everything else out of memory.
 * With it at most `window` bytes of the file (and a piece for each thread) are dirty or on their way, so that
 * fsync has little left to do.  Promises nothing about durability, and reports no errors: both are fsync's,
 * which still has to be called. */
#ifndef MOE_BASE_WRITEBACK_H
#define MOE_BASE_WRITEBACK_H

#include <stdint.h>

struct moe_writeback;

enum { MOE_WRITEBACK_WINDOW = 64 << 20 };

/* For a file open for writing; the descriptor stays the caller's.  NULL when out of memory,
 * which every call accepts. */
struct moe_writeback *moe_writeback_open(int fd, uint64_t window);
void moe_writeback_close(struct moe_writeback **b); /* NULL-safe; nulls; waits for nothing */

/* These bytes have been written.  Starts writing them, and waits for the oldest ones when more than the
 * window is on its way.  From any thread.  Pieces below 32 KiB are left to fsync: several share a page, and
 * each would write it again. */
void moe_writeback_add(struct moe_writeback *b, uint64_t offset, uint64_t bytes);

/* After fsync: nothing of a file of `bytes` bytes stays in the page cache when it is larger than the
 * window. */
void moe_writeback_drop(const struct moe_writeback *b, uint64_t bytes);

#endif
