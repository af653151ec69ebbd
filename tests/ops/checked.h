/* SPDX-License-Identifier: Apache-2.0 */
/* tests/ops/checked.h - a device that wraps another and takes every liberty that model/ops/ops.h leaves to a
 * device, so that what passes here does not lean on how the processor does it:
 *
 *   - addresses are none that the host can read: following one is a fault
 *   - nothing is done before `wait`, and then in a random order, of which only what the arguments of two
 *     operations have in common decides
 *   - what an operation is about to write, and what it may destroy, is filled with NaN first; so is new
 *     memory, host memory that a read will fill, and rows of the cache that are undefined: those behind the
 *     rows that a pass or a copy has written, whatever another sequence left there
 *   - host memory that a call is given (a batch with all that it points to, arrays of rows and drawings) is
 *     copied during the call and compared when the operation is done: it must not have changed, because a
 *     device may read it early or late */
#ifndef MOE_TESTS_OPS_CHECKED_H
#define MOE_TESTS_OPS_CHECKED_H

#include "tests/ops/checked-batch.h"

enum checked_kind {
    CHECKED_WRITE, CHECKED_READ, CHECKED_COPY, CHECKED_EMBED, CHECKED_NORM, CHECKED_LINEAR, CHECKED_APPEND,
    CHECKED_ATTEND, CHECKED_ROUTE, CHECKED_MLPS, CHECKED_COMBINE, CHECKED_LOGITS, CHECKED_SAMPLE,
    CHECKED_CHECK
};

enum { CHECKED_RANGES = 8 };

/* Memory of the device, or of the host. */
struct checked_range { uint64_t at, bytes; };
struct checked_ranges { struct checked_range v[CHECKED_RANGES]; int n; };

struct checked_op {
    enum checked_kind kind;
    bool done;
    struct checked_batch *batch;        /* NULL: it needs none */
    int layer;
    int which;                          /* the norm or the role */
    struct moe_addr a, b, c;            /* in the order of the arguments */
    struct moe_choices choices; bool has_choices;
    void *host; void *blob;             /* where a read goes; a copy of what the host handed over */
    const void *given;                  /* what it was copied from, where that may not change; else NULL */
    int64_t n, vocab;
    uint64_t bytes;
    const struct moe_latent *cache; struct moe_page_copy copy;
    struct checked_ranges reads, writes, lost; /* lost: also written, with what nobody may use */
};

struct checked {
    struct moe_device device;
    struct moe_device *inner;
    struct checked_batch *batch;        /* the present one, and those named before it since the last wait */
    struct checked_op *op; size_t n, cap;
    uint64_t random;
    uint64_t reordered;                 /* how often an operation was done before an earlier one */
};

static struct checked *checked_of(struct moe_device *d) { return (struct checked *)(void *)d; }

static void checked_add(struct checked_ranges *r, uint64_t at, uint64_t bytes)
{
    if (!at || !bytes) return;
    if (r->n == CHECKED_RANGES) checked_fail("more ranges than an operation has");
    r->v[r->n++] = (struct checked_range){ at, bytes };
}

static bool checked_meet(const struct checked_ranges *a, const struct checked_ranges *b)
{
    for (int i = 0; i < a->n; i++)
        for (int j = 0; j < b->n; j++)
            if (a->v[i].at < b->v[j].at + b->v[j].bytes && b->v[j].at < a->v[i].at + a->v[i].bytes)
                return true;
    return false;
}

/* Whether `later` must not be done before `earlier`. */
static bool checked_depends(const struct checked_op *later, const struct checked_op *earlier)
{
    return checked_meet(&later->reads, &earlier->writes) || checked_meet(&later->reads, &earlier->lost) ||
           checked_meet(&later->writes, &earlier->reads) || checked_meet(&later->writes, &earlier->writes) ||
           checked_meet(&later->writes, &earlier->lost) || checked_meet(&later->lost, &earlier->reads) ||
           checked_meet(&later->lost, &earlier->writes) || checked_meet(&later->lost, &earlier->lost);
}

