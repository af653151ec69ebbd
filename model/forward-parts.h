/* SPDX-License-Identifier: Apache-2.0 */
/* model/forward-parts.h - the buffers and the parts of the forward pass: for model/, and for calibration,
 * which goes through a layer part by part. */
#ifndef MOE_MODEL_FORWARD_PARTS_H
#define MOE_MODEL_FORWARD_PARTS_H

#include "kernels/kernels.h"
#include "model/forward.h"

struct moe_forward {
    const struct moe_model *m;
    const struct moe_kernels *k;
    /* k: this machine's, but for what activations and moe_forward_many change */
    struct moe_kernels own;
    struct moe_pool *pool;
    struct moe_hooks hooks;
    struct moe_dispatcher dispatcher;
    enum moe_code code; struct moe_err err; /* its first failure */
    enum moe_mla mla;
    enum moe_activations activations;
    int64_t max_tokens, context;
    void *owned[24]; int n_owned;     /* the buffers below */
    uint64_t bytes; bool counting, failed; /* of them; only count; memory ran out */
    float *x, *y;                     /* [T, H]; these and what follows are aligned to 64 bytes */
    /* [T, ql], [T, heads * (nope + rope)], [T, kl + rope], [T, heads * v] */
    float *qa, *q, *ckv, *attn;
    float *cos, *sin;                 /* [T, rope / 2] */
    float *logits, *choose;           /* router: [T, E], [threads, 2 E] */
    int32_t *experts; float *weights; /* [T, k] */
    int32_t *slot;                    /* [T, k]: the place of this choice among the gathered rows */
    int64_t *first;                   /* [E + 1]: where an expert's gathered rows start */
    int32_t *active;                  /* [E]: the experts that were chosen, ascending */
    /* [T k]: the input of each gathered row; the output of each choice, when a dispatcher computes it */
    const float **from, **result;
    /* [T k, H] (then the experts' outputs), [T k, inter] and behind it [T, shared
     * inter]; or [T, dense inter] */
    float *gathered, *gate, *up;
    float *quantized;                 /* [T, the widest input]: gathered, while no experts' rows are in it */
    float *worker; int64_t worker_floats; /* [threads, worker_floats]: attention */
};

/* moe_pool_run, or in the caller when the whole `work` (about the multiply-adds that a kernel would do in
 * that time) is worth less than waking threads. */
static inline void moe_forward_each(struct moe_forward *f, int64_t n, int64_t work,
                                    void (*fn)(void *, int64_t, int), void *ctx)
{
    moe_pool_run(work < (int64_t)1 << 19 ? NULL : f->pool, n, fn, ctx);
}

/* Whether products with w take quantized input. */
static inline bool moe_forward_quantizes(const struct moe_forward *f, const struct moe_weight *w)
{
    return f->activations != MOE_ACTIVATIONS_FLOAT &&
           (w->type == MOE_NVFP4 || (f->activations == MOE_ACTIVATIONS_NVFP4_ALL && w->input_scale > 0));
}
/* x [n, dim] (ldx apart) quantized into out (ldo apart; may be x), on all threads. */
void moe_forward_quantize(struct moe_forward *f, const float *x, int64_t ldx, float scale, int64_t dim,
                          int64_t n, float *out, int64_t ldo);
/* Of what gate and up both multiply; 0: not quantized. */
float moe_forward_gate_up_scale(const struct moe_forward *f, const struct moe_expert *e);

/* y [n, rows of w] = w x, on all threads; x quantized first where that is asked.  Not while experts'
 * rows are in f->gathered. */
void moe_forward_matmul(struct moe_forward *f, const struct moe_weight *w, const float *x, int64_t ldx,
                        int64_t n, float *y);
void moe_forward_norm(struct moe_forward *f, const float *x, int64_t ldx, const float *w, float eps,
                      int64_t dim, int64_t n, float *out, int64_t ldo);

/* h [n, H] += y [n, H], on all threads. */
void moe_forward_add(struct moe_forward *f, float *h, const float *y, int64_t n);

static inline void moe_forward_saw(const struct moe_forward *f, int layer, enum moe_role role, const float *x,
                                   int64_t ldx, int64_t n)
{
    if (f->hooks.input) f->hooks.input(f->hooks.ctx, layer, role, -1, x, ldx, n);
}

void moe_forward_attention(struct moe_forward *f, int layer, const struct moe_segment *s, int64_t n_segments,
                           int64_t tokens, float *h);
void moe_forward_ffn(struct moe_forward *f, int layer, int64_t tokens, float *h);

int64_t moe_attention_worker_floats(const struct moe_config *c, int64_t context, enum moe_mla mla);

#endif
