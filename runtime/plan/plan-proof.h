/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-proof.h - the proof of a plan: how good it is, by its loads, bounds, losses and moves,
 * layer by layer.  Loads are as in plan-search.h. */
#ifndef MOE_RUNTIME_PLAN_PLAN_PROOF_H
#define MOE_RUNTIME_PLAN_PLAN_PROOF_H

#include "runtime/plan/plan-search.h"

#include "base/json.h"

struct moe_plan_proof {
    int32_t layer;
    double load_max, load_mean;      /* with equal shares; of the fullest rank, of all */
    int32_t load_rank;               /* the fullest */
    /* [ranks] with equal shares, the largest over windows; in the proofs' arena */
    double *loads;
    struct moe_bounds bounds;        /* over all plans */
    double gap;                      /* load_max / bound - 1 */
    /* load of the fullest rank with the best split over this plan's replicas: its min-cut bound, attained */
    double split;
    int32_t cut_ranks;               /* ranks in that cut; bytes of cut[] are 1 for them */
    uint8_t *cut;                    /* [ranks], in the proofs' arena */
    /* the same with one rank dead, for the worst rank; experts that are lost are in no load */
    double load_max_after_loss;
    int32_t loss_rank, lost_worst;   /* that rank; experts lost with the worst rank (which may be another) */
    int32_t lost_worst_node;         /* with the worst node; = lost_worst when there is one node */
    int32_t copies_min;
    /* slots of a rank with at least one token in a batch, expected, for the worst rank */
    double activated_max;
    /* expected largest load / mean of a batch whose tokens choose independently, beside
     * perfect balance: 1 + ... */
    double noise_floor;
    int32_t moves;                   /* slots whose expert was not on their rank in the old plan */
};

struct moe_plan_proofs {
    struct moe_plan_proof *layers;   /* as the plan's */
    int32_t n_layers;
    /* sums over layers: a step waits for the fullest rank of each */
    double load_max, load_mean, bound, split, load_max_after_loss;
    double gap;                      /* load_max / bound - 1 of the sums */
    int32_t lost_worst, lost_worst_node, copies_min;
    int64_t moves;
    struct moe_arena arena;
};

/* `batch`: tokens of a rank in one step, for noise and activation. */
enum moe_code moe_plan_prove(struct moe_plan_proofs **out, const struct moe_plan *p,
                             const struct moe_plan_task *t, int64_t batch, struct moe_pool *pool,
                             struct moe_err *err);
void moe_plan_proofs_free(struct moe_plan_proofs **p); /* NULL-safe; nulls */

/* Identifies statistics: XXH3-64 of the counts, little-endian. */
enum moe_code moe_routing_digest(const struct moe_routing *r, uint64_t *digest, struct moe_err *err);

/* plan.json as text (docs/reference/placement.md), free() it; NULL when out of memory.  `head`: further
 * members of the root, may be NULL. */
char *moe_plan_print(const struct moe_plan *p, const struct moe_plan_proofs *proofs, const cJSON *head);
/* The layers as --json gives them, without the slots. */
cJSON *moe_plan_proofs_json(const struct moe_plan *p, const struct moe_plan_proofs *proofs);

#endif
