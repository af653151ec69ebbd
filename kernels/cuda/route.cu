/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/route.cu - a warp chooses the experts of a token.
 *
 * The largest of all is found as the largest 64-bit number, whose upper half orders floats and whose lower
 * half prefers the lower expert: so ties are exact in whatever order lanes are compared. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/route.h"

/* A float as a number of the same order.  Not for a NaN or -0; a sum of a sigmoid and a bias is never -0. */
DEVICE uint32_t ordered(float x)
{
    const uint32_t u = __float_as_uint(x);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

#define MINUS_INF (__uint_as_float(0xff800000u))

/* Whether group g has a member to choose, and its score: the sum of its two largest c. */
DEVICE bool score_of(const float *c, int size, float *score)
{
    float best = MINUS_INF, second = MINUS_INF;
    for (int i = 0; i < size; i++)
        if (c[i] > best) second = best, best = c[i];
        else if (c[i] > second) second = c[i];
    *score = size > 1 ? best + second : best;
    return best != MINUS_INF;
}

/* A group whose members are all NaN or -Inf is EMPTY: it takes no part in the choice of groups. */
enum { EMPTY, KEPT, DROPPED };

/* Drops all but the topk_group best groups, the later one first where two are equal.  One lane does it, in
 * the order of moe_route, which also says what becomes of a score that is NaN. */
DEVICE void drop_groups(const struct moe_cuda_route *a, const float *score, uint32_t *state)
{
    for (int dropped = 0; dropped < a->n_group - a->topk_group; dropped++) {
        int worst = -1;
        float least = 0;
        for (int g = 0; g < a->n_group; g++)
            if (state[g] == KEPT && (worst < 0 || score[g] <= least)) worst = g, least = score[g];
        if (worst < 0) return;
        state[worst] = DROPPED;
    }
}

/* Gives the experts of dropped groups a c of -Inf. */
DEVICE void mask_groups(const struct moe_cuda_route *a, float *c, float *score, uint32_t *state)
{
    const int size = a->n_experts / a->n_group;
    for (int g = (int)lane_id(); g < a->n_group; g += 32)
        state[g] = score_of(c + g * size, size, &score[g]) ? KEPT : EMPTY;
    __syncwarp(0xffffffffu);
    if (lane_id() == 0) drop_groups(a, score, state);
    __syncwarp(0xffffffffu);
    for (int e = (int)lane_id(); e < size * a->n_group; e += 32)
        if (state[e / size] == DROPPED) c[e] = MINUS_INF;
    __syncwarp(0xffffffffu);
}

/* The expert of the largest c, which is then NaN, so that it is not chosen again; `none` where all are. */
DEVICE int take_best(float *c, int n, int none)
{
    unsigned long long best = 0;
    for (int e = (int)lane_id(); e < n; e += 32) {
        const float x = c[e];
        const unsigned long long rank = (unsigned long long)ordered(x) << 32 | (0xffffffffu - (uint32_t)e);
        if (!nan_f32(x) && rank > best) best = rank;
    }
    for (int lane = 16; lane; lane /= 2) {
        const unsigned long long other = __shfl_xor_sync(0xffffffffu, best, lane);
        if (other > best) best = other;
    }
    const int e = best ? (int)(0xffffffffu - (uint32_t)best) : none;
    if ((int)lane_id() == e % 32) c[e] = __uint_as_float(0x7fc00000u);
    __syncwarp(0xffffffffu);
    return e;
}

KERNEL(moe_cuda_route, 32) (const struct moe_cuda_route a)
{
    DYNAMIC_SHARED(float, c);
    const int n = a.n_experts, k = a.top_k;
    const int64_t t = blockIdx.x;
    float *s = c + n, *chosen = s + n, *score = chosen + k, sum = 0;
    for (int e = (int)lane_id(); e < n; e += 32) {
        s[e] = __fdiv_rn(1.f, 1.f + exp_f32(0.f - a.logits[t * n + e]));
        c[e] = s[e] + (a.bias ? a.bias[e] : 0.f);
    }
    __syncwarp(0xffffffffu);
    if (a.n_group > 1) mask_groups(&a, c, score, (uint32_t *)(score + a.n_group));
    for (int j = 0; j < k; j++) {
        const int e = take_best(c, n, j);
        sum = sum + s[e];
        if (lane_id() == 0) {
            a.experts[t * k + j] = e;
            chosen[j] = s[e];
        }
    }
    __syncwarp(0xffffffffu);
    const float scale = a.norm_topk_prob ? __fdiv_rn(a.scale, sum + 1e-20f) : a.scale;
    for (int j = (int)lane_id(); j < k; j += 32) a.weights[t * k + j] = chosen[j] * scale;
}
