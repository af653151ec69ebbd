/* SPDX-License-Identifier: Apache-2.0 */
/* Proves a plan.  Loads are added up from the plan and the statistics, not taken from the search. */
#include "runtime/plan/plan-internal.h"
#include "runtime/plan/plan-proof.h"

#include "base/hash.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A split divides whole tokens, so loads are scaled to whole numbers whose sum in a layer is about this. */
static const double UNITS = 0x1p44;

struct layer_work {
    const struct moe_plan *p;
    const struct moe_plan_layer *l;
    const struct moe_plan_task *t;
    double *w, mean;        /* [experts][windows] */
    int64_t *tokens, *share;
    bool *dead, *cut;
    bool *alike, *mark;     /* [ranks], [experts] of find_alike */
    struct content *content;/* [ranks] of find_alike */
    int32_t *count;         /* [ranks] scratch */
    struct moe_split *split;
    int64_t batch;
    struct moe_arena arena;
};

/* Loads with equal shares. */
static void loads(struct layer_work *x, struct moe_plan_proof *f)
{
    int32_t W = x->t->stats->n_windows;
    f->load_mean = x->mean;
    f->load_rank = 0;
    for (int32_t r = 0; r < x->p->ranks; r++) {
        double max = 0;
        for (int32_t v = 0; v < W; v++) {
            double sum = 0;
            for (int32_t k = x->l->first[r]; k < x->l->first[r + 1]; k++) {
                int32_t e = x->l->slot[k];
                sum += x->w[(int64_t)e * W + v] / (x->l->copy_first[e + 1] - x->l->copy_first[e]);
            }
            max = sum > max ? sum : max;
        }
        f->loads[r] = max;
        if (max > f->load_max) f->load_max = max, f->load_rank = r;
    }
}

/* Rounds a load that was computed in whole units to 10 digits; the others would mean nothing. */
static double in_digits(double v)
{
    char text[32];
    snprintf(text, sizeof text, "%.10g", v);
    return strtod(text, NULL);
}

/* The load of the fullest rank with the best split, in the worst window; f (may be NULL) gets its cut. */
static double split(struct layer_work *x, struct moe_plan_proof *f)
{
    int32_t W = x->t->stats->n_windows;
    double worst = 0;
    for (int32_t v = 0; v < W; v++) {
        double scale = x->mean > 0 ? UNITS / (x->mean * x->p->ranks) : 0;
        for (int32_t e = 0; e < x->p->experts; e++) x->tokens[e] = llrint(x->w[(int64_t)e * W + v] * scale);
        struct moe_split_result got = moe_split_best(x->split, x->l, x->tokens, x->dead, x->share, x->cut);
        double load = scale > 0 ? in_digits((double)got.load_max / scale) : 0;
        if (load < worst || (v && load <= worst)) continue;
        worst = load;
        if (!f) continue;
        f->cut_ranks = got.cut_ranks;
        for (int32_t r = 0; r < x->p->ranks; r++) f->cut[r] = x->cut[r];
    }
    return worst;
}

/* Ranks in groups of `size`: how many experts have all their copies in one group, for the group with most. */
static int32_t lost_with_one(struct layer_work *x, int32_t size)
{
    const struct moe_plan_layer *l = x->l;
    int32_t worst = 0;
    memset(x->count, 0, (size_t)x->p->ranks * sizeof *x->count);
    for (int32_t e = 0; e < x->p->experts; e++) {
        int32_t c = l->copy_first[e], group = l->copy_rank[c] / size;
        while (c < l->copy_first[e + 1] && l->copy_rank[c] / size == group) c++;
        if (c == l->copy_first[e + 1] && ++x->count[group] > worst) worst = x->count[group];
    }
    return worst;
}

/* A hash of the experts of a rank, whatever their order. */
struct content { uint64_t key; int32_t rank; };

static int by_key(const void *p, const void *q)
{
    const struct content *a = p, *b = q;
    return a->key != b->key ? (a->key > b->key) - (a->key < b->key)
                            : (a->rank > b->rank) - (a->rank < b->rank);
}

