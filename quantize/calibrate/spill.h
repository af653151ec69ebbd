/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/spill.h - keeps those quantized tensors of a layer that belong into dense.moe in a file.
 * They are known when the layer is calibrated, but dense.moe is written last.
 *
 * There is one file for each layer, in the partial directory.  It is written atomically and has a
 * checksum. */
#ifndef MOE_QUANTIZE_CALIBRATE_SPILL_H
#define MOE_QUANTIZE_CALIBRATE_SPILL_H

#include "base/err.h"
#include "formats/dtype.h"

enum { MOE_SPILL_MAX_TENSORS = 12 };       /* tensors of a layer */

struct moe_spill_tensor {
    int32_t role, reserved;    /* enum moe_role */
    int64_t rows, cols;
    float global, input_scale;
    double num;            /* sum of (w - q)^2, w as stored in the source and q quantized */
    double den;            /* sum of w^2 */
    const uint8_t *codes;  /* [rows, cols / 2] */
    const uint8_t *scales; /* [rows, cols / 16] */
};

/* The tensors of one layer.  One without tensors has layer -1 and zeros else. */
struct moe_spill {
    int layer;
    int n;
    struct moe_spill_tensor t[MOE_SPILL_MAX_TENSORS];
    char *data; /* the file's content, into which t points; NULL: they are the caller's */
};

/* Writes the layer's file. */
enum moe_code moe_spill_write(const char *dir, int layer, const struct moe_spill_tensor *t, int n,
                              struct moe_err *err);

/* Releases what `a` holds and reads the layer's file into it.  If the layer has none, *there is false and `a`
 * is empty.  MOE_CORRUPT: the file is damaged. */
enum moe_code moe_spill_read(const char *dir, int layer, struct moe_spill *a, bool *there,
                             struct moe_err *err);
enum moe_code moe_spill_exists(const char *dir, int layer, bool *there, struct moe_err *err);
void moe_spill_release(struct moe_spill *a); /* frees data and empties `a` */

/* The tensor of a role, or NULL. */
const struct moe_spill_tensor *moe_spill_find(const struct moe_spill *a, int role);
/* The tensor as a weight, with row-major scales; it points to the codes and scales of t. */
struct moe_weight moe_spill_weight(const struct moe_spill_tensor *t);

#endif
