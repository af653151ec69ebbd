/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/ranks.h - runs the ranks of an expert-parallel run, as threads of this process or as
 * processes: opens an engine for each, lets it do its share of the work, has it serve the other ranks until
 * all are done, and has one rank report.
 *
 * The one thread that calls these functions waits in them.  `dead` [ranks] is the caller's, all false before
 * the call; the ranks that were lost are marked in it. */
#ifndef MOE_RUNTIME_ENGINE_RANKS_H
#define MOE_RUNTIME_ENGINE_RANKS_H

#include "runtime/comm/agree.h"
#include "runtime/comm/secret.h"
#include "runtime/engine/results.h"

#include <sys/types.h>

struct moe_rank {
    int rank, ranks;
    struct moe_engine *engine;
    struct moe_ep *ep;                /* NULL: this is the only rank */
    struct moe_pool *pool;            /* threads of this rank; NULL: its own thread does everything */
    struct moe_results *results;
};

/* What all ranks are given.  The caller keeps everything that this points to. */
struct moe_ranks {
    int ranks;
    const char *path;                 /* of the model */
    struct moe_engine_options engine;
    const struct moe_plan *plan;
    const struct moe_plan *next;      /* this and next_after: as in moe_ep_options */
    uint64_t next_after;
    int threads;                      /* for all ranks of this process together */
    double timeout;                   /* seconds without a heartbeat after which a rank is marked dead */
    bool equal;                       /* as in moe_ep_options */
    int die_rank;
    uint64_t die_step;                /* for tests: moe_ep_options.die of rank die_rank; 0: no rank dies */
    struct moe_results_shape results; /* vocab is ignored: it is taken from the model */
    /* Does the work of rank r, in the thread of that rank: of several ranks at once where they are threads of
     * this process.  Afterwards the rank serves the others until they are done. */
    enum moe_code (*work)(void *ctx, struct moe_rank *r, struct moe_err *err);
    void *ctx;
};

/* Runs all ranks as threads of this process, which share the source and tokenizer of `lender`.  *reporter is
 * the lowest living rank (0 when none lives): its error is returned, and its results are in *results, which
 * the caller closes, also after a failure (NULL: there are none). */
enum moe_code moe_ranks_local(const struct moe_ranks *o, const struct moe_engine *lender,
                              struct moe_results **results, int *reporter, bool *dead, struct moe_err *err);

/* How this process meets the other ranks, which are processes, too. */
struct moe_ranks_place {
    int rank;
    const char *rendezvous;           /* where ranks meet (moe_rendezvous.where) */
    double patience;                  /* seconds within which all ranks must have come there */
    const struct moe_secret *secret;  /* NULL: none */
    /* a launcher started each rank, and not moe_ranks_spawn: each then prints for itself why they could not
     * meet */
    bool launched;
    void (*tell)(void *ctx, const char *line); /* called with lines about the wait, as in moe_rendezvous */
    /* Fills in *a with what all ranks must have in common; e is the engine of this rank. */
    enum moe_code (*agree)(void *ctx, const struct moe_engine *e, struct moe_agreement *a,
                           struct moe_err *err);
    /* Called when all work is done, on the one rank that reports.  If this rank dies before the call returns,
     * another rank gets this call.  MOE_DEVICE: the others marked this rank dead meanwhile. */
    enum moe_code (*report)(void *ctx, struct moe_rank *r, const bool *dead, struct moe_err *err);
    void *ctx;
};

/* Runs this process as one rank of several, until all ranks are done and one has reported.
 *
 * *err is also an input: where its code is not MOE_OK, this rank has failed already; it then only meets the
 * others, which fail with the same error, and lender may be NULL.
 * *reporter: the rank whose process has to print the error after a failure; -1: every rank prints its own,
 * and rank 0 also prints it as JSON. */
enum moe_code moe_ranks_process(const struct moe_ranks *o, const struct moe_ranks_place *p,
                                const struct moe_engine *lender, int *reporter, bool *dead,
                                struct moe_err *err);

/* Starts `ranks` processes of this program on this host.  Their arguments are argv and, behind them or in
 * front of "--", --rank, --rendezvous, --ranks and --threads (`threads` divided by `ranks`, at least 1).
 * Rank 0 has the standard input of this process.  The kernel kills them when this process ends.  Sets pid
 * [ranks], and *reports to the socket over which they hand over their report (handover.h), for
 * moe_ranks_reap.  On failure no process is left. */
enum moe_code moe_ranks_spawn(char **argv, int ranks, int threads, pid_t *pid, int *reports,
                              struct moe_err *err);

/* How the processes of moe_ranks_spawn ended. */
struct moe_ranks_end {
    /* the exit code of the report; without a report that of the lowest rank that exited with a failure,
     * MOE_OK when none did */
    int exit;
    bool reported;
    int first;      /* the rank that failed before all were connected, so that all were killed; -1: none */
    int first_code; /* its exit code; -1: a signal ended it */
    /* [ranks], the caller's: the signal that ended each rank; 0: none did, or this process killed all */
    int *killed;
};

/* Waits until all of them have ended.  Calls `print` once, with the first report that comes: `text` is the
 * descriptor of a file, which is closed afterwards.  When `cancel` is cancelled, sends SIGTERM to all, and
 * SIGKILL to those that are left some seconds later.  Kills ranks that have not ended some seconds after the
 * report.  Closes `reports`. */
enum moe_code moe_ranks_reap(int ranks, pid_t *pid, int reports, void (*print)(int text),
                             const struct moe_cancel *cancel, struct moe_ranks_end *e,
                             struct moe_err *err);

/* Adds "cache" to `json`. */
void moe_cache_json(const struct moe_cache_counts *c, cJSON *json);
/* Adds "ranks" to `json`: an array with an object for each rank: its statistics (struct moe_ep_stats), and
 * where there were prompts, its cache. */
void moe_ranks_json(const struct moe_results *r, const bool *dead, cJSON *json);

#endif
