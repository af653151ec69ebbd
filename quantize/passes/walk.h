/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/passes/walk.h - tokens through a model layer by layer: the hidden states of all of them stay,
 * one layer's weights come and go.
 *
 * Memory: the states twice (4 bytes a value; in files where a directory is given), 16 bytes for each token
 * and chosen expert, the buffers of one piece of one MLP, one batch of attention; of the mapped source what
 * one layer's attention touches. */
#ifndef MOE_QUANTIZE_PASSES_WALK_H
#define MOE_QUANTIZE_PASSES_WALK_H

#include "model/forward.h"
#include "model/rewrite/rewrite.h"
#include "model/unit.h"
#include "quantize/rounding/mlp.h"

struct moe_meter; /* quantize/passes/work.h */

struct moe_stored_expert {
    uint8_t *data[3];
    size_t bytes[3];
}; /* an expert's weights as stored, read into memory */
void moe_stored_expert_release(struct moe_stored_expert *r);

struct moe_walk {
    struct moe_source *src;
    struct moe_pool *pool;
    const struct moe_cancel *cancel;  /* ends the passes early; NULL: nobody will */
    struct moe_model *m;
    struct moe_forward *f;
    struct moe_mlp *mlp;              /* for forward passes on all threads */
    const int32_t *tokens; int64_t n; /* of all sequences, one after the other */
    int64_t sequence;                 /* tokens of a sequence; the last one may be shorter */
    int layer;                        /* states are those before this layer */
    bool routed;                      /* ... after its attention, and its tokens are sorted by expert */
    struct moe_states h, sum;         /* states; what is added to them by this layer's MLPs */
    float *batch;                     /* [batch, H] */
    float *kv_buffer, **kv_layer;
    int32_t *experts; float *weights; /* [n, k] */
    float *importance;                /* [n]: 1 / rms of the state */
    int64_t *first;                   /* [E + 1] where an expert's choices begin in: */
    int32_t *row; float *row_weight, *row_importance; /* [n k] token; routing weight; that times importance */
    int32_t *all;                     /* [n]: 0, 1, 2 ... */
    struct moe_stored_expert raw;
    bool twin;                        /* f, mlp, batch and the caches are another walk's */
    double seconds[3];                /* attention, router, MLPs forward: of the layer at hand */
    /* [2] of the MLPs that tokens pass (struct moe_mlp_tokens); NULL: not counted */
    struct moe_clip *clip;
    struct moe_meter *meter;          /* what is done is counted here; NULL: nowhere */
    uint8_t *stored;                  /* [n_tensors]: the types of the source */
    /* Called when the states are those before the layer's attention; before its dense or shared MLP.  They
     * may replace weights in m->layers. */
    enum moe_code (*before[2])(void *ctx, struct moe_err *err); void *ctx;
};

uint64_t moe_walk_estimate(const struct moe_source *src, int64_t n, int64_t sequence, bool in_files,
                           int threads);
/* Maps the source; embeds the tokens, which must stay.  states: a directory for the
 * hidden states; NULL: memory. */
enum moe_code moe_walk_open(struct moe_walk *w, struct moe_source *src, const int32_t *tokens, int64_t n,
                            int64_t sequence, const char *states, struct moe_pool *pool,
                            const struct moe_cancel *cancel, struct moe_err *err);
/* The same tokens through the source once more: states, choices and model of its own, the buffers at work
 * are w's.  w outlives it. */
uint64_t moe_walk_twin_estimate(const struct moe_source *src, int64_t n, bool in_files);
enum moe_code moe_walk_twin(struct moe_walk *twin, const struct moe_walk *w, const char *states,
                            struct moe_err *err);
void moe_walk_close(struct moe_walk *w);

/* Through one layer without experts.  Through layers without experts, up to `layer`; then that one's
 * attention, router and shared expert. */
enum moe_code moe_walk_through(struct moe_walk *w, struct moe_err *err);
enum moe_code moe_walk_reach(struct moe_walk *w, int layer, struct moe_err *err);
/* Through one layer of any kind by the source's weights. */
enum moe_code moe_walk_pass(struct moe_walk *w, struct moe_err *err);
/* A layer's experts as a unit, in the types of the source; the caller releases it. */
enum moe_code moe_walk_unit(const struct moe_walk *w, int layer, struct moe_shard_unit *u,
                            struct moe_err *err);
/* The tokens that chose expert e; all tokens. */
struct moe_mlp_tokens moe_walk_expert(const struct moe_walk *w, int64_t e);
struct moe_mlp_tokens moe_walk_all(const struct moe_walk *w);

/* Weight i of an expert as the source has it, in r. */
enum moe_code moe_walk_read(const struct moe_walk *w, struct moe_stored_expert *r, const struct moe_tensor *t,
                            int i, struct moe_weight *out, struct moe_err *err);
/* The routed experts' outputs into `out` (NULL: the sum): through the weights in the unit's `file`; NULL: the
 * source's. */
enum moe_code moe_walk_experts(struct moe_walk *w, const struct moe_shard_unit *u,
                               const struct moe_unit_file *file, struct moe_states *out, struct moe_err *err);
/* The states after the layer. */
enum moe_code moe_walk_next(struct moe_walk *w, struct moe_err *err);

/* fn over batches of whole sequences (or parts of one where it is longer than a batch):
 * tokens [first, first + n). */
/* That batch's states through the attention of the layer at hand, in w->batch: read, not written back. */
enum moe_code moe_walk_attend(struct moe_walk *w, int64_t first, int64_t n, struct moe_err *err);
enum moe_code moe_walk_batches(struct moe_walk *w,
                               enum moe_code (*fn)(struct moe_walk *, int64_t first, int64_t n,
                                                   struct moe_err *),
                               struct moe_err *err);
int64_t moe_walk_batch(int64_t sequence); /* at most so many tokens */

#endif
