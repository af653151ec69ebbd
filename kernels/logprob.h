/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/logprob.h - logarithms of the probabilities that a row of logits gives to tokens.
 *
 * They are those of the logits as the model computed them: at temperature 1, before penalties, and with no
 * token left out.  Their bits are the same on every machine. */
#ifndef MOE_KERNELS_LOGPROB_H
#define MOE_KERNELS_LOGPROB_H

#include <stdint.h>

enum { MOE_LOGPROBS = 20 }; /* the most alternatives */

struct moe_logprob { int32_t id; float logprob; };

/* Of a token that was drawn, and of the n most probable ones, in descending order of their logits, ties to
 * the lower id. */
struct moe_logprobs {
    float logprob;
    int n;
    struct moe_logprob top[MOE_LOGPROBS];
};

/* Sets *out for the token `id`, with as many alternatives as `top`, 0 to MOE_LOGPROBS, or as n.
 *
 *   w_i = floor(E(logit_i - largest) * 2^40), as in moe_sample at temperature 1 (kernels/sample.h)
 *   log p_i = (logit_i - largest) - moe_log(sum of all w * 2^-40), both in double, rounded to float32 once
 *
 * A logit of -Inf gives -Inf.  Where no logit is finite, those that equal the largest get 0, others -Inf.
 * logits [n] have no NaN; n is 1 to 2^23; e is scratch of n floats. */
void moe_logprobs(const float *logits, int64_t n, int32_t id, int top, struct moe_logprobs *out, float *e);

/* The natural logarithm of x, which is positive, finite and at least 2^-1022, within 1e-15 of its value or 1:
 *
 *   x = m * 2^k with sqrt(1/2) <= m < sqrt(2) as double;  s = (m - 1) / (m + 1);  t = s * s
 *   q = 1/25, then q = q * t + 1/j for j = 23, 21, ... 1
 *   log x = k * 0x1.62e42fefa39efp-1 + 2 * s * q
 *
 * in double, each operation rounded once, without fma. */
double moe_log(double x);

#endif
