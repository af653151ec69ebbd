/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/pass.h - a forward pass on the processor for tests, a layer at a time on arrays of the host; or
 * on ops/checked around it, where `pass_checked` is set.  Programs that include this are linked with
 * --wrap=moe_cpu_open, so that engines get such devices, too. */
#ifndef MOE_TESTS_UNIT_PASS_H
#define MOE_TESTS_UNIT_PASS_H

#include "model/forward.h"
#include "model/ops/cpu/cpu.h"
#include "tests/ops/wrap.h"

struct passing { struct moe_device *d; struct moe_forward *f; };

/* Whether devices that are opened from now on are wrapped. */
static bool pass_checked;

bool wrap_wanted(void) { return pass_checked; }

static void pass_must(enum moe_code code, const struct moe_err *e)
{
    if (code == MOE_OK) return;
    fprintf(stderr, "pass: %s\n", e->msg);
    exit(1);
}

static inline void passing_open(struct passing *p, const struct moe_model *m,
                                const struct moe_cpu_options *o, struct moe_pool *pool)
{
    struct moe_err e;
    pass_must(moe_cpu_open(&p->d, m, o, pool, &e), &e);
    pass_must(moe_forward_open(&p->f, p->d, &e), &e);
}

static inline void passing_close(struct passing *p)
{
    moe_forward_close(&p->f);
    moe_device_close(&p->d);
}

/* One layer of h [n, H], n being the tokens of the segments; returns what moe_forward_get does. */
static inline enum moe_code passing_layer(struct moe_forward *f, int layer, const struct moe_segment *s,
                                   int64_t n_segments, float *h, struct moe_err *e)
{
    struct moe_batch b = { .segment = s, .n_segments = n_segments };
    for (int64_t i = 0; i < n_segments; i++) b.n += s[i].n;
    moe_forward_put(f, h, b.n);
    moe_forward_layer(f, layer, &b);
    return moe_forward_get(f, h, b.n, e);
}

/* The logits [n, V] of states h [n, H]. */
static inline enum moe_code passing_logits(struct moe_forward *f, const float *h, int64_t n,
                                           float *logits, struct moe_err *e)
{
    const struct moe_device *d = moe_forward_device(f);
    const struct moe_config *c = &d->model->config;
    enum moe_code code = MOE_OK;
    for (int64_t i = 0, m, rows = moe_forward_logit_rows(c, d->max_tokens); code == MOE_OK && i < n; i += m) {
        m = n - i < rows ? n - i : rows;
        moe_forward_put(f, h + i * c->hidden_size, m);
        moe_forward_logits(f, NULL, m, logits + i * c->vocab_size);
        code = moe_forward_wait(f, e);
    }
    return code;
}

#endif
