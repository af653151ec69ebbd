/* SPDX-License-Identifier: Apache-2.0 */
/* formats/gguf/gguf.h - writing a GGUF file (version 3, little-endian): metadata, tensors, and
 * their data in any order.
 *
 * Layout: "GGUF", u32 3, u64 tensors, u64 pairs; the pairs; the tensors' descriptions; zero padding to 32;
 * data, every tensor from a multiple of 32 on and padded to one.  Source: ggml's docs/gguf.md.  Knows types
 * and byte ranges, nothing of models. */
#ifndef MOE_FORMATS_GGUF_GGUF_H
#define MOE_FORMATS_GGUF_GGUF_H

#include "base/err.h"
#include "base/leftover.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of ggml's types, those written here, by their numbers in files.
 * Q4_0: 32 values in 18 bytes, an F16 d and 16 bytes; byte j holds value j low and j + 16 high; a
 * value is d * (nibble - 8).
 * Q6_K: 256 values in 210 bytes: the low 4 bits of each, the high 2, 16 int8 scales of 16 values each, an
 * F16 d; a value is d * scale * (6 bits - 32).  Bytes of the halves of 128 values: low byte l holds
 * values l and l + 64 (its nibbles), l of 0 to 63; high byte l values l, l + 32, l + 64, l + 96, the
 * first lowest, l of 0 to 31.
 * NVFP4: 64 values in 36 bytes, 4 e4m3 scales without sign, then 4 x 8 bytes, one for each 16 values; byte j
 * holds the e2m1 code of value j low and j + 8 high. */
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
    uint32_t type, ndim;    /* enum moe_gguf_type; 1 to 4 */
    uint64_t ne[4];         /* as ggml counts: ne[0] values are contiguous; 1 beyond ndim */
    uint64_t offset, bytes; /* from the start of the data; moe_gguf_place fills both in */
};

/* Bytes of a row of `n` values; -1 when n is not a whole number of the type's blocks, or the type is not
 * known. */
int64_t moe_gguf_row_bytes(uint32_t type, uint64_t n);

/* ---- metadata: pairs, packed as they are added ---- */

/* zero-initialised is empty; failed: out of memory */
struct moe_gguf_meta { unsigned char *p; size_t n, cap; uint64_t pairs; bool failed; };

void moe_gguf_u32(struct moe_gguf_meta *m, const char *key, uint64_t v); /* the low 32 bits */
void moe_gguf_f32(struct moe_gguf_meta *m, const char *key, double v);
void moe_gguf_bool(struct moe_gguf_meta *m, const char *key, bool v);
void moe_gguf_str(struct moe_gguf_meta *m, const char *key, const char *s, size_t len);
/* The head of an array of n strings, or of n i32; then exactly n items. */
void moe_gguf_strings(struct moe_gguf_meta *m, const char *key, uint64_t n);
void moe_gguf_i32s(struct moe_gguf_meta *m, const char *key, uint64_t n);
void moe_gguf_item_str(struct moe_gguf_meta *m, const char *s, size_t len);
void moe_gguf_item_i32(struct moe_gguf_meta *m, int32_t v);
/* The pair that every file of this tool has, its first. */
void moe_gguf_producer(struct moe_gguf_meta *m);
void moe_gguf_meta_release(struct moe_gguf_meta *m);

/* ---- the file ---- */

/* Fill in offsets and bytes; *file_bytes is the size of the whole file.  MOE_UNSUPPORTED, naming the tensor,
 * when its rows do not suit its type. */
enum moe_code moe_gguf_place(struct moe_gguf_tensor *t, int64_t n, const struct moe_gguf_meta *m,
                             uint64_t *file_bytes, struct moe_err *err);

struct moe_gguf_writer;

/* Begin path.partial, locked, reserved in full, its head written but for the first bytes, which come at
 * finish: an unfinished file is no GGUF file.  `path` itself appears at finish.  What stands at `path` stays
 * (MOE_EXISTS) unless it is a GGUF file that this tool wrote and `left` is MOE_LEFT_GOES, or that it was when
 * the same work was begun; what an earlier writer left at path.partial goes as `left` says (base/newfile.h).
 * MOE_EXISTS, too, when another process is writing it.  *whole: an earlier run of the same `work`
 * (base/leftover.h) left all of it: nothing is to be written.  The tensors are not kept. */
enum moe_code moe_gguf_create(struct moe_gguf_writer **w, const char *path, enum moe_left left,
                              const char *work, bool *whole, const struct moe_gguf_meta *m,
                              const struct moe_gguf_tensor *t, int64_t n, struct moe_err *err);
/* Whether the same `work` wrote the file at `path`, and nobody changed it since; false, too, when the file
 * system keeps no record of it. */
bool moe_gguf_is_made(const char *path, const char *work);
/* What moe_gguf_create would say of `path`, without touching it. */
enum moe_code moe_gguf_may_write(const char *path, enum moe_left left, struct moe_err *err);
/* `bytes` bytes of tensor t from byte `offset` of it on.  Any order, any thread. */
enum moe_code moe_gguf_write(struct moe_gguf_writer *w, const struct moe_gguf_tensor *t, uint64_t offset,
                             const void *data, size_t bytes, struct moe_err *err);
/* fsync, rename to the final name.  Closes the writer either way; on failure, and by abort,
 * path.partial is removed. */
enum moe_code moe_gguf_finish(struct moe_gguf_writer **w, struct moe_err *err);
void moe_gguf_abort(struct moe_gguf_writer **w); /* NULL-safe; nulls */

#endif
