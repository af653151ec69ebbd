/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/core-internal.h"

#include <math.h>

/* The logarithm of the sum of exp(x) over x [n]; +Inf never comes in. */
static double log_sum_exp(const float *x, int64_t n)
{
    double sum = 0;
    float max = x[0];
    for (int64_t i = 1; i < n; i++)
        if (x[i] > max) max = x[i];
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)max);
    return (double)max + log(sum);
}

/* Puts the token among the most probable ones, which stay in descending order. */
static void insert(struct moe_logprobs *l, int most, int32_t id, float logit)
{
    int i = l->n < most ? l->n++ : most - 1;
    for (; i > 0 && l->top[i - 1].logprob < logit; i--) l->top[i] = l->top[i - 1];
    l->top[i] = (struct moe_logprob){ id, logit };
}

/* Notes the `most` most probable tokens, and returns what to subtract from a logit for its logarithm. */
static double note_top(struct moe_logprobs *l, int most, const float *logits, int64_t n)
{
    double z = log_sum_exp(logits, n);
    l->n = 0;
    for (int64_t i = 0; most > 0 && i < n; i++)
        if (l->n < most || logits[i] > l->top[most - 1].logprob) insert(l, most, (int32_t)i, logits[i]);
    for (int i = 0; i < l->n; i++) l->top[i].logprob = (float)((double)l->top[i].logprob - z);
    return z;
}

/* Rules out the tokens that would end the answer too soon. */
static void forbid_ends(const struct moe_core *c, const struct moe_entry *e, float *logits)
{
    const struct moe_request *q = &e->q;
    for (size_t i = 0; i < q->n_stop_ids; i++)
        if (q->stop_ids[i] >= 0 && q->stop_ids[i] < c->e->vocab) logits[q->stop_ids[i]] = -INFINITY;
    for (int64_t i = 0; !q->ignore_eos && i < c->ends.n; i++)
        if (c->ends.id[i] < c->e->vocab) logits[c->ends.id[i]] = -INFINITY;
}

enum moe_code moe_core_sample(struct moe_core *c, struct moe_entry *e, float *logits, struct moe_err *err)
{
    struct moe_answer *a = &e->answer;
    struct moe_logprobs *l = e->logprobs ? &e->logprobs[a->n % e->logprobs_cap] : NULL;
    int64_t position = e->job.prompt + a->n, vocab = c->e->vocab, before = a->n;
    uint64_t draw = moe_draw(e->q.seed, e->q.choice, position);
    /* of all tokens, so before any is ruled out */
    double z = l ? note_top(l, e->q.logprobs, logits, vocab) : 0;
    if (a->n < e->q.min_tokens) forbid_ends(c, e, logits);
    int32_t id = moe_sample(&e->q.sampler, draw, logits, vocab, c->order, c->p);
    if (l) l->logprob = (float)((double)logits[id] - z);
    MOE_TRY(moe_answer_add(a, id, err));
    if (a->n == before) return MOE_OK;
    e->job.ids[position] = id;
    if (!a->done) e->job.n_ids++;
    c->stats.generated++;
    return MOE_OK;
}
