/* SPDX-License-Identifier: Apache-2.0 */
#include "model/forward.h"

#include "base/minmax.h"

#include <stdlib.h>

enum { BUFFERS = 16 };

struct moe_forward {
    struct moe_device *d;
    struct moe_hooks hooks;
    struct moe_dispatcher dispatcher;
    enum moe_code code; struct moe_err err; /* the first failure that no wait has returned */
    bool broken;                            /* the dispatcher or the device failed: code stays */
    struct moe_err *blamed;                 /* [1 + layers] what moe_model_blame said of the head and of each
                                               layer, since it reads all their weights; NULL: nobody asked */
    const struct moe_batch *batch;          /* of a step that was not waited for; NULL: there is none */
    int layer;                              /* the layer computed last; -1: none since the embedding */
    struct moe_addr h, x, y;                /* [T, H] */
    struct moe_addr qa, q, ckv, attn;       /* [T, ql], [T, heads, nope + rope], [T, kl + rope],
                                               [T, heads, v] */
    struct moe_choices choices;
    struct moe_addr logits, ids;            /* [rows, V], [rows] (int32) */
    struct moe_addr owned[BUFFERS]; int n_owned;
};

/* ---- buffers ---- */

int64_t moe_forward_logit_rows(const struct moe_config *c, int64_t max_tokens)
{
    int64_t n = ((int64_t)32 << 20) / (4 * c->vocab_size);
    return moe_min_i64(moe_max_i64(n, 8), max_tokens);
}

struct buffer { struct moe_addr *at; int64_t items; };

/* Lists all buffers for batches of t tokens, of items of 4 bytes; returns how many they are. */
static int list(struct moe_forward *f, const struct moe_config *c, int64_t t, struct buffer b[BUFFERS])
{
    int64_t k = c->num_experts_per_tok, rows = moe_forward_logit_rows(c, t), heads = c->num_attention_heads;
    const struct buffer all[] = { { &f->h, t * c->hidden_size },
                                  { &f->x, t * c->hidden_size },
                                  { &f->y, t * c->hidden_size },
                                  { &f->qa, t * c->q_lora_rank },
                                  { &f->q, t * heads * (c->qk_nope_head_dim + c->qk_rope_head_dim) },
                                  { &f->ckv, t * (c->kv_lora_rank + c->qk_rope_head_dim) },
                                  { &f->attn, t * heads * c->v_head_dim },
                                  { &f->choices.experts, t * k },
                                  { &f->choices.weights, t * k },
                                  { &f->choices.slot, t * k },
                                  { &f->choices.rows, t * k * c->hidden_size },
                                  { &f->logits, rows * c->vocab_size },
                                  { &f->ids, rows } };
    int n = (int)(sizeof all / sizeof *all);
    for (int i = 0; i < n; i++) b[i] = all[i];
    return n;
}

uint64_t moe_forward_estimate(const struct moe_config *c, int64_t max_tokens)
{
    struct moe_forward f;
    struct buffer b[BUFFERS];
    uint64_t bytes = sizeof f;
    for (int i = list(&f, c, max_tokens, b) - 1; i >= 0; i--) bytes += (uint64_t)b[i].items * 4 + 64;
    return bytes;
}

enum moe_code moe_forward_open(struct moe_forward **out, struct moe_device *d, struct moe_err *err)
{
    struct moe_forward *f = calloc(1, sizeof *f);
    struct buffer b[BUFFERS];
    enum moe_code code = MOE_OK;

    *out = NULL;
    if (!f) return moe_fail(err, MOE_NOMEM, "no memory for a forward pass");
    f->d = d;
    int n = list(f, &d->model->config, d->max_tokens, b);
    for (int i = 0; code == MOE_OK && i < n; i++) {
        code = d->ops->alloc(d, (uint64_t)b[i].items * 4 + 64, b[i].at, err);
        f->owned[f->n_owned++] = *b[i].at;
    }
    if (code != MOE_OK) {
        moe_forward_close(&f);
        moe_wrap(err, "batches of %lld tokens", (long long)d->max_tokens);
        return code == MOE_NOMEM ? moe_err_remedy(err, "try a smaller --context") : code;
    }
    *out = f;
    return MOE_OK;
}