static struct checked_op *checked_push(struct checked *c, enum checked_kind kind, int layer)
{
    if (c->n == c->cap) {
        c->cap = 2 * c->cap + 64;
        c->op = realloc(c->op, c->cap * sizeof *c->op);
        if (!c->op) checked_fail("no memory");
    }
    /* those on memory know no batch, and one that was named may be gone */
    struct checked_batch *b = kind <= CHECKED_COPY ? NULL : c->batch;
    c->op[c->n] = (struct checked_op){ .kind = kind, .layer = layer, .batch = b };
    return &c->op[c->n++];
}

/* ---- doing ---- */

static void checked_undefine(struct moe_addr page, int64_t width, int64_t from)
{
    memset((float *)(uintptr_t)page.at + from * width, 0xff,
           (size_t)((MOE_PAGE - from) * width) * sizeof(float));
}

/* Poisons the rows of the cache behind those that the operation has written. */
static void checked_undefine_rows(const struct checked_op *o)
{
    if (o->kind == CHECKED_COPY) {
        struct moe_latent l = *o->cache;
        l.rows = checked_plain(l.rows);
        for (int layer = 0; layer < l.layers; layer++)
            checked_undefine(moe_latent_at(&l, o->copy.to, layer), l.width, o->copy.rows);
    }
    if (o->kind != CHECKED_APPEND) return;
    for (int64_t i = 0; i < o->batch->batch.n_segments; i++) {
        const struct moe_segment *s = &o->batch->segment[i];
        int64_t end = s->first + s->n;
        if (end % MOE_PAGE)
            checked_undefine(moe_latent_at(s->cache, s->page[end / MOE_PAGE], o->layer), s->cache->width,
                             end % MOE_PAGE);
    }
}

static void checked_poison(const struct checked_op *o)
{
    for (int i = 0; i < o->writes.n; i++) {
        struct checked_ranges one = { .v = { o->writes.v[i] }, .n = 1 };
        if (checked_meet(&one, &o->reads) || !(one.v[0].at & CHECKED_TAG)) continue;
        /* these write only some rows of a cache */
        if (o->kind == CHECKED_APPEND || o->kind == CHECKED_COPY) continue;
        memset((void *)(uintptr_t)(one.v[0].at & ~CHECKED_TAG), 0xff, (size_t)one.v[0].bytes);
    }
}

static void checked_call(struct checked *c, struct checked_op *o)
{
    const struct moe_ops *in = c->inner->ops;
    struct moe_addr a = checked_plain(o->a), b = checked_plain(o->b), d = checked_plain(o->c);
    struct moe_choices k = { checked_plain(o->choices.experts), checked_plain(o->choices.weights),
                             checked_plain(o->choices.slot), checked_plain(o->choices.rows) };
    const struct moe_choices *choices = o->has_choices ? &k : NULL;
    struct moe_latent latent;
    switch (o->kind) {
    case CHECKED_WRITE: in->write(c->inner, a, o->blob, o->bytes); break;
    case CHECKED_READ: in->read(c->inner, o->host, a, o->bytes); break;
    case CHECKED_COPY:
        latent = *o->cache;
        latent.rows = checked_plain(latent.rows);
        in->copy(c->inner, &latent, &o->copy);
        break;
    case CHECKED_EMBED: in->embed(c->inner, a); break;
    case CHECKED_NORM: in->norm(c->inner, o->layer, (enum moe_norm)o->which, a, b, d); break;
    case CHECKED_LINEAR: in->linear(c->inner, o->layer, (enum moe_role)o->which, a, b); break;
    case CHECKED_APPEND: in->append(c->inner, o->layer, a, b); break;
    case CHECKED_ATTEND: in->attend(c->inner, o->layer, a, b); break;
    case CHECKED_ROUTE: in->route(c->inner, o->layer, a, &k); break;
    case CHECKED_MLPS: in->mlps(c->inner, o->layer, a, choices, b); break;
    case CHECKED_COMBINE: in->combine(c->inner, choices, a, b); break;
    case CHECKED_LOGITS: in->logits(c->inner, o->blob, o->n, a, b); break;
    case CHECKED_SAMPLE: in->sample(c->inner, o->blob, o->n, o->vocab, a, b); break;
    case CHECKED_CHECK: in->check(c->inner, a, o->n); break;
    }
}

