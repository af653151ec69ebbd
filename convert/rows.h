/* SPDX-License-Identifier: Apache-2.0 */
/* convert/rows.h - a tensor's rows, streamed: as they are stored, and as values.
 *
 * For what reads a model and writes no container.  A struct moe_rows is one thread's buffers. */
#ifndef MOE_CONVERT_ROWS_H
#define MOE_CONVERT_ROWS_H

#include "base/hash.h"
#include "formats/source.h"

struct moe_rows {
    const struct moe_source *src;
    const struct moe_tensor *t;  /* of the tensor at hand: */
    int64_t next;                /* rows read so far */
    struct moe_weight w;         /* the stripe at hand: w.rows rows from row `first` on */
    int64_t first;
    float *values;               /* [w.rows][w.cols], after moe_rows_decode */
    uint8_t *raw, *scale, *linear;
    struct moe_hash *hash[2];
    void *block;
};

/* Rows of a stripe of `t`: all but the last have so many. */
int64_t moe_rows_stripe(const struct moe_tensor *t);
/* Bytes one of these holds for this source: about 8 MiB, more where 128 rows of a
 * tensor are more than that. */
uint64_t moe_rows_estimate(const struct moe_source *src);
/* on failure nothing is owned */
enum moe_code moe_rows_open(struct moe_rows *r, const struct moe_source *src, struct moe_err *err);
void moe_rows_release(struct moe_rows *r); /* zero-initialised is fine */

/* Start on `t`, a tensor of r->src. */
void moe_rows_begin(struct moe_rows *r, const struct moe_tensor *t);
/* The next stripe into r->w: a multiple of 128 rows, except the last.  *more is false when there is none;
 * all bytes have then been read once, and in a container they are those that were hashed when it was
 * written (MOE_VERIFY otherwise). */
enum moe_code moe_rows_next(struct moe_rows *r, bool *more, struct moe_err *err);
/* Values of the stripe, as kernels decode them, into r->values; MOE_NONFINITE naming the first NaN or Inf
 * when `finite` is asked for. */
enum moe_code moe_rows_decode(struct moe_rows *r, bool finite, struct moe_err *err);
/* The stripe's NVFP4 block scales row by row, whatever their layout: [w.rows][w.cols / 16]. */
const uint8_t *moe_rows_scales(struct moe_rows *r);

#endif
