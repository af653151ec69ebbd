/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/calibrate/correction.h"

#include "base/io.h"
#include "base/minmax.h"

#include <stdlib.h>

#define STEP 1.5 /* of the Richardson iteration (correction.h) */

uint64_t moe_correction_estimate(const struct moe_source *src, int64_t n, bool in_files)
{
    return moe_walk_twin_estimate(src, n, in_files) +
           (uint64_t)n * (uint64_t)src->config.num_experts_per_tok * sizeof(float);
}

enum moe_code moe_correction_open(struct moe_correction *d, const struct moe_walk *w, const char *states,
                                  struct moe_err *err)
{
    *d = (struct moe_correction){ .open = true };
    MOE_TRY(moe_walk_twin(&d->walk, w, states, err));
    d->share = malloc((size_t)(w->n * w->src->config.num_experts_per_tok + 1) * sizeof *d->share);
    return d->share ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for calibration");
}

void moe_correction_close(struct moe_correction *d)
{
    if (!d->open) return;
    moe_walk_close(&d->walk);
    free(d->share);
    *d = (struct moe_correction){ 0 };
}

enum moe_code moe_correction_pass(struct moe_correction *d, int layer, struct moe_err *err)
{
    while (d->walk.layer <= layer) MOE_TRY(moe_walk_pass_layer_by_source(&d->walk, err));
    return MOE_OK;
}

static void add_squares(double *sum, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) *sum += (double)x[i] * (double)x[i];
}

/* Replaces d->walk.sum by D = (the source's state) - (h + sum + experts), where h is the state of w before
 * its MLPs, sum is what its shared expert adds, and experts, which d->walk.sum holds before, is what its
 * unquantized experts add. */
static enum moe_code subtract(struct moe_correction *d, struct moe_walk *w, struct moe_err *err)
{
    const struct moe_states *minus[] = { &w->h, &w->sum, &d->walk.sum };
    float *residual = w->batch;

    d->residual2 = d->state2 = 0;
    for (int64_t at = 0, n; at < w->n; at += n) {
        n = moe_min_i64(MOE_WALK_PIECE, w->n - at);
        int64_t values = n * w->h.width;

        MOE_TRY(moe_states_read(&d->walk.h, at, n, residual, err));
        add_squares(&d->state2, residual, values);
        for (int k = 0; k < 3; k++) {
            MOE_TRY(moe_states_read(minus[k], at, n, w->piece, err));
            for (int64_t i = 0; i < values; i++) residual[i] -= w->piece[i];
        }
        add_squares(&d->residual2, residual, values);
        MOE_TRY(moe_states_write(&d->walk.sum, at, n, residual, err));
    }
    return MOE_OK;
}

/* Fills d->share.  The choices are sorted by expert, so those of one token are in several places.  A first
 * pass therefore sums the squares of each token's routing weights, into the importance of the source's walk,
 * which nothing else uses by now. */
static void divide(struct moe_correction *d, const struct moe_walk *w)
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

enum moe_code moe_correction_measure(struct moe_correction *d, struct moe_walk *w,
                                     const struct moe_shard_unit *u, struct moe_err *err)
{
    double from = moe_now(), forward = w->seconds[2];
    MOE_TRY(moe_correction_pass(d, w->layer, err));
    MOE_TRY(moe_states_zero(&d->walk.sum, err));
    MOE_TRY(moe_walk_experts(w, u, NULL, &d->walk.sum, err));
    w->seconds[2] = forward; /* the time just spent is counted in d->seconds */
    MOE_TRY(subtract(d, w, err));
    divide(d, w);
    d->seconds = moe_now() - from;
    return MOE_OK;
}

void moe_correction_expert(const struct moe_correction *d, const struct moe_walk *w, int64_t e,
                           struct moe_mlp_tokens *t)
{
    t->residual = &d->walk.sum;
    t->share = d->share + w->first[e];
}
