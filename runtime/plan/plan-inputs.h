/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-inputs.h - what moe-plan reads: a model of three kinds, statistics of several.
 *
 * cancel (may be NULL) ends reading early. */
#ifndef MOE_RUNTIME_PLAN_PLAN_INPUTS_H
#define MOE_RUNTIME_PLAN_PLAN_INPUTS_H

#include "base/cancel.h"
#include "formats/routing.h"
#include "formats/source.h"
#include "runtime/plan/plan.h"

#include <limits.h>

/* A container, a checkpoint, or a directory with only config.json (told by what is in it). */
enum moe_code moe_plan_open_model(struct moe_source **src, const char *path, struct moe_err *err);

/* What makes statistics doubtful. */
struct moe_stats_doubts {
    int64_t rounded;         /* counts that were fractions */
    int32_t beyond;          /* rows of layers for multi-token prediction */
    int32_t layers, empty;   /* MoE layers; those without one token */
    int32_t never, experts;  /* the most experts of a layer that has tokens that got none; of how many */
};
/* Of statistics with the model's rows, over all windows. */
void moe_plan_doubt_stats(const struct moe_routing *r, struct moe_stats_doubts *d);

enum moe_stats_origin { MOE_STATS_GIVEN, MOE_STATS_CONTAINER, MOE_STATS_NONE };
/* One row for each MoE layer of the model.  Each file's windows, at most `max_windows` of them (neighbours
 * added up), follow each other in the order of paths.  No paths: the container's routing.json; without one
 * every expert counts 1.  MOE_UNSUPPORTED: the model has no experts. */
enum moe_code moe_plan_gather_stats(struct moe_routing **r, enum moe_stats_origin *origin,
                                    const struct moe_source *src, const char *const *paths, size_t n,
                                    int32_t max_windows, const struct moe_cancel *cancel,
                                    struct moe_err *err);

/* The same of a plan's layers, without the model.  MOE_MISMATCH when experts or layers are not the plan's. */
enum moe_code moe_plan_stats_of(struct moe_routing **r, const struct moe_plan *p, const char *const *paths,
                                size_t n, int32_t max_windows, const struct moe_cancel *cancel,
                                struct moe_err *err);

/* Is the plan of this model, as far as that can be known? MOE_MISMATCH when it was made for a checkpoint
 * of the same form with other weights: a fine-tune sends its tokens to other experts.  Of another form
 * (the same model in another type, say), or when either side does not say, it is taken.  Reads samples of
 * a checkpoint, when the plan says what they were (formats/container/identity.h). */
enum moe_code moe_plan_check_model(const struct moe_plan *p, const struct moe_source *src, const char *file,
                                   const struct moe_cancel *cancel, struct moe_err *err);

/* --ranks cuts an engine's file; a plan.json says for how many ranks it is, and may not be contradicted.
 * ranks: 0: not said. */
enum moe_code moe_plan_check_ranks(const struct moe_plan *p, int64_t ranks, const char *file,
                                   struct moe_err *err);

/* The container that a plan was made for: `given` (may be NULL), or the directory that the plan lies in when
 * that is a container, or the path that it names.  MOE_USAGE when none of the three is there. */
enum moe_code moe_plan_find_model(const struct moe_plan *p, const char *plan_path, const char *given,
                                  char path[PATH_MAX], struct moe_err *err);

/* A plan.json as text and as JSON, for what is in it beside the slots; path may be "-".  Of an engine's file
 * MOE_UNSUPPORTED says whose it is.  Nothing is owned on failure. */
struct moe_plan_text {
    const char *path;
    char *text; /* `bytes`, and a zero */
    size_t bytes;
    cJSON *root;
};
enum moe_code moe_plan_read_own(struct moe_plan_text *t, const char *path, const struct moe_cancel *cancel,
                                struct moe_err *err);
void moe_plan_text_release(struct moe_plan_text *t);

#endif
