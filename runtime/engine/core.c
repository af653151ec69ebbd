/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/core-internal.h"

#include "base/io.h"
#include "base/minmax.h"
#include "base/show.h"

#include <stdlib.h>

double moe_core_now(const struct moe_core *c) { return c->o.now ? c->o.now(c->o.clock) : moe_now(); }

/* ---- open and close ---- */

uint64_t moe_core_page_bytes(const struct moe_config *g, enum moe_latent_type type)
{
    return moe_latent_estimate(g, type, g->num_hidden_layers, 1) + moe_pages_estimate(1);
}

/* As many as so many bytes hold. */
static int64_t pages_in(uint64_t bytes, uint64_t page)
{
    return bytes / page < INT32_MAX ? (int64_t)(bytes / page) : INT32_MAX;
}

/* Chooses the pages: as many bytes as were asked for; or else a full context and what the engine leaves
 * besides it, but no more than all sequences at once.  What the caller knows to be of no use is left out. */
static enum moe_code choose_pages(const struct moe_core *c, int64_t *pages, struct moe_err *err)
{
    uint64_t page = moe_core_page_bytes(&c->e->model->config, c->e->device->latents);
    int64_t longest = moe_latent_pages(c->e->context);
    int64_t allowed = moe_min_i64(INT32_MAX, longest + pages_in(c->e->spare, page));
    char asked[16], have[16];
    *pages = c->o.cache ? pages_in(c->o.cache, page) : allowed;
    if (!c->o.cache && *pages / longest >= c->o.sequences) *pages = longest * c->o.sequences;
    if (c->o.positions > 0) *pages = moe_min_i64(*pages, moe_latent_pages(c->o.positions));
    if (*pages < 1) return moe_fail(err, MOE_USAGE, "the cache holds no page of %d positions", MOE_PAGE);
    if (*pages <= allowed) return MOE_OK;
    return moe_fail(err, MOE_NOMEM, "a cache of %s does not fit what memory leaves for it, %s (try less)",
                    moe_human_bytes((uint64_t)*pages * page, asked),
                    moe_human_bytes((uint64_t)allowed * page, have));
}

/* The tokens after which an answer ends: those of the model, and those that end a turn or a text. */
static bool find_ends(struct moe_core *c)
{
    static const char *const names[] = { "<|im_end|>", "[EOS]" };
    const struct moe_config *g = &c->e->model->config;
    c->ends.id = calloc((size_t)g->n_eos + 2, sizeof *c->ends.id);
    if (!c->ends.id) return false;
    for (int64_t i = 0; i < g->n_eos; i++)
        if (g->eos_token_id[i] >= 0) c->ends.id[c->ends.n++] = (int32_t)g->eos_token_id[i];
    for (int i = 0; c->e->tokenizer && i < 2; i++) {
        int32_t id = moe_token_find_special(c->e->tokenizer, names[i]);
        if (id >= 0) c->ends.id[c->ends.n++] = id;
    }
    return true;
}

static enum moe_code open_cache(struct moe_core *c, struct moe_err *err)
{
    const struct moe_config *g = &c->e->model->config;
    int64_t pages;
    MOE_TRY(choose_pages(c, &pages, err));
    const struct moe_schedule_limits limits = { .batch_tokens = c->o.batch_tokens,
                                                .chunk = c->o.chunk,
                                                .running = c->o.sequences,
                                                .aging = c->o.aging };
    MOE_TRY(moe_latent_open(&c->cache, c->e->device, g->num_hidden_layers, pages, err));
    MOE_TRY(moe_pages_open(&c->pages, pages, err));
    c->stats.pages = pages;
    c->stats.cache_bytes = c->cache.bytes;
    c->stats.page_bytes = c->cache.bytes / (uint64_t)pages;
    return moe_schedule_open(&c->schedule, c->pages, &limits, err);
}

static enum moe_code open_parts(struct moe_core *c, struct moe_err *err)
{
    size_t n = (size_t)c->o.sequences, v = (size_t)c->e->model->config.vocab_size;
    c->rows = moe_min_i64(moe_forward_logit_rows(&c->e->model->config, c->e->batch), c->o.sequences);
    c->segment = calloc(n, sizeof *c->segment);
    c->wanted = calloc(n, sizeof *c->wanted);
    c->row = calloc(n, sizeof *c->row);
    c->tokens = calloc((size_t)c->o.batch_tokens, sizeof *c->tokens);
    c->logits = malloc((size_t)c->rows * v * sizeof *c->logits);
    c->order = malloc(v * sizeof *c->order);
    c->p = malloc(v * sizeof *c->p);
    if (!c->segment || !c->wanted || !c->row || !c->tokens || !c->logits || !c->order || !c->p ||
        !find_ends(c))
        return moe_fail(err, MOE_NOMEM, "no memory for %lld sequences", (long long)c->o.sequences);
    return open_cache(c, err);
}

static void open_locks(struct moe_core *c)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->work, &monotonic);
    pthread_cond_init(&c->news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&c->lock, NULL);
}

