#include "runtime/engine.h"

#include "base/io.h"
#include "base/tool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

enum { BATCH_LEAST = 16, BATCH_MOST = 1024, BATCH_BYTES = 512 << 20 };

uint64_t moe_engine_estimate(const struct moe_config *c, int64_t context, int64_t batch, enum moe_mla mla, int threads)
{
    uint64_t sampling = (uint64_t)c->vocab_size * (2 * sizeof(float) + sizeof(int32_t)), ids = (uint64_t)context * sizeof(int32_t);
    return moe_kv_estimate(c, context) + moe_forward_estimate(c, batch, context, mla, threads) + sampling + ids +
           (uint64_t)(batch * c->hidden_size) * sizeof(float);
}

/* The largest n in [lo, hi] whose estimate is within `limit` (all that is larger is estimated higher); lo - 1 when none is. */
static int64_t most_that_fit(const struct moe_config *c, int64_t context, int64_t batch, int64_t lo, int64_t hi, enum moe_mla mla, int threads,
                             uint64_t limit)
{
    while (lo <= hi) {
        int64_t n = lo + (hi - lo) / 2;
        if (moe_engine_estimate(c, context ? context : n, batch ? batch : n, mla, threads) <= limit) lo = n + 1;
        else hi = n - 1;
    }
    return hi;
}

/* Context first, then as large a batch as the rest allows: it saves reading experts, but the last few tokens save little. */
static enum moe_code fit(struct moe_engine *e, const struct moe_config *c, const struct moe_engine_options *o, int threads, struct moe_err *err)
{
    int64_t most = o->most > 0 && o->most < c->max_position_embeddings ? o->most : c->max_position_embeddings, least = most < BATCH_LEAST ? most : BATCH_LEAST;
    uint64_t held = moe_peak_anonymous(), limit = o->memory > held ? o->memory - held : o->memory ? 1 : moe_available_memory();
    char need[16], have[16];
    if (!limit) limit = UINT64_MAX; /* not known */
    if (o->sharers > 1) limit /= (uint64_t)o->sharers;
    e->context = o->context > 0 ? o->context : most_that_fit(c, 0, least, 1, most, o->mla, threads, limit);
    uint64_t bytes = moe_engine_estimate(c, e->context ? e->context : 1, least, o->mla, threads);
    if (bytes > limit)
        return moe_fail(err, MOE_NOMEM, "a context of %lld needs %s besides the model's files, %s %s (try a smaller --context%s)",
                        (long long)(e->context ? e->context : 1), moe_human_bytes(bytes + (o->memory ? held : 0), need),
                        moe_human_bytes(o->memory ? o->memory : limit, have), o->memory ? "are allowed" : "are available",
                        o->memory ? " or a larger --memory" : "");
    uint64_t full = moe_engine_estimate(c, e->context, least, o->mla, threads), room = limit - full < BATCH_BYTES ? limit - full : BATCH_BYTES;
    e->batch = most_that_fit(c, e->context, 0, least, e->context < BATCH_MOST ? e->context : BATCH_MOST, o->mla, threads, full + room);
    if (e->batch > BATCH_LEAST) e->batch -= e->batch % BATCH_LEAST;
    if (e->batch < 1) e->batch = 1;
    e->spare = limit - moe_engine_estimate(c, e->context, e->batch, o->mla, threads);
    return MOE_OK;
}

/* ---- life ---- */

static enum moe_code open_parts(struct moe_engine *e, const char *path, const struct moe_engine_options *o, struct moe_pool *pool,
                                struct moe_err *err)
{
    MOE_TRY(moe_source_open(&e->source, path, err));
    const struct moe_config *c = &e->source->config;
    if (o->context > c->max_position_embeddings)
        return moe_fail(err, MOE_USAGE, "--context %lld is more than the model's %lld positions", (long long)o->context,
                        (long long)c->max_position_embeddings);
    e->vocab = c->vocab_size;
    enum moe_code code = moe_tokenizer_open(&e->tokenizer, path, c->vocab_size, err);
    if (code != MOE_OK && (o->tokenizer || code != MOE_NOT_FOUND)) return code;
    if (e->tokenizer && moe_tokenizer_size(e->tokenizer) < e->vocab) e->vocab = moe_tokenizer_size(e->tokenizer);
    MOE_TRY(moe_model_open(&e->model, e->source, o->lora_eps, err));
    MOE_TRY(fit(e, c, o, moe_pool_threads(pool), err)); /* knows what descriptors and tokenizer took */
    MOE_TRY(moe_kv_open(&e->kv, c, err));
    e->kv.most = e->context;
    MOE_TRY(moe_forward_open(&e->forward, e->model, e->batch, e->context, o->mla, pool, err));
    moe_forward_activations(e->forward, o->activations);
    e->h = malloc((size_t)(e->batch * c->hidden_size) * sizeof *e->h);
    e->logits = malloc((size_t)c->vocab_size * sizeof *e->logits);
    e->order = malloc((size_t)c->vocab_size * sizeof *e->order);
    e->p = malloc((size_t)c->vocab_size * sizeof *e->p);
    if (!e->h || !e->logits || !e->order || !e->p) return moe_fail(err, MOE_NOMEM, "no memory for an engine");
    return MOE_OK;
}

