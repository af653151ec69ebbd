/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/mlp.h - one MLP (a routed expert, the shared one, a dense layer's) calibrated: ffn(x) =
 * down(silu(gate x) * (up x)).
 *
 *   gate, up   rounded together, under one global scale.  Columns: the form of their inputs x.  Rows:
 *              how an error in gate x or up x goes through the MLP to what matters of its output (F, a
 *              form over the hidden size):
 *                  G = C o [A A; A A],  A = down^T F down,  C = sum_t d_t d_t^T,  d =
 *                  [silu'(g) * u; silu(g)],
 *              each token weighed in the columns' form by how much its output moves,
 *              d^T (diagonal of [A; A]) d.
 *   down       rounded after them.  Columns: the form of its inputs yq as the rounded gate and up give them;
 *              rows: F.  First moved to where it does most of what the unrounded down did with the unrounded
 *              y: W* = W + W (Y - Yq)^T Yq (Yq^T Yq + damping)^-1; and then to where it gives what its tokens
 *              lack as far as yq foretells it: + Z^T Yq (Yq^T Yq + damping)^-1, shrunk
 *              (quantize/rounding/matrix.h).
 *
 * Tokens come in pieces, once for each set of statistics; nothing is held for each of them. */
#ifndef MOE_QUANTIZE_ROUNDING_MLP_H
#define MOE_QUANTIZE_ROUNDING_MLP_H

#include "model/forward.h"
#include "quantize/rounding/clip.h"
#include "quantize/rounding/matrix.h"
#include "quantize/rounding/states.h"

/* activations: FLOAT; NVFP4 or NVFP4_46: inputs are that when the model runs, and the forms
 * are those of such inputs. */
struct moe_mlp_method {
    struct moe_matrix_method matrix; enum moe_activations activations;
    bool corrects;                    /* down gives what tokens residual, where they say so */
};

/* The tokens that pass an MLP.  x = rms(h) * norm. */
struct moe_mlp_tokens {
    const struct moe_states *h;
    const float *norm;                /* [H] */
    float eps;
    const int32_t *row;               /* [n] rows of h */
    const float *weight;              /* [n] of the output in the layer's sum; NULL: 1 */
    const float *importance;          /* [n] factor on a row in statistics; NULL: 1 */
    /* rows as h: what the layer's output lacks (quantize/calibrate/correction.h); NULL: nothing */
    const struct moe_states *residual;
    const float *share;               /* [n] of it that this MLP is to give */
    /* [2]: moe_mlp_forward counts inputs of gate and up, and of down, here; NULL: nowhere */
    struct moe_clip *clip;
    /* those from `own` on lend statistics, where its own are few: they did not choose this MLP */
    int64_t n, own;
};

/* gate, up, down; amax: largest |value| */
struct moe_mlp_weights { struct moe_weight w[3]; bool quantize[3]; float amax[3]; };

struct moe_mlp_result {
    struct moe_rounded rounded[3];    /* in the workspace until its next use; codes NULL: not quantized */
    float global[3];
    float amax_x, amax_y;             /* of the inputs of gate and up, and of down as they will be */
    double out_num, out_den;          /* squared error and square of the output over the first 1024 tokens */
    double seconds[3];                /* statistics, factoring, rounding */
};

struct moe_mlp;
uint64_t moe_mlp_estimate(int64_t hidden, int64_t inter, const struct moe_mlp_method *how);
uint64_t moe_mlp_forward_estimate(int64_t hidden, int64_t inter);
/* A workspace for MLPs of up to these widths; forward_only: for moe_mlp_forward alone, `how` is not
 * read.  pool may be NULL. */
enum moe_code moe_mlp_open(struct moe_mlp **m, int64_t hidden, int64_t inter,
                           const struct moe_mlp_method *how, bool forward_only, struct moe_pool *pool,
                           struct moe_err *err);
void moe_mlp_close(struct moe_mlp **m);

/* Quantize w over these tokens; f: what matters of the output, NULL: everything the same.  MOE_NONFINITE when
 * an activation is NaN or Inf. */
enum moe_code moe_mlp_quantize(struct moe_mlp *m, const struct moe_mlp_weights *w,
                               const struct moe_mlp_tokens *t, const struct moe_output_hessian *f,
                               struct moe_mlp_result *r, struct moe_err *err);

/* Add weight * ffn(x) of these tokens to `out`, through w as it is. */
enum moe_code moe_mlp_forward(struct moe_mlp *m, const struct moe_weight w[3], const struct moe_mlp_tokens *t,
                              struct moe_states *out, struct moe_err *err);

#endif
