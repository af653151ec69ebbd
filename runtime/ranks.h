/* runtime/ranks.h - the ranks of a run: opened, put to work, waited for. */
#ifndef MOE_RUNTIME_RANKS_H
#define MOE_RUNTIME_RANKS_H

#include "runtime/results.h"

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
    int threads;                      /* for all ranks of this process together */
    double timeout;                   /* seconds of silence after which a rank is given up */
    bool equal;                       /* moe_ep_options */
    int die_rank; uint64_t die_step;  /* for tests: moe_ep_options.die of that rank; 0: nobody */
    int64_t n_sequences;              /* struct moe_results */
    /* This rank's own work, in its thread; then it serves the others until they are done. */
    enum moe_code (*work)(void *ctx, struct moe_rank *r, struct moe_err *err);
    void *ctx;
};

/* Ranks as threads of this process, which share `lender`'s source and tokenizer.  *results is of the lowest rank that is left, which one is in
 * *reporter; the caller's, also after a failure.  dead [ranks]: which were lost. */
enum moe_code moe_ranks_local(const struct moe_ranks *o, const struct moe_engine *lender, struct moe_results **results, int *reporter, bool *dead,
                              struct moe_err *err);

/* "ranks": an array of rank, mapped_bytes, requests, ... */
void moe_ranks_json(const struct moe_results *r, const bool *dead, cJSON *json);

#endif
