/* SPDX-License-Identifier: Apache-2.0 */
/* moe-run - main() only: parse, call, report. */
#include "base/env.h"
#include "base/io.h"
#include "base/cli/output.h"
#include "base/stream.h"
#include "base/cli/tool.h"
#include "model/rewrite/check.h"
#include "runtime/comm/secret.h"
#include "runtime/engine/bench-pass.h"
#include "runtime/engine/bench.h"
#include "runtime/engine/run-agree.h"
#include "runtime/engine/run-chat.h"
#include "runtime/engine/run-generate.h"
#include "runtime/engine/run-processes.h"
#include "runtime/engine/run-report.h"
#include "runtime/plan/plan-inputs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Tokens; files that a rank has open besides a connection to each other one: at least, and with some room. */
enum { RANK_BATCH = 256, FILES_LEAST = 48, FILES_MORE = 512 };
/* Seconds for which a rank waits for the others: PATIENCE; HASTE when it could not open the model and only
 * tells them so; HURRY when they are likely to have failed in the same way. */
enum { PATIENCE = 120, HASTE = 20, HURRY = 4 };

/* ---- score ---- */

struct job {
    const struct moe_run_options *o;
    const struct moe_engine_options *eo;
    cJSON *json;
    struct moe_prompts prompts;
    int32_t *ids; size_t n_ids;       /* of --score */
    bool turns;
    int64_t window;
    const struct moe_plan *plan, *next; /* of several ranks */
    struct moe_secret *secret;
};

/* The tokens of --score, if there is one. */
static enum moe_code read_ids(const struct moe_run_options *o, const struct moe_engine *e, int32_t **ids,
                              size_t *n, struct moe_err *err)
{
    char *text;
    size_t bytes;
    if (!o->score) return MOE_OK;
    MOE_TRY(moe_prompt_file(&o->prompt, o->score, &text, &bytes, err));
    if (!bytes) {
        free(text);
        return moe_fail_at(err, MOE_CORRUPT, moe_stream_name(o->score), NULL, "holds no text");
    }
    enum moe_code code = moe_tokenize(e->tokenizer, text, bytes, o->prompt.special, ids, n, err);
    free(text);
    if (code == MOE_NOMEM) moe_wrap(err, "'%s'", moe_stream_name(o->score));
    return code == MOE_OK && o->prompt.bos ? moe_prompt_bos(e, ids, n, err) : code;
}

static int64_t window_of(const struct moe_run_options *o, const struct moe_engine *e)
{
    return o->window != MOE_UNSET ? o->window : e->context < 2048 ? e->context : 2048;
}

/* This rank's windows. */
static enum moe_code score(const struct job *j, struct moe_rank *r, struct moe_err *err)
{
    const struct moe_run_options *o = j->o;
    struct moe_engine *ref = NULL;
    struct moe_score_sums s = { 0 };
    struct moe_engine_options bare = *j->eo;
    bare.tokenizer = false; /* the text becomes ids by the model's own */
    bare.activations = MOE_ACTIVATIONS_FLOAT; /* a reference is what the model is held against */
    bare.sharers = (bare.sharers ? bare.sharers : 1) * r->ranks;
    enum moe_code code = o->reference ? moe_engine_open(&ref, o->reference, &bare, r->pool, err) : MOE_OK;
    struct moe_score_text t = { .ids = j->ids, .n = (int64_t)j->n_ids, .window = window_of(o, r->engine),
                                .memory = (uint64_t)(o->memory / r->ranks), .scratch = o->scratch };
    if (code == MOE_OK)
        code = moe_score_part(r->engine, ref, &t, r->rank, r->ranks, r->pool,
                              r->rank ? NULL : o->run.progress, &s, err);
    if (code == MOE_OK) code = moe_results_score(r->results, r->ep, r->rank, &s, err);
    free(s.all);
    moe_engine_close(&ref);
    return code;
}

