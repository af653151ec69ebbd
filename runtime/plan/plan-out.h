/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-out.h - what can be made of a plan: files for other engines, a picture, and
 * the part of a container that some ranks need.  Any thread may call these functions. */
#ifndef MOE_RUNTIME_PLAN_PLAN_OUT_H
#define MOE_RUNTIME_PLAN_PLAN_OUT_H

#include "base/json.h"
#include "base/progress.h"
#include "formats/source.h"
#include "runtime/plan/plan.h"

/* Texts; free() them.  MOE_UNSUPPORTED when ranks have unequally many slots: both engines take slot j to be
 * on rank j / (slots / ranks). SGLang: {"physical_to_logical_map": [[...]]} with a row for each layer up to
 * the last, experts in order where the plan has none. TensorRT-LLM: moe_load_balancer.yaml, static
 * (layer_updates_per_iter 0), with experts in order in layers for multi-token prediction, too: it looks a row
 * up for every layer with experts that it runs.  SGLang numbers such a layer 0, whose row it has. */
enum moe_code moe_plan_export_sglang(const struct moe_plan *p, char **text, struct moe_err *err);
enum moe_code moe_plan_export_trtllm(const struct moe_plan *p, char **text, struct moe_err *err);
/* The engines by name: "sglang", "tensorrt-llm". */
enum moe_engine { MOE_ENGINE_SGLANG, MOE_ENGINE_TRTLLM };
bool moe_engine_find(const char *name, enum moe_engine *engine); /* false: none has this name */

struct moe_plan_export {
    const char *plan;       /* path of a plan in any form; "-": standard input */
    int32_t ranks;          /* how many a plan that does not say is for; 0: not known */
    /* path, or NULL.  An engine's file does not say which of its rows are of dense layers and which layers it
     * leaves out: the model does */
    const char *model;
    enum moe_engine engine; /* the one that will read it */
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};
struct moe_plan_exported {
    char *text;             /* the caller's to free; NULL on failure */
    bool unfitted;          /* rows of layers without experts were taken along, for want of a model */
    int32_t prediction, n_prediction; /* layers for multi-token prediction: the first, and how many */
};
/* The file of a plan as an engine reads it.  MOE_MISMATCH: the plan is for another number of ranks, or for
 * another model. */
enum moe_code moe_plan_export(struct moe_plan_exported *out, const struct moe_plan_export *q,
                              struct moe_err *err);

#define MOE_PLOT_TITLE "Load of each rank / mean, by layer" /* by which a picture is recognised as ours */
/* What another placement would have: the load of the fullest rank, [layers of the plan]. */
struct moe_plot_beside { const char *name; const double *load_max; };
/* A heat map, layers by ranks, of load / mean, and bars of the fullest ranks, from the loads in plan.json
 * (its parsed root); beside
 * (NULL: none) is marked on the bars.  MOE_UNSUPPORTED for a plan without loads. */
enum moe_code moe_plan_plot(const cJSON *root, const char *file, const struct moe_plot_beside *beside,
                            char **svg, struct moe_err *err);

struct moe_plan_picture {
    const char *plan;               /* path of a plan.json; "-": standard input, which may stand once below */
    const char *const *stats;       /* n_stats paths of the statistics that it was made from; none: no other
                                       placement is drawn beside it, which is EPLB's or experts in order */
    size_t n_stats;
    int32_t windows;                /* how many of a file to keep apart, as when the plan was made */
    struct moe_progress *progress;  /* NULL, or told of each layer */
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};
/* moe_plan_plot of a file, whose claims are verified first as far as it tells by itself.  *svg is the
 * caller's to free; NULL on failure.  MOE_MISMATCH: other statistics. */
enum moe_code moe_plan_draw(const struct moe_plan_picture *q, char **svg, struct moe_err *err);

/* What ranks [first, last] need of a container, as a container directory at `out`:
 * published whole or not at all.
 * Copy: a staged part (formats/container/staged.h): layer files keep their size and place, with the extents
 * of these ranks' experts and holes elsewhere; every other file whole.  When these ranks need every expert,
 * it is a plain copy.  Link: hard links of all files (same file system only), so the whole container under
 * another name.  What was copied is read back and held against its hashes.  The plan's text (plan.json) is
 * kept as plan-staged.json.  moe_plan_fits holds.  *bytes: what was copied.  A failure names `out`, or the
 * file of the container that is damaged. */
enum moe_code moe_plan_stage(const struct moe_plan *p, const char *text, size_t bytes_of_text,
                             const struct moe_source *src, int32_t first, int32_t last, bool link,
                             const char *out, bool force, const struct moe_cancel *cancel, uint64_t *bytes,
                             struct moe_err *err);
/* Read what these ranks need of a staged (or whole) container, plane by plane against its hash.  MOE_CORRUPT
 * names file and tensor, MOE_MISMATCH an expert that was not staged. */
enum moe_code moe_plan_stage_check(const struct moe_plan *p, const struct moe_source *staged, int32_t first,
                                   int32_t last, const struct moe_cancel *cancel, uint64_t *bytes,
                                   struct moe_err *err);

#endif
