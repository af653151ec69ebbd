/* SPDX-License-Identifier: Apache-2.0 */
/* model/forward.h - the forward pass of the K2 family, a layer at a time over a batch of tokens.
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
 * Letters in shapes: T tokens of the batch, H hidden size, V vocabulary, E routed experts, k experts per
 * token. */
#ifndef MOE_MODEL_FORWARD_H
#define MOE_MODEL_FORWARD_H

#include "base/pool.h"
#include "model/latent.h"
#include "model/model.h"

/* Part of a batch: `n` consecutive tokens of one sequence, the first at position `first`.  Position p is row
 * p % MOE_PAGE of page page[p / MOE_PAGE] of the cache, which holds the rows of all positions before `first`;
 * the pass writes those of the n tokens. */
struct moe_segment { const struct moe_latent *cache; const int32_t *page; int64_t first, n; };

enum moe_mla { MOE_MLA_ABSORBED, MOE_MLA_EXPANDED }; /* the formulas are in attention.c */

/* The form in which activations enter a product with a weight.
 * FLOAT: as they were computed.
 * NVFP4: as a GPU's tensor cores would see them (kernels.def, nvfp4_activations).  The input of every product
 *   whose weight is stored as NVFP4 is quantized under that weight's input scale, with dynamic block scales;
 *   all other inputs are as under FLOAT.  gate and up share their input, so both use the larger of their two
 *   input scales, as engines do, which fuse the two weights.  Engines also use the largest input scale of a
 *   layer's experts for all of them; here each expert uses its own, and calibration makes them the same.
 *   The input of kv_b is the latents: the cache then holds them quantized, so that absorbed attention
 *   computes what expanded attention does.
 * NVFP4_46: as NVFP4, with the better of two dynamic scales a block (kernels.def, nvfp4_activations_46).
 * NVFP4_SEARCH: as NVFP4, with the best of six dynamic scales a block (nvfp4_activations_search).
 * NVFP4_ALL: as NVFP4, for every weight with an input scale (moe_weight.input_scale above 0), whatever its
 *   type; for experiments.
 * INT16: products with NVFP4 weights round activations to fixed-point numbers of 16 bits in blocks of 16
 *   (kernels.def, matmul_int16) instead of 24 bits, which is faster for several tokens. */
enum moe_activations {
    MOE_ACTIVATIONS_FLOAT,
    MOE_ACTIVATIONS_NVFP4,
    MOE_ACTIVATIONS_NVFP4_46,
    MOE_ACTIVATIONS_NVFP4_SEARCH,
    MOE_ACTIVATIONS_NVFP4_ALL,
    MOE_ACTIVATIONS_INT16,
    MOE_ACTIVATIONS_COUNT
};
/* The value that a word of a command line means (float, nvfp4, nvfp4-four-over-six, nvfp4-search, nvfp4-all,
 * int16); -1 for another word. */
int moe_activations_find(const char *word);
const char *moe_activations_name(enum moe_activations a);
/* The kernel of k that quantizes activations in the form `a`, one of the NVFP4 forms. */
struct moe_kernels;
void (*moe_activations_kernel(const struct moe_kernels *k, enum moe_activations a))(const float *x, int64_t n,
                                                                                    float input_scale,
                                                                                    float *out);
static inline bool moe_activations_nvfp4(enum moe_activations a)
{
    return a >= MOE_ACTIVATIONS_NVFP4 && a <= MOE_ACTIVATIONS_NVFP4_ALL;
}

/* Functions that observe a pass, for calibration and traces; NULL when not wanted.  They must not change what
 * they are given.
 * routed: called after the router of a MoE layer, with experts [T, k] and weights [T, k].
 * input: called with the rows x [n, cols of the weight] (ldx floats apart) that the weight `role` is about to
 *   be multiplied with.  The rows are as computed, not quantized, whatever enum moe_activations says.  A
 *   weight of attention, a dense MLP or the shared expert gets each token of the batch once, in batch order;
 *   a routed expert gets the tokens that chose it, in batch order, and no call when there are none.  Weights
 *   that share their input share one call: gate and up are called as gate, q_a (or q) and kv_a as
 *   MOE_ROLE_KV_A.  kv_b gets the latents that the batch added to the cache, one call a segment.
 *   expert is -1 except for EXPERT_GATE and EXPERT_DOWN.  Their calls come from worker threads, several
 *   experts at the same time but each in a single call; all other calls come from the calling thread. */
struct moe_hooks {
    void *ctx;
    void (*routed)(void *ctx, int layer, int64_t tokens, const int32_t *experts, const float *weights);
    void (*input)(void *ctx, int layer, enum moe_role role, int expert, const float *x, int64_t ldx,
                  int64_t n);
};

/* One routed expert applied to one row: y [H] = E(x [H]), not multiplied by the router's weight. */
struct moe_choice { const float *x; float *y; int32_t expert; };