static enum moe_code bench(const struct moe_run_options *o, struct moe_engine *e,
                           const struct moe_engine_options *eo, cJSON *json, struct moe_err *err)
{
    cJSON *list = moe_json_add(json, "bench", moe_bench_model(e, o->run.pool));
    if (!list) return moe_fail(err, MOE_NOMEM, "no memory for a benchmark");
    MOE_TRY(moe_bench_pass(list, o->run.argv[0], eo, o->run.pool, err));
    if (!moe_json_whole(list)) return moe_fail(err, MOE_NOMEM, "no memory for a benchmark");
    if (!o->run.json) moe_run_print_bench(stdout, list);
    return MOE_OK;
}

/* ---- ranks ---- */

static enum moe_code told(void *ctx, const struct moe_sequence *s, struct moe_err *err)
{
    struct moe_rank *r = ctx;
    return moe_results_sequence(r->results, r->ep, r->rank, s, err);
}

/* Sequence i is of rank i mod ranks. */
static enum moe_code own_prompts(const struct job *j, struct moe_rank *r, struct moe_err *err)
{
    struct moe_generate set = moe_run_settings(j->o);
    int64_t n = 0;
    struct moe_sequence *own = calloc((size_t)(j->prompts.n / r->ranks + 1), sizeof *own);
    if (!own) return moe_fail(err, MOE_NOMEM, "no memory for the prompts");
    for (int64_t i = r->rank; i < j->prompts.n; i += r->ranks) own[n++] = j->prompts.v[i];
    uint64_t *spare = &r->engine->spare, held = j->prompts.bytes / (uint64_t)r->ranks;
    *spare -= held < *spare ? held : *spare; /* what caches of several sequences may take */
    enum moe_code code = moe_sequences_run(r->engine, own, n, &set, told, r, err);
    for (int64_t i = 0; i < n; i++) {
        free(own[i].out.tokens);
        free(own[i].out.text);
    }
    free(own);
    return code;
}

static enum moe_code own_work(struct job *j, struct moe_rank *r, struct moe_err *err)
{
    const struct moe_run_options *o = j->o;
    if (o->prompts) return own_prompts(j, r, err);
    if (o->score) {
        if (!r->rank || o->rendezvous) j->window = window_of(o, r->engine); /* threads share it */
        return score(j, r, err);
    }
    if (r->rank) return MOE_OK; /* one sequence: rank 0 has it */
    if (o->bench) return bench(o, r->engine, j->eo, j->json, err);
    return j->turns ? moe_run_chat(o, r, err)
                    : moe_run_generate(o, r->engine, moe_now() - o->run.start, j->json, err);
}

static enum moe_code work(void *ctx, struct moe_rank *r, struct moe_err *err)
{
    struct job *j = ctx;
    struct moe_recorder *m = NULL;
    int give = moe_handover_end(j->o->rendezvous);
    if (give >= 0) MOE_TRY(moe_handover_there(give, err));
    if (j->o->rendezvous && !r->rank) moe_notice(&j->o->run, "all %d ranks are there", r->ranks);
    if (j->o->record) MOE_TRY(moe_recorder_open(&m, &r->engine->model->config, r->engine->forward, err));
    enum moe_code code = own_work(j, r, err);
    if (code == MOE_OK && m) code = moe_results_routing(r->results, r->ep, r->rank, m, err);
    moe_forward_hooks(r->engine->forward, NULL);
    moe_recorder_close(&m);
    return moe_source_blame(r->engine->source, code, err);
}

static enum moe_code report_all(struct job *j, const struct moe_config *c, struct moe_results *r,
                                const bool *dead, struct moe_err *err)
{
    const struct moe_run_options *o = j->o;
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
    if (o->prompts) moe_run_report_prompts(o, &j->prompts, r, j->json);
    if (o->score) moe_run_report_score(o, &r->sums, j->window, stdout, j->json);
    if (r->ranks > 1) moe_ranks_json(r, dead, j->json);
    if (!o->record || !r->routing) return MOE_OK;
    MOE_TRY(moe_output_ours(o->record, &moe_routing_kind, err));
    return moe_recorder_write(c, r->routing, o->record, err);
}

