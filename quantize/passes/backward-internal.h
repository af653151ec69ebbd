/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/passes/backward-internal.h - the buffers and products that backward*.c share. */
#ifndef MOE_QUANTIZE_PASSES_BACKWARD_INTERNAL_H
#define MOE_QUANTIZE_PASSES_BACKWARD_INTERNAL_H

#include "kernels/kernels.h"
#include "quantize/passes/backward.h"

struct moe_backward {
    const struct moe_model *m;
    const struct moe_kernels *k;
    struct moe_pool *pool;
    struct moe_backward_observer observer;
    int64_t max_tokens, sequence;
    float *rows; /* buffers of rows; each call divides them as it needs (struct moe_backward_room) */
    float *worker; /* [threads, worker_floats] */
    int64_t worker_floats;
};

/* Divides memory into arrays, one moe_backward_take after the other.  base NULL: it only counts. */
struct moe_backward_room { float *base; int64_t used; };

static inline float *moe_backward_take(struct moe_backward_room *r, int64_t floats)
{
    int64_t at = r->used;
    r->used += (floats + 15) / 16 * 16;
    return r->base ? r->base + at : NULL;
}

/* fn for n items on all threads; in the calling thread where `work` multiply-adds are too few to wake
 * others. */
static inline void moe_backward_each(struct moe_backward *b, int64_t n, int64_t work,
                                     void (*fn)(void *, int64_t, int), void *ctx)
{
    moe_pool_run(work < (int64_t)1 << 19 ? NULL : b->pool, n, fn, ctx);
}

/* Shows gradients to the observer, if there is one. */
static inline void moe_backward_show(const struct moe_backward *b, enum moe_role role, const float *dy,
                                     int64_t ldy, int64_t n)
{
    if (b->observer.output) b->observer.output(b->observer.ctx, role, dy, ldy, n);
}

/* y [n, rows of w] = w x, rows ldx and ldy floats apart, as the forward pass computes it.  It consists of
 * independent items, so that several products can share one moe_backward_each. */
struct moe_backward_product {
    struct moe_backward *b;
    const struct moe_weight *w;
    const float *x;
    int64_t ldx, n;
    float *y;
    int64_t ldy;
};
int64_t moe_backward_product_items(const struct moe_backward_product *p);
void moe_backward_product_item(const struct moe_backward_product *p, int64_t item);
void moe_backward_product(struct moe_backward *b, const struct moe_weight *w, const float *x, int64_t ldx,
                          int64_t n, float *y);

/* dx [n, cols of w] += dy [n, r1 - r0] times rows [r0, r1) of w; rows lddx and lddy floats apart.
 * fresh: = instead of +=. */
struct moe_backward_transposed {
    struct moe_backward *b;
    const struct moe_weight *w;
    int64_t r0, r1;
    const float *dy;
    int64_t lddy, n;
    float *dx;
    int64_t lddx;
    bool fresh;
};
/* Rows and columns of w that a work item dequantizes at once; the kernel gemm takes as many. */
enum { MOE_BACKWARD_DEPTH = 256, MOE_BACKWARD_COLS = 192 };
int64_t moe_backward_transposed_items(const struct moe_backward_transposed *t);
void moe_backward_transposed_item(const struct moe_backward_transposed *t, int64_t item, int worker);
void moe_backward_transposed(const struct moe_backward_transposed *t);

/* Computes a norm of the forward pass again: out [n, dim] = rms(x [n, dim], w), rows ld floats apart. */
void moe_backward_recompute_norm(struct moe_backward *b, const float *x, const float *w, float eps,
                                 int64_t dim, int64_t ld, int64_t n, float *out);

/* Floats of moe_backward.rows for n tokens, and of one worker's memory. */
int64_t moe_backward_head_floats(const struct moe_config *c, int64_t n);
int64_t moe_backward_attention_floats(const struct moe_config *c, int64_t n);
int64_t moe_backward_attention_worker_floats(const struct moe_config *c, int64_t sequence);

#endif
