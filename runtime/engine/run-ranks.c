/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/run-ranks.h"

#include "base/io.h"
#include "model/rewrite/check.h"
#include "runtime/comm/comm.h"
#include "runtime/engine/handover.h"
#include "runtime/engine/run-agree.h"
#include "runtime/engine/run-processes.h"
#include "runtime/engine/run-report.h"
#include "runtime/engine/share.h"
#include "runtime/plan/plan-inputs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    RANK_BATCH = 256, /* the largest number of tokens in a batch of a rank */
    /* open files that a rank needs besides one connection to each other rank: at the least, and with room to
     * spare */
    FILES_MIN = 48,
    FILES_ROOM = 512,
    /* Seconds for which a rank waits for the others: PATIENCE.  HASTE when it could not open the model and
     * only waits to tell them so; HURRY when they are likely to have failed in the same way. */
    PATIENCE = 120,
    HASTE = 20,
    HURRY = 4
};

/* What is prepared before the ranks start. */
struct multi_rank_run {
    struct moe_run_job *job;
    const struct moe_secret *secret;
    bool quiet;                       /* --quiet was given; run.quiet is also true for a silent rank */
    struct moe_engine *lender;        /* source and tokenizer for all; NULL: the model could not be opened */
    struct moe_plan *plan, *next;     /* next: of --replan, else NULL */
    struct moe_ranks m;
    bool *dead;                       /* [m.ranks] the ranks that were lost */
};

/* ---- before there are ranks ---- */

/* Reads and checks the plan of --replan. */
static enum moe_code open_next(struct multi_rank_run *s, struct moe_err *err)
{
    const struct moe_run_args *o = s->job->o;
    const struct moe_config *c = &s->lender->source->config;
    MOE_TRY(moe_plan_read(&s->next, o->replan, s->plan->ranks, o->run.cancel, err));
    MOE_TRY(moe_plan_bind(s->next, c, s->plan->ranks, o->replan, err));
    MOE_TRY(moe_plan_check_model(s->next, s->lender->source, o->replan, o->run.cancel, err));
    s->m.next = s->next;
    s->m.next_after = (uint64_t)o->replan_after;
    return MOE_OK;
}

static struct moe_ranks ranks_of(struct moe_run_job *j)
{
    const struct moe_run_args *o = j->o;
    struct moe_ranks m = { .path = o->run.argv[0],
                           .engine = j->engine,
                           .threads = moe_pool_threads(o->run.pool),
                           .timeout = o->rank_timeout,
                           .ranks = o->ranks == MOE_UNSET ? 0 : (int)o->ranks,
                           .equal = !strcmp(o->split, "equal"),
                           .work = moe_run_share,
                           .ctx = j };
    if (!m.engine.batch || m.engine.batch > RANK_BATCH) m.engine.batch = RANK_BATCH;
    moe_run_args_die(&m.die_rank, &m.die_step);
    return m;
}

/* Opens the model, reads the plans and the inputs of the work. */
static enum moe_code prepare(struct multi_rank_run *s, struct moe_err *err)
{
    struct moe_run_job *j = s->job;
    const struct moe_run_args *o = j->o;
    MOE_TRY(moe_engine_open_lender(&s->lender, o->run.argv[0], &j->engine, err));
    moe_tell_superseded(&o->run.notes, s->lender->source);
    MOE_TRY(moe_run_args_plan(o, &s->lender->source->config, &s->plan, err));
    if (o->plan) MOE_TRY(moe_plan_check_model(s->plan, s->lender->source, o->plan, o->run.cancel, err));
    s->m.plan = s->plan;
    s->m.ranks = s->plan->ranks;
    if (o->replan) MOE_TRY(open_next(s, err));
    if (moe_activations_nvfp4(j->engine.activations)) moe_run_warn_activations(o, s->lender->source);
    j->ranks = s->m.ranks;
    MOE_TRY(moe_run_read(j, s->lender, err));
    MOE_TRY(moe_share_prompts(j->prompts.v, j->prompts.n, s->m.ranks,
                              s->lender->source->config.max_position_embeddings, err));
    s->m.results = moe_run_shape(j, s->lender->source);
    return MOE_OK;
}

/* Called after a failure: finds the number of ranks, if possible, so that this process can meet the others
 * and tell them. */
static void count_ranks(struct multi_rank_run *s)
{
    const struct moe_run_args *o = s->job->o;
    struct moe_err ignored;
    if (!s->m.ranks && !s->plan && o->plan) moe_plan_read(&s->plan, o->plan, 0, o->run.cancel, &ignored);
    if (!s->m.ranks && s->plan && s->plan->ranks <= MOE_COMM_RANKS_MAX) s->m.ranks = s->plan->ranks;
}

