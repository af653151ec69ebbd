/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cpu/cpu-internal.h - the state of the processor as a device, and the parallel loops that its
 * operations share.  Letters in shapes are those of ops.h. */
#ifndef MOE_MODEL_OPS_CPU_CPU_INTERNAL_H
#define MOE_MODEL_OPS_CPU_CPU_INTERNAL_H

#include "base/aligned.h"
#include "kernels/kernels.h"
#include "model/ops/cpu/cpu.h"

struct moe_host {
    struct moe_device device;
    /* this machine's kernels, but for those that options change */
    struct moe_kernels kernels;
    const struct moe_kernels *k;      /* = &kernels */
    struct moe_pool *pool;
    struct moe_hooks hooks;
    struct moe_cpu_options o;
    enum moe_activations activations; /* FLOAT where only the products differ */
    struct moe_batch batch;           /* of the present calls */
    uint32_t word;
    struct moe_aligned owned;         /* the buffers below, all aligned to 64 bytes */
    float *x;                         /* [T, H] the normed rows of `logits` */
    float *cos, *sin;                 /* [T, rope / 2] */
    float *router, *choose;           /* the router's logits [T, E] and scratch memory [threads, 2 E] */
    /* The rows that experts compute are sorted ("gathered") by expert. */
    int64_t *first;                   /* [E + 1]: the index of an expert's first gathered row */
    int32_t *active;                  /* [E]: the experts that were chosen, ascending */
    const float **from;               /* [T k]: the input of each gathered row */
    /* in a MoE layer: [T k, inter], then [T, inter of the shared expert]; in a dense layer: [T, inter] */
    float *gate, *up;
    float *quantized;                 /* [T, the widest input]: the memory of gate, while it is free */
    float *served; int32_t *slot;     /* [T k, H], [T k]: of `serve`, which has no choices of its own */
    float *absorbed;                  /* the queries of some tokens in the space of latents, their outputs */
    float *worker; int64_t worker_floats; /* [threads, worker_floats]: scratch memory of attention */
    int32_t *order; float *p;         /* [threads, V]: scratch memory of sampling */
};

static inline struct moe_host *moe_cpu_of(struct moe_device *d) { return (struct moe_host *)(void *)d; }
static inline const struct moe_config *moe_cpu_config(const struct moe_host *d)
{
    return &d->device.model->config;
}
static inline void *moe_cpu_at(struct moe_addr a) { return (void *)(uintptr_t)a.at; }

/* How many threads compute `work` multiply-adds: one where they are too few to wake the others for. */
static inline int moe_cpu_threads(const struct moe_host *d, int64_t work)
{
    return work < (int64_t)1 << 19 ? 1 : moe_pool_threads(d->pool);
}
/* moe_pool_run on moe_cpu_threads, where `work` is the multiply-adds of a kernel that would take as long as
 * all items together. */
static inline void moe_cpu_each(struct moe_host *d, int64_t n, int64_t work, void (*fn)(void *, int64_t, int),
                                void *ctx)
{
    moe_pool_run(moe_cpu_threads(d, work) > 1 ? d->pool : NULL, n, fn, ctx);
}

/* Tells the observer, where there is one, what goes into a weight that is no routed expert's. */
static inline void moe_cpu_observe(const struct moe_host *d, int layer, enum moe_role role, const float *x,
                                   int64_t ldx, int64_t n)
{
    if (d->hooks.input) d->hooks.input(d->hooks.ctx, layer, role, -1, x, ldx, n);
}

/* ---- dense.c ---- */

/* Whether the input of products with w is quantized. */
static inline bool moe_cpu_quantizes(const struct moe_host *d, const struct moe_weight *w)
{
    return d->activations != MOE_ACTIVATIONS_FLOAT &&
           (w->type == MOE_NVFP4 || (d->activations == MOE_ACTIVATIONS_NVFP4_ALL && w->input_scale > 0));
}
/* Quantizes x [n, dim] (rows ldx floats apart) under the input scale `scale` into out (rows ldo floats
 * apart), which may be x, on all threads. */
void moe_cpu_quantize(struct moe_host *d, const float *x, int64_t ldx, float scale, int64_t dim, int64_t n,
                      float *out, int64_t ldo);
/* y [n, rows of w] = x w^T, on all threads; x is quantized first where moe_cpu_quantizes says so.  Must not
 * be called while d->gate is in use. */
void moe_cpu_matmul(struct moe_host *d, const struct moe_weight *w, const float *x, int64_t n, float *y);

void moe_cpu_embed(struct moe_device *d, struct moe_addr h);
void moe_cpu_norm(struct moe_device *d, int layer, enum moe_norm which, struct moe_addr h,
                  struct moe_addr add, struct moe_addr out);
void moe_cpu_linear(struct moe_device *d, int layer, enum moe_role role, struct moe_addr x,
                    struct moe_addr y);
void moe_cpu_logits(struct moe_device *d, const int32_t *row, int64_t n, struct moe_addr h,
                    struct moe_addr logits);
void moe_cpu_sample(struct moe_device *d, const struct moe_drawing *w, int64_t n, int64_t vocab,
                    struct moe_addr logits, struct moe_addr ids);
void moe_cpu_check(struct moe_device *d, struct moe_addr x, int64_t n);

/* ---- attention.c ---- */

void moe_cpu_append(struct moe_device *d, int layer, struct moe_addr q, struct moe_addr ckv);
void moe_cpu_attend(struct moe_device *d, int layer, struct moe_addr q, struct moe_addr out);
/* The memory of absorbed attention for batches of t tokens, in floats.  It has room for a number of partial
 * results that the context does not raise above some for each thread. */
int64_t moe_attention_floats(const struct moe_config *c, int64_t t, int64_t context, enum moe_mla mla,
                             int threads);
/* The scratch memory that a thread needs for attention over `context` positions, in floats. */
int64_t moe_attention_worker_floats(const struct moe_config *c, int64_t context, enum moe_mla mla);

/* ---- mlps.c ---- */

void moe_cpu_route(struct moe_device *d, int layer, struct moe_addr x, const struct moe_choices *c);
void moe_cpu_mlps(struct moe_device *d, int layer, struct moe_addr x, const struct moe_choices *c,
                  struct moe_addr y);
void moe_cpu_combine(struct moe_device *d, const struct moe_choices *c, struct moe_addr y,
                     struct moe_addr h);
void moe_cpu_serve(struct moe_device *d, int layer, const struct moe_choice *list, int64_t n);

#endif
