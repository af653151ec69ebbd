/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/ops.h - the operations that the forward pass is made of, on the memory of a device.
 *
 * The pass (model/forward.h) is written once, as a list of calls of these.  A device implements them: the
 * CPU with its threads and kernels (model/ops/cpu/), a GPU with launches.  The weights are the device's: a
 * call names a layer and a role, never an address of a weight.
 *
 * ORDER.  Each device has one stream.  An operation may return before it is done, and operations may be done
 * in another order than they were called in, as long as none reads what an earlier call has yet to write, or
 * writes what an earlier call has yet to read.  Which memory an operation reads and writes is what its
 * arguments say, with the latent cache of the batch's segments besides.  What the host gets from a device, by
 * `read`, is there after the next `wait`.
 *
 * HOST MEMORY that a call is given may be read during the call or at any time before the next wait: arrays of
 * rows and of drawings, a copy, and a batch with its tokens, its segments, and their caches and page numbers.
 * Nothing of it changes before that wait; a batch stays until the wait that follows the last of its
 * operations.  `write` alone has read everything when it returns.
 *
 * FAILURES.  Operations cannot fail.  What goes wrong while they are done, and non-finite values where
 * `check` looks for them, are noted in one word, which `wait` returns.
 *
 * Memory is counted in float32, int32 and bytes as said.  Letters in shapes: T tokens of the batch that
 * `begin` named, H hidden size, V vocabulary, E routed experts, k experts per token, and those of
 * model/model.h.  Matrices are row-major and dense.  One thread at a time uses a device. */
#ifndef MOE_MODEL_OPS_OPS_H
#define MOE_MODEL_OPS_OPS_H

#include "kernels/sample.h"
#include "model/latent.h"
#include "model/model.h"

/* Part of a batch: `n` consecutive tokens of one sequence, the first at position `first`.  Position p is row
 * p % MOE_PAGE of page page[p / MOE_PAGE] of the cache, which holds the rows of all positions before `first`;
 * the pass writes those of the n tokens.  What the rows behind them hold is undefined. */
struct moe_segment { const struct moe_latent *cache; const int32_t *page; int64_t first, n; };

/* What a pass computes.  `n` is T, the sum over all segments; an operation on attention needs them, and
 * `embed` needs the tokens [T]; else they may be NULL. */
struct moe_batch {
    const int32_t *tokens; int64_t n;
    const struct moe_segment *segment; int64_t n_segments;
};

/* The router's choices for a batch: where experts [T, k] (int32) and weights [T, k] lie, and the outputs of
 * the experts: choice c = t k + j is row slot[c] (int32 [T, k]) of rows [T k, H].  A device that puts choice
 * c into row c, as a GPU does, leaves slot alone: what `mlps` has written is for its own `combine`. */
struct moe_choices { struct moe_addr experts, weights, slot, rows; };

/* One routed expert applied to one row in host memory: y [H] = E(x [H]), without the router's weight. */
struct moe_choice { const float *x; float *y; int32_t expert; };

/* How the next token of a row of logits is drawn (moe_sample). */
struct moe_drawing { struct moe_sampler sampler; uint64_t draw; };

/* The RMS norms: before attention, before the MLPs, of the compressed query, before the head. */
enum moe_norm { MOE_NORM_INPUT, MOE_NORM_POST, MOE_NORM_Q_A, MOE_NORM_FINAL };

/* Bits of a device's word. */
enum { MOE_WORD_NONFINITE = 1 };

/* Functions that observe a pass, for calibration and traces; NULL when not wanted.  They must not change what
 * they are given, which is host memory.
 * routed: called after the router of a MoE layer, with experts [T, k] and weights [T, k].
 * input: called with the rows x [n, cols of the weight] (ldx floats apart) that the weight `role` is about to
 *   be multiplied with.  The rows are as computed, not quantized, whatever enum moe_activations says.  A
 *   weight of attention, a dense MLP or the shared expert gets each token of the batch once, in batch order;
 *   a routed expert gets the tokens that chose it, in batch order, and no call when there are none.  Weights
 *   that share their input share one call: gate and up are called as gate, q_a (or q) and kv_a as
 *   MOE_ROLE_KV_A.  kv_b gets the latents that the batch added to the cache, one call for each run of rows
 *   that lie one after the other.
 *   expert is -1 except for EXPERT_GATE and EXPERT_DOWN.  Their calls come from worker threads, several
 *   experts at the same time but each in a single call; all other calls come from one thread. */
struct moe_hooks {
    void *ctx;
    void (*routed)(void *ctx, int layer, int64_t tokens, const int32_t *experts, const float *weights);
    void (*input)(void *ctx, int layer, enum moe_role role, int expert, const float *x, int64_t ldx,
                  int64_t n);
};

struct moe_device;

struct moe_ops {
    const char *name;
    void (*close)(struct moe_device *d);

    /* ---- memory ---- */

