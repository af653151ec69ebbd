/* SPDX-License-Identifier: Apache-2.0 */
/* convert/provenance.h - a container's source.jsonl: the names, types, shapes and files of the tensors in the
 * checkpoint that the container was made from. */
#ifndef MOE_CONVERT_PROVENANCE_H
#define MOE_CONVERT_PROVENANCE_H

#include "base/arena.h"
#include "formats/source.h"

/* A tensor of that checkpoint. */
struct moe_origin {
    const char *name, *file, *skipped;  /* file: one pointer for all entries of the same file */
    char dtype[8];
    int32_t ndim;
    int64_t shape[8];
    uint64_t bytes, hash;
    const unsigned char *literal;       /* bytes that source.jsonl itself holds (INT4 weight_shape) */
    size_t literal_bytes;               /* 0: none */
    /* The exporter sets what follows: the plane of the container that holds it; */
    const struct moe_tensor *tensor;
    int plane;
    bool kept;                          /* whether it is written; */
    uint64_t extra_at;           /* its offset in its extra file (enum moe_extra_kind); 0: in none */
};

/* The entries are in the order of the checkpoint's files. */
struct moe_provenance { struct moe_arena arena; struct moe_origin *entries; int64_t n; bool no_memory; };

/* Reads src's source.jsonl; MOE_CORRUPT, with the line number, for a line that is not as
 * docs/reference/format.md says.  After a failure *p is NULL. */
enum moe_code moe_provenance_open(struct moe_provenance **p, const struct moe_source *src,
                                  struct moe_err *err);
void moe_provenance_close(struct moe_provenance **p); /* NULL-safe; nulls */

#endif
