/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/files.h - what a container keeps of its source besides weights: provenance and
 * small files.  Inside model/. */
#ifndef MOE_MODEL_REWRITE_FILES_H
#define MOE_MODEL_REWRITE_FILES_H

#include "base/cancel.h"
#include "formats/container/container.h"
#include "formats/container/original.h"

/* Append the entry of raw tensor `raw` to a unit's source array (formats/container/container.h,
 * moe_writer_commit_unit). */
enum moe_code moe_source_entry(cJSON *source, const struct moe_source *src, int64_t raw, uint64_t hash,
                               struct moe_err *err);
/* A container keeps this tensor: a weight, or a few bytes that no runtime here uses (INT4 weight_shape, KV
 * scales, rotary buffers). */
bool moe_raw_is_kept(const struct moe_raw *r);
/* Entries of all raw tensors that are not used, with the bytes of the small ones (moe_raw_is_kept). */
enum moe_code moe_source_skipped(cJSON *source, const struct moe_source *src, struct moe_err *err);

/* Files and directories of a checkpoint that no container keeps: how many, and the names of the first few. */
struct moe_rest_left { int64_t n; char named[5][256]; };
/* source.rest of a checkpoint (formats/container/original.h): headers, index and other small files, but for
 * what *left says then.  w NULL: only look. */
enum moe_code moe_keep_rest(const struct moe_source *src, struct moe_writer *w, struct moe_rest_left *left,
                            struct moe_err *err);
/* vision.safetensors or superseded.safetensors: the tensors of a checkpoint that are skipped so, or a
 * container's file again; none when there are none. */
enum moe_code moe_keep_aside(const struct moe_source *src, enum moe_aside kind, struct moe_writer *w,
                             const struct moe_cancel *cancel, struct moe_err *err);
uint64_t moe_aside_bytes(const struct moe_source *src, enum moe_aside kind); /* what it will take */

/* At most what the source's small files take `copies` times, journals, provenance, and what a run wants to be
 * free besides. */
uint64_t moe_beside_bytes(const struct moe_source *src, int copies);

/* Copy the small files: of a checkpoint its JSON, tokenizer, template and code files (to tokenizer/ and hf/),
 * of a container the same again; *jsonl gets a container's source.jsonl (free it), NULL for a checkpoint.
 * rest: source.rest too. */
enum moe_code moe_copy_files(const struct moe_source *src, struct moe_writer *w, bool rest, char **jsonl,
                             size_t *jsonl_bytes, struct moe_err *err);

#endif
