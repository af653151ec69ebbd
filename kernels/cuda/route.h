/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/route.h - chooses experts from the logits of the router: moe_route (kernels/ops.h) on a GPU,
 * with the same experts in the same order, and the same bits of their weights.
 *
 * For each token t in [0, n): logits [n, n_experts] and bias [n_experts] (0: there is none) give
 * experts [n, top_k] and weights [n, top_k].  All have 4 bytes and are multiples of 4.  The logits are
 * products in the reduction order of kernels.def (dense.h). */
#ifndef MOE_KERNELS_CUDA_ROUTE_H
#define MOE_KERNELS_CUDA_ROUTE_H

#include "kernels/cuda/common.h"

/* top_k is at most n_experts; n_group divides n_experts where it is above 1, and topk_group is at most
 * n_group. */
struct moe_cuda_route {
    MOE_CU(const float) logits;
    MOE_CU(const float) bias;
    MOE_CU(int32_t) experts;
    MOE_CU(float) weights;
    int64_t n;
    int32_t n_experts, top_k, n_group, topk_group;
    uint32_t norm_topk_prob; /* 1: weights are divided by the sum of the chosen ones */
    float scale;
};
static_assert(sizeof(struct moe_cuda_route) == 64, "the host and the device agree on the arguments of route");

/* A warp a token.  Its shared memory holds what experts are chosen by, their sigmoids, the scores of groups
 * and the chosen weights. */
static inline struct moe_cuda_grid moe_cuda_route_grid(const struct moe_cuda_route *a)
{
    const int32_t groups = a->n_group > 1 ? a->n_group : 0;
    struct moe_cuda_grid g = { (uint32_t)a->n, 1, 1, 32,
                               4 * (uint32_t)(2 * a->n_experts + 2 * groups + a->top_k) };
    return g;
}

#endif
