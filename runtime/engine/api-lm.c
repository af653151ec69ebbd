/* SPDX-License-Identifier: Apache-2.0 */
/* Implements include/moe/lm.h: a moe_lm is an engine with a pool of threads of its own, and computes one
 * sequence at a time. */
#include "base/api.h"
#include "base/cancel.h"
#include "model/rewrite/check.h"
#include "runtime/engine/generate.h"
#include "runtime/engine/prompt.h"
#include "runtime/engine/score.h"

#include <moe/lm.h>

#include <stdlib.h>
#include <string.h>

/* The engine polls `now`.  While a call is at work, the parent of `now` is the token that the caller gave to
 * that call, so cancelling the latter ends the work. */
struct moe_lm {
    struct moe_pool *pool;
    struct moe_engine *engine;
    struct moe_core *core;            /* NULL before the first text is generated */
    struct moe_cancel now;
};

/* ---- open and close ---- */

static enum moe_code open_engine(struct moe_lm *lm, const char *path, const struct moe_lm_options *o,
                                 struct moe_err *err)
{
    const struct moe_engine_options e = { .context = o->context, .memory = o->memory, .cancel = &lm->now };

    if (o->context < 0) return moe_fail(err, MOE_USAGE, "a context of %lld positions", (long long)o->context);
    MOE_TRY(moe_api_pool(&lm->pool, o->threads, err));
    return moe_engine_open(&lm->engine, path, &e, lm->pool, err);
}

enum moe_code moe_lm_open(struct moe_lm **out, const char *path, const struct moe_lm_options *options,
                          struct moe_err *err)
{
    struct moe_lm_options o;

    MOE_API_ERR(err);
    MOE_TRY(moe_api_given(out, "lm", err));
    *out = NULL;
    MOE_TRY(moe_api_given(path, "path", err));
    MOE_TRY(moe_api_options(&o, sizeof o, options, "moe_lm_options", err));
    struct moe_lm *lm = calloc(1, sizeof *lm);
    if (!lm) return moe_fail(err, MOE_NOMEM, "no memory for a model");
    enum moe_code code = open_engine(lm, path, &o, err);
    if (code != MOE_OK) moe_lm_close(&lm);
    *out = lm;
    return moe_api_end(code, err);
}

void moe_lm_close(struct moe_lm **lm)
{
    if (!lm || !*lm) return;
    moe_core_close(&(*lm)->core);
    moe_engine_close(&(*lm)->engine);
    moe_pool_close(&(*lm)->pool);
    free(*lm);
    *lm = NULL;
}

/* Called when a call's work has ended with `code`: takes its token away, and blames the model's files where
 * they have changed since they were opened (moe_source_blame_change). */
static enum moe_code end_call(struct moe_lm *lm, enum moe_code code, struct moe_err *err)
{
    lm->now.parent = NULL;
    return moe_source_blame_change(lm->engine->source, code, err);
}

/* ---- tokens ---- */

static enum moe_code want_tokenizer(const struct moe_lm *lm, struct moe_err *err)
{
    if (lm->engine->tokenizer) return MOE_OK;
    return moe_fail_at(err, MOE_NOT_FOUND, lm->engine->source->path, NULL,
                       "the model has no tokenizer (give it token ids)");
}

enum moe_code moe_lm_tokenize(struct moe_lm *lm, const char *text, size_t bytes, bool special, int32_t **ids,
                              size_t *n, struct moe_err *err)
{
    MOE_API_ERR(err);
    MOE_TRY(moe_api_given(ids, "ids", err));
    MOE_TRY(moe_api_given(n, "n", err));
    *ids = NULL;
    *n = 0;
    MOE_TRY(moe_api_given(lm, "lm", err));
    MOE_TRY(moe_api_given(bytes ? text : "", "text", err));
    MOE_TRY(want_tokenizer(lm, err));
    enum moe_code code = moe_tokenize(lm->engine->tokenizer, bytes ? text : "", bytes, special, ids, n, err);
    if (code == MOE_OK) return MOE_OK;
    free(*ids);
    *ids = NULL;
    *n = 0;
    return code;
}

enum moe_code moe_lm_detokenize(struct moe_lm *lm, const int32_t *ids, size_t n, bool special, char **text,
                                size_t *bytes, struct moe_err *err)
{
    static const int32_t none;

    MOE_API_ERR(err);
    MOE_TRY(moe_api_given(text, "text", err));
    MOE_TRY(moe_api_given(bytes, "bytes", err));
    *text = NULL;
    *bytes = 0;
    MOE_TRY(moe_api_given(lm, "lm", err));
    MOE_TRY(moe_api_given(n ? ids : &none, "ids", err));
    MOE_TRY(want_tokenizer(lm, err));
    enum moe_code code = moe_decode_all(lm->engine->tokenizer, n ? ids : &none, n, special, text, bytes, err);
    if (code == MOE_OK) return MOE_OK;
    free(*text);
    *text = NULL;
    *bytes = 0;
    return code;
}

