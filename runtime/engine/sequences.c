/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/sequences.h"

#include "base/cli/tool.h"
#include "runtime/engine/reply.h"

#include <stdlib.h>
#include <string.h>

/* A sequence under way. */
struct seat {
    struct moe_sequence *s;           /* NULL: free */
    struct moe_kv kv;
    struct moe_reply reply;
    int64_t done;                     /* positions in kv */
    int32_t next;                     /* the token to compute, once the prompt is */
    int64_t take;                     /* tokens of the pass at hand */
};

struct room {
    struct moe_engine *e;
    struct moe_generate g;
    struct moe_sequence *s;
    int64_t n, begun, ended;
    struct seat *seat; int64_t seats;
    struct moe_segment *segment;      /* [seats] */
    int32_t *tokens;                  /* [batch] */
    float *logits; int64_t rows;      /* [rows, V]: of that many tokens at once */
    enum moe_code (*told)(void *, const struct moe_sequence *, struct moe_err *);
    void *ctx;
};

static int64_t most_tokens(const struct room *r, const struct moe_sequence *s)
{
    int64_t rest = r->e->context - s->n_ids;
    return r->g.max_tokens >= 0 && r->g.max_tokens < rest ? r->g.max_tokens : rest;
}

/* Caches that memory holds beside the engine's own, whose place the first one takes. */
static int64_t seats_that_fit(const struct room *r)
{
    int64_t longest = 1, n = r->e->batch;
    for (int64_t i = 0; i < r->n; i++) {
        int64_t len = r->s[i].n_ids + most_tokens(r, &r->s[i]);
        if (len > longest) longest = len;
    }
    /* it grows by doubling */
    uint64_t each = moe_kv_estimate(&r->e->model->config,
                                    2 * longest < r->e->context ? 2 * longest : r->e->context);
    if (r->e->spare / each + 1 < (uint64_t)n) n = (int64_t)(r->e->spare / each) + 1;
    return n < r->n ? n : r->n;
}

static enum moe_code sit_down(struct room *r, struct seat *t, struct moe_err *err)
{
    struct moe_sequence *s = &r->s[r->begun++];
    MOE_TRY(moe_kv_open(&t->kv, &r->e->model->config, err));
    t->s = s;
    t->kv.most = r->e->context;
    t->done = 0;
    return moe_reply_begin(&t->reply, r->e, &r->g, most_tokens(r, s), err);
}

static enum moe_code stand_up(struct room *r, struct seat *t, bool whole, struct moe_err *err)
{
    enum moe_code code = whole ? moe_reply_end(&t->reply, err) : MOE_OK;
    struct moe_sequence *s = t->s;
    s->out = t->reply.out;
    t->s = NULL;
    moe_kv_release(&t->kv);
    r->ended += whole;
    return code == MOE_OK && whole && r->told ? r->told(r->ctx, s, err) : code;
}

/* How many tokens of which seat make the next pass: those that decode first, prompts
 * as far as there is room. */
static int64_t fill(struct room *r)
{
    int64_t n = 0, batch = r->e->batch;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < r->seats; i++) {
            struct seat *t = &r->seat[i];
            bool decodes = t->s && t->done >= t->s->n_ids;
            if (pass == 0) t->take = decodes;
            else if (t->s && !decodes)
                t->take = t->s->n_ids - t->done < batch - n ? t->s->n_ids - t->done : batch - n;
            if (t->s && (pass == 0) == decodes) n += t->take;
        }
    return n;
}

