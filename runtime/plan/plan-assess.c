/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-assess.h"

#include <stdlib.h>
#include <string.h>

/* ---- sizes to compare with ---- */

static enum moe_code parse_size(struct moe_plan_size *s, const char **text, const struct moe_plan_task *t,
                                struct moe_err *err)
{
    char *end;
    const char *at = *text;
    int32_t experts = t->stats->experts;
    long ranks = strtol(at, &end, 10), need = experts * (t->survive + 1L);
    long slots = ranks > 0 ? (need + ranks - 1) / ranks * ranks : 0;
    if (*end == 'x') slots = strtol(end + 1, &end, 10);
    if (ranks < 1 || ranks > MOE_PLAN_RANKS_MAX || (*end && *end != ','))
        return moe_fail(err, MOE_USAGE, "--compare wants ranks, or ranks x slots (8,16x400,72), not '%s'",
                        at);
    if (slots < need || slots > (long)experts * ranks)
        return moe_fail(
            err, MOE_USAGE,
            "--compare %.*s: %ld slots are too %s, %d cop%s of %d experts on %ld ranks take %ld to %ld",
            (int)(end - at), at, slots, slots < need ? "few" : "many", (int)t->survive + 1,
            t->survive ? "ies" : "y", (int)experts, ranks, need, (long)experts * ranks);
    *s = (struct moe_plan_size){ (int32_t)ranks, (int32_t)slots };
    *text = end;
    return MOE_OK;
}

enum moe_code moe_plan_sizes_parse(struct moe_plan_sizes *s, const char *text, const struct moe_plan_task *t,
                                   struct moe_err *err)
{
    size_t most = 1;
    *s = (struct moe_plan_sizes){ 0 };
    if (!text) return MOE_OK;
    for (const char *at = text; *at; at++) most += *at == ',';
    s->v = calloc(most, sizeof *s->v);
    if (!s->v) return moe_fail(err, MOE_NOMEM, "no memory to compare");
    for (const char *at = text; *at; at += *at == ',') {
        enum moe_code code = parse_size(&s->v[s->n++], &at, t, err);
        if (code == MOE_OK) continue;
        free(s->v);
        *s = (struct moe_plan_sizes){ 0 };
        return code;
    }
    return MOE_OK;
}

/* ---- the assessment ---- */

static struct moe_step_task step_task(const struct moe_assessment *a, struct moe_plan_size size,
                                      double imbalance, double active)
{
    const struct moe_step_options *o = a->with;
    return (struct moe_step_task){ .c = &a->p->src->config,
                                   .w = &a->p->bytes,
                                   .gpu = *a->gpu,
                                   .ranks = size.ranks,
                                   .slots = size.slots,
                                   .batch = o->batch,
                                   .context = o->context,
                                   .prefill = o->prefill,
                                   .kv_bytes = strcmp(o->kv_type, "fp8") ? 2 : 1,
                                   .reserve = (double)o->reserve,
                                   .imbalance = imbalance,
                                   .activated = active };
}

void moe_assess_size(const struct moe_assessment *a, struct moe_plan_size size, struct moe_step *s)
{
    struct moe_step_task t = step_task(a, size, 1, 0);
    moe_step_model(s, &t);
}

/* Computes memory and time of the plan with its balance, or without a plan of one that reaches the bound. */
static enum moe_code model(struct moe_assessment *a, struct moe_err *err)
{
    const struct moe_plan_proofs *f = a->p->proofs;
    double active = 0;
    if (f) a->bound = f->bound, a->mean = f->load_mean;
    else MOE_TRY(moe_planning_bounds(a->p, &a->bound, &a->mean, err));
    for (int32_t i = 0; f && i < f->n_layers; i++) active += f->layers[i].activated_max / f->n_layers;
    double load = f ? f->load_max : a->bound;
    const struct moe_plan_size size = { a->p->task.ranks, a->p->task.slots };
    a->task = step_task(a, size, a->mean > 0 ? load / a->mean : 1, active);
    moe_step_model(&a->step, &a->task);
    return MOE_OK;
}

static enum moe_code place(struct moe_assessment *a, struct moe_err *err)
{
    const struct moe_plan_task *t = &a->p->task;
    if (a->placed) MOE_TRY(moe_plan_baseline_bound(&a->baseline_bound, t, a->p->proofs, err));
    for (int k = 0; k < MOE_BASE_COUNT; k++) {
        if (!(a->placed & 1u << k)) continue;
        a->max_load[k] = calloc((size_t)t->stats->n_layers + 1, sizeof **a->max_load);
        if (!a->max_load[k]) return moe_fail(err, MOE_NOMEM, "no memory for baselines");
        MOE_TRY(moe_plan_baseline_sum(&a->baseline[k], (enum moe_baseline)k, t, a->baseline_bound,
                                      a->max_load[k], err));
    }
    return MOE_OK;
}

enum moe_code moe_assess(struct moe_assessment *a, const struct moe_planning *p,
                         const struct moe_step_options *with, const struct moe_gpu *gpu,
                         const struct moe_plan_sizes *sizes, unsigned asked, bool eplb, struct moe_err *err)
{
    *a = (struct moe_assessment){ .p = p, .with = with, .gpu = gpu, .sizes = sizes, .asked = asked };
    MOE_TRY(model(a, err));
    if (!p->plan) return MOE_OK;
    a->placed = asked;
    if (eplb && p->task.slots % p->task.ranks == 0) a->placed |= 1u << MOE_BASE_EPLB;
    return place(a, err);
}

void moe_assessment_close(struct moe_assessment *a)
{
    for (int k = 0; k < MOE_BASE_COUNT; k++) {
        free(a->max_load[k]);
        a->max_load[k] = NULL;
    }
}
