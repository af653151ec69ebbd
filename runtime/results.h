/* runtime/results.h - what the ranks of a run have found.  Each tells all others what it has as soon as it has it, so any that is left
 * at the end can report, and what a lost rank had finished is not lost with it. */
#ifndef MOE_RUNTIME_RESULTS_H
#define MOE_RUNTIME_RESULTS_H

#include "runtime/ep.h"
#include "runtime/recorder.h"
#include "runtime/score.h"
#include "runtime/sequences.h"

struct moe_result { bool there; int rank; struct moe_generated out; };

struct moe_results {
    int ranks;
    int64_t n_sequences;
    struct moe_result *sequence;      /* [n_sequences] by index */
    struct moe_score_sums sums;       /* of all ranks that told theirs */
    bool *scored;                     /* [ranks] which did */
    int64_t *routing;                 /* counts and tokens of the others, as in struct moe_recorder; NULL: none were told */
    size_t routing_bytes;
    struct moe_ep_stats *stats;       /* [ranks] at the end of their own work */
    enum moe_code code;               /* MOE_NOMEM when something heard could not be kept */
};

enum moe_code moe_results_open(struct moe_results **r, int ranks, int64_t n_sequences, struct moe_err *err);
void moe_results_close(struct moe_results **r); /* NULL-safe; nulls */

/* moe_ep_options.heard, ctx being the results. */
void moe_results_heard(void *results, int from, uint32_t kind, const void *data, size_t bytes);

/* This rank has it: keep (a copy), and tell the others unless ep is NULL. */
enum moe_code moe_results_sequence(struct moe_results *r, struct moe_ep *ep, int rank, const struct moe_sequence *s, struct moe_err *err);
enum moe_code moe_results_score(struct moe_results *r, struct moe_ep *ep, int rank, const struct moe_score_sums *s, struct moe_err *err);
enum moe_code moe_results_routing(struct moe_results *r, struct moe_ep *ep, const struct moe_recorder *m, struct moe_err *err);
enum moe_code moe_results_stats(struct moe_results *r, struct moe_ep *ep, int rank, struct moe_err *err);

/* "sequences": an array of text, tokens, prompt_tokens, finish_reason (lost: with the rank that had it), rank. */
void moe_results_json(const struct moe_results *r, const struct moe_sequence *prompts, cJSON *json);
int64_t moe_results_lost(const struct moe_results *r); /* sequences without a result */

#endif