/* Whether ranks a and b hold the same experts. */
static bool same_content(struct layer_work *x, int32_t a, int32_t b)
{
    const struct moe_plan_layer *l = x->l;
    bool same = l->first[a + 1] - l->first[a] == l->first[b + 1] - l->first[b];
    for (int32_t k = l->first[a]; k < l->first[a + 1]; k++) x->mark[l->slot[k]] = true;
    for (int32_t k = l->first[b]; same && k < l->first[b + 1]; k++) same = x->mark[l->slot[k]];
    for (int32_t k = l->first[a]; k < l->first[a + 1]; k++) x->mark[l->slot[k]] = false;
    return same;
}

/* Sets x->alike[r] where a rank before r holds the same experts.  The loss of either leads to the same best
 * split but for the ranks' numbers, so that it is computed for one of them alone. */
static void find_alike(struct layer_work *x)
{
    const struct moe_plan_layer *l = x->l;
    for (int32_t r = 0; r < x->p->ranks; r++) {
        x->content[r] = (struct content){ 0, r };
        for (int32_t k = l->first[r]; k < l->first[r + 1]; k++) {
            uint64_t h = ((uint64_t)(uint32_t)l->slot[k] + 1) * 0x9e3779b97f4a7c15u;
            x->content[r].key += (h ^ h >> 29) * 0xbf58476d1ce4e5b9u; /* in any order of slots */
        }
    }
    qsort(x->content, (size_t)x->p->ranks, sizeof *x->content, by_key);
    for (int32_t i = 1, one = 0; i < x->p->ranks; i++) {
        if (x->content[i].key != x->content[one].key) one = i;
        else x->alike[x->content[i].rank] = same_content(x, x->content[one].rank, x->content[i].rank);
    }
}

static void losses(struct layer_work *x, struct moe_plan_proof *f)
{
    const struct moe_plan *p = x->p;
    int32_t node = x->t->ranks_per_node > 0 ? x->t->ranks_per_node : p->ranks;
    f->copies_min = INT32_MAX;
    for (int32_t e = 0; e < p->experts; e++) {
        int32_t n = x->l->copy_first[e + 1] - x->l->copy_first[e];
        f->copies_min = n < f->copies_min ? n : f->copies_min;
    }
    find_alike(x);
    for (int32_t r = 0; r < p->ranks && p->ranks > 1 && !moe_is_cancelled(x->t->cancel); r++) {
        if (x->alike[r]) continue;
        x->dead[r] = true;
        double load = split(x, NULL);
        x->dead[r] = false;
        if (load > f->load_max_after_loss) f->load_max_after_loss = load, f->loss_rank = r;
    }
    f->lost_worst = p->ranks > 1 ? lost_with_one(x, 1) : 0;
    f->lost_worst_node = node < p->ranks ? lost_with_one(x, node) : f->lost_worst;
}

/* The expected largest of n independent standard normal values, by Blom's approximation; bisection finds the
 * quantile. */
static double normal_max(int32_t n)
{
    double want = (n - 0.375) / (n + 0.25), lo = -8, hi = 8;
    for (int i = 0; n > 1 && i < 60; i++) {
        double mid = (lo + hi) / 2;
        if (0.5 * erfc(-mid / sqrt(2)) < want) lo = mid;
        else hi = mid;
    }
    return n > 1 ? lo : 0;
}

/* Sets activated_max and noise_floor.  In a batch, expert e gets about n_e = choices x w_e / sum of w tokens
 * (choices: tokens x experts per token), distributed as Poisson.  With equal shares each of its c_e copies
 * gets n_e / c_e of them, with variance n_e / c_e^2.  Ranks are taken to be independent, each with the mean
 * variance of all. */
static void batch(struct layer_work *x, struct moe_plan_proof *f)
{
    int32_t W = x->t->stats->n_windows, top = x->t->stats->experts_per_token;
    double all = x->mean * x->p->ranks, choices = (double)x->batch * x->p->ranks * (top > 0 ? top : 1),
           variance = 0;
    f->noise_floor = 1;
    if (!(all > 0)) return;
    for (int32_t r = 0; r < x->p->ranks; r++) {
        double active = 0;
        for (int32_t k = x->l->first[r]; k < x->l->first[r + 1]; k++) {
            int32_t e = x->l->slot[k];
            double n = 0, c = x->l->copy_first[e + 1] - x->l->copy_first[e];
            for (int32_t v = 0; v < W; v++) n += x->w[(int64_t)e * W + v] / W;
            n *= choices / all;
            active += -expm1(-n / c);
            variance += n / (c * c);
        }
        f->activated_max = active > f->activated_max ? active : f->activated_max;
    }
    f->noise_floor = 1 + normal_max(x->p->ranks) * sqrt(variance / x->p->ranks) / (choices / x->p->ranks);
}

