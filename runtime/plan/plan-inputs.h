/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-inputs.h - reads what moe-plan is given: models, statistics of routing, and plans.
 *
 * Outputs that are pointers are the caller's to free, and NULL on failure.  cancel (may be NULL) ends reading
 * early.  Any thread may call these functions. */
#ifndef MOE_RUNTIME_PLAN_PLAN_INPUTS_H
#define MOE_RUNTIME_PLAN_PLAN_INPUTS_H

#include "base/cancel.h"
#include "formats/routing.h"
#include "formats/source.h"
#include "runtime/plan/plan.h"

#include <limits.h>

/* Opens a container, a checkpoint, or a directory with only config.json; the files in `path` tell which. */
enum moe_code moe_plan_open_model(struct moe_source **src, const char *path, struct moe_err *err);

/* What makes statistics doubtful. */
struct moe_stats_doubts {
    int64_t rounded;         /* how many counts were fractions, and were rounded */
    int32_t mtp_rows;        /* how many rows are of layers for multi-token prediction, and were left out */
    int32_t layers, empty;   /* how many MoE layers there are; how many of them have no token */
    int32_t experts;         /* how many experts a layer has */
    int32_t never;           /* of these got no token, in the layer with tokens where they are most */
};
/* Fills *d from statistics with one row for each MoE layer of the model, over all windows. */
void moe_plan_doubt_stats(const struct moe_routing *r, struct moe_stats_doubts *d);

/* Where statistics come from: paths that were given, the container's routing.json, or nowhere. */
enum moe_stats_origin { MOE_STATS_GIVEN, MOE_STATS_CONTAINER, MOE_STATS_NONE };
/* Reads statistics with one row for each MoE layer of the model.  The windows of the files follow each other
 * in the order of paths [n]; where a file has more than max_windows, neighbours are added up.  Without paths
 * the container's routing.json is read; where there is none, every expert counts 1.  MOE_UNSUPPORTED: the
 * model has no experts. */
enum moe_code moe_plan_gather_stats(struct moe_routing **r, enum moe_stats_origin *origin,
                                    const struct moe_source *src, const char *const *paths, size_t n,
                                    int32_t max_windows, const struct moe_cancel *cancel,
                                    struct moe_err *err);

/* Reads statistics with one row for each layer of a plan, where the model is not at hand.  MOE_MISMATCH when
 * they have another number of experts, or lack a layer of the plan. */
enum moe_code moe_plan_read_stats(struct moe_routing **r, const struct moe_plan *p,
                                  const char *const *paths, size_t n, int32_t max_windows,
                                  const struct moe_cancel *cancel, struct moe_err *err);

/* MOE_MISMATCH when the plan was made for a checkpoint with the same header digest and other weights
 * (formats/container/identity.h): a fine-tune sends its tokens to other experts.  A plan for another header
 * digest is accepted, since that may be the same model in another type, and so is a plan when the identity of
 * either side is not known.  When the plan identifies weights, samples of a checkpoint are read. */
enum moe_code moe_plan_check_model(const struct moe_plan *p, const struct moe_source *src, const char *file,
                                   const struct moe_cancel *cancel, struct moe_err *err);

/* MOE_MISMATCH when `ranks`, as given by the user (0: none), is not the plan's number of ranks. */
enum moe_code moe_plan_check_ranks(const struct moe_plan *p, int64_t ranks, const char *file,
                                   struct moe_err *err);

/* Finds the container for which a plan was made: `given`, or (given NULL) the directory of the plan's file
 * when that is a container, or the path that the plan names.  MOE_USAGE when the plan names none,
 * MOE_NOT_FOUND when nothing is at the path that it names. */
enum moe_code moe_plan_find_model(const struct moe_plan *p, const char *plan_path, const char *given,
                                  char path[PATH_MAX], struct moe_err *err);

/* A plan.json as text and as JSON, for callers that need more of it than the slots. */
struct moe_plan_text {
    const char *path; /* for messages */
    char *text;       /* [bytes], and a NUL behind them */
    size_t bytes;
    cJSON *root;
};
/* Reads a plan.json; path "-" is standard input.  MOE_UNSUPPORTED when the file is a plan of another engine,
 * which the message names.  On failure there is nothing to release. */
enum moe_code moe_plan_text_read(struct moe_plan_text *t, const char *path, const struct moe_cancel *cancel,
                                 struct moe_err *err);
void moe_plan_text_release(struct moe_plan_text *t);

#endif
