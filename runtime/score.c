#include "runtime/score.h"

#include "base/tool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One model's part of a batch of windows. */
struct side { struct moe_engine *e; struct moe_kv *kv; struct moe_segment *segments; float *h, *logits; };

struct scorer {
    struct side model, reference;     /* reference.e NULL: none */
    const int32_t *ids;
    int64_t window, batch;            /* windows in a batch */
    int64_t rows;                     /* positions whose logits are in memory at once */
    int64_t at, first;                /* the first position of these; of the batch */
    double *nll, *nll_ref, *kl;       /* by position of the batch */
    unsigned char *same;
};

static double log_sum_exp(const float *x, int64_t n)
{
    float most = x[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > most) most = x[i];
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)most);
    return (double)most + log(sum);
}

static int64_t best(const float *x, int64_t n)
{
    int64_t b = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[b]) b = i;
    return b;
}

static void judge(void *ctx, int64_t i, int worker)
{
    struct scorer *s = ctx;
    int64_t v = s->model.e->model->config.vocab_size, pos = s->at + i;
    int32_t target = s->ids[s->first + pos + 1];
    const float *x = s->model.logits + i * v;
    double z = log_sum_exp(x, v);
    (void)worker;
    s->nll[pos] = z - (double)x[target];
    if (!s->reference.e) return;
    const float *y = s->reference.logits + i * v;
    double zr = log_sum_exp(y, v), kl = 0;
    for (int64_t k = 0; k < v; k++) {
        double lp = (double)y[k] - zr;
        kl += exp(lp) * (lp - ((double)x[k] - z));
    }
    s->nll_ref[pos] = zr - (double)y[target];
    s->kl[pos] = kl;
    s->same[pos] = best(x, v) == best(y, v);
}

/* Run `windows` windows from the batch's first id: their hidden states into d->h [windows * window, H]. */
static enum moe_code run_side(struct scorer *s, struct side *d, int64_t windows, struct moe_err *err)
{
    int64_t hidden = d->e->model->config.hidden_size, n = windows * s->window;
    if (s->window > d->e->batch) { /* one window, in pieces */
        for (int64_t i = 0; i < n; i += d->e->batch) {
            struct moe_segment g = { &d->kv[0], i, n - i < d->e->batch ? n - i : d->e->batch };
            MOE_TRY(moe_forward_run(d->e->forward, s->ids + s->first + i, &g, 1, d->h + i * hidden, err));
        }
        return MOE_OK;
    }
    for (int64_t w = 0; w < windows; w++) d->segments[w] = (struct moe_segment){ &d->kv[w], 0, s->window };
    return moe_forward_run(d->e->forward, s->ids + s->first, d->segments, windows, d->h, err);
}

static enum moe_code run_batch(struct scorer *s, int64_t windows, struct moe_pool *pool, struct moe_err *err)
{
    int64_t n = windows * s->window;
    MOE_TRY(run_side(s, &s->model, windows, err));
    if (s->reference.e) MOE_TRY(run_side(s, &s->reference, windows, err));
    for (s->at = 0; s->at < n; s->at += s->rows) {
        int64_t m = n - s->at < s->rows ? n - s->at : s->rows;
        MOE_TRY(moe_forward_logits(s->model.e->forward, s->model.h + s->at * s->model.e->model->config.hidden_size, m, s->model.logits, err));
        if (s->reference.e)
            MOE_TRY(moe_forward_logits(s->reference.e->forward, s->reference.h + s->at * s->reference.e->model->config.hidden_size, m, s->reference.logits, err));
        moe_pool_run(pool, m, judge, s);
    }
    return MOE_OK;
}

static enum moe_code open_side(struct scorer *s, struct side *d, struct moe_err *err)
{
    const struct moe_config *c = &d->e->model->config;
    size_t n = (size_t)(s->batch * s->window);
    d->kv = calloc((size_t)s->batch, sizeof *d->kv);
    d->segments = calloc((size_t)s->batch, sizeof *d->segments);
    d->h = malloc(n * (size_t)c->hidden_size * sizeof *d->h);
    d->logits = malloc((size_t)(s->rows * c->vocab_size) * sizeof *d->logits);
    if (!d->kv || !d->segments || !d->h || !d->logits) return moe_fail(err, MOE_NOMEM, "no memory for windows of %lld tokens (try a smaller --window)", (long long)s->window);
    for (int64_t w = 0; w < s->batch; w++) {
        MOE_TRY(moe_kv_open(&d->kv[w], c, err));
        MOE_TRY(moe_kv_reserve(&d->kv[w], s->window, err));
    }
    return MOE_OK;
}