/* ---- one rank, or several ---- */

static enum moe_code read_prompts(struct job *j, const struct moe_engine *e, struct moe_err *err)
{
    if (!j->o->prompts) return MOE_OK;
    MOE_TRY(moe_prompts_read(&j->prompts, j->o->prompts, &j->o->prompt, e, err));
    moe_chat_tell_left(&j->o->run, "--prompts", &j->prompts.left);
    return MOE_OK;
}

static enum moe_code alone(struct job *j, struct moe_err *err)
{
    const struct moe_run_options *o = j->o;
    struct moe_rank r = { .rank = 0, .ranks = 1, .pool = o->run.pool };
    struct moe_results_shape shape = { .reference = o->reference != NULL };
    bool dead = false;
    enum moe_code code = moe_engine_open(&r.engine, o->run.argv[0], j->eo, o->run.pool, err);
    if (code == MOE_OK) moe_tell_superseded(&o->run, r.engine->source);
    if (code == MOE_OK && moe_activations_nvfp4(j->eo->activations))
        moe_run_warn_activations(o, r.engine->source);
    if (code == MOE_OK) code = read_prompts(j, r.engine, err);
    if (code == MOE_OK) code = read_ids(o, r.engine, &j->ids, &j->n_ids, err);
    if (code == MOE_OK) {
        shape.n_sequences = j->prompts.n;
        shape.vocab = r.engine->vocab;
        shape.routing_bytes = o->record ? moe_recorder_bytes(&r.engine->source->config) : 0;
        code = moe_results_open(&r.results, 1, &shape, err);
    }
    if (code == MOE_OK) code = work(j, &r, err);
    if (code == MOE_OK) code = report_all(j, &r.engine->model->config, r.results, &dead, err);
    moe_results_close(&r.results);
    moe_engine_close(&r.engine);
    return code;
}

/* What all ranks need to know before there are any. */
struct common { struct moe_engine *lender; struct moe_plan *plan, *next; struct moe_ranks m; bool *dead; };

static enum moe_code open_next(const struct moe_run_options *o, struct common *s, struct moe_err *err)
{
    const struct moe_config *c = &s->lender->source->config;
    MOE_TRY(moe_plan_read(&s->next, o->replan, s->plan->ranks, o->run.cancel, err));
    MOE_TRY(moe_plan_fits(s->next, c, s->plan->ranks, o->replan, err));
    MOE_TRY(moe_plan_check_model(s->next, s->lender->source, o->replan, o->run.cancel, err));
    s->m.next = s->next;
    s->m.next_after = (uint64_t)o->replan_after;
    return MOE_OK;
}

static void set_out(struct job *j, struct common *s)
{
    const struct moe_run_options *o = j->o;
    s->m = (struct moe_ranks){ .path = o->run.argv[0],
                               .engine = *j->eo,
                               .threads = moe_pool_threads(o->run.pool),
                               .timeout = o->rank_timeout,
                               .ranks = o->ranks == MOE_UNSET ? 0 : (int)o->ranks,
                               .equal = !strcmp(o->split, "equal"),
                               .work = work,
                               .ctx = j };
    s->m.engine.batch = RANK_BATCH;
    moe_run_options_die(&s->m.die_rank, &s->m.die_step);
}

