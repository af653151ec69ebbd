/* SPDX-License-Identifier: Apache-2.0 */
/* Verifies one layer of a plan: reads its slots, and compares what the plan claims of them. */
#include "runtime/plan/plan-verify-internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A claim is right when it differs by this share at most.  Numbers of a plan have up to 17 digits, but splits
 * are computed to one part in about 2^40. */
static const double CLOSE = 1e-6;

void moe_verify_problem(struct moe_verify *v, const char *fmt, ...)
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

static bool near(double a, double b)
{
    return fabs(a - b) <= CLOSE * (fabs(a) > fabs(b) ? fabs(a) : fabs(b)) + 1e-9;
}

bool moe_verify_claim(const cJSON *o, const char *key, double *x)
{
    const cJSON *c = moe_json_get(o, key);
    if (!c || !cJSON_IsNumber(c)) return false;
    *x = c->valuedouble;
    return true;
}

void moe_verify_compare(struct moe_verify *v, const cJSON *o, int layer, const char *key, double is)
{
    double said;
    if (!moe_verify_claim(o, key, &said)) return;
    v->out->claims++;
    if (near(said, is)) return;
    if (layer >= 0) moe_verify_problem(v, "layer %d: %s is %.9g, the plan says %.9g", layer, key, is, said);
    else moe_verify_problem(v, "%s is %.9g, the plan says %.9g", key, is, said);
}

/* ---- slots ---- */

static enum moe_code bad(const struct moe_verify *v, int layer, const char *what, struct moe_err *err)
{
    return moe_fail_at(err, MOE_CORRUPT, v->path, NULL, "layer %d: %s", layer, what);
}

/* Reads rank_of[k] and expert_of[k] of v->layer from the JSON, for each slot. */
static enum moe_code read_slots(struct moe_verify *v, const cJSON *o, int number, struct moe_err *err)
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
static int32_t most_lost(struct moe_verify *v, int32_t size)
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
static void check_coverage(struct moe_verify *v, const cJSON *o, int number)
{
    struct check_layer *l = &v->layer;
    int32_t least = INT32_MAX, node = v->per_node > 0 && v->per_node < v->ranks ? v->per_node : v->ranks;
    memset(l->copies, 0, (size_t)v->experts * sizeof *l->copies);
    /* left: the last rank that has the expert, as slots come by rank */
    for (int32_t e = 0; e < v->experts; e++) l->left[e] = -1;
    for (int32_t k = 0; k < l->slots; k++) {
        int32_t e = l->expert_of[k], r = l->rank_of[k];
        l->copies[e]++;
        if (l->left[e] == r)
            moe_verify_problem(v, "layer %d: rank %d holds expert %d twice", number, (int)r, (int)e);
        l->left[e] = r;
    }
    for (int32_t e = 0; e < v->experts; e++) {
        int copies = (int)l->copies[e];
        if (!copies) moe_verify_problem(v, "layer %d: expert %d is on no rank", number, (int)e);
        else if (copies <= v->survive)
            moe_verify_problem(v, "layer %d: expert %d has %d cop%s, %d lost rank%s to be survived", number,
                               (int)e, copies, copies == 1 ? "y" : "ies", (int)v->survive,
                               v->survive == 1 ? " is" : "s are");
        least = copies < least ? copies : least;
    }
    int32_t worst = most_lost(v, 1), worst_node = node == v->ranks ? worst : most_lost(v, node);
    moe_verify_compare(v, o, number, "copies_min", least);
    moe_verify_compare(v, o, number, "experts_lost_worst", worst);
    moe_verify_compare(v, o, number, "experts_lost_worst_node", worst_node);
    v->out->copies_min = least < v->out->copies_min ? least : v->out->copies_min;
    v->out->lost_worst = worst > v->out->lost_worst ? worst : v->out->lost_worst;
    v->out->ranks_per_node = node < v->ranks ? node : 0;
    v->out->lost_worst_node = worst_node > v->out->lost_worst_node ? worst_node : v->out->lost_worst_node;
}