/* Seconds for which this process waits for the other ranks.  After a failure it only waits to tell them of
 * it, for a shorter time: the shortest when all ranks are likely to fail in the same way, as with a plan for
 * another number of ranks. */
static double patience(const struct multi_rank_run *s, enum moe_code so_far)
{
    bool other = (s->plan && s->plan->ranks != s->m.ranks) || (s->next && s->next->ranks != s->m.ranks);
    if (so_far == MOE_MISMATCH && other) return HURRY;
    return so_far && !s->lender ? HASTE : PATIENCE;
}

/* Checks that a staged part of a model has all experts that ranks [first, last] will ever map. */
static enum moe_code check_staged(const struct multi_rank_run *s, int first, int last, struct moe_err *err)
{
    MOE_TRY(moe_plan_check_staged(s->plan, first, last, s->lender->source, err));
    return s->next ? moe_plan_check_staged(s->next, first, last, s->lender->source, err) : MOE_OK;
}

/* ---- the report for all ranks, when this rank makes it ---- */

/* Hands the captured report to the process that started the ranks, or prints it. */
static enum moe_code hand_over(const struct moe_run_args *o, struct moe_rank *r, int text,
                               struct moe_err *err)
{
    int give = moe_handover_end(o->rendezvous);
    int before = moe_ep_report_begun_by(r->ep);
    off_t size = lseek(text, 0, SEEK_END);
    uint64_t bytes = size > 0 ? (uint64_t)size : 0;
    if (give >= 0) {
        moe_run_args_die_at(r->rank, "printing");
        return moe_handover_give(give, text, o->run.exit, err);
    }
    if (before >= 0) {
        moe_warn(&o->run, "rank %d was lost while it printed: all is printed again", before);
        moe_run_print(NULL, "\n", 1);
    }
    MOE_TRY(moe_ep_begin_report(r->ep, err));
    MOE_TRY(moe_handover_print(text, 0, bytes / 2, STDOUT_FILENO, r->ep, err));
    moe_run_args_die_at(r->rank, "printing");
    return moe_handover_print(text, bytes / 2, bytes, STDOUT_FILENO, r->ep, err);
}

/* Makes the report in memory, then hands it over (struct moe_ranks_place.report). */
static enum moe_code report(void *ctx, struct moe_rank *r, const bool *dead, struct moe_err *err)
{
    struct multi_rank_run *s = ctx;
    struct moe_run_args *o = s->job->o;
    struct moe_capture c;
    moe_run_args_die_at(r->rank, "report");
    moe_run_args_die_at(r->rank, "hang");
    o->run.quiet = s->quiet;
    MOE_TRY(moe_capture_begin(&c, err));
    enum moe_code code = moe_run_report(s->job, &r->engine->model->config, r->results, dead, &o->run.err);
    o->run.exit = moe_tool_run_end(&o->run, code, s->job->json);
    o->ended = true;
    moe_capture_end(&c);
    code = hand_over(o, r, c.text, err);
    close(c.text);
    moe_run_args_die_at(r->rank, "reported");
    if (code == MOE_OK) return MOE_OK;
    fprintf(stderr, "moe-run: %s\n", err->msg);
    o->run.exit = (int)code;
    return code;
}

/* ---- meeting the others ---- */

static enum moe_code agree(void *ctx, const struct moe_engine *e, struct moe_agreement *a,
                           struct moe_err *err)
{
    const struct multi_rank_run *s = ctx;
    const struct moe_run_job *j = s->job;
    const struct moe_run_content c = { .engine = e,
                                       .plan = s->plan,
                                       .next = s->next,
                                       .prompts = &j->prompts,
                                       .ids = j->ids,
                                       .n_ids = j->n_ids,
                                       .window = j->o->score ? moe_run_window(j->o, e) : 0 };
    return moe_run_agree(j->o, &c, a, err);
}

/* Prints for whom this rank waits, also where the rank prints nothing else (struct moe_ranks_place.tell). */
static void tell_wait(void *ctx, const char *line)
{
    const struct multi_rank_run *s = ctx;
    struct moe_tool_run r = s->job->o->run;
    r.quiet = s->quiet;
    moe_notice(&r, "%s", line);
}

