/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/score-pass.h - computes the hidden states of all windows of a text with one model, a layer
 * at a time, and then their logits.  Only runtime/engine/score.c includes it.
 *
 * One thread at a time uses a struct moe_score_side; the engine computes with its own pool. */
#ifndef MOE_RUNTIME_ENGINE_SCORE_PASS_H
#define MOE_RUNTIME_ENGINE_SCORE_PASS_H

#include "base/progress.h"
#include "runtime/engine/engine.h"

/* One of the two models of a score: the model itself or the reference.  H: hidden size. */
struct moe_score_side {
    struct moe_engine *e;
    int64_t n, window, batch;     /* positions of the text; of a window; computed at once */
    int fd;                       /* the scratch file that holds the states [n, H]; -1: memory does */
    char path[512];               /* the name of that file in messages */
    float *h;                     /* all states [n, H], or with a scratch file those of a batch [batch, H] */
    struct moe_latent cache;      /* of the windows of a batch, for one layer: that is computed at a time */
    struct moe_segment *segments; /* [windows of a batch] */
    bool drop;                    /* release the pages of a layer's weights when the layer is done */
};

/* How many positions are computed at once: those of several whole windows, or a part of one window. */
int64_t moe_score_batch(const struct moe_engine *e, int64_t window);
/* Bytes of host memory that one model takes besides its mapped files and the states of the text; bytes of
 * the states of n positions. */
uint64_t moe_score_side_bytes(const struct moe_engine *e, int64_t window, int threads);
uint64_t moe_score_state_bytes(const struct moe_engine *e, int64_t n);

/* Allocates states and caches.  scratch: the directory for the states; NULL: they are kept in memory.  The
 * caller has to close *d, also after a failure.  MOE_NOMEM, or what moe_scratch_open fails with. */
enum moe_code moe_score_side_open(struct moe_score_side *d, struct moe_engine *e, int64_t n, int64_t window,
                                  const char *scratch, bool drop, struct moe_err *err);
void moe_score_side_close(struct moe_score_side *d);

/* Computes the states of ids [n] after all layers.  progress (may be NULL) is advanced by the positions of
 * each layer. */
enum moe_code moe_score_side_run(struct moe_score_side *d, const int32_t *ids, struct moe_progress *progress,
                                 struct moe_err *err);
/* Computes the logits [m, V] of positions [at, at + m), m <= moe_forward_logit_rows, from their states. */
enum moe_code moe_score_side_logits(struct moe_score_side *d, int64_t at, int64_t m, float *logits,
                                    struct moe_err *err);

#endif
