/* SPDX-License-Identifier: Apache-2.0 */
/* model/chunk.h - the chunks of rows in which a tensor is read and written, so that memory does not depend
 * on the size of the model.  Chunks begin at a multiple of 128 rows, so that no FP8 scale block and no scale
 * tile is in two of them; they depend on the tensor's shape alone. */
#ifndef MOE_MODEL_CHUNK_H
#define MOE_MODEL_CHUNK_H

#include "formats/source.h"

enum { MOE_CHUNK_ALIGNMENT = 128, MOE_CHUNK_VALUES = 1 << 20 };

/* The number of rows in every chunk of `t` but the last: about MOE_CHUNK_VALUES values, or 128 rows where
 * these are more. */
static inline int64_t moe_chunk_rows(const struct moe_tensor *t)
{
    int64_t n = MOE_CHUNK_VALUES / t->cols / MOE_CHUNK_ALIGNMENT * MOE_CHUNK_ALIGNMENT;
    if (n < MOE_CHUNK_ALIGNMENT) n = MOE_CHUNK_ALIGNMENT;
    return n < t->rows ? n : t->rows;
}

/* A loop over `rows` rows, of which each turn takes [at, at + n): `step` of them, the last turn what is
 * left. */
#define MOE_FOR_ROWS(rows, step, at, n) \
    for (int64_t at = 0, n; at < (rows) && (n = (rows) - at < (step) ? (rows) - at : (step)); at += n)
/* The same over the chunks of tensor t. */
#define MOE_FOR_CHUNKS(t, at, n) MOE_FOR_ROWS((t)->rows, moe_chunk_rows(t), at, n)

#endif
