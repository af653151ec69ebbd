/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the engine's core: in random schedules (arrivals, cancellations, deadlines, readers that lag,
 * requests that are broken off and go on as others, sizes of the cache, of steps and of chunks) over two
 * models, each request gets the tokens and the text that a plain loop over the forward pass gives it alone.
 *
 *   test-core [N [SEED]]   N random schedules; by default what MOE_CORE_SCHEDULES says, or 100, and 20 under
 *                          sanitizers */
#include "tests/ok.h"
#include "base/minmax.h"
#include "base/thread.h"
#include "runtime/engine/core.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* 1: the program is test-core-cuda. */
#ifndef CORE_CUDA
#define CORE_CUDA 0
#endif
#if CORE_CUDA
#include "tests/shim/cuda/open.h"
#endif

static struct moe_err err = MOE_ERR_INIT;

static uint64_t seed;
static int64_t below(int64_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((seed >> 33) % (uint64_t)n);
}

/* ---- requests, and what they get alone ---- */

enum { KINDS = 24, LONGEST = 240 };

struct kind {
    struct moe_request q;
    int32_t ids[LONGEST], stop_id;
    struct moe_bias bias;
    const char *stop; char stop_text[24];
    /* the answer */
    int32_t token[LONGEST]; int64_t n;
    float logprob[LONGEST];
    char *text; size_t bytes;
    enum moe_finish finish;
};

/* alone: the engine that computes answers alone, e itself or one on the processor. */
struct model { struct moe_engine *e, *alone; struct kind kind[KINDS]; int64_t longest; };
static struct model fixture, small;

static bool ends(const struct model *m, const struct kind *k, int32_t id)
{
    const struct moe_config *c = &m->e->model->config;
    for (size_t i = 0; i < k->q.n_stop_ids; i++)
        if (k->q.stop_ids[i] == id) return true;
    for (int64_t i = 0; !k->q.ignore_eos && i < c->n_eos; i++)
        if (c->eos_token_id[i] == id) return true;
    return !k->q.ignore_eos && m->e->tokenizer &&
           (id == moe_token_find_special(m->e->tokenizer, "<|im_end|>") ||
            id == moe_token_find_special(m->e->tokenizer, "[EOS]"));
}

/* Makes the text of the tokens so far.  True: it has a stop text, before which it is cut. */
static bool retext(const struct model *m, struct kind *k)
{
    free(k->text);
    k->text = NULL;
    k->bytes = 0;
    if (!m->e->tokenizer) return (k->text = calloc(1, 1)), false;
    OK(moe_decode_all(m->e->tokenizer, k->token, (size_t)k->n, k->q.keep_special, &k->text, &k->bytes,
                      &err) == MOE_OK);
    char *at = k->stop ? memmem(k->text, k->bytes, k->stop, strlen(k->stop)) : NULL;
    if (at) k->bytes = (size_t)(at - k->text);
    return at != NULL;
}

/* Changes the logits as the request wants it, by the formula of kernels/penalties.h. */
static void penalize(const struct model *m, const struct kind *k, const int32_t *ids, int64_t n,
                     float *logits)
{
    const struct moe_penalties *p = &k->q.penalties;
    for (int32_t id = 0; id < m->e->vocab; id++) {
        int64_t times = 0, seen = 0;
        for (int64_t i = 0; i < n; i++) seen += ids[i] == id, times += i >= k->q.n_ids && ids[i] == id;
        float x = logits[id] + (p->n_bias && p->bias->id == id ? p->bias->bias : 0);
        float by = p->frequency * (float)times;
        if (seen && p->repetition > 0) x = x > 0 ? x / p->repetition : x * p->repetition;
        logits[id] = x + (times ? -by - p->presence : 0);
        if (n - k->q.n_ids < k->q.min_tokens && ends(m, k, id)) logits[id] = -INFINITY;
    }
}

