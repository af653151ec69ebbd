/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/score.h - how well a model predicts a text, alone or against a reference model.
 *
 * The text is cut into windows of w tokens that do not overlap, without a BOS token.  Window i feeds ids
 * [i w, i w + w) to the model and scores, at each position, the probability that the model gives to the next
 * token: to ids [i w + 1, i w + w].
 * The rest of the text, shorter than that, is not scored.
 *
 *     nll         mean of -ln p(target) over all positions, in nats
 *     perplexity  exp(nll)
 *     kl          mean over positions of KL(reference || model) in nats, which is
 *                 sum_v p_ref(v) (ln p_ref(v) - ln p(v)) over the vocabulary
 *
 * Log-probabilities are computed in double, and added up in the order of positions.
 *
 * Each layer is computed for all windows before the next one, so that its weights are read once, whatever the
 * length of the text, and need not stay in memory.  Instead, the hidden states of all windows are kept: 4 H
 * bytes for a position and a model (H: hidden size), in memory or in a scratch file.  The model goes first,
 * then the reference, then the logits of both, some positions at a time.  Where the models are larger than
 * the memory allowed, the pages of a layer are released after its last window.  The numbers of a position
 * depend on its window alone: not on the number of windows, nor on where states are kept. */
#ifndef MOE_RUNTIME_ENGINE_SCORE_H
#define MOE_RUNTIME_ENGINE_SCORE_H

#include "base/progress.h"
#include "runtime/engine/engine.h"

struct moe_score {
    int64_t tokens;               /* positions scored */
    double nll, perplexity;
    /* From here to top1_agreement: 0 without a reference.  perplexity_ratio: the model's perplexity divided
     * by the reference's. */
    double nll_reference, perplexity_reference, perplexity_ratio;
    /* The mean of the KL divergence, its median, 99 % quantile and maximum, in nats; the share of positions
     * at which both models hold the same token to be the likeliest. */
    double kl, kl_p50, kl_p99, kl_max, top1_agreement;
    uint64_t anonymous;           /* moe_peak_anonymous at the end, before memory was freed */
};

struct moe_score_text {
    const int32_t *ids; int64_t n, window; /* ids [n]: the text; tokens of a window */
    /* bytes to hold at most besides the models' files; 0: what the machine has available */
    uint64_t memory;
    const char *scratch;          /* a directory for hidden states that memory does not hold; NULL: none */
};

/* The default window: MOE_SCORE_WINDOW tokens, or the engine's context if that is less. */
enum { MOE_SCORE_WINDOW = 2048 };
int64_t moe_score_window(const struct moe_engine *e);

/* Sums over the positions of some windows.  n: positions; same: those at which both models hold the same
 * token to be the likeliest; nll, nll_reference, kl: sums in nats; all [n]: the KL divergence of each
 * position, in any order, malloc'd (NULL without a reference); anonymous: as in struct moe_score, the
 * largest of the ranks added up. */
struct moe_score_sums { int64_t n, same; double nll, nll_reference, kl, *all; uint64_t anonymous; };

/* Sets *s to the sums over the windows of rank `rank` of `ranks`; it may have none.  reference may be NULL;
 * the two models must have the same vocabulary size (MOE_MISMATCH).  progress may be NULL.  MOE_USAGE when
 * the window does not fit the context, or the text is shorter than a window; MOE_NOMEM before any work when
 * the states fit neither into memory nor into scratch.  The caller has to free() s->all, also after a
 * failure. */
enum moe_code moe_score_part(struct moe_engine *e, struct moe_engine *reference,
                             const struct moe_score_text *t, int rank, int ranks, struct moe_pool *pool,
                             struct moe_progress *progress, struct moe_score_sums *s, struct moe_err *err);
/* Adds *more to *to.  MOE_NOMEM, and *to is as before. */
enum moe_code moe_score_join(struct moe_score_sums *to, const struct moe_score_sums *more,
                             struct moe_err *err);
/* Sets *r from the sums over all windows, with s->n > 0; sorts s->all. */
void moe_score_total(struct moe_score *r, struct moe_score_sums *s);

/* Scores a text with one rank: moe_score_part and moe_score_total. */
enum moe_code moe_score_text(struct moe_engine *e, struct moe_engine *reference,
                             const struct moe_score_text *t, struct moe_pool *pool,
                             struct moe_progress *progress, struct moe_score *s, struct moe_err *err);

#endif
