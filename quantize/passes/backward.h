/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/passes/backward.h - vector-Jacobian products of the forward pass (model/forward.h): gradients
 * with respect to activations, never weights.
 *
 * For the Fisher information of a calibration: a gradient at the logits goes back through the head, then
 * layer by layer through what the caller composes of these pieces, the input of each piece (h, x) computed
 * again by the forward pass.  With d for a gradient:
 *
 *   h2 = h1 + ffn(rms(h1, post_norm)):  dx = sum over chosen experts of moe_backward_mlp(weight) +
 *   shared (or the dense MLP's)
 *                                       + moe_backward_router of the dots;  dh1 = dh2 +
 *                                       moe_backward_norm(h1, post_norm) of dx
 *   h1 = h + attention(rms(h, input_norm)):  moe_backward_attention, norm and residual included
 *
 * Float32, with sums over a row's elements in norms, softmax and dots in double.  Activations are taken as
 * computed (enum moe_activations FLOAT).  A row's result (a sequence's, for attention) depends neither on the
 * batch it is in, nor on max_tokens, nor on
 * threads: transposed products add the rows of W in ascending order, 256 at a time (gemm in kernels.def),
 * heads and pieces of the vocabulary in order.
 *
 * Arrays are row-major, float32 and of the caller.  Outputs alias no input but where said.  Any number of
 * rows: more than max_tokens are taken in parts.  NaN and Inf pass through; only the head looks for them. */
#ifndef MOE_QUANTIZE_PASSES_BACKWARD_H
#define MOE_QUANTIZE_PASSES_BACKWARD_H

#include "base/pool.h"
#include "model/model.h"

struct moe_backward; /* buffers; one call at a time */

/* Bytes, of those that moe_backward_open takes, that calls with up to `rows` rows, and through attention with
 * up to attention_rows, touch behind the first layer with experts. */
uint64_t moe_backward_touches(const struct moe_config *c, int64_t rows, int64_t attention_rows,
                              int64_t sequence, int threads);
/* For max_tokens rows at once, sequences of up to `sequence` <= max_tokens tokens.  The model and the pool
 * (NULL: the caller alone) stay the caller's and must outlive it.  MOE_NOMEM. */
enum moe_code moe_backward_open(struct moe_backward **b, const struct moe_model *m, int64_t max_tokens,
                                int64_t sequence, struct moe_pool *pool, struct moe_err *err);
void moe_backward_close(struct moe_backward **b); /* NULL-safe; nulls */

/* Shows the gradients dy [n, rows of the weight] (ldy apart) at the outputs of the projections inside an MLP
 * or attention: with their inputs (struct moe_hooks) all that a weight's own gradient or Fisher information
 * is made of.  GATE and UP of whichever MLP it is, with weight_i in; Q_A and Q_B or Q, KV_A, KV_B: of q
 * before rotation, of kv_a's latent before its norm.  Those of down (weight_i dy_i) and o (dh) the caller
 * has.  From the calling thread, rows in order; dy is not to be changed, and lasts for the call. */
struct moe_backward_observer {
    void *ctx;
    void (*output)(void *ctx, enum moe_role role, const float *dy, int64_t ldy, int64_t n);
};
void moe_backward_observe(struct moe_backward *b, const struct moe_backward_observer *o); /* NULL: none */

/* y = w * x * r, r = 1 / sqrt(mean(x^2) + eps), for n rows of dim elements; x, dy and
 * dx are rows of ld floats:
 *   dx_j += r w_j dy_j - x_j r^3 / dim * sum_i dy_i w_i x_i.  w [dim] float32, as struct moe_layer has it. */
void moe_backward_norm(struct moe_backward *b, const float *x, const float *w, float eps, int64_t dim,
                       int64_t ld, int64_t n, const float *dy, float *dx);

/* y = down (silu(gate x) * (up x)); w: gate [inter, H], up [inter, H], down [H, inter], of any stored type;
 * inter no more than the config's largest MLP.  x, dy, dx [n, H]; weight [n], NULL: all 1; dot [n], NULL: not
 * wanted.  With g = gate x, u = up x, a = down^T dy:
 *   dot_i = a_i . (silu(g_i) * u_i) = dy_i . y_i: the gradient of the weight that multiplies y_i
 *   dx_i += weight_i (gate^T (a u silu'(g)) + up^T (a silu(g)))  gate's part first, then up's */
void moe_backward_mlp(struct moe_backward *b, const struct moe_weight w[3], const float *x, int64_t n,
                      const float *dy, const float *weight, float *dx, float *dot);

/* The routing weights of `layer` as a function of the router's input x [n, H], the choice experts [n, k]
 * being constant (the bias thus has no
 * part): s_j = sigmoid(R[e_j] . x), w_j = scale s_j / (sum s + 1e-20), or scale s_j without norm_topk_prob.
 *   dweight [n, k], dx [n, H]: ds_j = scale / sum (dw_j - sum_i dw_i s_i / sum);  dx += sum over j ascending
 *   of ds_j s_j (1 - s_j) R[e_j] */
void moe_backward_router(struct moe_backward *b, int layer, const float *x, int64_t n, const int32_t *experts,
                         const float *dweight, float *dx);

/* Where a backward pass starts.  h [n, H]: the states after the last layer.  For every row a label is drawn
 * from p = softmax(head rms(h, norm)); dh [n, H] = the gradient of -log p(label) with respect to h (not
 * added; may not be h).  Row i of the call is row first + i of all: its draw is number first + i of struct
 * moe_rng's from `seed`, so that labels depend on nothing else.  labels [n], NULL: not wanted.  No more than
 * 2048 ids' logits of a row are held at once.  MOE_NONFINITE, naming the tensor, when a logit is NaN or Inf;
 * dh is then in part written. */
enum moe_code moe_backward_head(struct moe_backward *b, const float *h, int64_t n, int64_t first,
                                uint64_t seed, float *dh, int32_t *labels, struct moe_err *err);

/* h2 = h + attention(rms(h, input_norm)) of `layer`, over whole causal sequences one after another, each from
 * position 0: lengths [n_sequences], none longer than b's `sequence`; h, dh [sum of lengths, H].  dh: in d
 * h2, out d h (residual, norm and all). */
void moe_backward_attention(struct moe_backward *b, int layer, const float *h, const int64_t *lengths,
                            int64_t n_sequences, float *dh);

#endif