/* The pass over what fill() chose: segments, and the hidden rows whose logits are wanted, in seat order. */
static enum moe_code pass(struct room *r, struct moe_err *err)
{
    struct moe_engine *e = r->e;
    int64_t hidden = e->model->config.hidden_size, n = 0, segments = 0, row = 0;
    for (int64_t i = 0; i < r->seats; i++) {
        struct seat *t = &r->seat[i];
        if (!t->s || !t->take) continue;
        MOE_TRY(moe_kv_reserve(&t->kv, t->done + t->take, err));
        r->segment[segments++] = (struct moe_segment){ &t->kv, t->done, t->take };
        if (t->done >= t->s->n_ids) r->tokens[n] = t->next;
        else memcpy(r->tokens + n, t->s->ids + t->done, (size_t)t->take * sizeof *r->tokens);
        n += t->take;
    }
    MOE_TRY(moe_forward_run(e->forward, r->tokens, r->segment, segments, e->h, err));
    n = 0;
    for (int64_t i = 0; i < r->seats; i++) {
        struct seat *t = &r->seat[i];
        if (!t->s || !t->take) continue;
        n += t->take;
        t->done += t->take;
        if (t->done >= t->s->n_ids)
            memmove(e->h + row++ * hidden, e->h + (n - 1) * hidden, (size_t)hidden * sizeof *e->h);
    }
    return MOE_OK;
}

static enum moe_code sample(struct room *r, struct moe_err *err)
{
    struct moe_engine *e = r->e;
    int64_t hidden = e->model->config.hidden_size, v = e->model->config.vocab_size, row = 0, at = 0, have = 0,
            wanted = 0;
    for (int64_t i = 0; i < r->seats; i++)
        wanted += r->seat[i].s && r->seat[i].take && r->seat[i].done >= r->seat[i].s->n_ids;
    for (int64_t i = 0; i < r->seats; i++) {
        struct seat *t = &r->seat[i];
        if (!t->s || !t->take || t->done < t->s->n_ids) continue;
        if (row == have) {
            at = have;
            have += wanted - at < r->rows ? wanted - at : r->rows;
            MOE_TRY(moe_forward_logits(e->forward, e->h + at * hidden, have - at, r->logits, err));
        }
        /* else it ends with its prompt */
        if (!t->reply.done) MOE_TRY(moe_reply_next(&t->reply, r->logits + (row - at) * v, &t->next, err));
        row++;
        if (t->reply.done) MOE_TRY(stand_up(r, t, true, err));
    }
    return MOE_OK;
}

static enum moe_code run(struct room *r, struct moe_err *err)
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
        for (int64_t i = 0; i < r->seats && r->begun < r->n; i++)
            if (!r->seat[i].s) MOE_TRY(sit_down(r, &r->seat[i], err));
        fill(r);
        MOE_TRY(pass(r, err));
        MOE_TRY(sample(r, err));
        MOE_TRY(moe_interrupted(err));
    }
    return MOE_OK;
}

enum moe_code moe_sequences_run(struct moe_engine *e, struct moe_sequence *s, int64_t n,
                                const struct moe_generate *g,
                                enum moe_code (*ended)(void *, const struct moe_sequence *, struct moe_err *),
                                void *ctx, struct moe_err *err)
{
    struct room r = { .e = e,
                      .g = *g,
                      .s = s,
                      .n = n,
                      .told = ended,
                      .ctx = ctx,
                      .rows = moe_engine_logit_rows(&e->model->config) };
    if (n < 1) return MOE_OK;
    r.g.text = NULL;
    r.seats = seats_that_fit(&r);
    r.seat = calloc((size_t)r.seats, sizeof *r.seat);
    r.segment = calloc((size_t)r.seats, sizeof *r.segment);
    r.tokens = calloc((size_t)e->batch, sizeof *r.tokens);
    if (r.rows > r.seats) r.rows = r.seats;
    r.logits = malloc((size_t)(r.rows * e->model->config.vocab_size) * sizeof *r.logits);
    enum moe_code code = r.seat && r.segment && r.tokens && r.logits
                           ? run(&r, err)
                           : moe_fail(err, MOE_NOMEM, "no memory for %lld sequences", (long long)n);
    for (int64_t i = 0; r.seat && i < r.seats; i++)
        if (r.seat[i].s) stand_up(&r, &r.seat[i], false, err);
    free(r.seat);
    free(r.segment);
    free(r.tokens);
    free(r.logits);
    return code;
}
