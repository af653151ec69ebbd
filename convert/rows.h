/* SPDX-License-Identifier: Apache-2.0 */
/* convert/rows.h - reads the rows of a tensor chunk by chunk, as they are stored and as values.
 *
 * This serves the GGUF export and the comparison of models; what writes containers has its own streaming
 * (model/rewrite/emit.h).  A struct moe_rows is the buffers of one thread. */
#ifndef MOE_CONVERT_ROWS_H
#define MOE_CONVERT_ROWS_H

#include "base/hash.h"
#include "model/chunk.h"

struct moe_rows {
    const struct moe_source *src;
    const struct moe_tensor *t;  /* the present tensor */
    int64_t next;                /* how many rows of it were read */
    struct moe_weight w;         /* the present chunk: w.rows rows from row `first` on */
    int64_t first;
    float *values;               /* [w.rows][w.cols], after moe_rows_decode */
    /* the chunk's data and scales as they are stored, its scales row by row; the hashes of both planes */
    uint8_t *raw, *scale, *linear;
    struct moe_hash *hash[2];
    void *block;                 /* owned: raw, scale, linear and values point into it */
};

/* Bytes of memory that a struct moe_rows takes for this source: about 8 MiB, or more where 128 rows of a
 * tensor need more. */
uint64_t moe_rows_estimate(const struct moe_source *src);
/* After a failure there is nothing to release. */
enum moe_code moe_rows_open(struct moe_rows *r, const struct moe_source *src, struct moe_err *err);
void moe_rows_release(struct moe_rows *r); /* r may be zeroed */

/* Begins with the first row of `t`, a tensor of r->src. */
void moe_rows_begin(struct moe_rows *r, const struct moe_tensor *t);
/* Reads the next chunk, a multiple of 128 rows except for the last, into r->w.  *more is false when there is
 * none; then all bytes of the tensor have been read, and a container's are compared with its hashes
 * (MOE_VERIFY). */
enum moe_code moe_rows_next(struct moe_rows *r, bool *more, struct moe_err *err);
/* Dequantizes the chunk into r->values.  finite: MOE_NONFINITE names the first NaN or Inf. */
enum moe_code moe_rows_decode(struct moe_rows *r, bool finite, struct moe_err *err);
/* The NVFP4 block scales of the chunk row by row, [w.rows][w.cols / 16], whatever their layout in the
 * source; valid until the next chunk. */
const uint8_t *moe_rows_scales(struct moe_rows *r);

#endif
