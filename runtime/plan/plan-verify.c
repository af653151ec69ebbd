/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-verify.h"

#include "runtime/plan/plan-verify-internal.h"

#include "base/arena.h"
#include "base/hash.h"
#include "base/cancel.h"
#include "formats/container/identity.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXPERTS_MAX = 65536, RANKS_MAX = 4096, SLOTS_MAX = 1 << 24 };
/* A claim is right when it differs by this share at most.  Numbers of a plan have up to 17 digits, but splits
 * are computed to one part in about 2^40. */
static const double CLOSE = 1e-6;

struct verify {
    const char *path;
    const cJSON *root;
    int32_t ranks, experts, slots, survive, per_node, n_layers, windows;
    int32_t prediction;      /* how many layers for multi-token prediction the model has (none is placed) */
    struct check_layer layer;
    int64_t *counts;         /* [windows][n_layers][experts], rows in the order of the plan's layers */
    bool compare;            /* loads and bounds are compared */
    cJSON *problems;
    struct moe_plan_checked *out;
    struct moe_progress *progress;
    const struct moe_cancel *cancel;
    struct moe_arena arena;
    struct moe_err *err;
    bool failed;             /* there was a problem */
    double sum_load, sum_bound, sum_mean; /* over layers */
    int64_t moved;           /* slots, over layers */
    int32_t most_slots;      /* of a rank in a layer */
};

static void __attribute__((format(printf, 2, 3))) problem(struct verify *v, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!v->failed) moe_fail_at(v->err, MOE_VERIFY, v->path, NULL, "%s", text);
    v->failed = true;
    if (cJSON_GetArraySize(v->problems) < 1000) moe_json_append(v->problems, cJSON_CreateString(text));
}

/* ---- claims ---- */

static bool near(double a, double b)
{
    return fabs(a - b) <= CLOSE * (fabs(a) > fabs(b) ? fabs(a) : fabs(b)) + 1e-9;
}

/* Reads a number that the plan claims; false: it makes no such claim. */
static bool claim(const cJSON *o, const char *key, double *x)
{
    const cJSON *c = moe_json_get(o, key);
    if (!c || !cJSON_IsNumber(c)) return false;
    *x = c->valuedouble;
    return true;
}

static void compare(struct verify *v, const cJSON *o, int layer, const char *key, double is)
{
    double said;
    if (!claim(o, key, &said)) return;
    v->out->claims++;
    if (near(said, is)) return;
    if (layer >= 0) problem(v, "layer %d: %s is %.9g, the plan says %.9g", layer, key, is, said);
    else problem(v, "%s is %.9g, the plan says %.9g", key, is, said);
}

/* ---- slots ---- */

static enum moe_code bad(const struct verify *v, int layer, const char *what, struct moe_err *err)
{
    return moe_fail_at(err, MOE_CORRUPT, v->path, NULL, "layer %d: %s", layer, what);
}

/* Reads rank_of[k] and expert_of[k] of v->layer from the JSON, for each slot. */
static enum moe_code read_slots(struct verify *v, const cJSON *o, int number, struct moe_err *err)
{
    struct check_layer *l = &v->layer;
    const cJSON *ranks = moe_json_get(o, "ranks");
    int32_t r = 0, n = 0;
    if (!cJSON_IsArray(ranks)) return bad(v, number, "'ranks' is not a list", err);
    l->slots = 0;
    for (const cJSON *list = ranks->child; list; list = list->next, r++) {
        if (!cJSON_IsArray(list) || r >= v->ranks)
            return bad(v, number, "a rank too many, or one that is no list", err);
        int32_t mine = 0;
        for (const cJSON *x = list->child; x; x = x->next, n++, mine++) {
            if (!cJSON_IsNumber(x) || x->valuedouble != floor(x->valuedouble) || x->valuedouble < 0 ||
                x->valuedouble >= v->experts)
                return bad(v, number, "a slot holds no expert of the model", err);
            if (n >= l->cap) return bad(v, number, "more slots than other layers, or 'slots', say", err);
            l->rank_of[n] = r;
            l->expert_of[n] = (int32_t)x->valuedouble;
        }
        v->most_slots = mine > v->most_slots ? mine : v->most_slots;
    }
    l->slots = n;
    return r == v->ranks ? MOE_OK : bad(v, number, "a rank is missing", err);
}

