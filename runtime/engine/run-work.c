/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/run-work.h"

#include "base/io.h"
#include "base/cli/output.h"
#include "formats/routing.h"
#include "model/rewrite/check.h"
#include "runtime/engine/bench-pass.h"
#include "runtime/engine/handover.h"
#include "runtime/engine/rank-work.h"
#include "runtime/engine/results-json.h"
#include "runtime/engine/run-chat.h"
#include "runtime/engine/run-generate.h"
#include "runtime/engine/run-report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- inputs ---- */

enum moe_code moe_run_read(struct moe_run_job *j, const struct moe_engine *e, struct moe_err *err)
{
    const struct moe_run_args *o = j->o;
    if (o->prompts) {
        const struct moe_request defaults = moe_run_request(o);
        const struct moe_answers_use use = { .copies = j->ranks && !strcmp(o->comm, "local") ? j->ranks : 1,
                                             .printed = o->run.json || o->jsonl,
                                             .each = o->jsonl,
                                             .leave = o->jsonl && !j->ranks };
        MOE_TRY(moe_prompts_read(&j->prompts, o->prompts, &o->prompt, &defaults, &use, e, err));
        moe_chat_tell_left(&o->run.notes, "--prompts", &j->prompts.left);
    }
    return o->score ? moe_prompt_file_ids(&o->prompt, o->score, e, &j->ids, &j->n_ids, err) : MOE_OK;
}

void moe_run_job_release(struct moe_run_job *j)
{
    moe_prompts_release(&j->prompts);
    free(j->ids);
}

struct moe_results_shape moe_run_shape(const struct moe_run_job *j, const struct moe_source *s)
{
    return (struct moe_results_shape){ .sequence = j->prompts.v,
                                       .n_sequences = j->prompts.n,
                                       .reference = j->o->reference != NULL,
                                       .routing_bytes = j->o->record ? moe_recorder_bytes(&s->config) : 0 };
}

int64_t moe_run_window(const struct moe_run_args *o, const struct moe_engine *e)
{
    return o->window != MOE_UNSET ? o->window : moe_score_window(e);
}

/* ---- a rank's share ---- */

static enum moe_code share_score(struct moe_run_job *j, struct moe_rank *r, struct moe_err *err)
{
    const struct moe_run_args *o = j->o;
    int64_t window = moe_run_window(o, r->engine);
    /* threads share the job, so only rank 0 of them sets this */
    if (!r->rank || o->rendezvous) j->window = window;
    const struct moe_rank_text t = { .text = { .ids = j->ids,
                                               .n = (int64_t)j->n_ids,
                                               .window = window,
                                               .memory = (uint64_t)o->memory,
                                               .scratch = o->scratch },
                                     .reference = o->reference,
                                     .engine = &j->engine };
    return moe_rank_score(r, &t, r->rank ? NULL : o->run.progress, err);
}

static enum moe_code bench(const struct moe_run_job *j, const struct moe_engine *e, struct moe_err *err)
{
    const struct moe_run_args *o = j->o;
    cJSON *rows;
    MOE_TRY(moe_bench_all(&rows, e, o->run.argv[0], &j->engine, o->run.pool, err));
    if (!moe_json_add(j->json, "bench", rows))
        return moe_fail(err, MOE_NOMEM, "no memory for a benchmark");
    if (!o->run.json) moe_run_print_bench(stdout, rows);
    return MOE_OK;
}

static enum moe_code share(struct moe_run_job *j, struct moe_rank *r, struct moe_err *err)
{
    const struct moe_run_args *o = j->o;
    if (o->prompts) return moe_rank_prompts(r, &j->prompts, err);
    if (o->score) return share_score(j, r, err);
    if (r->rank) return MOE_OK; /* the rest is for rank 0 alone */
    if (o->bench) return bench(j, r->engine, err);
    if (j->turns) return moe_run_chat(o, r, err);
    return moe_run_generate(o, r->engine, moe_now() - o->run.start, j->json, err);
}

enum moe_code moe_run_share(void *job, struct moe_rank *r, struct moe_err *err)
{
    struct moe_run_job *j = job;
    const struct moe_run_args *o = j->o;
    struct moe_recorder *m = NULL;
    int give = moe_handover_end(o->rendezvous);
    if (give >= 0) MOE_TRY(moe_handover_there(give, err));
    if (o->rendezvous && !r->rank) moe_notice(&o->run, "all %d ranks are there", r->ranks);

