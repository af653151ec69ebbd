/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/sequences.h"

#include "base/io.h"
#include "base/minmax.h"

#include <stdlib.h>

struct batch {
    struct moe_engine *e;
    struct moe_core *core;
    struct moe_sequence *s;
    struct moe_sequence **order;    /* [n] in which they are submitted */
    int64_t n, begun, ended;        /* sequences; those that were submitted; those that are complete */
    int64_t at_once;                /* so many are submitted and not complete */
    struct moe_event ev;
    /* `ended` of moe_sequences_run */
    enum moe_code (*told)(void *, struct moe_sequence *, struct moe_err *);
    void *ctx;
};

/* The positions of a sequence, with the largest number of tokens that it may generate. */
static int64_t positions_of(const struct batch *b, const struct moe_sequence *s)
{
    const struct moe_request *q = &s->request;
    int64_t rest = b->e->context - q->n_ids;
    return q->n_ids + (q->max_tokens >= 0 ? moe_min_i64(q->max_tokens, rest) : rest);
}

/* Fails for a cache that was asked for and has no room for a page. */
static enum moe_code check_cache_bytes(const struct moe_engine *e, struct moe_err *err)
{
    uint64_t page = moe_core_page_bytes(&e->model->config, e->device->latents);
    if (!e->cache_bytes || e->cache_bytes >= page) return MOE_OK;
    return moe_fail(err, MOE_USAGE,
                    "--cache of %llu bytes: a page of %d positions takes %llu bytes, and each rank has a "
                    "cache of at least one page (raise --cache)",
                    (unsigned long long)e->cache_bytes, MOE_PAGE, (unsigned long long)page);
}

/* Fails unless the cache holds the longest sequence alone: its answer would end where the cache does. */
static enum moe_code check_cache(const struct batch *b, int64_t longest, struct moe_err *err)
{
    int64_t pages = moe_core_stats(b->core).pages;
    if (moe_latent_pages(longest) <= pages) return MOE_OK;
    return moe_fail(err, MOE_USAGE,
                    "a cache of %llu bytes holds %lld positions, and a sequence may need %lld (raise "
                    "--cache, or give it fewer tokens to generate)",
                    (unsigned long long)b->e->cache_bytes, (long long)(pages * MOE_PAGE), (long long)longest);
}

/* Opens a core for all sequences.  Where each token has to be computed once, for those who observe the pass,
 * none may be preempted, so that no more are begun than have room for their longest. */
static enum moe_code open_core(struct batch *b, struct moe_err *err)
{
    int64_t all = 0, longest = 1, most = b->e->max_sequences ? b->e->max_sequences : b->n;
    for (int64_t i = 0; i < b->n; i++) {
        all += moe_latent_pages(positions_of(b, &b->s[i]));
        longest = moe_max_i64(longest, positions_of(b, &b->s[i]));
    }
    const struct moe_core_options o = { .cache = b->e->cache_bytes,
                                        .positions = all * MOE_PAGE,
                                        .sequences = moe_min_i64(b->e->batch, moe_min_i64(most, b->n)),
                                        .apart = moe_forward_has_hooks(b->e->forward) };
    MOE_TRY(check_cache_bytes(b->e, err));
    MOE_TRY(moe_core_open(&b->core, b->e, &o, err));
    MOE_TRY(check_cache(b, longest, err));
    int64_t fit = moe_core_stats(b->core).pages / moe_latent_pages(longest);
    b->at_once = o.apart ? moe_min_i64(o.sequences, fit) : o.sequences;
    return MOE_OK;
}

/* Higher priorities first, else as they were given. */
static int compare(const void *x, const void *y)
{
    const struct moe_sequence *a = *(struct moe_sequence *const *)x, *b = *(struct moe_sequence *const *)y;
    int p = a->request.priority, q = b->request.priority;
    return p != q ? (p < q) - (p > q) : (a > b) - (a < b);
}

/* They are all there from the beginning, and only some are submitted at once: the core, which orders those
 * that wait in it, would not see one of high priority behind many others. */
static enum moe_code put_in_order(struct batch *b, struct moe_err *err)
{
    b->order = malloc((size_t)b->n * sizeof *b->order);
    if (!b->order) return moe_fail(err, MOE_NOMEM, "no memory for %lld sequences", (long long)b->n);
    for (int64_t i = 0; i < b->n; i++) b->order[i] = &b->s[i];
    qsort(b->order, (size_t)b->n, sizeof *b->order, compare);
    return MOE_OK;
}