/* Ranks in groups of `size`: how many experts lie in one group alone, for the group with most of them. */
static int32_t most_lost(struct verify *v, int32_t size)
{
    struct check_layer *l = &v->layer;
    int32_t nowhere = 0, worst = 0;
    /* left: the one group that has the expert; -1: none has; -2: several have */
    for (int32_t e = 0; e < v->experts; e++) l->left[e] = -1;
    for (int32_t k = 0; k < l->slots; k++) {
        int32_t *group = &l->left[l->expert_of[k]], here = l->rank_of[k] / size;
        *group = *group == -1 || *group == here ? here : -2;
    }
    memset(l->lost, 0, (size_t)v->ranks * sizeof *l->lost);
    for (int32_t e = 0; e < v->experts; e++) {
        nowhere += l->left[e] == -1;
        if (l->left[e] >= 0 && ++l->lost[l->left[e]] > worst) worst = l->lost[l->left[e]];
    }
    return v->ranks > 1 ? worst + nowhere : 0;
}

/* Checks that no expert is on a rank twice and that each has survive + 1 copies, and what is lost with a
 * rank. */
static void check_coverage(struct verify *v, const cJSON *o, int number)
{
    struct check_layer *l = &v->layer;
    int32_t least = INT32_MAX, node = v->per_node > 0 && v->per_node < v->ranks ? v->per_node : v->ranks;
    memset(l->copies, 0, (size_t)v->experts * sizeof *l->copies);
    /* left: the last rank that has the expert, as slots come by rank */
    for (int32_t e = 0; e < v->experts; e++) l->left[e] = -1;
    for (int32_t k = 0; k < l->slots; k++) {
        int32_t e = l->expert_of[k], r = l->rank_of[k];
        l->copies[e]++;
        if (l->left[e] == r) problem(v, "layer %d: rank %d holds expert %d twice", number, (int)r, (int)e);
        l->left[e] = r;
    }
    for (int32_t e = 0; e < v->experts; e++) {
        int copies = (int)l->copies[e];
        if (!copies) problem(v, "layer %d: expert %d is on no rank", number, (int)e);
        else if (copies <= v->survive)
            problem(v, "layer %d: expert %d has %d cop%s, %d lost rank%s to be survived", number, (int)e,
                    copies, copies == 1 ? "y" : "ies", (int)v->survive, v->survive == 1 ? " is" : "s are");
        least = copies < least ? copies : least;
    }
    int32_t worst = most_lost(v, 1), worst_node = node == v->ranks ? worst : most_lost(v, node);
    compare(v, o, number, "copies_min", least);
    compare(v, o, number, "experts_lost_worst", worst);
    compare(v, o, number, "experts_lost_worst_node", worst_node);
    v->out->copies_min = least < v->out->copies_min ? least : v->out->copies_min;
    v->out->lost_worst = worst > v->out->lost_worst ? worst : v->out->lost_worst;
    v->out->ranks_per_node = node < v->ranks ? node : 0;
    v->out->lost_worst_node = worst_node > v->out->lost_worst_node ? worst_node : v->out->lost_worst_node;
}

/* ---- loads ---- */

/* Computes the load of each expert in window w: the counts of each window that has tokens are scaled to the
 * mean sum of these windows.  False: the window has none. */
static bool window_weights(struct verify *v, int32_t row, int32_t w, double *out)
{
    double mine = 0, all = 0;
    int32_t full = 0;
    for (int32_t i = 0; i < v->windows; i++) {
        double sum = 0;
        for (int32_t e = 0; e < v->experts; e++)
            sum += (double)v->counts[((int64_t)i * v->n_layers + row) * v->experts + e];
        full += sum > 0;
        all += sum;
        if (i == w) mine = sum;
    }
    for (int32_t e = 0; e < v->experts; e++)
        out[e] = mine > 0 ? (double)v->counts[((int64_t)w * v->n_layers + row) * v->experts + e] *
                                (all / full / mine)
                          : 0;
    return mine > 0;
}

/* Sets l->rank_load for equal shares; returns the largest. */
static double fullest_rank(const struct verify *v, const double *weight)
{
    const struct check_layer *l = &v->layer;
    double max_load = 0;
    memset(l->rank_load, 0, (size_t)v->ranks * sizeof *l->rank_load);
    for (int32_t k = 0; k < l->slots; k++)
        l->rank_load[l->rank_of[k]] += weight[l->expert_of[k]] / l->copies[l->expert_of[k]];
    for (int32_t r = 0; r < v->ranks; r++) max_load = l->rank_load[r] > max_load ? l->rank_load[r] : max_load;
    return max_load;
}