static void moves(struct layer_work *x, struct moe_plan_proof *f)
{
    const struct moe_plan *from = x->t->from;
    const struct moe_plan_layer *old = from ? moe_plan_find(from, x->l->layer) : NULL;
    for (int32_t r = 0; old && r < x->p->ranks; r++)
        for (int32_t k = x->l->first[r]; k < x->l->first[r + 1]; k++)
            f->moves += !moe_plan_holds(old, r, x->l->slot[k]);
}

static enum moe_code prove_layer(struct layer_work *x, int32_t i, struct moe_plan_proof *f,
                                 struct moe_err *err)
{
    const struct moe_plan *p = x->p;
    struct moe_arena *a = &x->arena;
    int32_t W = x->t->stats->n_windows;
    x->l = &p->layers[i];
    f->layer = x->l->layer;
    x->w = MOE_NEWN(a, double, (int64_t)p->experts * W);
    x->tokens = MOE_NEWN(a, int64_t, p->experts);
    x->share = MOE_NEWN(a, int64_t, x->l->slots);
    x->dead = MOE_NEWN(a, bool, p->ranks);
    x->cut = MOE_NEWN(a, bool, p->ranks);
    x->alike = MOE_NEWN(a, bool, p->ranks);
    x->mark = MOE_NEWN(a, bool, p->experts);
    x->content = MOE_NEWN(a, struct content, p->ranks);
    x->count = MOE_NEWN(a, int32_t, p->ranks);
    if (!x->w || !x->tokens || !x->share || !x->dead || !x->cut || !x->alike || !x->mark || !x->content ||
        !x->count)
        return moe_fail(err, MOE_NOMEM, "no memory to prove a plan");
    moe_place_weights(x->t, i, x->w, &x->mean);
    MOE_TRY(moe_plan_bounds(&f->bounds, x->t, i, err));
    MOE_TRY(moe_split_open(&x->split, p, err));
    loads(x, f);
    f->split = split(x, f);
    losses(x, f);
    batch(x, f);
    moves(x, f);
    moe_split_close(&x->split);
    return moe_cancel_check(x->t->cancel, err);
}

struct job {
    const struct moe_plan *p;
    const struct moe_plan_task *t;
    int64_t batch;
    struct moe_plan_proofs *out;
    struct moe_err *errs;
};

static void run(void *ctx, int64_t i, int worker)
{
    struct job *j = ctx;
    (void)worker;
    struct layer_work x = { .p = j->p, .t = j->t, .batch = j->batch };
    if (moe_cancel_check(j->t->cancel, &j->errs[i]) == MOE_OK)
        prove_layer(&x, (int32_t)i, &j->out->layers[i], &j->errs[i]);
    moe_arena_clear(&x.arena);
    moe_progress_add(j->t->progress, 1);
}

/* Where the exact search ends in time, its optimum is a bound too. */
static enum moe_code exact(const struct moe_plan_task *t, int32_t i, struct moe_plan_proof *f,
                           struct moe_err *err)
{
    struct moe_place *s;
    double optimum;
    if (f->load_max <= f->bounds.best) return MOE_OK;
    MOE_TRY(moe_place_open(&s, t, i, err));
    moe_place_counts(s);
    moe_place_pack(s);
    if (moe_place_exact(s, &optimum) && optimum > f->bounds.best) {
        f->bounds.of[MOE_BOUND_EXACT] = f->bounds.best = optimum < f->load_max ? optimum : f->load_max;
        f->bounds.kind = MOE_BOUND_EXACT;
    }
    moe_place_close(&s);
    return moe_cancel_check(t->cancel, err);
}

