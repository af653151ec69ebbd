/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/results.h - what the ranks of a run have found.  Each tells all others what it has
 * as soon as it has it, so any that is left at the end can report, and what a lost rank had
 * finished is not lost with it. */
#ifndef MOE_RUNTIME_ENGINE_RESULTS_H
#define MOE_RUNTIME_ENGINE_RESULTS_H

#include "runtime/engine/recorder.h"
#include "runtime/engine/score.h"
#include "runtime/engine/sequences.h"
#include "runtime/parallel/ep.h"

struct moe_result { bool there; int rank; struct moe_generated out; };

/* What results a run can have; what other ranks tell is held against it. */
struct moe_results_shape {
    int64_t n_sequences;
    int64_t vocab;        /* tokens are below it */
    bool reference;       /* --score has one, so every rank tells the divergence of each position */
    size_t routing_bytes; /* of struct moe_recorder; 0: none is recorded */
};

struct moe_results {
    int ranks;
    struct moe_results_shape shape;
    int64_t n_sequences;
    struct moe_result *sequence;      /* [n_sequences] by index */
    struct moe_score_sums sums;       /* of all ranks that told theirs */
    bool *scored, *routed, *ended;    /* [ranks] which told their sums, their counts, their stats */
    int64_t *routing; /* counts and tokens of all, as in struct moe_recorder; NULL: none were told */
    struct moe_ep_stats *stats; /* [ranks] at the end of their own work */
};

enum moe_code moe_results_open(struct moe_results **r, int ranks, const struct moe_results_shape *shape,
                               struct moe_err *err);
void moe_results_close(struct moe_results **r); /* NULL-safe; nulls */

/* moe_ep_options.heard, ctx being the results.  MOE_DEVICE for what no rank of this run tells, or tells
 * twice. */
enum moe_code moe_results_heard(void *results, int from, uint32_t kind, const void *data, size_t bytes,
                                struct moe_err *err);

/* This rank has it: keep (a copy), and tell the others unless ep is NULL. */
enum moe_code moe_results_sequence(struct moe_results *r, struct moe_ep *ep, int rank,
                                   const struct moe_sequence *s, struct moe_err *err);
enum moe_code moe_results_score(struct moe_results *r, struct moe_ep *ep, int rank,
                                const struct moe_score_sums *s, struct moe_err *err);
enum moe_code moe_results_routing(struct moe_results *r, struct moe_ep *ep, int rank,
                                  const struct moe_recorder *m, struct moe_err *err);
enum moe_code moe_results_stats(struct moe_results *r, struct moe_ep *ep, int rank, struct moe_err *err);

/* "sequences": an array of text, tokens, prompt_tokens, finish_reason (lost: with the
 * rank that had it), rank. */
void moe_results_json(const struct moe_results *r, const struct moe_sequence *prompts, cJSON *json);
int64_t moe_results_lost(const struct moe_results *r); /* sequences without a result */

#endif