/* ---- generation ---- */

static enum moe_code read_real(const char *name, enum moe_request_real which, double v, float *out,
                               struct moe_err *err)
{
    char want[MOE_WANT_BYTES];
    if (moe_request_real(which, v, out, want)) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "%s %g: %s", name, v, want);
}

/* The sampler of the options, in which a top_p of 0 is none. */
static enum moe_code read_sampler(const struct moe_generate_options *o, struct moe_sampler *s,
                                  struct moe_err *err)
{
    double top_p = o->top_p == 0 ? 1 : o->top_p;
    s->top_k = o->top_k;
    MOE_TRY(read_real("temperature", MOE_REAL_TEMPERATURE, o->temperature, &s->temperature, err));
    MOE_TRY(read_real("top_p", MOE_REAL_TOP_P, top_p, &s->top_p, err));
    return read_real("min_p", MOE_REAL_MIN_P, o->min_p, &s->min_p, err);
}

static enum moe_code check_options(const struct moe_generate_options *o, struct moe_err *err)
{
    struct moe_sampler ignored;
    if (o->max_tokens < 0 || o->top_k < 0)
        return moe_fail(err, MOE_USAGE, "max_tokens %lld and top_k %lld: want 0 or more",
                        (long long)o->max_tokens, (long long)o->top_k);
    MOE_TRY(read_sampler(o, &ignored, err));
    if (o->n_stop) MOE_TRY(moe_api_given(o->stop, "stop", err));
    for (size_t i = 0; i < o->n_stop; i++)
        if (!o->stop[i] || !*o->stop[i])
            return moe_fail(err, MOE_USAGE, "a text to stop before is empty");
    return MOE_OK;
}

/* Sets *g to what the options say, which check_options has accepted. */
static enum moe_code settings(struct moe_generate *g, const struct moe_lm *lm, const int32_t *ids, size_t n,
                              const struct moe_generate_options *o, struct moe_err *err)
{
    *g = (struct moe_generate){ .request = { .ids = ids,
                                             .n_ids = (int64_t)n,
                                             .max_tokens = o->max_tokens ? o->max_tokens : -1,
                                             .seed = o->seed,
                                             .stop = o->stop,
                                             .n_stop = o->n_stop,
                                             .ignore_eos = o->ignore_end,
                                             .keep_special = o->special,
                                             .logprobs = -1 },
                                .text = o->text,
                                .ctx = o->ctx,
                                .cancel = &lm->now };
    return read_sampler(o, &g->request.sampler, err);
}

static enum moe_code generate(struct moe_lm *lm, const int32_t *ids, size_t n,
                              const struct moe_generate_options *o, struct moe_generation *g,
                              struct moe_err *err)
{
    struct moe_generated out = { 0 };
    struct moe_generate set;

    MOE_TRY(settings(&set, lm, ids, n, o, err));
    lm->now.parent = o->cancel;
    enum moe_code code = lm->core ? MOE_OK : moe_generate_open(&lm->core, lm->engine, err);
    if (code == MOE_OK) code = moe_generate_run(lm->core, &set, &out, NULL, err);
    code = end_call(lm, code, err);
    if (code != MOE_OK) {
        free(out.tokens);
        free(out.text);
        return code;
    }
    const struct moe_generation found = { .tokens = out.tokens,
                                          .n_tokens = (size_t)out.n,
                                          .text = out.text,
                                          .bytes = out.text_bytes,
                                          .prompt_tokens = n,
                                          .truncated = out.finish == MOE_FINISH_LENGTH };
    moe_api_result(g, &found, sizeof found);
    return MOE_OK;
}

/* Checks the arguments that both functions which generate take, zeroes *g, and copies the options to *o. */
static enum moe_code begin(const struct moe_lm *lm, const struct moe_generate_options *options,
                           struct moe_generation *g, struct moe_generate_options *o, struct moe_err *err)
{
    MOE_TRY(moe_api_given(lm, "lm", err));
    MOE_TRY(moe_api_result_check(g, "moe_generation", err));
    moe_api_result(g, &(struct moe_generation){ 0 }, sizeof *g);
    MOE_TRY(moe_api_options(o, sizeof *o, options, "moe_generate_options", err));
    return check_options(o, err);
}

enum moe_code moe_lm_generate_ids(struct moe_lm *lm, const int32_t *ids, size_t n,
                                  const struct moe_generate_options *options, struct moe_generation *g,
                                  struct moe_err *err)
{
    struct moe_generate_options o;

    MOE_API_ERR(err);
    MOE_TRY(begin(lm, options, g, &o, err));
    MOE_TRY(moe_api_given(ids, "ids", err));
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= lm->engine->source->config.vocab_size)
            return moe_fail(err, MOE_USAGE, "token %d is not one of the model's %lld", (int)ids[i],
                            (long long)lm->engine->source->config.vocab_size);
    return moe_api_end(generate(lm, ids, n, &o, g, err), err);
}