/* Checks min_cut in both directions.  The experts that lie on the ranks of the named cut alone must have
 * min_cut tokens for each of these ranks, so that no split is better; and some split must attain min_cut. */
static void check_cut(struct verify *v, const cJSON *o, int number, int32_t row)
{
    struct check_layer *l = &v->layer;
    const cJSON *cut = moe_json_get(o, "min_cut_ranks");
    double said, proven = 0;
    int32_t size = 0;
    if (!claim(o, "min_cut", &said)) return;
    memset(l->dead, 0, (size_t)v->ranks);
    for (const cJSON *x = cut ? cut->child : NULL; x; x = x->next)
        if (cJSON_IsNumber(x) && x->valuedouble >= 0 && x->valuedouble < v->ranks &&
            !l->dead[(int32_t)x->valuedouble])
            l->dead[(int32_t)x->valuedouble] = 1, size++;
    bool fits = true;
    for (int32_t w = 0; w < v->windows; w++) {
        if (!window_weights(v, row, w, l->weight)) continue;
        double inside = 0;
        for (int32_t e = 0; e < v->experts; e++) l->left[e] = 1;
        for (int32_t k = 0; k < l->slots; k++) l->left[l->expert_of[k]] &= l->dead[l->rank_of[k]];
        for (int32_t e = 0; e < v->experts; e++) inside += l->left[e] ? l->weight[e] : 0;
        if (size && inside / size > proven) proven = inside / size;
        fits &= moe_check_split_fits(l, v->experts, v->ranks, -1, said * (1 + CLOSE));
    }
    v->out->claims++;
    if (!near(proven, said))
        problem(v, "layer %d: the cut of %d ranks carries %.9g a rank, the plan says min_cut is %.9g", number,
                (int)size, proven, said);
    if (!fits) problem(v, "layer %d: no split keeps every rank at min_cut, %.9g", number, said);
}

/* Checks load_max_after_loss: whichever rank is dead, a split must stay within it, and with the named rank
 * dead no split may stay below it; without tokens it must be 0.  Of ranks that hold the same experts one is
 * tried. */
static void check_after_loss(struct verify *v, const cJSON *o, int number, int32_t row)
{
    double said, named = -1;
    if (!claim(o, "load_max_after_loss", &said) || v->ranks < 2) return;
    bool attained = said <= 1e-9;
    claim(o, "loss_rank", &named);
    v->out->claims++;
    moe_check_twins(&v->layer, v->experts, v->ranks);
    for (int32_t w = 0; w < v->windows; w++) {
        if (!window_weights(v, row, w, v->layer.weight)) continue;
        for (int32_t r = 0; r < v->ranks && !moe_is_cancelled(v->cancel); r++)
            if (!v->layer.twin[r] &&
                !moe_check_split_fits(&v->layer, v->experts, v->ranks, r, said * (1 + CLOSE) + 1e-9)) {
                problem(v, "layer %d: without rank %d no split keeps every rank at load_max_after_loss, %.9g",
                        number, (int)r, said);
                return;
            }
        attained = attained || !moe_check_split_fits(&v->layer, v->experts, v->ranks, (int32_t)named,
                                                     said * (1 - CLOSE) - 1e-9);
    }
    if (!attained) problem(v, "layer %d: load_max_after_loss is below %.9g", number, said);
}

/* Checks the bound: it must not be above the load, and the verifier must be able to prove it. */
static void check_bound(struct verify *v, const cJSON *o, int number, int32_t row, double load)
{
    double said, best = 0;
    const cJSON *kind = moe_json_get(o, "bound_kind");
    if (!claim(o, "bound", &said)) return;
    v->out->claims++;
    v->sum_bound += said;
    if (said > load * (1 + CLOSE))
        problem(v, "layer %d: bound %.9g is above the load %.9g", number, said, load);
    for (int32_t w = 0; w < v->windows; w++) {
        if (!window_weights(v, row, w, v->layer.weight)) continue;
        double b = moe_check_bound(&v->layer, v->experts, v->ranks, v->survive + 1);
        best = b > best ? b : best;
    }
    if (said <= best * (1 + CLOSE)) {
        compare(v, o, number, "gap", said > 0 ? load / said - 1 : 0);
        return;
    }
    int better = cJSON_IsString(kind) && !strcmp(kind->valuestring, "exact") && v->windows == 1
                   ? moe_check_better_exists(&v->layer, v->experts, v->ranks, v->survive + 1,
                                             said * (1 - CLOSE))
                   : 1;
    if (better > 0) problem(v, "layer %d: a bound of %.9g is not proven, only %.9g", number, said, best);
    else if (better < 0) v->out->unproven++;
}