enum moe_code moe_core_open(struct moe_core **out, struct moe_engine *e, const struct moe_core_options *o,
                            struct moe_err *err)
{
    struct moe_core *c = calloc(1, sizeof *c);
    *out = c;
    if (!c) return moe_fail(err, MOE_NOMEM, "no memory for an engine");
    c->e = e;
    c->o = *o;
    c->free_slot = -1;
    c->asked_end = &c->asked;
    c->changed_end = &c->changed;
    if (o->batch_tokens < 1 || o->batch_tokens > e->batch) c->o.batch_tokens = e->batch;
    if (o->sequences < 1 || o->sequences > c->o.batch_tokens) c->o.sequences = c->o.batch_tokens;
    open_locks(c);
    enum moe_code code = open_parts(c, err);
    c->shown = c->stats;
    if (code != MOE_OK) moe_core_close(out);
    return code;
}

static void close_entries(struct moe_core *c)
{
    for (struct moe_entry *e = c->asked, *next; e; e = next) {
        next = e->next_asked;
        if (e->orphan) moe_entry_free(e);
    }
    for (int64_t i = 0; i < c->n_slots; i++) {
        struct moe_entry *e = c->slot[i].entry;
        if (e && e->state == MOE_ENTRY_SCHEDULED) moe_schedule_end(c->schedule, &e->job);
        moe_entry_free(e);
    }
}

void moe_core_close(struct moe_core **out)
{
    struct moe_core *c = *out;
    if (!c) return;
    close_entries(c);
    moe_schedule_close(&c->schedule);
    moe_pages_close(&c->pages);
    moe_latent_release(&c->cache);
    pthread_cond_destroy(&c->work);
    pthread_cond_destroy(&c->news);
    pthread_mutex_destroy(&c->lock);
    free(c->slot);
    free(c->timer);
    free(c->ends.id);
    free(c->segment);
    free(c->wanted);
    free(c->row);
    free(c->tokens);
    free(c->logits);
    free(c->order);
    free(c->p);
    free(c);
    *out = NULL;
}

/* ---- steps ---- */

/* The next token of one that is up to date.  An answer of no tokens is done already, and ends with its
 * prompt. */
static void advance(struct moe_core *c, struct moe_entry *e, float *logits)
{
    struct moe_err err;
    if (e->state == MOE_ENTRY_ENDED) return;
    enum moe_code code = e->answer.done ? MOE_OK : moe_core_sample(c, e, logits, &err);
    if (code != MOE_OK) moe_core_end(c, e, MOE_FINISH_ERROR, &err);
    else if (e->answer.done) moe_core_end(c, e, e->answer.finish, NULL);
    else moe_core_change(c, e);
}

static enum moe_code compute(struct moe_core *c, const struct moe_schedule_step *step, struct moe_err *err)
{
    int64_t wanted, v = c->e->model->config.vocab_size;
    double begun = moe_now(), passed = c->stats.seconds_pass;
    enum moe_code code = moe_core_pass(c, step, &wanted, err);
    for (int64_t i = 0; code == MOE_OK && i < wanted; i++) {
        if (i % c->rows == 0) code = moe_core_logits(c, i, moe_min_i64(c->rows, wanted - i), err);
        if (code == MOE_OK) advance(c, c->wanted[i], c->logits + i % c->rows * v);
    }
    c->stats.seconds_sample += moe_now() - begun - (c->stats.seconds_pass - passed);
    return code;
}

/* Ends all requests with the failure that ends the core.  Later submissions fail with it, too. */
static enum moe_code fail_all(struct moe_core *c, enum moe_code code, const struct moe_err *err)
{
    pthread_mutex_lock(&c->lock);
    c->code = c->closed = code;
    c->err = *err;
    pthread_mutex_unlock(&c->lock);
    moe_core_drain(c);
    for (int64_t i = 0;; i++) {
        pthread_mutex_lock(&c->lock);
        bool more = i < c->n_slots;
        struct moe_entry *e = more ? c->slot[i].entry : NULL;
        if (e && e->ended) e = NULL;
        pthread_mutex_unlock(&c->lock);
        if (!more) break;
        if (e) moe_core_end(c, e, MOE_FINISH_ERROR, err);
    }
    moe_core_publish(c);
    return code;
}

enum moe_code moe_core_step(struct moe_core *c, bool *worked, struct moe_err *err)
{
    *worked = false;
    if (c->code != MOE_OK) {
        *err = c->err;
        return c->code;
    }
    double begun = moe_now();
    bool drained = moe_core_drain(c), expired = moe_core_expire(c);
    const struct moe_schedule_step *step = moe_schedule_plan(c->schedule);
    c->stats.seconds_plan += moe_now() - begun;
    *worked = drained || expired || step->n_rows > 0;
    enum moe_code code = step->n_rows ? compute(c, step, err) : MOE_OK;
    if (code != MOE_OK) return fail_all(c, code, err);
    moe_core_publish(c);
    return MOE_OK;
}

const char *moe_core_check(struct moe_core *c) { return moe_schedule_check(c->schedule); }
