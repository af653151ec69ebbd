/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/passes/backward.h - vector-Jacobian products of the forward pass (model/forward.h): gradients with
 * respect to activations, never to weights.  The sensitivity pass (quantize/passes/fisher.h) is made of them.
 *
 * A gradient starts at the logits, goes backward through the head, and then layer by layer through the pieces
 * below, which the caller composes.  The inputs of each piece (h, x) are those of the forward pass, computed
 * again.  With d for a gradient, a layer is
 *
 *   h2 = h1 + ffn(rms(h1, post_norm)):
 *       dx  = sum over chosen experts of moe_backward_mlp (with its routing weight)
 *             + moe_backward_mlp of the shared expert (or of the dense MLP alone)
 *             + moe_backward_router of the dot products that moe_backward_mlp gives
 *       dh1 = dh2 + moe_backward_norm(h1, post_norm) of dx
 *   h1 = h + attention(rms(h, input_norm)):
 *       moe_backward_attention, with the norm and the residual connection
 *
 * All is float32; sums over a row's elements in norms, softmax and dot products are in double.  Activations
 * are taken as computed (enum moe_activations FLOAT).  The result for a row (for attention: for a sequence)
 * depends neither on the rest of its batch nor on max_tokens or the number of threads: transposed products
 * add the rows of W in ascending order, 256 at a time (gemm in kernels.def), and heads and parts of the
 * vocabulary are added in order.
 *
 * Arrays are row-major float32 and belong to the caller.  An output may be an input only where that is said.
 * There may be more rows than max_tokens; they are taken in parts.  NaN and Inf pass through; only the head
 * checks for them. */
#ifndef MOE_QUANTIZE_PASSES_BACKWARD_H
#define MOE_QUANTIZE_PASSES_BACKWARD_H

#include "base/pool.h"
#include "model/model.h"

struct moe_backward; /* a model and buffers; one call at a time */

/* How much of the memory of moe_backward_open is touched, in bytes, by calls with up to `rows` rows
 * (attention: up to attention_rows) in layers after the first one with experts. */
uint64_t moe_backward_touched_bytes(const struct moe_config *c, int64_t rows, int64_t attention_rows,
                                    int64_t sequence, int threads);
/* Buffers for max_tokens rows at once and sequences of up to `sequence` <= max_tokens tokens.  The model
 * and the pool (NULL: the calling thread alone) belong to the caller and must outlive *b.  MOE_NOMEM. */
enum moe_code moe_backward_open(struct moe_backward **b, const struct moe_model *m, int64_t max_tokens,
                                int64_t sequence, struct moe_pool *pool, struct moe_err *err);
void moe_backward_close(struct moe_backward **b); /* NULL-safe; nulls */

/* Is shown the gradients dy [n, rows of the weight], ldy floats apart, at the outputs of the projections
 * inside an MLP or attention.  With the projections' inputs (struct moe_hooks) they make a weight's own
 * gradient or Fisher information.  The roles are GATE and UP for any MLP (dy includes weight_i), Q_A and
 * Q_B or Q (before rotation), KV_A (the latent before its norm) and KV_B.  The gradients at the outputs
 * of down (weight_i dy_i) and o (dh) are the caller's own.  output() is called from the calling thread,
 * with rows in order; dy is valid for the call and must not be changed. */
struct moe_backward_observer {
    void *ctx;
    void (*output)(void *ctx, enum moe_role role, const float *dy, int64_t ldy, int64_t n);
};
void moe_backward_observe(struct moe_backward *b, const struct moe_backward_observer *o); /* NULL: none */

/* Backward through y = w * x * r, r = 1 / sqrt(mean(x^2) + eps), for n rows of dim elements; the rows of x,
 * dy and dx are ld floats apart, w is [dim]:
 *   dx_j += r w_j dy_j - x_j r^3 / dim * sum_i dy_i w_i x_i */
void moe_backward_norm(struct moe_backward *b, const float *x, const float *w, float eps, int64_t dim,
                       int64_t ld, int64_t n, const float *dy, float *dx);

/* Backward through y = down (silu(gate x) * (up x)); w: gate [inter, H], up [inter, H], down [H, inter], of
 * any stored type; inter no more than the config's largest MLP.  x, dy, dx [n, H]; weight [n], NULL: all 1;
 * dot [n], NULL: not wanted.  With g = gate x, u = up x, a = down^T dy:
 *   dot_i = a_i . (silu(g_i) * u_i) = dy_i . y_i: the gradient of the weight that multiplies y_i
 *   dx_i += weight_i (gate^T (a u silu'(g)) + up^T (a silu(g))), gate's part first, then up's */
void moe_backward_mlp(struct moe_backward *b, const struct moe_weight w[3], const float *x, int64_t n,
                      const float *dy, const float *weight, float *dx, float *dot);

/* Backward through the routing weights of `layer` as a function of the router's input x [n, H].  The choice
 * of experts [n, k] is taken as constant, so the router's bias has no part.  With R[e] the router's row of
 * expert e:
 *   forward:  s_j = sigmoid(R[e_j] . x)
 *             w_j = scale s_j / (sum s + 1e-20), or scale s_j without norm_topk_prob
 *   backward: ds_j = scale / sum s * (dw_j - sum_i dw_i s_i / sum s), or scale dw_j without norm_topk_prob
 *             dx += sum over j, ascending, of ds_j s_j (1 - s_j) R[e_j]
 * dweight [n, k] is dw, dx [n, H]. */
void moe_backward_router(struct moe_backward *b, int layer, const float *x, int64_t n, const int32_t *experts,
                         const float *dweight, float *dx);

/* The start of a backward pass.  h [n, H]: the states after the last layer.  For every row a label is
 * drawn from p = softmax(head rms(h, norm)), and dh [n, H] becomes the gradient of -log p(label) with
 * respect to h (it is set, not added to, and may not be h).  Row i of the call is row first + i of all
 * rows: its label comes from draw number first + i of struct moe_rng from `seed`, so it depends on
 * nothing else.  labels [n] receives them; NULL: not wanted.  The logits of at most 2048 ids of a row are
 * held at once.  MOE_NONFINITE, naming the tensor, when a logit is NaN or Inf; part of dh is written
 * then. */
enum moe_code moe_backward_head(struct moe_backward *b, const float *h, int64_t n, int64_t first,
                                uint64_t seed, float *dh, int32_t *labels, struct moe_err *err);

/* Backward through h2 = h + attention(rms(h, input_norm)) of `layer`, over whole causal sequences one
 * after the other, each from position 0.  lengths [n_sequences]: none is longer than b's `sequence`.  h
 * and dh are [sum of lengths, H]; dh holds the gradient of h2 and receives that of h. */
void moe_backward_attention(struct moe_backward *b, int layer, const float *h, const int64_t *lengths,
                            int64_t n_sequences, float *dh);

#endif
