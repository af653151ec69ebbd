/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-baselines.h"

#include "base/io.h"
#include "runtime/plan/plan-search.h"

#include <stdlib.h>
#include <string.h>

enum { KINDS = 3 };
static const char *const names[KINDS] = { "trivial", "round-robin", "eplb" }; /* by enum moe_baseline */

static int64_t duplicates(const struct moe_plan_task *t, const int32_t *slot)
{
    int64_t n = 0;
    for (int32_t r = 0, k = 0; r < t->ranks; r++) {
        int32_t start = k, end = k + t->slots / t->ranks + (r < t->slots % t->ranks);
        for (; k < end; k++)
            for (int32_t j = start; j < k; j++) n += slot[j] == slot[k];
    }
    return n;
}

/* Experts that are on no other rank than the worst. */
static enum moe_code lost_with_one(const struct moe_plan_task *t, const int32_t *slot, int32_t *lost,
                                   struct moe_err *err)
{
    int32_t n = t->stats->experts, *home = calloc((size_t)n, sizeof *home);
    int32_t *of = calloc((uint32_t)t->ranks, sizeof *of);
    bool ok = home && of; /* home: the one rank that has it, + 1; -1: several have */
    for (int32_t r = 0, k = 0; ok && r < t->ranks; r++)
        for (int32_t end = k + t->slots / t->ranks + (r < t->slots % t->ranks); k < end; k++)
            home[slot[k]] = !home[slot[k]] || home[slot[k]] == r + 1 ? r + 1 : -1;
    for (int32_t e = 0; ok && e < n; e++)
        if (home[e] > 0 && ++of[home[e] - 1] > *lost) *lost = of[home[e] - 1];
    free(home);
    free(of);
    return ok ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for baselines");
}

enum moe_code moe_plan_baseline_bound(double *bound, const struct moe_plan_task *t,
                                      const struct moe_plan_proofs *f, struct moe_err *err)
{
    struct moe_plan_task easier = *t;
    struct moe_bounds b;
    easier.survive = 0;
    *bound = t->survive ? 0 : f->bound;
    for (int32_t i = 0; t->survive && i < t->stats->n_layers; i++) {
        MOE_TRY(moe_plan_bounds(&b, &easier, i, err));
        *bound += b.best;
    }
    return MOE_OK;
}

enum moe_code moe_plan_baseline_sum(struct moe_baseline_sum *s, enum moe_baseline kind,
                                    const struct moe_plan_task *t, double bound, double *max_load,
                                    struct moe_err *err)
{
    int32_t n = t->stats->n_layers, *slot = calloc((size_t)n * (size_t)t->slots, sizeof *slot);
    double *load = calloc((size_t)t->ranks, sizeof *load), start = moe_now(), cpu = moe_cpu_seconds();
    enum moe_code code = moe_fail(err, MOE_NOMEM, "no memory for baselines");
    *s = (struct moe_baseline_sum){ .bound = bound };
    if (slot && load) {
        char label[32];
        snprintf(label, sizeof label, "placing as %s", names[kind]);
        moe_progress_begin(t->progress, label, (uint64_t)n, MOE_UNIT_ITEMS);
        code = moe_plan_baseline(slot, kind, t, err);
        moe_progress_end(t->progress);
    }
    s->seconds = moe_now() - start;
    s->cpu = moe_cpu_seconds() - cpu;
    for (int32_t i = 0; code == MOE_OK && i < n; i++) {
        double top = 0;
        if ((code = moe_cancel_check(t->cancel, err)) != MOE_OK) break;
        code = moe_plan_slot_loads(t, i, -1, slot + (int64_t)i * t->slots, load, err);
        for (int32_t r = 0; r < t->ranks; r++) top = load[r] > top ? load[r] : top;
        if (code == MOE_OK) code = lost_with_one(t, slot + (int64_t)i * t->slots, &s->lost, err);
        s->duplicates += duplicates(t, slot + (int64_t)i * t->slots);
        s->load_max += top;
        if (max_load) max_load[i] = top;
    }
    free(slot);
    free(load);
    s->gap = bound > 0 && s->load_max > bound ? s->load_max / bound - 1 : 0;
    return code;
}

