/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/aside.h - quantized tensors of dense.moe, kept in files beside it until it is written:
 * a layer's are known when the layer is, dense.moe is written last.  One file a layer in the partial
 * directory, whole or not there. */
#ifndef MOE_QUANTIZE_CALIBRATE_ASIDE_H
#define MOE_QUANTIZE_CALIBRATE_ASIDE_H

#include "base/err.h"
#include "formats/dtype.h"

enum { MOE_ASIDE_MOST = 12 };       /* tensors of a layer */

struct moe_aside_tensor {
    int32_t role, reserved;
    int64_t rows, cols;
    float global, input_scale;
    double num, den;                /* sum of (w - q)^2, of w^2 */
    const uint8_t *codes, *scales;  /* [rows, cols / 2], [rows, cols / 16] */
};

struct moe_aside {
    int layer;
    int n;
    struct moe_aside_tensor t[MOE_ASIDE_MOST];
    char *data; /* layer -1: empty */
};

enum moe_code moe_aside_write(const char *dir, int layer, const struct moe_aside_tensor *t, int n,
                              struct moe_err *err);
/* *there false when the layer has none.  Releases what `a` held. */
enum moe_code moe_aside_read(const char *dir, int layer, struct moe_aside *a, bool *there,
                             struct moe_err *err);
enum moe_code moe_aside_there(const char *dir, int layer, bool *there, struct moe_err *err);
void moe_aside_release(struct moe_aside *a);
const struct moe_aside_tensor *moe_aside_find(const struct moe_aside *a, int role);
struct moe_weight moe_aside_weight(const struct moe_aside_tensor *t); /* row-major scales */

#endif