static void checked_do(struct checked *c, struct checked_op *o)
{
    if (o->batch && !checked_unchanged(o->batch)) checked_fail("a batch changed before the wait");
    if (o->given && memcmp(o->given, o->blob, (size_t)o->bytes) != 0)
        checked_fail("an array of the host changed before the wait");
    checked_poison(o);
    if (o->batch) c->inner->ops->begin(c->inner, &o->batch->batch);
    checked_call(c, o);
    checked_undefine_rows(o);
    for (int i = 0; i < o->lost.n; i++)
        memset((void *)(uintptr_t)(o->lost.v[i].at & ~CHECKED_TAG), 0xff, (size_t)o->lost.v[i].bytes);
    free(o->blob);
    o->done = true;
}

/* Does all that was asked for, each time a random one of those that may be next. */
static void checked_run(struct checked *c)
{
    for (size_t left = c->n; left; left--) {
        size_t ready = 0, chosen = 0, first = c->n;
        for (size_t i = 0; i < c->n; i++) {
            bool waits = c->op[i].done;
            for (size_t j = 0; j < i && !waits; j++)
                waits = !c->op[j].done && checked_depends(&c->op[i], &c->op[j]);
            if (!c->op[i].done && first == c->n) first = i;
            if (waits) continue;
            c->random = c->random * 6364136223846793005u + 1442695040888963407u;
            if ((c->random >> 33) % ++ready == 0) chosen = i;
            if (i > first + 64) break; /* enough to choose from */
        }
        c->reordered += chosen != first;
        checked_do(c, &c->op[chosen]);
    }
    c->n = 0;
    while (c->batch && c->batch->before) {
        struct checked_batch *old = c->batch->before;
        c->batch->before = old->before;
        checked_batch_free(old);
    }
}

/* ---- memory ---- */

static enum moe_code checked_alloc(struct moe_device *d, uint64_t bytes, struct moe_addr *out,
                                   struct moe_err *err)
{
    struct moe_device *in = checked_of(d)->inner;
    MOE_TRY(in->ops->alloc(in, bytes, out, err));
    if (bytes < 64 << 20) memset((void *)(uintptr_t)out->at, 0xff, (size_t)bytes);
    out->at |= CHECKED_TAG;
    return MOE_OK;
}

static void checked_free(struct moe_device *d, struct moe_addr a)
{
    struct checked *c = checked_of(d);
    if (c->n) checked_fail("memory is freed before everything is done");
    c->inner->ops->free(c->inner, checked_plain(a));
}

static void checked_write(struct moe_device *d, struct moe_addr to, const void *from, uint64_t bytes)
{
    struct checked_op *o = checked_push(checked_of(d), CHECKED_WRITE, 0);
    o->a = to;
    o->bytes = bytes;
    o->blob = checked_blob(from, bytes);
    checked_add(&o->writes, to.at, bytes);
}

static void checked_read(struct moe_device *d, void *to, struct moe_addr from, uint64_t bytes)
{
    struct checked_op *o = checked_push(checked_of(d), CHECKED_READ, 0);
    o->a = from;
    o->bytes = bytes;
    o->host = to;
    memset(to, 0xff, (size_t)bytes);
    checked_add(&o->reads, from.at, bytes);
    checked_add(&o->writes, (uintptr_t)to, bytes);
}

static enum moe_code checked_wait(struct moe_device *d, uint32_t *word, struct moe_err *err)
{
    struct checked *c = checked_of(d);
    checked_run(c);
    return c->inner->ops->wait(c->inner, word, err);
}

