/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/score-pass.h"

#include "base/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- open and close ---- */

int64_t moe_score_batch(const struct moe_engine *e, int64_t window)
{
    return window < e->batch ? e->batch / window * window : e->batch;
}
/* Pages of the cache for the windows of a batch. */
static int64_t pages_of(int64_t batch, int64_t window)
{
    return (batch > window ? batch / window : 1) * moe_latent_pages(window);
}

uint64_t moe_score_state_bytes(const struct moe_engine *e, int64_t n)
{
    return (uint64_t)(n * e->model->config.hidden_size) * sizeof(float);
}

uint64_t moe_score_side_bytes(const struct moe_engine *e, int64_t window, int threads)
{
    int64_t batch = moe_score_batch(e, window);
    const struct moe_config *c = &e->model->config;
    const struct moe_cpu_options o = { .max_tokens = e->batch, .context = window };
    if (e->cuda) return moe_score_state_bytes(e, batch); /* the rest is on the GPU */
    return moe_cpu_estimate(c, &o, threads) + moe_forward_estimate(c, e->batch) +
           moe_score_state_bytes(e, batch) +
           moe_latent_estimate(c, MOE_LATENT_F32, 1, pages_of(batch, window));
}

static enum moe_code open_buffers(struct moe_score_side *d, struct moe_err *err)
{
    int64_t windows = d->batch > d->window ? d->batch / d->window : 1;
    d->h = malloc(moe_score_state_bytes(d->e, d->fd < 0 ? d->n : d->batch));
    d->segments = calloc((size_t)windows, sizeof *d->segments);
    if (!d->h || !d->segments)
        return moe_fail(err, MOE_NOMEM,
                        "no memory for the states of %lld tokens (try --scratch DIR or less text)",
                        (long long)d->n);
    return moe_latent_open(&d->cache, d->e->device, 1, pages_of(d->batch, d->window), err);
}

enum moe_code moe_score_side_open(struct moe_score_side *d, struct moe_engine *e, int64_t n, int64_t window,
                                  const char *scratch, bool drop, struct moe_err *err)
{
    *d = (struct moe_score_side){
        .e = e, .n = n, .window = window, .batch = moe_score_batch(e, window), .fd = -1, .drop = drop
    };
    if (scratch)
        MOE_TRY(moe_scratch_open(scratch, moe_score_state_bytes(d->e, d->n), d->path, sizeof d->path, &d->fd,
                                 err));
    return open_buffers(d, err);
}

void moe_score_side_close(struct moe_score_side *d)
{
    if (!d->e) return;
    if (d->fd >= 0) close(d->fd);
    free(d->h);
    moe_latent_release(&d->cache);
    free(d->segments);
    *d = (struct moe_score_side){ .fd = -1 };
}

/* ---- states ---- */

static size_t row_bytes(const struct moe_score_side *d)
{
    return (size_t)d->e->model->config.hidden_size * sizeof(float);
}

/* Makes the states of positions [at, at + m) available at *h; put() stores them again after a change. */
static enum moe_code get(struct moe_score_side *d, int64_t at, int64_t m, float **h, struct moe_err *err)
{
    *h = d->fd < 0 ? d->h + at * d->e->model->config.hidden_size : d->h;
    return d->fd < 0
             ? MOE_OK
             : moe_pread(d->fd, d->path, d->h, (size_t)m * row_bytes(d), (uint64_t)at * row_bytes(d), err);
}

static enum moe_code put(struct moe_score_side *d, int64_t at, int64_t m, struct moe_err *err)
{
    return d->fd < 0
             ? MOE_OK
             : moe_pwrite(d->fd, d->path, d->h, (size_t)m * row_bytes(d), (uint64_t)at * row_bytes(d), err);
}

/* ---- layers ---- */

/* Releases the pages of a layer's tensors (-1: embedding, final norm, head), which will not be read again
 * soon, where d->drop says so. */
static void give_back(const struct moe_score_side *d, int layer)
{
    const struct moe_source *src = d->e->model->source;
    for (int64_t i = 0; d->drop && i < src->n_tensors; i++)
        for (int p = 0; src->tensors[i].layer == layer && p < MOE_PLANE_COUNT; p++)
            moe_source_drop(src, &src->tensors[i].plane[p]);
}

/* How many positions from `at` on are computed at once: whole windows, or those up to the end of a window. */
static int64_t batch_at(const struct moe_score_side *d, int64_t at)
{
    int64_t end = d->batch >= d->window ? d->n : at - at % d->window + d->window;
    return end - at < d->batch ? end - at : d->batch;
}

/* Divides positions [at, at + m) into segments, one for each window; returns their number. */
static int64_t make_segments(struct moe_score_side *d, int64_t at, int64_t m)
{
    const int32_t *page = d->cache.every;
    int64_t n = 0, pages = moe_latent_pages(d->window);
    if (d->batch < d->window) d->segments[n++] = (struct moe_segment){ &d->cache, page, at % d->window, m };
    else
        for (; n * d->window < m; n++)
            d->segments[n] = (struct moe_segment){ &d->cache, page + n * pages, 0, d->window };
    return n;
}

static enum moe_code run_layer(struct moe_score_side *d, int layer, struct moe_progress *progress,
                               struct moe_err *err)
{
    float *h;
    for (int64_t at = 0, m; at < d->n; at += m) {
        m = batch_at(d, at);
        MOE_TRY(get(d, at, m, &h, err));
        const struct moe_batch b = { NULL, m, d->segments, make_segments(d, at, m) };
        moe_forward_put(d->e->forward, h, m);
        moe_forward_layer(d->e->forward, layer, &b);
        MOE_TRY(moe_forward_get(d->e->forward, h, m, err));
        MOE_TRY(put(d, at, m, err));
        moe_progress_add(progress, (uint64_t)m);
        MOE_TRY(moe_cancel_check(d->e->cancel, err));
    }
    give_back(d, layer);
    return MOE_OK;
}

enum moe_code moe_score_side_run(struct moe_score_side *d, const int32_t *ids, struct moe_progress *progress,
                                 struct moe_err *err)
{
    float *h;
    for (int64_t at = 0, m; at < d->n; at += m) {
        m = batch_at(d, at);
        MOE_TRY(get(d, at, 0, &h, err));
        const struct moe_batch b = { .tokens = ids + at, .n = m };
        MOE_TRY(moe_forward_embed(d->e->forward, &b, err));
        MOE_TRY(moe_forward_get(d->e->forward, h, m, err));
        MOE_TRY(put(d, at, m, err));
    }
    give_back(d, -1);
    for (int l = 0; l < d->e->model->config.num_hidden_layers; l++) MOE_TRY(run_layer(d, l, progress, err));
    return MOE_OK;
}

enum moe_code moe_score_side_logits(struct moe_score_side *d, int64_t at, int64_t m, float *logits,
                                    struct moe_err *err)
{
    float *h;
    MOE_TRY(get(d, at, m, &h, err));
    moe_forward_put(d->e->forward, h, m);
    moe_forward_logits(d->e->forward, NULL, m, logits);
    return moe_forward_wait(d->e->forward, err);
}