static enum moe_code prepare(struct job *j, struct common *s, struct moe_err *err)
{
    const struct moe_run_options *o = j->o;
    MOE_TRY(moe_engine_open_lender(&s->lender, o->run.argv[0], j->eo, err));
    moe_tell_superseded(&o->run, s->lender->source);
    MOE_TRY(moe_run_options_plan(o, &s->lender->source->config, &s->plan, err));
    if (o->plan) MOE_TRY(moe_plan_check_model(s->plan, s->lender->source, o->plan, o->run.cancel, err));
    s->m.plan = s->plan;
    s->m.ranks = s->plan->ranks;
    if (o->replan) MOE_TRY(open_next(o, s, err));
    if (moe_activations_nvfp4(j->eo->activations)) moe_run_warn_activations(o, s->lender->source);
    MOE_TRY(read_prompts(j, s->lender, err));
    MOE_TRY(read_ids(o, s->lender, &j->ids, &j->n_ids, err));
    s->m.results.n_sequences = j->prompts.n;
    s->m.results.reference = o->reference != NULL;
    s->m.results.routing_bytes = o->record ? moe_recorder_bytes(&s->lender->source->config) : 0;
    j->plan = s->plan;
    j->next = s->next;
    return MOE_OK;
}

/* How many there are, of a run that has failed: the others have to be told. */
static void count_ranks(const struct moe_run_options *o, struct common *s)
{
    struct moe_err ignored;
    if (!s->m.ranks && !s->plan && o->plan) moe_plan_read(&s->plan, o->plan, 0, o->run.cancel, &ignored);
    if (!s->m.ranks && s->plan && s->plan->ranks <= MOE_COMM_RANKS_MAX) s->m.ranks = s->plan->ranks;
}

/* Seconds for which this process waits for the other ranks.  One that has failed already waits only to tell
 * them why: a short time when all ranks are likely to fail in the same way (a plan for another number of
 * ranks). */
static double patience(const struct common *s, enum moe_code so_far)
{
    bool other = (s->plan && s->plan->ranks != s->m.ranks) || (s->next && s->next->ranks != s->m.ranks);
    if (so_far == MOE_MISMATCH && other) return HURRY;
    return so_far && !s->lender ? HASTE : PATIENCE;
}

/* All that ranks [first, last] will ever map is there. */
static enum moe_code check_staged(const struct common *s, int first, int last, struct moe_err *err)
{
    MOE_TRY(moe_plan_check_staged(s->plan, first, last, s->lender->source, err));
    return s->next ? moe_plan_check_staged(s->next, first, last, s->lender->source, err) : MOE_OK;
}

static enum moe_code threads(struct job *j, struct common *s, struct moe_err *err)
{
    struct moe_results *r = NULL;
    int reporter;
    enum moe_code code = moe_ranks_local(&s->m, s->lender, &r, &reporter, s->dead, err);
    if (code == MOE_OK) code = report_all(j, &s->lender->source->config, r, s->dead, err);
    moe_results_close(&r);
    return code;
}

/* One process of several. */
struct seat { struct moe_run_options *o; struct job *j; bool quiet; };

/* What was kept in memory, to whoever reads it. */
static enum moe_code hand_over(const struct moe_run_options *o, struct moe_rank *r, int text,
                               struct moe_err *err)
{
    int give = moe_handover_end(o->rendezvous), before = moe_ep_began(r->ep);
    off_t size = lseek(text, 0, SEEK_END);
    uint64_t bytes = size > 0 ? (uint64_t)size : 0;
    if (give >= 0) {
        moe_run_options_die_at(r->rank, "printing");
        return moe_handover_give(give, text, o->run.exit, err);
    }
    if (before >= 0) {
        moe_warn(&o->run, "rank %d was lost while it printed: all is printed again", before);
        moe_run_print(NULL, "\n", 1);
    }
    MOE_TRY(moe_ep_begin(r->ep, err));
    MOE_TRY(moe_handover_print(text, 0, bytes / 2, STDOUT_FILENO, r->ep, err));
    moe_run_options_die_at(r->rank, "printing");
    return moe_handover_print(text, bytes / 2, bytes, STDOUT_FILENO, r->ep, err);
}

