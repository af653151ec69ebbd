/* SPDX-License-Identifier: Apache-2.0 */
/* formats/gguf/gguf-read.h - reads the header, metadata and tensor descriptions of any GGUF file and trusts
 * nothing in it.
 *
 * Versions 2 and 3, little-endian, by any writer.  Every length is checked against the file's size before it
 * is used.  The memory used is bounded by the size of what is read; of an array only the first elements are
 * kept.  Knows byte ranges, nothing of models. */
#ifndef MOE_FORMATS_GGUF_GGUF_READ_H
#define MOE_FORMATS_GGUF_GGUF_READ_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The types of metadata values, with GGUF's numbers. */
enum moe_gguf_value {
    MOE_GGUF_U8,
    MOE_GGUF_I8,
    MOE_GGUF_U16,
    MOE_GGUF_I16,
    MOE_GGUF_U32,
    MOE_GGUF_I32,
    MOE_GGUF_FLOAT32,
    MOE_GGUF_BOOL,
    MOE_GGUF_STRING,
    MOE_GGUF_ARRAY,
    MOE_GGUF_U64,
    MOE_GGUF_I64,
    MOE_GGUF_FLOAT64,
    MOE_GGUF_VALUES
};

enum { MOE_GGUF_SHOWN = 4, MOE_GGUF_TEXT = 256 }; /* elements kept of an array; bytes kept of a string */

/* One value.  STRING: `text` holds the first bytes of a string of `length` bytes.  Other types: `number`, and
 * for integers also `whole`. */
struct moe_gguf_scalar {
    double number;
    int64_t whole;     /* a U64's bits */
    const char *text;  /* NUL terminated; may contain NULs */
    size_t kept;       /* bytes of text that were kept */
    uint64_t length;   /* bytes of the string in the file */
};

/* A key and its value, of which the first elements are kept. */
struct moe_gguf_pair {
    const char *key;
    enum moe_gguf_value type, item; /* item: the type of an array's elements */
    uint64_t count;                 /* elements of an array; 1 for a single value */
    int shown;                      /* how many of them are in `value` */
    struct moe_gguf_scalar value[MOE_GGUF_SHOWN];
};

/* The description of a tensor. */
struct moe_gguf_entry {
    const char *name;
    uint32_t type, ndim;    /* type: ggml's number; ndim: 0 (a single value) to 4 */
    uint64_t ne[4];         /* sizes; ne[0] values are contiguous; 1 beyond ndim */
    uint64_t offset, bytes; /* offset from the start of the file; bytes 0 for an unknown type */
};

struct moe_gguf_head {
    uint32_t version;
    uint64_t alignment, data_offset, file_bytes;
    struct moe_gguf_pair *pairs;
    struct moe_gguf_entry *tensors;
    int64_t n_pairs, n_tensors;
    struct moe_arena arena; /* holds the arrays and all strings */
};

/* Find out whether `path` is a regular file that begins as a GGUF file does: *is. */
enum moe_code moe_gguf_detect(const char *path, bool *is, struct moe_err *err);

/* Read a file's head into *h.  MOE_CORRUPT, naming the tensor or the key, for anything inconsistent;
 * MOE_UNSUPPORTED for another version or byte order.  Nothing is owned on failure. */
enum moe_code moe_gguf_read(struct moe_gguf_head *h, const char *path, struct moe_err *err);
void moe_gguf_head_release(struct moe_gguf_head *h);

/* The metadata pair with this key; NULL when there is none.  It stays h's. */
const struct moe_gguf_pair *moe_gguf_find(const struct moe_gguf_head *h, const char *key);
/* ggml's name of a tensor type, "Q4_0"; NULL for one that this build does not know. */
const char *moe_gguf_type_name(uint32_t type);
/* Set *n to the number of values in a block of a tensor type and *bytes to the block's size; false for a type
 * that this build does not know. */
bool moe_gguf_block(uint32_t type, uint64_t *n, uint64_t *bytes);
const char *moe_gguf_value_type_name(enum moe_gguf_value type); /* "u32" */

#endif
