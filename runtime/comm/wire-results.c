/* SPDX-License-Identifier: Apache-2.0 */
/* The results that a rank sends to all others: sequences, scores, statistics, counts of the router. */
#include "runtime/comm/wire-internal.h"

size_t moe_wire_sequence_bytes(int64_t n, size_t text_bytes)
{
    return 8 + 8 + 4 + (size_t)n * sizeof(int32_t) + text_bytes;
}

void moe_wire_sequence_put(unsigned char *out, const struct moe_wire_sequence *s)
{
    give64(&out, (uint64_t)s->index);
    give64(&out, (uint64_t)s->n);
    give32(&out, (uint32_t)s->finish);
    give_bytes(&out, s->tokens, (size_t)s->n * sizeof(int32_t));
    give_bytes(&out, s->text, s->text_bytes);
}

bool moe_wire_sequence_get(const unsigned char *p, size_t bytes, int64_t vocab, struct moe_wire_sequence *s)
{
    struct fields in = read_fields(p, bytes);
    s->index = (int64_t)take64(&in);
    uint64_t n = take64(&in);
    s->finish = (int32_t)take32(&in);
    if (in.bad || s->index < 0 || n > bytes / sizeof(int32_t)) return false;
    s->n = (int64_t)n;
    s->tokens = take_bytes(&in, (size_t)n * sizeof(int32_t));
    for (uint64_t i = 0; !in.bad && i < n; i++) {
        int32_t id;
        memcpy(&id, s->tokens + i * sizeof id, sizeof id);
        in.bad = id < 0 || id >= vocab;
    }
    s->text_bytes = (size_t)(in.end - in.at);
    s->text = in.at;
    return !in.bad;
}

size_t moe_wire_score_bytes(int64_t n_all) { return 6 * 8 + (size_t)n_all * sizeof(double); }

void moe_wire_score_put(unsigned char *out, const struct moe_wire_score *s, int64_t n_all)
{
    give64(&out, (uint64_t)s->n);
    give64(&out, (uint64_t)s->same);
    give_double(&out, s->nll);
    give_double(&out, s->nll_reference);
    give_double(&out, s->kl);
    give64(&out, s->anonymous);
    give_bytes(&out, s->all, (size_t)n_all * sizeof(double));
}

bool moe_wire_score_get(const unsigned char *p, size_t bytes, bool reference, struct moe_wire_score *s)
{
    struct fields in = read_fields(p, bytes);
    uint64_t n = take64(&in), same = take64(&in);
    s->nll = take_double(&in);
    s->nll_reference = take_double(&in);
    s->kl = take_double(&in);
    s->anonymous = take64(&in);
    if (in.bad || n > (uint64_t)1 << 40 || same > n) return false;
    s->n = (int64_t)n;
    s->same = (int64_t)same;
    s->all = reference ? in.at : NULL;
    for (uint64_t i = 0; reference && !in.bad && i < n; i++) take_double(&in);
    return !in.bad && in.at == in.end;
}

void moe_wire_stats_put(unsigned char out[MOE_WIRE_STATS_BYTES], const struct moe_wire_stats *s)
{
    const uint64_t counts[] = { s->requests, s->served, s->again, s->bytes_sent, s->bytes_rows, s->mapped };
    const double seconds[] = { s->seconds_send, s->seconds_wait, s->seconds_serve, s->seconds_experts };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) give64(&out, counts[i]);
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) give_double(&out, seconds[i]);
    give32(&out, s->moves);
    give32(&out, s->died);
}

bool moe_wire_stats_get(const unsigned char *p, size_t bytes, struct moe_wire_stats *s)
{
    struct fields in = read_fields(p, bytes);
    uint64_t *const counts[] = { &s->requests,   &s->served,     &s->again,
                                 &s->bytes_sent, &s->bytes_rows, &s->mapped };
    double *const seconds[] = { &s->seconds_send, &s->seconds_wait, &s->seconds_serve, &s->seconds_experts };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        *counts[i] = take64(&in);
        in.bad |= *counts[i] > INT64_MAX;
    }
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) *seconds[i] = take_double(&in);
    s->moves = take32(&in);
    s->died = take32(&in);
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
