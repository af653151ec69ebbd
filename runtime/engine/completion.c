/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/completion.h"

#include "base/grow.h"

#include <stdlib.h>
#include <string.h>

static enum moe_code append(struct moe_completion *r, const char *s, size_t n, struct moe_err *err)
{
    struct moe_generated *o = &r->out;
    if (!MOE_GROW(o->text, r->cap, o->text_bytes + n + 1))
        return moe_fail(err, MOE_NOMEM, "no memory for %zu bytes of text", o->text_bytes + n + 1);
    memcpy(o->text + o->text_bytes, s, n);
    o->text_bytes += n;
    o->text[o->text_bytes] = 0;
    return MOE_OK;
}

/* The first occurrence of `what` in text [n], which may hold NULs; NULL: there is none. */
static char *locate(char *text, size_t n, const char *what)
{
    size_t len = strlen(what);
    for (size_t i = 0; len && i + len <= n; i++)
        if (!memcmp(text + i, what, len)) return text + i;
    return NULL;
}

/* True when the text not yet sent contains a stop text; then cuts it off before the first one. */
static bool stopped(struct moe_completion *r)
{
    char *first = NULL;
    for (size_t i = 0; i < r->g->n_stop; i++) {
        char *at = locate(r->out.text + r->sent, r->out.text_bytes - r->sent, r->g->stop[i]);
        if (at && (!first || at < first)) first = at;
    }
    if (!first) return false;
    *first = 0;
    r->out.text_bytes = (size_t)(first - r->out.text);
    return true;
}

/* How many bytes at the end of the text are the beginning of a stop text, and must not be sent yet. */
static size_t held(const struct moe_completion *r)
{
    size_t longest = 0, len = r->out.text_bytes - r->sent;
    for (size_t i = 0; i < r->g->n_stop; i++) {
        size_t n = strlen(r->g->stop[i]);
        for (size_t k = n ? n - 1 : 0; k > longest; k--)
            if (k <= len && !memcmp(r->out.text + r->out.text_bytes - k, r->g->stop[i], k)) longest = k;
    }
    return longest;
}

/* Gives the text to g->text but for its last `keep` bytes. */
static void send(struct moe_completion *r, size_t keep)
{
    size_t n = r->out.text_bytes - r->sent - keep;
    if (n && r->g->text) r->g->text(r->g->ctx, r->out.text + r->sent, n);
    r->sent += n;
}

static enum moe_code add_text(struct moe_completion *r, int32_t id, struct moe_err *err)
{
    char room[MOE_TOKEN_ROOM];
    size_t len = 0;
    if (!r->e->tokenizer) return MOE_OK;
    moe_token_bytes(r->e->tokenizer, id, room, &len);
    char *piece = malloc(MOE_DECODE_BOUND(len));
    if (!piece) return moe_fail(err, MOE_NOMEM, "no memory for a token");
    size_t n = moe_decode(r->e->tokenizer, &r->decoder, id, piece);
    enum moe_code code = append(r, piece, n, err);
    free(piece);
    MOE_TRY(code);
    r->stop = stopped(r);
    send(r, r->stop ? 0 : held(r));
    return MOE_OK;
}

static bool is_end(const struct moe_engine *e, int32_t id)
{
    const struct moe_config *c = &e->model->config;
    for (int64_t i = 0; i < c->n_eos; i++)
        if (c->eos_token_id[i] == id) return true;
    return e->tokenizer && (id == moe_token_find_special(e->tokenizer, "<|im_end|>") ||
                            id == moe_token_find_special(e->tokenizer, "[EOS]"));
}

enum moe_code moe_completion_begin(struct moe_completion *r, struct moe_engine *e,
                                   const struct moe_generate *g, int64_t at, int64_t max_tokens,
                                   struct moe_err *err)
{
    *r = (struct moe_completion){ .e = e,
                             .g = g,
                             .out = { .finish = MOE_FINISH_LENGTH },
                             .decoder = { .keep_special = g->keep_special },
                             .at = at,
                             .max_tokens = max_tokens,
                             .done = max_tokens <= 0 };
    MOE_TRY(append(r, "", 0, err));
    r->out.tokens = malloc((size_t)(max_tokens > 0 ? max_tokens + 1 : 1) * sizeof *r->out.tokens);
    return r->out.tokens ? MOE_OK
                         : moe_fail(err, MOE_NOMEM, "no memory for %lld tokens", (long long)max_tokens);
}

enum moe_code moe_completion_next(struct moe_completion *r, const float *logits, int32_t *id,
                                  struct moe_err *err)
{
    struct moe_engine *e = r->e;
    uint64_t draw = moe_draw(r->g->seed, 0, r->at + r->out.n);
    *id = moe_sample(&r->g->sampler, draw, logits, e->vocab, e->order, e->p);
    if (!r->g->ignore_eos && is_end(e, *id)) {
        r->out.finish = MOE_FINISH_STOP;
        r->done = true;
        return MOE_OK;
    }
    r->out.tokens[r->out.n++] = *id;
    MOE_TRY(add_text(r, *id, err));
    if (r->stop) r->out.finish = MOE_FINISH_STOP;
    r->done = r->stop || r->out.n >= r->max_tokens;
    return MOE_OK;
}

enum moe_code moe_completion_end(struct moe_completion *r, struct moe_err *err)
{
    char rest[16];
    if (!r->stop) MOE_TRY(append(r, rest, moe_decode_flush(&r->decoder, rest), err));
    send(r, 0);
    return MOE_OK;
}
