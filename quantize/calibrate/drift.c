/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/calibrate/drift.h"

#include "base/io.h"
#include "model/forward-parts.h"
#include "quantize/rounding/least.h"

#include <stdlib.h>

#define STEP 1.5

uint64_t moe_drift_estimate(const struct moe_source *src, int64_t n, bool in_files)
{
    return moe_walk_twin_estimate(src, n, in_files) +
           (uint64_t)n * (uint64_t)src->config.num_experts_per_tok * sizeof(float);
}

enum moe_code moe_drift_open(struct moe_drift *d, const struct moe_walk *w, const char *states,
                             struct moe_err *err)
{
    *d = (struct moe_drift){ .open = true };
    MOE_TRY(moe_walk_twin(&d->walk, w, states, err));
    d->share = malloc((size_t)(w->n * w->src->config.num_experts_per_tok + 1) * sizeof *d->share);
    return d->share ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for calibration");
}

void moe_drift_close(struct moe_drift *d)
{
    if (!d->open) return;
    moe_walk_close(&d->walk);
    free(d->share);
    *d = (struct moe_drift){ 0 };
}

enum moe_code moe_drift_pass(struct moe_drift *d, int layer, struct moe_err *err)
{
    while (d->walk.layer <= layer) MOE_TRY(moe_walk_pass(&d->walk, err));
    return MOE_OK;
}

/* D of the walk's tokens into d's sum, which holds what the unquantized experts make of them. */
static enum moe_code subtract(struct moe_drift *d, struct moe_walk *w, struct moe_err *err)
{
    const struct moe_states *minus[] = { &w->h, &w->sum, &d->walk.sum };
    float *lack = w->batch, *x = w->f->x;
    d->lack = d->size = 0;
    for (int64_t at = 0, n, width = w->h.width; at < w->n; at += n) {
        n = least(moe_walk_batch(w->sequence), w->n - at);
        MOE_TRY(moe_states_read(&d->walk.h, at, n, lack, err));
        for (int64_t i = 0; i < n * width; i++) d->size += (double)lack[i] * (double)lack[i];
        for (int k = 0; k < 3; k++) {
            MOE_TRY(moe_states_read(minus[k], at, n, x, err));
            for (int64_t i = 0; i < n * width; i++) lack[i] -= x[i];
        }
        for (int64_t i = 0; i < n * width; i++) d->lack += (double)lack[i] * (double)lack[i];
        MOE_TRY(moe_states_write(&d->walk.sum, at, n, lack, err));
    }
    return MOE_OK;
}

/* The choices of a token lie in several places: its sum of squares first, in the source's importance,
 * which nothing else needs now. */
static void divide(struct moe_drift *d, const struct moe_walk *w)
{
    float *squares = d->walk.importance;
    int64_t choices = w->n * w->src->config.num_experts_per_tok;
    for (int64_t t = 0; t < w->n; t++) squares[t] = 0;
    for (int64_t i = 0; i < choices; i++) squares[w->row[i]] += w->row_weight[i] * w->row_weight[i];
    for (int64_t i = 0; i < choices; i++) {
        float s = squares[w->row[i]];
        d->share[i] = s > 0 ? (float)(STEP * (double)w->row_weight[i] / (double)s) : 0;
    }
}

enum moe_code moe_drift_measure(struct moe_drift *d, struct moe_walk *w, const struct moe_shard_unit *u,
                                struct moe_err *err)
{
    double from = moe_now(), forward = w->seconds[2];
    MOE_TRY(moe_drift_pass(d, w->layer, err));
    MOE_TRY(moe_states_zero(&d->walk.sum, err));
    MOE_TRY(moe_walk_experts(w, u, NULL, &d->walk.sum, err));
    w->seconds[2] = forward; /* those are of d */
    MOE_TRY(subtract(d, w, err));
    divide(d, w);
    d->seconds = moe_now() - from;
    return MOE_OK;
}

void moe_drift_expert(const struct moe_drift *d, const struct moe_walk *w, int64_t e,
                      struct moe_mlp_tokens *t)
{
    t->lack = &d->walk.sum;
    t->share = d->share + w->first[e];
}
