/* SPDX-License-Identifier: Apache-2.0 */
/* base/stream.h - reads a file from front to end in bounded memory, decompressing it when it is gzipped
 * (recognised by its magic bytes).
 *
 * The path "-" means standard input, and a path may name a pipe (a shell's <(command)); both can be read only
 * once.  Cancelling the token ends a wait for them.
 *
 * All members of a gzip file are read; a member that is cut short, or trailing bytes that are no member, are
 * MOE_CORRUPT. */
#ifndef MOE_BASE_STREAM_H
#define MOE_BASE_STREAM_H

#include "base/cancel.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moe_stream;

/* Open the file at `path`.  cancel (may be NULL) is checked while a pipe is waited for; it must outlive the
 * stream.  A stream is used by one thread at a time. */
enum moe_code moe_stream_open(struct moe_stream **s, const char *path, const struct moe_cancel *cancel,
                              struct moe_err *err);
void moe_stream_close(struct moe_stream **s);

/* What messages call the file at `path`: "standard input" for "-", else the path itself. */
const char *moe_stream_name(const char *path);

/* Read up to `room` > 0 bytes; *n is less than `room` only at the end, and 0 from then on. */
enum moe_code moe_stream_read(struct moe_stream *s, char *to, size_t room, size_t *n, struct moe_err *err);

/* The size of the file in bytes (0 for a pipe until its end was read), and how many of them were read so far;
 * of a gzipped file compressed bytes are counted. */
uint64_t moe_stream_size(const struct moe_stream *s);
uint64_t moe_stream_at(const struct moe_stream *s);

/* Read a whole text into malloc'd memory of just its size with a NUL after it (free() it).  A text above
 * `limit` bytes is MOE_UNSUPPORTED before memory is allocated for it: the size of a plain file is known, and
 * a gzipped one is first decompressed to count its bytes.  For a pipe the memory grows while it is read, up
 * to the limit. */
enum moe_code moe_read_text(const char *path, size_t limit, const struct moe_cancel *cancel, char **data,
                            size_t *size, struct moe_err *err);

#endif