/* ---- loads ---- */

/* Computes the load of each expert in window w: the counts of each window that has tokens are scaled to the
 * mean sum of these windows.  False: the window has none. */
static bool window_weights(struct moe_verify *v, int32_t row, int32_t w, double *out)
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
static double fullest_rank(const struct moe_verify *v, const double *weight)
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
static void check_cut(struct moe_verify *v, const cJSON *o, int number, int32_t row)
{
    struct check_layer *l = &v->layer;
    const cJSON *cut = moe_json_get(o, "min_cut_ranks");
    double said, proven = 0;
    int32_t size = 0;
    if (!moe_verify_claim(o, "min_cut", &said)) return;
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
        moe_verify_problem(
            v, "layer %d: the cut of %d ranks carries %.9g a rank, the plan says min_cut is %.9g", number,
            (int)size, proven, said);
    if (!fits) moe_verify_problem(v, "layer %d: no split keeps every rank at min_cut, %.9g", number, said);
}

/* Checks load_max_after_loss: whichever rank is dead, a split must stay within it, and with the named rank
 * dead no split may stay below it; without tokens it must be 0.  Of ranks that hold the same experts one is
 * tried. */
static void check_after_loss(struct moe_verify *v, const cJSON *o, int number, int32_t row)
{
    double said, named = -1;
    if (!moe_verify_claim(o, "load_max_after_loss", &said) || v->ranks < 2) return;
    bool attained = said <= 1e-9;
    moe_verify_claim(o, "loss_rank", &named);
    v->out->claims++;
    moe_check_mark_twins(&v->layer, v->experts, v->ranks);
    for (int32_t w = 0; w < v->windows; w++) {
        if (!window_weights(v, row, w, v->layer.weight)) continue;
        for (int32_t r = 0; r < v->ranks && !moe_is_cancelled(v->cancel); r++)
            if (!v->layer.twin[r] &&
                !moe_check_split_fits(&v->layer, v->experts, v->ranks, r, said * (1 + CLOSE) + 1e-9)) {
                moe_verify_problem(
                    v, "layer %d: without rank %d no split keeps every rank at load_max_after_loss, %.9g",
                    number, (int)r, said);
                return;
            }
        attained = attained || !moe_check_split_fits(&v->layer, v->experts, v->ranks, (int32_t)named,
                                                     said * (1 - CLOSE) - 1e-9);
    }
    if (!attained) moe_verify_problem(v, "layer %d: load_max_after_loss is below %.9g", number, said);
}

/* Checks the bound: it must not be above the load, and the verifier must be able to prove it. */
static void check_bound(struct moe_verify *v, const cJSON *o, int number, int32_t row, double load)
{
    double said, best = 0;
    const cJSON *kind = moe_json_get(o, "bound_kind");
    if (!moe_verify_claim(o, "bound", &said)) return;
    v->out->claims++;
    v->sum_bound += said;
    if (said > load * (1 + CLOSE))
        moe_verify_problem(v, "layer %d: bound %.9g is above the load %.9g", number, said, load);
    for (int32_t w = 0; w < v->windows; w++) {
        if (!window_weights(v, row, w, v->layer.weight)) continue;
        double b = moe_check_bound(&v->layer, v->experts, v->ranks, v->survive + 1);
        best = b > best ? b : best;
    }
    if (said <= best * (1 + CLOSE)) {
        moe_verify_compare(v, o, number, "gap", said > 0 ? load / said - 1 : 0);
        return;
    }
    int better = cJSON_IsString(kind) && !strcmp(kind->valuestring, "exact") && v->windows == 1
                   ? moe_check_better_exists(&v->layer, v->experts, v->ranks, v->survive + 1,
                                             said * (1 - CLOSE))
                   : 1;
    if (better > 0)
        moe_verify_problem(v, "layer %d: a bound of %.9g is not proven, only %.9g", number, said, best);
    else if (better < 0) v->out->unproven++;
}