/* Computes the answer to a request, one pass for its prompt and one for each token. */
static void alone(const struct model *m, struct kind *k)
{
    struct moe_engine *e = m->alone;
    const struct moe_config *c = &e->model->config;
    struct moe_latent cache;
    int64_t at = 0, n = k->q.n_ids, v = c->vocab_size;
    int32_t ids[LONGEST], *order = malloc((size_t)v * 4);
    float *logits = malloc((size_t)v * 4), *raw = malloc((size_t)v * 4), *p = malloc((size_t)v * 4);
    struct moe_logprobs l;
    OK(moe_latent_open(&cache, e->device, c->num_hidden_layers, LONGEST / MOE_PAGE + 1, &err) == MOE_OK);
    memcpy(ids, k->ids, (size_t)n * 4);
    k->n = 0;
    k->finish = MOE_FINISH_LENGTH;
    for (bool done = false; !done && k->n < k->q.max_tokens;) {
        const struct moe_segment s = { &cache, cache.every, at, n - at };
        const struct moe_batch b = { ids + at, n - at, &s, 1 };
        const int32_t last = (int32_t)(n - at - 1);
        OK(moe_forward_run(e->forward, &b, &err) == MOE_OK);
        moe_forward_logits(e->forward, &last, 1, logits);
        OK(moe_forward_wait(e->forward, &err) == MOE_OK);
        at = n;
        memcpy(raw, logits, (size_t)v * 4);
        if (k->q.penalties.repetition > 0 || k->q.min_tokens) penalize(m, k, ids, n, logits);
        uint64_t draw = moe_draw(k->q.seed, k->q.choice, n);
        int32_t id = moe_sample(&k->q.sampler, draw, logits, e->vocab, order, p);
        moe_logprobs(raw, e->vocab, id, 0, &l, p);
        k->logprob[k->n] = l.logprob;
        done = ends(m, k, id);
        if (!done) k->token[k->n++] = ids[n++] = id, done = retext(m, k);
        if (done) k->finish = MOE_FINISH_STOP;
    }
    retext(m, k);
    moe_latent_release(&cache);
    free(order);
    free(logits);
    free(raw);
    free(p);
}

/* Some requests begin as others do; some end at a token or a text of the answer they would have got. */
static void draw_kind(struct model *m, int i)
{
    struct kind *k = &m->kind[i], *other = &m->kind[below(i + 1)];
    int64_t context = moe_min_i64(m->e->context, LONGEST), vocab = m->e->vocab;
    int64_t most = context - 30, n = 1 + below(below(3) ? most / 2 : most);
    int64_t same = below(3) ? below(2) ? other->q.n_ids : below(other->q.n_ids + 1) : 0;
    for (int64_t j = 0; j < n; j++) k->ids[j] = j < same ? other->ids[j] : (int32_t)below(vocab);
    k->q = (struct moe_request){ .ids = k->ids,
                                 .n_ids = n,
                                 .max_tokens = below(10) ? 1 + below(below(2) ? 28 : context - n) : 0,
                                 .sampler = { below(3) ? 0.9f : 0, 0.95f, 0, 40 },
                                 .seed = (uint64_t)below(5),
                                 .choice = (uint32_t)below(2),
                                 .ignore_eos = below(2),
                                 .keep_special = below(2),
                                 .logprobs = below(4) ? -1 : (int)below(4),
                                 .priority = (int)below(3),
                                 .tenant = (uint64_t)below(3),
                                 .salt = "salt",
                                 .salt_bytes = below(6) ? 0 : 4,
                                 .ctx = k };
    if (!below(3)) {
        k->bias = (struct moe_bias){ (int32_t)below(vocab), (float)below(20) - 10 };
        k->q.penalties = (struct moe_penalties){ 1 + (float)below(3) / 8, 0.25f, 0.5f, &k->bias, 1 };
    }
    if (!below(4)) k->q.min_tokens = below(12);
    alone(m, k);
    m->longest = moe_max_i64(m->longest, n + k->q.max_tokens);
    if (k->n > 4 && !below(3)) {
        k->stop_id = k->token[below(k->n)];
        k->q.stop_ids = &k->stop_id;
        k->q.n_stop_ids = 1;
        alone(m, k);
    } else if (k->bytes > 8 && !k->q.min_tokens && !below(2)) {
        size_t length = 1 + (size_t)below(7);
        memcpy(k->stop_text, k->text + below((int64_t)(k->bytes - length)), length);
        k->stop = k->stop_text;
        k->q.stop = &k->stop;
        k->q.n_stop = *k->stop_text != 0;
        if (!k->q.n_stop) k->stop = NULL;
        alone(m, k);
    }
}

static void open_model(struct model *m, const char *path, int64_t context)
{
    struct moe_engine_options o = { .context = context, .batch = 320 };
    OK(moe_engine_open(&m->alone, path, &o, NULL, &err) == MOE_OK);
    o.cuda = CORE_CUDA;
    m->e = m->alone;
    if (CORE_CUDA) OK(moe_engine_open(&m->e, path, &o, NULL, &err) == MOE_OK);
    for (int i = 0; i < KINDS; i++) draw_kind(m, i);
}

static void close_model(struct model *m)
{
    for (int i = 0; i < KINDS; i++) free(m->kind[i].text);
    if (m->e != m->alone) moe_engine_close(&m->e);
    moe_engine_close(&m->alone);
}

/* ---- readers ---- */

