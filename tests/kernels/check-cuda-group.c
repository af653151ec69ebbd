/* SPDX-License-Identifier: Apache-2.0 */
/* Checks moe_cuda_group against a plain sort, and moe_cuda_swiglu and moe_cuda_combine against the kernels of
 * AVX2 and what model/ops/cpu computes, bit for bit. */
#include "tests/kernels/cuda-harness.h"

#include "kernels/cuda/combine.h"
#include "kernels/cuda/group.h"
#include "kernels/cuda/swiglu.h"

enum { PAIRS = 2100, EXPERTS = 1365 };

/* ---- group ---- */

struct grouped {
    int32_t first[EXPERTS + 1], pair[PAIRS], token[PAIRS], item_count[MOE_CUDA_BUCKETS];
    struct moe_cuda_item items[MOE_CUDA_BUCKETS][PAIRS];
};

static bool is_resident(const uint32_t *resident, int e)
{
    return !resident || resident[e / 32] >> e % 32 & 1;
}

/* The items of an expert with n pairs from `first` on. */
static void want_items(struct grouped *w, int e, int first, int n)
{
    for (int at = 0; at < n; at += MOE_CUDA_ITEM_ROWS) {
        int count = n - at < MOE_CUDA_ITEM_ROWS ? n - at : MOE_CUDA_ITEM_ROWS;
        int b = count <= 2 ? 0 : count <= 4 ? 1 : 2;
        w->items[b][w->item_count[b]++] = (struct moe_cuda_item){ e, first + at, count, 0 };
    }
}

/* Fills *w with what the kernel has to give; returns the number of pairs that are in it. */
static int want_group(struct grouped *w, const int32_t *ids, const uint32_t *resident, int pairs, int k,
                      int experts)
{
    int n = 0;
    memset(w, 0, sizeof *w);
    for (int e = 0; e < experts; e++) {
        w->first[e] = n;
        for (int i = 0; i < pairs; i++)
            if (ids[i] == e && is_resident(resident, e)) w->pair[n] = i, w->token[n++] = i / k;
        want_items(w, e, w->first[e], n - w->first[e]);
    }
    w->first[experts] = n;
    return n;
}

#define COMPARE(what, got, want, n) \
    CUDA_CHECK(!memcmp(got, want, sizeof *(got) * (size_t)(n)), "%s differs", what)

static void compare_group(const struct moe_cuda_group *a, const struct grouped *want, int n)
{
    static struct grouped got;
    cuda_get(got.first, a->first, sizeof *got.first * (size_t)(a->experts + 1));
    cuda_get(got.pair, a->pair, sizeof *got.pair * (size_t)n);
    cuda_get(got.token, a->token, sizeof *got.token * (size_t)n);
    cuda_get(got.item_count, a->item_count, sizeof got.item_count);
    COMPARE("first", got.first, want->first, a->experts + 1);
    COMPARE("pair", got.pair, want->pair, n);
    COMPARE("token", got.token, want->token, n);
    COMPARE("item_count", got.item_count, want->item_count, MOE_CUDA_BUCKETS);
    for (int b = 0; b < MOE_CUDA_BUCKETS; b++) {
        int count = want->item_count[b];
        CUDA_CHECK(count <= moe_cuda_group_most(a->pairs, a->experts, b), "list %d has too many items", b);
        cuda_get(got.items[b], a->items + sizeof **got.items * (size_t)(b * a->pairs),
                 sizeof **got.items * (size_t)count);
        COMPARE("items", got.items[b], want->items[b], count);
    }
}

/* lost: some experts are not resident, or there are none such. */
static void check_group_one(int tokens, int k, int experts, int crowd, bool lost)
{
    static struct grouped want;
    int32_t pairs = tokens * k, ids[PAIRS];
    uint32_t resident[EXPERTS / 32 + 1], word = 0x40, now;
    assert(pairs <= PAIRS && experts <= EXPERTS);
    CUDA_CASE("group: %d tokens, %d of %d experts, %d preferred%s", tokens, k, experts, crowd,
              lost ? ", some lost" : "");
    for (int i = 0; i < pairs; i++)
        ids[i] = (int32_t)random_below(random_below(4) ? crowd : experts);
    for (int i = 0; i <= EXPERTS / 32; i++) resident[i] = (uint32_t)(random_bits() | random_bits());
    if (lost && pairs > 2) ids[random_below(pairs)] = random_below(2) ? -1 : experts;
    int n = want_group(&want, ids, lost ? resident : NULL, pairs, k, experts);

    struct moe_cuda_group a = { .pairs = pairs, .k = k, .experts = experts, .bit = 4 };
    a.ids = cuda_in(ids, sizeof *ids * (size_t)pairs);
    a.resident = lost ? cuda_in(resident, sizeof *resident * (size_t)((experts + 31) / 32)) : 0;
    a.word = cuda_inout(&word, sizeof word);
    a.first = cuda_out(sizeof(int32_t) * (size_t)(experts + 1));
    a.pair = cuda_out(sizeof(int32_t) * (size_t)pairs), a.token = cuda_out(sizeof(int32_t) * (size_t)pairs);
    a.items = cuda_out(sizeof(struct moe_cuda_item) * (size_t)(MOE_CUDA_BUCKETS * pairs));
    a.item_count = cuda_out(sizeof(int32_t) * MOE_CUDA_BUCKETS);
    CUDA_LAUNCH(group, a);
    compare_group(&a, &want, n);
    cuda_get(&now, a.word, sizeof now);
    CUDA_CHECK(now == (n < pairs ? 0x44 : 0x40), "the word is %#x", now);
    cuda_free_all();
}

