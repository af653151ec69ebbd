/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/score.h"

#include "base/io.h"
#include "base/minmax.h"
#include "base/show.h"
#include "runtime/engine/score-pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The state of scoring the windows of one rank. */
struct scorer {
    struct moe_score_side model, reference; /* reference.e is NULL without a reference */
    const int32_t *ids;               /* [n + 1] from the first position of this rank on */
    /* positions of this rank; the first position whose logits are in memory; at most how many are */
    int64_t n, at, rows;
    float *logits, *logits_ref;       /* [rows, V] */
    double *nll, *nll_ref, *kl;       /* [rows] */
    unsigned char *same;              /* [rows] 1: both models hold the same token to be the likeliest */
};

static double log_sum_exp(const float *x, int64_t n)
{
    float max = x[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > max) max = x[i];
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)max);
    return (double)max + log(sum);
}

/* The index of the largest value, the first of equal ones. */
static int64_t best(const float *x, int64_t n)
{
    int64_t b = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[b]) b = i;
    return b;
}

/* Scores position s->at + i from its logits; a task of the pool. */
static void score_position(void *ctx, int64_t i, int worker)
{
    struct scorer *s = ctx;
    int64_t v = s->model.e->model->config.vocab_size;
    int32_t target = s->ids[s->at + i + 1];
    const float *x = s->logits + i * v, *y = s->logits_ref + i * v;
    double z = log_sum_exp(x, v);
    (void)worker;
    s->nll[i] = z - (double)x[target];
    if (!s->reference.e) return;
    double zr = log_sum_exp(y, v), kl = 0;
    for (int64_t k = 0; k < v; k++) {
        double lp = (double)y[k] - zr;
        kl += exp(lp) * (lp - ((double)x[k] - z));
    }
    s->nll_ref[i] = zr - (double)y[target];
    s->kl[i] = kl;
    s->same[i] = best(x, v) == best(y, v);
}

/* ---- sums ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The q-quantile of n sorted values by the nearest-rank method. */
static double quantile(const double *v, int64_t n, double q)
{
    int64_t i = (int64_t)ceil(q * (double)n) - 1;
    return v[i < 0 ? 0 : i];
}

/* Adds the scores of the m positions at s->at to the sums. */
static void add(const struct scorer *s, int64_t m, struct moe_score_sums *t)
{
    for (int64_t i = 0; i < m; i++) {
        t->nll += s->nll[i];
        if (!s->reference.e) continue;
        t->nll_reference += s->nll_ref[i];
        t->kl += s->kl[i];
        t->same += s->same[i];
        t->all[t->n + i] = s->kl[i];
    }
    t->n += m;
}

enum moe_code moe_score_join(struct moe_score_sums *to, const struct moe_score_sums *more,
                             struct moe_err *err)
{
    if (more->all && more->n) {
        double *all = realloc(to->all, (size_t)(to->n + more->n) * sizeof *all);
        if (!all) return moe_fail(err, MOE_NOMEM, "no memory for scores");
        memcpy(all + to->n, more->all, (size_t)more->n * sizeof *all);
        to->all = all;
    }
    to->n += more->n;
    to->same += more->same;
    to->nll += more->nll;
    to->nll_reference += more->nll_reference;
    to->kl += more->kl;
    if (more->anonymous > to->anonymous) to->anonymous = more->anonymous;
    return MOE_OK;
}

void moe_score_total(struct moe_score *r, struct moe_score_sums *s)
{
    double n = (double)s->n;
    *r = (struct moe_score){
        .tokens = s->n, .nll = s->nll / n, .perplexity = exp(s->nll / n), .anonymous = s->anonymous
    };
    if (!s->all) return;
    r->nll_reference = s->nll_reference / n;
    r->perplexity_reference = exp(r->nll_reference);
    r->perplexity_ratio = exp(r->nll - r->nll_reference);
    r->kl = s->kl / n;
    r->top1_agreement = (double)s->same / n;
    qsort(s->all, (size_t)s->n, sizeof *s->all, ascending);
    r->kl_p50 = quantile(s->all, s->n, 0.50);
    r->kl_p99 = quantile(s->all, s->n, 0.99);
    r->kl_max = s->all[s->n - 1];
}

/* ---- memory ---- */