enum moe_code moe_engine_open(struct moe_engine **out, const char *path, const struct moe_engine_options *o, struct moe_pool *pool,
                              struct moe_err *err)
{
    struct moe_engine *e = calloc(1, sizeof *e);
    *out = NULL;
    if (!e) return moe_fail(err, MOE_NOMEM, "no memory for an engine");
    enum moe_code code = open_parts(e, path, o, pool, err);
    if (code != MOE_OK) moe_engine_close(&e);
    *out = e;
    return code;
}

void moe_engine_close(struct moe_engine **pe)
{
    struct moe_engine *e = *pe;
    if (!e) return;
    moe_forward_close(&e->forward);
    moe_kv_release(&e->kv);
    moe_model_close(&e->model);
    moe_tokenizer_close(&e->tokenizer);
    moe_source_close(&e->source);
    free(e->ids);
    free(e->h);
    free(e->logits);
    free(e->order);
    free(e->p);
    free(e);
    *pe = NULL;
}

enum moe_code moe_engine_reserve(struct moe_engine *e, int64_t n, struct moe_err *err)
{
    if (n > e->context)
        return moe_fail(err, MOE_USAGE, "%lld tokens do not fit the context of %lld (raise --context, or shorten the prompt)", (long long)n,
                        (long long)e->context);
    MOE_TRY(moe_kv_reserve(&e->kv, n, err));
    int32_t *more = realloc(e->ids, (size_t)n * sizeof *more);
    if (!more) return moe_fail(err, MOE_NOMEM, "no memory for %lld tokens", (long long)n);
    e->ids = more;
    return MOE_OK;
}

int64_t moe_engine_logit_rows(const struct moe_config *c)
{
    int64_t n = ((int64_t)32 << 20) / (4 * c->vocab_size);
    return n < 8 ? 8 : n;
}

/* Compute ids [n] at positions [at, at + n); the last one's logits. */
static enum moe_code extend(struct moe_engine *e, const int32_t *ids, int64_t at, int64_t n, struct moe_err *err)
{
    int64_t hidden = e->model->config.hidden_size;
    MOE_TRY(moe_engine_reserve(e, at + n, err));
    for (int64_t i = 0; i < n; i += e->batch) {
        int64_t m = n - i < e->batch ? n - i : e->batch;
        struct moe_segment s = { &e->kv, at + i, m };
        e->n_ids = at + i;
        MOE_TRY(moe_forward_run(e->forward, ids + i, &s, 1, e->h, err));
        memcpy(e->ids + at + i, ids + i, (size_t)m * sizeof *ids);
        e->n_ids = at + i + m;
        if (i + m == n) MOE_TRY(moe_forward_logits(e->forward, e->h + (m - 1) * hidden, 1, e->logits, err));
        MOE_TRY(moe_interrupted(err));
    }
    return MOE_OK;
}

enum moe_code moe_engine_prefill(struct moe_engine *e, const int32_t *ids, int64_t n, int64_t *computed, struct moe_err *err)
{
    int64_t same = 0;
    if (n < 1) return moe_fail(err, MOE_USAGE, "the prompt is empty (give some text, --tokens, or --bos)");
    while (same < n - 1 && same < e->n_ids && e->ids[same] == ids[same]) same++; /* the last token's logits are always needed */
    if (computed) *computed = n - same;
    return extend(e, ids + same, same, n - same, err);
}

/* ---- text as it comes ---- */

struct writer {
    const struct moe_generate *g;
    struct moe_generated *out;
    size_t cap, sent;
};

static enum moe_code append(struct writer *w, const char *s, size_t n, struct moe_err *err)
{
    struct moe_generated *o = w->out;
    if (o->text_bytes + n + 1 > w->cap) {
        size_t cap = 2 * w->cap + n + 256;
        char *p = realloc(o->text, cap);
        if (!p) return moe_fail(err, MOE_NOMEM, "no memory for %zu bytes of text", cap);
        o->text = p;
        w->cap = cap;
    }
    memcpy(o->text + o->text_bytes, s, n);
    o->text_bytes += n;
    o->text[o->text_bytes] = 0;
    return MOE_OK;
}

