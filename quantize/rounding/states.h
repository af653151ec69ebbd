/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/states.h - the hidden states of all calibration tokens: a [n, width] float32 matrix, in
 * memory or, where memory does not hold it, in a file of the scratch directory.
 *
 * The file is unlinked as soon as it is open, so that it vanishes with the process.  Reads and writes of rows
 * that differ may come from several threads. */
#ifndef MOE_QUANTIZE_ROUNDING_STATES_H
#define MOE_QUANTIZE_ROUNDING_STATES_H

#include "base/err.h"

#include <stdint.h>

struct moe_states {
    float *memory;  /* [n, width], or NULL: they are in the file */
    int fd;         /* -1: they are in memory */
    int64_t n;
    int64_t width;
    char path[512]; /* of the file, for messages */
};

/* Opens n states, all zero.  scratch: the directory for the file; NULL: memory is used.  Nothing is owned on
 * failure. */
enum moe_code moe_states_open(struct moe_states *s, int64_t n, int64_t width, const char *scratch,
                              struct moe_err *err);
void moe_states_close(struct moe_states *s); /* also of one that is not open: fd -1, else zero */
/* Makes all states zero again. */
enum moe_code moe_states_zero(struct moe_states *s, struct moe_err *err);

/* Copies rows [first, first + n) to or from an array [n, width]. */
enum moe_code moe_states_read(const struct moe_states *s, int64_t first, int64_t n, float *out,
                              struct moe_err *err);
enum moe_code moe_states_write(struct moe_states *s, int64_t first, int64_t n, const float *in,
                               struct moe_err *err);

/* Copies rows row[0], ..., row[n - 1] to out [n, width]. */
enum moe_code moe_states_gather(const struct moe_states *s, const int32_t *row, int64_t n, float *out,
                                struct moe_err *err);

/* Adds factor[i] times row i of in [n, width] to row row[i] of s; factor NULL: all 1.  row[] holds no number
 * twice.  tmp [width] is scratch. */
enum moe_code moe_states_add(struct moe_states *s, const int32_t *row, int64_t n, const float *in,
                             const float *factor, float *tmp, struct moe_err *err);

#endif
