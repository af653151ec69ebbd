/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench-comm.h - times dispatch and combine alone, over a communicator: what a MoE layer of Kimi
 * K2 costs every rank besides matrix products.
 *
 * In a layer here each rank groups its rows by rank, copies them into requests and posts these; it answers
 * the requests of the others after reading every value, as moe-run does (the outputs are in the replies
 * already, where products would have put them); then it weights the rows of the replies and adds them up in
 * top-k order.  All ranks do this at once, layer after layer, as threads or as processes.  Wall time says
 * how long a layer takes.  Beside it stands the processor time of rank 0, which does not depend on what else
 * the cores do; it is compared with that of a memcpy of the bytes that the rank sends. */
#ifndef BENCH_COMM_H
#define BENCH_COMM_H

#include "runtime/comm/comm-ucx.h"
#include "runtime/comm/rendezvous.h"
#include "tests/bench/bench-other.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COMM_K = 8, COMM_EXPERTS = 384, COMM_RANKS = 8, COMM_HEAD = 64 + 2 * COMM_EXPERTS, COMM_BATCHES = 5 };

struct comm_case { int ranks, tokens, hidden, layers; }; /* layers: of a batch */

struct comm_head { int32_t rows, pairs; };

/* One rank's layer, the same each time. */
struct comm_layer {
    const struct comm_case *k;
    struct moe_comm *c;
    float *x, *y, *weight;                /* [tokens][hidden], the same, [tokens][k] */
    int *server, *index;                  /* [tokens][k]: who has the expert; which row of its reply */
    struct comm_head to[COMM_RANKS];
    size_t row;                           /* bytes */
    /* of a layer, in the best batch */
    struct comm_result { double seconds, cpu; size_t sent; char why[256]; } out;
    bool answered[COMM_RANKS];            /* by this rank, in the layer under way */
    bool warm;                            /* replies hold values */
};

/* Every token's 8 of 384 experts, which lie on the ranks in order. */
static void comm_choose(struct comm_layer *l, int rank)
{
    uint64_t r = (uint64_t)rank + 1;
    for (int t = 0; t < l->k->tokens; t++) {
        bool taken[COMM_EXPERTS] = { 0 }, sent[COMM_RANKS] = { 0 };
        for (int j = 0; j < COMM_K; j++) {
            int e;
            do e = (int)((r = r * 6364136223846793005u + 1442695040888963407u) >> 33) % COMM_EXPERTS;
            while (taken[e]);
            taken[e] = true;
            int to = e * l->k->ranks / COMM_EXPERTS, at = t * COMM_K + j;
            l->server[at] = to;
            l->index[at] = l->to[to].pairs++;
            l->weight[at] = .125f;
            l->to[to].rows += !sent[to];
            sent[to] = true;
        }
    }
}

static size_t comm_request_bytes(const struct comm_layer *l, int to)
{
    return COMM_HEAD + 8 * COMM_K * (size_t)l->k->tokens + (size_t)l->to[to].rows * l->row;
}

static void comm_prepare(struct comm_layer *l, const struct comm_case *k, struct moe_comm *c)
{
    size_t n = (size_t)k->tokens * (size_t)k->hidden, choices = (size_t)k->tokens * COMM_K;
    *l = (struct comm_layer){ .k = k,
                              .c = c,
                              .x = get_memory(n * 4),
                              .y = get_memory(n * 4),
                              .weight = get_memory(choices * 4),
                              .server = get_memory(choices * sizeof(int)),
                              .index = get_memory(choices * sizeof(int)),
                              .row = (size_t)k->hidden * 4 };
    for (size_t i = 0; i < n; i++) l->x[i] = (float)(i % 100);
    comm_choose(l, c->rank);
}

static void comm_release(struct comm_layer *l)
{
    free(l->x), free(l->y), free(l->weight), free(l->server), free(l->index);
}

static void comm_dispatch(struct comm_layer *l)
{
    struct moe_err err;
    size_t at[COMM_RANKS];
    unsigned char *p[COMM_RANKS];
    for (int r = 0; r < l->k->ranks; r++) {
        p[r] = moe_comm_request(l->c, r);
        at[r] = comm_request_bytes(l, r) - (size_t)l->to[r].rows * l->row;
        memcpy(p[r], &l->to[r], sizeof l->to[r]);
    }
    for (int t = 0; t < l->k->tokens; t++) {
        bool sent[COMM_RANKS] = { 0 };
        for (int j = 0; j < COMM_K; j++) {
            int to = l->server[t * COMM_K + j];
            if (!sent[to])
                memcpy(p[to] + at[to], l->x + (size_t)t * (size_t)l->k->hidden, l->row), at[to] += l->row;
            sent[to] = true;
        }
    }
    for (int r = 0; r < l->k->ranks; r++) {
        l->out.sent += at[r];
        assert(moe_comm_post(l->c, r, at[r], &err) == MOE_OK);
    }
}

