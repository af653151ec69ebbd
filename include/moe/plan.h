/* SPDX-License-Identifier: Apache-2.0 */
/* moe/plan.h - which experts lie on which rank: making such a placement, and checking one.
 *
 * A placement is the text of a plan.json (docs/reference/placement.md).  Has no state; may be called from any
 * thread.  What comes out does not depend on the number of threads. */
#ifndef MOE_PLAN_H
#define MOE_PLAN_H

#include <moe/cancel.h>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct moe_placement_options {
    size_t size;               /* sizeof(struct moe_placement_options), set by the caller (moe/moe.h) */
    int64_t threads;           /* 0: as many as there are processors */
    int64_t ranks;             /* GPUs that share the experts of each layer; 0: as many as `from` is for */
    int64_t slots;             /* places for experts in a layer, of all ranks together; 0: just enough */
    uint64_t memory_per_rank;  /* instead of slots: as many as fit in so many bytes of weights; 0: not said */
    /* Ranks that may die without losing an expert; 0: as `from` has it, else none; -1: none. */
    int64_t survive;
    int64_t ranks_per_node;    /* 0: as `from`, else all ranks are one machine; -1: they are */
    const char *const *stats;  /* n_stats files of routing statistics; none: the container's own, else all
                                * experts count the same */
    size_t n_stats;
    const char *from;          /* the file of a plan that is in use, of which few slots move; NULL: none */
    struct moe_cancel *cancel; /* ends it early; NULL: nobody does */
};

/* model: a container, a checkpoint, or a directory with only a config.json.  o is not NULL and says ranks or
 * from.  *json is malloc'd, the caller's to free(); NULL on failure.  MOE_USAGE where no such placement
 * exists. */
MOE_API enum moe_code moe_placement_make(const char *model, const struct moe_placement_options *o,
                                         char **json, struct moe_err *err);

struct moe_placement_check {
    size_t size;               /* sizeof(struct moe_placement_check), set by the caller (moe/moe.h) */
    const char *const *stats;  /* n_stats files of the statistics that the plan was made from; none: loads and
                                * bounds are not compared */
    size_t n_stats;
    const char *from;          /* the file of the plan that it was made from; NULL: moves are not compared */
    struct moe_cancel *cancel; /* ends it early; NULL: nobody does */
};

/* Computes every number of a plan's file again, in code that shares nothing with the planner.  o may be NULL.
 * MOE_VERIFY: a number is wrong; the first one is in *err, and *problems (problems may be NULL) is malloc'd
 * text, the caller's to free(), with a line for each.  Otherwise *problems is NULL. */
MOE_API enum moe_code moe_placement_verify(const char *plan, const struct moe_placement_check *o,
                                           char **problems, struct moe_err *err);

#ifdef __cplusplus
}
#endif
#endif
