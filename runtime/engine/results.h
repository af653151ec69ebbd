/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/results.h - the results of a run, which every rank stores: answers to prompts, sums of
 * scores, counts of routing, statistics.  Each rank sends a result to all others as soon as it has it, so
 * that any rank that lives at the end can report, and what a lost rank had finished is not lost with it.
 *
 * A struct moe_results belongs to one rank and is used by its thread. */
#ifndef MOE_RUNTIME_ENGINE_RESULTS_H
#define MOE_RUNTIME_ENGINE_RESULTS_H

#include "runtime/engine/recorder.h"
#include "runtime/engine/score.h"
#include "runtime/engine/sequences.h"
#include "runtime/parallel/ep.h"

/* The answer to one prompt.  there: it has come; rank: that computed it. */
struct moe_result { bool there; int rank; struct moe_generated out; };

/* What the core of a rank has counted about its cache: bytes and pages of the cache, the largest number of
 * pages in use, tokens of prompts that were found, preemptions. */
struct moe_cache_counts { int64_t bytes, pages, used_peak, found_tokens, preemptions; };

/* Which results the ranks of a run may send.  Messages from other ranks are checked against this. */
struct moe_results_shape {
    /* of all ranks; they say which rank computes which.  The caller keeps them */
    const struct moe_sequence *sequence; int64_t n_sequences;
    int64_t vocab;        /* ids of tokens are below it */
    bool reference;       /* scores have a reference: each rank sends the KL divergence of every position */
    size_t routing_bytes; /* moe_recorder_bytes; 0: routing is not recorded */
};

struct moe_results {
    int ranks;
    struct moe_results_shape shape;
    int64_t n_sequences;
    struct moe_result *sequence;      /* [n_sequences] by index */
    struct moe_score_sums sums;       /* added up over the ranks whose sums have come */
    /* [ranks] whose sums have come; whose counts; whose statistics */
    bool *scored, *routed, *has_stats;
    /* added up over ranks: counts and tokens as in struct moe_recorder; NULL: none have come */
    int64_t *routing;
    struct moe_cache_counts own_cache; /* of this rank's answers to prompts */
    struct moe_cache_counts *cache;   /* [ranks] of those whose statistics have come */
    struct moe_ep_stats *stats;       /* [ranks] when the rank had done its own work */
    /* called, unless NULL, when the answer of a sequence has been stored, in the thread that stores it */
    enum moe_code (*stored)(void *ctx, int64_t index, struct moe_err *err);
    void *ctx;
};

/* MOE_NOMEM; *r is then NULL. */
enum moe_code moe_results_open(struct moe_results **r, int ranks, const struct moe_results_shape *shape,
                               struct moe_err *err);
void moe_results_close(struct moe_results **r); /* NULL-safe; nulls */

/* Stores a result that rank `from` has sent; this is the function for moe_ep_options.received, with the
 * results as ctx.  MOE_DEVICE for a message that is malformed, does not fit the shape, or comes twice;
 * MOE_NOMEM. */
enum moe_code moe_results_received(void *results, int from, uint32_t kind, const void *data, size_t bytes,
                                   struct moe_err *err);

/* Each of these stores a copy of a result of `rank`, which is this rank, and sends it to the other ranks
 * unless ep is NULL (for moe_results_add_stats it may not be NULL).  A rank calls moe_results_add_sequence
 * once for each of its sequences, and the others once. */
enum moe_code moe_results_add_sequence(struct moe_results *r, struct moe_ep *ep, int rank,
                                       const struct moe_sequence *s, struct moe_err *err);
enum moe_code moe_results_add_score(struct moe_results *r, struct moe_ep *ep, int rank,
                                    const struct moe_score_sums *s, struct moe_err *err);
enum moe_code moe_results_add_routing(struct moe_results *r, struct moe_ep *ep, int rank,
                                      const struct moe_recorder *m, struct moe_err *err);
enum moe_code moe_results_add_stats(struct moe_results *r, struct moe_ep *ep, int rank, struct moe_err *err);

struct moe_cache_counts moe_cache_counts(const struct moe_core_stats *s);
/* Added up over the ranks whose statistics have come; of this rank where it is the only one. */
struct moe_cache_counts moe_results_cache(const struct moe_results *r);

int64_t moe_results_lost(const struct moe_results *r); /* how many sequences have no answer */

#endif
