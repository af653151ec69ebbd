/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/ranks.h - the ranks of a run: opened, put to work, waited for. */
#ifndef MOE_RUNTIME_ENGINE_RANKS_H
#define MOE_RUNTIME_ENGINE_RANKS_H

#include "runtime/comm/agree.h"
#include "runtime/comm/secret.h"
#include "runtime/engine/results.h"

#include <sys/types.h>

struct moe_rank {
    int rank, ranks;
    struct moe_engine *engine;
    struct moe_ep *ep;                /* NULL: the only rank there is */
    struct moe_pool *pool;            /* of this rank; NULL: its own thread does all */
    struct moe_results *results;
};

struct moe_ranks {
    int ranks;
    const char *path;                 /* of the model */
    struct moe_engine_options engine;
    const struct moe_plan *plan;
    const struct moe_plan *next; uint64_t next_after; /* moe_ep_options */
    int threads;                      /* for all ranks of this process together */
    double timeout;                   /* seconds of silence after which a rank is given up */
    bool equal;                       /* moe_ep_options */
    int die_rank; uint64_t die_step;  /* for tests: moe_ep_options.die of that rank; 0: nobody */
    struct moe_results_shape results; /* its vocab is found in the model */
    /* This rank's own work, in its thread; then it serves the others until they are done. */
    enum moe_code (*work)(void *ctx, struct moe_rank *r, struct moe_err *err);
    void *ctx;
};

/* Ranks as threads of this process, which share `lender`'s source and tokenizer.  *results is of the
 * lowest rank that is left, which one is in *reporter; the caller's, also after a failure.  dead
 * [ranks]: which were lost. */
enum moe_code moe_ranks_local(const struct moe_ranks *o, const struct moe_engine *lender,
                              struct moe_results **results, int *reporter, bool *dead, struct moe_err *err);

/* This process as one rank of several (comm-ucx). */
struct moe_ranks_place {
    int rank;
    const char *rendezvous;           /* rendezvous.h */
    double patience;                  /* seconds that ranks have to come there */
    const struct moe_secret *secret;  /* NULL: none */
    /* started by somebody else: each rank says for itself why they could not meet */
    bool apart;
    void (*tell)(void *ctx, const char *line); /* who is waited for; NULL: nobody is told */
    /* What all ranks must have in common, once this one has its engine. */
    enum moe_code (*agree)(void *ctx, const struct moe_engine *e, struct moe_agreement *a,
                           struct moe_err *err);
    /* When all work is done: this rank is the one that reports, and does it now, whatever comes of it.
     * Another one does when this one is lost before it returns.  MOE_DEVICE: it was given up meanwhile. */
    enum moe_code (*report)(void *ctx, struct moe_rank *r, const bool *dead, struct moe_err *err);
    void *ctx;
};

/* *err: what this rank has failed with already, its code MOE_OK for nothing; the others then fail with it,
 * and lender may be NULL.  *reporter: who is to say how it failed; -1: each rank for itself, and rank 0 in
 * the report.  Leaves when all have heard all, and one has reported. */
enum moe_code moe_ranks_process(const struct moe_ranks *o, const struct moe_ranks_place *p,
                                const struct moe_engine *lender, int *reporter, bool *dead,
                                struct moe_err *err);

/* Start `ranks` processes of this program on this host, each with the arguments argv and, behind
 * them (in front of "--"), --rank, --rendezvous, --ranks and --threads; rank 0 has this process's
 * standard input.  Those that run end with this process.  pid [ranks]; *reports: where they hand
 * over their report (handover.h). */
enum moe_code moe_ranks_spawn(char **argv, int ranks, int threads, pid_t *pid, int *reports,
                              struct moe_err *err);

/* What became of ranks that were started so. */
struct moe_ranks_end {
    /* the report's exit code; without one what the lowest rank that failed exited with,
     * MOE_OK when none did by itself */
    int exit;
    bool reported;
    int first;      /* the rank that ended before all were connected, so that all were ended; -1: none */
    int first_code; /* what it exited with; -1: a signal ended it */
    int *killed;    /* [ranks] the caller's: the signal that ended it, 0: none, or this process ended all */
};

/* Wait for all of them; once it is cancelled they get a SIGTERM.  The first report that comes, whole, is
 * given to `print` (a file; once).  Ranks that are still there long after the report (they hang) are
 * killed.  Closes `reports`. */
enum moe_code moe_ranks_reap(int ranks, pid_t *pid, int reports, void (*print)(int text),
                             const struct moe_cancel *cancel, struct moe_ranks_end *e,
                             struct moe_err *err);

/* "ranks": an array of rank, mapped_bytes, requests, ... */
void moe_ranks_json(const struct moe_results *r, const bool *dead, cJSON *json);

#endif