static enum moe_code speak(void *ctx, struct moe_rank *r, const bool *dead, struct moe_err *err)
{
    struct seat *t = ctx;
    struct moe_run_options *o = t->o;
    struct moe_capture c;
    moe_run_options_die_at(r->rank, "report");
    moe_run_options_die_at(r->rank, "hang");
    o->run.quiet = t->quiet;
    MOE_TRY(moe_capture_begin(&c, err));
    enum moe_code code = report_all(t->j, &r->engine->model->config, r->results, dead, &o->run.err);
    o->run.exit = moe_run_end(&o->run, code, t->j->json);
    o->ended = true;
    moe_capture_end(&c);
    code = hand_over(o, r, c.text, err);
    close(c.text);
    moe_run_options_die_at(r->rank, "reported");
    if (code == MOE_OK) return MOE_OK;
    fprintf(stderr, "moe-run: %s\n", err->msg);
    o->run.exit = (int)code;
    return code;
}

static enum moe_code agree(void *ctx, const struct moe_engine *e, struct moe_agreement *a,
                           struct moe_err *err)
{
    const struct seat *t = ctx;
    const struct job *j = t->j;
    const struct moe_run_content c = { .engine = e,
                                       .plan = j->plan,
                                       .next = j->next,
                                       .prompts = &j->prompts,
                                       .ids = j->ids,
                                       .n_ids = j->n_ids,
                                       .window = t->o->score ? window_of(t->o, e) : 0 };
    return moe_run_agree(t->o, &c, a, err);
}

/* Who is waited for: also a rank that says nothing else tells it. */
static void tell_wait(void *ctx, const char *line)
{
    const struct seat *t = ctx;
    struct moe_run r = t->o->run;
    r.quiet = t->quiet;
    moe_notice(&r, "%s", line);
}

static enum moe_code process(struct moe_run_options *o, struct job *j, struct common *s, enum moe_code so_far,
                             struct moe_err *err)
{
    struct seat t = { o, j, o->run.quiet };
    struct moe_ranks_place p = { .rank = o->rank == MOE_UNSET ? -1 : (int)o->rank,
                                 .rendezvous = o->rendezvous,
                                 .patience = patience(s, so_far),
                                 .secret = j->secret,
                                 .agree = agree,
                                 .report = speak,
                                 .ctx = &t };
    int reporter;
    p.apart = moe_handover_end(o->rendezvous) < 0;
    p.tell = p.apart || !p.rank ? tell_wait : NULL;
    if (p.rank < 0 || p.rank >= s->m.ranks)
        return so_far ? so_far
                      : moe_fail(err, MOE_USAGE,
                                 "rank %d of %d (give --rank 0 to %d, or start it by mpirun or srun)", p.rank,
                                 s->m.ranks, s->m.ranks - 1);
    moe_run_options_die_at(p.rank, "start");
    if (!so_far) check_staged(s, p.rank, p.rank, err); /* the others are told of it */
    if (p.rank) {
        o->run.quiet = true;
        moe_progress_close(&o->run.progress);
    }
    enum moe_code code = moe_ranks_process(&s->m, &p, s->lender, &reporter, s->dead, err);
    /* all may write to one file, which rank 0's object is in */
    if (reporter < 0 && p.rank) o->run.json = false;
    /* one has reported; or says the same */
    o->silent = code == MOE_OK || (reporter >= 0 && reporter != p.rank);
    /* whatever else goes wrong then, others have ended; who started the ranks got the
     * signal, too, and says so */
    struct moe_err ignored;
    o->silent |= moe_handover_end(o->rendezvous) >= 0 && moe_interrupted(&ignored) >= MOE_SIGINT;
    o->run.quiet = o->silent || t.quiet;
    return code;
}

