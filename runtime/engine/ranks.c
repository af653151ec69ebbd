/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/ranks.h"

#include "base/thread.h"
#include "runtime/comm/comm-ucx.h"
#include "runtime/comm/rendezvous.h"
#include "runtime/comm/socket.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The state of a rank that runs in this process. */
struct local_rank {
    const struct moe_ranks *o;
    struct moe_rank r;
    struct moe_comm *comm;
    bool gone;                        /* died by moe_ep_options.die, or was marked dead by the others */
    bool untold;                      /* meeting the others failed, and rank 0 does not know why */
    bool refused;                     /* it failed, rank 0 knows why, and this rank has to print it, too */
    enum moe_code code;
    struct moe_err err;
};

/* Opens pool, engine and results of a rank.  here: the number of ranks in this process. */
static enum moe_code open_engine(struct local_rank *t, const struct moe_engine *lender, int here)
{
    struct moe_engine_options e = t->o->engine;
    struct moe_results_shape shape = t->o->results;
    int threads = t->o->threads / here;
    e.dense_only = true;
    e.sharers = (e.sharers ? e.sharers : 1) * here;
    e.lender = lender;
    if (threads > 1) MOE_TRY(moe_pool_open(&t->r.pool, threads, &t->err));
    MOE_TRY(moe_engine_open(&t->r.engine, t->o->path, &e, t->r.pool, &t->err));
    shape.vocab = t->r.engine->vocab;
    return moe_results_open(&t->r.results, t->o->ranks, &shape, &t->err);
}

static enum moe_code open_ep(struct local_rank *t)
{
    const struct moe_ranks *o = t->o;
    struct moe_engine *e = t->r.engine;
    struct moe_ep_options x = { .comm = t->comm,
                                .forward = e->forward,
                                .model = e->model,
                                .resident = e->resident,
                                .plan = o->plan,
                                .max_tokens = e->batch,
                                .next = o->next,
                                .next_after = o->next_after,
                                .equal = o->equal,
                                .die = o->die_rank == t->r.rank ? o->die_step : 0,
                                .received = moe_results_received,
                                .ctx = t->r.results };
    return moe_ep_open(&t->r.ep, &x, &t->err);
}

static void tell_failure(const struct local_rank *t)
{
    struct moe_err named = t->err, ignored;
    if (t->r.ep) moe_ep_fail(t->r.ep, &t->err);
    else moe_wrap(&named, "rank %d", t->r.rank), moe_ep_broadcast_failure(t->comm, &named, &ignored);
}

/* Does the rank's work, then serves the others until all are done; tells them of a failure. */
static void run_local_rank(struct local_rank *t)
{
    if (t->code == MOE_OK) t->code = open_ep(t);
    if (t->code == MOE_OK) t->code = t->o->work(t->o->ctx, &t->r, &t->err);
    if (t->code == MOE_OK) t->code = moe_results_add_stats(t->r.results, t->r.ep, t->r.rank, &t->err);
    if (t->code == MOE_OK) t->code = moe_ep_finish(t->r.ep, &t->err);
    t->gone = (t->r.ep && moe_ep_stats(t->r.ep).died) || t->comm->dead[t->r.rank];
    if (t->code != MOE_OK && !t->gone) tell_failure(t);
    if (t->r.ep) t->r.results->stats[t->r.rank] = moe_ep_stats(t->r.ep);
}

static void close_local_rank(struct local_rank *t)
{
    moe_ep_close(&t->r.ep);
    moe_engine_close(&t->r.engine);
    moe_results_close(&t->r.results);
    moe_comm_close(&t->comm);
    moe_pool_close(&t->r.pool);
}

/* ---- ranks as threads ---- */

struct thread {
    struct local_rank local;
    const struct moe_engine *lender;
    struct moe_hub *hub;
    pthread_t id;
};

static void *run_rank(void *arg)
{
    struct thread *h = arg;
    struct local_rank *t = &h->local;
    t->code = moe_comm_local(&t->comm, h->hub, t->r.rank, &t->err);
    if (t->code != MOE_OK) return NULL;
    t->comm->cancel = t->o->engine.cancel;
    t->code = open_engine(t, h->lender, t->o->ranks);
    run_local_rank(t);
    return NULL;
}

/* Takes code, error and results of the run from the lowest living rank; from rank 0 when none lives. */
static enum moe_code gather(struct thread *h, int ranks, struct moe_results **results, int *reporter,
                            bool *dead, struct moe_err *err)
{
    int who = 0;
    while (who < ranks && h[who].local.gone) who++;
    if (who == ranks) who = 0;
    struct local_rank *t = &h[who].local;
    *reporter = who;
    for (int r = 0; r < ranks; r++) {
        dead[r] = h[r].local.gone;
        struct moe_results *its = h[r].local.r.results;
        if (!t->r.results || !its) continue;
        t->r.results->stats[r] = its->stats[r];
        t->r.results->cache[r] = its->cache[r];
    }
    *results = t->r.results;
    t->r.results = NULL;
    if (t->code != MOE_OK) *err = t->err;
    return t->code;
}