void moe_forward_close(struct moe_forward **f)
{
    if (!*f) return;
    for (int i = 0; i < (*f)->n_owned; i++) (*f)->d->ops->free((*f)->d, (*f)->owned[i]);
    free((*f)->blamed);
    free(*f);
    *f = NULL;
}

struct moe_device *moe_forward_device(const struct moe_forward *f) { return f->d; }

void moe_forward_hooks(struct moe_forward *f, const struct moe_hooks *hooks)
{
    f->hooks = hooks ? *hooks : (struct moe_hooks){ .ctx = NULL };
    f->d->ops->hooks(f->d, hooks);
}

bool moe_forward_has_hooks(const struct moe_forward *f) { return f->hooks.routed || f->hooks.input; }

void moe_forward_dispatcher(struct moe_forward *f, const struct moe_dispatcher *e)
{
    f->dispatcher = e ? *e : (struct moe_dispatcher){ .ctx = NULL };
}

/* ---- layers ---- */

/* y = attention(rms(h)). */
static void attention(struct moe_forward *f, int layer)
{
    struct moe_device *d = f->d;
    const struct moe_addr none = { 0 };
    d->ops->norm(d, layer, MOE_NORM_INPUT, f->h, none, f->x);
    d->ops->linear(d, layer, MOE_ROLE_KV_A, f->x, f->ckv);
    if (d->model->config.q_lora_rank) {
        d->ops->linear(d, layer, MOE_ROLE_Q_A, f->x, f->qa);
        d->ops->norm(d, layer, MOE_NORM_Q_A, f->qa, none, f->qa);
        d->ops->linear(d, layer, MOE_ROLE_Q_B, f->qa, f->q);
    } else {
        d->ops->linear(d, layer, MOE_ROLE_Q, f->x, f->q);
    }
    d->ops->append(d, layer, f->q, f->ckv);
    d->ops->attend(d, layer, f->q, f->attn);
    d->ops->linear(d, layer, MOE_ROLE_O, f->attn, f->y);
}

/* Has the dispatcher compute the routed experts, and the device the shared one meanwhile.  False after a
 * failure. */
static bool dispatch(struct moe_forward *f, int layer, int64_t tokens)
{
    struct moe_dispatcher *e = &f->dispatcher;
    if (f->code == MOE_OK)
        f->code = e->dispatch(e->ctx, f->d, layer, tokens, f->x, &f->choices, &f->err);
    if (f->code == MOE_OK) f->d->ops->mlps(f->d, layer, f->x, NULL, f->y);
    if (f->code == MOE_OK) f->code = e->combine(e->ctx, f->d, &f->choices, &f->err);
    f->broken |= f->code != MOE_OK;
    return f->code == MOE_OK;
}

/* h += y, and then h += ffn(rms(h)). */
static void feed_forward(struct moe_forward *f, int layer, int64_t tokens)
{
    struct moe_device *d = f->d;
    const struct moe_layer *w = &d->model->layers[layer];
    struct moe_addr y = w->moe && !w->shared.gate.data ? (struct moe_addr){ 0 } : f->y;

    d->ops->norm(d, layer, MOE_NORM_POST, f->h, f->y, f->x);
    if (w->moe) d->ops->route(d, layer, f->x, &f->choices);
    if (w->moe && f->dispatcher.dispatch) {
        if (!dispatch(f, layer, tokens)) return;
    } else {
        d->ops->mlps(d, layer, f->x, w->moe ? &f->choices : NULL, y);
    }
    d->ops->combine(d, w->moe ? &f->choices : NULL, y, f->h);
}

static void compute_layer(struct moe_forward *f, int layer, const struct moe_batch *b)
{
    f->layer = layer;
    attention(f, layer);
    feed_forward(f, layer, b->n);
}