/* A request that was submitted, and what its reader has got. */
struct reader {
    const struct kind *k;
    uint64_t id;
    int32_t token[LONGEST]; int64_t n;
    char *text; size_t bytes;
    bool ended;
    bool moving;                /* it was cancelled to go on as another request */
    enum moe_finish finish;
    struct moe_usage usage;
};

static void take(struct reader *r, const struct moe_event *ev)
{
    OK(ev->id == r->id && ev->ctx == r->k && !r->ended);
    OK(r->n + ev->n_tokens <= r->k->n && (!ev->logprobs == (r->k->q.logprobs < 0)));
    OK(!memcmp(ev->tokens, r->k->token + r->n, (size_t)ev->n_tokens * 4));
    for (int64_t i = 0; ev->logprobs && i < ev->n_tokens; i++) {
        const struct moe_logprobs *l = &ev->logprobs[i];
        OK(l->logprob == r->k->logprob[r->n + i] && l->n == r->k->q.logprobs);
        for (int k = 0; k < l->n; k++)
            OK(l->top[k].id == ev->tokens[i] ? l->top[k].logprob == l->logprob
                                             : k == 0 || l->top[k].logprob <= l->top[k - 1].logprob);
    }
    memcpy(r->token + r->n, ev->tokens, (size_t)ev->n_tokens * 4);
    r->n += ev->n_tokens;
    bool cut = ev->end && ev->finish > MOE_FINISH_LENGTH;
    r->ended = ev->end;
    if (cut && r->moving) return; /* what is cut off has text that was held back, which comes again */
    /* where it is cut, it may end in the beginning of what would have been a stop text */
    int64_t bytes = moe_min_i64((int64_t)ev->text_bytes, (int64_t)(r->k->bytes - r->bytes));
    OK((cut || bytes == (int64_t)ev->text_bytes) && !memcmp(ev->text, r->k->text + r->bytes, (size_t)bytes));
    r->bytes += ev->text_bytes;
    if (!ev->end) return;
    r->finish = ev->finish;
    r->usage = ev->usage;
    OK(ev->usage.prompt == r->k->q.n_ids && ev->usage.generated == r->n);
    OK(ev->usage.cached <= ev->usage.prompt);
    OK(cut || (r->n == r->k->n && r->bytes == r->k->bytes && ev->finish == r->k->finish));
}

/* ---- random schedules ---- */

struct totals { int64_t finished[MOE_FINISH_COUNT], preemptions, found, steps, held, moved; };

struct world {
    struct model *m;
    struct moe_core *core;
    struct reader reader[40];
    int64_t n, begun, ended, moved;
    double now;
    bool held, moves;           /* there was a held request; some move to another one */
};

static double clock_of(void *ctx) { return ((struct world *)ctx)->now; }

/* Submits the rest of an answer, as to a core that has never heard of the request. */
static void move(struct world *w, struct reader *r)
{
    struct moe_request q = r->k->q;
    int32_t ids[2 * LONGEST];
    memcpy(ids, q.ids, (size_t)q.n_ids * 4);
    memcpy(ids + q.n_ids, r->token, (size_t)r->n * 4);
    q.ids = ids;
    q.n_ids += r->n;
    q.n_answer = r->n;
    q.answer_bytes = r->bytes;
    q.whole = !below(5);
    OK(moe_core_submit(w->core, &q, &r->id, &err) == MOE_OK);
    r->moving = r->ended = false;
    w->moved++;
}

static void read_events(struct world *w, struct reader *r)
{
    static struct moe_event ev;
    bool there;
    OK(moe_core_events(w->core, r->id, 0, &ev, &there, &err) == MOE_OK);
    if (!there) return;
    take(r, &ev);
    if (r->ended) FAILS(MOE_NOT_FOUND, moe_core_events(w->core, r->id, 0, &ev, &there, &err));
    if (r->ended && r->moving && ev.finish == MOE_FINISH_CANCELLED) move(w, r);
    w->ended += r->ended;
    if (!below(20)) moe_event_release(&ev);
}

static void submit(struct world *w, bool rough)
{
    struct reader *r = &w->reader[w->begun++];
    *r = (struct reader){ .k = &w->m->kind[below(KINDS)] };
    struct moe_request q = r->k->q;
    if (rough && !below(8)) q.deadline = w->now + (double)below(30);
    q.whole = !below(5);
    OK(moe_core_submit(w->core, &q, &r->id, &err) == MOE_OK && r->id);
}

