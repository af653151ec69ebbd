/* runtime/score.h - how well a model predicts a text, alone or against a reference model.
 *
 * Non-overlapping windows of `window` tokens, no BOS: window i feeds ids [i w, i w + w) and scores ids [i w + 1, i w + w]; a last window
 * with fewer targets is dropped.  nll: the mean of -ln p(target) in nats, perplexity its exponential.  kl: the mean over positions of
 * KL(reference || model) = sum_v p_ref(v) (ln p_ref(v) - ln p(v)).  Log-probabilities are in double, sums in position order. */
#ifndef MOE_RUNTIME_SCORE_H
#define MOE_RUNTIME_SCORE_H

#include "base/progress.h"
#include "runtime/engine.h"

struct moe_score {
    int64_t tokens;               /* positions scored */
    double nll, perplexity;
    double nll_reference, perplexity_reference, kl, kl_p50, kl_p99, kl_max, top1_agreement; /* with a reference */
};

/* reference may be NULL; the two must have the same vocabulary size (MOE_MISMATCH).  MOE_USAGE when the text is shorter than a window. */
enum moe_code moe_score_text(struct moe_engine *e, struct moe_engine *reference, const int32_t *ids, int64_t n, int64_t window,
                             struct moe_pool *pool, struct moe_progress *progress, struct moe_score *s, struct moe_err *err);

#endif
