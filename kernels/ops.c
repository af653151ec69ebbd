/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops.h"

#include <math.h>
#include <stdlib.h>

/* ---- router ---- */

static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/* Give the experts of the groups that do not take part a c of -Inf. */
static void mask_groups(const struct moe_router *r, float *c)
{
    int64_t size = r->n_experts / r->n_group;
    for (int64_t dropped = 0; dropped < r->n_group - r->topk_group; dropped++) {
        int64_t worst = -1;
        float least = 0;
        for (int64_t g = 0; g < r->n_group; g++) {
            float best = -INFINITY, second = -INFINITY;
            for (int64_t i = g * size; i < (g + 1) * size; i++) {
                if (c[i] > best) second = best, best = c[i];
                else if (c[i] > second) second = c[i];
            }
            if (best == -INFINITY) continue;
            float score = size > 1 ? best + second : best;
            if (worst < 0 || score <= least) worst = g, least = score; /* a tie drops the higher index */
        }
        if (worst < 0) return;
        for (int64_t i = worst * size; i < (worst + 1) * size; i++) c[i] = -INFINITY;
    }
}

void moe_route(const struct moe_router *r, const float *logits, const float *bias, float *c, int32_t *experts,
               float *weights)
{
    float *s = c + r->n_experts, sum = 0;
    for (int64_t e = 0; e < r->n_experts; e++) {
        s[e] = sigmoid(logits[e]);
        c[e] = s[e] + (bias ? bias[e] : 0);
    }
    if (r->n_group > 1) mask_groups(r, c);
    for (int64_t j = 0; j < r->top_k; j++) {
        int64_t best = -1;
        for (int64_t e = 0; e < r->n_experts; e++)
            if (!isnan(c[e]) && (best < 0 || c[e] > c[best])) best = e;
        if (best < 0) best = j;
        experts[j] = (int32_t)best;
        weights[j] = s[best];
        sum += s[best];
        c[best] = NAN; /* taken */
    }
    float scale = r->norm_topk_prob ? r->scale / (sum + 1e-20f) : r->scale;
    for (int64_t j = 0; j < r->top_k; j++) weights[j] *= scale;
}

/* ---- rotary tables ---- */

static double m(double s, double a) { return s <= 1 ? 1 : 0.1 * a * log(s) + 1; }

static double correction(const struct moe_rope_config *c, double rotations)
{
    return (double)c->dim * log(c->original_max / (rotations * 2 * 3.14159265358979323846)) /
           (2 * log(c->theta));
}

void moe_rope_frequencies(const struct moe_rope_config *c, float *inv_freq)
{
    double low = 0, high = 0;
    if (c->yarn) {
        low = fmax(floor(correction(c, c->beta_fast)), 0);
        high = fmin(ceil(correction(c, c->beta_slow)), (double)c->dim - 1);
        if (low == high) high += 0.001;
    }
    for (int64_t i = 0; i < c->dim / 2; i++) {
        double fe = pow(c->theta, -2.0 * (double)i / (double)c->dim);
        double ramp = c->yarn ? fmin(fmax(((double)i - low) / (high - low), 0), 1) : 0;
        inv_freq[i] = (float)(c->yarn ? fe / c->factor * ramp + fe * (1 - ramp) : fe);
    }
}

void moe_rope_angles(const struct moe_rope_config *c, const float *inv_freq, int64_t pos, float *cosine,
                     float *sine)
{
    float f = c->yarn ? (float)(m(c->factor, c->mscale) / m(c->factor, c->mscale_all_dim)) : 1.0f;
    for (int64_t i = 0; i < c->dim / 2; i++) {
        float a = (float)pos * inv_freq[i];
        cosine[i] = (float)cos((double)a) * f;
        sine[i] = (float)sin((double)a) * f;
    }
}

float moe_softmax_scale(const struct moe_rope_config *c, int64_t head_dim)
{
    double a = c->yarn && c->mscale_all_dim != 0 ? m(c->factor, c->mscale_all_dim) : 1;
    return (float)(a * a / sqrt((double)head_dim));
}

/* ---- sampling ---- */

