/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the queries in the space of latents (kernels/cuda/absorb.h) against matmul_t of AVX2, bit for bit,
 * for kv_b of every stored type and one token to more than a block's. */
#include "tests/kernels/cuda-weight.h"

#include "kernels/cuda/absorb.h"

static void check_one(int type, int64_t n, bool any)
{
    const int64_t heads = 1 + random_below(3), nope = 1 + random_below(random_below(3) ? 30 : 140);
    const int64_t rope = random_below(70), kl = odd_size(random_below(3) ? 140 : 560, weight_unit(type));
    const int64_t each = nope + random_below(20);
    const int64_t qs = n * heads * (nope + rope), outs = n * heads * (kl + rope);
    const enum pattern pattern = (enum pattern)random_below(PATTERNS);
    struct moe_weight w = random_weight(type, heads * each, kl, any);
    float *q = malloc(4 * (size_t)qs), *want = malloc(4 * (size_t)outs), *got = malloc(4 * (size_t)outs);
    assert(q && want && got);
    fill(q, qs, pattern);
    CUDA_CASE("absorb: %s%s, %d tokens, %d heads of %d + %d, latents of %d, %s", moe_dtype_name(type),
              w.layout ? " in tiles" : "", (int)n, (int)heads, (int)nope, (int)rope, (int)kl,
              pattern_name[pattern]);
    struct moe_cuda_absorb a = { .w = cuda_weight(&w), .q = cuda_in(q, 4 * (size_t)qs),
                                 .out = cuda_out(4 * (size_t)outs), .n = n, .heads = heads, .nope = nope,
                                 .rope = rope, .head_rows = each };
    cuda_launch(moe_cuda_absorb_kernel(&a), moe_cuda_absorb_grid(&a), &a, sizeof a);
    for (int64_t i = 0; i < n * heads; i++) {
        const float *from = q + i * (nope + rope);
        float *to = want + i * (kl + rope);
        cuda_avx2.matmul_t(&w, i % heads * each, i % heads * each + nope, from, to);
        memcpy(to + kl, from + nope, 4 * (size_t)rope);
    }
    cuda_get(got, a.out, 4 * (size_t)outs);
    cuda_compare("out", want, got, outs);
    cuda_free_all();
    random_weight_free(&w);
    free(q), free(want), free(got);
}

static void check(void)
{
    static const int64_t tokens[] = { 1, 1, 2, 7, 8, 9, 17 };
    for (int i = 0; i < 6 * MOE_DTYPE_COUNT; i++)
        check_one(i % MOE_DTYPE_COUNT, tokens[random_below(7)], i % 5 == 4);
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