/* Of the mapped files that are read while scoring. */
static uint64_t files_bytes(const struct moe_engine *e)
{
    uint64_t bytes = 0;
    for (int32_t i = 0; e && !e->cuda && i < e->source->n_files; i++) bytes += e->source->files[i].size;
    return bytes;
}

/* How many positions' logits are computed at once. */
static int64_t logit_rows(const struct moe_engine *e, const struct moe_engine *ref, int64_t window)
{
    int64_t rows = moe_forward_logit_rows(&e->model->config, e->batch), batch = moe_score_batch(e, window);
    if (ref && moe_score_batch(ref, window) < batch) batch = moe_score_batch(ref, window);
    if (ref) rows = moe_min_i64(rows, moe_forward_logit_rows(&ref->model->config, ref->batch));
    return rows < batch ? rows : batch;
}

/* Decides whether the states go into a scratch file (*spill), and whether the pages of a layer are released
 * after it (*drop).  MOE_NOMEM when the memory allowed does not suffice in any way. */
static enum moe_code place(const struct scorer *s, const struct moe_engine *e, const struct moe_engine *ref,
                           const struct moe_score_text *t, int threads, bool *spill, bool *drop,
                           struct moe_err *err)
{
    /* small arrays, threads, and what the C library keeps of freed memory */
    enum { REST = 160 << 10 };
    /* with a GPU it bounds what is kept of the text, as --memory does of prompts (moe_prompts_read) */
    uint64_t held = e->cuda ? 0 : moe_peak_anonymous();
    uint64_t limit = t->memory ? t->memory : moe_available_memory();
    /* with a reference, the divergence of each position, twice while the C library sorts them */
    uint64_t need = moe_score_side_bytes(e, t->window, threads) + (ref ? 16 : 8) * (uint64_t)s->n + REST,
             states = moe_score_state_bytes(e, s->n);
    char want[16], room[16], all[16];
    if (t->memory) need += held;
    need += (uint64_t)(s->rows * e->model->config.vocab_size * (ref ? 2 : 1)) * sizeof(float);
    if (ref)
        need += moe_score_side_bytes(ref, t->window, threads), states += moe_score_state_bytes(ref, s->n);
    *drop = limit && files_bytes(e) + files_bytes(ref) > limit;
    *spill = limit && need + states > limit;
    if (!*spill || (t->scratch && need <= limit)) return MOE_OK;
    return moe_fail(err, MOE_NOMEM,
                    "%lld positions need %s, and %s for their hidden states%s, %s %s (try %sa larger "
                    "--memory, or less text)",
                    (long long)s->n, moe_human_bytes(need, all), moe_human_bytes(states, want),
                    t->scratch ? " in --scratch" : "", moe_human_bytes(limit, room),
                    t->memory ? "are allowed" : "are available", t->scratch ? "" : "--scratch DIR, ");
}

static enum moe_code prepare(struct scorer *s, struct moe_engine *e, struct moe_engine *ref,
                             const struct moe_score_text *t, int threads, struct moe_score_sums *sums,
                             struct moe_err *err)
{
    bool spill, drop;
    size_t v = (size_t)e->model->config.vocab_size;
    s->rows = logit_rows(e, ref, t->window);
    MOE_TRY(place(s, e, ref, t, threads, &spill, &drop, err));
    MOE_TRY(moe_score_side_open(&s->model, e, s->n, t->window, spill ? t->scratch : NULL, drop, err));
    if (ref)
        MOE_TRY(
            moe_score_side_open(&s->reference, ref, s->n, t->window, spill ? t->scratch : NULL, drop, err));
    size_t n = (size_t)s->rows;
    s->logits = malloc(n * v * sizeof *s->logits);
    s->logits_ref = ref ? malloc(n * v * sizeof *s->logits_ref) : s->logits;
    s->nll = malloc(n * sizeof *s->nll);
    s->nll_ref = malloc(n * sizeof *s->nll_ref);
    s->kl = malloc(n * sizeof *s->kl);
    s->same = malloc(n);
    sums->all = ref ? malloc((size_t)s->n * sizeof *sums->all + 1) : NULL;
    bool ok = s->logits && s->logits_ref && s->nll && s->nll_ref && s->kl && s->same && (!ref || sums->all);
    return ok ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for scores");
}

static void clear(struct scorer *s, bool reference)
{
    moe_score_side_close(&s->model);
    moe_score_side_close(&s->reference);
    if (reference) free(s->logits_ref);
    free(s->logits);
    free(s->nll);
    free(s->nll_ref);
    free(s->kl);
    free(s->same);
}