static void close_side(struct side *d, int64_t batch)
{
    for (int64_t w = 0; d->kv && w < batch; w++) moe_kv_release(&d->kv[w]);
    free(d->kv);
    free(d->segments);
    free(d->h);
    free(d->logits);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The q-quantile by the nearest rank of sorted values. */
static double quantile(const double *v, int64_t n, double q)
{
    int64_t i = (int64_t)ceil(q * (double)n) - 1;
    return v[i < 0 ? 0 : i];
}

struct sums { double nll, nll_ref, kl; int64_t same; double *all; };

static enum moe_code run_all(struct scorer *s, int64_t windows, struct sums *t, struct moe_pool *pool, struct moe_progress *progress,
                             struct moe_err *err)
{
    for (int64_t w = 0; w < windows; w += s->batch) {
        int64_t n = windows - w < s->batch ? windows - w : s->batch;
        s->first = w * s->window;
        MOE_TRY(run_batch(s, n, pool, err));
        for (int64_t i = 0; i < n * s->window; i++) {
            t->nll += s->nll[i];
            if (!s->reference.e) continue;
            t->nll_ref += s->nll_ref[i];
            t->kl += s->kl[i];
            t->same += s->same[i];
            t->all[s->first + i] = s->kl[i];
        }
        moe_progress_add(progress, (uint64_t)(n * s->window));
        MOE_TRY(moe_interrupted(err));
    }
    return MOE_OK;
}

static void fill(struct moe_score *r, const struct sums *t, int64_t n, bool reference)
{
    *r = (struct moe_score){ .tokens = n, .nll = t->nll / (double)n, .perplexity = exp(t->nll / (double)n) };
    if (!reference) return;
    r->nll_reference = t->nll_ref / (double)n;
    r->perplexity_reference = exp(r->nll_reference);
    r->kl = t->kl / (double)n;
    r->top1_agreement = (double)t->same / (double)n;
    qsort(t->all, (size_t)n, sizeof *t->all, ascending);
    r->kl_p50 = quantile(t->all, n, 0.50);
    r->kl_p99 = quantile(t->all, n, 0.99);
    r->kl_max = t->all[n - 1];
}

static enum moe_code prepare(struct scorer *s, struct sums *t, int64_t windows, struct moe_err *err)
{
    int64_t least = s->model.e->batch;
    if (s->reference.e && s->reference.e->batch < least) least = s->reference.e->batch;
    s->batch = s->window < least ? least / s->window : 1;
    if (s->batch > windows) s->batch = windows;
    s->rows = moe_engine_logit_rows(&s->model.e->model->config);
    if (s->rows > s->batch * s->window) s->rows = s->batch * s->window;
    size_t n = (size_t)(s->batch * s->window);
    s->nll = malloc(n * sizeof *s->nll);
    s->nll_ref = malloc(n * sizeof *s->nll_ref);
    s->kl = malloc(n * sizeof *s->kl);
    s->same = malloc(n);
    t->all = s->reference.e ? malloc((size_t)(windows * s->window) * sizeof *t->all) : NULL;
    if (!s->nll || !s->nll_ref || !s->kl || !s->same || (s->reference.e && !t->all)) return moe_fail(err, MOE_NOMEM, "no memory for scores");
    MOE_TRY(open_side(s, &s->model, err));
    return s->reference.e ? open_side(s, &s->reference, err) : MOE_OK;
}

enum moe_code moe_score_text(struct moe_engine *e, struct moe_engine *reference, const int32_t *ids, int64_t n, int64_t window,
                             struct moe_pool *pool, struct moe_progress *progress, struct moe_score *r, struct moe_err *err)
{
    struct scorer s = { .model = { .e = e }, .reference = { .e = reference }, .ids = ids, .window = window };
    struct sums t = { 0 };
    int64_t windows = window > 0 ? (n - 1) / window : 0;
    if (window < 1 || window > e->context || (reference && window > reference->context))
        return moe_fail(err, MOE_USAGE, "--window %lld: want 1 to the context of %lld", (long long)window, (long long)e->context);
    if (windows < 1)
        return moe_fail(err, MOE_USAGE, "the text has %lld tokens, a window needs %lld (choose a smaller --window)", (long long)n, (long long)window + 1);
    if (reference && reference->model->config.vocab_size != e->model->config.vocab_size)
        return moe_fail(err, MOE_MISMATCH, "the vocabularies differ: %lld and %lld (compare a model with its own source)",
                        (long long)e->model->config.vocab_size, (long long)reference->model->config.vocab_size);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= e->model->config.vocab_size) return moe_fail(err, MOE_MISMATCH, "token %d is outside the vocabulary", ids[i]);
    enum moe_code code = prepare(&s, &t, windows, err);
    moe_progress_begin(progress, "score", (uint64_t)(windows * window), MOE_UNIT_TOKENS);
    if (code == MOE_OK) code = run_all(&s, windows, &t, pool, progress, err);
    moe_progress_end(progress);
    if (code == MOE_OK) fill(r, &t, windows * window, reference != NULL);
    close_side(&s.model, s.batch);
    close_side(&s.reference, s.batch);
    free(s.nll);
    free(s.nll_ref);
    free(s.kl);
    free(s.same);
    free(t.all);
    return code;
}