/* Checks "loads", the load of every rank, the largest over windows. */
static void check_rank_loads(struct verify *v, const cJSON *o, int number, int32_t row)
{
    struct check_layer *l = &v->layer;
    const cJSON *said = moe_json_get(o, "loads");
    int32_t r = 0;
    if (!cJSON_IsArray(said)) return;
    v->out->claims++;
    memset(l->max_load, 0, (size_t)v->ranks * sizeof *l->max_load);
    for (int32_t w = 0; w < v->windows; w++) {
        if (!window_weights(v, row, w, l->weight)) continue;
        fullest_rank(v, l->weight);
        for (int32_t i = 0; i < v->ranks; i++)
            l->max_load[i] = l->rank_load[i] > l->max_load[i] ? l->rank_load[i] : l->max_load[i];
    }
    for (const cJSON *x = said->child; x; x = x->next, r++) {
        double max_load = r < v->ranks ? l->max_load[r] : 0;
        if (!cJSON_IsNumber(x) || !near(x->valuedouble, max_load)) {
            problem(v, "layer %d: rank %d has a load of %.9g, 'loads' says otherwise", number, (int)r,
                    max_load);
            return;
        }
    }
    if (r != v->ranks) problem(v, "layer %d: 'loads' is not one for each rank", number);
}

/* Checks activated_max and noise_floor, by the formulas of docs/reference/placement.md. */
static void check_batch(struct verify *v, const cJSON *o, int number, int32_t row)
{
    struct check_layer *l = &v->layer;
    double batch = 0, top = 0, total = 0, active = 0, variance = 0, max_load = 0, lo = -10, hi = 10;
    int32_t windows = 0;
    if (!claim(v->root, "batch", &batch) || !claim(v->root, "experts_per_token", &top)) return;
    memset(l->sorted, 0, (size_t)v->experts * sizeof *l->sorted);
    for (int32_t w = 0; w < v->windows; w++) {
        windows++;
        if (!window_weights(v, row, w, l->weight)) continue;
        for (int32_t e = 0; e < v->experts; e++) l->sorted[e] += l->weight[e];
    }
    double scaled = 0;
    for (int32_t w = 0; w < v->windows && !(scaled > 0); w++) {
        if (!window_weights(v, row, w, l->weight)) continue;
        for (int32_t e = 0; e < v->experts; e++) scaled += l->weight[e];
    }
    total = scaled * windows;
    if (!(total > 0)) return;
    for (int32_t k = 0; k < l->slots; k++) {
        double n = l->sorted[l->expert_of[k]] / total * batch * top * v->ranks,
               c = l->copies[l->expert_of[k]];
        if (k && l->rank_of[k] != l->rank_of[k - 1]) active = 0;
        active += 1 - exp(-n / c);
        max_load = active > max_load ? active : max_load;
        variance += n / c / c / v->ranks;
    }
    for (int i = 0; i < 80; i++) {
        double mid = (lo + hi) / 2;
        if (1 - erfc(mid / sqrt(2)) / 2 < (v->ranks - 0.375) / (v->ranks + 0.25)) lo = mid;
        else hi = mid;
    }
    compare(v, o, number, "activated_max", max_load);
    compare(v, o, number, "noise_floor", v->ranks > 1 ? 1 + lo * sqrt(variance) / (batch * top) : 1);
}

