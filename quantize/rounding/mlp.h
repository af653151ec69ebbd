/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/mlp.h - quantizes one MLP (a routed expert, a shared one or a dense layer's) over the
 * tokens that pass it: ffn(x) = down (silu(gate x) * (up x)).
 *
 *   gate, up   are rounded together, under one global scale.  Columns: the Hessian of their inputs x.  Rows:
 *              how an error in gate x or up x goes through the MLP to its output.  With F the Hessian of the
 *              MLP's output (the layer's Fisher matrix), g = gate x, u = up x and o the elementwise product:
 *                  G = C o [A A; A A],   A = down^T F down,   C = sum_t d_t d_t^T,
 *                  d = [silu'(g) u; silu(g)], the derivative of silu(g) u by g and by u.
 *              In the columns' Hessian each token weighs by how much an error moves its output,
 *              d^T diag([A A; A A]) d.
 *   down       is rounded after them.  Columns: the Hessian of its inputs yq as the rounded gate and up give
 *              them.  Rows: F.  Before that, down as stored, W, is changed.  Y holds for each token the input
 *              of down in the unquantized MLP as a row, Yq its yq.  With moe_matrix_method.fit, W is replaced
 *              by the W* whose outputs on Yq are nearest to those of W on Y (damped least squares):
 *                  W* = W + W (Y - Yq)^T Yq (Yq^T Yq + damping)^-1.
 *              Where the tokens have targets Z, the ridge regression of Z on Yq is added,
 *                  W* + Z^T Yq (Yq^T Yq + damping)^-1,
 *              but shrunk (quantize/rounding/matrix.h, moe_inputs_end).
 *
 * The tokens are read in pieces, once for each set of statistics; memory does not grow with their
 * number.  One thread calls; the pool's threads share its work. */
#ifndef MOE_QUANTIZE_ROUNDING_MLP_H
#define MOE_QUANTIZE_ROUNDING_MLP_H

#include "model/activations.h"
#include "model/model.h"
#include "quantize/rounding/clip.h"
#include "quantize/rounding/matrix.h"
#include "quantize/rounding/states.h"

struct moe_mlp_method {
    struct moe_matrix_method matrix;

    /* What the model will multiply when it runs: FLOAT, the activations as computed; any other, the quantized
     * ones, and then the Hessians are of those. */
    enum moe_activations activations;

    bool corrects; /* down is corrected for the tokens' residual, where they have one */
};

/* The tokens that pass an MLP.  Its input is x = rms(h) * norm. */
struct moe_mlp_tokens {
    const struct moe_states *h; /* the hidden states of all tokens */
    const float *norm;          /* [H] */
    float eps;
    const int32_t *row;         /* [n] rows of h */
    const float *weight;        /* [n] of the MLP's output in the layer's sum (routing); NULL: 1 */
    const float *importance;    /* [n] factor on the token's row in statistics; NULL: 1 */

    /* By how much the layer's output should change (quantize/calibrate/correction.h), with the rows of h;
     * NULL: there are no targets.  The target of token i is share[i] times its residual. */
    const struct moe_states *residual;
    const float *share; /* [n] */

    /* [2] moe_mlp_forward counts the inputs of gate and up in [0], of down in [1]; NULL: nowhere. */
    struct moe_clip *clip;

    int64_t n;
    /* The first `own` tokens chose this MLP.  Those from `own` to n are borrowed where it has few: only the
     * statistics of inputs use them. */
    int64_t own;
};

/* gate, up and down as stored. */
struct moe_mlp_weights {
    struct moe_weight w[3];
    bool quantize[3];
    float amax[3]; /* the largest magnitude in each */
};

struct moe_mlp_result {
    struct moe_rounded rounded[3]; /* in the workspace until its next use; codes NULL: not quantized */
    float global[3];               /* global scales */
    float amax_x;                  /* the largest magnitude among the own tokens' inputs of gate and up */
    float amax_y;                  /* ... and among those of the quantized model's down */
    double out_num;                /* squared error of the MLP's output over the first 1024 own tokens */
    double out_den;                /* square of that output */
    double seconds[3];             /* statistics, factoring, rounding */
};

/* A workspace, for one MLP at a time. */
struct moe_mlp;

/* Bytes of a workspace for MLPs of up to these widths; the second, of one for moe_mlp_forward alone. */
uint64_t moe_mlp_estimate(int64_t hidden, int64_t inter, const struct moe_mlp_method *how);
uint64_t moe_mlp_forward_estimate(int64_t hidden, int64_t inter);

/* forward_only: only moe_mlp_forward may be called, and what `how` holds has no effect.  pool: NULL for the
 * calling thread alone.  *m is NULL on failure. */
enum moe_code moe_mlp_open(struct moe_mlp **m, int64_t hidden, int64_t inter,
                           const struct moe_mlp_method *how, bool forward_only, struct moe_pool *pool,
                           struct moe_err *err);
void moe_mlp_close(struct moe_mlp **m);

/* Quantizes w over these tokens.  f: F, factored (moe_output_hessian_finish); NULL: the identity.
 * MOE_NONFINITE: an activation is NaN or Inf. */
enum moe_code moe_mlp_quantize(struct moe_mlp *m, const struct moe_mlp_weights *w,
                               const struct moe_mlp_tokens *t, const struct moe_output_hessian *f,
                               struct moe_mlp_result *r, struct moe_err *err);

/* Adds weight * ffn(x) of the own tokens to their rows of `out`, through w as it is. */
enum moe_code moe_mlp_forward(struct moe_mlp *m, const struct moe_weight w[3], const struct moe_mlp_tokens *t,
                              struct moe_states *out, struct moe_err *err);

#endif
