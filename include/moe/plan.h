/* SPDX-License-Identifier: Apache-2.0 */
/* moe/plan.h - expert placement: which experts lie on which rank; making a placement, and verifying one.
 *
 * A placement (also: plan) is a JSON text, the content of a plan.json (docs/reference/placement.md).  The
 * functions keep no state and may be called from any thread.  Results do not depend on the number of
 * threads. */
#ifndef MOE_PLAN_H
#define MOE_PLAN_H

#include <moe/cancel.h>
#include <moe/progress.h>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct moe_placement_options {
    size_t size;               /* sizeof(struct moe_placement_options), set by the caller (moe/moe.h) */
    int64_t threads;           /* 0: as many as there are processors */
    int64_t ranks;             /* GPUs that share the experts of each layer; 0: as in the plan `from` */
    /* Slots of a layer on all ranks together; a slot holds one copy of one expert.  0: as memory_per_rank
     * allows, else as many as in the plan `from`, else just enough for every expert (survive + 1 times). */
    int64_t slots;
    uint64_t memory_per_rank;  /* bytes that the weights of a rank may take, instead of slots; 0: not given */
    /* How many ranks may fail without loss of an expert; 0: as in the plan `from`, else none; -1: none in any
     * case. */
    int64_t survive;
    /* 0: as in the plan `from`, else all ranks are one node; -1: all ranks are one node in any case. */
    int64_t ranks_per_node;
    /* n_stats paths of files of routing statistics; none: those in the container, else every expert counts
     * the same. */
    const char *const *stats;
    size_t n_stats;
    const char *from;          /* path of the plan in use, of which few slots are to move; NULL: none */
    struct moe_cancel *cancel; /* the token that can end the call early; NULL: none */
    /* Called with how far the call has come (moe/progress.h); NULL: not called. */
    void (*progress)(void *ctx, const struct moe_progress_report *report);
    void *ctx;                 /* the first argument of `progress` */
};

/* Makes a placement for `model`, the path of a container, of a checkpoint, or of a directory with only a
 * config.json.  o is not NULL and sets ranks or from.  *json is malloc'd text, NUL terminated, the caller's
 * to free(); NULL on failure.  MOE_USAGE where the options allow no placement. */
MOE_API enum moe_code moe_placement_make(const char *model, const struct moe_placement_options *o,
                                         char **json, struct moe_err *err);

struct moe_placement_verify_options {
    size_t size;               /* sizeof the struct, set by the caller (moe/moe.h) */
    /* n_stats paths of the statistics that the plan was made from; none: no load or bound is compared. */
    const char *const *stats;
    size_t n_stats;
    const char *from;          /* path of the older plan that it was made from; NULL: no move is compared */
    struct moe_cancel *cancel; /* the token that can end the call early; NULL: none */
    /* Called with how far the call has come (moe/progress.h); NULL: not called. */
    void (*progress)(void *ctx, const struct moe_progress_report *report);
    void *ctx;                 /* the first argument of `progress` */
};

/* Computes every number in the plan file at the path `plan` again, by code that shares nothing with the
 * planner.  o may be NULL.  MOE_VERIFY when numbers are wrong: *err names the first, and *problems is
 * malloc'd text, the caller's to free(), with a line for each (NULL where memory for the text ran out).  In
 * every other case *problems is NULL.  problems may be NULL. */
MOE_API enum moe_code moe_placement_verify(const char *plan, const struct moe_placement_verify_options *o,
                                           char **problems, struct moe_err *err);

#ifdef __cplusplus
}
#endif
#endif
