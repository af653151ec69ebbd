/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/score-pass.h - the hidden states of many windows, taken through a model a layer at a time;
 * for runtime/engine/score.c alone. */
#ifndef MOE_RUNTIME_ENGINE_SCORE_PASS_H
#define MOE_RUNTIME_ENGINE_SCORE_PASS_H

#include "base/progress.h"
#include "runtime/engine/engine.h"

/* One model's part.  Either h holds all states [n, H], or they lie in a file and h holds
 * those at hand [batch, H]. */
struct moe_score_side {
    struct moe_engine *e;
    int64_t n, window, batch;     /* positions; of a window; moe_score_batch */
    int fd;                       /* of the file; -1: none */
    char path[512];
    float *h;
    float *kv; struct moe_kv *caches; float **rows; /* of one layer: all layers of a cache share its rows */
    struct moe_segment *segments;
    bool drop;                    /* give a layer's pages back when it is done */
};

/* Positions that are done at once: whole windows, or a piece of one. */
int64_t moe_score_batch(const struct moe_engine *e, int64_t window);
/* Bytes that a side holds besides its states, and those. */
uint64_t moe_score_side_bytes(const struct moe_engine *e, int64_t window, int threads);
uint64_t moe_score_state_bytes(const struct moe_engine *e, int64_t n);

/* scratch NULL: states in memory.  Close in any case. */
enum moe_code moe_score_side_open(struct moe_score_side *d, struct moe_engine *e, int64_t n, int64_t window,
                                  const char *scratch, bool drop, struct moe_err *err);
void moe_score_side_close(struct moe_score_side *d);

/* ids [n] through all layers; progress counts positions, once for each layer. */
enum moe_code moe_score_side_run(struct moe_score_side *d, const int32_t *ids, struct moe_progress *progress,
                                 struct moe_err *err);
/* Logits [m, V] of positions [at, at + m), m <= batch. */
enum moe_code moe_score_side_logits(struct moe_score_side *d, int64_t at, int64_t m, float *logits,
                                    struct moe_err *err);

#endif
