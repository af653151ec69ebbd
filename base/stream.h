/* SPDX-License-Identifier: Apache-2.0 */
/* base/stream.h - a file's bytes from front to end, decompressed when it is gzipped (told by its magic
 * bytes), in bounded memory.
 *
 * The path "-" is standard input, and a path may be that of a pipe (a shell's <(command)); both can be read
 * once: what is read stays read.  A token that is cancelled ends the wait for them.
 *
 * Every member of a gzip file is read; one that is cut short, or has something else behind it, is
 * MOE_CORRUPT. */
#ifndef MOE_BASE_STREAM_H
#define MOE_BASE_STREAM_H

#include "base/cancel.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moe_stream;

/* cancel (may be NULL): looked at while a pipe is waited for; it lives as long as the stream. */
enum moe_code moe_stream_open(struct moe_stream **s, const char *path, const struct moe_cancel *cancel,
                              struct moe_err *err);
void moe_stream_close(struct moe_stream **s);

/* What messages call the file at `path`: itself, and of "-" "standard input". */
const char *moe_stream_name(const char *path);

/* Up to `room` > 0 bytes into `to`; *n is less only at the end, and 0 from then on. */
enum moe_code moe_stream_read(struct moe_stream *s, char *to, size_t room, size_t *n, struct moe_err *err);

/* Bytes of the file: all (of a pipe 0 until its end was read), and read so far. */
uint64_t moe_stream_size(const struct moe_stream *s);
uint64_t moe_stream_at(const struct moe_stream *s);

/* The whole text in malloc'd memory of its size with a NUL after it (free() it).  A text above `limit` bytes
 * is MOE_UNSUPPORTED before memory is taken for it: a plain file's size says so, a gzipped one is
 * decompressed once to count.  A pipe is read into memory that grows to that. */
enum moe_code moe_read_text(const char *path, size_t limit, const struct moe_cancel *cancel, char **data,
                            size_t *size, struct moe_err *err);

#endif
