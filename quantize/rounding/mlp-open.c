/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a workspace of mlp.h: how much it takes, opening and closing it. */
#include "quantize/rounding/mlp-internal.h"

#include "base/minmax.h"

#include <stdlib.h>

static void take_all(struct moe_mlp *m)
{
    struct moe_aligned *o = &m->owned;
    int64_t h = m->hidden, n = m->inter;
    bool two_sided = moe_mlp_is_two_sided(&m->how, n);

    m->h = moe_aligned_take(o, MOE_MLP_PIECE * h, sizeof(float));
    m->out = moe_aligned_take(o, MOE_MLP_PIECE * h, sizeof(float));
    m->gate = moe_aligned_take(o, MOE_MLP_PIECE * n, sizeof(float));
    m->up = moe_aligned_take(o, MOE_MLP_PIECE * n, sizeof(float));
    if (m->forward_only) return;
    m->hq = moe_aligned_take(o, m->how.activations ? MOE_MLP_PIECE * h : 0, sizeof(float));
    m->gq = moe_aligned_take(o, MOE_MLP_PIECE * n, sizeof(float));
    m->uq = moe_aligned_take(o, MOE_MLP_PIECE * n, sizeof(float));
    m->a = moe_aligned_take(o, two_sided ? n * n : 0, sizeof(float));
    m->d = moe_aligned_take(o, two_sided ? MOE_MLP_PIECE * 2 * n : 0, sizeof(float));
    for (int i = 0; i < 3; i++) {
        m->codes[i] = moe_aligned_take(o, h * n / 2, 1);
        m->scales[i] = moe_aligned_take(o, h * n / 16, 1);
    }
}

/* The width of the first slice of k columns. */
static int64_t slice_columns(int64_t k) { return moe_min_i64(k, MOE_SLICE_COLUMNS); }

/* Whether down is fitted to the inputs that the rounded gate and up give it. */
static bool crosses(const struct moe_mlp_method *how) { return how->matrix.fit && !how->matrix.diagonal; }

/* The number of outputs of down that get a correction; 0: none do.  Only a down of one slice of columns gets
 * one, since each of several slices would give the whole correction. */
static int64_t corrected_outputs(const struct moe_mlp_method *how, int64_t hidden, int64_t inter)
{
    return how->corrects && !how->matrix.diagonal && inter <= MOE_SLICE_COLUMNS ? hidden : 0;
}

/* The rows, and in *k the columns, with which moe_matrix_open allocates enough for one slice of columns of
 * gate and up together, [2 inter, hidden], or of down, [hidden, inter]. */
static int64_t matrix_rows(int64_t hidden, int64_t inter, int64_t *k)
{
    int64_t x = slice_columns(hidden);
    int64_t y = slice_columns(inter);
    int64_t values = moe_max_i64(2 * inter * x, hidden * y);
    *k = moe_min_i64(x, y);
    return (values + *k - 1) / *k;
}

uint64_t moe_mlp_estimate(int64_t hidden, int64_t inter, const struct moe_mlp_method *how)
{
    struct moe_mlp m = { .hidden = hidden, .inter = inter, .owned = { .counting = true }, .how = *how };
    int64_t k, rows = matrix_rows(hidden, inter, &k);
    take_all(&m);
    return m.owned.bytes + moe_inputs_estimate(slice_columns(hidden), false, 0) +
           moe_inputs_estimate(slice_columns(inter), crosses(how), corrected_outputs(how, hidden, inter)) +
           moe_matrix_estimate(rows, k) +
           (moe_mlp_is_two_sided(how, inter) ? moe_output_hessian_estimate(2 * inter) : 0);
}

uint64_t moe_mlp_forward_estimate(int64_t hidden, int64_t inter)
{
    struct moe_mlp m = {
        .hidden = hidden, .inter = inter, .owned = { .counting = true }, .forward_only = true
    };
    take_all(&m);
    return m.owned.bytes;
}

enum moe_code moe_mlp_open(struct moe_mlp **out, int64_t hidden, int64_t inter,
                           const struct moe_mlp_method *how, bool forward_only, struct moe_pool *pool,
                           struct moe_err *err)
{
    struct moe_mlp *m = calloc(1, sizeof *m);
    int64_t k, rows = matrix_rows(hidden, inter, &k);

    *out = NULL;
    if (!m) return moe_fail(err, MOE_NOMEM, "no memory for calibration");
    *m = (struct moe_mlp){ .hidden = hidden,
                           .inter = inter,
                           .how = *how,
                           .forward_only = forward_only,
                           .pool = pool,
                           .k = moe_kernels() };
    take_all(m);
    enum moe_code code = MOE_OK;
    if (m->owned.failed)
        code = moe_fail(err, MOE_NOMEM, "no memory to calibrate MLPs of %lld x %lld", (long long)hidden,
                        (long long)inter);
    if (code == MOE_OK && forward_only) {
        *out = m;
        return MOE_OK;
    }
    if (code == MOE_OK) code = moe_matrix_open(&m->matrix, rows, k, &how->matrix, pool, err);
    if (code == MOE_OK) code = moe_inputs_open(&m->x, slice_columns(hidden), false, 0, err);
    if (code == MOE_OK)
        code = moe_inputs_open(&m->y, slice_columns(inter), crosses(how),
                               corrected_outputs(how, hidden, inter), err);
    if (code == MOE_OK && moe_mlp_is_two_sided(how, inter))
        code = moe_output_hessian_open(&m->gate_up_hessian, 2 * inter, err);
    if (code != MOE_OK) moe_mlp_close(&m);
    *out = m;
    return code;
}

void moe_mlp_close(struct moe_mlp **m)
{
    if (!*m) return;
    moe_matrix_release(&(*m)->matrix);
    moe_inputs_release(&(*m)->x);
    moe_inputs_release(&(*m)->y);
    moe_output_hessian_release(&(*m)->gate_up_hessian);
    moe_aligned_release(&(*m)->owned);
    free(*m);
    *m = NULL;
}