/* ---- failures ---- */

/* Waits, and keeps the first failure of the device; true where a NaN or Inf was noted. */
static bool wait_word(struct moe_forward *f)
{
    uint32_t word = 0;
    struct moe_err err = MOE_ERR_INIT;
    enum moe_code code = f->d->ops->wait(f->d, &word, &err);
    if (code != MOE_OK && f->code == MOE_OK) {
        f->code = code;
        f->err = err;
        f->broken = true;
    }
    return word & MOE_WORD_NONFINITE;
}

/* Sets the failure to what is wrong with a layer (-1: the head) that has computed a NaN or Inf. */
static void blame(struct moe_forward *f, int layer)
{
    if (!f->blamed)
        f->blamed = calloc((size_t)f->d->model->config.num_hidden_layers + 1, sizeof *f->blamed);
    struct moe_err *known = f->blamed ? &f->blamed[layer + 1] : NULL;
    if (known && known->code != MOE_OK) f->err = *known;
    else moe_model_blame(f->d->model, layer, &f->err);
    f->code = f->err.code;
    if (known) *known = f->err;
}

/* Checks h after `layer`, at once; false after a failure. */
static bool check_layer(struct moe_forward *f, int layer, int64_t n)
{
    f->d->ops->check(f->d, f->h, n * f->d->model->config.hidden_size);
    if (wait_word(f) && f->code == MOE_OK) blame(f, layer);
    return f->code == MOE_OK;
}

static void compute_all(struct moe_forward *f, const struct moe_batch *b, bool check)
{
    f->d->ops->begin(f->d, b);
    f->d->ops->embed(f->d, f->h);
    f->layer = -1;
    for (int l = 0; l < f->d->model->config.num_hidden_layers; l++) {
        compute_layer(f, l, b);
        if (check && !check_layer(f, l, b->n)) return;
    }
}

/* Finds out where a NaN or Inf came from: computes the step again, and checks after each layer.  Its rows of
 * the cache become what they are already. */
static void blame_step(struct moe_forward *f)
{
    f->d->ops->hooks(f->d, NULL);
    compute_all(f, f->batch, true);
    f->d->ops->hooks(f->d, &f->hooks);
    if (f->code == MOE_OK) blame(f, -1);
}

enum moe_code moe_forward_wait(struct moe_forward *f, struct moe_err *err)
{
    if (wait_word(f) && f->code == MOE_OK) {
        if (f->batch && !f->dispatcher.dispatch) blame_step(f);
        else blame(f, f->layer);
    }
    f->batch = NULL;
    f->layer = -1; /* what comes next without another step can only be logits */
    enum moe_code code = f->code;
    if (code != MOE_OK) *err = f->err;
    if (!f->broken) f->code = MOE_OK; /* other steps may go well */
    return code;
}

enum moe_code moe_forward_finite(struct moe_forward *f, int64_t row, int64_t n, bool *finite,
                                 struct moe_err *err)
{
    uint64_t bytes = (uint64_t)f->d->model->config.hidden_size * sizeof(float);
    uint32_t word;
    f->d->ops->check(f->d, moe_addr_plus(f->h, (uint64_t)row * bytes), n * f->d->model->config.hidden_size);
    MOE_TRY(f->d->ops->wait(f->d, &word, err));
    *finite = !(word & MOE_WORD_NONFINITE);
    return MOE_OK;
}

static enum moe_code check_tokens(const struct moe_forward *f, const struct moe_batch *b, struct moe_err *err)
{
    int64_t v = f->d->model->config.vocab_size;
    for (int64_t t = 0; t < b->n; t++)
        if (b->tokens[t] < 0 || b->tokens[t] >= v)
            return moe_fail(err, MOE_MISMATCH, "token %d is outside the model's vocabulary of %lld",
                            b->tokens[t], (long long)v);
    return MOE_OK;
}

/* ---- a step ---- */

