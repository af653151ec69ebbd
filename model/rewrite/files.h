/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/files.h - what a container keeps of its source besides weights: provenance and small files.
 *
 * A raw tensor is one tensor of a checkpoint's files, as the file's header names it (struct moe_raw). */
#ifndef MOE_MODEL_REWRITE_FILES_H
#define MOE_MODEL_REWRITE_FILES_H

#include "base/cancel.h"
#include "formats/container/container.h"
#include "formats/container/original.h"

/* Appends the entry of raw tensor number `raw`, with the XXH3-64 of its bytes, to a unit's source array (see
 * moe_writer_commit_unit in formats/container/container.h). */
enum moe_code moe_source_entry(cJSON *source, const struct moe_source *src, int64_t raw, uint64_t hash,
                               struct moe_err *err);
/* Whether a container keeps this tensor: it is part of a weight, or one of a few bytes that no runtime here
 * uses (INT4 weight_shape, KV scales, rotary buffers). */
bool moe_raw_is_kept(const struct moe_raw *r);
/* Appends the entries of all raw tensors that are no part of a weight, with the bytes of those that are kept
 * (moe_raw_is_kept). */
enum moe_code moe_source_skipped(cJSON *source, const struct moe_source *src, struct moe_err *err);

/* Files and directories of a checkpoint that no container keeps: how many, and the names of the first few. */
struct moe_rest_left { int64_t n; char named[5][256]; };
/* Writes a checkpoint's source.rest (formats/container/original.h): headers, index and other small files.
 * *left tells how many files and directories are left out, and the names of the first: those that are too
 * large or too deep, other models, weights that the index does not name.  w NULL: only sets *left. */
enum moe_code moe_keep_rest(const struct moe_source *src, struct moe_writer *w, struct moe_rest_left *left,
                            struct moe_err *err);
/* Writes vision.safetensors or superseded.safetensors: the tensors of a checkpoint of that kind, or a copy of
 * the container's file.  Writes no file when there are no such tensors. */
enum moe_code moe_keep_extra(const struct moe_source *src, enum moe_extra_kind kind, struct moe_writer *w,
                             const struct moe_cancel *cancel, struct moe_err *err);
uint64_t moe_extra_bytes(const struct moe_source *src, enum moe_extra_kind kind); /* bytes of these tensors */

/* The disk space that a run wants for all but shards, at most: the source's small files `copies` times,
 * journals, provenance and a reserve. */
uint64_t moe_other_files_bytes(const struct moe_source *src, int copies);

/* Copies the small files: those of a checkpoint (JSON, tokenizer, template, code) go to tokenizer/ and hf/,
 * those of a container keep their names.  *jsonl: the text of a container's source.jsonl, which the caller
 * frees; NULL for a checkpoint.  rest: source.rest too. */
enum moe_code moe_copy_files(const struct moe_source *src, struct moe_writer *w, bool rest, char **jsonl,
                             size_t *jsonl_bytes, struct moe_err *err);

#endif