static void checked_copy(struct moe_device *d, const struct moe_latent *cache,
                         const struct moe_page_copy *copy)
{
    struct checked_op *o = checked_push(checked_of(d), CHECKED_COPY, 0);
    o->cache = cache;
    o->copy = *copy;
    o->bytes = sizeof *copy;
    o->blob = checked_blob(copy, o->bytes);
    o->given = copy;
    checked_add(&o->reads, cache->rows.at, cache->bytes);
    checked_add(&o->writes, cache->rows.at, cache->bytes);
}

/* ---- the pass ---- */

static void checked_begin(struct moe_device *d, const struct moe_batch *b)
{
    if (b->n > d->max_tokens) checked_fail("a batch that is too large");
    struct checked_batch *k = checked_batch_new(b);
    k->before = checked_of(d)->batch;
    checked_of(d)->batch = k;
}

static const struct moe_config *checked_config(const struct checked *c) { return &c->inner->model->config; }

/* Bytes of [T, width] float32 or int32. */
static uint64_t checked_rows(const struct checked *c, int64_t width)
{
    if (!c->batch) checked_fail("an operation without a batch");
    return (uint64_t)(c->batch->batch.n * width) * 4;
}

static void checked_embed(struct moe_device *d, struct moe_addr h)
{
    struct checked_op *o = checked_push(checked_of(d), CHECKED_EMBED, 0);
    o->a = h;
    checked_add(&o->writes, h.at, checked_rows(checked_of(d), checked_config(checked_of(d))->hidden_size));
}

static void checked_norm(struct moe_device *d, int layer, enum moe_norm which, struct moe_addr h,
                         struct moe_addr add, struct moe_addr out)
{
    struct checked *c = checked_of(d);
    const struct moe_config *g = checked_config(c);
    struct checked_op *o = checked_push(c, CHECKED_NORM, layer);
    uint64_t bytes = checked_rows(c, which == MOE_NORM_Q_A ? g->q_lora_rank : g->hidden_size);
    o->which = (int)which;
    o->a = h, o->b = add, o->c = out;
    checked_add(&o->reads, h.at, bytes);
    checked_add(&o->reads, add.at, bytes);
    checked_add(&o->writes, out.at, bytes);
    if (add.at) checked_add(&o->writes, h.at, bytes);
}

static void checked_linear(struct moe_device *d, int layer, enum moe_role role, struct moe_addr x,
                           struct moe_addr y)
{
    struct checked *c = checked_of(d);
    const struct moe_config *g = checked_config(c);
    int64_t q = g->num_attention_heads * (g->qk_nope_head_dim + g->qk_rope_head_dim);
    int64_t v = g->num_attention_heads * g->v_head_dim;
    int64_t in = role == MOE_ROLE_Q_B ? g->q_lora_rank : role == MOE_ROLE_O ? v : g->hidden_size;
    int64_t out = role == MOE_ROLE_Q_A    ? g->q_lora_rank
                  : role == MOE_ROLE_KV_A ? g->kv_lora_rank + g->qk_rope_head_dim
                  : role == MOE_ROLE_O    ? g->hidden_size
                                          : q;
    struct checked_op *o = checked_push(c, CHECKED_LINEAR, layer);
    o->which = (int)role;
    o->a = x, o->b = y;
    checked_add(&o->reads, x.at, checked_rows(c, in));
    checked_add(&o->writes, y.at, checked_rows(c, out));
}

/* The caches of the batch's segments: each cache once where they follow each other. */
static void checked_caches(const struct checked *c, struct checked_ranges *r)
{
    const struct moe_batch *batch = c->batch->given;
    for (int64_t i = 0; i < batch->n_segments; i++) {
        const struct moe_latent *l = batch->segment[i].cache;
        if (i && l == batch->segment[i - 1].cache) continue;
        if (r->n == CHECKED_RANGES) { /* one range around them all */
            struct checked_range *last = &r->v[r->n - 1];
            uint64_t from = last->at < l->rows.at ? last->at : l->rows.at;
            uint64_t a = last->at + last->bytes, b = l->rows.at + l->bytes;
            *last = (struct checked_range){ from, (a > b ? a : b) - from };
        } else {
            checked_add(r, l->rows.at, l->bytes);
        }
    }
}

