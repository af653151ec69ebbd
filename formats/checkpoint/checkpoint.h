/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint/checkpoint.h - what the steps of opening a checkpoint directory pass on; for formats/
 * alone.
 *
 * checkpoint-files.c finds and opens the files; checkpoint-raws.c lists their tensors and holds them against
 * the index; checkpoint-types.c makes canonical tensors of them. */
#ifndef MOE_FORMATS_CHECKPOINT_CHECKPOINT_H
#define MOE_FORMATS_CHECKPOINT_CHECKPOINT_H

#include "base/strmap.h"
#include "formats/names.h"
#include "formats/source-parts.h"

/* Of an entry of the index: its tensor was found in the file that the index names, or in another one. */
enum { MOE_SEEN = 1, MOE_SEEN_ELSEWHERE = 2 };

struct moe_checkpoint {
    struct moe_source *src;
    struct moe_problems *p;
    int64_t raw_cap;

    /* model.safetensors.index.json: entry k says that tensor names[k] lies in files[file_of[k]] */
    char *index_text, index_path[4096];
    struct moe_strmap map; /* name -> k */
    int64_t n_index, index_cap;
    const char **names;
    int32_t *file_of;
    bool has_index;
    unsigned char *seen; /* of each entry: MOE_SEEN bits */

    /* where a file cannot be read, its tensors are not reported missing, too: the first entry of each file,
     * and for each entry the next one of its file; NULL until then */
    int64_t *first_in, *next_in;
    bool all_excused;

    bool both_told;      /* that there are fused and single experts was reported */
    bool stray_looked;   /* stray: a safetensors file that the index does not name; "" when there is none */
    char stray[256];
    int32_t *parts;      /* [slot][enum moe_part] -> raw + 1, 0: none */
};

#define MOE_TWICE "is in '%s' already, and no model.safetensors.index.json says which of the two counts " \
                  "(remove one of the files, or add the index)"

/* Fill src->files, each with name and path, none open. */
enum moe_code moe_checkpoint_list(struct moe_checkpoint *k, struct moe_err *err);
/* Open the files, fill src->raws (tensor -1, skipped NULL), check them against the index, and
 * set the identity's form. */
enum moe_code moe_checkpoint_headers(struct moe_checkpoint *k, struct moe_err *err);
struct moe_st_header;
/* Append the tensors of a file's header to src->raws, slices in place of fused experts. */
enum moe_code moe_checkpoint_add_raws(struct moe_checkpoint *k, int32_t file, const struct moe_st_header *h,
                                      struct moe_err *err);
/* What only all headers together tell: layers of multi-token prediction that the config does not mention,
 * copies without an index, what the index names and no file holds. */
enum moe_code moe_checkpoint_check_raws(struct moe_checkpoint *k, struct moe_err *err);
/* Fill src->tensors and the raws' use of them. */
enum moe_code moe_checkpoint_types(struct moe_checkpoint *k, struct moe_err *err);

/* The tensor of this slot was reported already, or belongs to a file that could not be read: do not report it
 * as missing, too. */
void moe_checkpoint_excuse(struct moe_checkpoint *k, int64_t slot);
bool moe_checkpoint_excused(const struct moe_checkpoint *k, int64_t slot);

#endif
