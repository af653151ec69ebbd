/* SPDX-License-Identifier: Apache-2.0 */
/* Tests router, rotary tables and sampling: published vectors, cases made by hand, and a second router
 * written in another way. */
#include "tests/ok.h"
#include "kernels/kernels.h"
#include "kernels/ops.h"
#include "kernels/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- rotary: the values in Kimi K2's reference tables ---- */

static struct moe_rope_config k2(double factor, double beta_fast)
{
    return (struct moe_rope_config){ .dim = 64,
                                     .theta = 50000,
                                     .yarn = true,
                                     .factor = factor,
                                     .beta_fast = beta_fast,
                                     .beta_slow = 1,
                                     .mscale = 1,
                                     .mscale_all_dim = 1,
                                     .original_max = 4096 };
}

/* 9 printed digits: half a unit of the last, and half an ulp of float32. */
static bool near(double a, double b) { return fabs(a - b) <= 1.2e-7 * fabs(b); }

static void test_frequencies(void)
{
    static const struct { double factor, beta_fast; int i; double want;
    } v[] = {
        { 32, 1, 1, .713111085 },       { 32, 1, 8, .0668740305 },      { 32, 1, 9, .0476886124 },
        { 32, 1, 19, .00162175991 },    { 32, 1, 20, 3.61404677e-05 },  { 64, 1, 20, 1.80702339e-05 },
        { 32, 1, 31, 8.76441291e-07 },  { 64, 1, 31, 4.38220646e-07 },  { 64, 32, 1, .713111085 },
        { 64, 32, 8, .0668740305 },     { 64, 32, 9, .043776656 },      { 64, 32, 19, .000158374991 },
        { 32, 32, 20, 3.61404677e-05 }, { 64, 32, 20, 1.80702339e-05 }, { 64, 32, 31, 4.38220646e-07 },
    };
    float f[32];
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        struct moe_rope_config c = k2(v[i].factor, v[i].beta_fast);
        moe_rope_frequencies(&c, f);
        OK(near((double)f[v[i].i], v[i].want));
        OK(f[0] == 1);
    }
    struct moe_rope_config plain = { .dim = 64, .theta = 10000 };
    moe_rope_frequencies(&plain, f);
    for (int i = 0; i < 32; i++) OK(near((double)f[i], pow(10000, -i / 32.0)));
}

static void test_angles(void)
{
    struct moe_rope_config c = k2(32, 1);
    float f[32], cs[32], sn[32];
    moe_rope_frequencies(&c, f);
    for (int64_t pos = 0; pos < 131072; pos = pos * 7 + 1) {
        moe_rope_angles(&c, f, pos, cs, sn);
        for (int i = 0; i < 32; i++) {
            /* rounded to float32 before the cosine: off by it at long positions otherwise */
            float a = (float)pos * f[i];
            OK(fabs((double)cs[i] - cos((double)a)) < 1e-7 && fabs((double)sn[i] - sin((double)a)) < 1e-7);
        }
    }
    c.mscale = .5; /* unequal: the tables carry the quotient */
    moe_rope_angles(&c, f, 0, cs, sn);
    OK(near((double)cs[5], (.05 * log(32) + 1) / (.1 * log(32) + 1)) && sn[5] == 0);
}

static void test_softmax_scale(void)
{
    struct moe_rope_config a = k2(32, 1), b = k2(64, 1), plain = { .dim = 64, .theta = 50000 };
    OK(near((double)moe_softmax_scale(&a, 192), .1308607999630));
    OK(near((double)moe_softmax_scale(&b, 192), .1446796258027));
    OK(near((double)moe_softmax_scale(&plain, 192), .0721687836487));
}

/* ---- router ---- */