    /* Memory of the device, aligned to 64 bytes, its content undefined.  MOE_NOMEM where the host has not so
     * much; MOE_DEVICE where a GPU has not so much, or has failed.  *out is then 0.  free: of what alloc
     * gave, once everything is done; nothing for an address of 0. */
    enum moe_code (*alloc)(struct moe_device *d, uint64_t bytes, struct moe_addr *out, struct moe_err *err);
    void (*free)(struct moe_device *d, struct moe_addr a);
    /* Copies from host memory, which may change as soon as the call returns; copies to host memory, which is
     * undefined until the next wait. */
    void (*write)(struct moe_device *d, struct moe_addr to, const void *from, uint64_t bytes);
    void (*read)(struct moe_device *d, void *to, struct moe_addr from, uint64_t bytes);
    /* Until everything is done.  *word: what was noted since the last wait; it is then 0 again.  MOE_DEVICE:
     * the device failed, and nothing that it computed counts. */
    enum moe_code (*wait)(struct moe_device *d, uint32_t *word, struct moe_err *err);
    /* Copies rows from page to page of a cache, in every layer.  The other rows of the page that is written
     * become undefined. */
    void (*copy)(struct moe_device *d, const struct moe_latent *cache, const struct moe_page_copy *copy);

    /* ---- the pass ---- */

    /* Names the batch of the calls that follow, until the next begin. */
    void (*begin)(struct moe_device *d, const struct moe_batch *b);
    /* h [T, H] = the embeddings of the tokens, which are in the vocabulary. */
    void (*embed)(struct moe_device *d, struct moe_addr h);
    /* Where add is not 0, h += add first, of the same shape.  Then out = rms(h) w.  h [T, dim], where dim is
     * the width of the norm's input; out may be h. */
    void (*norm)(struct moe_device *d, int layer, enum moe_norm which, struct moe_addr h, struct moe_addr add,
                 struct moe_addr out);
    /* y [T, rows of W] = x [T, cols of W] W^T; `role` is Q_A, Q_B, Q, KV_A or O. */
    void (*linear)(struct moe_device *d, int layer, enum moe_role role, struct moe_addr x, struct moe_addr y);
    /* Rotates the last rope values of each head of q [T, heads, nope + rope], and writes the rows of the
     * cache: of ckv [T, kl + rope] the latent, normed, and the rotary key, rotated. */
    void (*append)(struct moe_device *d, int layer, struct moe_addr q, struct moe_addr ckv);
    /* out [T, heads, v] = attention of the queries over the cache, up to each token's own position. */
    void (*attend)(struct moe_device *d, int layer, struct moe_addr q, struct moe_addr out);
    /* Chooses experts and weights (moe_route) from the logits router . x. */
    void (*route)(struct moe_device *d, int layer, struct moe_addr x, const struct moe_choices *c);
    /* y [T, H] = the MLP that every token passes: the dense one, or the shared expert where the layer has
     * one.  c, unless NULL: also the routed experts, into c->rows and c->slot.  x [T, H] is changed. */
    void (*mlps)(struct moe_device *d, int layer, struct moe_addr x, const struct moe_choices *c,
                 struct moe_addr y);
    /* h += (the sum of weight * output, in top-k order) + y.  c is NULL in dense layers, and y 0 where the
     * layer has no shared expert.  Each product and each sum is rounded. */
    void (*combine)(struct moe_device *d, const struct moe_choices *c, struct moe_addr y, struct moe_addr h);
    /* logits [n, V] of rows row [n] (host memory) of h, which is not changed; NULL: rows 0 to n - 1.  n is at
     * most max_tokens. */
    void (*logits)(struct moe_device *d, const int32_t *row, int64_t n, struct moe_addr h,
                   struct moe_addr logits);
    /* Draws a token below `vocab` for each row of logits [n, V]: ids [n] (int32).  w [n]: host memory. */
    void (*sample)(struct moe_device *d, const struct moe_drawing *w, int64_t n, int64_t vocab,
                   struct moe_addr logits, struct moe_addr ids);
    /* Notes MOE_WORD_NONFINITE where x [n] holds a NaN or Inf. */
    void (*check)(struct moe_device *d, struct moe_addr x, int64_t n);

    /* ---- beside the pass ---- */

    /* Sets the observers, which are copied; NULL: none.  */
    void (*hooks)(struct moe_device *d, const struct moe_hooks *hooks);
    /* Computes n choices of a MoE layer, at most max_tokens times k, for other ranks: the outputs are there
     * when it returns.  The result of each is bit for bit what `mlps` computes, whatever the others are.
     * Between calls of `mlps` and `combine` of a layer only its dispatcher may call it. */
    void (*serve)(struct moe_device *d, int layer, const struct moe_choice *list, int64_t n);
};

/* What every device begins with.  It computes with `model`, whose shapes do not change. */
struct moe_device {
    const struct moe_ops *ops;
    const struct moe_model *model;
    int64_t max_tokens, context;      /* T at most; the positions of a sequence at most */
    enum moe_latent_type latents;     /* what it keeps latents as */
};

static inline void moe_device_close(struct moe_device **d)
{
    if (*d) (*d)->ops->close(*d);
    *d = NULL;
}

#endif
