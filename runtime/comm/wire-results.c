/* SPDX-License-Identifier: Apache-2.0 */
/* The results that a rank sends to all others: sequences, scores, statistics, counts of the router. */
#include "runtime/comm/wire-internal.h"

#include "kernels/logprob.h"

enum { HAS_LOGPROBS = 1, HAS_ERR = 2 }; /* flags of a sequence */

size_t moe_wire_sequence_bytes(const struct moe_wire_sequence *s)
{
    unsigned char scratch[MOE_WIRE_ERR_BYTES];
    size_t each = sizeof(int32_t) + (s->logprobs ? sizeof(struct moe_logprobs) : 0);
    size_t err = s->err.code != MOE_OK ? moe_wire_err_put(scratch, &s->err) : 0;
    return 8 + 8 + 4 + 4 + (size_t)s->n * each + err + s->text_bytes;
}

void moe_wire_sequence_put(unsigned char *out, const struct moe_wire_sequence *s)
{
    bool failed = s->err.code != MOE_OK;
    put64(&out, (uint64_t)s->index);
    put64(&out, (uint64_t)s->n);
    put32(&out, (uint32_t)s->finish);
    put32(&out, (s->logprobs ? HAS_LOGPROBS : 0) | (failed ? HAS_ERR : 0));
    put_bytes(&out, s->tokens, (size_t)s->n * sizeof(int32_t));
    if (s->logprobs) put_bytes(&out, s->logprobs, (size_t)s->n * sizeof(struct moe_logprobs));
    if (failed) moe_wire_put_err_fields(&out, &s->err);
    put_bytes(&out, s->text, s->text_bytes);
}

static bool is_sound(const unsigned char *p, int64_t vocab)
{
    struct moe_logprobs l;
    memcpy(&l, p, sizeof l);
    bool good = l.n >= 0 && l.n <= MOE_LOGPROBS;
    for (int i = 0; good && i < l.n; i++) good = l.top[i].id >= 0 && l.top[i].id < vocab;
    return good;
}

bool moe_wire_sequence_get(const unsigned char *p, size_t bytes, int64_t vocab, struct moe_wire_sequence *s)
{
    struct fields in = read_fields(p, bytes);
    s->index = (int64_t)get64(&in);
    uint64_t n = get64(&in);
    s->finish = (int32_t)get32(&in);
    uint32_t flags = get32(&in), logprobs = flags & HAS_LOGPROBS;
    s->err = (struct moe_err){ .code = MOE_OK };
    in.bad |= flags > (HAS_LOGPROBS | HAS_ERR);
    if (in.bad || s->index < 0 || n > bytes / sizeof(int32_t)) return false;
    s->n = (int64_t)n;
    s->tokens = get_bytes(&in, (size_t)n * sizeof(int32_t));
    for (uint64_t i = 0; !in.bad && i < n; i++) {
        int32_t id;
        memcpy(&id, s->tokens + i * sizeof id, sizeof id);
        in.bad = id < 0 || id >= vocab;
    }
    s->logprobs = !in.bad && logprobs ? get_bytes(&in, (size_t)n * sizeof(struct moe_logprobs)) : NULL;
    for (uint64_t i = 0; !in.bad && logprobs && i < n; i++)
        in.bad = !is_sound(s->logprobs + i * sizeof(struct moe_logprobs), vocab);
    if (!in.bad && flags & HAS_ERR) moe_wire_get_err_fields(&in, &s->err);
    s->text_bytes = (size_t)(in.end - in.at);
    s->text = in.at;
    return !in.bad;
}

size_t moe_wire_score_bytes(int64_t n_all) { return 6 * 8 + (size_t)n_all * sizeof(double); }

void moe_wire_score_put(unsigned char *out, const struct moe_wire_score *s, int64_t n_all)
{
    put64(&out, (uint64_t)s->n);
    put64(&out, (uint64_t)s->same);
    put_double(&out, s->nll);
    put_double(&out, s->nll_reference);
    put_double(&out, s->kl);
    put64(&out, s->anonymous);
    put_bytes(&out, s->all, (size_t)n_all * sizeof(double));
}

bool moe_wire_score_get(const unsigned char *p, size_t bytes, bool reference, struct moe_wire_score *s)
{
    struct fields in = read_fields(p, bytes);
    uint64_t n = get64(&in), same = get64(&in);
    s->nll = get_double(&in);
    s->nll_reference = get_double(&in);
    s->kl = get_double(&in);
    s->anonymous = get64(&in);
    if (in.bad || n > (uint64_t)1 << 40 || same > n) return false;
    s->n = (int64_t)n;
    s->same = (int64_t)same;
    s->all = reference ? in.at : NULL;
    for (uint64_t i = 0; reference && !in.bad && i < n; i++) get_double(&in);
    return !in.bad && in.at == in.end;
}

void moe_wire_stats_put(unsigned char out[MOE_WIRE_STATS_BYTES], const struct moe_wire_stats *s)
{
    const uint64_t counts[] = { s->requests, s->served, s->again, s->bytes_sent, s->bytes_rows, s->mapped };
    const double seconds[] = { s->seconds_send, s->seconds_wait, s->seconds_serve, s->seconds_experts };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) put64(&out, counts[i]);
    const uint64_t cache[] = { s->cache_bytes, s->cache_pages, s->cache_used_peak, s->cache_found,
                               s->cache_preemptions };
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) put_double(&out, seconds[i]);
    for (size_t i = 0; i < sizeof cache / sizeof *cache; i++) put64(&out, cache[i]);
    put32(&out, s->moves);
    put32(&out, s->died);
}

static void get_counts(struct fields *in, uint64_t *const to[], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        *to[i] = get64(in);
        in->bad |= *to[i] > INT64_MAX;
    }
}

bool moe_wire_stats_get(const unsigned char *p, size_t bytes, struct moe_wire_stats *s)
{
    struct fields in = read_fields(p, bytes);
    uint64_t *const counts[] = { &s->requests,   &s->served,     &s->again,
                                 &s->bytes_sent, &s->bytes_rows, &s->mapped };
    double *const seconds[] = { &s->seconds_send, &s->seconds_wait, &s->seconds_serve, &s->seconds_experts };
    uint64_t *const cache[] = { &s->cache_bytes, &s->cache_pages, &s->cache_used_peak, &s->cache_found,
                                &s->cache_preemptions };
    get_counts(&in, counts, sizeof counts / sizeof *counts);
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) *seconds[i] = get_double(&in);
    get_counts(&in, cache, sizeof cache / sizeof *cache);
    s->moves = get32(&in);
    s->died = get32(&in);
    return !in.bad && in.at == in.end && s->died <= 1 && s->moves <= INT32_MAX;
}

bool moe_wire_counts_sound(const unsigned char *p, size_t bytes, size_t want)
{
    if (bytes != want) return false;
    for (size_t i = 0; i < bytes / sizeof(int64_t); i++) {
        int64_t n;
        memcpy(&n, p + i * sizeof n, sizeof n);
        if (n < 0 || n > INT64_MAX >> 16) return false;
    }
    return true;
}