static enum moe_code several(struct moe_run_options *o, struct job *j, char **argv, enum moe_code so_far,
                             struct moe_err *err)
{
    struct common s = { 0 };
    set_out(j, &s);
    enum moe_code code = so_far == MOE_OK ? prepare(j, &s, err) : so_far;
    uint64_t n = (uint64_t)s.m.ranks;
    if (code == MOE_OK && strcmp(o->comm, "local"))
        code = moe_want_files(n + FILES_LEAST, 2 * n + FILES_MORE, err);
    if (code != MOE_OK && o->rendezvous) count_ranks(o, &s);
    /* the others must know of a failure */
    bool told = o->rendezvous && s.m.ranks > 0;
    if (code == MOE_OK || told) s.dead = calloc((size_t)s.m.ranks, sizeof *s.dead);
    if ((code == MOE_OK || told) && !s.dead)
        code = moe_fail(err, MOE_NOMEM, "no memory for %d ranks", s.m.ranks);
    else if (told) code = process(o, j, &s, code, err);
    else if (code == MOE_OK && (code = check_staged(&s, 0, s.m.ranks - 1, err)) == MOE_OK)
        code = strcmp(o->comm, "local") ? moe_run_processes(o, s.m.ranks, s.m.threads, argv, err)
                                        : threads(j, &s, err);
    free(s.dead);
    moe_plan_free(&s.plan);
    moe_plan_free(&s.next);
    moe_engine_close(&s.lender);
    return code;
}

/* so_far, *err: what has failed already, which is told to the ranks that wait for this process, if any do. */
static enum moe_code run(struct moe_run_options *o, cJSON *json, char **argv, enum moe_code so_far,
                         struct moe_err *err)
{
    struct moe_engine_options eo = { 0 };
    struct job j = { .o = o, .eo = &eo, .json = json };
    struct moe_err later = MOE_ERR_INIT;
    enum moe_code code = moe_run_options_meet(o, so_far ? &later : err);
    if (code != MOE_OK) return so_far ? so_far : code;
    code = so_far ? so_far : moe_run_options_check(o, &eo, err);
    o->prompt.memory = (uint64_t)o->memory;
    j.turns = o->prompt.chat && !o->prompt.text && !o->prompt.file && !o->prompts && !o->run.json &&
              isatty(STDIN_FILENO);
    /* also after a failure: without their secret the others do not believe it */
    enum moe_code read = o->secret ? moe_secret_read(&j.secret, o->secret, code ? &later : err) : MOE_OK;
    if (code == MOE_OK) code = read;
    if (code != MOE_OK && !o->rendezvous) { /* nobody waits for this process */
        moe_secret_free(&j.secret);
        return code;
    }
    bool one = !o->rendezvous && !o->plan && !o->replan &&
               (o->ranks == 1 || (o->ranks == MOE_UNSET && !strcmp(o->comm, "local")));
    code = one || (o->ranks == 1 && !o->rendezvous) ? alone(&j, err) : several(o, &j, argv, code, err);
    moe_prompts_release(&j.prompts);
    moe_secret_free(&j.secret);
    free(j.ids);
    return code;
}

static int tool_main(int argc, char **argv)
{
    struct moe_run_options *o = &moe_run_asked;
    char **words = calloc((size_t)argc + 1, sizeof *words); /* as given: parsing moves them */
    if (words) memcpy(words, argv, (size_t)argc * sizeof *words);
    if (moe_run_begin(&o->run, &moe_run_tool, argc, argv)) {
        /* the user knows already */
        if (words && o->run.err.code != MOE_OK) run(o, NULL, words, o->run.err.code, &o->run.err);
        free(words);
        return o->run.exit;
    }
    cJSON *json = cJSON_CreateObject();
    enum moe_code code = json && words ? run(o, json, words, MOE_OK, &o->run.err)
                                       : moe_fail(&o->run.err, MOE_NOMEM, "no memory");
    free(words);
    if (!o->silent && !o->ended) return moe_run_end(&o->run, code, json);
    if (o->ended) return o->run.exit;
    o->run.json = false;
    int flushed = moe_run_end(&o->run, MOE_OK, json);
    return code == MOE_OK ? flushed : (int)code;
}

int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
