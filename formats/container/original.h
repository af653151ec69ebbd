/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/original.h - what of a checkpoint's files a container keeps beside tensors, so that --to
 * hf brings all back byte for byte.
 *
 * A container's file source.rest (docs/reference/format.md, section 5.1) has a record for the header of each
 * safetensors file, for the index, for every small file that has no place in hf/ or tokenizer/, and for every
 * empty directory.  Where a header or the index is what this project would write itself from source.jsonl
 * (its "plain text"), the record only says so; where it differs, the record holds the bytes between the
 * common head and the common tail.  Knows bytes, nothing of tensors. */
#ifndef MOE_FORMATS_CONTAINER_ORIGINAL_H
#define MOE_FORMATS_CONTAINER_ORIGINAL_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOE_ORIGINAL_NAME "source.rest"
#define MOE_INDEX_NAME "model.safetensors.index.json"

/* ---- tensors that no unit has a place for ---- */

/* Kinds of tensors that a conversion in source precision keeps in a safetensors file of their own, in their
 * order: what a runtime here does not read ("vision", under their names), copies that do not count
 * ("superseded": under FILE/NAME, because several files may have one of the same name). */
enum moe_aside { MOE_ASIDE_VISION, MOE_ASIDE_SUPERSEDED, MOE_ASIDE_COUNT };
extern const char *const moe_aside_files[MOE_ASIDE_COUNT];
/* The kind of a tensor that is skipped for this reason (NULL: it is not); MOE_ASIDE_COUNT for any other. */
enum moe_aside moe_aside_of(const char *skipped);
/* Its name there, in the arena or as it is; NULL without memory. */
const char *moe_aside_name(struct moe_arena *a, enum moe_aside kind, const char *file, const char *name);
bool moe_aside_is_file(const char *name);

/* ---- headers, index, files ---- */

enum moe_original_kind { MOE_ORIGINAL_HEADER, MOE_ORIGINAL_INDEX, MOE_ORIGINAL_FILE, MOE_ORIGINAL_DIRECTORY };

/* ---- writing ---- */

struct moe_original_writer { char *text; size_t n, cap; }; /* zero-initialised; free(text) */

/* Append the record of `name`, whose text is these n bytes where `plain` is the text that would be written
 * without it ("", 0: none would). */
enum moe_code moe_original_add(struct moe_original_writer *w, enum moe_original_kind kind, const char *name,
                               const char *text, size_t n,
                               const char *plain, size_t n_plain, struct moe_err *err);

/* ---- reading ---- */

struct moe_original {
    enum moe_original_kind kind;
    char *name;               /* of a file; "docs/guide.md" lies in a directory of the checkpoint */
    uint64_t head, tail;      /* bytes of the plain text that stand before and after `middle` */
    const char *middle;
    size_t n;                 /* bytes of it */
    uint64_t spaces;          /* spaces after all */
};
struct moe_originals { struct moe_original *v; int64_t n; }; /* in the order of the file */

/* Whether a record may have this name: plain names with '/' between them, none beginning with '.' but the
 * last. */
bool moe_original_name(const char *name);
/* Parse the whole file; `data` has to live as long as *o.  MOE_CORRUPT with the number of the record.
 * Nothing is owned on failure. */
enum moe_code moe_originals_parse(const char *data, size_t size, const char *path, struct moe_originals *o,
                                  struct moe_err *err);
void moe_originals_release(struct moe_originals *o); /* zero-initialised is fine */

/* The text that a record stands for; free(*text).  MOE_CORRUPT when its head and tail are more than the plain
 * text has, or it is longer than `limit`. */
enum moe_code moe_original_text(const struct moe_original *o, const char *plain, size_t n_plain, size_t limit,
                                const char *path, char **text,
                                size_t *n, struct moe_err *err);

#endif
