/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/score.h - how well a model predicts a text, alone or against a reference model.
 *
 * Non-overlapping windows of `window` tokens, no BOS: window i feeds ids [i w, i w + w) and scores ids [i w +
 * 1, i w + w]; a last window with fewer targets is dropped.  nll: the mean of -ln p(target) in nats,
 * perplexity its exponential.  kl: the mean over positions of KL(reference || model) = sum_v p_ref(v) (ln
 * p_ref(v) - ln p(v)).  Log-probabilities are in double, sums in position order.
 *
 * A layer at a time over all windows, so that its weights are read once, whatever the length of the text, and
 * need not stay: the hidden states of all windows are kept instead, 4 H bytes a position and model, in memory
 * or in a file.  One model after the other, then the logits of both, some positions at a time.  Where the
 * models are larger than the memory allowed, the pages of a layer are given back after its last window.  A
 * position's numbers depend on its window alone: not on how many there are, nor on where states are kept. */
#ifndef MOE_RUNTIME_ENGINE_SCORE_H
#define MOE_RUNTIME_ENGINE_SCORE_H

#include "base/progress.h"
#include "runtime/engine/engine.h"

struct moe_score {
    int64_t tokens;               /* positions scored */
    double nll, perplexity;
    double nll_reference, perplexity_reference, perplexity_ratio /* of the model's to the reference's */;
    double kl, kl_p50, kl_p99, kl_max, top1_agreement; /* from nll_reference to here: with a reference */
    uint64_t anonymous;           /* bytes held at the end, besides mapped files */
};

struct moe_score_text {
    const int32_t *ids; int64_t n, window;
    /* bytes to hold besides the models' files; 0: what the machine has available */
    uint64_t memory;
    const char *scratch;          /* a directory for hidden states that memory does not hold; NULL: none */
};

/* The window where nobody asks for one: the most that is of use, or the engine's context if that is less. */
enum { MOE_SCORE_WINDOW = 2048 };
int64_t moe_score_window(const struct moe_engine *e);

/* Sums over some of the windows: over positions, and with a reference the KL divergence of each
 * (malloc'd, in any order). */
struct moe_score_sums { int64_t n, same; double nll, nll_reference, kl, *all; uint64_t anonymous; };

/* The windows of one of `ranks` ranks, which may be none.  reference may be NULL; the two must have the same
 * vocabulary size (MOE_MISMATCH).  MOE_USAGE when the text is shorter than a window, MOE_NOMEM before any
 * work when the states fit neither memory nor scratch.  free() s->all in any case. */
enum moe_code moe_score_part(struct moe_engine *e, struct moe_engine *reference,
                             const struct moe_score_text *t, int rank, int ranks, struct moe_pool *pool,
                             struct moe_progress *progress, struct moe_score_sums *s, struct moe_err *err);
enum moe_code moe_score_join(struct moe_score_sums *to, const struct moe_score_sums *more,
                             struct moe_err *err);
/* Of the sums of all, n > 0; sorts s->all. */
void moe_score_total(struct moe_score *r, struct moe_score_sums *s);

/* All of it. */
enum moe_code moe_score_text(struct moe_engine *e, struct moe_engine *reference,
                             const struct moe_score_text *t, struct moe_pool *pool,
                             struct moe_progress *progress, struct moe_score *s, struct moe_err *err);

#endif
