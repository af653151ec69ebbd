/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-proof.h - the proof of a plan: its loads, the lower bounds on them, what is lost with a
 * rank, and what moves, layer by layer.  Loads are as in plan-search.h. */
#ifndef MOE_RUNTIME_PLAN_PLAN_PROOF_H
#define MOE_RUNTIME_PLAN_PLAN_PROOF_H

#include "runtime/plan/plan-search.h"

#include "base/json.h"

struct moe_plan_proof {
    int32_t layer;
    double load_max, load_mean;      /* with equal shares: of the fullest rank; of all ranks */
    int32_t load_rank;               /* the fullest rank */
    double *loads;                   /* [ranks] with equal shares, the largest over windows; in the arena */
    struct moe_bounds bounds;        /* on the load of any plan */
    double gap;                      /* load_max / bounds.best - 1 */
    /* the load of the fullest rank with the best split over the replicas of this plan (moe_split_best), which
     * a cut proves to be the least */
    double split;
    int32_t cut_ranks;               /* how many ranks are in that cut; their bytes of cut[] are 1 */
    uint8_t *cut;                    /* [ranks], in the arena */
    /* as `split`, with the rank dead whose loss makes it largest; experts that are lost are in no load */
    double load_max_after_loss;
    int32_t loss_rank, lost_worst;   /* that rank; the most experts that are lost with any one rank */
    int32_t lost_worst_node;         /* with any one node; = lost_worst when all ranks are one node */
    int32_t copies_min;              /* the least number of copies of an expert */
    /* the expected number of slots of a rank that get a token in a batch, for the worst rank */
    double activated_max;
    /* the expected largest load / mean of one batch under a perfectly balanced placement, since tokens choose
     * their experts by chance: 1 or more */
    double noise_floor;
    int32_t moves;                   /* slots whose expert was not on their rank in the old plan */
};

struct moe_plan_proofs {
    struct moe_plan_proof *layers;   /* one for each layer of the plan, in its order */
    int32_t n_layers;
    /* sums over layers, because a step waits for the fullest rank of each layer */
    double load_max, load_mean, bound, split, load_max_after_loss;
    double gap;                      /* load_max / bound - 1 of the sums */
    int32_t lost_worst, lost_worst_node, copies_min; /* of the worst layer */
    int64_t moves;                   /* of all layers */
    struct moe_arena arena;
};

/* Proves a plan.  batch: tokens of a rank in one step, for noise_floor and activated_max.  *out is NULL on
 * failure. */
enum moe_code moe_plan_prove(struct moe_plan_proofs **out, const struct moe_plan *p,
                             const struct moe_plan_task *t, int64_t batch, struct moe_pool *pool,
                             struct moe_err *err);
void moe_plan_proofs_free(struct moe_plan_proofs **p); /* NULL-safe; nulls */

/* The digest by which statistics are compared: XXH3-64 of all counts as little-endian int64. */
enum moe_code moe_routing_digest(const struct moe_routing *r, uint64_t *digest, struct moe_err *err);

/* The text of plan.json (docs/reference/placement.md), which the caller frees; NULL when out of memory.
 * proofs may be NULL.  head: further members of the root; may be NULL. */
char *moe_plan_print(const struct moe_plan *p, const struct moe_plan_proofs *proofs, const cJSON *head);
/* The layers as --json gives them, without the slots; NULL when out of memory. */
cJSON *moe_plan_proofs_json(const struct moe_plan *p, const struct moe_plan_proofs *proofs);

#endif
