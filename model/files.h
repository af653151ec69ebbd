/* model/files.h - what a container keeps of its source besides weights: provenance and small files.  Inside model/. */
#ifndef MOE_MODEL_FILES_H
#define MOE_MODEL_FILES_H

#include "formats/container.h"

/* Append the entry of raw tensor `raw` to a unit's source array (formats/container.h, moe_writer_commit_unit). */
enum moe_code moe_source_entry(cJSON *source, const struct moe_source *src, int64_t raw, uint64_t hash, struct moe_err *err);
/* Entries of all raw tensors that are not used, with the bytes of the small ones (INT4 weight_shape). */
enum moe_code moe_source_skipped(cJSON *source, const struct moe_source *src, struct moe_err *err);

/* Copy the small files: of a checkpoint its JSON, tokenizer, template and code files (to tokenizer/ and hf/), of a
 * container the same again; *jsonl gets a container's source.jsonl (free it), NULL for a checkpoint. */
enum moe_code moe_copy_files(const struct moe_source *src, struct moe_writer *w, char **jsonl, size_t *jsonl_bytes, struct moe_err *err);

#endif
