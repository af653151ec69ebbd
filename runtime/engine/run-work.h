/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/run-work.h - the work of a moe-run: reads the inputs once, has each rank do its share, and
 * reports the results of all ranks.
 *
 * This translates the options of moe-run for the parts that know no options: prompt.h, prompts.h,
 * rank-work.h, score.h, bench-pass.h, recorder.h.  Where ranks are threads, they share one struct
 * moe_run_job, which only rank 0 changes while they work. */
#ifndef MOE_RUNTIME_ENGINE_RUN_WORK_H
#define MOE_RUNTIME_ENGINE_RUN_WORK_H

#include "runtime/engine/ranks.h"
#include "runtime/engine/run-options.h"

struct moe_run_job {
    struct moe_run_args *o;
    struct moe_engine_options engine; /* how to open the model */
    cJSON *json;                      /* the report; NULL: there will be none */
    int ranks;                        /* of the run, set before moe_run_read; 0: this process is all */
    bool turns;                       /* the work is a conversation on a terminal */
    struct moe_prompts prompts;       /* of --prompts */
    int32_t *ids; size_t n_ids;       /* the text of --score */
    int64_t window;                   /* of --score, set when a rank of this process begins with it */
};

/* Reads the files of --prompts and --score into *j, with the tokenizer of e, an engine or a lender.  Fails
 * with what moe_prompts_read and moe_prompt_file_ids fail with. */
enum moe_code moe_run_read(struct moe_run_job *j, const struct moe_engine *e, struct moe_err *err);
/* Which results the ranks send in this work with this model; vocab is left for the caller to set. */
struct moe_results_shape moe_run_shape(const struct moe_run_job *j, const struct moe_source *s);
/* The window of --score on this engine, in tokens. */
int64_t moe_run_window(const struct moe_run_args *o, const struct moe_engine *e);

/* Does one rank's share of the work (struct moe_ranks.work); job is a struct moe_run_job.  Work that cannot
 * be divided (one sequence, a conversation, a benchmark) is done by rank 0 alone. */
enum moe_code moe_run_share(void *job, struct moe_rank *r, struct moe_err *err);

/* Reports for all ranks, on standard output or into j->json, and writes the file of --record-routing.  dead
 * [ranks]: which ranks were lost.  MOE_DEVICE when what they had makes the result useless. */
enum moe_code moe_run_report(struct moe_run_job *j, const struct moe_config *c, struct moe_results *r,
                             const bool *dead, struct moe_err *err);

/* Does the whole run with this process as the only rank. */
enum moe_code moe_run_alone(struct moe_run_job *j, struct moe_err *err);

/* Frees what moe_run_read has read into *j. */
void moe_run_job_release(struct moe_run_job *j);

#endif