static void check_loads(struct verify *v, const cJSON *o, int number, int32_t row)
{
    double load = 0, mean = 0;
    for (int32_t w = 0; w < v->windows; w++) {
        if (!window_weights(v, row, w, v->layer.weight)) continue;
        double m = fullest_rank(v, v->layer.weight), sum = 0;
        for (int32_t e = 0; e < v->experts; e++) sum += v->layer.weight[e];
        load = m > load ? m : load;
        mean = sum / v->ranks;
    }
    v->sum_load += load;
    v->sum_mean += mean;
    if (!v->compare) return;
    compare(v, o, number, "load_max", load);
    compare(v, o, number, "load_mean", mean);
    check_bound(v, o, number, row, load);
    check_cut(v, o, number, row);
    check_after_loss(v, o, number, row);
    check_rank_loads(v, o, number, row);
    check_batch(v, o, number, row);
}

/* ---- moves ---- */

static enum moe_code check_moves(struct verify *v, const cJSON *o, int number, const cJSON *old,
                                 struct moe_err *err)
{
    struct check_layer *l = &v->layer;
    int32_t r = 0, moved = 0, k = 0;
    const cJSON *layers = moe_json_get(old, "layers"), *was = NULL;
    for (const cJSON *x = layers ? layers->child : NULL; x; x = x->next) {
        double n;
        if (claim(x, "layer", &n) && n == number) was = moe_json_get(x, "ranks");
    }
    if (!was) return moe_fail_at(err, MOE_MISMATCH, v->path, NULL, "the old plan has no layer %d", number);
    for (int32_t e = 0; e < v->experts; e++) l->left[e] = -1; /* the last rank that had the expert */
    for (const cJSON *list = was->child; r < v->ranks; r++, list = list ? list->next : NULL) {
        for (const cJSON *x = list ? list->child : NULL; x; x = x->next)
            if (cJSON_IsNumber(x) && x->valuedouble >= 0 && x->valuedouble < v->experts)
                l->left[(int32_t)x->valuedouble] = r;
        for (; k < l->slots && l->rank_of[k] == r; k++) moved += l->left[l->expert_of[k]] != r;
    }
    compare(v, o, number, "slots_moved", moved);
    v->moved += moved;
    return MOE_OK;
}

/* ---- the whole plan ---- */

/* Counts ranks, experts and slots of the first layer, for plans that do not say these numbers. */
static void shape_of(const cJSON *layers, int64_t *ranks, int64_t *experts, int64_t *slots)
{
    const cJSON *lists = moe_json_get(layers->child, "ranks");
    for (const cJSON *l = cJSON_IsArray(lists) ? lists->child : NULL; l; l = l->next, ++*ranks)
        for (const cJSON *x = l->child; x; x = x->next, ++*slots)
            if (cJSON_IsNumber(x) && x->valuedouble >= (double)*experts && x->valuedouble < EXPERTS_MAX)
                *experts = (int64_t)x->valuedouble + 1;
}

static enum moe_code read_head(struct verify *v, struct moe_err *err)
{
    int64_t version = 0, ranks = 0, experts = 0, slots = 0, survive = 0, per_node = 0;
    const char *f = v->path;
    if (!cJSON_IsObject(v->root)) return moe_fail_at(err, MOE_CORRUPT, f, NULL, "is not a JSON object");
    MOE_TRY(moe_json_i64(v->root, "version", true, 0, INT32_MAX, &version, f, err));
    if (version != 1)
        return moe_fail_at(err, MOE_UNSUPPORTED, f, NULL, "version %lld of a placement plan",
                           (long long)version);
    struct moe_identity model;
    bool says = moe_json_get(v->root, "model_origin") || moe_json_get(v->root, "model_weights");
    if (says && !moe_identity_get(v->root, "model_origin", "model_weights", &model))
        return moe_fail_at(err, MOE_CORRUPT, f, NULL,
                           "'model_origin' and 'model_weights' are not digits of a model");
    const cJSON *layers = moe_json_get(v->root, "layers");
    if (!cJSON_IsArray(layers) || !layers->child)
        return moe_fail_at(err, MOE_CORRUPT, f, NULL, "'layers' is missing or empty");
    v->prediction = cJSON_GetArraySize(moe_json_get(v->root, "prediction_layers"));
    shape_of(layers, &ranks, &experts, &slots);
    MOE_TRY(moe_json_i64(v->root, "ranks", false, 1, RANKS_MAX, &ranks, f, err));
    MOE_TRY(moe_json_i64(v->root, "experts", false, 1, EXPERTS_MAX, &experts, f, err));
    MOE_TRY(moe_json_i64(v->root, "slots", false, 1, SLOTS_MAX, &slots, f, err));
    MOE_TRY(moe_json_i64(v->root, "survive", false, 0, RANKS_MAX, &survive, f, err));
    MOE_TRY(moe_json_i64(v->root, "ranks_per_node", false, 0, RANKS_MAX, &per_node, f, err));
    if (ranks < 1 || ranks > RANKS_MAX || experts < 1 || slots < 1 || slots > SLOTS_MAX)
        return bad(v, 0, "a plan of no or too many slots", err);
    v->ranks = (int32_t)ranks, v->experts = (int32_t)experts, v->survive = (int32_t)survive,
    v->per_node = (int32_t)per_node, v->slots = (int32_t)slots;
    v->n_layers = cJSON_GetArraySize(layers);
    return moe_check_layer_open(&v->layer, &v->arena, v->experts, v->ranks, v->slots)
             ? MOE_OK
             : moe_fail(err, MOE_NOMEM, "no memory to verify a plan");
}