static void add_up(struct moe_plan_proofs *s)
{
    s->copies_min = INT32_MAX;
    for (int32_t i = 0; i < s->n_layers; i++) {
        struct moe_plan_proof *f = &s->layers[i];
        if (f->bounds.best > f->load_max) f->bounds.best = f->load_max; /* they are equal but for rounding */
        f->gap = f->bounds.best > 0 ? f->load_max / f->bounds.best - 1 : 0;
        s->load_max += f->load_max;
        s->load_mean += f->load_mean;
        s->bound += f->bounds.best;
        s->split += f->split;
        s->load_max_after_loss += f->load_max_after_loss;
        s->moves += f->moves;
        s->lost_worst = f->lost_worst > s->lost_worst ? f->lost_worst : s->lost_worst;
        s->lost_worst_node = f->lost_worst_node > s->lost_worst_node ? f->lost_worst_node
                                                                     : s->lost_worst_node;
        s->copies_min = f->copies_min < s->copies_min ? f->copies_min : s->copies_min;
    }
    s->gap = s->bound > 0 ? s->load_max / s->bound - 1 : 0;
}

enum moe_code moe_plan_prove(struct moe_plan_proofs **out, const struct moe_plan *p,
                             const struct moe_plan_task *t, int64_t batch_tokens, struct moe_pool *pool,
                             struct moe_err *err)
{
    struct moe_plan_proofs *s = calloc(1, sizeof *s);
    struct job j = { p, t, batch_tokens, s, calloc((size_t)p->n_layers + 1, sizeof *j.errs) };
    uint8_t *cuts = NULL;
    double *loads_of = NULL;
    enum moe_code code = MOE_OK;
    *out = NULL;
    if (s) {
        s->layers = MOE_NEWN(&s->arena, struct moe_plan_proof, p->n_layers + 1);
        cuts = moe_arena_array(&s->arena, ((int64_t)p->n_layers + 1) * p->ranks, 1);
        loads_of = MOE_NEWN(&s->arena, double, ((int64_t)p->n_layers + 1) * p->ranks);
        s->n_layers = p->n_layers;
    }
    if (!s || !j.errs || !s->layers || !cuts || !loads_of)
        code = moe_fail(err, MOE_NOMEM, "no memory to prove a plan");
    for (int32_t i = 0; code == MOE_OK && i < p->n_layers; i++)
        s->layers[i].cut = cuts + (int64_t)i * p->ranks,
        s->layers[i].loads = loads_of + (int64_t)i * p->ranks;
    if (code == MOE_OK) {
        moe_progress_begin(t->progress, "proving layers", (uint64_t)p->n_layers, MOE_UNIT_ITEMS);
        moe_pool_run(pool, p->n_layers, run, &j);
        moe_progress_end(t->progress);
    }
    for (int32_t i = 0; code == MOE_OK && i < p->n_layers; i++)
        if (j.errs[i].code != MOE_OK) *err = j.errs[i], code = err->code;
    for (int32_t i = 0; code == MOE_OK && i < p->n_layers; i++) code = exact(t, i, &s->layers[i], err);
    free(j.errs);
    if (code == MOE_OK) {
        add_up(s);
        *out = s;
    } else moe_plan_proofs_free(&s);
    return code;
}

void moe_plan_proofs_free(struct moe_plan_proofs **p)
{
    if (!*p) return;
    moe_arena_clear(&(*p)->arena);
    free(*p);
    *p = NULL;
}

enum moe_code moe_routing_digest(const struct moe_routing *r, uint64_t *digest, struct moe_err *err)
{
    struct moe_hash *h = moe_hash_new();
    if (!h) return moe_fail(err, MOE_NOMEM, "no memory for a digest");
    moe_hash_reset64(h);
    int64_t n = (int64_t)r->n_windows * r->n_layers * r->experts;
    for (int64_t i = 0; i < n; i++) {
        unsigned char b[8];
        for (int k = 0; k < 8; k++) b[k] = (unsigned char)((uint64_t)r->counts[i] >> 8 * k);
        moe_hash_add64(h, b, 8);
    }
    *digest = moe_hash_get64(h);
    moe_hash_free(h);
    return MOE_OK;
}