static void check_group(void)
{
    check_group_one(1, 1, 1, 1, false);
    check_group_one(1, 8, 384, 384, false);
    check_group_one(64, 8, 384, 384, false);
    check_group_one(260, 8, 384, 20, true);
    check_group_one(33, 6, 64, 3, false);
    check_group_one(70, 2, 257, 257, true);
    check_group_one(100, 20, 700, 700, false);
    /* the tables take 12 bytes less than 48 KiB: with static memory it is more, and has to be allowed */
    check_group_one(60, 8, 1365, 1365, false);
    for (int i = 0; i < 8; i++) {
        int experts = 1 + (int)random_below(90), k = 1 + (int)random_below(8);
        check_group_one(1 + (int)random_below(90), k, experts, 1 + (int)random_below(experts),
                        random_below(2));
    }
}

/* ---- swiglu ---- */

static void check_swiglu_one(int64_t n, enum pattern p, int in_place)
{
    const size_t bytes = sizeof(float) * (size_t)n;
    float *g = malloc(bytes), *u = malloc(bytes), *got = malloc(bytes);
    assert(g && u && got);
    fill(g, n, p), fill(u, n, (enum pattern)random_below(PATTERNS));
    for (int64_t i = 0; i < n && random_below(2); i++) g[i] *= 30; /* where the exponential ends */
    CUDA_CASE("swiglu: %" PRId64 " values, %s, %d", n, pattern_name[p], in_place);
    struct moe_cuda_swiglu a = { .n = n };
    a.gate = in_place == 1 ? cuda_inout(g, bytes) : cuda_in(g, bytes);
    a.up = in_place == 2 ? cuda_inout(u, bytes) : cuda_in(u, bytes);
    a.out = in_place == 1 ? a.gate : in_place == 2 ? a.up : cuda_out(bytes);
    CUDA_LAUNCH(swiglu, a);
    cuda_get(got, a.out, bytes);
    cuda_avx2.swiglu(g, u, n, g);
    cuda_compare("out", g, got, n);
    cuda_free_all();
    free(g), free(u), free(got);
}

/* ---- combine ---- */

/* As add_block of model/ops/cpu/mlps.c: each product and each sum is rounded. */
static void want_combine(const float *rows, const float *weights, const float *common, float *h,
                         int64_t tokens, int64_t n, int64_t k)
{
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < n; i++) {
            volatile float sum = 0, product;
            for (int64_t j = t * k; rows && j < (t + 1) * k; j++)
                product = weights[j] * rows[j * n + i], sum += product;
            if (!rows) h[t * n + i] += common[t * n + i];
            else if (common) sum += common[t * n + i];
            if (rows) h[t * n + i] += sum;
        }
}

static void check_combine_one(int64_t tokens, int64_t n, int64_t k, bool has_rows, bool has_common)
{
    const size_t bytes = sizeof(float) * (size_t)(tokens * n), many = bytes * (size_t)k,
                 weight = sizeof(float) * (size_t)(tokens * k);
    float *rows = malloc(many), *weights = malloc(weight), *common = malloc(bytes), *h = malloc(bytes),
          *got = malloc(bytes);
    assert(rows && weights && common && h && got);
    enum pattern p = (enum pattern)random_below(PATTERNS);
    fill(rows, tokens * n * k, p), fill(weights, tokens * k, NORMAL);
    fill(common, tokens * n, (enum pattern)random_below(PATTERNS)), fill(h, tokens * n, NORMAL);
    CUDA_CASE("combine: %" PRId64 " tokens of %" PRId64 ", %" PRId64 " each, %s%s%s", tokens, n, k,
              pattern_name[p], has_rows ? ", rows" : "", has_common ? ", common" : "");
    struct moe_cuda_combine a = { .tokens = tokens, .n = n, .k = k };
    if (has_rows) a.rows = cuda_in(rows, many), a.weights = cuda_in(weights, weight);
    if (has_common) a.common = cuda_in(common, bytes);
    a.h = cuda_inout(h, bytes);
    CUDA_LAUNCH(combine, a);
    want_combine(has_rows ? rows : NULL, weights, has_common ? common : NULL, h, tokens, n, k);
    cuda_get(got, a.h, bytes);
    cuda_compare("h", h, got, tokens * n);
    cuda_free_all();
    free(rows), free(weights), free(common), free(h), free(got);
}

static void check(void)
{
    check_group();
    for (int p = 0; p < PATTERNS; p++) check_swiglu_one(1 + random_below(900), (enum pattern)p, p % 3);
    for (int i = 0; i < 9; i++)
        check_combine_one(1 + random_below(5), 1 + random_below(300), 1 + random_below(8), i % 3 != 0,
                          i % 3 != 1);
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