/* Answers those that have asked, once each layer; how many that are. */
static int comm_answer(struct comm_layer *l)
{
    struct moe_err err;
    int n = 0;
    for (int r = 0; r < l->k->ranks; r++) {
        const void *q = l->answered[r] ? NULL : moe_comm_requested(l->c, r);
        struct comm_head h;
        if (!q) continue;
        memcpy(&h, q, sizeof h);
        float *rows = (float *)(void *)((unsigned char *)moe_comm_reply(l->c, r) + 64);
        for (int64_t i = 0; !l->warm && i < (int64_t)h.pairs * l->k->hidden; i++) rows[i] = (float)(i % 100);
        assert(!h.pairs || isfinite(moe_kernels()->amax(rows, (int64_t)h.pairs * l->k->hidden)));
        l->out.sent += 64 + (size_t)h.pairs * l->row;
        assert(moe_comm_answer(l->c, r, 64 + (size_t)h.pairs * l->row, &err) == MOE_OK);
        l->answered[r] = true;
        n++;
    }
    return n;
}

static void comm_combine(struct comm_layer *l)
{
    const float *rows[COMM_RANKS];
    for (int r = 0; r < l->k->ranks; r++)
        rows[r] = (const float *)(const void *)((const unsigned char *)moe_comm_answered(l->c, r) + 64);
    for (int t = 0; t < l->k->tokens; t++) {
        float *y = l->y + (size_t)t * (size_t)l->k->hidden;
        for (int j = 0; j < COMM_K; j++) {
            const float *from = rows[l->server[t * COMM_K + j]] +
                                (size_t)l->index[t * COMM_K + j] * (size_t)l->k->hidden,
                        w = l->weight[t * COMM_K + j];
            for (int i = 0; i < l->k->hidden; i++) y[i] = j ? y[i] + w * from[i] : w * from[i];
        }
    }
}

static void comm_layer(struct comm_layer *l)
{
    struct moe_err err;
    int served = 0;
    memset(l->answered, 0, sizeof l->answered);
    comm_dispatch(l);
    for (;;) {
        bool all = true;
        served += comm_answer(l);
        for (int r = 0; r < l->k->ranks; r++) all &= moe_comm_answered(l->c, r) != NULL;
        if (all && served == l->k->ranks) break;
        moe_comm_begin_wait(l->c);
        assert(moe_comm_wait(l->c, &err) == MOE_OK);
    }
    comm_combine(l);
}

static void comm_run(struct comm_layer *l)
{
    struct comm_result *o = &l->out;
    comm_layer(l); /* pages, connections */
    l->warm = true;
    *o = (struct comm_result){ .seconds = INFINITY, .cpu = INFINITY };
    for (int b = 0; b < (quick ? 1 : COMM_BATCHES); b++) {
        double t = moe_now(), cpu = cpu_now();
        o->sent = 0;
        for (int i = 0; i < l->k->layers; i++) comm_layer(l);
        o->seconds = fmin(o->seconds, (moe_now() - t) / l->k->layers);
        o->cpu = fmin(o->cpu, (cpu_now() - cpu) / l->k->layers);
        o->sent /= (size_t)l->k->layers;
    }
}

/* The most that a slot holds: all tokens of a rank to one. */
static size_t comm_max_request(const struct comm_case *k)
{
    return COMM_HEAD + (size_t)k->tokens * (8 * COMM_K + (size_t)k->hidden * 4);
}
static size_t comm_max_reply(const struct comm_case *k)
{
    return 64 + (size_t)k->tokens * COMM_K * (size_t)k->hidden * 4;
}

/* Of rank 0; all keep step. */
static void comm_row(const struct comm_case *k, const char *how, const struct comm_result *o)
{
    char what[64];
    snprintf(what, sizeof what, "layer, %s, %d ranks, %d tokens",
             k->hidden == 7168 ? "7168 wide" : "256 wide", k->ranks, k->tokens);
    put_row(&(struct row){ what, how, o->seconds, (double)o->sent, 1e3 * o->cpu * o->seconds, "ms of a core",
                           "memcpy of as much", 2 * (double)o->sent / machine.copy / o->cpu, NO_AIM, 0 });
}

/* ---- threads ---- */

struct comm_thread {
    const struct comm_case *k;
    struct moe_hub *hub;
    int rank;
    struct comm_result out;
    pthread_t id;
};

static void *comm_thread(void *arg)
{
    struct comm_thread *t = arg;
    struct comm_layer l;
    struct moe_comm *c;
    struct moe_err err;
    assert(moe_comm_local(&c, t->hub, t->rank, &err) == MOE_OK);
    comm_prepare(&l, t->k, c);
    comm_run(&l);
    t->out = l.out;
    comm_release(&l);
    moe_comm_close(&c);
    return NULL;
}

