/* SPDX-License-Identifier: Apache-2.0 */
/* model/forward-parts.h - the buffers and the parts of the forward pass, for the files of model/ and for
 * calibration, which computes a layer part by part.
 *
 * Letters in shapes are those of forward.h; here ql is q_lora_rank, kl kv_lora_rank, nope qk_nope_head_dim,
 * rope qk_rope_head_dim, v v_head_dim, and inter the width of an MLP (moe_intermediate_size for an
 * expert). */
#ifndef MOE_MODEL_FORWARD_PARTS_H
#define MOE_MODEL_FORWARD_PARTS_H

#include "base/aligned.h"
#include "kernels/kernels.h"
#include "model/forward.h"

struct moe_forward {
    const struct moe_model *m;
    const struct moe_kernels *k;
    /* what k points to: this machine's kernels, but for those that moe_forward_activations and
     * moe_forward_use_gemm change */
    struct moe_kernels own;
    struct moe_pool *pool;
    struct moe_hooks hooks;
    struct moe_dispatcher dispatcher;
    enum moe_code code; struct moe_err err; /* the dispatcher's first failure */
    enum moe_mla mla;
    enum moe_activations activations;
    int64_t max_tokens, context;
    struct moe_aligned owned;         /* the buffers below */
    float *x, *y;                     /* [T, H]; all buffers are aligned to 64 bytes */
    /* [T, ql], [T, heads * (nope + rope)], [T, kl + rope], [T, heads * v] */
    float *qa, *q, *ckv, *attn;
    float *cos, *sin;                 /* [T, rope / 2] */
    float *logits, *choose;           /* the router's logits [T, E] and scratch memory [threads, 2 E] */
    int32_t *experts; float *weights; /* [T, k] */
    /* The rows that experts compute are sorted ("gathered") by expert; a choice is one expert of a token. */
    int32_t *slot;                    /* [T, k]: the index of a choice's row among the gathered rows */
    int64_t *first;                   /* [E + 1]: the index of an expert's first gathered row */
    int32_t *active;                  /* [E]: the experts that were chosen, ascending */
    /* [T k]: the input of each gathered row; the output of each choice, when a dispatcher computes it */
    const float **from, **result;
    /* gathered [T k, H]: the inputs of the experts, then their outputs.  gate and up, in a MoE layer:
     * [T k, inter], then [T, inter of the shared expert]; in a dense layer: [T, inter] */
    float *gathered, *gate, *up;
    float *quantized;                 /* [T, the widest input]: the memory of gathered, while it is free */
    float *absorbed;                  /* the queries of some tokens in the space of latents, their outputs */
    float *worker; int64_t worker_floats; /* [threads, worker_floats]: scratch memory of attention */
};

/* How many threads compute `work` multiply-adds: one where they are too few to wake the others for. */
static inline int moe_forward_threads(const struct moe_forward *f, int64_t work)
{
    return work < (int64_t)1 << 19 ? 1 : moe_pool_threads(f->pool);
}
/* moe_pool_run on moe_forward_threads, where `work` is the multiply-adds of a kernel that would take as long
 * as all items together. */
static inline void moe_forward_each(struct moe_forward *f, int64_t n, int64_t work,
                                    void (*fn)(void *, int64_t, int), void *ctx)
{
    moe_pool_run(moe_forward_threads(f, work) > 1 ? f->pool : NULL, n, fn, ctx);
}

/* Whether the input of products with w is quantized. */
static inline bool moe_forward_quantizes(const struct moe_forward *f, const struct moe_weight *w)
{
    return f->activations != MOE_ACTIVATIONS_FLOAT &&
           (w->type == MOE_NVFP4 || (f->activations == MOE_ACTIVATIONS_NVFP4_ALL && w->input_scale > 0));
}
/* Quantizes x [n, dim] (rows ldx floats apart) under the input scale `scale` into out (rows ldo floats
 * apart), which may be x, on all threads. */
void moe_forward_quantize(struct moe_forward *f, const float *x, int64_t ldx, float scale, int64_t dim,
                          int64_t n, float *out, int64_t ldo);
/* The input scale that gate and up of an MLP share; 0: their input is not quantized. */
float moe_forward_gate_up_scale(const struct moe_forward *f, const struct moe_expert *e);

/* y [n, rows of w] = x w^T, on all threads; x is quantized first where moe_forward_quantizes says so.  Must
 * not be called while the rows of experts are in f->gathered. */
void moe_forward_matmul(struct moe_forward *f, const struct moe_weight *w, const float *x, int64_t ldx,
                        int64_t n, float *y);
/* The RMS norm with weights w [dim] of x [n, dim] into out, which may be x; rows as in quantize. */
void moe_forward_norm(struct moe_forward *f, const float *x, int64_t ldx, const float *w, float eps,
                      int64_t dim, int64_t n, float *out, int64_t ldo);

/* h [n, H] += y [n, H], on all threads. */
void moe_forward_add(struct moe_forward *f, float *h, const float *y, int64_t n);

/* Tells the observer, where there is one, what goes into a weight that is no routed expert's. */
static inline void moe_forward_observe(const struct moe_forward *f, int layer, enum moe_role role,
                                       const float *x, int64_t ldx, int64_t n)
{
    if (f->hooks.input) f->hooks.input(f->hooks.ctx, layer, role, -1, x, ldx, n);
}

/* The two halves of a layer, each with its norm and its residual sum: they change h [tokens, H] in place. */
void moe_forward_attention(struct moe_forward *f, int layer, const struct moe_segment *s, int64_t n_segments,
                           int64_t tokens, float *h);
void moe_forward_ffn(struct moe_forward *f, int layer, int64_t tokens, float *h);

/* The memory of absorbed attention for batches of t tokens, in floats.  It has room for a number of partial
 * results that the context does not raise above some for each thread. */
int64_t moe_attention_floats(const struct moe_config *c, int64_t t, int64_t context, enum moe_mla mla,
                             int threads);
/* The scratch memory that a thread needs for attention over `context` positions, in floats. */
int64_t moe_attention_worker_floats(const struct moe_config *c, int64_t context, enum moe_mla mla);

#endif
