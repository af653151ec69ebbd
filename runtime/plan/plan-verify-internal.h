/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-verify-internal.h - one layer under verification; for
 * runtime/plan/plan-verify*.c alone. */
#ifndef MOE_RUNTIME_PLAN_PLAN_VERIFY_INTERNAL_H
#define MOE_RUNTIME_PLAN_PLAN_VERIFY_INTERNAL_H

#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>

struct check_layer {
    int32_t slots, cap;
    int32_t *rank_of, *expert_of; /* [cap] */
    int32_t *copies, *left;       /* [experts] */
    double *weight, *sorted;      /* [experts] load in one window; scratch */
    double *rank_load;            /* [ranks] */
    double *max_load;                 /* [ranks] scratch */
    int32_t *lost;                /* [ranks] scratch */
    uint8_t *dead;                /* [ranks] scratch */
    uint8_t *twin;                /* [ranks] an earlier rank holds the same experts: moe_check_twins */
    /* flow: experts, then ranks; an arc a slot */
    int64_t *supply, *room;       /* [experts], [ranks] left to send and to take */
    int64_t *sent;                /* [cap] */
    int32_t *by_expert, *expert_first, *rank_first; /* slots by expert; slots come by rank */
    int32_t *depth, *queue, *next;/* [experts + ranks] */
};

/* False: no memory. */
bool moe_check_layer_open(struct check_layer *l, struct moe_arena *a, int32_t experts, int32_t ranks,
                          int32_t slots);

/* Can the weights be split over the slots so that no rank but the dead one (-1: none is), which gets nothing,
 * has more than `max_load`?  Experts without a living copy are left out. */
bool moe_check_split_fits(struct check_layer *l, int32_t experts, int32_t ranks, int32_t dead,
                          double max_load);

/* Fill `twin`. */
void moe_check_twins(struct check_layer *l, int32_t experts, int32_t ranks);

/* The best bound this file can prove for the weights: mean, piece, packing. */
double moe_check_bound(struct check_layer *l, int32_t experts, int32_t ranks, int32_t floor);

/* Is there a placement with every rank below `max_load`?  1: yes, 0: no, -1: too many to try. */
int moe_check_better_exists(struct check_layer *l, int32_t experts, int32_t ranks, int32_t floor,
                            double max_load);

#endif
