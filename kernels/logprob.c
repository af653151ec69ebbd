/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/logprob.h"

#include "kernels/kernels.h"

#include <math.h>

double moe_log(double x)
{
    int k;
    double m = frexp(x, &k); /* in [1/2, 1) */
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2;
        k--;
    }
    double s = (m - 1) / (m + 1), t = s * s, q = 1.0 / 25;
    for (int j = 23; j >= 1; j -= 2) q = q * t + 1.0 / j;
    return k * 0x1.62e42fefa39efp-1 + 2 * s * q;
}

/* Inserts an id into the list of at most `most` ids, which is in descending order.  Ids come in ascending
 * order, so of equal logits the first stays ahead. */
static void insert(const float *logits, int32_t id, int most, struct moe_logprobs *l)
{
    if (l->n == most && !(logits[id] > logits[l->top[most - 1].id])) return;
    int at = l->n < most ? l->n++ : most - 1;
    for (; at > 0 && logits[id] > logits[l->top[at - 1].id]; at--) l->top[at] = l->top[at - 1];
    l->top[at].id = id;
}

/* The logarithm of the sum of exp(logit - largest). */
static double log_sum(const float *logits, int64_t n, float largest, float *e)
{
    uint64_t total = 0;
    for (int64_t i = 0; i < n; i++) e[i] = logits[i] - largest;
    moe_kernels()->exp(e, n, e);
    for (int64_t i = 0; i < n; i++) total += (uint64_t)(e[i] * 0x1p40f);
    return moe_log((double)total * 0x1p-40);
}

/* log: that of the sum over all ids. */
static float logprob_of(float logit, float largest, double log)
{
    if (!isfinite(largest)) return logit == largest ? 0 : -INFINITY;
    return (float)((double)logit - (double)largest - log);
}

void moe_logprobs(const float *logits, int64_t n, int32_t id, int top, struct moe_logprobs *out, float *e)
{
    float largest = logits[0];
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > largest) largest = logits[i];
    double log = isfinite(largest) ? log_sum(logits, n, largest, e) : 0;
    out->logprob = logprob_of(logits[id], largest, log);
    out->n = 0;
    for (int64_t i = 0; top > 0 && i < n; i++) insert(logits, (int32_t)i, top, out);
    for (int i = 0; i < out->n; i++)
        out->top[i].logprob = logprob_of(logits[out->top[i].id], largest, log);
}
