/* SPDX-License-Identifier: Apache-2.0 */
/* Names the damaged tensor once a NaN or Inf has been computed.  This reads whole weights, so it runs only
 * before the program gives up. */
#include "kernels/kernels.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>

/* True when a value of tensor `t` is not finite; *r and *c are then its row and column.  row [cols] is a
 * buffer. */
static bool damaged(const struct moe_source *src, const struct moe_tensor *t, float *row, int64_t *r,
                    int64_t *c)
{
    struct moe_weight w = { 0 };
    moe_source_weight(src, t, &w);
    for (*r = 0; *r < w.rows; ++*r) {
        moe_kernels()->dequantize(&w, *r, 0, w.cols, row);
        if (isfinite(moe_kernels()->amax(row, w.cols))) continue;
        for (*c = 0; isfinite(row[*c]); ++*c) { }
        return true;
    }
    return false;
}

/* False for an expert that is not resident on this rank, and so not mapped (runtime/parallel/resident.h). */
static bool within_reach(const struct moe_model *m, const struct moe_tensor *t)
{
    return t->expert < 0 || m->layers[t->layer].experts[t->expert].gate.data;
}

static bool blame_layer(const struct moe_model *m, int layer, struct moe_err *err)
{
    const struct moe_source *src = m->source;

    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        int64_t r, c;
        char name[128];
        if (t->layer != layer || !within_reach(m, t)) continue;
        float *row = malloc((size_t)t->cols * sizeof *row);
        bool bad = row && damaged(src, t, row, &r, &c);
        if (bad)
            moe_fail_at(
                err, MOE_NONFINITE, src->files[t->plane[0].file].name,
                moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                "the value at row %lld, column %lld is %s (the model is damaged; fetch or convert it again)",
                (long long)r, (long long)c, isnan(row[c]) ? "NaN" : "Inf");
        free(row);
        if (bad) return true;
    }
    return false;
}

enum moe_code moe_model_check(const struct moe_model *m, int layer, const float *x, int64_t n,
                              struct moe_err *err)
{
    return isfinite(moe_kernels()->amax(x, n)) ? MOE_OK : moe_model_blame(m, layer, err);
}

enum moe_code moe_model_blame(const struct moe_model *m, int layer, struct moe_err *err)
{
    if (layer >= 0 && blame_layer(m, layer, err)) return err->code;
    if (blame_layer(m, -1, err)) return err->code;
    if (layer < 0)
        return moe_fail(err, MOE_NONFINITE,
                        "the logits hold a NaN or Inf, but no weight does (moe-inspect --verify reads all)");
    return moe_fail(err, MOE_NONFINITE,
                    "layer %d computed a NaN or Inf from finite weights (the values overflow float32)",
                    layer);
}
