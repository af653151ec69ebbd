/* SPDX-License-Identifier: Apache-2.0 */
/* Checks that a GPU chooses the experts that moe_route chooses, in the same order and with the same bits of
 * their weights: for ties, infinities and NaN, with groups of experts and without; and that the check of
 * states finds a value that is not finite wherever it stands. */
#include "tests/kernels/cuda-harness.h"

#include "kernels/cuda/check.h"
#include "kernels/cuda/route.h"
#include "kernels/ops.h"

enum { TOKENS = 6, EXPERTS = 520 };
static float logits[TOKENS * EXPERTS], bias[EXPERTS], scratch[2 * EXPERTS];


/* ---- routing ---- */

enum kind { PLAIN, EVEN, EQUAL, FAR, BROKEN, KINDS };

static float number(enum kind p)
{
    static const float odd[] = { NAN, INFINITY, -INFINITY, 0, -0.f, 3e38f, -3e38f, 0x1p-149f };
    switch (p) {
    case PLAIN: return 4 * random_uniform();
    case EVEN: return floorf(3 * random_uniform()) * .5f;
    case EQUAL: return 0.25f;
    case FAR: return 200 * random_uniform();
    default: return random_below(2) ? odd[random_below(8)] : random_uniform();
    }
}

static struct moe_router router(void)
{
    static const int64_t groups[] = { 1, 1, 2, 4, 8 };
    struct moe_router r = { .n_group = groups[random_below(5)], .norm_topk_prob = random_below(2) };
    r.n_experts = r.n_group * (1 + random_below(random_below(2) ? 64 : 12));
    r.topk_group = 1 + random_below(r.n_group);
    r.top_k = 1 + random_below(random_below(2) ? r.n_experts : r.n_experts < 8 ? r.n_experts : 8);
    r.scale = random_below(2) ? 2.827f : 1;
    return r;
}

static void run(const struct moe_router *r, int64_t n, bool biased, int32_t *experts, float *weights)
{
    const size_t e = (size_t)r->n_experts, chosen = (size_t)(n * r->top_k);
    struct moe_cuda_route a = { .n = n,
                                .n_experts = (int32_t)r->n_experts,
                                .top_k = (int32_t)r->top_k,
                                .n_group = (int32_t)r->n_group,
                                .topk_group = (int32_t)r->topk_group,
                                .norm_topk_prob = r->norm_topk_prob,
                                .scale = r->scale };
    a.logits = cuda_in(logits, 4 * (size_t)n * e);
    if (biased) a.bias = cuda_in(bias, 4 * e);
    a.experts = cuda_out(4 * chosen);
    a.weights = cuda_out(4 * chosen);
    CUDA_LAUNCH(route, a);
    cuda_get(experts, a.experts, 4 * chosen);
    cuda_get(weights, a.weights, 4 * chosen);
    cuda_free_all();
}

static void check_route(const struct moe_router *r, int64_t n, enum kind p, bool biased)
{
    static int32_t got[TOKENS * EXPERTS], want[EXPERTS];
    static float weights[TOKENS * EXPERTS], weight[EXPERTS];
    const int64_t e = r->n_experts, k = r->top_k;
    for (int64_t i = 0; i < n * e; i++) logits[i] = number(p);
    for (int64_t i = 0; i < e; i++) bias[i] = number(p == BROKEN ? (enum kind)random_below(KINDS) : p) * .25f;
    CUDA_CASE("route: %" PRId64 " of %" PRId64 " experts, %" PRId64 " of %" PRId64 " groups, kind %d%s", k, e,
              r->topk_group, r->n_group, (int)p, biased ? ", biased" : "");
    run(r, n, biased, got, weights);
    for (int64_t t = 0; t < n; t++) {
        moe_route(r, logits + t * e, biased ? bias : NULL, scratch, want, weight);
        for (int64_t j = 0; j < k; j++) {
            const float w = weights[t * k + j];
            CUDA_CHECK(got[t * k + j] == want[j] && same_bits(&w, &weight[j], 1),
                       "choice %" PRId64 " of token %" PRId64 " is %d of weight %a, and not %d of %a", j,
                       t, got[t * k + j], (double)w, want[j], (double)weight[j]);
        }
    }
}

/* ---- the check of states ---- */

/* x [n] with `value` at `at` (-1: nowhere): whether bit 2 of the word is set, and its others are kept. */
static void check_finite(int64_t n, int64_t at, float value)
{
    static float x[20000];
    uint32_t word = 0x50;
    for (int64_t i = 0; i < n; i++) x[i] = i % 3 ? 3e38f : -0x1p-149f;
    if (at >= 0) x[at] = value;
    CUDA_CASE("check: %" PRId64 " values, %a at %" PRId64, n, (double)value, at);
    struct moe_cuda_check a = { .n = n, .note = 4 };
    a.x = cuda_in(x, 4 * (size_t)n);
    a.word = cuda_inout(&word, 4);
    CUDA_LAUNCH(check, a);
    cuda_get(&word, a.word, 4);
    cuda_free_all();
    CUDA_CHECK(word == (at >= 0 && !isfinite(value) ? 0x54 : 0x50), "the word is %x", word);
}

static void check(void)
{
    static const int64_t sizes[] = { 1, 31, 33, 4095, 4096, 4097, 20000 };
    const struct moe_router k2 = { 384, 8, 1, 1, true, 2.827f }, v3 = { 256, 8, 8, 4, true, 2.5f };
    for (int i = 0; i < 400; i++) {
        struct moe_router r = router();
        check_route(&r, 1 + random_below(TOKENS), (enum kind)(i % KINDS), random_below(2));
    }
    for (int k = 0; k < KINDS; k++) check_route(&k2, 3, (enum kind)k, true);
    for (int k = 0; k < KINDS; k++) check_route(&v3, 3, (enum kind)k, true);
    for (int i = 0; i < 7; i++) {
        check_finite(sizes[i], -1, 0);
        check_finite(sizes[i], 0, NAN);
        check_finite(sizes[i], sizes[i] - 1, INFINITY);
        check_finite(sizes[i], random_below(sizes[i]), -INFINITY);
        check_finite(sizes[i], random_below(sizes[i]), -3e38f);
    }
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