/* Where `what` first stands in text [n], which may hold NULs; NULL: nowhere. */
static char *locate(char *text, size_t n, const char *what)
{
    size_t len = strlen(what);
    for (size_t i = 0; len && i + len <= n; i++)
        if (!memcmp(text + i, what, len)) return text + i;
    return NULL;
}

/* True when a stop text is complete; the text is cut before the first. */
static bool stopped(struct writer *w)
{
    char *first = NULL;
    for (size_t i = 0; i < w->g->n_stop; i++) {
        char *at = locate(w->out->text + w->sent, w->out->text_bytes - w->sent, w->g->stop[i]);
        if (at && (!first || at < first)) first = at;
    }
    if (!first) return false;
    *first = 0;
    w->out->text_bytes = (size_t)(first - w->out->text);
    return true;
}

/* Bytes at the end that may still become a stop text. */
static size_t held(const struct writer *w)
{
    size_t most = 0, len = w->out->text_bytes - w->sent;
    for (size_t i = 0; i < w->g->n_stop; i++) {
        size_t n = strlen(w->g->stop[i]);
        for (size_t k = n ? n - 1 : 0; k > most; k--)
            if (k <= len && !memcmp(w->out->text + w->out->text_bytes - k, w->g->stop[i], k)) most = k;
    }
    return most;
}

static void send(struct writer *w, size_t keep)
{
    size_t n = w->out->text_bytes - w->sent - keep;
    if (n && w->g->text) w->g->text(w->g->ctx, w->out->text + w->sent, n);
    w->sent += n;
}

static enum moe_code add_token(struct writer *w, const struct moe_engine *e, struct moe_decoder *d, int32_t id, bool *stop, struct moe_err *err)
{
    size_t len = 0;
    if (!e->tokenizer) return MOE_OK;
    moe_token_bytes(e->tokenizer, id, &len);
    char *piece = malloc(MOE_DECODE_BOUND(len));
    if (!piece) return moe_fail(err, MOE_NOMEM, "no memory for a token");
    size_t n = moe_decode(e->tokenizer, d, id, piece);
    enum moe_code code = append(w, piece, n, err);
    free(piece);
    MOE_TRY(code);
    *stop = stopped(w);
    send(w, *stop ? 0 : held(w));
    return MOE_OK;
}

static bool is_end(const struct moe_engine *e, int32_t id)
{
    const struct moe_config *c = &e->model->config;
    for (int64_t i = 0; i < c->n_eos; i++)
        if (c->eos_token_id[i] == id) return true;
    return e->tokenizer && (id == moe_token_find_special(e->tokenizer, "<|im_end|>") || id == moe_token_find_special(e->tokenizer, "[EOS]"));
}

enum moe_code moe_engine_generate(struct moe_engine *e, const struct moe_generate *g, struct moe_generated *out, struct moe_err *err)
{
    struct writer w = { .g = g, .out = out };
    struct moe_decoder d = { .keep_special = g->keep_special };
    struct moe_rng rng = { g->seed };
    bool stop = false;
    *out = (struct moe_generated){ .finish = MOE_FINISH_LENGTH };
    MOE_TRY(append(&w, "", 0, err));
    int64_t most = g->max_tokens >= 0 && g->max_tokens < e->context - e->n_ids ? g->max_tokens : e->context - e->n_ids;
    out->tokens = malloc((size_t)(most + 1) * sizeof *out->tokens);
    if (!out->tokens) return moe_fail(err, MOE_NOMEM, "no memory for %lld tokens", (long long)most);
    while (out->n < most) {
        int32_t id = moe_sample(&g->sampler, &rng, e->logits, e->vocab, e->order, e->p);
        if (!g->ignore_eos && is_end(e, id)) {
            out->finish = MOE_FINISH_STOP;
            break;
        }
        out->tokens[out->n++] = id;
        MOE_TRY(add_token(&w, e, &d, id, &stop, err));
        if (stop) {
            out->finish = MOE_FINISH_STOP;
            break;
        }
        if (out->n < most) MOE_TRY(extend(e, &id, e->n_ids, 1, err));
    }
    char rest[16];
    if (!stop) MOE_TRY(append(&w, rest, moe_decode_flush(&d, rest), err));
    send(&w, 0);
    return MOE_OK;
}
