/* SPDX-License-Identifier: Apache-2.0 */
/* Tests penalties, biases and bans, against a second way to compute them, and logarithms of probabilities,
 * against libm. */
#include "tests/ok.h"
#include "kernels/kernels.h"
#include "kernels/logprob.h"
#include "kernels/ops.h"
#include "kernels/penalties.h"
#include "kernels/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct moe_err err = MOE_ERR_INIT;

/* ---- penalties ---- */

enum { V = 300 };

/* What the logit of an id becomes, from the whole text: vLLM's definition, read literally. */
static float penalized(const struct moe_penalties *p, float l, int32_t id, const int32_t *prompt, int64_t n,
                       const int32_t *answer, int64_t m)
{
    float r = p->repetition > 0 ? p->repetition : 1, bias = 0;
    int in_prompt = 0, in_answer = 0;
    for (size_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].id == id) bias = p->bias[i].bias;
    for (int64_t i = 0; i < n; i++) in_prompt += prompt[i] == id;
    for (int64_t i = 0; i < m; i++) in_answer += answer[i] == id;
    l += bias;
    if (in_prompt || in_answer) l = l > 0 ? l / r : l * r;
    if (!in_answer) return l;
    float by = p->frequency * (float)in_answer;
    return l + (-by - p->presence);
}

static void fill(struct moe_rng *r, float *row, int64_t n)
{
    for (int64_t i = 0; i < n; i++) row[i] = (float)(20 * moe_rng_next(r) - 10);
    row[7] = -INFINITY;
    row[8] = 0;
}

static void test_penalties(void)
{
    static const float repetition[] = { 0, 1, 1.3f, .5f }, frequency[] = { 0, .7f, -2 },
                       presence[] = { 0, 1.5f, -.25f };
    const struct moe_bias bias[] = { { 3, 5 }, { 9, -100 }, { 7, 100 }, { 3, 2 }, { V, 1 }, { -1, 1 } };
    struct moe_rng r = { 5 };
    float row[V], was[V];
    int32_t prompt[40], answer[400];
    for (int round = 0; round < 4 * 3 * 3 * 2; round++) {
        struct moe_penalties p = { repetition[round % 4], frequency[round / 4 % 3], presence[round / 12 % 3],
                                   bias, round / 36 ? 6 : 0 };
        struct moe_logit_edits e;
        for (int i = 0; i < 40; i++) prompt[i] = (int32_t)(moe_rng_next(&r) * V);
        OK(moe_logit_edits_begin(&e, &p, V, prompt, 40, NULL, 0, 0, &err) == MOE_OK);
        for (int64_t m = 0; m < 400; m++) {
            if (m < 5 || m % 37 == 0) {
                fill(&r, row, V);
                memcpy(was, row, sizeof row);
                moe_logit_edits_apply(&e, row);
                for (int32_t i = 0; i < V; i++)
                    OK(row[i] == penalized(&p, was[i], i, prompt, 40, answer, m));
                moe_logit_edits_undo(&e, row);
                OK(!memcmp(row, was, sizeof row));
            }
            answer[m] = (int32_t)(moe_rng_next(&r) * moe_rng_next(&r) * V);
            OK(moe_logit_edits_add(&e, answer[m], &err) == MOE_OK);
        }
        OK(e.n <= V && (p.repetition > 0 || p.frequency != 0 || p.presence != 0 || e.n <= 3));
        moe_logit_edits_release(&e);
    }
}

