/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/sequences.h"

#include "base/minmax.h"
#include "runtime/engine/completion.h"
#include "runtime/engine/schedule.h"

#include <stdlib.h>
#include <string.h>

/* A sequence that was submitted.  The job is first, so that a pointer to it is one to this. */
struct work {
    struct moe_job job;
    struct moe_sequence *s;
    struct moe_completion completion;
    struct work *next;              /* in the list of those that are submitted, or of those that are free */
};

struct batch {
    struct moe_engine *e;
    struct moe_generate g;
    struct moe_sequence *s;
    int64_t n, begun, ended;        /* sequences; those that were submitted; those that are complete */
    struct work *work; int64_t n_work;
    struct work *idle;              /* the list of those that are free */
    struct moe_pages *pages;
    struct moe_latent cache;
    struct moe_schedule *schedule;
    struct moe_segment *segment;    /* [n_work] of the present pass */
    struct work **wanted;           /* [n_work]: whose logits the present pass gives */
    int32_t *tokens;                /* [batch] of the present pass */
    float *logits; int64_t rows;    /* [rows, V]: logits are computed for at most `rows` tokens at once */
    bool apart;                     /* sequences share no pages, so that each token of each is computed */
    /* `ended` of moe_sequences_run */
    enum moe_code (*told)(void *, const struct moe_sequence *, struct moe_err *);
    void *ctx;
};

/* The largest number of tokens that a sequence may generate. */
static int64_t max_tokens_of(const struct batch *b, const struct moe_sequence *s)
{
    int64_t rest = b->e->context - s->n_ids;
    return b->g.max_tokens >= 0 && b->g.max_tokens < rest ? b->g.max_tokens : rest;
}

static int64_t pages_of(const struct batch *b, const struct moe_sequence *s)
{
    return moe_latent_pages(s->n_ids + max_tokens_of(b, s));
}

/* ---- open and close ---- */

/* As many pages as all sequences could use, or as the engine's spare memory holds besides a full context:
 * the engine's own cache is estimated full, but is not in use here. */
static int64_t pages_that_fit(const struct batch *b)
{
    const struct moe_config *c = &b->e->model->config;
    uint64_t page = moe_latent_estimate(c, c->num_hidden_layers, 1) + moe_pages_estimate(1);
    int64_t all = 0, most = moe_latent_pages(b->e->context);
    for (int64_t i = 0; i < b->n; i++) all += pages_of(b, &b->s[i]);
    if (b->e->spare / page < (uint64_t)(INT32_MAX - most)) most += (int64_t)(b->e->spare / page);
    else most = INT32_MAX;
    return moe_min_i64(all, most);
}

/* How many sequences are computed at once.  Where each token has to be computed once, none may be preempted,
 * so that many have room for their longest. */
static int64_t sequences_at_once(const struct batch *b, int64_t pages)
{
    int64_t longest = 1, n = moe_min_i64(b->e->batch, b->n);
    for (int64_t i = 0; i < b->n; i++) longest = moe_max_i64(longest, pages_of(b, &b->s[i]));
    return b->apart ? moe_min_i64(n, pages / longest) : n;
}

static enum moe_code open_batch(struct batch *b, struct moe_err *err)
{
    const struct moe_config *c = &b->e->model->config;
    int64_t pages = pages_that_fit(b);
    b->n_work = sequences_at_once(b, pages);
    b->rows = moe_min_i64(moe_engine_logit_rows(c), b->n_work);
    b->work = calloc((size_t)b->n_work, sizeof *b->work);
    b->segment = calloc((size_t)b->n_work, sizeof *b->segment);
    b->wanted = calloc((size_t)b->n_work, sizeof *b->wanted);
    b->tokens = calloc((size_t)b->e->batch, sizeof *b->tokens);
    b->logits = malloc((size_t)(b->rows * c->vocab_size) * sizeof *b->logits);
    if (!b->work || !b->segment || !b->wanted || !b->tokens || !b->logits)
        return moe_fail(err, MOE_NOMEM, "no memory for %lld sequences", (long long)b->n);
    for (int64_t i = 0; i < b->n_work; i++) {
        b->work[i].next = b->idle;
        b->idle = &b->work[i];
    }
    const struct moe_schedule_limits limits = { .batch_tokens = b->e->batch, .running = b->n_work };
    MOE_TRY(moe_latent_open(&b->cache, c, c->num_hidden_layers, pages, err));
    MOE_TRY(moe_pages_open(&b->pages, pages, err));
    return moe_schedule_open(&b->schedule, b->pages, &limits, err);
}

/* Takes a sequence out.  whole: it is complete, and is reported; else a failure has cut it off. */
static enum moe_code retire(struct batch *b, struct work *w, bool whole, struct moe_err *err)
{
    enum moe_code code = whole ? moe_completion_end(&w->completion, err) : MOE_OK;
    struct moe_sequence *s = w->s;
    moe_schedule_end(b->schedule, &w->job);
    free(w->job.ids);
    s->out = w->completion.out;
    *w = (struct work){ .next = b->idle };
    b->idle = w;
    b->ended += whole;
    return code == MOE_OK && whole && b->told ? b->told(b->ctx, s, err) : code;
}

static void close_batch(struct batch *b)
{
    struct moe_err ignored;
    for (int64_t i = 0; b->work && i < b->n_work; i++)
        if (b->work[i].s) retire(b, &b->work[i], false, &ignored);
    moe_schedule_close(&b->schedule);
    moe_pages_close(&b->pages);
    moe_latent_release(&b->cache);
    free(b->work);
    free(b->segment);
    free(b->wanted);
    free(b->tokens);
    free(b->logits);
}