/* Starts a thread for each rank, waits until all have ended, and gathers what moe_ranks_local gives. */
static enum moe_code run_threads(struct thread *h, const struct moe_ranks *o, const struct moe_engine *lender,
                                 struct moe_hub *hub, struct moe_results **results, int *reporter, bool *dead,
                                 struct moe_err *err)
{
    enum moe_code code = MOE_OK;
    int n = 0;
    for (; n < o->ranks && code == MOE_OK; n++) {
        h[n] =
            (struct thread){ .local = { .o = o, .r = { .rank = n, .ranks = o->ranks }, .err = MOE_ERR_INIT },
                             .lender = lender,
                             .hub = hub };
        int e = moe_thread_start(&h[n].id, run_rank, &h[n]);
        if (!e) continue;
        code = moe_fail(err, MOE_NOMEM, "cannot start rank %d, of %d ranks: %s", n, o->ranks, strerror(e));
        struct moe_comm *c; /* the ranks that run already must not wait for this one */
        if (moe_comm_local(&c, hub, n, &h[n].local.err) == MOE_OK)
            moe_ep_broadcast_failure(c, err, &h[n].local.err);
        moe_comm_close(&c);
        break;
    }
    for (int r = 0; r < n; r++) pthread_join(h[r].id, NULL);
    if (code == MOE_OK) code = gather(h, o->ranks, results, reporter, dead, err);
    for (int r = 0; r < n; r++) close_local_rank(&h[r].local);
    return code;
}

enum moe_code moe_ranks_local(const struct moe_ranks *o, const struct moe_engine *lender,
                              struct moe_results **results, int *reporter, bool *dead, struct moe_err *err)
{
    const struct moe_config *c = &lender->source->config;
    struct moe_hub *hub;
    struct thread *h = calloc((size_t)o->ranks, sizeof *h);
    *results = NULL;
    *reporter = 0;
    if (!h) return moe_fail(err, MOE_NOMEM, "no memory for %d ranks", o->ranks);
    int64_t batch = o->engine.batch;
    enum moe_code code = moe_hub_open(&hub, o->ranks, moe_ep_request_bytes(c, batch),
                                      moe_ep_reply_bytes(c, batch), o->timeout, err);
    if (code == MOE_OK) code = run_threads(h, o, lender, hub, results, reporter, dead, err);
    moe_hub_close(&hub);
    free(h);
    return code;
}

/* ---- this process is one rank ---- */

/* Opens the communicator of this rank, whose address is then mine [bytes], and fills in what all ranks must
 * have in common. */
static enum moe_code prepare(struct local_rank *t, const struct moe_ranks_place *p,
                             const struct moe_config *c, struct moe_agreement *settings, const void **mine,
                             size_t *bytes)
{
    const struct moe_ranks *o = t->o;
    int64_t batch = o->engine.batch;
    MOE_TRY(p->agree(p->ctx, t->r.engine, settings, &t->err));
    MOE_TRY(moe_comm_ucx_open(&t->comm, p->rank, o->ranks, moe_socket_is_here(p->rendezvous),
                              moe_ep_request_bytes(c, batch), moe_ep_reply_bytes(c, batch), o->timeout,
                              mine, bytes, &t->err));
    t->comm->cancel = o->engine.cancel;
    return MOE_OK;
}

static enum moe_code connect_all(struct local_rank *t, const struct moe_ranks_place *p,
                                 const struct moe_meeting *m)
{
    moe_comm_ucx_set_key(t->comm, m->key);
    for (int r = 0; r < t->o->ranks; r++)
        if (r != p->rank) MOE_TRY(moe_comm_ucx_connect(t->comm, r, m->all + m->offset[r], &t->err));
    return moe_comm_ucx_await_ready(t->comm, p->patience, &t->err);
}

/* Meets the other ranks and connects to them.  A failure so far (t->code, t->err) is sent to all; if any rank
 * has failed, all fail with the same error. */
