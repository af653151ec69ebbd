/* SPDX-License-Identifier: Apache-2.0 */
/* model/forward.h - the forward pass of the K2 family, over a batch of tokens on a device.
 *
 * Calibration and serving use the same code.  All intermediate values are float32: none is rounded to BF16.
 *
 *   h += attention(rms(h, input_norm));  h += ffn(rms(h, post_norm));  logits = head . rms(h, norm)
 *
 * A token's result depends neither on the batch it is computed in, nor on how a prompt is cut into batches,
 * nor on the number of threads.  This holds because an element of a product depends on nothing but its row of
 * the weight and its row of the input, and because the experts' outputs are added in top-k order: the sum
 * begins with 0, each output is multiplied by its weight, rounded, added and rounded, and the shared expert's
 * output comes last.
 *
 * The states h [T, H] of the batch lie on the device.  Calls only hand work to it, except for those that say
 * that they wait: what goes wrong before, a NaN or Inf too, is returned by the next of these.
 *
 * Letters in shapes: T tokens of the batch, H hidden size, V vocabulary, k experts per token. */
#ifndef MOE_MODEL_FORWARD_H
#define MOE_MODEL_FORWARD_H

#include "model/ops/ops.h"

/* A dispatcher computes the routed experts of the MoE layers in place of the device itself (expert
 * parallelism, runtime/parallel/ep.h).  The pass calls it from its own thread, once for each MoE layer,
 * between `route` and `combine` of the device's operations.
 *
 * dispatch: sends the rows x [T, H] to the experts c->experts that the router chose.  The device changes x
 *   after what dispatch has asked of it, and then computes the shared expert.
 * combine: waits for the outputs and writes them to c->rows, and to c->slot where each of them is.
 *
 * The device weights and adds the outputs in top-k order as it does with its own, so the result does not
 * depend on where they were computed.  After one of the two has failed, the pass calls neither again, and the
 * next call that waits returns the failure. */
struct moe_dispatcher {
    void *ctx;
    enum moe_code (*dispatch)(void *ctx, struct moe_device *d, int layer, int64_t tokens, struct moe_addr x,
                              const struct moe_choices *c, struct moe_err *err);
    enum moe_code (*combine)(void *ctx, struct moe_device *d, const struct moe_choices *c,
                             struct moe_err *err);
};

/* A forward pass: buffers on a device for batches of up to its max_tokens.  It computes one batch at a time,
 * so one thread at a time may call it. */
struct moe_forward;

/* Bytes of the device's memory that moe_forward_open asks for.  Where the device is the processor, pages are
 * touched only as far as batches reach. */
uint64_t moe_forward_estimate(const struct moe_config *c, int64_t max_tokens);
/* d must stay open until close.  MOE_NOMEM or MOE_DEVICE, as the device says; *f is then NULL. */
enum moe_code moe_forward_open(struct moe_forward **f, struct moe_device *d, struct moe_err *err);
void moe_forward_close(struct moe_forward **f); /* NULL-safe; nulls */
struct moe_device *moe_forward_device(const struct moe_forward *f);
/* Sets the observers, which are copied; NULL: none. */
void moe_forward_hooks(struct moe_forward *f, const struct moe_hooks *hooks);
bool moe_forward_has_hooks(const struct moe_forward *f); /* whether any observer is set */
/* From now on a copy of *e has the routed experts computed; NULL: the device computes them itself. */
void moe_forward_dispatcher(struct moe_forward *f, const struct moe_dispatcher *e);

/* ---- a step ---- */

/* Computes all layers for a batch, whose cache rows it writes: h is then what the last layer left.  The batch
 * stays as it is until the next wait.  MOE_MISMATCH for an id outside the vocabulary; nothing is computed
 * then. */
enum moe_code moe_forward_run(struct moe_forward *f, const struct moe_batch *b, struct moe_err *err);
/* Then, for n rows of h, row [n] (NULL: rows 0 to n - 1): their logits [n, V], to host memory which is
 * defined after the next wait; or the tokens drawn from them, ids [n].  n is at most
 * moe_forward_logit_rows.  row and w stay as they are until that wait. */
void moe_forward_logits(struct moe_forward *f, const int32_t *row, int64_t n, float *logits);
void moe_forward_sample(struct moe_forward *f, const int32_t *row, int64_t n, const struct moe_drawing *w,
                        int64_t vocab, int32_t *ids);
/* How many rows of logits are computed at once, so that the weights of the head are read once for all of
 * them: as many as take about 32 MiB, but at least 8 (and no more than max_tokens). */
int64_t moe_forward_logit_rows(const struct moe_config *c, int64_t max_tokens);
/* Waits until all is done.  MOE_NONFINITE where a state or a logit is NaN or Inf: the message names the
 * damaged tensor where one is found (the step is computed again for that).  MOE_DEVICE; or a failure of the
 * dispatcher.  err may not be NULL. */
enum moe_code moe_forward_wait(struct moe_forward *f, struct moe_err *err);
/* After such a MOE_NONFINITE: whether rows [row, row + n) of h are finite.  It waits; MOE_DEVICE. */
enum moe_code moe_forward_finite(struct moe_forward *f, int64_t row, int64_t n, bool *finite,
                                 struct moe_err *err);

/* ---- a layer at a time ---- */

/* h = host memory h [n, H]. */
void moe_forward_put(struct moe_forward *f, const float *h, int64_t n);
/* h = the embeddings of the batch's tokens; as moe_forward_run it may fail. */
enum moe_code moe_forward_embed(struct moe_forward *f, const struct moe_batch *b, struct moe_err *err);
/* Computes one layer for the batch; or its attention alone, with norm and residual sum. */
void moe_forward_layer(struct moe_forward *f, int layer, const struct moe_batch *b);
void moe_forward_attention(struct moe_forward *f, int layer, const struct moe_batch *b);
/* Waits for h [n, H], and copies it to host memory; fails as moe_forward_wait does. */
enum moe_code moe_forward_get(struct moe_forward *f, float *h, int64_t n, struct moe_err *err);
/* Waits for the router's choices for host memory h [n, H], as it is before the layer's MLPs: experts [n, k]
 * and weights [n, k].  h on the device is lost. */
enum moe_code moe_forward_route(struct moe_forward *f, int layer, const float *h, int64_t n, int32_t *experts,
                                float *weights, struct moe_err *err);

#endif
