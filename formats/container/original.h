/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/original.h - what a container keeps of a checkpoint's files beside the tensors, so that
 * moe-convert --to hf restores all of them byte for byte.
 *
 * A container's file source.rest (docs/reference/format.md, section 5.1) has a record for the header of each
 * safetensors file, for the index, for every small file that has no place in hf/ or tokenizer/, and for every
 * empty directory.  This project can generate the text of a header or of the index from source.jsonl (the
 * "plain text").  Where the checkpoint's text is the same, the record only says so; where it differs, the
 * record holds the bytes between their common beginning and their common end.  Knows bytes, nothing of
 * tensors. */
#ifndef MOE_FORMATS_CONTAINER_ORIGINAL_H
#define MOE_FORMATS_CONTAINER_ORIGINAL_H

#include "base/arena.h"
#include "base/buffer.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOE_ORIGINAL_NAME "source.rest"
#define MOE_INDEX_NAME "model.safetensors.index.json"

/* ---- tensors that no unit has a place for ---- */

/* The kinds of tensors that a conversion in source precision keeps in safetensors files of their own, because
 * no unit has a place for them, in the order of those files.  VISION: tensors that no engine here reads,
 * under their own names.  SUPERSEDED: copies that do not count, under FILE/NAME, because several files may
 * hold one of the same name. */
enum moe_extra_kind { MOE_EXTRA_VISION, MOE_EXTRA_SUPERSEDED, MOE_EXTRA_COUNT };
extern const char *const moe_extra_files[MOE_EXTRA_COUNT];
/* The kind of a tensor with this reason in moe_raw.skipped; MOE_EXTRA_COUNT for NULL (it is not skipped) and
 * for any other reason. */
enum moe_extra_kind moe_extra_kind_of(const char *skipped);
/* Its name in that file: allocated in the arena, or `name` itself; NULL when out of memory. */
const char *moe_extra_name(struct moe_arena *a, enum moe_extra_kind kind, const char *file, const char *name);
/* Whether a container's file of this name is one of moe_extra_files. */
bool moe_extra_is_file(const char *name);

/* ---- headers, index, files ---- */

enum moe_original_kind { MOE_ORIGINAL_HEADER, MOE_ORIGINAL_INDEX, MOE_ORIGINAL_FILE, MOE_ORIGINAL_DIRECTORY };

/* ---- writing ---- */

/* Append the record of `name`, whose text has n bytes; `plain` is the text that would be generated without a
 * record ("" and 0: none would be). */
enum moe_code moe_original_add(struct moe_buffer *out, enum moe_original_kind kind, const char *name,
                               const char *text, size_t n,
                               const char *plain, size_t n_plain, struct moe_err *err);

/* ---- reading ---- */

struct moe_original {
    enum moe_original_kind kind;
    char *name;               /* the file's, as "docs/guide.md" */
    uint64_t head, tail;      /* bytes of the plain text that come before and after `middle` */
    const char *middle;
    size_t n;                 /* bytes of `middle` */
    uint64_t spaces;          /* spaces that end the text, after `tail` */
};
struct moe_originals { struct moe_original *v; int64_t n; }; /* in the order of the file */

/* Whether a record may have this name: one or more file names with '/' between them, of which only the last
 * may begin with '.'. */
bool moe_original_name(const char *name);
/* Parse the whole file; `data` must outlive *o.  MOE_CORRUPT names the number of the record.  Nothing is
 * owned on failure. */
enum moe_code moe_originals_parse(const char *data, size_t size, const char *path, struct moe_originals *o,
                                  struct moe_err *err);
void moe_originals_release(struct moe_originals *o); /* zero-initialised is fine */

/* The text that a record stands for; free(*text).  MOE_CORRUPT when its head and tail are longer than the
 * plain text, or the text is longer than `limit`. */
enum moe_code moe_original_text(const struct moe_original *o, const char *plain, size_t n_plain, size_t limit,
                                const char *path, char **text,
                                size_t *n, struct moe_err *err);

#endif
