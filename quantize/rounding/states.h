/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/states.h - the hidden states of all calibration tokens: a [n, width] float32 matrix in
 * memory, or in a file of the scratch directory where memory does not hold it (unlinked at once: it goes when
 * the process does).  A row or a run of rows at a time. */
#ifndef MOE_QUANTIZE_ROUNDING_STATES_H
#define MOE_QUANTIZE_ROUNDING_STATES_H

#include "base/err.h"

#include <stdint.h>

struct moe_states { float *memory; int fd; int64_t n, width; char path[512]; };

/* scratch NULL: in memory.  All zeros. */
enum moe_code moe_states_open(struct moe_states *s, int64_t n, int64_t width, const char *scratch,
                              struct moe_err *err);
void moe_states_close(struct moe_states *s);
enum moe_code moe_states_zero(struct moe_states *s, struct moe_err *err);

enum moe_code moe_states_read(const struct moe_states *s, int64_t first, int64_t n, float *out,
                              struct moe_err *err);
enum moe_code moe_states_write(struct moe_states *s, int64_t first, int64_t n, const float *in,
                               struct moe_err *err);
/* Rows row[0..n) one after the other. */
enum moe_code moe_states_gather(const struct moe_states *s, const int32_t *row, int64_t n, float *out,
                                struct moe_err *err);
/* Each of these rows += factor[i] * in's row; factor NULL: 1.  tmp: one row.  Rows are distinct. */
enum moe_code moe_states_add(struct moe_states *s, const int32_t *row, int64_t n, const float *in,
                             const float *factor, float *tmp, struct moe_err *err);

#endif
