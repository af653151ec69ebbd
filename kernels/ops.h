/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/ops.h - arithmetic that has one form, in plain C, because it takes little time: the router, rotary
 * tables, random numbers. */
#ifndef MOE_KERNELS_OPS_H
#define MOE_KERNELS_OPS_H

#include <stdbool.h>
#include <stdint.h>

/* ---- router ---- */

/* n_experts routed experts, of which top_k are chosen; scale: routed_scaling_factor.  The rest as in
 * config.json. */
struct moe_router {
    int64_t n_experts, top_k;
    int64_t n_group, topk_group;
    bool norm_topk_prob;
    float scale;
};

/* logits [n_experts] -> experts [top_k] and weights [top_k].  This is the gate `noaux_tc` of DeepSeek-V3:
 * s = sigmoid(logit), c = s + bias (0 where bias is NULL).  With n_group > 1 a group of experts scores the
 * sum of its two largest c, and only the topk_group best groups take part.  The top_k largest c are chosen,
 * in descending order, ties to the lower index.  An expert's weight is its s, divided by (the sum of the
 * chosen s + 1e-20) when norm_topk_prob, times scale.  `c` is scratch of 2 * n_experts floats. */
void moe_route(const struct moe_router *r, const float *logits, const float *bias, float *c, int32_t *experts,
               float *weights);

/* ---- rotary tables ---- */

struct moe_rope_config {
    int64_t dim;                 /* of the rotated part of a head; even */
    double theta;
    bool yarn;                   /* what follows is read only with it */
    double factor, beta_fast, beta_slow;
    double mscale, mscale_all_dim;
    double original_max;         /* positions that the model was first trained on */
};

/* inv_freq [dim / 2] = theta^(-2i/dim).  With YaRN (Peng et al. 2023, as DeepSeek-V3 computes it):
 *
 *   fe = theta^(-2i/dim), fi = fe / factor, inv_freq = fi * ramp + fe * (1 - ramp)
 *   ramp = clamp((i - low) / (high - low), 0, 1)
 *   low = max(floor(d(beta_fast)), 0), high = min(ceil(d(beta_slow)), dim - 1), + 0.001 when equal to low
 *   d(r) = dim * ln(original_max / (2 pi r)) / (2 ln theta) */
void moe_rope_frequencies(const struct moe_rope_config *c, float *inv_freq);

/* cos and sin [dim / 2] for one position: of float32(pos) * inv_freq, a float32 product.  With YaRN both are
 * multiplied by m(factor, mscale) / m(factor, mscale_all_dim), m(s, a) being 1 for s <= 1, else 0.1 a ln s +
 * 1. */
void moe_rope_angles(const struct moe_rope_config *c, const float *inv_freq, int64_t pos, float *cos,
                     float *sin);

/* What attention scores are multiplied by: head_dim^-0.5, with YaRN times m(factor, mscale_all_dim)^2. */
float moe_softmax_scale(const struct moe_rope_config *c, int64_t head_dim);

/* ---- random numbers ---- */

/* splitmix64 (Steele, Lea, Flood 2014): the same seed gives the same numbers on every machine. */
struct moe_rng { uint64_t state; };
double moe_rng_next(struct moe_rng *r); /* uniform in [0, 1) */

#endif