static void checked_append(struct moe_device *d, int layer, struct moe_addr q, struct moe_addr ckv)
{
    struct checked *c = checked_of(d);
    const struct moe_config *g = checked_config(c);
    uint64_t qb = checked_rows(c, g->num_attention_heads * (g->qk_nope_head_dim + g->qk_rope_head_dim));
    struct checked_op *o = checked_push(c, CHECKED_APPEND, layer);
    o->a = q, o->b = ckv;
    checked_add(&o->reads, q.at, qb);
    checked_add(&o->reads, ckv.at, checked_rows(c, g->kv_lora_rank + g->qk_rope_head_dim));
    checked_add(&o->writes, q.at, qb);
    checked_caches(c, &o->writes);
}

static void checked_attend(struct moe_device *d, int layer, struct moe_addr q, struct moe_addr out)
{
    struct checked *c = checked_of(d);
    const struct moe_config *g = checked_config(c);
    struct checked_op *o = checked_push(c, CHECKED_ATTEND, layer);
    o->a = q, o->b = out;
    checked_add(&o->reads, q.at,
                checked_rows(c, g->num_attention_heads * (g->qk_nope_head_dim + g->qk_rope_head_dim)));
    checked_caches(c, &o->reads);
    checked_add(&o->writes, out.at, checked_rows(c, g->num_attention_heads * g->v_head_dim));
}

static void checked_route(struct moe_device *d, int layer, struct moe_addr x, const struct moe_choices *k)
{
    struct checked *c = checked_of(d);
    const struct moe_config *g = checked_config(c);
    struct checked_op *o = checked_push(c, CHECKED_ROUTE, layer);
    o->a = x;
    o->choices = *k;
    checked_add(&o->reads, x.at, checked_rows(c, g->hidden_size));
    checked_add(&o->writes, k->experts.at, checked_rows(c, g->num_experts_per_tok));
    checked_add(&o->writes, k->weights.at, checked_rows(c, g->num_experts_per_tok));
}

static void checked_mlps(struct moe_device *d, int layer, struct moe_addr x, const struct moe_choices *k,
                         struct moe_addr y)
{
    struct checked *c = checked_of(d);
    const struct moe_config *g = checked_config(c);
    struct checked_op *o = checked_push(c, CHECKED_MLPS, layer);
    uint64_t h = checked_rows(c, g->hidden_size), chosen = checked_rows(c, g->num_experts_per_tok);
    o->a = x, o->b = y;
    checked_add(&o->reads, x.at, h);
    checked_add(&o->lost, x.at, h);
    checked_add(&o->writes, y.at, h);
    if (!k) return;
    o->choices = *k;
    o->has_choices = true;
    checked_add(&o->reads, k->experts.at, chosen);
    checked_add(&o->writes, k->slot.at, chosen);
    checked_add(&o->writes, k->rows.at, chosen * (uint64_t)g->hidden_size);
}

static void checked_combine(struct moe_device *d, const struct moe_choices *k, struct moe_addr y,
                            struct moe_addr h)
{
    struct checked *c = checked_of(d);
    const struct moe_config *g = checked_config(c);
    struct checked_op *o = checked_push(c, CHECKED_COMBINE, 0);
    uint64_t bytes = checked_rows(c, g->hidden_size), chosen = checked_rows(c, g->num_experts_per_tok);
    o->a = y, o->b = h;
    checked_add(&o->reads, y.at, bytes);
    checked_add(&o->reads, h.at, bytes);
    checked_add(&o->writes, h.at, bytes);
    if (!k) return;
    o->choices = *k;
    o->has_choices = true;
    checked_add(&o->reads, k->weights.at, chosen);
    checked_add(&o->reads, k->slot.at, chosen);
    checked_add(&o->reads, k->rows.at, chosen * (uint64_t)g->hidden_size);
}