static enum moe_code submit(struct batch *b, struct moe_err *err)
{
    struct moe_sequence *s = b->order[b->begun++];
    struct moe_request q = s->request;
    uint64_t id;
    q.whole = true;
    q.ctx = s;
    return moe_core_submit(b->core, &q, &id, err);
}

/* Sets *out to a copy of the error with which the request has ended; NULL: none.  Fails with the error itself
 * where the model's files are to blame, which concerns all. */
static enum moe_code keep_error(struct batch *b, struct moe_err **out, struct moe_err *err)
{
    struct moe_event *ev = &b->ev;
    *out = NULL;
    if (ev->finish != MOE_FINISH_ERROR) return MOE_OK;
    MOE_TRY(moe_map_check(err));
    *err = ev->err;
    if (moe_source_blame_change(b->e->source, ev->err.code, err) == MOE_MISMATCH) return MOE_MISMATCH;
    *out = malloc(sizeof **out);
    if (!*out) return moe_fail(err, MOE_NOMEM, "no memory for an answer");
    **out = ev->err;
    return MOE_OK;
}

/* Takes the answers that are complete. */
static enum moe_code take(struct batch *b, struct moe_err *err)
{
    struct moe_event *ev = &b->ev;
    for (bool there = true;;) {
        MOE_TRY(moe_core_events(b->core, MOE_ANY_REQUEST, 0, ev, &there, err));
        if (!there) return MOE_OK;
        struct moe_err *failed;
        MOE_TRY(keep_error(b, &failed, err));
        struct moe_sequence *s = ev->ctx;
        s->out = (struct moe_generated){ .tokens = ev->tokens,
                                         .n = ev->n_tokens,
                                         .text = ev->text,
                                         .text_bytes = ev->text_bytes,
                                         .logprobs = ev->logprobs,
                                         .finish = ev->finish,
                                         .err = failed };
        *ev = (struct moe_event){ .id = 0 }; /* its memory is the caller's now */
        b->ended++;
        if (b->told) MOE_TRY(b->told(b->ctx, s, err));
    }
}

static enum moe_code check_lengths(const struct batch *b, struct moe_err *err)
{
    for (int64_t i = 0; i < b->n; i++) {
        const struct moe_sequence *s = &b->s[i];
        if (s->request.n_ids < 1)
            return moe_fail_at(err, MOE_USAGE, s->file, NULL, "prompt %lld (line %lld) is empty",
                               (long long)s->prompt, (long long)s->line);
        if (s->request.n_ids > b->e->context)
            return moe_fail_at(err, MOE_USAGE, s->file, NULL,
                               "prompt %lld (line %lld): its %lld tokens do not fit the context of %lld "
                               "(raise --context, or shorten the prompt)",
                               (long long)s->prompt, (long long)s->line, (long long)s->request.n_ids,
                               (long long)b->e->context);
    }
    return MOE_OK;
}

static enum moe_code run(struct batch *b, struct moe_err *err)
{
    bool worked;
    while (b->ended < b->n) {
        while (b->begun < b->n && b->begun - b->ended < b->at_once) MOE_TRY(submit(b, err));
        MOE_TRY(moe_core_step(b->core, &worked, err));
        MOE_TRY(take(b, err));
        MOE_TRY(moe_cancel_check(b->e->cancel, err));
    }
    return MOE_OK;
}

enum moe_code moe_sequences_run(struct moe_engine *e, struct moe_sequence *s, int64_t n,
                                enum moe_code (*ended)(void *, struct moe_sequence *, struct moe_err *),
                                void *ctx, struct moe_core_stats *stats, struct moe_err *err)
{
    struct batch b = { .e = e, .s = s, .n = n, .told = ended, .ctx = ctx };
    if (n < 1) return MOE_OK;
    enum moe_code code = check_lengths(&b, err);
    if (code == MOE_OK) code = put_in_order(&b, err);
    if (code == MOE_OK) code = open_core(&b, err);
    if (code == MOE_OK) code = run(&b, err);
    if (code == MOE_OK) *stats = moe_core_stats(b.core);
    moe_event_release(&b.ev);
    moe_core_close(&b.core);
    free(b.order);
    return code;
}