static enum moe_code meet(struct local_rank *t, const struct moe_ranks_place *p,
                          const struct moe_engine *lender)
{
    const void *mine = NULL;
    size_t bytes = 0;
    struct moe_agreement settings = { 0 };
    struct moe_meeting m;
    struct moe_rendezvous v = { .where = p->rendezvous,
                                .rank = p->rank,
                                .ranks = t->o->ranks,
                                .timeout = p->patience,
                                .settings = &settings,
                                .secret = p->secret,
                                .cancel = t->o->engine.cancel,
                                .tell = p->tell,
                                .ctx = p->ctx };
    if (t->code == MOE_OK) t->code = prepare(t, p, &lender->source->config, &settings, &mine, &bytes);
    if (t->code == MOE_OK) t->err = (struct moe_err)MOE_ERR_INIT;
    struct moe_err before = t->err;
    enum moe_code code = moe_rendezvous(&v, &before, mine, bytes, &m, &t->err);
    t->untold = code != MOE_OK && !m.told;
    t->refused = code != MOE_OK && m.told && p->launched;
    /* where each rank prints, a rank that has failed itself prints its own error */
    if (t->refused && p->rank && before.code != MOE_OK) t->err = before, code = before.code;
    else if (t->refused && p->rank) moe_wrap(&t->err, "rank %d was told by rank 0", p->rank);
    if (code == MOE_OK) code = connect_all(t, p, &m);
    moe_meeting_release(&m);
    return code;
}

/* Waits for this rank's turn to report, and reports.  Also after a failed report no other rank tries again,
 * unless the others marked this rank dead meanwhile. */
static enum moe_code report(struct local_rank *t, const struct moe_ranks_place *p)
{
    struct moe_err ignored;
    bool mine;
    MOE_TRY(moe_ep_await_report_turn(t->r.ep, &mine, &t->err));
    if (!mine) return MOE_OK;
    enum moe_code code = p->report(p->ctx, &t->r, t->comm->dead, &t->err);
    if (!t->comm->dead[t->r.rank]) moe_ep_end_report(t->r.ep, &ignored);
    return code;
}

enum moe_code moe_ranks_process(const struct moe_ranks *o, const struct moe_ranks_place *p,
                                const struct moe_engine *lender, int *reporter, bool *dead,
                                struct moe_err *err)
{
    struct local_rank t = { .o = o, .r = { .rank = p->rank, .ranks = o->ranks }, .err = *err };
    *reporter = 0;
    t.code = t.err.code;
    if (t.code == MOE_OK) t.code = open_engine(&t, lender, 1);
    t.code = meet(&t, p, lender);
    if (t.untold) *reporter = p->rank;
    if (t.refused) *reporter = -1;
    if (t.code == MOE_OK) {
        run_local_rank(&t);
        if (t.r.ep && moe_ep_stats(t.r.ep).died) kill(getpid(), SIGKILL);
        if (t.code == MOE_OK) t.code = report(&t, p);
        memcpy(dead, t.comm->dead, (size_t)o->ranks * sizeof *dead);
        while (*reporter < o->ranks && dead[*reporter]) ++*reporter;
        if (dead[p->rank]) *reporter = p->rank; /* a rank that was marked dead prints that itself */
    }
    *err = t.err;
    close_local_rank(&t);
    return t.code;
}

void moe_cache_json(const struct moe_cache_counts *c, cJSON *json)
{
    cJSON *o = moe_json_add_object(json, "cache");
    if (!o) return;
    moe_json_add_i64(o, "bytes", c->bytes);
    moe_json_add_i64(o, "pages", c->pages);
    moe_json_add_i64(o, "used_peak", c->used_peak);
    moe_json_add_i64(o, "found_tokens", c->found_tokens);
    moe_json_add_i64(o, "preemptions", c->preemptions);
}

void moe_ranks_json(const struct moe_results *r, const bool *dead, cJSON *json)
{
    cJSON *list = moe_json_add_array(json, "ranks");
    for (int k = 0; list && k < r->ranks; k++) {
        const struct moe_ep_stats *s = &r->stats[k];
        cJSON *o = moe_json_append(list, cJSON_CreateObject());
        moe_json_add_i64(o, "rank", k);
        moe_json_add_bool(o, "lost", dead[k]);
        moe_json_add_i64(o, "mapped_bytes", (int64_t)s->mapped);
        moe_json_add_i64(o, "requests", (int64_t)s->requests);
        moe_json_add_i64(o, "requests_again", (int64_t)s->again);
        moe_json_add_i64(o, "bytes_sent", (int64_t)s->bytes_sent);
        moe_json_add_measured(o, "seconds_send", s->seconds_send);
        moe_json_add_measured(o, "seconds_wait", s->seconds_wait);
        moe_json_add_measured(o, "seconds_serve", s->seconds_serve);
        moe_json_add_measured(o, "seconds_experts", s->seconds_experts);
        moe_json_add_i64(o, "plans", s->moves);
        if (r->n_sequences) moe_cache_json(&r->cache[k], o);
    }
}
