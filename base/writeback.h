/* SPDX-License-Identifier: Apache-2.0 */
/* base/writeback.h - starts writing data to the disk as soon as it is written to a file, and then drops it
 * from the page cache.
 *
 * Without it a kernel lets dirty pages grow to a share of memory and writes them all when fsync is called:
 * the disk idles while the program computes, and a 1 TB output pushes everything else out of memory.  With it
 * at most `window` bytes of the file (and one piece for each thread) are dirty or being written, so that
 * fsync has little left to do.  It guarantees no durability and reports no errors; fsync does both and still
 * has to be called. */
#ifndef MOE_BASE_WRITEBACK_H
#define MOE_BASE_WRITEBACK_H

#include <stdint.h>

struct moe_writeback;

enum { MOE_WRITEBACK_WINDOW = 64 << 20 };

/* For a file open for writing; the descriptor stays the caller's.  NULL when out of memory,
 * which every call accepts. */
struct moe_writeback *moe_writeback_open(int fd, uint64_t window);
void moe_writeback_close(struct moe_writeback **b); /* NULL-safe; nulls; waits for nothing */

/* Say that these bytes were written to the file.  Starts to write them to the disk, and waits for the oldest
 * ones when more than the window is being written.  Safe from any thread.  Pieces below 32 KiB are left to
 * fsync: several share a page, which would be written once for each. */
void moe_writeback_add(struct moe_writeback *b, uint64_t offset, uint64_t bytes);

/* After fsync: drops the file's `bytes` bytes from the page cache when they are more than the window. */
void moe_writeback_drop(const struct moe_writeback *b, uint64_t bytes);

#endif
