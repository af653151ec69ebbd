/* SPDX-License-Identifier: Apache-2.0 */
/* convert/provenance.h - a container's source.jsonl: what the tensors were called,
 * and how they lay, before. */
#ifndef MOE_CONVERT_PROVENANCE_H
#define MOE_CONVERT_PROVENANCE_H

#include "base/arena.h"
#include "formats/source.h"

struct moe_origin {
    const char *name, *file, *skipped;  /* file: one pointer for all entries of the same file */
    char dtype[8];
    int32_t ndim;
    int64_t shape[8];
    uint64_t bytes, hash;
    const unsigned char *literal;       /* bytes kept in source.jsonl itself (INT4 weight_shape) */
    size_t literal_bytes;               /* 0: none */
    const struct moe_tensor *tensor;    /* for the exporter to fill */
    int plane;
    bool kept;                          /* it goes out: a weight, a literal, or */
    uint64_t aside;              /* where its bytes are in its kind's file (enum moe_aside); 0: nowhere */
};

/* in the order of the source's files */
struct moe_provenance { struct moe_arena arena; struct moe_origin *entries; int64_t n; bool no_memory; };

/* Read `src`'s source.jsonl; MOE_CORRUPT with the line number for anything that does not fit
 * docs/reference/format.md. */
enum moe_code moe_provenance_open(struct moe_provenance **p, const struct moe_source *src,
                                  struct moe_err *err);
void moe_provenance_close(struct moe_provenance **p); /* NULL-safe; nulls */

#endif
