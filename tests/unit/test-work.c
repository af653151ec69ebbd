/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the operation counts of a calibrated run (quantize/passes/work.h): against products counted one by
 * one, that they are linear in tokens, and that progress adds up to them. */
#include "tests/ok.h"
#include "base/cli/bar.h"
#include "quantize/passes/work.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Widths that all differ, so that a term with the wrong one shows. */
static const struct moe_config config = {
    .hidden_size = 96,
    .num_hidden_layers = 5,
    .num_attention_heads = 3,
    .q_lora_rank = 40,
    .kv_lora_rank = 28,
    .qk_nope_head_dim = 10,
    .qk_rope_head_dim = 6,
    .v_head_dim = 14,
    .intermediate_size = 200,
    .moe_intermediate_size = 48,
    .n_routed_experts = 11,
    .num_experts_per_tok = 3,
    .n_shared_experts = 2,
    .first_k_dense_replace = 2,
    .moe_layer_freq = 1,
    .vocab_size = 500,
};

static bool same(double a, double b) { return fabs(a - b) <= 1e-9 * fabs(b); }
static double product(double m, double n, double k) { return 2 * m * n * k; }

static void test_forward(void)
{
    const struct moe_config *c = &config;
    double t = 70, s = 10, heads = 3;
    double attention = product(t, 40, 96) + product(t, 3 * 16, 40) + product(t, 28 + 6, 96) +
                       product(t, 3 * (10 + 14), 28) + product(t, 96, 3 * 14);
    /* the scores, and the sums of values: a token sees half of its sequence on average */
    attention += heads * product(t, s / 2, 16) + heads * product(t, s / 2, 14);
    OK(same(moe_work_attention(c, t, s), attention));
    OK(same(moe_work_mlp(96, 48, t), 2 * product(t, 48, 96) + product(t, 96, 48)));
    OK(moe_work_common_width(c, 1) == 200 && moe_work_common_width(c, 2) == 96);
    OK(same(moe_work_forward(c, 0, t, s), attention + moe_work_mlp(96, 200, t)));
    OK(same(moe_work_forward(c, 4, t, s),
            attention + product(t, 11, 96) + moe_work_mlp(96, 96, t) + 3 * moe_work_mlp(96, 48, t)));
    /* layers of a kind take the same work */
    OK(moe_work_forward(c, 2, t, s) == moe_work_forward(c, 4, t, s));
}

static void test_quantize(void)
{
    struct moe_mlp_method gptq = { .matrix = { .sweeps = 0 } },
                          fisher = { .matrix = { .sweeps = 2, .fit = true, .two_sided = true } },
                          weighted = { .matrix = { .diagonal = true } };
    double h = 96, i = 48, n = 70;
    struct moe_work_quantize w = moe_work_quantize(&gptq, 96, 48, false, n);
    /* A Gram matrix is symmetric, so it takes half a product.  The inputs of down take four: gate and up,
     * unrounded and rounded.  Feedback takes half a product with the Hessian H. */
    OK(same(w.statistics, (product(h, h, n) + product(i, i, n)) / 2 + 4 * product(n, i, h)));
    OK(same(w.factoring, (h * h * h + i * i * i) / 3) &&
       same(w.rounding, (product(2 * i, h, h) + product(h, i, i)) / 2));
    OK(moe_work_quantize(&weighted, 96, 48, false, n).rounding == 0 &&
       moe_work_quantize(&weighted, 96, 48, false, n).factoring == 0);
    struct moe_work_quantize f = moe_work_quantize(&fisher, 96, 48, true, n);
    /* Feedback, the gradient and two sweeps take 1/2 + 1 + 2 products with H.  Feedback and two sweeps take
     * 1/2 + 2 products with G, which has 2 i and h rows.  The target of down is moved once. */
    OK(same(f.rounding, 3.5 * (product(2 * i, h, h) + product(h, i, i)) +
                            2.5 * (product(2 * i, 2 * i, h) + product(h, h, i)) + product(h, i, i)));
    OK(f.statistics > w.statistics && f.factoring > w.factoring);
    /* However tokens are spread over experts, the sum is what it is when all have the mean number. */
    double all = 0, tokens[] = { 0, 3, 170, 37 };
    for (int e = 0; e < 4; e++) all += moe_work_sum(moe_work_quantize(&fisher, 96, 48, true, tokens[e]));
    OK(same(all, 4 * moe_work_sum(moe_work_quantize(&fisher, 96, 48, true, 210.0 / 4))));
    /* Columns are factored in slices: the work of a wide MLP grows with its width and not with the square. */
    double wide = moe_work_quantize(&gptq, 96, 8 * MOE_SLICE_COLUMNS, false, n).factoring,
           narrow = moe_work_quantize(&gptq, 96, MOE_SLICE_COLUMNS, false, n).factoring;
    OK(wide < 8.01 * narrow);
}

static void test_sensitivity(void)
{
    const struct moe_config *c = &config;
    double one = moe_work_sensitivity(c, 10, 5),
           parts = moe_work_head_back(c, 10) + 3 * moe_work_fisher(c, 10);
    OK(same(moe_work_sensitivity(c, 70, 5), 7 * one));
    for (int l = 0; l < 5; l++) parts += moe_work_forward(c, l, 10, 5);
    /* The gradient goes back through the layers behind the first one with experts.  That computes these
     * layers once more, except their routed experts. */
    for (int l = 3; l < 5; l++)
        parts += moe_work_forward(c, l, 10, 5) - moe_work_mlp(96, 48, 30) +
                 moe_work_attention_back(c, 10, 5) + moe_work_router_back(c, 10) +
                 moe_work_mlp_back(96, 96, 10) + moe_work_mlp_back(96, 48, 30);
    OK(same(one, parts));
}

static double now;
static double clock_(void) { return now; }

static void test_meter(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    struct moe_bar *bar = moe_bar_open(f, true, false, clock_);
    struct moe_progress *p = moe_bar_progress(bar);
    struct moe_meter m;
    moe_meter_init(&m, p);
    moe_meter_begin(&m, "work", 1e9);
    moe_meter_skip(&m, 25e7);
    /* Progress is shown in whole millions of operations; what is added in quarters of a million adds up. */
    for (int i = 0; i < 3000; i++) {
        now += 1;
        moe_meter_add(&m, 25e4);
    }
    moe_progress_end(p);
    fflush(f);
    int last = 0, seen = 0;
    for (const char *at = text; (at = strstr(at, "] ")); at++, seen++) {
        int percent = atoi(at + 2);
        OK(percent >= last && percent <= 100);
        last = percent;
    }
    OK(seen > 1000 && last == 100 && strstr(text, "1.00 GFLOP of 1.00 GFLOP"));
    OK(same(m.done, 1e9) && m.told == 1000);
    moe_meter_add(NULL, 1);
    moe_meter_release(&m);
    moe_bar_close(&bar);
    fclose(f);
    free(text);
}

int main(void)
{
    test_forward();
    test_quantize();
    test_sensitivity();
    test_meter();
    printf("test-work: %ld checks\n", checks);
    return 0;
}
