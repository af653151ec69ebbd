/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-out.h - makes other things of a plan: files for other engines, a picture, and the part of
 * a container that some ranks need.  Any thread may call these functions. */
#ifndef MOE_RUNTIME_PLAN_PLAN_OUT_H
#define MOE_RUNTIME_PLAN_PLAN_OUT_H

#include "base/json.h"
#include "base/progress.h"
#include "formats/source.h"
#include "runtime/plan/plan.h"

/* A plan as the text of an engine's file; the caller frees *text, which is NULL on failure.  MOE_UNSUPPORTED
 * when not all ranks have the same number of slots, because both engines take slot j to be on rank
 * j / (slots / ranks).
 *
 * SGLang: {"physical_to_logical_map": [[...]]} with a row for each layer from 0 to the plan's last one.
 * Where the plan does not have the layer, its row has the experts in order.  A layer for multi-token
 * prediction needs no row: SGLang gives it the number 0, and so reads the row of layer 0.
 *
 * TensorRT-LLM: a static moe_load_balancer.yaml (layer_updates_per_iter 0).  TensorRT-LLM looks up a row for
 * every layer with experts that it runs, so the layers for multi-token prediction have rows too, with the
 * experts in order. */
enum moe_code moe_plan_export_sglang(const struct moe_plan *p, char **text, struct moe_err *err);
enum moe_code moe_plan_export_trtllm(const struct moe_plan *p, char **text, struct moe_err *err);
/* The engines by name: "sglang", "tensorrt-llm". */
enum moe_engine { MOE_ENGINE_SGLANG, MOE_ENGINE_TRTLLM };
bool moe_engine_find(const char *name, enum moe_engine *engine); /* false: no engine has this name */

struct moe_plan_export {
    const char *plan;       /* path of a plan in any form; "-": standard input */
    int32_t ranks;          /* for how many ranks a plan is whose file does not say so; 0: not known */
    /* path of the model, or NULL.  It tells which rows of an engine's file are of dense layers, and which
     * layers are for multi-token prediction */
    const char *model;
    enum moe_engine engine; /* the engine that will read the file */
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};
struct moe_plan_exported {
    char *text;             /* the caller frees it; NULL on failure */
    bool unfitted;          /* no model was given, so that rows of dense layers may be in the text */
    int32_t prediction, n_prediction; /* layers for multi-token prediction: the first; how many */
};
/* Reads the file of a plan and writes it as an engine reads it.  MOE_MISMATCH: the plan is for another number
 * of ranks, or for another model. */
enum moe_code moe_plan_export(struct moe_plan_exported *out, const struct moe_plan_export *q,
                              struct moe_err *err);

#define MOE_PLOT_TITLE "Load of each rank / mean, by layer" /* a picture with this title was drawn here */
/* Another placement to compare with: its name, and the load of its fullest rank, [layers of the plan]. */
struct moe_plot_beside { const char *name; const double *load_max; };
/* Draws an SVG from the loads in plan.json, of which root is the parsed text: a heat map of load / mean,
 * layers by ranks, and bars of the fullest rank of each layer, on which `beside` (NULL: none) is marked.  The
 * caller frees *svg.  MOE_UNSUPPORTED for a plan without loads. */
enum moe_code moe_plan_plot(const cJSON *root, const char *file, const struct moe_plot_beside *beside,
                            char **svg, struct moe_err *err);

struct moe_plan_picture {
    const char *plan;               /* path of a plan.json; one of the paths may be "-": standard input */
    /* n_stats paths of the statistics from which the plan was made.  From them EPLB's placement (or, where
     * EPLB has none, experts in order) is computed and marked beside the plan; n_stats 0: nothing is */
    const char *const *stats;
    size_t n_stats;
    int32_t windows;                /* how many windows of a file to keep apart, as when the plan was made */
    struct moe_progress *progress;  /* NULL, or told of each layer */
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};
/* Calls moe_plan_plot for a file, after it has verified those claims of the plan that can be verified without
 * statistics.  The caller frees *svg, which is NULL on failure.  MOE_MISMATCH: the plan was made from other
 * statistics. */
enum moe_code moe_plan_draw(const struct moe_plan_picture *q, char **svg, struct moe_err *err);

/* Writes what ranks [first, last] need of the container src as a container directory at `out`, which appears
 * whole or not at all.  The caller has checked the plan with moe_plan_bind.
 *
 * Without `link` it is a copy, a staged part (formats/container/staged.h): the files of layers keep their
 * size, and have the extents of these ranks' experts at their places, and holes elsewhere; every other file
 * is copied whole.  When these ranks need every expert, it is a plain copy of the container.  With `link` it
 * is the whole container under another name, as hard links of all files (on the same file system only).
 *
 * What was copied is read back and compared with its hashes.  The plan's text [bytes_of_text] is kept in it
 * as plan-staged.json.  *bytes: how much was copied.  A failure names `out`, or the damaged file of src. */
enum moe_code moe_plan_stage(const struct moe_plan *p, const char *text, size_t bytes_of_text,
                             const struct moe_source *src, int32_t first, int32_t last, bool link,
                             const char *out, bool force, const struct moe_cancel *cancel, uint64_t *bytes,
                             struct moe_err *err);
/* Reads what these ranks need of a staged (or whole) container, and compares each plane with its hash.
 * *bytes: how much was read.  MOE_CORRUPT names file and tensor, MOE_MISMATCH an expert that was not
 * staged. */
enum moe_code moe_plan_stage_check(const struct moe_plan *p, const struct moe_source *staged, int32_t first,
                                   int32_t last, const struct moe_cancel *cancel, uint64_t *bytes,
                                   struct moe_err *err);

#endif
