/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/results.h"

#include "kernels/logprob.h"
#include "runtime/comm/wire.h"

#include <stdlib.h>
#include <string.h>

/* Kinds of messages (moe_ep_broadcast). */
enum { SEQUENCE, SCORE, ROUTING, STATS };

enum moe_code moe_results_open(struct moe_results **out, int ranks, const struct moe_results_shape *shape,
                               struct moe_err *err)
{
    int64_t n_sequences = shape->n_sequences;
    struct moe_results *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r) return moe_fail(err, MOE_NOMEM, "no memory for results");
    r->ranks = ranks;
    r->shape = *shape;
    r->n_sequences = n_sequences;
    r->sequence = calloc((size_t)n_sequences + 1, sizeof *r->sequence);
    r->stats = calloc((size_t)ranks, sizeof *r->stats);
    r->cache = calloc((size_t)ranks, sizeof *r->cache);
    r->scored = calloc((size_t)ranks, sizeof *r->scored);
    r->routed = calloc((size_t)ranks, sizeof *r->routed);
    r->has_stats = calloc((size_t)ranks, sizeof *r->has_stats);
    if (!r->sequence || !r->stats || !r->cache || !r->scored || !r->routed || !r->has_stats) {
        moe_results_close(&r);
        return moe_fail(err, MOE_NOMEM, "no memory for the results of %lld sequences",
                        (long long)n_sequences);
    }
    *out = r;
    return MOE_OK;
}

void moe_results_close(struct moe_results **pr)
{
    struct moe_results *r = *pr;
    *pr = NULL;
    if (!r) return;
    for (int64_t i = 0; r->sequence && i < r->n_sequences; i++) moe_generated_release(&r->sequence[i].out);
    free(r->sequence);
    free(r->sums.all);
    free(r->routing);
    free(r->stats);
    free(r->cache);
    free(r->scored);
    free(r->routed);
    free(r->has_stats);
    free(r);
}

/* ---- receiving and storing ---- */

static enum moe_code fail_malformed(int from, const char *what, struct moe_err *err)
{
    return moe_fail(err, MOE_DEVICE,
                    "rank %d told %s that make no sense (do all ranks run the same version?)", from, what);
}

static enum moe_code fail_no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for results");
}

/* A copy of what a message says of an answer.  False: no memory. */
static bool copy_answer(const struct moe_wire_sequence *s, struct moe_generated *g)
{
    *g = (struct moe_generated){ .n = s->n,
                                 .text_bytes = s->text_bytes,
                                 .finish = (enum moe_finish)s->finish,
                                 .tokens = malloc((size_t)(s->n + 1) * sizeof *g->tokens),
                                 .text = malloc(s->text_bytes + 1) };
    if (s->logprobs) g->logprobs = malloc((size_t)(s->n + 1) * sizeof *g->logprobs);
    if (s->err.code != MOE_OK) g->err = malloc(sizeof *g->err);
    if (!g->tokens || !g->text || (s->logprobs && !g->logprobs) || (s->err.code != MOE_OK && !g->err)) {
        moe_generated_release(g);
        return false;
    }
    if (s->logprobs) memcpy(g->logprobs, s->logprobs, (size_t)s->n * sizeof *g->logprobs);
    if (g->err) *g->err = s->err;
    memcpy(g->tokens, s->tokens, (size_t)s->n * sizeof *g->tokens);
    memcpy(g->text, s->text, s->text_bytes);
    g->text[s->text_bytes] = 0;
    return true;
}

/* Stores the answer of a sequence; only the rank that computes it may send it, and only once. */
static enum moe_code keep_sequence(struct moe_results *r, int from, const void *data, size_t bytes,
                                   struct moe_err *err)
{
    struct moe_wire_sequence s;
    struct moe_generated g;
    bool good = moe_wire_sequence_get(data, bytes, r->shape.vocab, &s) && s.index < r->n_sequences &&
                r->shape.sequence[s.index].rank == from && !r->sequence[s.index].there &&
                (s.err.code != MOE_OK ? s.finish == MOE_FINISH_ERROR :
                     s.finish == MOE_FINISH_STOP || s.finish == MOE_FINISH_LENGTH);
    if (!good) return fail_malformed(from, "results", err);
    if (!copy_answer(&s, &g)) return fail_no_memory(err);
    r->sequence[s.index] = (struct moe_result){ true, from, g };
    return r->stored ? r->stored(r->ctx, s.index, err) : MOE_OK;
}