double moe_rng_next(struct moe_rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static int32_t largest(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

static int by_logit(const void *a, const void *b, void *logits)
{
    int32_t i = *(const int32_t *)a, k = *(const int32_t *)b;
    float x = ((const float *)logits)[i], y = ((const float *)logits)[k];
    return x > y ? -1 : x < y ? 1 : (i > k) - (i < k);
}

/* Ids in descending order of their logits, sorted no further than asked for: incremental quicksort (Paredes
 * and Navarro 2006).  order[0 .. done - 1] stand in order.  After them come parts that end at edge[depth -
 * 1], then at edge[depth - 2] and so on: every id of a part ranks before those of the parts after it. */
enum { EDGES = 96 };
struct ranking {
    const float *logits;
    int32_t *order;
    int64_t done, edge[EDGES];
    int depth;
};

static void rank_begin(struct ranking *r, const float *logits, int64_t n, int32_t *order)
{
    *r = (struct ranking){ .logits = logits, .order = order, .edge = { n }, .depth = 1 };
    for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
}

static bool ahead(const float *x, int32_t i, int32_t k) { return x[i] > x[k] || (x[i] == x[k] && i < k); }

/* Put the id at `pivot` where it belongs in [from, to): ids that rank before it to its left.  Returns its
 * place. */
static int64_t partition(const struct ranking *r, int64_t from, int64_t to, int64_t pivot)
{
    int32_t *o = r->order, id = o[pivot];
    int64_t at = from;
    o[pivot] = o[to - 1];
    for (int64_t i = from; i < to - 1; i++) {
        int32_t k = o[i]; /* no branch: the comparison goes either way as often */
        bool first = ahead(r->logits, k, id);
        o[i] = o[at];
        o[at] = k;
        at += first;
    }
    o[to - 1] = o[at];
    o[at] = id;
    return at;
}

/* The id of rank i.  Calls ask for ascending i. */
static int32_t rank_at(struct ranking *r, int64_t i)
{
    while (r->done <= i) {
        int64_t end = r->edge[r->depth - 1], from = r->done;
        if (end - from <= 32 || r->depth == EDGES) {
            qsort_r(r->order + from, (size_t)(end - from), sizeof *r->order, by_logit,
                    (void *)(uintptr_t)r->logits);
            r->done = end;
            r->depth--;
            continue;
        }
        int64_t at = partition(r, from, end, from + (end - from) / 2);
        if (at > from) r->edge[r->depth++] = at; /* that part is next; the pivot begins the one after it */
        else r->done = at + 1;
    }
    return r->order[i];
}

/* The draw as moe_sample promises it.  p: probabilities, not normalized; `total`: the sum of those of the
 * `kept` best ids, added in order of rank; uniform: the random number. */
static int32_t draw(struct ranking *rank, const float *p, int64_t kept, double total, double top_p,
                    double uniform)
{
    double limit = top_p > 0 && top_p < 1 ? top_p * total : total, part = 0;
    int64_t n = 0;
    while (n < kept && (n == 0 || part < limit)) part += (double)p[rank_at(rank, n++)];
    double u = uniform * part;
    for (int64_t i = 0; i < n; i++)
        if ((u -= (double)p[rank->order[i]]) < 0) return rank->order[i];
    return rank->order[n - 1];
}

/* The same with a total that was added in another order, and so may be off by `slack`: no more ids are ranked
 * than the draw needs.  Returns -1 where the slack could change the result. */
static int32_t draw_early(struct ranking *rank, const float *p, int64_t kept, double total, double slack,
                          double top_p, double uniform)
{
    double part = 0, limit = top_p * total, u = uniform * total;
    int64_t n = 0;
    if (!(top_p > 0 && top_p < 1)) {
        for (; n < kept; n++) {
            u -= (double)p[rank_at(rank, n)];
            if (!(fabs(u) > slack)) return -1;
            if (u < 0) return rank->order[n];
        }
        return -1;
    }
    while (n < kept && (n == 0 || part < limit)) {
        part += (double)p[rank_at(rank, n++)];
        if (!(fabs(part - limit) > slack)) return -1;
    }
    u = uniform * part;
    for (int64_t i = 0; i < n; i++)
        if ((u -= (double)p[rank->order[i]]) < 0) return rank->order[i];
    return rank->order[n - 1];
}

int32_t moe_sample(const struct moe_sampler *s, struct moe_rng *r, const float *logits, int64_t n,
                   int32_t *order, float *p)
{
    int32_t best = largest(logits, n);
    if (!(s->temperature > 0)) return best;
    struct ranking rank;
    int64_t kept = n;
    double sum = 0, total = 0;
    rank_begin(&rank, logits, n, order);
    if (s->top_k > 0 && s->top_k < n) rank_at(&rank, (kept = s->top_k) - 1);

    /* the first `kept` ids are the best, in any order */
    for (int64_t i = 0; i < kept; i++) {
        double e = exp(((double)logits[order[i]] - (double)logits[best]) / s->temperature);
        p[order[i]] = (float)(e < s->min_p ? 0 : e);
        sum += (double)p[order[i]];
    }

    /* two sums of the same numbers, each off by at most half of the slack */
    double uniform = moe_rng_next(r), slack = 4 * (double)(kept + 4) * 0x1p-53 * sum;
    int32_t early = draw_early(&rank, p, kept, sum, slack, s->top_p, uniform);
    if (early >= 0) return early;
    rank_at(&rank, kept - 1);
    for (int64_t i = 0; i < kept; i++) total += (double)p[order[i]];
    return draw(&rank, p, kept, total, s->top_p, uniform);
}
