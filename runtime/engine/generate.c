/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/generate.h"

#include "base/grow.h"
#include "base/io.h"

#include <stdlib.h>
#include <string.h>

struct call {
    struct moe_core *core;
    uint64_t id;
    const struct moe_generate *g;
    struct moe_event ev;
    struct moe_generated *out;
    size_t tokens_cap, text_cap, logprobs_cap;
    double begun, first;                /* when it began, and when the first event came */
    bool came;
};

enum moe_code moe_generate_open(struct moe_core **core, struct moe_engine *e, struct moe_err *err)
{
    const struct moe_core_options o = { .sequences = 1 };
    return moe_core_open(core, e, &o, err);
}

/* Adds what is new of the answer to what there is. */
static enum moe_code take(struct call *c, struct moe_err *err)
{
    struct moe_generated *out = c->out;
    struct moe_event *ev = &c->ev;
    bool there;
    MOE_TRY(moe_core_events(c->core, c->id, 0, ev, &there, err));
    if (!there) return MOE_OK;
    if (!c->came) c->came = true, c->first = moe_now();
    if (!MOE_GROW(out->tokens, c->tokens_cap, (size_t)(out->n + ev->n_tokens) + 1) ||
        !MOE_GROW(out->text, c->text_cap, out->text_bytes + ev->text_bytes + 1) ||
        (ev->logprobs && !MOE_GROW(out->logprobs, c->logprobs_cap, (size_t)(out->n + ev->n_tokens) + 1)))
        return moe_fail(err, MOE_NOMEM, "no memory for an answer");
    memcpy(out->tokens + out->n, ev->tokens, (size_t)ev->n_tokens * sizeof *out->tokens);
    memcpy(out->text + out->text_bytes, ev->text, ev->text_bytes + 1);
    if (ev->logprobs)
        memcpy(out->logprobs + out->n, ev->logprobs, (size_t)ev->n_tokens * sizeof *out->logprobs);
    out->n += ev->n_tokens;
    out->text_bytes += ev->text_bytes;
    if (c->g->event) MOE_TRY(c->g->event(c->g->event_ctx, ev, err));
    if (ev->text_bytes && c->g->text) c->g->text(c->g->ctx, ev->text, ev->text_bytes);
    return MOE_OK;
}

/* Steps until the request has ended, however it does. */
static enum moe_code run(struct call *c, struct moe_err *err)
{
    struct moe_err ignored;
    enum moe_code code = MOE_OK;
    bool worked;
    while (!c->ev.end) {
        enum moe_code stepped = moe_core_step(c->core, &worked, code == MOE_OK ? err : &ignored);
        if (stepped != MOE_OK) return code == MOE_OK ? stepped : code;
        MOE_TRY(take(c, err));
        if (code != MOE_OK || c->ev.end) continue;
        code = moe_cancel_check(c->g->cancel, err);
        if (code != MOE_OK) moe_core_cancel(c->core, c->id);
    }
    if (code != MOE_OK || c->ev.finish != MOE_FINISH_ERROR) return code;
    *err = c->ev.err;
    return err->code;
}

enum moe_code moe_generate_run(struct moe_core *core, const struct moe_generate *g, struct moe_generated *out,
                               struct moe_generate_seconds *seconds, struct moe_err *err)
{
    struct call c = { .core = core, .g = g, .out = out, .begun = moe_now() };
    struct moe_request q = g->request;
    q.whole = false;
    *out = (struct moe_generated){ .n = 0 };
    MOE_TRY(moe_core_submit(core, &q, &c.id, err));
    enum moe_code code = run(&c, err);
    out->finish = c.ev.finish;
    if (seconds) *seconds = (struct moe_generate_seconds){ c.first - c.begun, moe_now() - c.first };
    moe_event_release(&c.ev);
    return code;
}
