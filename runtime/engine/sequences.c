/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/sequences.h"

#include "runtime/engine/completion.h"

#include <stdlib.h>
#include <string.h>

/* A place for one sequence and its cache. */
struct slot {
    struct moe_sequence *s;           /* NULL: the slot is free */
    struct moe_kv kv;
    struct moe_completion completion;
    int64_t done;                     /* positions computed, which kv holds */
    int32_t next;                     /* the token to compute next, when the prompt is done */
    int64_t take;                     /* tokens that the present pass computes for this slot */
};

struct scheduler {
    struct moe_engine *e;
    struct moe_generate g;
    struct moe_sequence *s;
    int64_t n, begun, ended;          /* sequences; those that got a slot; those that are complete */
    struct slot *slot; int64_t n_slots;
    struct moe_segment *segment;      /* [n_slots] of the present pass */
    int32_t *tokens;                  /* [batch] of the present pass */
    float *logits; int64_t rows;      /* [rows, V]: logits are computed for at most `rows` tokens at once */
    /* `ended` of moe_sequences_run */
    enum moe_code (*told)(void *, const struct moe_sequence *, struct moe_err *);
    void *ctx;
};

/* The largest number of tokens that a sequence may generate. */
static int64_t max_tokens_of(const struct scheduler *r, const struct moe_sequence *s)
{
    int64_t rest = r->e->context - s->n_ids;
    return r->g.max_tokens >= 0 && r->g.max_tokens < rest ? r->g.max_tokens : rest;
}

/* How many slots to have: as many caches of the longest sequence as fit into the engine's spare memory, and
 * one more, since the engine's own cache is estimated full but is not in use here. */
static int64_t slots_that_fit(const struct scheduler *r)
{
    int64_t longest = 1, n = r->e->batch;
    for (int64_t i = 0; i < r->n; i++) {
        int64_t len = r->s[i].n_ids + max_tokens_of(r, &r->s[i]);
        if (len > longest) longest = len;
    }
    /* a cache grows by doubling, so it may be up to twice as long as its sequence */
    uint64_t each = moe_kv_estimate(&r->e->model->config,
                                    2 * longest < r->e->context ? 2 * longest : r->e->context);
    if (r->e->spare / each + 1 < (uint64_t)n) n = (int64_t)(r->e->spare / each) + 1;
    return n < r->n ? n : r->n;
}

/* Gives a slot to the next sequence. */
static enum moe_code admit(struct scheduler *r, struct slot *t, struct moe_err *err)
{
    struct moe_sequence *s = &r->s[r->begun++];
    MOE_TRY(moe_kv_open(&t->kv, &r->e->model->config, err));
    t->s = s;
    t->kv.max_positions = r->e->context;
    t->done = 0;
    return moe_completion_begin(&t->completion, r->e, &r->g, s->n_ids, max_tokens_of(r, s), err);
}

/* Frees a slot.  whole: the sequence is complete, and is reported; else it was cut off by a failure. */
static enum moe_code retire(struct scheduler *r, struct slot *t, bool whole, struct moe_err *err)
{
    enum moe_code code = whole ? moe_completion_end(&t->completion, err) : MOE_OK;
    struct moe_sequence *s = t->s;
    s->out = t->completion.out;
    t->s = NULL;
    moe_kv_release(&t->kv);
    r->ended += whole;
    return code == MOE_OK && whole && r->told ? r->told(r->ctx, s, err) : code;
}

/* Sets slot.take for the next pass: one token for each slot that decodes, then as many tokens of prompts as
 * the batch has room for.  Returns the tokens of the pass. */
static int64_t fill(struct scheduler *r)
{
    int64_t n = 0, batch = r->e->batch;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < r->n_slots; i++) {
            struct slot *t = &r->slot[i];
            bool decodes = t->s && t->done >= t->s->n_ids;
            if (pass == 0) t->take = decodes;
            else if (t->s && !decodes)
                t->take = t->s->n_ids - t->done < batch - n ? t->s->n_ids - t->done : batch - n;
            if (t->s && (pass == 0) == decodes) n += t->take;
        }
    return n;
}

/* Computes the tokens that fill() chose.  Afterwards e->h begins with the hidden states whose logits are
 * needed, in the order of slots: the last one of each slot whose prompt is done. */
