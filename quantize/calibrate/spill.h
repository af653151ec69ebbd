/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/spill.h - spills the quantized tensors of a layer that belong into dense.moe to a
 * file.  They are known when the layer is calibrated, but dense.moe is written last.
 *
 * There is one file a layer, in the partial directory, written atomically and with a checksum. */
#ifndef MOE_QUANTIZE_CALIBRATE_SPILL_H
#define MOE_QUANTIZE_CALIBRATE_SPILL_H

#include "base/err.h"
#include "formats/dtype.h"

enum { MOE_SPILL_MAX_TENSORS = 12 };       /* tensors of a layer */

struct moe_spill_tensor {
    int32_t role, reserved;
    int64_t rows, cols;
    float global, input_scale;
    double num;            /* sum of (w - q)^2 */
    double den;            /* sum of w^2 */
    const uint8_t *codes;  /* [rows, cols / 2] */
    const uint8_t *scales; /* [rows, cols / 16] */
};

/* The tensors of one layer.  Zeros with layer -1: none. */
struct moe_spill {
    int layer;
    int n;
    struct moe_spill_tensor t[MOE_SPILL_MAX_TENSORS];
    char *data; /* the file's content, into which t points; NULL: t owns its codes and scales */
};

enum moe_code moe_spill_write(const char *dir, int layer, const struct moe_spill_tensor *t, int n,
                              struct moe_err *err);

/* Releases what `a` holds and reads the layer's file into it.  *there is false, and `a` empty, when the
 * layer has none.  MOE_CORRUPT: it is damaged. */
enum moe_code moe_spill_read(const char *dir, int layer, struct moe_spill *a, bool *there,
                             struct moe_err *err);
enum moe_code moe_spill_there(const char *dir, int layer, bool *there, struct moe_err *err);
void moe_spill_release(struct moe_spill *a); /* frees data */

/* The tensor of a role (enum moe_role), or NULL; a tensor as a weight, with row-major scales. */
const struct moe_spill_tensor *moe_spill_find(const struct moe_spill *a, int role);
struct moe_weight moe_spill_weight(const struct moe_spill_tensor *t);

#endif
