/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/rounding/output-hessian.h"

#include <stdlib.h>

uint64_t moe_output_hessian_estimate(int64_t k)
{
    return moe_hessian_estimate(k) + (uint64_t)k * sizeof(int32_t);
}

enum moe_code moe_output_hessian_open(struct moe_output_hessian *m, int64_t k, struct moe_err *err)
{
    m->order = NULL;
    MOE_TRY(moe_hessian_open(&m->hessian, k, err));
    m->order = malloc((size_t)k * sizeof *m->order);
    if (m->order) return MOE_OK;
    moe_output_hessian_release(m);
    return moe_fail(err, MOE_NOMEM, "no memory for an output Hessian of %lld rows", (long long)k);
}

void moe_output_hessian_release(struct moe_output_hessian *m)
{
    moe_hessian_release(&m->hessian);
    free(m->order);
    m->order = NULL;
}

struct ranked { float size; int32_t row; };

static int ascending(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->size != y->size ? (x->size > y->size) - (x->size < y->size)
                              : (x->row > y->row) - (x->row < y->row);
}

/* Sets m->order: rows by ascending diagonal, equal ones as they stand. */
static enum moe_code rank(struct moe_output_hessian *m, struct moe_err *err)
{
    int64_t k = m->hessian.k;
    struct ranked *r = malloc((size_t)k * sizeof *r);
    if (!r) return moe_fail(err, MOE_NOMEM, "no memory for an output Hessian of %lld rows", (long long)k);
    for (int64_t i = 0; i < k; i++) r[i] = (struct ranked){ m->hessian.h[i * k + i], (int32_t)i };
    qsort(r, (size_t)k, sizeof *r, ascending);
    for (int64_t i = 0; i < k; i++) m->order[i] = r[i].row;
    free(r);
    return MOE_OK;
}

enum moe_code moe_output_hessian_finish(struct moe_output_hessian *m, double damp, struct moe_pool *pool,
                                        struct moe_err *err)
{
    struct moe_hessian *f = &m->hessian;
    int64_t k = f->k;
    MOE_TRY(rank(m, err));
    for (int64_t i = 0; i < k; i++) /* only what is below the diagonal of h is valid */
        for (int64_t j = 0; j <= i; j++) {
            int64_t a = m->order[i], b = m->order[j];
            f->l[i * k + j] = a > b ? f->h[a * k + b] : f->h[b * k + a];
        }
    float *t = f->h;
    f->h = f->l;
    f->l = t;
    return moe_hessian_factor(f, damp, pool, err);
}