/* Checks "loads", the load of every rank, the largest over windows. */
static void check_rank_loads(struct moe_verify *v, const cJSON *o, int number, int32_t row)
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
            moe_verify_problem(v, "layer %d: rank %d has a load of %.9g, 'loads' says otherwise", number,
                               (int)r, max_load);
            return;
        }
    }
    if (r != v->ranks) moe_verify_problem(v, "layer %d: 'loads' is not one for each rank", number);
}

/* Checks activated_max and noise_floor, by the formulas of docs/reference/placement.md. */
static void check_batch(struct moe_verify *v, const cJSON *o, int number, int32_t row)
{
    struct check_layer *l = &v->layer;
    double batch = 0, top = 0, total = 0, active = 0, variance = 0, max_load = 0, lo = -10, hi = 10;
    int32_t windows = 0;
    if (!moe_verify_claim(v->root, "batch", &batch)) return;
    if (!moe_verify_claim(v->root, "experts_per_token", &top)) return;
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
    moe_verify_compare(v, o, number, "activated_max", max_load);
    moe_verify_compare(v, o, number, "noise_floor",
                       v->ranks > 1 ? 1 + lo * sqrt(variance) / (batch * top) : 1);
}

static void check_loads(struct moe_verify *v, const cJSON *o, int number, int32_t row)
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
    moe_verify_compare(v, o, number, "load_max", load);
    moe_verify_compare(v, o, number, "load_mean", mean);
    check_bound(v, o, number, row, load);
    check_cut(v, o, number, row);
    check_after_loss(v, o, number, row);
    check_rank_loads(v, o, number, row);
    check_batch(v, o, number, row);
}

/* ---- moves ---- */

static enum moe_code check_moves(struct moe_verify *v, const cJSON *o, int number, const cJSON *old,
                                 struct moe_err *err)
{
    struct check_layer *l = &v->layer;
    int32_t r = 0, moved = 0, k = 0;
    const cJSON *layers = moe_json_get(old, "layers"), *was = NULL;
    for (const cJSON *x = layers ? layers->child : NULL; x; x = x->next) {
        double n;
        if (moe_verify_claim(x, "layer", &n) && n == number) was = moe_json_get(x, "ranks");
    }
    if (!was) return moe_fail_at(err, MOE_MISMATCH, v->path, NULL, "the old plan has no layer %d", number);
    for (int32_t e = 0; e < v->experts; e++) l->left[e] = -1; /* the last rank that had the expert */
    for (const cJSON *list = was->child; r < v->ranks; r++, list = list ? list->next : NULL) {
        for (const cJSON *x = list ? list->child : NULL; x; x = x->next)
            if (cJSON_IsNumber(x) && x->valuedouble >= 0 && x->valuedouble < v->experts)
                l->left[(int32_t)x->valuedouble] = r;
        for (; k < l->slots && l->rank_of[k] == r; k++) moved += l->left[l->expert_of[k]] != r;
    }
    moe_verify_compare(v, o, number, "slots_moved", moved);
    v->moved += moved;
    return MOE_OK;
}

enum moe_code moe_verify_layer(struct moe_verify *v, const cJSON *o, int number, int32_t row,
                               const cJSON *old, struct moe_err *err)
{
    MOE_TRY(read_slots(v, o, number, err));
    if (v->layer.slots != v->slots)
        moe_verify_problem(v, "layer %d: %d slots are in use, not %d", number, (int)v->layer.slots,
                           (int)v->slots);
    check_coverage(v, o, number);
    if (v->windows) check_loads(v, o, number, row);
    if (old) return check_moves(v, o, number, old, err);
    double moved = 0;
    v->moved_known &= moe_verify_claim(o, "slots_moved", &moved);
    v->moved += moved;
    return MOE_OK;
}