static enum moe_code keep_score(struct moe_results *r, int from, const void *data, size_t bytes,
                                struct moe_err *err)
{
    struct moe_wire_score h;
    if (r->scored[from] || !moe_wire_score_get(data, bytes, r->shape.reference, &h))
        return fail_malformed(from, "scores", err);
    struct moe_score_sums s = { .n = h.n,
                                .same = h.same,
                                .nll = h.nll,
                                .nll_reference = h.nll_reference,
                                .kl = h.kl,
                                .anonymous = h.anonymous };
    if (h.all && h.n) { /* copied, because the message need not be aligned for double */
        s.all = malloc((size_t)h.n * sizeof *s.all);
        if (!s.all) return fail_no_memory(err);
        memcpy(s.all, h.all, (size_t)h.n * sizeof *s.all);
    }
    enum moe_code code = moe_score_join(&r->sums, &s, err);
    free(s.all);
    r->scored[from] = code == MOE_OK;
    return code;
}

static enum moe_code keep_routing(struct moe_results *r, int from, const void *data, size_t bytes,
                                  struct moe_err *err)
{
    if (r->routed[from] || !bytes || !moe_wire_counts_sound(data, bytes, r->shape.routing_bytes))
        return fail_malformed(from, "counts of experts", err);
    if (!r->routing) r->routing = calloc(1, bytes);
    if (!r->routing) return fail_no_memory(err);
    for (size_t i = 0; i < bytes / sizeof *r->routing; i++) {
        int64_t v;
        memcpy(&v, (const char *)data + i * sizeof v, sizeof v);
        r->routing[i] += v;
    }
    r->routed[from] = true;
    return MOE_OK;
}

static enum moe_code keep_stats(struct moe_results *r, int from, const void *data, size_t bytes,
                                struct moe_err *err)
{
    struct moe_wire_stats s;
    if (r->has_stats[from] || !moe_wire_stats_get(data, bytes, &s)) return fail_malformed(from, "times", err);
    r->stats[from] = (struct moe_ep_stats){ .requests = s.requests,
                                            .served = s.served,
                                            .again = s.again,
                                            .bytes_sent = s.bytes_sent,
                                            .bytes_rows = s.bytes_rows,
                                            .mapped = s.mapped,
                                            .seconds_send = s.seconds_send,
                                            .seconds_wait = s.seconds_wait,
                                            .seconds_serve = s.seconds_serve,
                                            .seconds_experts = s.seconds_experts,
                                            .died = s.died,
                                            .moves = (int)s.moves };
    r->cache[from] = (struct moe_cache_counts){ .bytes = (int64_t)s.cache_bytes,
                                                .pages = (int64_t)s.cache_pages,
                                                .used_peak = (int64_t)s.cache_used_peak,
                                                .found_tokens = (int64_t)s.cache_found,
                                                .preemptions = (int64_t)s.cache_preemptions };
    r->has_stats[from] = true;
    return MOE_OK;
}

enum moe_code moe_results_received(void *results, int from, uint32_t kind, const void *data, size_t bytes,
                                   struct moe_err *err)
{
    struct moe_results *r = results;
    switch (kind) {
    case SEQUENCE: return keep_sequence(r, from, data, bytes, err);
    case SCORE: return keep_score(r, from, data, bytes, err);
    case ROUTING: return keep_routing(r, from, data, bytes, err);
    case STATS: return keep_stats(r, from, data, bytes, err);
    default: return fail_malformed(from, "results", err);
    }
}

/* ---- storing and sending ---- */

static enum moe_code keep_and_send(struct moe_results *r, struct moe_ep *ep, int rank, uint32_t kind,
                                   const void *data, size_t bytes, struct moe_err *err)
{
    MOE_TRY(moe_results_received(r, rank, kind, data, bytes, err));
    return ep ? moe_ep_broadcast(ep, kind, data, bytes, err) : MOE_OK;
}

