/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-verify-internal.h - the state of a plan that is being verified, and of its present layer;
 * the verifier's arithmetic on a layer.  Only runtime/plan/plan-verify*.c include it. */
#ifndef MOE_RUNTIME_PLAN_PLAN_VERIFY_INTERNAL_H
#define MOE_RUNTIME_PLAN_PLAN_VERIFY_INTERNAL_H

#include "base/arena.h"
#include "runtime/plan/plan-verify.h"

#include <stdbool.h>
#include <stdint.h>

/* ---- one layer, and the arithmetic on it (plan-verify-math.c) ---- */

struct check_layer {
    int32_t slots, cap;           /* slots of this layer, by ascending rank; room for so many in the arrays */
    int32_t *rank_of, *expert_of; /* [cap] the rank and the expert of each slot */
    int32_t *copies, *left;       /* [experts] copies of each; scratch */
    double *weight, *sorted;      /* [experts] loads in one window; scratch */
    double *rank_load;            /* [ranks] loads in one window */
    double *max_load;             /* [ranks] scratch */
    int32_t *lost;                /* [ranks] scratch */
    uint8_t *dead;                /* [ranks] scratch */
    uint8_t *twin;                /* [ranks] 1: an earlier rank holds the same experts */

    /* A flow of tokens from experts to ranks.  The nodes of its graph are the experts, then the ranks; its
     * arcs are the slots. */
    int64_t *supply, *room;       /* [experts] left to send; [ranks] left to take */
    int64_t *sent;                /* [cap] the flow through each slot */
    /* [cap] the slots by expert; [experts + 1] and [ranks + 1] where those of an expert or a rank begin */
    int32_t *by_expert, *expert_first, *rank_first;
    int32_t *depth, *queue, *next;/* [experts + ranks] scratch of the search */
};

/* Allocates the arrays in the arena, with cap = slots.  False: there is no memory. */
bool moe_check_layer_init(struct check_layer *l, struct moe_arena *a, int32_t experts, int32_t ranks,
                          int32_t slots);

/* Whether l->weight can be split over the slots so that no rank has more than max_load and rank `dead` (-1:
 * none) has nothing.  Experts without a living copy are left out. */
bool moe_check_split_fits(struct check_layer *l, int32_t experts, int32_t ranks, int32_t dead,
                          double max_load);

/* Sets l->twin.  The loss of such a rank leaves the same experts as the loss of the earlier one, so that one
 * of the two losses need not be verified. */
void moe_check_mark_twins(struct check_layer *l, int32_t experts, int32_t ranks);

/* The best lower bound on the largest load that the verifier can prove for l->weight: by the mean, and by the
 * arguments that plan-bound.c calls piece, packing and pigeonhole.  floor: least copies of an expert. */
double moe_check_bound(struct check_layer *l, int32_t experts, int32_t ranks, int32_t floor);

/* Whether there is a placement with every rank below max_load.  1: yes; 0: no; -1: there are too many
 * placements to try. */
int moe_check_better_exists(struct check_layer *l, int32_t experts, int32_t ranks, int32_t floor,
                            double max_load);

/* ---- the plan ---- */

struct moe_verify {
    const char *path;
    const cJSON *root;
    int32_t ranks, experts, slots, survive, per_node, n_layers, windows;
    int32_t prediction;      /* how many layers for multi-token prediction the model has (none is placed) */
    struct check_layer layer;
    int64_t *counts;         /* [windows][n_layers][experts], rows in the order of the plan's layers */
    bool compare;            /* loads and bounds are compared */
    cJSON *problems;
    struct moe_plan_checked *out;
    struct moe_progress *progress;
    const struct moe_cancel *cancel;
    struct moe_arena arena;
    struct moe_err *err;
    bool failed;             /* there was a problem */
    double sum_load, sum_bound, sum_mean; /* over layers */
    double moved;            /* slots, over layers; without the old plan, as the layers claim */
    bool moved_known;        /* the old plan was given, or each layer has made such a claim */
    int32_t most_slots;      /* of a rank in a layer */
};

/* ---- the claims (plan-verify-claims.c) ---- */

/* Notes a problem, which is a sentence. */
void moe_verify_problem(struct moe_verify *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Reads a number that the plan claims; false: it makes no such claim. */
bool moe_verify_claim(const cJSON *o, const char *key, double *x);
/* Compares the number that o claims under this key, if it does, with what it is.  layer: the number of the
 * layer that the claim is about; -1: it is about the whole plan. */
void moe_verify_compare(struct moe_verify *v, const cJSON *o, int layer, const char *key, double is);

/* Verifies layer `number`, whose JSON is o and whose row in v->counts is `row`.  old: the JSON of the old
 * plan; NULL: there is none, and the layer's claim of its moves is believed.  MOE_CORRUPT when o is no layer
 * of a plan. */
enum moe_code moe_verify_layer(struct moe_verify *v, const cJSON *o, int number, int32_t row,
                               const cJSON *old, struct moe_err *err);

#endif
