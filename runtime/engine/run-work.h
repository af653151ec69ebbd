/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-work.h - the work that a moe-run is asked for: its inputs are read once, each rank does
 * its share, and the results of all are reported.
 *
 * This joins the options of moe-run to the parts that know none: prompt.h, prompts.h, rank-work.h, score.h,
 * bench-pass.h, recorder.h.  Where ranks are threads they share one struct moe_run_job, which only rank 0
 * changes while they work. */
#ifndef MOE_RUNTIME_ENGINE_RUN_WORK_H
#define MOE_RUNTIME_ENGINE_RUN_WORK_H

#include "runtime/engine/ranks.h"
#include "runtime/engine/run-options.h"

struct moe_run_job {
    struct moe_run_options *o;
    struct moe_engine_options engine; /* how to open the model */
    cJSON *json;                      /* the report; NULL: nobody reads it */
    bool turns;                       /* a conversation on a terminal */
    struct moe_prompts prompts;       /* of --prompts */
    int32_t *ids; size_t n_ids;       /* the text of --score */
    int64_t window;                   /* of --score, once a rank of this process has begun with it */
};

/* Reads --prompts and the text of --score by the tokenizer of an open engine or lender. */
enum moe_code moe_run_read(struct moe_run_job *j, const struct moe_engine *e, struct moe_err *err);
/* What results the work has with this model; the vocabulary is left open. */
struct moe_results_shape moe_run_shape(const struct moe_run_job *j, const struct moe_source *s);
/* The window of --score on this engine. */
int64_t moe_run_window(const struct moe_run_options *o, const struct moe_engine *e);

/* One rank's share (struct moe_ranks.work); job is a struct moe_run_job.  What is not shared out, one
 * sequence, a conversation or a benchmark, is rank 0's. */
enum moe_code moe_run_share(void *job, struct moe_rank *r, struct moe_err *err);

/* Reports for all ranks: to standard output or into j->json, and writes --record-routing.  dead [ranks] says
 * which were lost: MOE_DEVICE where nothing is left without them. */
enum moe_code moe_run_report(struct moe_run_job *j, const struct moe_config *c, struct moe_results *r,
                             const bool *dead, struct moe_err *err);

/* All of it with one rank, this process. */
enum moe_code moe_run_alone(struct moe_run_job *j, struct moe_err *err);

/* Frees what moe_run_read has read. */
void moe_run_job_release(struct moe_run_job *j);

#endif