enum moe_code moe_forward_run(struct moe_forward *f, const struct moe_batch *b, struct moe_err *err)
{
    MOE_TRY(check_tokens(f, b, err));
    f->batch = b;
    /* with a dispatcher the host waits in each layer anyway, and one rank cannot compute a step again */
    compute_all(f, b, f->dispatcher.dispatch != NULL);
    if (f->code == MOE_OK) f->d->ops->check(f->d, f->h, b->n * f->d->model->config.hidden_size);
    return MOE_OK;
}

static void compute_logits(struct moe_forward *f, const int32_t *row, int64_t n)
{
    const struct moe_config *c = &f->d->model->config;
    MOE_CHECK(n <= moe_forward_logit_rows(c, f->d->max_tokens));
    f->d->ops->logits(f->d, row, n, f->h, f->logits);
    f->d->ops->check(f->d, f->logits, n * c->vocab_size);
}

void moe_forward_logits(struct moe_forward *f, const int32_t *row, int64_t n, float *logits)
{
    if (f->code != MOE_OK) return;
    compute_logits(f, row, n);
    f->d->ops->read(f->d, logits, f->logits, (uint64_t)(n * f->d->model->config.vocab_size) * sizeof *logits);
}

void moe_forward_sample(struct moe_forward *f, const int32_t *row, int64_t n, const struct moe_drawing *w,
                        int64_t vocab, int32_t *ids)
{
    if (f->code != MOE_OK) return;
    compute_logits(f, row, n);
    f->d->ops->sample(f->d, w, n, vocab, f->logits, f->ids);
    f->d->ops->read(f->d, ids, f->ids, (uint64_t)n * sizeof *ids);
}

/* ---- a layer at a time ---- */

void moe_forward_put(struct moe_forward *f, const float *h, int64_t n)
{
    f->batch = NULL;
    f->layer = -1;
    f->d->ops->write(f->d, f->h, h, (uint64_t)(n * f->d->model->config.hidden_size) * sizeof *h);
}

enum moe_code moe_forward_embed(struct moe_forward *f, const struct moe_batch *b, struct moe_err *err)
{
    MOE_TRY(check_tokens(f, b, err));
    f->batch = NULL;
    f->layer = -1;
    f->d->ops->begin(f->d, b);
    f->d->ops->embed(f->d, f->h);
    return MOE_OK;
}

void moe_forward_layer(struct moe_forward *f, int layer, const struct moe_batch *b)
{
    f->batch = NULL;
    f->d->ops->begin(f->d, b);
    compute_layer(f, layer, b);
}

void moe_forward_attention(struct moe_forward *f, int layer, const struct moe_batch *b)
{
    f->batch = NULL;
    f->layer = layer;
    f->d->ops->begin(f->d, b);
    attention(f, layer);
    f->d->ops->combine(f->d, NULL, f->y, f->h);
}

enum moe_code moe_forward_get(struct moe_forward *f, float *h, int64_t n, struct moe_err *err)
{
    int64_t values = n * f->d->model->config.hidden_size;
    f->d->ops->check(f->d, f->h, values);
    f->d->ops->read(f->d, h, f->h, (uint64_t)values * sizeof *h);
    return moe_forward_wait(f, err);
}

enum moe_code moe_forward_route(struct moe_forward *f, int layer, const float *h, int64_t n, int32_t *experts,
                                float *weights, struct moe_err *err)
{
    uint64_t choices = (uint64_t)(n * f->d->model->config.num_experts_per_tok);
    const struct moe_batch b = { .n = n };
    moe_forward_put(f, h, n);
    f->layer = layer;
    f->d->ops->begin(f->d, &b);
    f->d->ops->norm(f->d, layer, MOE_NORM_POST, f->h, (struct moe_addr){ 0 }, f->x);
    f->d->ops->route(f->d, layer, f->x, &f->choices);
    f->d->ops->read(f->d, experts, f->choices.experts, choices * sizeof *experts);
    f->d->ops->read(f->d, weights, f->choices.weights, choices * sizeof *weights);
    return moe_forward_wait(f, err);
}