/* Decides whether this rank prints the error of the run, given the `reporter` of moe_ranks_process. */
static void settle_reporter(const struct multi_rank_run *s, const struct moe_ranks_place *p, int reporter,
                            enum moe_code code)
{
    struct moe_run_args *o = s->job->o;
    /* the standard output of all ranks may be one file, and rank 0 writes its JSON object there */
    if (reporter < 0 && p->rank) o->run.json = false;
    /* silent when a rank has reported, or when another rank prints the error */
    o->silent = code == MOE_OK || (reporter >= 0 && reporter != p->rank);
    /* After a signal other errors only come from ranks that have ended.  The process that started the ranks
     * has had the signal, too, and prints that. */
    o->silent |= !p->launched && moe_is_cancelled(o->run.cancel);
    o->run.quiet = o->silent || s->quiet;
}

/* This process is one of the ranks. */
static enum moe_code one_of_them(struct multi_rank_run *s, enum moe_code so_far, struct moe_err *err)
{
    struct moe_run_args *o = s->job->o;
    struct moe_ranks_place p = { .rank = o->rank == MOE_UNSET ? -1 : (int)o->rank,
                                 .rendezvous = o->rendezvous,
                                 .patience = patience(s, so_far),
                                 .secret = s->secret,
                                 .launched = moe_handover_end(o->rendezvous) < 0,
                                 .agree = agree,
                                 .report = report,
                                 .ctx = s };
    int reporter;
    p.tell = p.launched || !p.rank ? tell_wait : NULL;
    if (p.rank < 0 || p.rank >= s->m.ranks)
        return so_far ? so_far
                      : moe_fail(err, MOE_USAGE,
                                 "rank %d of %d (give --rank 0 to %d, or start it by mpirun or srun)", p.rank,
                                 s->m.ranks, s->m.ranks - 1);
    moe_run_args_die_at(p.rank, "start");
    if (!so_far) check_staged(s, p.rank, p.rank, err); /* moe_ranks_process tells the others of *err */
    if (p.rank) {
        o->run.quiet = true;
        moe_bar_close(&o->run.bar);
        o->run.progress = NULL;
    }
    enum moe_code code = moe_ranks_process(&s->m, &p, s->lender, &reporter, s->dead, err);
    settle_reporter(s, &p, reporter, code);
    return code;
}

/* ---- ranks of this host, which this process starts ---- */

static enum moe_code threads(struct multi_rank_run *s, struct moe_err *err)
{
    struct moe_results *r = NULL;
    int reporter;
    enum moe_code code = moe_ranks_local(&s->m, s->lender, &r, &reporter, s->dead, err);
    if (code == MOE_OK) code = moe_run_report(s->job, &s->lender->source->config, r, s->dead, err);
    moe_results_close(&r);
    return code;
}

static enum moe_code start(struct multi_rank_run *s, char **argv, struct moe_err *err)
{
    struct moe_run_args *o = s->job->o;
    MOE_TRY(check_staged(s, 0, s->m.ranks - 1, err));
    return strcmp(o->comm, "local") ? moe_run_processes(o, s->m.ranks, s->m.threads, argv, err)
                                    : threads(s, err);
}

/* ---- all of it ---- */

enum moe_code moe_run_ranks(struct moe_run_job *j, const struct moe_secret *secret, char **argv,
                            enum moe_code so_far, struct moe_err *err)
{
    const struct moe_run_args *o = j->o;
    struct multi_rank_run s = { .job = j, .secret = secret, .quiet = o->run.quiet, .m = ranks_of(j) };
    enum moe_code code = so_far == MOE_OK ? prepare(&s, err) : so_far;
    uint64_t n = (uint64_t)s.m.ranks;
    if (code == MOE_OK && strcmp(o->comm, "local"))
        code = moe_want_files(n + FILES_MIN, 2 * n + FILES_ROOM, err);
    if (code != MOE_OK && o->rendezvous) count_ranks(&s);

    /* also after a failure this process meets the other ranks, to tell them */
    bool told = o->rendezvous && s.m.ranks > 0;
    if (code == MOE_OK || told) s.dead = calloc((size_t)s.m.ranks, sizeof *s.dead);
    if ((code == MOE_OK || told) && !s.dead)
        code = moe_fail(err, MOE_NOMEM, "no memory for %d ranks", s.m.ranks);
    else if (told) code = one_of_them(&s, code, err);
    else if (code == MOE_OK) code = start(&s, argv, err);
    free(s.dead);
    moe_plan_free(&s.plan);
    moe_plan_free(&s.next);
    moe_engine_close(&s.lender);
    return code;
}