/* Whether, if the rows of r are numbered from 0, one before the plan's last layer has a count and the plan
 * has no such layer. */
static bool others_count(const struct verify *v, const struct moe_routing *r)
{
    int32_t row = 0;
    for (const cJSON *l = moe_json_get(v->root, "layers")->child; l; l = l->next, row++) {
        double number = -1;
        claim(l, "layer", &number);
        for (; row < number && row < r->n_layers; row++)
            for (int32_t w = 0; w < r->n_windows; w++)
                for (int32_t e = 0; e < r->experts; e++)
                    if (r->counts[((int64_t)w * r->n_layers + row) * r->experts + e]) return true;
    }
    return false;
}

/* Whether rows without numbers are the plan's layers, perhaps followed by the model's layers for multi-token
 * prediction; if not, they are all layers of the model. */
static bool has_rows_of_plan(const struct verify *v, const struct moe_routing *r)
{
    if (r->layers) return false;
    return r->n_layers == v->n_layers ||
           (v->prediction && r->n_layers == v->n_layers + v->prediction && others_count(v, r));
}

/* The row of r for layer i of the plan, which is layer `number` of the model; -1: there is none. */
static int32_t find_row(const struct moe_routing *r, bool of_plan, int32_t i, int32_t number)
{
    if (of_plan) return i;
    if (!r->layers) return number < r->n_layers ? number : -1;
    for (int32_t k = 0; k < r->n_layers; k++)
        if (r->layers[k] == number) return k;
    return -1;
}

/* Copies the counts of all statistics into v->counts. */
static enum moe_code gather(struct verify *v, const struct moe_routing *const *stats, int n,
                            struct moe_err *err)
{
    int32_t w = 0, i;
    for (int k = 0; k < n; k++) v->windows += stats[k]->n_windows;
    if (!n) return MOE_OK;
    v->counts = moe_arena_array(&v->arena, (int64_t)v->windows * v->n_layers * v->experts, sizeof *v->counts);
    if (!v->counts) return moe_fail(err, MOE_NOMEM, "no memory for statistics");
    for (int k = 0; k < n; k++) {
        const struct moe_routing *r = stats[k];
        if (r->experts != v->experts)
            return moe_fail_at(err, MOE_MISMATCH, v->path, NULL, "statistics of %d experts, the plan has %d",
                               (int)r->experts, (int)v->experts);
        bool of_plan = has_rows_of_plan(v, r);
        for (int32_t own = 0; own < r->n_windows; own++, w++) {
            i = 0;
            for (const cJSON *l = moe_json_get(v->root, "layers")->child; l; l = l->next, i++) {
                double number = -1;
                claim(l, "layer", &number);
                int32_t row = find_row(r, of_plan, i, (int32_t)number);
                if (row < 0)
                    return moe_fail_at(err, MOE_MISMATCH, v->path, NULL, "the statistics have no layer %.0f",
                                       number);
                memcpy(v->counts + ((int64_t)w * v->n_layers + i) * v->experts,
                       r->counts + ((int64_t)own * r->n_layers + row) * r->experts,
                       (size_t)v->experts * sizeof *v->counts);
            }
        }
    }
    return MOE_OK;
}

