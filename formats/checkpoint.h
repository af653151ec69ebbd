/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint.h - what opening a checkpoint directory passes from file to file; for formats/ alone.
 *
 * checkpoint-files.c finds and opens the files and lists raw tensors; checkpoint-types.c makes canonical tensors of them. */
#ifndef MOE_FORMATS_CHECKPOINT_H
#define MOE_FORMATS_CHECKPOINT_H

#include "base/strmap.h"
#include "formats/names.h"
#include "formats/source-internal.h"

struct moe_checkpoint {
    struct moe_source *src;
    struct moe_problems *p;
    int64_t raw_cap;
    /* model.safetensors.index.json: entry k says tensor names[k] lies in files[file_of[k]].  map: name -> k. */
    char *index_text, index_path[4096];
    struct moe_strmap map;
    int64_t n_index, index_cap;
    const char **names;
    int32_t *file_of;
    int64_t *first_in, *next_in; /* of excuse_file: the first entry of each file and the one after each; NULL until a file cannot be read */
    bool all_excused;
    unsigned char *seen;
    bool has_index;
    bool stray_looked; /* stray: a safetensors file there that the index does not name, "" when there is none */
    char stray[256];
    int32_t *parts; /* [slot][enum moe_part] -> raw + 1, 0: none */
};

/* Fill src->files, each with name and path, none open. */
enum moe_code moe_checkpoint_list(struct moe_checkpoint *k, struct moe_err *err);
/* Open the files, fill src->raws (tensor -1, skipped NULL), check them against the index, and set the identity's form. */
enum moe_code moe_checkpoint_headers(struct moe_checkpoint *k, struct moe_err *err);
/* Fill src->tensors and the raws' use of them. */
enum moe_code moe_checkpoint_types(struct moe_checkpoint *k, struct moe_err *err);

/* The tensor of this slot was reported, or belongs to a file that could not be read: it is not missing besides. */
void moe_checkpoint_excuse(struct moe_checkpoint *k, int64_t slot);
bool moe_checkpoint_excused(const struct moe_checkpoint *k, int64_t slot);

#endif
