/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint/checkpoint.h - what opening a checkpoint directory passes from file to
 * file; for formats/ alone.
 *
 * checkpoint-files.c finds and opens the files; checkpoint-raws.c lists their tensors and holds them against
 * the index; checkpoint-types.c makes canonical tensors of them. */
#ifndef MOE_FORMATS_CHECKPOINT_CHECKPOINT_H
#define MOE_FORMATS_CHECKPOINT_CHECKPOINT_H

#include "base/strmap.h"
#include "formats/names.h"
#include "formats/source-parts.h"

enum { MOE_SEEN = 1 /* where the index says */, MOE_SEEN_ELSEWHERE = 2 };

struct moe_checkpoint {
    struct moe_source *src;
    struct moe_problems *p;
    int64_t raw_cap;
    /* model.safetensors.index.json: entry k says tensor names[k] lies in
     * files[file_of[k]].  map: name -> k. */
    char *index_text, index_path[4096];
    struct moe_strmap map;
    int64_t n_index, index_cap;
    const char **names;
    int32_t *file_of;
    /* of excuse_file: the first entry of each file and the one after each; NULL
     * until a file cannot be read */
    int64_t *first_in, *next_in;
    bool all_excused;
    unsigned char *seen; /* of each entry, MOE_SEEN bits */
    bool has_index;
    bool both_told;      /* fused and single experts: once */
    /* stray: a safetensors file there that the index does not name, "" when there is none */
    bool stray_looked;
    char stray[256];
    int32_t *parts; /* [slot][enum moe_part] -> raw + 1, 0: none */
};

#define MOE_TWICE "is in '%s' already, and no model.safetensors.index.json says which of the two counts " \
                  "(remove one of the files, or add the index)"

/* Fill src->files, each with name and path, none open. */
enum moe_code moe_checkpoint_list(struct moe_checkpoint *k, struct moe_err *err);
/* Open the files, fill src->raws (tensor -1, skipped NULL), check them against the index, and
 * set the identity's form. */
enum moe_code moe_checkpoint_headers(struct moe_checkpoint *k, struct moe_err *err);
/* Append the tensors of a file's header to src->raws, slices in place of fused experts. */
struct moe_st_header;
enum moe_code moe_checkpoint_add_raws(struct moe_checkpoint *k, int32_t file, const struct moe_st_header *h,
                                      struct moe_err *err);
/* What only all headers together tell: layers of multi-token prediction that the config does not mention,
 * copies without an index, what the index names and no file holds. */
enum moe_code moe_checkpoint_check_raws(struct moe_checkpoint *k, struct moe_err *err);
/* Fill src->tensors and the raws' use of them. */
enum moe_code moe_checkpoint_types(struct moe_checkpoint *k, struct moe_err *err);

/* The tensor of this slot was reported, or belongs to a file that could not be read:
 * it is not missing besides. */
void moe_checkpoint_excuse(struct moe_checkpoint *k, int64_t slot);
bool moe_checkpoint_excused(const struct moe_checkpoint *k, int64_t slot);

#endif