static enum moe_code one(enum moe_baseline kind, const struct moe_plan_task *t,
                         const struct moe_plan_proofs *f, double bound, struct moe_text *text, cJSON *all,
                         struct moe_err *err)
{
    struct moe_baseline_sum s;
    double *max_load = calloc((size_t)t->stats->n_layers + 1, sizeof *max_load);
    enum moe_code code = max_load ? moe_plan_baseline_sum(&s, kind, t, bound, max_load, err)
                              : moe_fail(err, MOE_NOMEM, "no memory for baselines");
    cJSON *j = code == MOE_OK ? moe_json_add_object(all, names[kind]) : NULL;
    cJSON *layers = j ? cJSON_CreateDoubleArray(max_load, t->stats->n_layers) : NULL;
    free(max_load);
    MOE_TRY(code);
    moe_json_add(j, "load_max_layers", layers);
    moe_json_add_f64(j, "load_max", s.load_max);
    moe_json_add_f64(j, "bound", s.bound);
    moe_json_add_f64(j, "gap_total", s.gap);
    moe_json_add_i64(j, "experts_lost_worst", s.lost);
    moe_json_add_i64(j, "duplicates", s.duplicates);
    moe_json_add_f64(j, "seconds", s.seconds);
    moe_json_add_f64(j, "cpu_seconds", s.cpu);
    moe_text_add(text,
                 "Placed as %s: load %.6g, %.4f x mean, %.4f %% above the bound%s; "
                 "%lld slot%s rank has already.\n",
                 names[kind], s.load_max, f->load_mean > 0 ? s.load_max / f->load_mean : 1, 100 * s.gap,
                 t->survive ? " without --survive" : "", (long long)s.duplicates,
                 s.duplicates == 1 ? " holds an expert that its" : "s hold an expert that their");
    if (t->survive && s.lost)
        moe_text_add(
            text,
            "    It knows nothing of --survive: up to %d expert%s of a layer would be lost with a rank.\n",
            (int)s.lost, s.lost == 1 ? "" : "s");
    return MOE_OK;
}

static bool wants(const struct moe_strlist *asked, enum moe_baseline kind)
{
    bool yes = false;
    for (size_t i = 0; i < asked->n; i++)
        yes |= !strcmp(asked->v[i], "all") || !strcmp(asked->v[i], names[kind]);
    return yes;
}

enum moe_code moe_plan_baselines(const struct moe_strlist *asked, const struct moe_plan_task *t,
                                 const struct moe_plan_proofs *f, double bound, struct moe_text *text,
                                 cJSON *json, struct moe_err *err)
{
    cJSON *all = asked->n ? moe_json_add_object(json, "baselines") : NULL;
    for (int k = 0; all && k < KINDS; k++)
        if (wants(asked, (enum moe_baseline)k))
            MOE_TRY(one((enum moe_baseline)k, t, f, bound, text, all, err));
    return MOE_OK;
}

enum moe_code moe_plan_baselines_check(const struct moe_strlist *asked, const struct moe_plan_task *t,
                                       struct moe_err *err)
{
    for (size_t i = 0; i < asked->n; i++) {
        bool known = !strcmp(asked->v[i], "all");
        for (int k = 0; k < KINDS; k++) known |= !strcmp(asked->v[i], names[k]);
        if (!known)
            return moe_fail(err, MOE_USAGE, "unknown --baseline '%s' (trivial, round-robin, eplb or all)",
                            asked->v[i]);
    }
    if (wants(asked, MOE_BASE_EPLB) && t->slots % t->ranks)
        return moe_fail(err, MOE_UNSUPPORTED,
                        "--baseline eplb: EPLB wants as many slots on each rank, not %d on %d ranks",
                        (int)t->slots, (int)t->ranks);
    return MOE_OK;
}
