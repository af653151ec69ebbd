/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/passes/walk.h - takes all calibration tokens through a model, one layer after the other.  The
 * hidden states of all tokens are kept; only the weights of one layer are in use at a time.
 *
 * Memory: the states twice (4 bytes a value; in files where a directory is given), 16 bytes for each token
 * and chosen expert, the buffers of one piece of one MLP and of one batch of attention, and what one layer's
 * attention touches of the mapped source.
 *
 * One thread calls; the pool's threads share the work. */
#ifndef MOE_QUANTIZE_PASSES_WALK_H
#define MOE_QUANTIZE_PASSES_WALK_H

#include "model/forward.h"
#include "model/ops/cpu/cpu.h"
#include "model/rewrite/rewrite.h"
#include "model/unit.h"
#include "quantize/rounding/mlp.h"

struct moe_meter; /* quantize/passes/work.h */

/* The three weights of an expert, as stored, read into memory that this owns. */
struct moe_stored_expert {
    uint8_t *data[3];
    size_t bytes[3]; /* allocated */
};
void moe_stored_expert_release(struct moe_stored_expert *r);

enum { MOE_WALK_PIECE = 64 };

struct moe_walk {
    struct moe_source *src;
    struct moe_pool *pool;
    const struct moe_cancel *cancel;  /* ends the passes early; NULL: nobody will */
    struct moe_model *m;
    struct moe_device *device;
    struct moe_forward *f;
    struct moe_mlp *mlp; /* for forward passes, on all threads */

    const int32_t *tokens; /* [n] of all sequences, one after the other */
    int64_t n;
    int64_t sequence;      /* tokens of a sequence; the last one may be shorter */

    int layer;   /* h holds the states before this layer, or, if `routed`, after its attention */
    bool routed; /* the layer's attention, router and shared or dense MLP are done */
    struct moe_states h;
    struct moe_states sum; /* what the layer's MLPs add to h; moe_walk_next adds it */

    float *batch;     /* [moe_walk_batch, H] */
    float *piece;     /* [MOE_WALK_PIECE, H] */
    struct moe_latent cache; /* of a batch's sequences, for the layer at hand */

    /* The router's choices, k for each token: experts and their weights [n, k]; and 1 / rms of each token's
     * state [n], its importance. */
    int32_t *experts;
    float *weights;
    float *importance;

    /* The same choices sorted by expert, then by token: those of expert e are [first[e], first[e + 1]).
     * Of each the token, its routing weight, and that times its importance. */
    int64_t *first; /* [E + 1] */
    int32_t *row;   /* [n k] */
    float *row_weight;
    float *row_importance;

    int32_t *all; /* [n] 0, 1, 2, ...: the rows of an MLP that all tokens pass */
    struct moe_stored_expert raw; /* the weights of the expert at hand */
    bool twin;    /* f, mlp, batch and the caches belong to the walk that this one is a twin of */

    double seconds[3]; /* of the layer at hand: attention, router, MLPs forward */

    /* [2] counts for the MLPs that tokens pass (moe_mlp_tokens.clip); NULL: nothing is counted. */
    struct moe_clip *clip;
    struct moe_meter *meter; /* counts the operations done; NULL: nothing does */
    uint8_t *stored;         /* [n_tensors] the types of the source */

    /* [0] is called before the layer's attention, [1] before its dense or shared MLP.  They may replace
     * weights in m->layers. */
    enum moe_code (*before[2])(void *ctx, struct moe_err *err);
    void *ctx;
};

/* Bytes of memory for n tokens; in_files: the states are in files. */
uint64_t moe_walk_estimate(const struct moe_source *src, int64_t n, int64_t sequence, bool in_files,
                           int threads);
/* Maps the source and embeds the tokens.  src and tokens must outlive w.  states: a directory for the hidden
 * states; NULL: memory.  Nothing is owned on failure. */
enum moe_code moe_walk_open(struct moe_walk *w, struct moe_source *src, const int32_t *tokens, int64_t n,
                            int64_t sequence, const char *states, struct moe_pool *pool,
                            const struct moe_cancel *cancel, struct moe_err *err);

/* Opens a twin: a second walk of the same tokens through the same source.  It has states, choices and a model
 * of its own and shares w's buffers, so only one of the two may be at work at a time.  w must outlive it.
 * The estimate is in bytes of memory beside w's. */
uint64_t moe_walk_twin_estimate(const struct moe_source *src, int64_t n, bool in_files);
enum moe_code moe_walk_twin(struct moe_walk *twin, const struct moe_walk *w, const char *states,
                            struct moe_err *err);
void moe_walk_close(struct moe_walk *w);

/* Takes all tokens through the layer at hand, which has no experts. */
enum moe_code moe_walk_pass_dense_layer(struct moe_walk *w, struct moe_err *err);

/* Takes all tokens through layers without experts up to `layer`, then through the attention, router and
 * shared or dense MLP of `layer` itself; then w->routed is true. */
enum moe_code moe_walk_to_experts(struct moe_walk *w, int layer, struct moe_err *err);

/* Takes all tokens through the layer at hand, with experts or without, by the source's weights. */
enum moe_code moe_walk_pass_layer_by_source(struct moe_walk *w, struct moe_err *err);

/* The experts of a layer as a unit, in the types of the source.  The caller releases it. */
enum moe_code moe_walk_unit(const struct moe_walk *w, int layer, struct moe_shard_unit *u,
                            struct moe_err *err);

/* The tokens that chose expert e, and all tokens, as moe_mlp_quantize and moe_mlp_forward want them.  The
 * arrays belong to w. */
struct moe_mlp_tokens moe_walk_expert(const struct moe_walk *w, int64_t e);
struct moe_mlp_tokens moe_walk_all(const struct moe_walk *w);

/* Reads weight i (gate, up, down) of an expert from the source into r; `out` points there. */
enum moe_code moe_walk_read(const struct moe_walk *w, struct moe_stored_expert *r, const struct moe_tensor *t,
                            int i, struct moe_weight *out, struct moe_err *err);

/* Adds the outputs of the layer's routed experts to `out` (NULL: to w->sum).  file: the unit's file, whose
 * weights are used; NULL: the source's are. */
enum moe_code moe_walk_experts(struct moe_walk *w, const struct moe_shard_unit *u,
                               const struct moe_unit_file *file, struct moe_states *out, struct moe_err *err);

/* Adds w->sum to the states and goes to the next layer. */
enum moe_code moe_walk_next(struct moe_walk *w, struct moe_err *err);

/* The states of tokens [first, first + n), a batch, through the attention of the layer at hand.  The
 * result is in w->batch; h is read and not changed. */
enum moe_code moe_walk_attend(struct moe_walk *w, int64_t first, int64_t n, struct moe_err *err);

/* Calls fn for one batch of tokens [first, first + n) after the other.  A batch is whole sequences, or one
 * sequence where that is longer than a batch. */
enum moe_code moe_walk_batches(struct moe_walk *w,
                               enum moe_code (*fn)(struct moe_walk *, int64_t first, int64_t n,
                                                   struct moe_err *),
                               struct moe_err *err);

/* The largest number of tokens in a batch. */
int64_t moe_walk_batch(int64_t sequence);

#endif