static enum moe_code pass(struct scheduler *r, struct moe_err *err)
{
    struct moe_engine *e = r->e;
    int64_t hidden = e->model->config.hidden_size, n = 0, segments = 0, row = 0;
    for (int64_t i = 0; i < r->n_slots; i++) {
        struct slot *t = &r->slot[i];
        if (!t->s || !t->take) continue;
        MOE_TRY(moe_kv_reserve(&t->kv, t->done + t->take, err));
        r->segment[segments++] = (struct moe_segment){ &t->kv, t->done, t->take };
        if (t->done >= t->s->n_ids) r->tokens[n] = t->next;
        else memcpy(r->tokens + n, t->s->ids + t->done, (size_t)t->take * sizeof *r->tokens);
        n += t->take;
    }
    MOE_TRY(moe_forward_run(e->forward, r->tokens, r->segment, segments, e->h, err));
    n = 0;
    for (int64_t i = 0; i < r->n_slots; i++) {
        struct slot *t = &r->slot[i];
        if (!t->s || !t->take) continue;
        n += t->take;
        t->done += t->take;
        if (t->done >= t->s->n_ids)
            memmove(e->h + row++ * hidden, e->h + (n - 1) * hidden, (size_t)hidden * sizeof *e->h);
    }
    return MOE_OK;
}

/* Samples the next token of each slot whose prompt is done, and retires the sequences that have ended. */
static enum moe_code sample(struct scheduler *r, struct moe_err *err)
{
    struct moe_engine *e = r->e;
    int64_t hidden = e->model->config.hidden_size, v = e->model->config.vocab_size, row = 0, at = 0, have = 0,
            wanted = 0;
    for (int64_t i = 0; i < r->n_slots; i++)
        wanted += r->slot[i].s && r->slot[i].take && r->slot[i].done >= r->slot[i].s->n_ids;
    for (int64_t i = 0; i < r->n_slots; i++) {
        struct slot *t = &r->slot[i];
        if (!t->s || !t->take || t->done < t->s->n_ids) continue;
        if (row == have) {
            at = have;
            have += wanted - at < r->rows ? wanted - at : r->rows;
            MOE_TRY(moe_forward_logits(e->forward, e->h + at * hidden, have - at, r->logits, err));
        }
        /* a completion of 0 tokens is done already, and ends with its prompt */
        if (!t->completion.done)
            MOE_TRY(moe_completion_next(&t->completion, r->logits + (row - at) * v, &t->next, err));
        row++;
        if (t->completion.done) MOE_TRY(retire(r, t, true, err));
    }
    return MOE_OK;
}

static enum moe_code run(struct scheduler *r, struct moe_err *err)
{
    for (int64_t i = 0; i < r->n; i++) {
        const struct moe_sequence *s = &r->s[i];
        if (s->n_ids < 1)
            return moe_fail(err, MOE_USAGE, "prompt %lld (line %lld) is empty", (long long)s->index,
                            (long long)s->line);
        if (s->n_ids > r->e->context)
            return moe_fail(err, MOE_USAGE,
                            "prompt %lld (line %lld): its %lld tokens do not fit the context of %lld (raise "
                            "--context, or shorten the prompt)",
                            (long long)s->index, (long long)s->line, (long long)s->n_ids,
                            (long long)r->e->context);
    }
    while (r->ended < r->n) {
        for (int64_t i = 0; i < r->n_slots && r->begun < r->n; i++)
            if (!r->slot[i].s) MOE_TRY(admit(r, &r->slot[i], err));
        fill(r);
        MOE_TRY(pass(r, err));
        MOE_TRY(sample(r, err));
        MOE_TRY(moe_cancel_check(r->e->cancel, err));
    }
    return MOE_OK;
}

enum moe_code moe_sequences_run(struct moe_engine *e, struct moe_sequence *s, int64_t n,
                                const struct moe_generate *g,
                                enum moe_code (*ended)(void *, const struct moe_sequence *, struct moe_err *),
                                void *ctx, struct moe_err *err)
{
    struct scheduler r = { .e = e,
                      .g = *g,
                      .s = s,
                      .n = n,
                      .told = ended,
                      .ctx = ctx,
                      .rows = moe_engine_logit_rows(&e->model->config) };
    if (n < 1) return MOE_OK;
    r.g.text = NULL;
    r.n_slots = slots_that_fit(&r);
    r.slot = calloc((size_t)r.n_slots, sizeof *r.slot);
    r.segment = calloc((size_t)r.n_slots, sizeof *r.segment);
    r.tokens = calloc((size_t)e->batch, sizeof *r.tokens);
    if (r.rows > r.n_slots) r.rows = r.n_slots;
    r.logits = malloc((size_t)(r.rows * e->model->config.vocab_size) * sizeof *r.logits);
    enum moe_code code = r.slot && r.segment && r.tokens && r.logits
                           ? run(&r, err)
                           : moe_fail(err, MOE_NOMEM, "no memory for %lld sequences", (long long)n);
    for (int64_t i = 0; r.slot && i < r.n_slots; i++)
        if (r.slot[i].s) retire(&r, &r.slot[i], false, err);
    free(r.slot);
    free(r.segment);
    free(r.tokens);
    free(r.logits);
    return code;
}