/* Turns the prompt into ids; with o->chat, it becomes one user turn of a chat. */
static enum moe_code encode(const struct moe_lm *lm, const char *prompt, size_t bytes,
                            const struct moe_generate_options *o, int32_t **ids, size_t *n,
                            struct moe_err *err)
{
    const struct moe_prompt p = { .chat = o->chat, .special = o->special };
    struct moe_chat *chat = NULL;
    char *text = malloc(bytes + 1);

    if (!text) return moe_fail(err, MOE_NOMEM, "no memory for a prompt of %zu bytes", bytes);
    memcpy(text, prompt, bytes);
    text[bytes] = 0;
    enum moe_code code = o->chat ? moe_prompt_chat(&p, lm->engine, &chat, err) : MOE_OK;
    if (code == MOE_OK) code = moe_prompt_encode(&p, lm->engine, chat, text, bytes, ids, n, err);
    moe_chat_close(&chat);
    free(text);
    return code;
}

enum moe_code moe_lm_generate(struct moe_lm *lm, const char *prompt, size_t bytes,
                              const struct moe_generate_options *options, struct moe_generation *g,
                              struct moe_err *err)
{
    struct moe_generate_options o;
    int32_t *ids = NULL;
    size_t n = 0;

    MOE_API_ERR(err);
    MOE_TRY(begin(lm, options, g, &o, err));
    MOE_TRY(moe_api_given(prompt, "prompt", err));
    MOE_TRY(want_tokenizer(lm, err));
    enum moe_code code = encode(lm, prompt, bytes, &o, &ids, &n, err);
    if (code == MOE_OK) code = generate(lm, ids, n, &o, g, err);
    free(ids);
    return moe_api_end(code, err);
}

void moe_generation_release(struct moe_generation *g)
{
    if (!g) return;
    free(g->tokens);
    free(g->text);
    g->tokens = NULL;
    g->text = NULL;
}

/* ---- score ---- */

static void fill_in(struct moe_score_result *r, const struct moe_score *s)
{
    const struct moe_score_result found = { .tokens = s->tokens,
                                            .nll = s->nll,
                                            .perplexity = s->perplexity,
                                            .nll_reference = s->nll_reference,
                                            .perplexity_reference = s->perplexity_reference,
                                            .kl = s->kl,
                                            .kl_p50 = s->kl_p50,
                                            .kl_p99 = s->kl_p99,
                                            .kl_max = s->kl_max,
                                            .top1_agreement = s->top1_agreement };

    moe_api_result(r, &found, sizeof found);
}

static enum moe_code score(struct moe_lm *lm, const int32_t *ids, size_t n, const struct moe_score_options *o,
                           struct moe_score_result *r, struct moe_err *err)
{
    struct moe_score found;
    const struct moe_score_text t = { .ids = ids,
                                      .n = (int64_t)n,
                                      .window = o->window ? o->window : moe_score_window(lm->engine),
                                      .memory = o->memory,
                                      .scratch = o->scratch };

    if (o->window < 0)
        return moe_fail(err, MOE_USAGE, "a window of %lld tokens", (long long)o->window);
    if (o->window > lm->engine->context)
        return moe_fail(err, MOE_USAGE, "a window of %lld tokens does not fit the context of %lld",
                        (long long)o->window, (long long)lm->engine->context);
    lm->now.parent = o->cancel;
    if (o->reference) o->reference->now.parent = o->cancel;
    struct moe_api_progress progress;
    struct moe_progress *told = moe_api_progress_init(&progress, o->progress, o->ctx);
    enum moe_code code = moe_score_text(lm->engine, o->reference ? o->reference->engine : NULL, &t, lm->pool,
                                        told, &found, err);
    moe_api_progress_release(&progress);
    if (o->reference) code = end_call(o->reference, code, err);
    code = end_call(lm, code, err);
    if (code == MOE_OK) fill_in(r, &found);
    return code;
}

enum moe_code moe_lm_score(struct moe_lm *lm, const char *text, size_t bytes,
                           const struct moe_score_options *options, struct moe_score_result *r,
                           struct moe_err *err)
{
    struct moe_score_options o;
    int32_t *ids = NULL;
    size_t n = 0;

    MOE_API_ERR(err);
    MOE_TRY(moe_api_given(lm, "lm", err));
    MOE_TRY(moe_api_result_check(r, "moe_score_result", err));
    MOE_TRY(moe_api_options(&o, sizeof o, options, "moe_score_options", err));
    if (o.reference == lm) return moe_fail(err, MOE_USAGE, "the reference is the model itself");
    MOE_TRY(moe_lm_tokenize(lm, text, bytes, o.special, &ids, &n, err));
    enum moe_code code = score(lm, ids, n, &o, r, err);
    free(ids);
    return moe_api_end(code, err);
}
