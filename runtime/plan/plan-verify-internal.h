/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-verify-internal.h - the state of one layer that is being verified, and the verifier's
 * arithmetic on it.  Only runtime/plan/plan-verify*.c include it. */
#ifndef MOE_RUNTIME_PLAN_PLAN_VERIFY_INTERNAL_H
#define MOE_RUNTIME_PLAN_PLAN_VERIFY_INTERNAL_H

#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>

struct check_layer {
    int32_t slots, cap;           /* slots of this layer, by ascending rank; room for so many in the arrays */
    int32_t *rank_of, *expert_of; /* [cap] the rank and the expert of each slot */
    int32_t *copies, *left;       /* [experts] copies of each; scratch */
    double *weight, *sorted;      /* [experts] loads in one window; scratch */
    double *rank_load;            /* [ranks] loads in one window */
    double *max_load;             /* [ranks] scratch */
    int32_t *lost;                /* [ranks] scratch */
    uint8_t *dead;                /* [ranks] scratch */
    uint8_t *twin;                /* [ranks] 1: an earlier rank holds the same experts (moe_check_twins) */

    /* A flow of tokens from experts to ranks.  The nodes of its graph are the experts, then the ranks; its
     * arcs are the slots. */
    int64_t *supply, *room;       /* [experts] left to send; [ranks] left to take */
    int64_t *sent;                /* [cap] the flow through each slot */
    /* [cap] the slots by expert; [experts + 1] and [ranks + 1] where those of an expert or a rank begin */
    int32_t *by_expert, *expert_first, *rank_first;
    int32_t *depth, *queue, *next;/* [experts + ranks] scratch of the search */
};

/* Allocates the arrays in the arena, with cap = slots.  False: there is no memory. */
bool moe_check_layer_open(struct check_layer *l, struct moe_arena *a, int32_t experts, int32_t ranks,
                          int32_t slots);

/* Whether l->weight can be split over the slots so that no rank has more than max_load and rank `dead` (-1:
 * none) has nothing.  Experts without a living copy are left out. */
bool moe_check_split_fits(struct check_layer *l, int32_t experts, int32_t ranks, int32_t dead,
                          double max_load);

/* Sets l->twin. */
void moe_check_twins(struct check_layer *l, int32_t experts, int32_t ranks);

/* The best lower bound on the largest load that the verifier can prove for l->weight: by the mean, and by the
 * arguments that plan-bound.c calls piece, packing and pigeonhole.  floor: least copies of an expert. */
double moe_check_bound(struct check_layer *l, int32_t experts, int32_t ranks, int32_t floor);

/* Whether there is a placement with every rank below max_load.  1: yes; 0: no; -1: there are too many
 * placements to try. */
int moe_check_better_exists(struct check_layer *l, int32_t experts, int32_t ranks, int32_t floor,
                            double max_load);

#endif