static void test_router_cases(void)
{
    float c[32], w[16], logits[16] = { 0 };
    int32_t e[16];
    struct moe_router r = {
        .n_experts = 8, .top_k = 3, .n_group = 1, .topk_group = 1, .norm_topk_prob = true, .scale = 2.827f
    };
    moe_route(&r, logits, NULL, c, e, w); /* all tied: the lowest indices, equal weights */
    for (int i = 0; i < 3; i++) OK(e[i] == i && near((double)w[i], 2.827 / 3));
    float bias[8] = { 0, 0, 0, 0, 0, 0, .5f, .25f };
    moe_route(&r, logits, bias, c, e, w); /* bias chooses, but does not weigh */
    OK(e[0] == 6 && e[1] == 7 && e[2] == 0 && near((double)w[0], 2.827 / 3) && w[0] == w[1] && w[1] == w[2]);
    r.norm_topk_prob = false;
    moe_route(&r, logits, bias, c, e, w);
    for (int i = 0; i < 3; i++) OK(near((double)w[i], 2.827 * .5));
    /* Two of four groups: {0,1} has the best single, but {2,3} and {6,7} the best pairs. */
    static const float pairs[8] = { 3, -9, 2, 2, -9, -9, 1, 2.5f };
    r = (struct moe_router){ .n_experts = 8, .top_k = 3, .n_group = 4, .topk_group = 2, .scale = 1 };
    moe_route(&r, pairs, NULL, c, e, w);
    OK(e[0] == 7 && e[1] == 2 && e[2] == 3);
    moe_route(&r, logits, NULL, c, e, w); /* tied groups: the lower ones stay */
    OK(e[0] == 0 && e[1] == 1 && e[2] == 2);
}

/* A second router.  An expert takes part if fewer than topk_group groups beat its own; it is chosen at the
 * rank that is the number of such experts that beat it. */
static uint64_t lcg = 1;
static float random_float(void)
{
    return (float)((lcg = lcg * 6364136223846793005u + 1442695040888963407u) >> 40) * 0x1p-22f - 2;
}

static double pair(const double *s, int64_t size)
{
    double sum = 0, worst = 1e9;
    for (int64_t i = 0; i < size; i++)
        for (int64_t j = i + 1; j < size; j++)
            if (s[i] + s[j] > sum || worst == 1e9) sum = s[i] + s[j], worst = 0;
    return sum;
}

static void test_router_random(void)
{
    enum { N = 32 };
    for (int round = 0; round < 300; round++) {
        float logits[N], bias[N], scratch[2 * N], w[N];
        int32_t e[N];
        double s[N], c[N], total = 0;
        int64_t groups = 1 << round % 5, size = N / groups, kept = 1 + round % groups;
        struct moe_router r = { N,   1 + round % (kept * size < 8 ? kept * size : 8), groups, kept, round & 1,
                                1.5f };
        for (int i = 0; i < N; i++) {
            logits[i] = 2 * random_float(), bias[i] = random_float() * .1f + .3f;
            s[i] = 1 / (1 + exp(-(double)logits[i])), c[i] = s[i] + (double)bias[i];
        }
        moe_route(&r, logits, bias, scratch, e, w);
        for (int64_t k = 0; k < r.top_k; k++) total += s[e[k]];
        for (int64_t k = 0; k < r.top_k; k++) {
            int64_t g = e[k] / size, above = 0, better = 0;
            for (int64_t h = 0; h < groups; h++)
                above += h != g && pair(c + h * size, size) > pair(c + g * size, size) + 1e-6;
            OK(above < kept);
            for (int i = 0; i < N; i++) {
                int64_t ahead = 0;
                for (int64_t h = 0; h < groups; h++)
                    ahead += pair(c + h * size, size) > pair(c + i / size * size, size) + 1e-6;
                better += ahead < kept && c[i] > c[e[k]] + 1e-6;
            }
            OK(better <= k);
            OK(fabs((double)w[k] - 1.5 * s[e[k]] / (r.norm_topk_prob ? total : 1)) < 1e-5);
            OK(k == 0 || c[e[k]] <= c[e[k - 1]] + 1e-6);
        }
    }
}

/* ---- sampling ---- */

enum { V = 6 };
static int32_t order[V];
static float prob[V];

/* Which ids come up in 2000 draws, as a set of bits. */
static unsigned reach(struct moe_sampler s, const float *logits)
{
    unsigned seen = 0;
    for (int i = 0; i < 2000; i++) seen |= 1u << moe_sample(&s, moe_draw(7, 0, i), logits, V, order, prob);
    return seen;
}

