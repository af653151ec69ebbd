/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/passes/backward-internal.h - buffers and products that backward*.c
 * share; for quantize/ alone. */
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
    /* of the call at hand, which lays it out (struct moe_backward_room) */
    float *rows;
    float *worker; int64_t worker_floats; /* [threads, worker_floats] */
};

/* Memory laid out piece by piece; base NULL: only counted. */
struct moe_backward_room { float *base; int64_t used; };

static inline float *moe_backward_take(struct moe_backward_room *r, int64_t floats)
{
    int64_t at = r->used;
    r->used += (floats + 15) / 16 * 16;
    return r->base ? r->base + at : NULL;
}

/* moe_pool_run, or in the caller when `work` multiply-adds are not worth waking threads. */
static inline void moe_backward_each(struct moe_backward *b, int64_t n, int64_t work,
                                     void (*fn)(void *, int64_t, int), void *ctx)
{
    moe_pool_run(work < (int64_t)1 << 19 ? NULL : b->pool, n, fn, ctx);
}

static inline void moe_backward_saw(const struct moe_backward *b, enum moe_role role, const float *dy,
                                    int64_t ldy, int64_t n)
{
    if (b->observer.output) b->observer.output(b->observer.ctx, role, dy, ldy, n);
}

/* y [n, rows of w] (ldy apart) = w x: what the forward pass computes.  Items of moe_backward_product_item. */
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

/* dx [n, cols of w] (lddx apart) += dy [n, r1 - r0] (lddy apart) times rows [r0, r1) of
 * w; fresh: = instead of +=. */
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
/* of w that an item decodes at once: what gemm takes at once, too */
enum { MOE_BACKWARD_DEPTH = 256, MOE_BACKWARD_COLS = 192 };
int64_t moe_backward_transposed_items(const struct moe_backward_transposed *t);
void moe_backward_transposed_item(const struct moe_backward_transposed *t, int64_t item, int worker);
void moe_backward_transposed(const struct moe_backward_transposed *t);

/* out [n, dim] = rms(x [n, dim], w), both ld apart: k->rmsnorm. */
void moe_backward_normed(struct moe_backward *b, const float *x, const float *w, float eps, int64_t dim,
                         int64_t ld, int64_t n, float *out);

/* Of struct moe_backward's rows and of one worker's memory, what these take. */
int64_t moe_backward_head_floats(const struct moe_config *c, int64_t n);
int64_t moe_backward_attention_floats(const struct moe_config *c, int64_t n);
int64_t moe_backward_attention_worker_floats(const struct moe_config *c, int64_t sequence);

#endif
