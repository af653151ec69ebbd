/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-baselines.h"

#include "base/io.h"
#include "runtime/plan/plan-search.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[MOE_BASE_COUNT] = { "trivial", "round-robin", "eplb" };

/* How many slots hold an expert that an earlier slot of their rank holds. */
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

/* Raises *lost to the number of experts that are lost with the worst rank: those that lie on it alone. */
static enum moe_code lost_with_one(const struct moe_plan_task *t, const int32_t *slot, int32_t *lost,
                                   struct moe_err *err)
{
    int32_t n = t->stats->experts, *only_rank = calloc((size_t)n, sizeof *only_rank);
    int32_t *of = calloc((uint32_t)t->ranks, sizeof *of);
    bool ok = only_rank && of; /* only_rank: 1 + the one rank that holds the expert; -1: several ranks do */
    for (int32_t r = 0, k = 0; ok && r < t->ranks; r++)
        for (int32_t end = k + t->slots / t->ranks + (r < t->slots % t->ranks); k < end; k++)
            only_rank[slot[k]] = !only_rank[slot[k]] || only_rank[slot[k]] == r + 1 ? r + 1 : -1;
    for (int32_t e = 0; ok && e < n; e++)
        if (only_rank[e] > 0 && ++of[only_rank[e] - 1] > *lost) *lost = of[only_rank[e] - 1];
    free(only_rank);
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

const char *moe_baseline_name(enum moe_baseline kind) { return names[kind]; }

enum moe_code moe_plan_baselines_parse(unsigned *set, const char *const *asked, size_t n,
                                       struct moe_err *err)
{
    *set = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned all = strcmp(asked[i], "all") ? 0 : (1u << MOE_BASE_COUNT) - 1;
        for (int k = 0; k < MOE_BASE_COUNT; k++) all |= strcmp(asked[i], names[k]) ? 0 : 1u << k;
        if (!all)
            return moe_fail(err, MOE_USAGE, "unknown --baseline '%s' (trivial, round-robin, eplb or all)",
                            asked[i]);
        *set |= all;
    }
    return MOE_OK;
}

enum moe_code moe_plan_baselines_check(unsigned set, const struct moe_plan_task *t, struct moe_err *err)
{
    if (!(set & 1u << MOE_BASE_EPLB) || t->slots % t->ranks == 0) return MOE_OK;
    return moe_fail(err, MOE_UNSUPPORTED,
                    "--baseline eplb: EPLB wants as many slots on each rank, not %d on %d ranks",
                    (int)t->slots, (int)t->ranks);
}
