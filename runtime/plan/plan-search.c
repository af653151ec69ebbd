/* SPDX-License-Identifier: Apache-2.0 */
/* Plans all layers, each by itself, on the threads of a pool. */
#include "runtime/plan/plan-internal.h"

#include "base/show.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The search of a layer stops at this share above its bound: to come closer costs more time than it saves. */
static const double CLOSE = 3e-4;
/* A layer that is further above its bound than this is searched once more, by other steps. */
static const double FAR = 1e-3;
/* Where the goal is out of reach, moe_place_refine ends after this many comparisons in a layer: they take
 * about 0.1 s, and a quarter of it. */
enum { REFINE_WORK = 20000000, POLISH_WORK = REFINE_WORK / 4 };

enum moe_code moe_plan_task_check(const struct moe_plan_task *t, struct moe_err *err)
{
    int64_t experts = t->stats->experts;
    int64_t min_slots = experts * (t->survive + 1);
    int64_t max_slots = experts * t->ranks;
    if (t->ranks < 1 || t->ranks > MOE_PLAN_RANKS_MAX)
        return moe_fail(err, MOE_USAGE, "%d ranks: want 1 to %d", (int)t->ranks, MOE_PLAN_RANKS_MAX);
    if (t->survive < 0 || t->survive >= t->ranks)
        return moe_fail(err, MOE_USAGE, "%d rank%s cannot survive the loss of %d", (int)t->ranks,
                        moe_plural(t->ranks), (int)t->survive);
    if (t->slots < min_slots)
        return moe_fail(err, MOE_USAGE, "%lld slots are too few: %d cop%s of %d experts need %lld",
                        (long long)t->slots, (int)t->survive + 1, t->survive ? "ies" : "y", (int)experts,
                        (long long)min_slots);
    if (t->slots > max_slots)
        return moe_fail(err, MOE_USAGE, "%lld slots are too many: %d experts on each of %d ranks are %lld",
                        (long long)t->slots, (int)experts, (int)t->ranks, (long long)max_slots);
    if (t->ranks_per_node && t->ranks % t->ranks_per_node && t->ranks_per_node < t->ranks)
        return moe_fail(err, MOE_USAGE, "%d ranks are no whole number of nodes of %d", (int)t->ranks,
                        (int)t->ranks_per_node);
    if (t->from && t->from->experts != experts)
        return moe_fail(err, MOE_MISMATCH, "the old plan has %d experts, the model %d", (int)t->from->experts,
                        (int)experts);
    for (int32_t i = 0; t->from && i < t->stats->n_layers; i++)
        if (!moe_plan_find(t->from, t->stats->layers[i]))
            return moe_fail(err, MOE_MISMATCH, "the old plan has no layer %d", (int)t->stats->layers[i]);
    return MOE_OK;
}

/* ---- one layer ---- */

/* Plans a layer from nothing; lose: as in struct moe_place. */
static enum moe_code fresh_with(struct moe_place **s, const struct moe_plan_task *t, int32_t row,
                                int32_t lose, double goal, struct moe_err *err)
{
    double optimum;
    MOE_TRY(moe_place_open(s, t, row, err));
    (*s)->lose = lose;
    moe_place_counts(*s);
    moe_place_pack(*s);
    if (!moe_is_cancelled(t->cancel)) moe_place_nodes(*s);
    moe_place_exchange(*s, goal);
    if (moe_place_max(*s, NULL) > goal) moe_place_exact(*s, &optimum);
    return MOE_OK;
}

/* Improves a layer that is still far above its bound.  Each step of moe_place_exchange has to lower the
 * fullest rank, and may not leave two ranks with too much in common (max_common_load).  With --survive and
 * nodes there are few such steps, so that it ends early.  So first max_common_load is raised and exchanging
 * goes on.  Where that is not enough, moe_place_refine goes on, which knows no such limit and lowers the sum
 * of the loads above the goal (without an old plan all steps cost it the same), and then moe_place_exchange
 * without the limit.  The best placement stays. */
static enum moe_code polish(struct moe_place *s, double goal, double far, struct moe_err *err)
{
    if (s->common_load) {
        moe_place_raise_max_common_load(s, 1.5);
        moe_place_exchange(s, goal);
    }
    double before = moe_place_max(s, NULL);
    if (before <= far || moe_is_cancelled(s->cancel)) return MOE_OK;
    memcpy(s->kept, s->slot, (size_t)s->slots * sizeof *s->kept);
    MOE_TRY(moe_place_refine(s, NULL, goal, POLISH_WORK, err));
    if (s->common_load) moe_place_raise_max_common_load(s, INFINITY);
    moe_place_exchange(s, goal);
    if (moe_place_max(s, NULL) < before) return MOE_OK;
    memcpy(s->slot, s->kept, (size_t)s->slots * sizeof *s->kept);
    moe_place_loads(s);
    return MOE_OK;
}

