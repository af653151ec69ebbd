/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/sample.h - draws a token from logits.
 *
 * Probabilities become whole numbers before they are added, so that their sums are exact: no order of
 * addition, and no number of threads that add, changes which token a random number means. */
#ifndef MOE_KERNELS_SAMPLE_H
#define MOE_KERNELS_SAMPLE_H

#include <stdint.h>

/* Float32, as routers between servers pass them on. */
struct moe_sampler { float temperature, top_p, min_p; int64_t top_k; };

/* The random number of the token at a position of a sequence (0 is the prompt's first): uniform over all 64
 * bits, the output number `position`, counted from 0, of splitmix64 (Steele, Lea, Flood 2014) with `seed` as
 * its first state.  The choices of one request after the first (choice > 0) have states of their own.
 * So a sequence that is moved to another machine, or computed again, goes on with the same numbers. */
uint64_t moe_draw(uint64_t seed, uint32_t choice, int64_t position);

/* A token drawn from logits [n], which may hold -Inf but no NaN, by the random number `draw`.  With
 * temperature 0, or where none is finite, it is the largest logit's, ties to the lower id.  Else:
 *
 *   e_i = E((logit_i - largest) / temperature), E and its argument in float32 (kernels.def, exp)
 *   w_i = floor(e_i * 2^40), and 0 where e_i < min_p
 *   top_k > 0: all but the top_k largest logits drop out, ties to the lower id
 *   0 < top_p < 1: of those that are left, in descending order of logits, ties to the lower id, as few stay
 *     as weigh at least top_p (rounded down to a multiple of 2^-32) times what all weigh; one at least
 *   the token: the first in ascending order of ids whose sum with those before it exceeds
 *     floor(draw * total / 2^64), total being the sum of what has stayed
 *
 * n is at most 2^23.  order and e are scratch of n elements. */
int32_t moe_sample(const struct moe_sampler *s, uint64_t draw, const float *logits, int64_t n,
                   int32_t *order, float *e);

#endif
