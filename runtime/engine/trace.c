/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/trace.h"

#include "base/minmax.h"
#include "formats/checkpoint/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct moe_file_kind moe_trace_kind = {
    .name = "a trace",
    .marks = { { 8, "{\"__metadata__\":{\"format\":\"pt\"},\"tokens\":", { "\"hidden.0\":" } } },
};

/* The state of writing a trace. */
struct tracer {
    struct moe_engine *e;
    int64_t n, rows;             /* tokens; how many tokens' logits are computed at once */
    float *h, *logits, *weights; /* [n, H], [rows, V], [n, k] of the present layer */
    int32_t *experts;            /* [n, k] of the present layer */
    struct moe_latent cache;     /* of the sequence */
    int64_t routed;              /* tokens for which the present layer has chosen experts */
    struct moe_st_writer *w;
};

/* struct moe_hooks.routed: keeps the choices of the next `tokens` tokens of a layer. */
static void routed(void *ctx, int layer, int64_t tokens, const int32_t *experts, const float *weights)
{
    struct tracer *t = ctx;
    int64_t k = t->e->model->config.num_experts_per_tok;
    (void)layer;
    memcpy(t->experts + t->routed * k, experts, (size_t)(tokens * k) * sizeof *experts);
    memcpy(t->weights + t->routed * k, weights, (size_t)(tokens * k) * sizeof *weights);
    t->routed += tokens;
}

/* Adds a tensor to the list of those that the file will hold; cols 0: it has one dimension. */
static void entry(struct moe_st_entry *t, int64_t *n, struct moe_arena *a, const char *fmt, int layer,
                  const char *dtype, int64_t rows, int64_t cols)
{
    char *name = moe_arena_alloc(a, 40);
    if (name) snprintf(name, 40, fmt, layer);
    t[(*n)++] = (struct moe_st_entry){
        .name = name ? name : "", .dtype = dtype, .ndim = cols ? 2 : 1, .shape = { rows, cols }
    };
}

static enum moe_code start(struct tracer *t, const char *path, struct moe_err *err)
{
    const struct moe_config *c = &t->e->model->config;
    struct moe_arena a = MOE_ARENA_INIT;
    struct moe_st_entry *list = MOE_NEWN(&a, struct moe_st_entry, 3 * c->num_hidden_layers + 2);
    int64_t n = 0;
    if (!list) return moe_fail(err, MOE_NOMEM, "no memory for a trace");
    entry(list, &n, &a, "tokens", 0, "I32", t->n, 0);
    for (int l = 0; l < c->num_hidden_layers; l++) {
        entry(list, &n, &a, "hidden.%d", l, "F32", t->n, c->hidden_size);
        if (!moe_layer_is_moe(c, l)) continue;
        entry(list, &n, &a, "experts.%d", l, "I32", t->n, c->num_experts_per_tok);
        entry(list, &n, &a, "expert_weights.%d", l, "F32", t->n, c->num_experts_per_tok);
    }
    entry(list, &n, &a, "logits", 0, "F32", t->n, c->vocab_size);
    enum moe_code code = moe_st_create(&t->w, path, list, n, err);
    moe_arena_clear(&a);
    return code;
}

static enum moe_code one_layer(struct tracer *t, int l, struct moe_err *err)
{
    struct moe_engine *e = t->e;
    const struct moe_config *c = &e->model->config;
    t->routed = 0;
    for (int64_t i = 0; i < t->n; i += e->batch) {
        const struct moe_segment s = { &t->cache, t->cache.every, i, moe_min_i64(t->n - i, e->batch) };
        const struct moe_batch b = { NULL, s.n, &s, 1 };
        moe_forward_put(e->forward, t->h + i * c->hidden_size, s.n);
        moe_forward_layer(e->forward, l, &b);
        MOE_TRY(moe_forward_get(e->forward, t->h + i * c->hidden_size, s.n, err));
    }
    MOE_TRY(moe_st_write(t->w, t->h, (size_t)(t->n * c->hidden_size) * sizeof *t->h, err));
    if (moe_layer_is_moe(c, l)) {
        size_t k = (size_t)(t->n * c->num_experts_per_tok);
        MOE_TRY(moe_st_write(t->w, t->experts, k * sizeof *t->experts, err));
        MOE_TRY(moe_st_write(t->w, t->weights, k * sizeof *t->weights, err));
    }
    return moe_cancel_check(e->cancel, err);
}

static enum moe_code run(struct tracer *t, const int32_t *ids, struct moe_err *err)
{
    struct moe_engine *e = t->e;
    const struct moe_config *c = &e->model->config;
    MOE_TRY(moe_st_write(t->w, ids, (size_t)t->n * sizeof *ids, err));
    for (int64_t i = 0; i < t->n; i += e->batch) {
        const struct moe_batch b = { .tokens = ids + i, .n = moe_min_i64(t->n - i, e->batch) };
        MOE_TRY(moe_forward_embed(e->forward, &b, err));
        MOE_TRY(moe_forward_get(e->forward, t->h + i * c->hidden_size, b.n, err));
    }
    for (int l = 0; l < c->num_hidden_layers; l++) MOE_TRY(one_layer(t, l, err));
    for (int64_t i = 0, m; i < t->n; i += m) {
        m = t->n - i < t->rows ? t->n - i : t->rows;
        moe_forward_put(e->forward, t->h + i * c->hidden_size, m);
        moe_forward_logits(e->forward, NULL, m, t->logits);
        MOE_TRY(moe_forward_wait(e->forward, err));
        MOE_TRY(moe_st_write(t->w, t->logits, (size_t)(m * c->vocab_size) * sizeof *t->logits, err));
    }
    return moe_cancel_check(e->cancel, err);
}

enum moe_code moe_trace(struct moe_engine *e, const int32_t *ids, int64_t n, const char *path,
                        struct moe_err *err)
{
    const struct moe_config *c = &e->model->config;
    struct tracer t = { .e = e, .n = n, .rows = moe_forward_logit_rows(c, e->batch) };
    size_t k = (size_t)(n * (c->num_experts_per_tok + 1));
    if (n < 1) return moe_fail(err, MOE_USAGE, "the prompt is empty (give some text, --tokens, or --bos)");
    if (t.rows > n) t.rows = n;
    if (n > e->context)
        return moe_fail(err, MOE_USAGE,
                        "%lld tokens do not fit the context of %lld (raise --context, or shorten the prompt)",
                        (long long)n, (long long)e->context);
    MOE_TRY(moe_latent_open(&t.cache, e->device, c->num_hidden_layers, moe_latent_pages(n), err));
    t.h = malloc((size_t)(n * c->hidden_size) * sizeof *t.h);
    t.logits = malloc((size_t)(t.rows * c->vocab_size) * sizeof *t.logits);
    t.experts = malloc(k * sizeof *t.experts);
    t.weights = malloc(k * sizeof *t.weights);
    enum moe_code code = t.h && t.logits && t.experts && t.weights
                           ? start(&t, path, err)
                           : moe_fail(err, MOE_NOMEM, "no memory for a trace");
    moe_forward_hooks(e->forward, &(struct moe_hooks){ .ctx = &t, .routed = routed });
    if (code == MOE_OK) code = run(&t, ids, err);
    moe_forward_hooks(e->forward, NULL);
    if (code == MOE_OK) code = moe_file_kind_check(path, &moe_trace_kind, err);
    if (code == MOE_OK) code = moe_st_finish(&t.w, err);
    else moe_st_abort(&t.w);
    moe_latent_release(&t.cache);
    free(t.h);
    free(t.logits);
    free(t.experts);
    free(t.weights);
    return code;
}
