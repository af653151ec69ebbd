/* SPDX-License-Identifier: Apache-2.0 */
/* formats/gguf/gguf.h - writes a GGUF file (version 3, little-endian): metadata, tensors, and the tensors'
 * data in any order.
 *
 * Layout: "GGUF", u32 3, u64 number of tensors, u64 number of metadata pairs; the pairs; the tensors'
 * descriptions; zero padding to a multiple of 32; the data, in which every tensor begins at a multiple of 32
 * and is padded to one.  Source: ggml's docs/gguf.md.  Knows types and byte ranges, nothing of models. */
#ifndef MOE_FORMATS_GGUF_GGUF_H
#define MOE_FORMATS_GGUF_GGUF_H

#include "base/buffer.h"
#include "base/err.h"
#include "base/leftover.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The tensor types of ggml that are written here, with ggml's numbers.
 *
 * Q4_0: 32 values in 18 bytes: an F16 d, then 16 bytes.  Byte j holds value j in its low nibble and value j +
 * 16 in its high one; a value is d * (nibble - 8).
 *
 * Q6_K: 256 values in 210 bytes: the low 4 bits of all values (128 bytes), their high 2 bits (64 bytes), 16
 * int8 scales for 16 values each, an F16 d; a value is d * scale * (6-bit code - 32).  The bits are stored
 * for two halves of 128 values.  In each half, byte l (0 to 63) of the low bits holds value l in its low
 * nibble and value l + 64 in its high one; byte l (0 to 31) of the high bits holds values l, l + 32, l + 64
 * and l + 96, from the lowest bits on.
 *
 * NVFP4: 64 values in 36 bytes: 4 unsigned e4m3 scales, then 8 bytes for each 16 values.  Byte j of these
 * holds the e2m1 code of value j in its low nibble and that of value j + 8 in its high one. */
enum moe_gguf_type {
    MOE_GGUF_F32 = 0,
    MOE_GGUF_F16 = 1,
    MOE_GGUF_Q4_0 = 2,
    MOE_GGUF_Q6_K = 14,
    MOE_GGUF_BF16 = 30,
    MOE_GGUF_NVFP4 = 40
};

struct moe_gguf_tensor {
    char name[64];          /* NUL included: ggml's limit */
    uint32_t type, ndim;    /* type: enum moe_gguf_type; ndim: 1 to 4 */
    uint64_t ne[4];         /* sizes in ggml's order: ne[0] values are contiguous; 1 beyond ndim */
    uint64_t offset, bytes; /* from the start of the data; moe_gguf_place fills both in */
};

/* Bytes of a row of `n` values; -1 when n is not a multiple of the type's block, or the type is not known. */
int64_t moe_gguf_row_bytes(uint32_t type, uint64_t n);

/* ---- metadata: pairs, packed as they are added ---- */

/* Zero-initialised it is empty; bytes.failed: memory ran out. */
struct moe_gguf_meta { struct moe_buffer bytes; uint64_t pairs; };

void moe_gguf_put_u32(struct moe_gguf_meta *m, const char *key, uint64_t v); /* the low 32 bits */
void moe_gguf_put_f32(struct moe_gguf_meta *m, const char *key, double v);
void moe_gguf_put_bool(struct moe_gguf_meta *m, const char *key, bool v);
void moe_gguf_put_str(struct moe_gguf_meta *m, const char *key, const char *s, size_t len);
/* Begin an array of n strings, or of n i32; exactly n calls of the matching item function must follow. */
void moe_gguf_begin_strings(struct moe_gguf_meta *m, const char *key, uint64_t n);
void moe_gguf_begin_i32s(struct moe_gguf_meta *m, const char *key, uint64_t n);
void moe_gguf_put_item_str(struct moe_gguf_meta *m, const char *s, size_t len);
void moe_gguf_put_item_i32(struct moe_gguf_meta *m, int32_t v);
/* Put the pair that marks a file as written by this tool; it must be the first. */
void moe_gguf_put_producer(struct moe_gguf_meta *m);
void moe_gguf_meta_release(struct moe_gguf_meta *m);

/* ---- the file ---- */

/* Fill in offsets and sizes; *file_bytes is the size of the whole file.  MOE_UNSUPPORTED, naming the tensor,
 * when its rows do not suit its type. */
enum moe_code moe_gguf_place(struct moe_gguf_tensor *t, int64_t n, const struct moe_gguf_meta *m,
                             uint64_t *file_bytes, struct moe_err *err);

struct moe_gguf_writer;

/* Begin path.partial, locked, with disk space for all of it.  Its first bytes are written only at finish, so
 * that an unfinished file is no GGUF file; the rest of its head is written now.  `path` itself appears at
 * finish.
 *
 * A file that exists at `path` is not replaced (MOE_EXISTS), unless this tool wrote it and `policy` is
 * MOE_LEFTOVER_DISCARD, or was so when the work that is now resumed was begun.  What an earlier writer left
 * at path.partial is treated as `policy` says (base/newfile.h).  MOE_EXISTS also when another process is
 * writing it.  *whole: an earlier run of the same `work` (base/leftover.h) wrote all of it, and only finish
 * is to be called.  The tensors are not kept. */
enum moe_code moe_gguf_create(struct moe_gguf_writer **w, const char *path, enum moe_leftover_policy policy,
                              const char *work, bool *whole, const struct moe_gguf_meta *m,
                              const struct moe_gguf_tensor *t, int64_t n, struct moe_err *err);
/* Whether the same `work` wrote the file at `path` and it was not changed since; false also when the file
 * system does not keep the record of this. */
bool moe_gguf_is_made(const char *path, const char *work);
/* The checks that moe_gguf_create makes on `path`, without writing anything. */
enum moe_code moe_gguf_may_write(const char *path, enum moe_leftover_policy policy, struct moe_err *err);
/* Write `bytes` bytes of tensor t, beginning at its byte `offset`.  In any order, from any thread. */
enum moe_code moe_gguf_write(struct moe_gguf_writer *w, const struct moe_gguf_tensor *t, uint64_t offset,
                             const void *data, size_t bytes, struct moe_err *err);
/* Sync the file to the disk and give it its name.  Closes the writer either way; on failure, and by abort,
 * path.partial is removed. */
enum moe_code moe_gguf_finish(struct moe_gguf_writer **w, struct moe_err *err);
void moe_gguf_abort(struct moe_gguf_writer **w); /* NULL-safe; nulls */

#endif