static void checked_logits(struct moe_device *d, const int32_t *row, int64_t n, struct moe_addr h,
                           struct moe_addr logits)
{
    struct checked *c = checked_of(d);
    const struct moe_config *g = checked_config(c);
    struct checked_op *o = checked_push(c, CHECKED_LOGITS, 0);
    int64_t rows = n;
    for (int64_t i = 0; row && i < n; i++) rows = row[i] >= rows ? row[i] + 1 : rows;
    o->batch = NULL;
    o->a = h, o->b = logits;
    o->n = n;
    o->bytes = (uint64_t)n * sizeof *row;
    o->blob = row ? checked_blob(row, o->bytes) : NULL;
    o->given = row;
    checked_add(&o->reads, h.at, (uint64_t)(rows * g->hidden_size) * 4);
    checked_add(&o->writes, logits.at, (uint64_t)(n * g->vocab_size) * 4);
}

static void checked_sample(struct moe_device *d, const struct moe_drawing *w, int64_t n, int64_t vocab,
                           struct moe_addr logits, struct moe_addr ids)
{
    struct checked *c = checked_of(d);
    struct checked_op *o = checked_push(c, CHECKED_SAMPLE, 0);
    o->batch = NULL;
    o->a = logits, o->b = ids;
    o->n = n;
    o->vocab = vocab;
    o->bytes = (uint64_t)n * sizeof *w;
    o->blob = checked_blob(w, o->bytes);
    o->given = w;
    checked_add(&o->reads, logits.at, (uint64_t)(n * checked_config(c)->vocab_size) * 4);
    checked_add(&o->writes, ids.at, (uint64_t)n * 4);
}

static void checked_check(struct moe_device *d, struct moe_addr x, int64_t n)
{
    struct checked_op *o = checked_push(checked_of(d), CHECKED_CHECK, 0);
    o->batch = NULL;
    o->a = x;
    o->n = n;
    checked_add(&o->reads, x.at, (uint64_t)n * 4);
}

static void checked_hooks(struct moe_device *d, const struct moe_hooks *hooks)
{
    if (checked_of(d)->n) checked_fail("observers are set before everything is done");
    checked_of(d)->inner->ops->hooks(checked_of(d)->inner, hooks);
}

static void checked_serve(struct moe_device *d, int layer, const struct moe_choice *list, int64_t n)
{
    checked_of(d)->inner->ops->serve(checked_of(d)->inner, layer, list, n);
}

static void checked_close(struct moe_device *d)
{
    struct checked *c = checked_of(d);
    if (c->n) checked_fail("the device is closed before everything is done");
    moe_device_close(&c->inner);
    for (struct checked_batch *k; (k = c->batch);) {
        c->batch = k->before;
        checked_batch_free(k);
    }
    free(c->op);
    free(c);
}

static const struct moe_ops checked_ops = { "checked",      checked_close,  checked_alloc,  checked_free,
                                            checked_write,  checked_read,   checked_wait,   checked_copy,
                                            checked_begin,  checked_embed,  checked_norm,   checked_linear,
                                            checked_append, checked_attend, checked_route,  checked_mlps,
                                            checked_combine, checked_logits, checked_sample, checked_check,
                                            checked_hooks,  checked_serve };

/* Replaces *d by a device that computes with it and owns it. */
static enum moe_code checked_wrap(struct moe_device **d, struct moe_err *err)
{
    struct checked *c = calloc(1, sizeof *c);
    if (!c) return moe_fail(err, MOE_NOMEM, "no memory");
    c->device = **d;
    c->device.ops = &checked_ops;
    c->inner = *d;
    c->random = 1;
    *d = &c->device;
    return MOE_OK;
}

#endif