static void test_sampling(void)
{
    /* Probabilities .4 .2 .2 .1 .1 0, in mixed order. */
    const float l[V] = { logf(.1f), logf(.4f), logf(.2f), -INFINITY, logf(.2f), logf(.1f) },
                tied[V] = { 1, 3, 3, 2, 3, 0 }, none[V] = { -INFINITY, -INFINITY, -INFINITY, -INFINITY,
                                                            -INFINITY, -INFINITY };
    OK(reach((struct moe_sampler){ 0 }, l) == 0x02 && reach((struct moe_sampler){ 0 }, tied) == 0x02);
    OK(reach((struct moe_sampler){ .temperature = 1, .top_p = 1 }, l) == 0x37);
    /* tie of .2: the lower id */
    OK(reach((struct moe_sampler){ .temperature = 1, .top_p = 1, .top_k = 2 }, l) == 0x06);
    /* .4 .2 .2 reach .7 */
    OK(reach((struct moe_sampler){ .temperature = 1, .top_p = .7f }, l) == 0x16);
    OK(reach((struct moe_sampler){ .temperature = 1, .top_p = .3f }, l) == 0x02);
    OK(reach((struct moe_sampler){ .temperature = 1, .top_p = 1e-30f }, l) == 0x02);
    /* top_p of those that top_k leaves: .4 of .8, then .6 of .8 */
    OK(reach((struct moe_sampler){ .temperature = 1, .top_p = .49f, .top_k = 3 }, l) == 0x02);
    OK(reach((struct moe_sampler){ .temperature = 1, .top_p = .51f, .top_k = 3 }, l) == 0x06);
    /* .2 / .4 = .5 stays */
    OK(reach((struct moe_sampler){ .temperature = 1, .top_p = 1, .min_p = .45f }, l) == 0x16);
    OK(reach((struct moe_sampler){ .temperature = 1, .top_p = 1, .min_p = 2 }, l) == 0x02);
    OK(reach((struct moe_sampler){ .temperature = 1, .top_p = 1, .top_k = 1 }, tied) == 0x02);
    OK(reach((struct moe_sampler){ .temperature = 1e-4f, .top_p = 1 }, l) == 0x02);
    OK(reach((struct moe_sampler){ .temperature = 1e-38f }, l) == 0x02);
    OK(reach((struct moe_sampler){ .temperature = 1 }, none) == 0x01);
    int count[V] = { 0 };
    for (int i = 0; i < 100000; i++)
        count[moe_sample(&(struct moe_sampler){ .temperature = 1, .top_p = 1 }, moe_draw(1, 3, i), l, V,
                         order, prob)]++;
    static const double p[V] = { .1, .4, .2, 0, .2, .1 };
    for (int i = 0; i < V; i++) OK(fabs(count[i] * 1e-5 - p[i]) < .008); /* 5 sigma: 5 sqrt(.24 / 1e5) */
}

/* moe_sample as sample.h describes it, literally: all is sorted, and sums are whole numbers. */
static const float *sorted_by;
static int descending(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, k = *(const int32_t *)b;
    return sorted_by[i] > sorted_by[k] ? -1 : sorted_by[i] < sorted_by[k] ? 1 : (i > k) - (i < k);
}

static int32_t sample_sorted(const struct moe_sampler *s, uint64_t draw, const float *logits, int64_t n,
                             int32_t *ids, uint64_t *w)
{
    float e[1];
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)i;
    sorted_by = logits;
    qsort(ids, (size_t)n, sizeof *ids, descending);
    memset(w, 0, (size_t)n * sizeof *w);
    int64_t kept = s->top_k > 0 && s->top_k < n ? s->top_k : n, left = 0;
    uint64_t total = 0, part = 0;
    for (int64_t i = 0; i < kept; i++) {
        e[0] = (logits[ids[i]] - logits[ids[0]]) / s->temperature;
        moe_kernels()->exp(e, 1, e);
        total += w[ids[i]] = e[0] < s->min_p ? 0 : (uint64_t)((double)e[0] * 0x1p40);
    }
    if (s->top_p > 0 && s->top_p < 1) {
        unsigned __int128 limit = (unsigned __int128)(uint64_t)((double)s->top_p * 0x1p32) * total;
        do part += w[ids[left++]];
        while ((unsigned __int128)part << 32 < limit);
        for (int64_t i = left; i < kept; i++) w[ids[i]] = 0;
        total = part;
    }
    uint64_t at = (uint64_t)((unsigned __int128)draw * total >> 64);
    for (int32_t i = 0;; i++) {
        if (at < w[i]) return i;
        at -= w[i];
    }
}