/* A dispatcher computes the routed experts of the MoE layers in place of the pass itself (expert
 * parallelism, runtime/parallel/ep.h).  The pass calls it from its own thread, once for each MoE layer.
 *
 * dispatch: sends the rows x [T, H] to the experts [T, k] that the router chose.  The pass changes x as
 *   soon as dispatch returns, and computes the shared expert between the two calls.
 * combine: waits for the outputs and sets out[t k + j] to the vector [H] that expert experts[t k + j]
 *   computed from x[t].  The dispatcher owns these vectors; they stay valid until the next dispatch.
 *
 * The pass weights and adds the outputs in top-k order as it does with its own, so the result does not
 * depend on where they were computed.  After one of the two has failed, the pass calls neither again, and
 * moe_forward_check returns the failure. */
struct moe_dispatcher {
    void *ctx;
    enum moe_code (*dispatch)(void *ctx, int layer, int64_t tokens, const float *x, const int32_t *experts,
                              struct moe_err *err);
    enum moe_code (*combine)(void *ctx, const float **out, struct moe_err *err);
};

/* A forward pass: buffers for batches of up to max_tokens tokens and contexts of up to `context` positions.
 * It computes one batch at a time, so one thread at a time may call it. */
struct moe_forward;

/* Bytes of address space that moe_forward_open asks for.  Pages are touched only as far as batches and
 * contexts reach. */
uint64_t moe_forward_estimate(const struct moe_config *c, int64_t max_tokens, int64_t context,
                              enum moe_mla mla, int threads);
/* m and pool must stay open until close.  MOE_NOMEM, and then *f is NULL. */
enum moe_code moe_forward_open(struct moe_forward **f, const struct moe_model *m, int64_t max_tokens,
                               int64_t context, enum moe_mla mla, struct moe_pool *pool, struct moe_err *err);
void moe_forward_close(struct moe_forward **f);
/* From now on the pass computes with m, another model of the same shapes. */
void moe_forward_model(struct moe_forward *f, const struct moe_model *m);
/* Sets the observers, which are copied; NULL: none. */
void moe_forward_hooks(struct moe_forward *f, const struct moe_hooks *hooks);
bool moe_forward_has_hooks(const struct moe_forward *f); /* whether any observer is set */
/* Sets the form of activations, which is FLOAT at first.  No form needs more memory than another. */
void moe_forward_activations(struct moe_forward *f, enum moe_activations a);
/* From now on products are computed by moe_matmul_many (kernels/many.h), which is faster for the hundreds of
 * tokens of a calibration batch.  moe_forward_activations takes this back. */
void moe_forward_use_gemm(struct moe_forward *f);
/* The factor that multiplies a weight's quantized inputs.  This is the input scale that modelopt stores, and
 * the reciprocal of the one that compressed-tensors stores; 1 when the weight has none. */
float moe_input_scale(const struct moe_weight *w);

/* From now on a copy of *e computes the routed experts; NULL: the pass computes them itself. */
void moe_forward_dispatcher(struct moe_forward *f, const struct moe_dispatcher *e);

/* Computes n choices of a MoE layer, at most max_tokens times k.  The result of each is bit for bit what the
 * pass itself computes, whatever other choices are in the list.  While a layer is computed only the
 * dispatcher may call this, from its combine. */
void moe_forward_experts(struct moe_forward *f, int layer, const struct moe_choice *list, int64_t n);

/* Sets h [n, H] to the embeddings of n tokens; MOE_MISMATCH for an id outside the vocabulary. */
enum moe_code moe_forward_embed(struct moe_forward *f, const int32_t *tokens, int64_t n, float *h,
                                struct moe_err *err);
/* Computes one layer for the tokens of all segments, in order, and changes h [T, H] in place.  T is at most
 * max_tokens.  Each segment's pages must have room for its positions; their rows are written. */
void moe_forward_layer(struct moe_forward *f, int layer, const struct moe_segment *s, int64_t n_segments,
                       float *h);
/* MOE_NONFINITE when h [n, H], as `layer` left it, holds a NaN or Inf; the message names the damaged tensor
 * where one is found (moe_model_blame).  Also returns an earlier failure of the dispatcher.  err may not be
 * NULL. */
enum moe_code moe_forward_check(struct moe_forward *f, int layer, const float *h, int64_t n,
                                struct moe_err *err);
/* Computes logits [n, V] from n rows of h, which is not changed; n may exceed max_tokens.  MOE_NONFINITE when
 * a logit is NaN or Inf. */
enum moe_code moe_forward_logits(struct moe_forward *f, const float *h, int64_t n, float *logits,
                                 struct moe_err *err);

/* The whole pass: embeds the tokens of all segments, computes every layer and checks h after each.  h [T, H]
 * is then what the last layer left. */
enum moe_code moe_forward_run(struct moe_forward *f, const int32_t *tokens, const struct moe_segment *s,
                              int64_t n_segments, float *h, struct moe_err *err);

#endif