/* ---- steps ---- */

static enum moe_code submit(struct batch *b, struct moe_err *err)
{
    struct moe_sequence *s = &b->s[b->begun];
    struct work *w = b->idle;
    int64_t max_tokens = max_tokens_of(b, s), salt = b->apart ? b->begun : 0;
    b->idle = w->next;
    *w = (struct work){ .s = s };
    w->job = (struct moe_job){ .ids = malloc((size_t)(s->n_ids + max_tokens) * sizeof *s->ids),
                               .n_ids = s->n_ids,
                               .prompt = s->n_ids,
                               .max_positions = s->n_ids + max_tokens,
                               .root = moe_pages_root(&salt, sizeof salt),
                               .arrival = (double)b->begun };
    b->begun++;
    if (!w->job.ids) return moe_fail(err, MOE_NOMEM, "no memory for %lld tokens", (long long)s->n_ids);
    memcpy(w->job.ids, s->ids, (size_t)s->n_ids * sizeof *s->ids);
    MOE_TRY(moe_completion_begin(&w->completion, b->e, &b->g, s->n_ids, max_tokens, err));
    return moe_schedule_submit(b->schedule, &w->job, err);
}

/* Computes the step.  Afterwards b->e->h begins with the hidden states whose logits are wanted; returns how
 * many these are in *wanted. */
static enum moe_code pass(struct batch *b, const struct moe_schedule_step *step, int64_t *wanted,
                          struct moe_err *err)
{
    struct moe_engine *e = b->e;
    int64_t hidden = e->model->config.hidden_size, n = 0;
    for (int64_t i = 0; i < step->n_copies; i++) moe_latent_copy(&b->cache, &step->copy[i]);
    for (int64_t i = 0; i < step->n_rows; n += step->row[i++].n) {
        const struct moe_schedule_row *r = &step->row[i];
        b->segment[i] = (struct moe_segment){ &b->cache, r->job->table.page, r->first, r->n };
        memcpy(b->tokens + n, r->job->ids + r->first, (size_t)r->n * sizeof *b->tokens);
    }
    MOE_TRY(moe_forward_run(e->forward, b->tokens, b->segment, step->n_rows, e->h, err));
    *wanted = n = 0;
    for (int64_t i = 0; i < step->n_rows; i++) {
        n += step->row[i].n;
        if (!step->row[i].last) continue;
        memmove(e->h + *wanted * hidden, e->h + (n - 1) * hidden, (size_t)hidden * sizeof *e->h);
        b->wanted[(*wanted)++] = (struct work *)(void *)step->row[i].job;
    }
    moe_schedule_computed(b->schedule);
    return MOE_OK;
}

/* Samples the next tokens of the sequences in b->wanted, and retires those that have ended. */
static enum moe_code sample(struct batch *b, int64_t wanted, struct moe_err *err)
{
    struct moe_engine *e = b->e;
    int64_t hidden = e->model->config.hidden_size, v = e->model->config.vocab_size;
    for (int64_t i = 0; i < wanted; i++) {
        struct work *w = b->wanted[i];
        if (i % b->rows == 0)
            MOE_TRY(moe_forward_logits(e->forward, e->h + i * hidden, moe_min_i64(b->rows, wanted - i),
                                       b->logits, err));
        /* a completion of 0 tokens is done already, and ends with its prompt */
        int32_t id = 0;
        if (!w->completion.done) {
            MOE_TRY(moe_completion_next(&w->completion, b->logits + i % b->rows * v, &id, err));
            if (!w->completion.done) w->job.ids[w->job.n_ids++] = id;
        }
        if (w->completion.done) MOE_TRY(retire(b, w, true, err));
    }
    return MOE_OK;
}

static enum moe_code check_lengths(const struct batch *b, struct moe_err *err)
{
    for (int64_t i = 0; i < b->n; i++) {
        const struct moe_sequence *s = &b->s[i];
        if (s->n_ids < 1)
            return moe_fail(err, MOE_USAGE, "prompt %lld (line %lld) is empty", (long long)s->index,
                            (long long)s->line);
        if (s->n_ids > b->e->context)
            return moe_fail(err, MOE_USAGE,
                            "prompt %lld (line %lld): its %lld tokens do not fit the context of %lld (raise "
                            "--context, or shorten the prompt)",
                            (long long)s->index, (long long)s->line, (long long)s->n_ids,
                            (long long)b->e->context);
    }
    return MOE_OK;
}

static enum moe_code run(struct batch *b, struct moe_err *err)
{
    int64_t wanted;
    while (b->ended < b->n) {
        while (b->idle && b->begun < b->n) MOE_TRY(submit(b, err));
        MOE_TRY(pass(b, moe_schedule_plan(b->schedule), &wanted, err));
        MOE_TRY(sample(b, wanted, err));
        MOE_TRY(moe_cancel_check(b->e->cancel, err));
    }
    return MOE_OK;
}

enum moe_code moe_sequences_run(struct moe_engine *e, struct moe_sequence *s, int64_t n,
                                const struct moe_generate *g,
                                enum moe_code (*ended)(void *, const struct moe_sequence *, struct moe_err *),
                                void *ctx, struct moe_err *err)
{
    struct batch b = { .e = e, .g = *g, .s = s, .n = n, .told = ended, .ctx = ctx };
    if (n < 1) return MOE_OK;
    b.g.text = NULL;
    b.apart = moe_forward_has_hooks(e->forward);
    enum moe_code code = check_lengths(&b, err);
    if (code == MOE_OK) code = open_batch(&b, err);
    if (code == MOE_OK) code = run(&b, err);
    close_batch(&b);
    return code;
}