enum moe_code moe_results_add_sequence(struct moe_results *r, struct moe_ep *ep, int rank,
                                       const struct moe_sequence *s, struct moe_err *err)
{
    struct moe_wire_sequence w = { .index = s->index,
                                   .n = s->out.n,
                                   .finish = (int32_t)s->out.finish,
                                   .text_bytes = s->out.text_bytes,
                                   .tokens = (const unsigned char *)s->out.tokens,
                                   .text = (const unsigned char *)s->out.text,
                                   .logprobs = (const unsigned char *)s->out.logprobs };
    if (s->out.err) w.err = *s->out.err;
    size_t bytes = moe_wire_sequence_bytes(&w);
    unsigned char *p = malloc(bytes);
    if (!p) return fail_no_memory(err);
    moe_wire_sequence_put(p, &w);
    enum moe_code code = keep_and_send(r, ep, rank, SEQUENCE, p, bytes, err);
    free(p);
    return code;
}

enum moe_code moe_results_add_score(struct moe_results *r, struct moe_ep *ep, int rank,
                                    const struct moe_score_sums *s, struct moe_err *err)
{
    size_t bytes = moe_wire_score_bytes(s->all ? s->n : 0);
    unsigned char *p = malloc(bytes);
    if (!p) return fail_no_memory(err);
    moe_wire_score_put(p,
                       &(struct moe_wire_score){ s->n, s->same, s->nll, s->nll_reference, s->kl, s->anonymous,
                                                 (const unsigned char *)s->all },
                       s->all ? s->n : 0);
    enum moe_code code = keep_and_send(r, ep, rank, SCORE, p, bytes, err);
    free(p);
    return code;
}

enum moe_code moe_results_add_routing(struct moe_results *r, struct moe_ep *ep, int rank,
                                      const struct moe_recorder *m, struct moe_err *err)
{
    return keep_and_send(r, ep, rank, ROUTING, m->counts, m->bytes, err);
}

enum moe_code moe_results_add_stats(struct moe_results *r, struct moe_ep *ep, int rank, struct moe_err *err)
{
    unsigned char out[MOE_WIRE_STATS_BYTES];
    struct moe_ep_stats s = moe_ep_stats(ep);
    const struct moe_cache_counts *c = &r->own_cache;
    moe_wire_stats_put(out, &(struct moe_wire_stats){ .requests = s.requests,
                                                      .served = s.served,
                                                      .again = s.again,
                                                      .bytes_sent = s.bytes_sent,
                                                      .bytes_rows = s.bytes_rows,
                                                      .mapped = s.mapped,
                                                      .seconds_send = s.seconds_send,
                                                      .seconds_wait = s.seconds_wait,
                                                      .seconds_serve = s.seconds_serve,
                                                      .seconds_experts = s.seconds_experts,
                                                      .cache_bytes = (uint64_t)c->bytes,
                                                      .cache_pages = (uint64_t)c->pages,
                                                      .cache_used_peak = (uint64_t)c->used_peak,
                                                      .cache_found = (uint64_t)c->found_tokens,
                                                      .cache_preemptions = (uint64_t)c->preemptions,
                                                      .moves = (uint32_t)s.moves,
                                                      .died = s.died });
    return keep_and_send(r, ep, rank, STATS, out, sizeof out, err);
}

struct moe_cache_counts moe_cache_counts(const struct moe_core_stats *s)
{
    return (struct moe_cache_counts){ .bytes = (int64_t)s->cache_bytes,
                                      .pages = s->pages,
                                      .used_peak = s->pages_peak,
                                      .found_tokens = s->prompt_found,
                                      .preemptions = s->preemptions };
}

struct moe_cache_counts moe_results_cache(const struct moe_results *r)
{
    struct moe_cache_counts all = { 0 };
    if (r->ranks == 1) return r->own_cache;
    for (int k = 0; k < r->ranks; k++) {
        all.bytes += r->cache[k].bytes;
        all.pages += r->cache[k].pages;
        all.used_peak += r->cache[k].used_peak;
        all.found_tokens += r->cache[k].found_tokens;
        all.preemptions += r->cache[k].preemptions;
    }
    return all;
}

int64_t moe_results_lost(const struct moe_results *r)
{
    int64_t n = 0;
    for (int64_t i = 0; i < r->n_sequences; i++) n += !r->sequence[i].there;
    return n;
}
