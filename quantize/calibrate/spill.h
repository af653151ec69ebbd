/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/spill.h - quantized tensors of dense.moe, kept in files beside it until it is written:
 * a layer's are known when the layer is, dense.moe is written last.  One file a layer in the partial
 * directory, whole or not there. */
#ifndef MOE_QUANTIZE_CALIBRATE_SPILL_H
#define MOE_QUANTIZE_CALIBRATE_SPILL_H

#include "base/err.h"
#include "formats/dtype.h"

enum { MOE_SPILL_MAX_TENSORS = 12 };       /* tensors of a layer */

struct moe_spill_tensor {
    int32_t role, reserved;
    int64_t rows, cols;
    float global, input_scale;
    double num, den;                /* sum of (w - q)^2, of w^2 */
    const uint8_t *codes, *scales;  /* [rows, cols / 2], [rows, cols / 16] */
};

struct moe_spill {
    int layer;
    int n;
    struct moe_spill_tensor t[MOE_SPILL_MAX_TENSORS];
    char *data; /* layer -1: empty */
};

enum moe_code moe_spill_write(const char *dir, int layer, const struct moe_spill_tensor *t, int n,
                              struct moe_err *err);
/* *there false when the layer has none.  Releases what `a` held. */
enum moe_code moe_spill_read(const char *dir, int layer, struct moe_spill *a, bool *there,
                             struct moe_err *err);
enum moe_code moe_spill_there(const char *dir, int layer, bool *there, struct moe_err *err);
void moe_spill_release(struct moe_spill *a);
const struct moe_spill_tensor *moe_spill_find(const struct moe_spill *a, int role);
struct moe_weight moe_spill_weight(const struct moe_spill_tensor *t); /* row-major scales */

#endif
