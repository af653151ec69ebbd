/* SPDX-License-Identifier: Apache-2.0 */
/* model/forward.h - the forward pass of the K2 family, a layer at a time over a batch of tokens.
 *
 * Calibration and serving use the same code.  Float32 throughout: no intermediate is rounded to BF16.
 *
 *   h += attention(rms(h, input_norm));  h += ffn(rms(h, post_norm));  logits = head . rms(h, norm)
 *
 * A token's result depends neither on the batch it is computed in, nor on how a prompt is cut into batches,
 * nor on threads: every product goes through a kernel whose order depends on its own row alone, and experts'
 * outputs are added in top-k order (a product, then a sum, each rounded, from 0), the shared expert last. */
#ifndef MOE_MODEL_FORWARD_H
#define MOE_MODEL_FORWARD_H

#include "base/pool.h"
#include "model/model.h"

/* The latent cache of one sequence: for every layer [cap, width] float32, width = kv_lora_rank +
 * qk_rope_head_dim: the latent after its norm, then the rotary key after rotation.  most: where growing by
 * doubling stops; 0: nowhere. */
struct moe_kv { float **layer; int64_t layers, width, cap, max_positions; };

enum moe_code moe_kv_open(struct moe_kv *kv, const struct moe_config *c, struct moe_err *err);
/* grows by doubling, not beyond most unless asked to */
enum moe_code moe_kv_reserve(struct moe_kv *kv, int64_t positions, struct moe_err *err);
/* Bytes of a cache of exactly that many positions. */
uint64_t moe_kv_estimate(const struct moe_config *c, int64_t positions);
void moe_kv_release(struct moe_kv *kv);

/* Part of a batch: `n` consecutive tokens of one sequence, the first at position `first`;
 * what is before lies in kv. */
struct moe_segment { struct moe_kv *kv; int64_t first, n; };

enum moe_mla { MOE_MLA_ABSORBED, MOE_MLA_EXPANDED };

/* What products multiply.  FLOAT: activations as computed.
 * NVFP4: what a GPU's tensor cores would see (kernels.def, nvfp4_activations): the input of every product
 *   whose weight is stored as NVFP4 is quantized under that weight's input scale, with dynamic block scales;
 *   everything else as under FLOAT.  gate and up share their input, so both take the larger of their two
 *   scales (engines fuse them).  Engines also take the largest of a layer's experts; here each expert has its
 *   own, which a calibrated model makes the same.  kv_b multiplies latents: the cache then holds them
 *   quantized, so that the absorbed form computes what the expanded one does.
 * NVFP4_46: as NVFP4, with the better of two dynamic scales a block (kernels.def, nvfp4_activations_46).
 * NVFP4_SEARCH: with the best of six (nvfp4_activations_search).
 * INT16: products with NVFP4 weights take fixed-point of 16 bits in blocks of 16 (kernels.def, matmul_int16)
 * instead of 24: faster for several tokens.
 * NVFP4_ALL: as NVFP4 for every weight with an input scale (moe_weight.input_scale above 0), whatever
 * its type: for experiments. */
enum moe_activations {
    MOE_ACTIVATIONS_FLOAT,
    MOE_ACTIVATIONS_NVFP4,
    MOE_ACTIVATIONS_NVFP4_46,
    MOE_ACTIVATIONS_NVFP4_SEARCH,
    MOE_ACTIVATIONS_NVFP4_ALL,
    MOE_ACTIVATIONS_INT16,
    MOE_ACTIVATIONS_COUNT
};
/* By its word in command lines: float, nvfp4, nvfp4-four-over-six, nvfp4-search, nvfp4-all,
 * int16.  -1 for another word. */
int moe_activations_find(const char *word);
const char *moe_activations_name(enum moe_activations a);
/* The kernel (kernels/kernels.h) that makes NVFP4 activations of that form. */
struct moe_kernels;
void (*moe_activations_kernel(const struct moe_kernels *k, enum moe_activations a))(const float *x, int64_t n,
                                                                                    float input_scale,
                                                                                    float *out);
static inline bool moe_activations_nvfp4(enum moe_activations a)
{
    return a >= MOE_ACTIVATIONS_NVFP4 && a <= MOE_ACTIVATIONS_NVFP4_ALL;
}

/* Observers, for calibration and traces; NULL when not wanted.  They must not change what they are given.
 * routed: after a MoE layer's router: experts [T, k], weights [T, k].
 * input: the rows x [n, cols of the weight] (ldx floats apart) that a projection is about to multiply, as
 *   computed (not quantized, whatever enum moe_activations says): each token of the batch once, in batch
 *   order, for attention, dense and shared weights; for an expert the tokens that chose it, in batch order
 *   (no call when there are none).  gate and up share their input and come as gate, as do q_a (or q) and
 *   kv_a, which come as MOE_ROLE_KV_A.  kv_b sees the latents that the batch added.  expert is -1 but for
 *   EXPERT_GATE and EXPERT_DOWN, which come from worker threads, one call an expert at a time; all others
 *   from the calling thread. */