/* Plans a fresh layer.  Where it must survive losses, spare copies go first to the experts whose pieces would
 * be largest after the loss.  If the goal is not reached so, the layer is planned again with copies given
 * out for the balance without a loss alone, and the better of the two is taken. */
static enum moe_code spare_first(struct moe_place **s, const struct moe_plan_task *t, int32_t row,
                                 double goal, struct moe_err *err)
{
    struct moe_place *plain;
    MOE_TRY(fresh_with(s, t, row, t->survive, goal, err));
    if (!t->survive || moe_place_max(*s, NULL) <= goal) return MOE_OK;
    enum moe_code code = fresh_with(&plain, t, row, 0, goal, err);
    if (code == MOE_OK && moe_place_max(plain, NULL) < moe_place_max(*s, NULL)) {
        struct moe_place *swap = *s;
        *s = plain, plain = swap;
    }
    if (code == MOE_OK) moe_place_close(&plain);
    else moe_place_close(s);
    return code;
}

/* Whether the copies of every expert that has two or more lie in two nodes or more. */
static bool all_spread(const struct moe_place *s)
{
    for (int32_t e = 0; e < s->experts; e++)
        if (s->count[e] > 1 && !moe_place_spread(s, e, -1)) return false;
    return true;
}

/* The rule that copies lie on different nodes forbids many steps, so that a layer which is planned without
 * it, and happens to keep it, may be better.  Most layers that will not keep it show that after packing,
 * before they have cost much time. */
static enum moe_code without_nodes(struct moe_place **s, const struct moe_plan_task *t, int32_t row,
                                   double goal, struct moe_err *err)
{
    struct moe_place *other;
    MOE_TRY(moe_place_open(&other, t, row, err));
    int32_t per_node = other->per_node;
    other->lose = t->survive;
    moe_place_counts(other);
    other->per_node = t->ranks;
    moe_place_pack(other);
    other->per_node = per_node;
    if (!moe_is_cancelled(t->cancel) && all_spread(other)) {
        other->per_node = t->ranks;
        moe_place_exchange(other, goal);
        other->per_node = per_node;
        if (moe_place_max(other, NULL) < moe_place_max(*s, NULL) && all_spread(other)) {
            struct moe_place *swap = *s;
            *s = other, other = swap;
        }
    }
    moe_place_close(&other);
    return MOE_OK;
}

/* Plans a layer without an old plan; *s is NULL on failure. */
static enum moe_code plan_afresh(struct moe_place **s, const struct moe_plan_task *t, int32_t row,
                                 double bound, struct moe_err *err)
{
    double goal = bound * (1 + CLOSE), far = bound * (1 + FAR);
    MOE_TRY(spare_first(s, t, row, goal, err));
    enum moe_code code = MOE_OK;
    bool nodes = (*s)->per_node < t->ranks;
    if (moe_place_max(*s, NULL) > far && !moe_is_cancelled(t->cancel)) code = polish(*s, goal, far, err);
    if (code == MOE_OK && nodes && moe_place_max(*s, NULL) > far && !moe_is_cancelled(t->cancel))
        code = without_nodes(s, t, row, goal, err);
    if (code != MOE_OK) moe_place_close(s);
    return code;
}

/* Whether a fresh plan is worth its moves, since it moves most slots: it reaches the goal, or at least halves
 * the load above the goal. */
static bool worth_moves(double fresh, double now, double goal)
{
    return now > goal && (fresh <= goal || fresh - goal <= (now - goal) / 2);
}

/* Plans a layer from the old plan with few moves.  Where these do not reach the goal, exchanging goes on from
 * there.  If a fresh plan is then worth its moves, it is taken instead, with its ranks renamed so that as
 * many experts as possible stay where they were. */
static enum moe_code from_old(struct moe_place **out, const struct moe_plan_task *t, int32_t row,
                              double bound, struct moe_err *err)
{
    const struct moe_plan_layer *old = moe_plan_find(t->from, t->stats->layers[row]);
    struct moe_place *s = NULL, *f = NULL;
    double goal = bound * (1 + t->target);
    MOE_TRY(moe_place_open(&s, t, row, err));
    moe_place_keep(s, t->from, old);
    if (!moe_is_cancelled(s->cancel)) moe_place_nodes(s);
    enum moe_code code = moe_place_refine(s, old, goal, REFINE_WORK, err);
    if (code == MOE_OK) moe_place_exchange(s, goal); /* more moves, if these do not reach the goal */
    if (code == MOE_OK && moe_place_max(s, NULL) > goal) code = plan_afresh(&f, t, row, bound, err);
    if (code == MOE_OK && f && worth_moves(moe_place_max(f, NULL), moe_place_max(s, NULL), goal)) {
        struct moe_place *swap = s;
        s = f, f = swap;
        code = moe_place_relabel(s, t->from, old, err);
    }
    moe_place_close(&f);
    if (code == MOE_OK) *out = s;
    else moe_place_close(&s);
    return code;
}