/* A request that asks for nothing has no edits, and a step allocates nothing once each token was there. */
static void test_nothing(void)
{
    struct moe_logit_edits e;
    const int32_t prompt[] = { 1, 2, 3 };
    OK(moe_logit_edits_begin(&e, &(struct moe_penalties){ 0 }, V, prompt, 3, prompt, 3, 0, &err) == MOE_OK);
    for (int32_t i = 0; i < V; i++) OK(moe_logit_edits_add(&e, i, &err) == MOE_OK);
    OK(!e.n && !e.edit && !e.slot);
    moe_logit_edits_release(&e);
    OK(moe_logit_edits_add(&e, 1, &err) == MOE_OK && !e.n); /* all zero */

    const struct moe_penalties some = { .presence = 1 };
    OK(moe_logit_edits_begin(&e, &some, V, prompt, 3, NULL, 0, 0, &err) == MOE_OK);
    for (int32_t i = 0; i < V; i++) OK(moe_logit_edits_add(&e, i, &err) == MOE_OK);
    const void *edit = e.edit, *slot = e.slot;
    for (int32_t i = 0; i < 100 * V; i++) OK(moe_logit_edits_add(&e, i % V, &err) == MOE_OK);
    OK(e.n == V && e.edit == edit && e.slot == slot && e.count[0] == 101);
    moe_logit_edits_release(&e);
}

/* Banned tokens come back after min_tokens tokens, with the biases that they have. */
static void test_bans(void)
{
    const struct moe_bias bias[] = { { 4, 2 }, { 5, 3 } };
    const struct moe_penalties p = { .bias = bias, .n_bias = 2 };
    const int32_t ends[] = { 4, 6, 4, V, -5 };
    struct moe_logit_edits e;
    float row[V] = { 0 };
    OK(moe_logit_edits_begin(&e, &p, V, NULL, 0, ends, 5, 3, &err) == MOE_OK);
    for (int step = 0; step < 5; step++) {
        moe_logit_edits_apply(&e, row);
        OK(step < 3 ? row[4] == -INFINITY && row[6] == -INFINITY : row[4] == 2 && row[6] == 0);
        OK(row[5] == 3 && row[0] == 0);
        moe_logit_edits_undo(&e, row);
        OK(moe_logit_edits_add(&e, 1, &err) == MOE_OK);
    }
    moe_logit_edits_release(&e);

    /* where all is banned or -Inf, sampling still gives an id */
    int32_t all[V], order[V];
    float scratch[V];
    for (int32_t i = 0; i < V; i++) all[i] = i;
    OK(moe_logit_edits_begin(&e, &p, V, all, V, all, V, 1, &err) == MOE_OK);
    moe_logit_edits_apply(&e, row);
    OK(moe_sample(&(struct moe_sampler){ .temperature = 1 }, 77, row, V, order, scratch) == 0);
    moe_logit_edits_release(&e);
}

/* No penalty within the limits of a request makes a NaN. */
static void test_extremes(void)
{
    static const float rows[] = { 3e38f, -3e38f, 0, -0.f, 1e-45f, -INFINITY };
    static const float repetition[] = { 1e-45f, 1e-30f, 1, 3e38f };
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < 4; k++) {
            const struct moe_penalties p = { repetition[k], i % 2 ? 2 : -2, k % 2 ? 2 : -2, NULL, 0 };
            struct moe_logit_edits e;
            float row = rows[i];
            OK(moe_logit_edits_begin(&e, &p, 1, NULL, 0, NULL, 0, 0, &err) == MOE_OK);
            for (int n = 0; n < 100; n++) OK(moe_logit_edits_add(&e, 0, &err) == MOE_OK);
            moe_logit_edits_apply(&e, &row);
            OK(!isnan(row) && (rows[i] != -INFINITY || row == -INFINITY));
            moe_logit_edits_undo(&e, &row);
            OK(row == rows[i] && signbit(row) == signbit(rows[i]));
            moe_logit_edits_release(&e);
        }
}

/* ---- logarithms ---- */

static void test_log(void)
{
    struct moe_rng r = { 3 };
    OK(moe_log(1) == 0);
    for (int i = 0; i < 200000; i++) {
        double x = i < 1000 ? 1 + (i - 500) * 0x1p-40 : exp(1400 * moe_rng_next(&r) - 700), y = log(x);
        OK(fabs(moe_log(x) - y) <= 1e-15 * fmax(1, fabs(y)));
    }
    OK(fabs(moe_log(0x1p63) - 63 * log(2)) < 1e-13 && fabs(moe_log(0x1p-1022) + 1022 * log(2)) < 1e-12);
}

