/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint/safetensors.h - one safetensors file: a reader of its header that trusts nothing in it,
 * and a writer.
 *
 * Layout: the length of the header (8 bytes, little-endian), a JSON header, the data; no holes and no padding
 * between tensors.  Knows dtypes and byte ranges, nothing of models. */
#ifndef MOE_FORMATS_CHECKPOINT_SAFETENSORS_H
#define MOE_FORMATS_CHECKPOINT_SAFETENSORS_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOE_ST_NDIM = 8, MOE_ST_HEADER_MAX = 100000000 /* as the format demands */ };

struct moe_st_entry {
    const char *name, *dtype;      /* dtype: "BF16", "F8_E4M3", "I32" ... */
    int32_t ndim;                  /* 0: a scalar */
    int64_t shape[MOE_ST_NDIM];
    uint64_t offset, bytes;        /* from the start of the file; the writer fills both in */
};

struct moe_st_header {
    struct moe_st_entry *entries;  /* ascending offset; free() them */
    int64_t n;
    uint64_t data_offset, end;     /* in the file: where its data begins and ends; end is its size */
    uint64_t hash;                 /* XXH3-64 of the header with its length */
};

/* Bytes of a tensor; -1 when the dtype is unknown, a dimension is negative, or the size overflows or is not a
 * whole number of bytes. */
int64_t moe_st_bytes(const char *dtype, const int64_t *shape, int ndim);

/* Parse the header's JSON, `bytes` bytes after the length, which are changed in place.  Names are allocated
 * in the arena, entries with malloc; nothing is owned on failure.  MOE_CORRUPT, with the tensor where there
 * is one: bad syntax, too deep nesting, a duplicate key, a size that is not shape times dtype, an overlap or
 * a hole.  MOE_UNSUPPORTED: an unknown dtype.  The size of the file is not checked here. */
enum moe_code moe_st_parse(char *text, size_t bytes, const char *file, struct moe_arena *arena,
                           struct moe_st_header *h, struct moe_err *err);
/* Read and parse the header of an open file of `size` bytes. */
enum moe_code moe_st_read(int fd, const char *file, uint64_t size, struct moe_arena *arena,
                          struct moe_st_header *h, struct moe_err *err);
/* MOE_OK when the file's size is h->end.  For a shorter file the message names the first tensor that is cut
 * off and the number of missing bytes. */
enum moe_code moe_st_check_size(const struct moe_st_header *h, const char *file, uint64_t size,
                                struct moe_err *err);

/* ---- the names of a checkpoint's files ---- */

#define MOE_ST_SINGLE "model.safetensors" /* the name of the one file of weights, where there is one */
enum { MOE_ST_NAME_BYTES = 64 };
/* The name of file `i` of n, counted from 0: "model-00002-of-00014.safetensors", or MOE_ST_SINGLE when n is
 * 1.  Returns `name`. */
const char *moe_st_shard_name(int64_t i, int64_t n, char name[MOE_ST_NAME_BYTES]);
/* Whether a file has the name of one of several files of weights, with any number of digits. */
bool moe_st_is_shard_name(const char *name);

/* ---- writing ---- */

struct moe_st_writer; /* used by one thread at a time */
/* Begin the file `path`, which gets its name at finish; the header is written now, padded with spaces to a
 * multiple of 8 bytes.  The n entries at `t` are not kept; their offsets and sizes are filled in.  *w is NULL
 * on failure. */
enum moe_code moe_st_create(struct moe_st_writer **w, const char *path, struct moe_st_entry *t, int64_t n,
                            struct moe_err *err);
/* The same with a header that the caller made, n bytes of JSON with their padding, before `data_bytes` bytes
 * of data. */
enum moe_code moe_st_create_as(struct moe_st_writer **w, const char *path, const char *header, size_t n,
                               uint64_t data_bytes, struct moe_err *err);
/* Append bytes of data, in the order of the entries; the pieces need not end where tensors do. */
enum moe_code moe_st_write(struct moe_st_writer *w, const void *data, size_t bytes, struct moe_err *err);
/* Sync the file to the disk and give it its name, in place of any file of that name.  MOE_INTERNAL when fewer
 * bytes were written than the header says.  Closes the writer in any case; on failure no file is left. */
enum moe_code moe_st_finish(struct moe_st_writer **w, struct moe_err *err);
void moe_st_abort(struct moe_st_writer **w); /* NULL-safe; nulls; no file is left */

/* Write dir/model.safetensors.index.json: tensor names[i] lies in files[i].  The entries are sorted by name,
 * as transformers does. */
enum moe_code moe_st_write_index(const char *dir, const char *const *names, const char *const *files,
                                 int64_t n, uint64_t total_size, struct moe_err *err);

/* The text before and after the entries of an index; %llu in the first is total_size, in bytes. */
#define MOE_ST_INDEX_HEAD "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {"
#define MOE_ST_INDEX_TAIL "\n  }\n}\n"

/* Make everything that a file of these tensors has before its data (the length, the header, its padding), for
 * a writer that fills in the data in another order; `t` gets its offsets in the file.  free(*head). */
enum moe_code moe_st_head(struct moe_st_entry *t, int64_t n, const char *path, char **head, size_t *bytes,
                          uint64_t *file_bytes, struct moe_err *err);

/* Make the JSON texts alone: a file's header without length and padding (`t` gets offsets that count from the
 * first byte of the data), and an index.  free(*out). */
enum moe_code moe_st_header_text(struct moe_st_entry *t, int64_t n, const char *file, char **out,
                                 size_t *bytes, struct moe_err *err);
enum moe_code moe_st_index_text(const char *const *names, const char *const *files, int64_t n,
                                uint64_t total_size, char **out, size_t *bytes, struct moe_err *err);

#endif
