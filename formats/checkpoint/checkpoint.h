/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint/checkpoint.h - the state that the steps of opening a checkpoint directory share; for
 * formats/ alone.
 *
 * checkpoint-files.c finds and opens the files; checkpoint-raws.c lists their tensors and compares them with
 * the index; checkpoint-types.c makes canonical tensors of them. */
#ifndef MOE_FORMATS_CHECKPOINT_CHECKPOINT_H
#define MOE_FORMATS_CHECKPOINT_CHECKPOINT_H

#include "base/strmap.h"
#include "formats/names.h"
#include "formats/source-parts.h"

/* Flags of an entry of the index: its tensor was found in the file that the index names, or in another
 * one. */
enum { MOE_SEEN = 1, MOE_SEEN_ELSEWHERE = 2 };

struct moe_checkpoint {
    struct moe_source *src;
    struct moe_problems *p;   /* where problems are reported */
    size_t raw_cap, file_cap; /* entries for which src->raws and src->files have room */

    /* model.safetensors.index.json: entry k says that tensor names[k] lies in files[file_of[k]] */
    char *index_text, index_path[4096];
    struct moe_strmap map; /* name -> k */
    int64_t n_index;
    const char **names;
    int32_t *file_of;
    size_t names_cap, file_of_cap;
    bool has_index;
    unsigned char *seen; /* [n_index] MOE_SEEN flags */

    /* The entries of each file as a linked list, so that the tensors of a file that cannot be read are not
     * reported missing, too: first_in [n_files] is a file's first entry, next_in [n_index] the next one of
     * the same file.  NULL until such a file is met. */
    int64_t *first_in, *next_in;
    bool all_suppressed;

    bool both_reported;      /* it was reported that experts are there both fused and single */
    bool stray_looked;   /* `stray` was looked for */
    char stray[256];     /* a safetensors file that the index does not name; "": there is none */
    int32_t *parts;      /* [slot][enum moe_part] index of the raw tensor + 1; 0: none */
};

/* The message about a tensor that two files have; %s is the name of the first file. */
#define MOE_TWICE "is in '%s' already, and no model.safetensors.index.json says which of the two counts " \
                  "(remove one of the files, or add the index)"

/* Fill src->files with names and paths; no file is opened. */
enum moe_code moe_checkpoint_list(struct moe_checkpoint *k, struct moe_err *err);
/* Open the files, fill src->raws (tensor -1, skipped NULL), compare them with the index, and set
 * index->header_digest. */
enum moe_code moe_checkpoint_read_headers(struct moe_checkpoint *k, struct moe_err *err);
struct moe_st_header;
/* Append the tensors of a file's header to src->raws; a tensor of fused experts is appended as its slices. */
enum moe_code moe_checkpoint_add_raws(struct moe_checkpoint *k, int32_t file, const struct moe_st_header *h,
                                      struct moe_err *err);
/* Report what only all headers together show: layers for multi-token prediction that the config does not
 * mention, tensors that are there twice without an index, tensors that the index names and no file holds. */
enum moe_code moe_checkpoint_check_raws(struct moe_checkpoint *k, struct moe_err *err);
/* Fill src->tensors, and in src->raws which tensor and plane each became. */
enum moe_code moe_checkpoint_make_tensors(struct moe_checkpoint *k, struct moe_err *err);

/* After this the tensor of the slot is not reported missing, because it was reported already or belongs to a
 * file that could not be read. */
void moe_checkpoint_suppress_missing(struct moe_checkpoint *k, int64_t slot);
bool moe_checkpoint_missing_suppressed(const struct moe_checkpoint *k, int64_t slot);

#endif