enum { BIG = 163840 };
static float big[BIG], scratch[BIG];

static bool near_log(float got, double want)
{
    return isinf(want) ? got == -INFINITY : fabs((double)got - want) < 1e-6 + 1e-7 * fabs(want);
}

static void check_row(int64_t n, int32_t id, int top)
{
    struct moe_logprobs l;
    double sum = 0, largest = -HUGE_VAL;
    moe_logprobs(big, n, id, top, &l, scratch);
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, (double)big[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)big[i] - largest);
    OK(l.n == (top < n ? top : n) && near_log(l.logprob, (double)big[id] - largest - log(sum)));
    for (int i = 0; i < l.n; i++) {
        float logit = big[l.top[i].id], before = i ? big[l.top[i - 1].id] : INFINITY;
        OK(near_log(l.top[i].logprob, (double)logit - largest - log(sum)));
        OK(before > logit || (before == logit && l.top[i - 1].id < l.top[i].id));
    }
    int64_t ahead = 0; /* ids that rank before the last of the list */
    int32_t last = l.n ? l.top[l.n - 1].id : 0;
    for (int64_t i = 0; i < n; i++) ahead += big[i] > big[last] || (big[i] == big[last] && i < last);
    OK(!l.n || ahead == l.n - 1);
}

static void test_logprobs(void)
{
    struct moe_rng r = { 8 };
    for (int round = 0; round < 300; round++) {
        int64_t n = round < 6 ? BIG : 1 + (int64_t)(moe_rng_next(&r) * 60);
        double width = round % 4 == 0 ? 0 : round % 4 == 1 ? .01 : round % 4 == 2 ? 100 : 8;
        for (int64_t i = 0; i < n; i++) {
            big[i] = (float)(width * moe_rng_next(&r) - 3);
            if (round % 3 == 0) big[i] = floorf(big[i]);
            if (round % 5 == 4 && i % 3 == 1) big[i] = -INFINITY;
        }
        check_row(n, (int32_t)(moe_rng_next(&r) * (double)n), round % (MOE_LOGPROBS + 1));
    }
}

static void test_logprob_cases(void)
{
    struct moe_logprobs l;
    const float none[3] = { -INFINITY, -INFINITY, -INFINITY }, tied[5] = { 1, 3, 3, 1, 3 },
                over[3] = { 1, INFINITY, INFINITY }, far[2] = { 0, -200 };
    moe_logprobs(tied, 5, 3, 20, &l, scratch);
    OK(l.n == 5 && l.top[0].id == 1 && l.top[1].id == 2 && l.top[2].id == 4 && l.top[3].id == 0);
    OK(l.top[0].logprob == l.top[2].logprob && l.logprob == l.top[4].logprob);
    moe_logprobs(tied, 1, 0, 20, &l, scratch);
    OK(l.n == 1 && l.logprob == 0 && l.top[0].logprob == 0);
    moe_logprobs(tied, 5, 0, 0, &l, scratch);
    OK(l.n == 0 && l.logprob < 0);
    moe_logprobs(none, 3, 2, 2, &l, scratch);
    OK(l.n == 2 && l.top[0].id == 0 && l.top[1].id == 1 && l.logprob == 0 && l.top[0].logprob == 0);
    moe_logprobs(over, 3, 0, 1, &l, scratch);
    OK(l.n == 1 && l.logprob == -INFINITY && l.top[0].id == 1 && l.top[0].logprob == 0);
    moe_logprobs(far, 2, 1, 1, &l, scratch);
    OK(l.n == 1 && l.logprob == -200 && l.top[0].logprob == 0);
}

int main(void)
{
    test_penalties();
    test_nothing();
    test_bans();
    test_extremes();
    test_log();
    test_logprobs();
    test_logprob_cases();
    printf("test-sample: %ld checks\n", checks);
    return 0;
}