/* Ranking no further than the draw needs gives what the full sort gives, in large vocabularies
 * and small ones, with ties (where sums hit the limit exactly), with rows that hardly differ and
 * rows that fall off steeply. */
static void test_sampling_partial(void)
{
    enum { BIG = 163840 };
    static float logits[BIG], e[BIG];
    static uint64_t w[BIG];
    static int32_t ids[2][BIG];
    struct moe_rng r = { 99 };
    for (int round = 0; round < 460; round++) {
        int64_t n = round < 20 ? BIG : 1 + (int64_t)(moe_rng_next(&r) * (round < 60 ? 9000 : 40));
        double width = round % 5 == 0 ? 0 : round % 5 == 1 ? .01 : round % 5 == 2 ? 60 : 8;
        for (int64_t i = 0; i < n; i++) {
            double x = width * moe_rng_next(&r);
            logits[i] = (float)(round % 3 == 0 ? floor(x) : x);
            if (round % 7 == 6 && i % 3 == 0 && i) logits[i] = -INFINITY;
            if (round % 11 == 10) logits[i] = (float)(i % 2 ? i : n - i) * .01f;
        }
        static const float top[] = { 1, .5f, .95f, .25f, 1 - 0x1p-24f, .75f }, mins[] = { 0, .1f, 1, .5f };
        struct moe_sampler s = { .temperature = round % 4 ? .5f + (float)moe_rng_next(&r) : 1,
                                 .top_p = top[round % 6],
                                 .min_p = round % 2 ? 0 : mins[round / 2 % 4],
                                 .top_k = round % 3 == 1 ? 1 + (int64_t)(moe_rng_next(&r) * 50)
                                        : round % 9 == 2 ? n - 1
                                                         : 0 };
        for (int draws = 0; draws < (n == BIG ? 4 : 20); draws++) {
            uint64_t u = draws == 0 ? 0 : draws == 1 ? UINT64_MAX : moe_draw(5, 0, round * 20 + draws);
            OK(moe_sample(&s, u, logits, n, ids[0], e) == sample_sorted(&s, u, logits, n, ids[1], w));
        }
    }
}

static void test_generator(void)
{
    /* splitmix64 from state 0, as its author publishes it. */
    struct moe_rng r = { 0 }, again;
    OK(moe_rng_next(&r) == (double)(0xe220a8397b1dcdafu >> 11) * 0x1p-53);
    OK(moe_rng_next(&r) == (double)(0x6e789e6aa1b965f4u >> 11) * 0x1p-53);
    again = r;
    OK(moe_rng_next(&r) == moe_rng_next(&again));
    OK(moe_draw(0, 0, 0) == 0xe220a8397b1dcdafu && moe_draw(0, 0, 1) == 0x6e789e6aa1b965f4u);
    OK(moe_draw(0, 0, 1) != moe_draw(0, 1, 1) && moe_draw(0, 1, 1) != moe_draw(0, 2, 1));
    OK(moe_draw(1, 1, 0) != moe_draw(0, 1, 0) && moe_draw(1, 1, 0) != moe_draw(0, 1, 1));
}

int main(void)
{
    test_frequencies();
    test_angles();
    test_softmax_scale();
    test_router_cases();
    test_router_random();
    test_sampling();
    test_sampling_partial();
    test_generator();
    printf("test-ops: %ld checks\n", checks);
    return 0;
}
