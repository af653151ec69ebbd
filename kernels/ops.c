/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops.h"

#include "kernels/kernels.h"

#include <math.h>

/* ---- router ---- */

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
    moe_kernels()->sigmoid(logits, r->n_experts, s);
    for (int64_t e = 0; e < r->n_experts; e++) c[e] = s[e] + (bias ? bias[e] : 0);
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

/* ---- random numbers ---- */

double moe_rng_next(struct moe_rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}