struct moe_hooks {
    void *ctx;
    void (*routed)(void *ctx, int layer, int64_t tokens, const int32_t *experts, const float *weights);
    void (*input)(void *ctx, int layer, enum moe_role role, int expert, const float *x, int64_t ldx,
                  int64_t n);
};

/* One routed expert applied to one row: y [H] = E(x [H]), without its weight. */
struct moe_choice { const float *x; float *y; int32_t expert; };

/* A dispatcher computes the routed experts of the MoE layers in place of the pass itself (expert
 * parallelism, runtime/parallel/ep.h).  The pass calls it from its own thread, once for each MoE layer.
 *
 * dispatch: sends the rows x [T, H] to the experts [T, k] that the router chose.  The pass changes x as
 *   soon as dispatch returns, and computes the shared expert between the two calls.
 * combine: waits for the outputs and sets out[t k + j] to the float [H] that experts[t k + j] made of
 *   x[t].  The dispatcher owns these floats; they stay until the next dispatch.
 *
 * The pass weights and adds the outputs in top-k order as it does with its own, so the result does not
 * depend on where they were computed.  After a failure the pass computes no more, and moe_forward_check
 * returns it. */
struct moe_dispatcher {
    void *ctx;
    enum moe_code (*dispatch)(void *ctx, int layer, int64_t tokens, const float *x, const int32_t *experts,
                              struct moe_err *err);
    enum moe_code (*combine)(void *ctx, const float **out, struct moe_err *err);
};

struct moe_forward; /* buffers for up to max_tokens tokens; one batch at a time */

/* Bytes of those buffers, for contexts of up to `context` positions: what moe_forward_open asks for.  Pages
 * are touched only as far as batches and contexts reach. */
uint64_t moe_forward_estimate(const struct moe_config *c, int64_t max_tokens, int64_t context,
                              enum moe_mla mla, int threads);
enum moe_code moe_forward_open(struct moe_forward **f, const struct moe_model *m, int64_t max_tokens,
                               int64_t context, enum moe_mla mla, struct moe_pool *pool, struct moe_err *err);
void moe_forward_close(struct moe_forward **f);
/* from now on through m, another one of the same shapes */
void moe_forward_model(struct moe_forward *f, const struct moe_model *m);
void moe_forward_hooks(struct moe_forward *f, const struct moe_hooks *hooks);  /* NULL: none */
/* FLOAT until called; needs no more memory */
void moe_forward_activations(struct moe_forward *f, enum moe_activations a);
/* Products by moe_matmul_many (kernels/many.h) from now on, unless activations are called for again: for
 * calibration's hundreds of tokens at once. */
void moe_forward_many(struct moe_forward *f);
/* The factor of a weight's input codes: as modelopt stores it, the inverse of what
 * compressed-tensors stores, 1 when absent. */
float moe_input_scale(const struct moe_weight *w);

/* The pass has its routed experts computed by a copy of *e from now on; NULL: it computes them itself. */
void moe_forward_dispatcher(struct moe_forward *f, const struct moe_dispatcher *e);

/* Computes n <= max_tokens k choices of a MoE layer: bit for bit what the pass computes for each of them,
 * whatever other choices are in the list.  During a pass only a dispatcher may call it, from combine. */
void moe_forward_experts(struct moe_forward *f, int layer, const struct moe_choice *list, int64_t n);

/* h [n, H] of n tokens; MOE_MISMATCH for an id outside the vocabulary. */
enum moe_code moe_forward_embed(struct moe_forward *f, const int32_t *tokens, int64_t n, float *h,
                                struct moe_err *err);
/* One layer over the tokens of all segments, in order; h [T, H] in place.  T <= max_tokens; kv has
 * room; its rows are written. */
void moe_forward_layer(struct moe_forward *f, int layer, const struct moe_segment *s, int64_t n_segments,
                       float *h);
/* MOE_NONFINITE when h [n, H], as `layer` left it, holds a NaN or Inf: the weights are damaged. */
enum moe_code moe_forward_check(struct moe_forward *f, int layer, const float *h, int64_t n,
                                struct moe_err *err);
/* logits [n, V] of n rows of h (not changed); MOE_NONFINITE when one is NaN or Inf. */
enum moe_code moe_forward_logits(struct moe_forward *f, const float *h, int64_t n, float *logits,
                                 struct moe_err *err);

/* All of it: tokens of all segments -> h after the last layer, checked after each. */
enum moe_code moe_forward_run(struct moe_forward *f, const int32_t *tokens, const struct moe_segment *s,
                              int64_t n_segments, float *h, struct moe_err *err);

#endif