static void comm_threads(const struct comm_case *k)
{
    struct comm_thread t[COMM_RANKS];
    struct moe_hub *hub;
    struct moe_err err;
    assert(moe_hub_open(&hub, k->ranks, comm_max_request(k), comm_max_reply(k), 60, &err) == MOE_OK);
    for (int r = 0; r < k->ranks; r++) {
        t[r] = (struct comm_thread){ .k = k, .hub = hub, .rank = r };
        assert(!pthread_create(&t[r].id, NULL, comm_thread, &t[r]));
    }
    for (int r = 0; r < k->ranks; r++) pthread_join(t[r].id, NULL);
    comm_row(k, "threads", &t[0].out);
    moe_hub_close(&hub);
}

/* ---- processes ---- */

static enum moe_code comm_meet(struct moe_comm **c, const struct comm_case *k, const char *where, int rank,
                               struct moe_err *err)
{
    const void *mine = NULL;
    size_t bytes = 0;
    struct moe_meeting m;
    struct moe_err none = MOE_ERR_INIT;
    const struct moe_agreement same = { 0 };
    struct moe_rendezvous v = {
        .where = where, .rank = rank, .ranks = k->ranks, .timeout = 60, .settings = &same
    };
    MOE_TRY(moe_comm_ucx_open(c, rank, k->ranks, true, comm_max_request(k), comm_max_reply(k), 60, &mine,
                              &bytes, err));
    MOE_TRY(moe_rendezvous(&v, &none, mine, bytes, &m, err));
    moe_comm_ucx_set_key(*c, m.key);
    for (int r = 0; r < k->ranks; r++)
        if (r != rank) MOE_TRY(moe_comm_ucx_connect(*c, r, m.all + m.offset[r], err));
    moe_meeting_release(&m);
    return moe_comm_ucx_await_ready(*c, 60, err);
}

static void comm_process(const struct comm_case *k, const char *where, int rank, struct comm_result *to)
{
    struct comm_layer l;
    struct moe_comm *c = NULL;
    struct moe_err err = MOE_ERR_INIT;
    if (comm_meet(&c, k, where, rank, &err) != MOE_OK) {
        snprintf(to->why, sizeof to->why, "%.255s", err.msg);
        _exit(1);
    }
    comm_prepare(&l, k, c);
    comm_run(&l);
    *to = l.out;
    moe_comm_close(&c);
    _exit(0);
}

/* transports: UCX_TLS.  False, after a line that says why, when ranks cannot do that here. */
static bool comm_processes(const struct comm_case *k, const char *how, const char *transports)
{
    char where[64];
    struct comm_result *to = mmap(NULL, COMM_RANKS * sizeof *to, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid[COMM_RANKS];
    bool ok = true;
    assert(to != MAP_FAILED);
    snprintf(where, sizeof where, "unix:moe-bench-%ld-%.0f", (long)getpid(), moe_now() * 1e6);
    fflush(stdout);
    for (int r = 0; r < k->ranks; r++) {
        pid[r] = fork();
        assert(pid[r] >= 0);
        if (pid[r]) continue;
        if (transports) setenv("UCX_TLS", transports, 1);
        comm_process(k, where, r, &to[r]);
    }
    for (int r = 0; r < k->ranks; r++) {
        int status;
        assert(waitpid(pid[r], &status, 0) == pid[r]);
        if (ok && status) printf("skipped (%s): %s\n", how, *to[r].why ? to[r].why : "a rank was ended");
        ok &= !status;
    }
    if (ok) comm_row(k, how, &to[0]);
    munmap(to, COMM_RANKS * sizeof *to);
    return ok;
}

static bool comm_has_ucx(void)
{
    struct moe_err err;
    struct moe_comm *c;
    const void *address;
    size_t bytes;
    pid_t p;
    int status;
    fflush(stdout);
    if (!(p = fork())) { /* UCX is loaded in processes that end, with the settings of each */
        if (moe_comm_ucx_open(&c, 0, 2, true, 64, 64, 1, &address, &bytes, &err) == MOE_OK) _exit(0);
        printf("skipped, processes: %s\n", err.msg);
        fflush(stdout);
        _exit(1);
    }
    assert(waitpid(p, &status, 0) == p);
    return !status;
}

static void bench_comm(void)
{
    put_heading("dispatch + combine of K2 alone");
    bool ucx = comm_has_ucx(), tcp = ucx, shm = ucx;
    for (int ranks = 2; ranks <= COMM_RANKS; ranks *= 4)
        for (int tokens = 16; tokens <= (quick ? 16 : ranks == 2 ? 256 : 64); tokens *= 4) {
            struct comm_case k = { ranks, tokens, quick ? 256 : 7168, quick ? 2 : 4000 / tokens / ranks + 2 };
            comm_threads(&k);
            shm = shm && comm_processes(&k, "UCX memory", "posix,self,tcp");
            tcp = tcp && comm_processes(&k, "UCX TCP", NULL);
        }
}

#endif