static void turn(struct world *w, bool rough)
{
    bool worked;
    while (w->begun < w->n && !below(3)) submit(w, rough);
    if (rough && w->begun && !below(10)) moe_core_cancel(w->core, w->reader[below(w->begun)].id);
    if (w->moves && w->begun && !below(12)) {
        struct reader *r = &w->reader[below(w->begun)];
        if (!r->ended) moe_core_cancel(w->core, r->id), r->moving = true;
    }
    OK(moe_core_step(w->core, &worked, &err) == MOE_OK);
    OK(!moe_core_check(w->core));
    w->now += 1;
    w->held |= moe_core_stats(w->core).held > 0;
    /* some readers come seldom; when nothing is left to do, all come */
    for (int64_t i = 0; i < w->begun; i++)
        if (!w->reader[i].ended && (!worked || !below(2 + i % 7))) read_events(w, &w->reader[i]);
}

static void check_end(struct world *w, struct totals *all)
{
    struct moe_core_stats s = moe_core_stats(w->core);
    OK(s.waiting + s.running + s.held == 0 && s.pages_used == 0 && s.submitted == w->n + w->moved);
    int64_t generated = 0;
    for (int64_t i = 0; i < w->n; i++) generated += w->reader[i].n;
    OK(s.generated == generated);
    for (int f = 0; f < MOE_FINISH_COUNT; f++) all->finished[f] += s.finished[f];
    all->preemptions += s.preemptions, all->found += s.prompt_found, all->steps += s.steps;
    all->held += w->held, all->moved += w->moved;
}

static void one_schedule(uint64_t number, struct totals *all)
{
    static struct world w;
    seed = number * 77777 + 5;
    w = (struct world){ .m = CORE_CUDA || number % 4 ? &small : &fixture,
                        .n = 1 + below(CORE_CUDA ? 8 : 40) };
    w.moves = number % 5 < 2;
    const struct moe_config *c = &w.m->e->model->config;
    int64_t pages = moe_latent_pages(w.m->longest) + below(below(3) ? 2 : 40);
    bool rough = number % 3 == 0;
    uint64_t page = moe_latent_estimate(c, MOE_LATENT_F32, c->num_hidden_layers, 1) + moe_pages_estimate(1);
    struct moe_core_options o = { .cache = (uint64_t)pages * page,
                                  .batch_tokens = 1 + below(below(2) ? 40 : 320),
                                  .chunk = below(2) ? 1 + below(70) : 0,
                                  .sequences = below(2) ? 1 + below(12) : 0,
                                  .aging = (double)below(20),
                                  .apart = !below(8),
                                  .unread = below(2) ? 1 + below(6) : 0,
                                  .patience = rough ? (double)below(40) : 0,
                                  .now = clock_of,
                                  .clock = &w };
    OK(moe_core_open(&w.core, w.m->e, &o, &err) == MOE_OK);
    for (int64_t turns = 0; w.ended < w.n; turn(&w, rough)) OK(turns++ < 100000);
    check_end(&w, all);
    moe_core_close(&w.core);
}

static void test_random(uint64_t from, uint64_t n)
{
    struct totals all = { .steps = 0 };
    for (uint64_t i = from; i < from + n; i++) one_schedule(i, &all);
    printf("%lld schedules, %lld steps, %lld preemptions, %lld with held requests, %lld tokens found, "
           "%lld requests moved; ended:",
           (long long)n, (long long)all.steps, (long long)all.preemptions, (long long)all.held,
           (long long)all.found, (long long)all.moved);
    for (int f = 0; f < MOE_FINISH_COUNT; f++) printf(" %lld", (long long)all.finished[f]);
    printf("\n");
    fflush(stdout);
    if (n < 100) return;
    OK(all.preemptions > 10 && all.held > 10 && all.found > 1000 && all.moved > 100);
    for (int f = 0; f < MOE_FINISH_COUNT; f++) OK(all.finished[f] > 5);
}

int main(int argc, char **argv)
{
#if CORE_CUDA
#if defined(__SANITIZE_ADDRESS__)
    uint64_t n = 3;
#else
    uint64_t n = 10;
#endif
    if (!getenv("MOE_TEST_GPU") && !standin_open()) return 77;
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    uint64_t n = 20;
#else
    uint64_t n = 100;
#endif
    const char *asked = getenv("MOE_CORE_SCHEDULES");
    if (asked) n = strtoull(asked, NULL, 10);
    if (argc > 1) n = strtoull(argv[1], NULL, 10);
    seed = 1;
    if (!CORE_CUDA) open_model(&fixture, "tests/data/tiny-k2/bf16", 256);
    open_model(&small, "tests/data/golden-v1.moe", 0);
    test_random(argc > 2 ? strtoull(argv[2], NULL, 10) : 0, n);
    if (!CORE_CUDA) close_model(&fixture);
    close_model(&small);
#if CORE_CUDA
    if (!getenv("MOE_TEST_GPU")) OK(standin_left() == 0);
#endif
    printf("test-core%s: %ld checks\n", CORE_CUDA ? "-cuda" : "", checks);
    return 0;
}
