/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-make.h - makes a plan: from a request to a placement and its proofs.
 *
 *     struct moe_plan_request ask = MOE_PLAN_REQUEST;
 *     struct moe_planning p;
 *     ask.ranks = 8;
 *     code = moe_planning_open(&p, src, &ask, err);
 *     if (code == MOE_OK) code = moe_planning_search(&p, batch, pool, err);   // p.plan, p.proofs
 *     moe_planning_close(&p);
 *
 * One thread at a time may use a struct moe_planning; several of them may be used at once.  plan-report.h
 * reports one as text, plan-json.h as JSON; plan-json.h also writes its plan.json. */
#ifndef MOE_RUNTIME_PLAN_PLAN_MAKE_H
#define MOE_RUNTIME_PLAN_PLAN_MAKE_H

#include "formats/container/identity.h"
#include "runtime/plan/plan-inputs.h"
#include "runtime/plan/plan-model.h"
#include "runtime/plan/plan-proof.h"

#define MOE_PLAN_UNSET   INT64_MIN /* a number of the request that the caller does not give */
#define MOE_PLAN_WINDOWS 8         /* the default of request.windows */
#define MOE_PLAN_TARGET  0.0195    /* the default of request.target (1.95 %) */

struct moe_plan_request {
    int64_t ranks;              /* unset: as many as the plan `from` is for */
    int64_t slots;              /* of a layer; unset: by `memory`, else as `from` has, else just enough */
    int64_t memory;             /* bytes that the weights of a rank may take; excludes `slots` */
    int64_t ranks_per_node;     /* 0: all ranks are one node; unset: as `from` has, else 0 */
    int64_t survive;            /* ranks that may die without losing an expert; unset: as `from`, else 0 */
    int64_t windows;            /* how many windows of a file of statistics are kept apart */
    double target;              /* with `from`, as in struct moe_plan_task */
    const char *const *stats;   /* n_stats paths; none: the container's own, else all experts are equal */
    size_t n_stats;
    const char *from;           /* path of the plan that is in use now; NULL: none */
    const char *expert_type, *dense_type; /* as moe_weight_bytes_of and moe_dense_bytes take them */
    bool written;               /* the plan will be written, so the weights of a checkpoint are identified */
    struct moe_progress *progress; /* NULL, or told of each layer */
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};
#define MOE_PLAN_REQUEST                                                    \
    { .ranks = MOE_PLAN_UNSET, .slots = MOE_PLAN_UNSET, .memory = MOE_PLAN_UNSET, \
      .ranks_per_node = MOE_PLAN_UNSET, .survive = MOE_PLAN_UNSET, .windows = MOE_PLAN_UNSET, \
      .target = MOE_PLAN_TARGET, .expert_type = "source", .dense_type = "source" }

/* MOE_USAGE, naming the option, for a number that is out of range whatever the model. */
enum moe_code moe_plan_request_check(const struct moe_plan_request *q, struct moe_err *err);
int32_t moe_plan_windows(int64_t asked); /* `asked`, or the default for MOE_PLAN_UNSET */

struct moe_planning {
    const struct moe_plan_request *ask; /* the caller owns this and src, which must outlive the planning */
    const struct moe_source *src;
    struct moe_routing *stats;
    enum moe_stats_origin origin;       /* where the statistics come from */
    struct moe_weight_bytes bytes;      /* of the model's weights, in the types asked for */
    struct moe_identity model;
    struct moe_plan *from;              /* the old plan; NULL: none */
    struct moe_plan_task task;          /* what is searched for: the request with its gaps filled */
    struct moe_plan *plan;              /* NULL until moe_planning_search, as is proofs */
    struct moe_plan_proofs *proofs;
    uint64_t digest;                    /* of the statistics; moe_planning_search sets it */
    double seconds, cpu;                /* of the search: wall time, and processor time of all threads */
};

/* Reads the statistics and the old plan, and decides ranks and slots.  MOE_USAGE, with the numbers, when no
 * plan can have them.  The caller closes *p, also on failure. */
enum moe_code moe_planning_open(struct moe_planning *p, const struct moe_source *src,
                                const struct moe_plan_request *ask, struct moe_err *err);
/* Computes, without a search, what any plan can reach at best: *bound is the sum over layers of the lower
 * bound on the largest load, *mean that of the mean load. */
enum moe_code moe_planning_bounds(const struct moe_planning *p, double *bound, double *mean,
                                  struct moe_err *err);
/* Searches for the plan and proves how good it is.  batch: tokens of a rank in one step. */
enum moe_code moe_planning_search(struct moe_planning *p, int64_t batch, struct moe_pool *pool,
                                  struct moe_err *err);
void moe_planning_close(struct moe_planning *p);

/* Bytes of weights on the rank with the most slots. */
double moe_planning_bytes_per_rank(const struct moe_planning *p);

#endif
