#include "runtime/ranks.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* One rank as a thread. */
struct thread {
    const struct moe_ranks *o;
    const struct moe_engine *lender;
    struct moe_hub *hub;
    pthread_t id;
    struct moe_rank r;
    struct moe_comm *comm;
    bool gone;                        /* told to die, or given up by the others */
    enum moe_code code;
    struct moe_err err;
};

static enum moe_code open_rank(struct thread *t)
{
    const struct moe_ranks *o = t->o;
    struct moe_engine_options e = o->engine;
    struct moe_rank *r = &t->r;
    int threads = o->threads / o->ranks;
    e.part = true;
    e.sharers = (e.sharers ? e.sharers : 1) * o->ranks;
    e.lender = t->lender;
    if (threads > 1) MOE_TRY(moe_pool_open(&r->pool, threads, &t->err));
    MOE_TRY(moe_comm_local(&t->comm, t->hub, r->rank, &t->err));
    MOE_TRY(moe_results_open(&r->results, o->ranks, o->n_sequences, &t->err));
    MOE_TRY(moe_engine_open(&r->engine, o->path, &e, r->pool, &t->err));
    struct moe_ep_options x = { .comm = t->comm, .forward = r->engine->forward, .model = r->engine->model, .part = r->engine->part, .plan = o->plan,
                                .max_tokens = r->engine->batch, .equal = o->equal, .die = o->die_rank == r->rank ? o->die_step : 0,
                                .heard = moe_results_heard, .ctx = r->results };
    return moe_ep_open(&r->ep, &x, &t->err);
}

static void *run_rank(void *arg)
{
    struct thread *t = arg;
    t->code = open_rank(t);
    if (t->code == MOE_OK) t->code = t->o->work(t->o->ctx, &t->r, &t->err);
    if (t->code == MOE_OK) t->code = moe_results_stats(t->r.results, t->r.ep, t->r.rank, &t->err);
    if (t->code == MOE_OK) t->code = moe_ep_finish(t->r.ep, &t->err);
    t->gone = (t->r.ep && moe_ep_stats(t->r.ep).died) || (t->comm && t->comm->dead[t->r.rank]);
    if (t->code != MOE_OK && !t->gone && t->r.ep) moe_ep_fail(t->r.ep, &t->err);
    else if (t->code != MOE_OK && !t->gone && t->comm) moe_comm_say(t->comm, MOE_EP_FAILED, &t->err, sizeof t->err, &(struct moe_err)MOE_ERR_INIT);
    if (t->r.ep) t->r.results->stats[t->r.rank] = moe_ep_stats(t->r.ep);
    return NULL;
}

static void close_rank(struct thread *t)
{
    moe_ep_close(&t->r.ep);
    moe_engine_close(&t->r.engine);
    moe_results_close(&t->r.results);
    moe_comm_close(&t->comm);
    moe_pool_close(&t->r.pool);
}

/* The lowest rank that is left tells how it went; without one, the first that was lost. */
static enum moe_code gather(struct thread *t, int ranks, struct moe_results **results, int *reporter, bool *dead, struct moe_err *err)
{
    int who = 0;
    while (who < ranks && t[who].gone) who++;
    if (who == ranks) who = 0;
    *reporter = who;
    for (int r = 0; r < ranks; r++) {
        dead[r] = t[r].gone;
        if (t[who].r.results && t[r].r.results) t[who].r.results->stats[r] = t[r].r.results->stats[r];
    }
    *results = t[who].r.results;
    t[who].r.results = NULL;
    if (t[who].code != MOE_OK) *err = t[who].err;
    return t[who].code;
}

static enum moe_code start(struct thread *t, const struct moe_ranks *o, const struct moe_engine *lender, struct moe_hub *hub, struct moe_results **results,
                           int *reporter, bool *dead, struct moe_err *err)
{
    enum moe_code code = MOE_OK;
    int n = 0;
    for (; n < o->ranks && code == MOE_OK; n++) {
        t[n] = (struct thread){ .o = o, .lender = lender, .hub = hub, .r = { .rank = n, .ranks = o->ranks }, .err = MOE_ERR_INIT };
        if (!pthread_create(&t[n].id, NULL, run_rank, &t[n])) continue;
        code = moe_fail(err, MOE_NOMEM, "cannot start rank %d of %d", n + 1, o->ranks);
        struct moe_comm *c; /* the ranks that run already must not wait for this one */
        if (moe_comm_local(&c, hub, n, &t[n].err) == MOE_OK) moe_comm_say(c, MOE_EP_FAILED, err, sizeof *err, &t[n].err);
        moe_comm_close(&c);
        break;
    }
    for (int r = 0; r < n; r++) pthread_join(t[r].id, NULL);
    if (code == MOE_OK) code = gather(t, o->ranks, results, reporter, dead, err);
    for (int r = 0; r < n; r++) close_rank(&t[r]);
    return code;
}

enum moe_code moe_ranks_local(const struct moe_ranks *o, const struct moe_engine *lender, struct moe_results **results, int *reporter, bool *dead,
                              struct moe_err *err)
{
    const struct moe_config *c = &lender->source->config;
    struct moe_hub *hub;
    struct thread *t = calloc((size_t)o->ranks, sizeof *t);
    *results = NULL;
    *reporter = 0;
    if (!t) return moe_fail(err, MOE_NOMEM, "no memory for %d ranks", o->ranks);
    int64_t most = o->engine.batch;
    enum moe_code code = moe_hub_open(&hub, o->ranks, moe_ep_request_bytes(c, most), moe_ep_reply_bytes(c, most), o->timeout, err);
    if (code == MOE_OK) code = start(t, o, lender, hub, results, reporter, dead, err);
    moe_hub_close(&hub);
    free(t);
    return code;
}

void moe_ranks_json(const struct moe_results *r, const bool *dead, cJSON *json)
{
    cJSON *list = cJSON_AddArrayToObject(json, "ranks");
    for (int k = 0; list && k < r->ranks; k++) {
        const struct moe_ep_stats *s = &r->stats[k];
        cJSON *o = cJSON_CreateObject();
        if (!o) return;
        moe_json_add_i64(o, "rank", k);
        cJSON_AddBoolToObject(o, "lost", dead[k]);
        moe_json_add_i64(o, "mapped_bytes", (int64_t)s->mapped);
        moe_json_add_i64(o, "requests", (int64_t)s->requests);
        moe_json_add_i64(o, "requests_again", (int64_t)s->again);
        moe_json_add_i64(o, "bytes_sent", (int64_t)s->bytes_sent);
        cJSON_AddNumberToObject(o, "seconds_send", s->seconds_send);
        cJSON_AddNumberToObject(o, "seconds_wait", s->seconds_wait);
        cJSON_AddNumberToObject(o, "seconds_serve", s->seconds_serve);
        moe_json_add_i64(o, "plans", s->moves);
        cJSON_AddItemToArray(list, o);
    }
}