/* ---- scoring ---- */

static enum moe_code run(struct scorer *s, struct moe_pool *pool, struct moe_progress *progress,
                         struct moe_score_sums *sums, struct moe_err *err)
{
    MOE_TRY(moe_score_side_run(&s->model, s->ids, progress, err));
    if (s->reference.e) MOE_TRY(moe_score_side_run(&s->reference, s->ids, progress, err));
    for (s->at = 0; s->at < s->n; s->at += s->rows) {
        int64_t m = s->n - s->at < s->rows ? s->n - s->at : s->rows;
        MOE_TRY(moe_score_side_logits(&s->model, s->at, m, s->logits, err));
        if (s->reference.e) MOE_TRY(moe_score_side_logits(&s->reference, s->at, m, s->logits_ref, err));
        moe_pool_run(pool, m, score_position, s);
        add(s, m, sums);
        moe_progress_add(progress, (uint64_t)m);
        MOE_TRY(moe_cancel_check(s->model.e->cancel, err));
    }
    return MOE_OK;
}

static enum moe_code check(const struct moe_engine *e, const struct moe_engine *ref,
                           const struct moe_score_text *t, struct moe_err *err)
{
    if (t->window < 1 || t->window > e->context || (ref && t->window > ref->context))
        return moe_fail(err, MOE_USAGE, "--window %lld: want 1 to the context of %lld", (long long)t->window,
                        (long long)e->context);
    if ((t->n - 1) / t->window < 1)
        return moe_fail(err, MOE_USAGE,
                        "the text has %lld token%s, a window needs %lld (choose a smaller --window)",
                        (long long)t->n, moe_plural(t->n), (long long)t->window + 1);
    if (ref && ref->model->config.vocab_size != e->model->config.vocab_size)
        return moe_fail(err, MOE_MISMATCH,
                        "the vocabularies differ: %lld and %lld (compare a model with its own source)",
                        (long long)e->model->config.vocab_size, (long long)ref->model->config.vocab_size);
    for (int64_t i = 0; i < t->n; i++)
        if (t->ids[i] < 0 || t->ids[i] >= e->model->config.vocab_size)
            return moe_fail(err, MOE_MISMATCH, "token %d is outside the vocabulary", t->ids[i]);
    return MOE_OK;
}

int64_t moe_score_window(const struct moe_engine *e)
{
    return e->context < MOE_SCORE_WINDOW ? e->context : MOE_SCORE_WINDOW;
}

enum moe_code moe_score_part(struct moe_engine *e, struct moe_engine *reference,
                             const struct moe_score_text *t, int rank, int ranks, struct moe_pool *pool,
                             struct moe_progress *progress, struct moe_score_sums *sums, struct moe_err *err)
{
    *sums = (struct moe_score_sums){ 0 };
    MOE_TRY(check(e, reference, t, err));
    int64_t windows = (t->n - 1) / t->window, from = windows * rank / ranks,
            to = windows * (rank + 1) / ranks;
    struct scorer s = { .ids = t->ids + from * t->window, .n = (to - from) * t->window };
    int64_t layers = e->model->config.num_hidden_layers +
                     (reference ? reference->model->config.num_hidden_layers : 0);
    if (!s.n) return MOE_OK;
    enum moe_code code = prepare(&s, e, reference, t, moe_pool_threads(pool), sums, err);
    moe_progress_begin(progress, "score, tokens by layers", (uint64_t)(s.n * (layers + 1)), MOE_UNIT_TOKENS);
    if (code == MOE_OK) code = run(&s, pool, progress, sums, err);
    moe_progress_end(progress);
    sums->anonymous = moe_peak_anonymous(); /* before memory is freed */
    clear(&s, reference != NULL);
    return code;
}

enum moe_code moe_score_text(struct moe_engine *e, struct moe_engine *reference,
                             const struct moe_score_text *t, struct moe_pool *pool,
                             struct moe_progress *progress, struct moe_score *r, struct moe_err *err)
{
    struct moe_score_sums s;
    enum moe_code code = moe_score_part(e, reference, t, 0, 1, pool, progress, &s, err);
    if (code == MOE_OK) moe_score_total(r, &s);
    free(s.all);
    return code;
}