struct job {
    const struct moe_plan_task *t;
    struct moe_plan *p;
    struct moe_err *errs; /* [layers] */
};

static enum moe_code plan_layer(const struct job *j, int32_t row, struct moe_err *err)
{
    const struct moe_plan_task *t = j->t;
    struct moe_plan_layer *l = &j->p->layers[row];
    const struct moe_plan_layer *old = t->from ? moe_plan_find(t->from, l->layer) : NULL;
    struct moe_bounds b;
    struct moe_place *s;
    MOE_TRY(moe_plan_bounds(&b, t, row, err));
    MOE_TRY(old ? from_old(&s, t, row, b.best, err) : plan_afresh(&s, t, row, b.best, err));
    enum moe_code code = moe_cancel_check(t->cancel, err);
    if (code != MOE_OK) {
        moe_place_close(&s);
        return code;
    }
    moe_place_order(s, t->from, old);
    memcpy(l->slot, s->slot, (size_t)t->slots * sizeof *l->slot);
    moe_place_close(&s);
    return MOE_OK;
}

static void run(void *ctx, int64_t i, int worker)
{
    struct job *j = ctx;
    (void)worker;
    if (moe_cancel_check(j->t->cancel, &j->errs[i]) == MOE_OK) plan_layer(j, (int32_t)i, &j->errs[i]);
    moe_progress_add(j->t->progress, 1);
}

enum moe_code moe_plan_search(struct moe_plan **out, const struct moe_plan_task *t, struct moe_pool *pool,
                              struct moe_err *err)
{
    const struct moe_routing *r = t->stats;
    *out = NULL;
    MOE_TRY(moe_plan_task_check(t, err));
    struct job j = { .t = t, .errs = calloc((size_t)r->n_layers + 1, sizeof *j.errs) };
    if (!j.errs) return moe_fail(err, MOE_NOMEM, "no memory to plan");
    enum moe_code code = moe_plan_new(&j.p, t->ranks, r->experts, r->n_layers, r->layers, t->slots, err);
    if (code == MOE_OK) {
        moe_progress_begin(t->progress, "planning layers", (uint64_t)r->n_layers, MOE_UNIT_ITEMS);
        moe_pool_run(pool, r->n_layers, run, &j);
        moe_progress_end(t->progress);
        for (int32_t i = 0; code == MOE_OK && i < r->n_layers; i++)
            if (j.errs[i].code != MOE_OK) *err = j.errs[i], code = err->code;
    }
    free(j.errs);
    if (code == MOE_OK) {
        j.p->experts_per_token = r->experts_per_token;
        j.p->ranks_per_node = t->ranks_per_node;
        j.p->survive = t->survive;
        code = moe_plan_index(j.p, "the plan", err);
    }
    if (code == MOE_OK) *out = j.p;
    else moe_plan_free(&j.p);
    return code;
}

enum moe_code moe_plan_slot_loads(const struct moe_plan_task *t, int32_t row, int32_t w, const int32_t *slot,
                                  double *load, struct moe_err *err)
{
    const struct moe_routing *r = t->stats;
    int32_t n = r->experts, windows = r->n_windows, k = 0;
    double mean, *weight = calloc((size_t)n * (size_t)windows, sizeof *weight);
    int32_t *count = calloc((size_t)n, sizeof *count);
    memset(load, 0, (size_t)t->ranks * sizeof *load);
    bool ok = weight && count;
    if (ok) {
        moe_place_weights(t, row, weight, &mean);
        for (int32_t i = 0; i < t->slots; i++) count[slot[i]]++;
        for (int32_t q = 0; q < t->ranks; q++) {
            int32_t end = k + t->slots / t->ranks + (q < t->slots % t->ranks), start = k;
            for (int32_t v = w < 0 ? 0 : w; v < (w < 0 ? windows : w + 1); v++) {
                double sum = 0;
                for (k = start; k < end; k++) sum += weight[(int64_t)slot[k] * windows + v] / count[slot[k]];
                load[q] = sum > load[q] ? sum : load[q];
            }
            k = end;
        }
    }
    free(weight);
    free(count);
    return ok ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for loads");
}