    if (o->record) MOE_TRY(moe_recorder_open(&m, &r->engine->model->config, r->engine->forward, err));
    enum moe_code code = share(j, r, err);
    if (code == MOE_OK && m) code = moe_results_add_routing(r->results, r->ep, r->rank, m, err);
    moe_forward_hooks(r->engine->forward, NULL);
    moe_recorder_close(&m);
    return moe_source_blame_change(r->engine->source, code, err);
}

/* ---- the report ---- */

/* Warns of lost ranks, and fails if the result of the run is lost with them. */
static enum moe_code check_lost(const struct moe_run_args *o, const struct moe_results *r,
                                const bool *dead, struct moe_err *err)
{
    for (int k = 0; k < r->ranks; k++)
        if (dead[k]) moe_warn(&o->run, "rank %d was lost", k);
    if (o->prompts && moe_results_lost(r) == r->n_sequences)
        return moe_fail(err, MOE_DEVICE, "all prompts were lost with their ranks");
    if (!o->prompts && !o->score && dead[0])
        return moe_fail(err, MOE_DEVICE, "the sequence was lost with rank 0");
    for (int k = 0; k < r->ranks; k++)
        if (o->score && dead[k] && !r->scored[k])
            return moe_fail(err, MOE_DEVICE, "rank %d was lost, and its windows of '%s' with it", k,
                            o->score);
    return MOE_OK;
}

enum moe_code moe_run_report(struct moe_run_job *j, const struct moe_config *c, struct moe_results *r,
                             const bool *dead, struct moe_err *err)
{
    struct moe_run_args *o = j->o;
    MOE_TRY(check_lost(o, r, dead, err));
    if (o->prompts) MOE_TRY(moe_run_report_prompts(o, c, &j->prompts, r, j->json, err));
    if (o->score) moe_run_report_score(o, &r->sums, j->window, stdout, j->json);
    if (r->ranks > 1) moe_ranks_json(r, dead, j->json);
    if (o->record && r->routing) {
        MOE_TRY(moe_file_kind_check(o->record, &moe_routing_kind, err));
        MOE_TRY(moe_recorder_write(c, r->routing, o->record, err));
    }
    enum moe_code code = o->prompts ? moe_run_first_error(&j->prompts, r, err) : MOE_OK;
    o->run.reports = code != MOE_OK;
    return code;
}

/* ---- one rank ---- */

/* What print_as_it_ends is told with. */
struct stream { const struct moe_prompts *prompts; struct moe_results *results; };

/* Prints the answer to a prompt once all its choices have ended, and frees it but for its numbers (struct
 * moe_results.stored). */
static enum moe_code print_as_it_ends(void *ctx, int64_t index, struct moe_err *err)
{
    const struct stream *s = ctx;
    int64_t first = index - s->prompts->v[index].request.choice;
    if (!moe_results_whole(s->results, s->prompts, first)) return MOE_OK;
    MOE_TRY(moe_run_print_record(s->prompts, s->results, first, err));
    moe_results_forget(s->results, s->prompts, first);
    return MOE_OK;
}

enum moe_code moe_run_alone(struct moe_run_job *j, struct moe_err *err)
{
    const struct moe_run_args *o = j->o;
    struct moe_rank r = { .rank = 0, .ranks = 1, .pool = o->run.pool };
    bool dead = false;
    enum moe_code code = moe_engine_open(&r.engine, o->run.argv[0], &j->engine, o->run.pool, err);
    if (code == MOE_OK) moe_tell_superseded(&o->run.notes, r.engine->source);
    if (code == MOE_OK && moe_activations_nvfp4(j->engine.activations))
        moe_run_warn_activations(o, r.engine->source);
    if (code == MOE_OK) code = moe_run_read(j, r.engine, err);
    if (code == MOE_OK) {
        struct moe_results_shape shape = moe_run_shape(j, r.engine->source);
        shape.vocab = r.engine->vocab;
        code = moe_results_open(&r.results, 1, &shape, err);
    }
    struct stream stream = { &j->prompts, r.results };
    if (code == MOE_OK && o->jsonl) {
        r.results->stored = print_as_it_ends;
        r.results->ctx = &stream;
    }
    if (code == MOE_OK) code = moe_run_share(j, &r, err);
    if (code == MOE_OK) code = moe_run_report(j, &r.engine->model->config, r.results, &dead, err);
    if (code == MOE_OK) moe_run_device_json(o, r.engine, j->json);
    moe_results_close(&r.results);
    moe_engine_close(&r.engine);
    return code;
}
