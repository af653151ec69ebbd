/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/ops.h - arithmetic that has one plain C form because little time goes there: router,
 * rotary tables, sampling. */
#ifndef MOE_KERNELS_OPS_H
#define MOE_KERNELS_OPS_H

#include <stdbool.h>
#include <stdint.h>

/* ---- router ---- */

struct moe_router { int64_t n_experts, top_k, n_group, topk_group; bool norm_topk_prob; float scale; };

/* logits [n_experts] -> experts [top_k] and weights [top_k].  s = sigmoid(logit), c = s + bias (bias NULL:
 * 0).  With n_group > 1 a group scores the sum of its two best c, and only the topk_group best groups take
 * part.  Chosen: the top_k largest c, in descending order, ties to the lower index.  Weight: s, over (sum of
 * chosen s + 1e-20) when norm_topk_prob, times scale.  `c` is scratch of 2 * n_experts floats.  Source:
 * DeepSeek-V3's noaux_tc gate. */
void moe_route(const struct moe_router *r, const float *logits, const float *bias, float *c, int32_t *experts,
               float *weights);

/* ---- rotary tables ---- */

struct moe_rope_config {
    int64_t dim;                 /* of the rotated part; even */
    double theta;
    bool yarn;                   /* the rest is read only then */
    double factor, beta_fast, beta_slow, mscale, mscale_all_dim, original_max;
};

/* inv_freq [dim / 2].  YaRN: fe_i = theta^(-2i/dim), fi_i = fe_i / factor, d(r) = dim ln(original_max / (2 pi
 * r)) / (2 ln theta), low = max(floor d(beta_fast), 0), high = min(ceil d(beta_slow), dim - 1) (+ 0.001 when
 * equal), ramp = clamp((i - low) / (high - low), 0, 1), inv_freq = fi * ramp + fe * (1 - ramp). */
void moe_rope_frequencies(const struct moe_rope_config *c, float *inv_freq);

/* cos and sin [dim / 2] of one position: of float32(pos) * inv_freq in float32, times m(factor, mscale) /
 * m(factor, mscale_all_dim), m(s, a) = s <= 1 ? 1 : 0.1 a ln s + 1. */
void moe_rope_angles(const struct moe_rope_config *c, const float *inv_freq, int64_t pos, float *cos,
                     float *sin);

/* head_dim^-0.5 * m(factor, mscale_all_dim)^2: what attention scores are multiplied by. */
float moe_softmax_scale(const struct moe_rope_config *c, int64_t head_dim);

/* ---- sampling ---- */

struct moe_rng { uint64_t state; }; /* splitmix64: the same seed gives the same numbers on every machine */
double moe_rng_next(struct moe_rng *r); /* uniform in [0, 1) */

struct moe_sampler { double temperature, top_p, min_p; int64_t top_k; };

/* A token from logits [n] (which may hold -inf; not NaN).  temperature 0: the largest, ties to the lower id.
 * Else, in this order: top_k
 * (0: off), softmax of logit / temperature, min_p (drop below min_p times the best), top_p (the smallest set
 * that reaches top_p, best first, ties to the lower id), then one draw from what is left.  order: scratch of
 * n int32, p: of n floats. */
int32_t moe_sample(const struct moe_sampler *s, struct moe_rng *r, const float *logits, int64_t n,
                   int32_t *order, float *p);

#endif
