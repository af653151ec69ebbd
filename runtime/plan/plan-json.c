/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-json.h"

#include "base/hash.h"
#include "base/io.h"
#include "base/newfile.h"

#include <stdlib.h>
#include <string.h>

/* Adds the members that plan.json and the report have in common. */
static void add_totals(cJSON *j, const struct moe_planning *p, int64_t batch)
{
    const struct moe_plan_proofs *f = p->proofs;
    char hex[17];
    moe_json_add_f64(j, "gap_total", f->gap);
    moe_json_add_i64(j, "experts_lost_worst", f->lost_worst);
    moe_json_add_i64(j, "experts_lost_worst_node", f->lost_worst_node);
    moe_json_add_i64(j, "copies_min", f->copies_min);
    moe_json_add_f64(j, "bytes_per_rank", moe_planning_bytes_per_rank(p));
    moe_json_add_f64(j, "expert_bytes", p->bytes.expert);
    moe_json_add_f64(j, "replicated_bytes", moe_weight_bytes_replicated(&p->bytes));
    moe_json_add_i64(j, "slots_moved", f->moves);
    moe_json_add_f64(j, "bytes_moved", (double)f->moves * p->bytes.expert);
    moe_hex64(p->digest, hex);
    moe_json_add_str(j, "statistics", hex);
    moe_json_add_i64(j, "windows", p->stats->n_windows);
    moe_json_add_i64(j, "batch", batch);
}

/* ---- plan.json ---- */

/* Lists the layers for multi-token prediction, which a plan does not place, for engines that run them. */
static void add_prediction_layers(cJSON *head, const struct moe_config *c)
{
    cJSON *list = moe_json_add_array(head, MOE_PLAN_PREDICTION);
    for (int64_t i = 0; list && i < c->num_nextn_predict_layers; i++)
        moe_json_append(list, cJSON_CreateNumber((double)(c->num_hidden_layers + i)));
}

enum moe_code moe_planning_print(const struct moe_planning *p, int64_t batch, char **text,
                                 struct moe_err *err)
{
    const struct moe_config *c = &p->src->config;
    cJSON *head = cJSON_CreateObject();
    if (head) {
        add_totals(head, p, batch);
        moe_json_add_str(head, "model", p->src->path);
        moe_identity_put(head, MOE_PLAN_ORIGIN, MOE_PLAN_WEIGHTS, &p->model);
        if (c->num_nextn_predict_layers) add_prediction_layers(head, c);
    }
    *text = moe_json_whole(head) ? moe_plan_print(p->plan, p->proofs, head) : NULL;
    cJSON_Delete(head);
    return *text ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for a plan's text");
}

enum moe_code moe_planning_write(const struct moe_planning *p, int64_t batch, const char *path, bool force,
                                 struct moe_err *err)
{
    char *text;
    MOE_TRY(moe_planning_print(p, batch, &text, err));
    enum moe_code code = moe_newfile_write(path, text, strlen(text), force, err);
    free(text);
    return code;
}

/* ---- the report ---- */

static void add_baselines(cJSON *json, const struct moe_assessment *a)
{
    cJSON *all = a->asked ? moe_json_add_object(json, "baselines") : NULL;
    for (int k = 0; all && k < MOE_BASE_COUNT; k++) {
        if (!(a->asked & 1u << k)) continue;
        const struct moe_baseline_sum *s = &a->baseline[k];
        cJSON *j = moe_json_add_object(all, moe_baseline_name((enum moe_baseline)k));
        moe_json_add(j, "load_max_layers", cJSON_CreateDoubleArray(a->max_load[k], a->p->stats->n_layers));
        moe_json_add_f64(j, "load_max", s->load_max);
        moe_json_add_f64(j, "bound", s->bound);
        moe_json_add_f64(j, "gap_total", s->gap);
        moe_json_add_i64(j, "experts_lost_worst", s->lost);
        moe_json_add_i64(j, "duplicates", s->duplicates);
        moe_json_add_f64(j, "seconds", s->seconds);
        moe_json_add_f64(j, "cpu_seconds", s->cpu);
    }
}

static void add_sums(cJSON *json, const struct moe_planning *p)
{
    const struct moe_plan_proofs *f = p->proofs;
    moe_json_add_f64(json, "load_max", f->load_max);
    moe_json_add_f64(json, "load_mean", f->load_mean);
    moe_json_add_f64(json, "bound", f->bound);
    moe_json_add_f64(json, "min_cut", f->split);
    moe_json_add_f64(json, "load_max_after_loss", f->load_max_after_loss);
    moe_json_add_f64(json, "seconds", p->seconds);
    moe_json_add_f64(json, "cpu_seconds", p->cpu);
}

/* Adds the model of memory and time, for the plan and for the sizes to compare with. */
static void add_model(cJSON *json, const struct moe_assessment *a)
{
    const struct moe_plan_task *t = &a->p->task;
    moe_json_add_str(json, "gpu", a->gpu->name);
    moe_json_add_str(json, "gpu_source", a->gpu->source);
    moe_json_add(json, "model", moe_step_json(&a->step, t->ranks, t->slots));
    cJSON *list = a->sizes->v ? moe_json_add_array(json, "compare") : NULL;
    for (int32_t i = 0; list && i < a->sizes->n; i++) {
        struct moe_step s;
        moe_assess_size(a, a->sizes->v[i], &s);
        moe_json_append(list, moe_step_json(&s, a->sizes->v[i].ranks, a->sizes->v[i].slots));
    }
}

/* Adds what is known without a search. */
static void add_bounds(cJSON *json, const struct moe_assessment *a)
{
    moe_json_add_i64(json, "ranks", a->p->task.ranks);
    moe_json_add_i64(json, "slots", a->p->task.slots);
    moe_json_add_f64(json, "bytes_per_rank", moe_planning_bytes_per_rank(a->p));
    moe_json_add_f64(json, "bound", a->bound);
    moe_json_add_f64(json, "load_mean", a->mean);
    add_model(json, a);
}

void moe_assessment_json(cJSON *json, const struct moe_assessment *a)
{
    const struct moe_planning *p = a->p;
    if (!p->plan) {
        add_bounds(json, a);
        return;
    }
    moe_json_add(json, "layers", moe_plan_proofs_json(p->plan, p->proofs));
    add_baselines(json, a);
    add_totals(json, p, a->with->batch);
    moe_identity_put(json, MOE_PLAN_ORIGIN, MOE_PLAN_WEIGHTS, &p->model);
    moe_json_add_i64(json, "ranks", p->task.ranks);
    moe_json_add_i64(json, "slots", p->task.slots);
    add_sums(json, p);
    add_model(json, a);
    moe_json_add_i64(json, "peak_rss", (int64_t)moe_peak_rss());
}