/* *same: the statistics are those whose digest the plan has. */
static enum moe_code same_digest(const struct verify *v, bool *same, struct moe_err *err)
{
    const cJSON *said = moe_json_get(v->root, "statistics");
    struct moe_hash *h = moe_hash_new();
    char hex[17];
    if (!h) return moe_fail(err, MOE_NOMEM, "no memory to verify a plan");
    moe_hash_reset64(h);
    for (int64_t i = 0; i < (int64_t)v->windows * v->n_layers * v->experts; i++) {
        uint8_t b[8];
        for (int k = 0; k < 8; k++) b[k] = (uint8_t)((uint64_t)v->counts[i] >> (8 * k));
        moe_hash_add64(h, b, sizeof b);
    }
    moe_hex64(moe_hash_get64(h), hex);
    moe_hash_free(h);
    *same = cJSON_IsString(said) && !strcmp(said->valuestring, hex);
    return MOE_OK;
}

static enum moe_code check_layers(struct verify *v, const cJSON *old, struct moe_err *err)
{
    int32_t row = 0, before = -1;
    for (const cJSON *o = moe_json_get(v->root, "layers")->child; o; o = o->next, row++) {
        int64_t number = 0;
        MOE_TRY(moe_json_i64(o, "layer", true, 0, 65536, &number, v->path, err));
        if (number <= before)
            return moe_fail_at(err, MOE_CORRUPT, v->path, NULL, "layer %lld is there twice or out of order",
                               (long long)number);
        before = (int32_t)number;
        MOE_TRY(moe_cancel_check(v->cancel, err));
        MOE_TRY(read_slots(v, o, (int)number, err));
        if (v->layer.slots != v->slots)
            problem(v, "layer %d: %d slots are in use, not %d", (int)number, (int)v->layer.slots,
                    (int)v->slots);
        check_coverage(v, o, (int)number);
        if (v->windows) check_loads(v, o, (int)number, row);
        if (old) MOE_TRY(check_moves(v, o, (int)number, old, err));
        moe_progress_add(v->progress, 1);
    }
    return moe_cancel_check(v->cancel, err);
}

static void check_totals(struct verify *v, bool moves)
{
    double expert = 0, replicated = 0, layers = v->n_layers;
    compare(v, v->root, -1, "experts_lost_worst", v->out->lost_worst);
    compare(v, v->root, -1, "experts_lost_worst_node", v->out->lost_worst_node);
    bool silent = !(v->sum_load > 0);
    if (v->compare && (v->sum_bound > 0 || silent))
        compare(v, v->root, -1, "gap_total", silent ? 0 : v->sum_load / v->sum_bound - 1);
    bool known = claim(v->root, "expert_bytes", &expert) && claim(v->root, "replicated_bytes", &replicated);
    if (known) compare(v, v->root, -1, "bytes_per_rank", replicated + v->most_slots * layers * expert);
    if (moves) compare(v, v->root, -1, "slots_moved", (double)v->moved);
    if (moves && known) compare(v, v->root, -1, "bytes_moved", (double)v->moved * expert);
}

static enum moe_code verify(struct verify *v, const struct moe_routing *const *stats, int n, const cJSON *old,
                            struct moe_err *err)
{
    MOE_TRY(read_head(v, err));
    MOE_TRY(gather(v, stats, n, err));
    v->out->had_statistics = n > 0;
    if (n) MOE_TRY(same_digest(v, &v->compare, err));
    v->out->same_statistics = v->compare;
    moe_progress_begin(v->progress, "verifying layers", (uint64_t)v->n_layers, MOE_UNIT_ITEMS);
    enum moe_code code = check_layers(v, old, err);
    moe_progress_end(v->progress);
    MOE_TRY(code);
    check_totals(v, old);
    v->out->load_max = v->sum_load;
    v->out->load_mean = v->sum_mean;
    return v->failed ? MOE_VERIFY : MOE_OK;
}

enum moe_code moe_plan_verify(struct moe_plan_checked *out, const char *path, const cJSON *root,
                              const struct moe_routing *const *stats, int n_stats, const cJSON *from,
                              cJSON *problems, struct moe_progress *progress,
                              const struct moe_cancel *cancel, struct moe_err *err)
{
    *out = (struct moe_plan_checked){ .copies_min = INT32_MAX };
    struct verify v = {
        .path = path, .root = root, .problems = problems, .out = out, .progress = progress, .cancel = cancel,
        .err = err
    };
    enum moe_code code = verify(&v, stats, n_stats, from, err);
    moe_arena_clear(&v.arena);
    return code;
}
