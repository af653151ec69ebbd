/* SPDX-License-Identifier: Apache-2.0 */
/* Writes plans and proofs as JSON. */
#include "base/buffer.h"
#include "runtime/plan/plan-proof.h"

#include <stdlib.h>

static bool number(cJSON *o, const char *key, double v) { return moe_json_add_f64(o, key, v); }

static bool add_cut(cJSON *o, const struct moe_plan *p, const struct moe_plan_proof *f)
{
    cJSON *a = moe_json_add_array(o, "min_cut_ranks");
    for (int32_t r = 0; a && r < p->ranks; r++)
        if (f->cut[r] && !moe_json_append(a, cJSON_CreateNumber(r))) return false;
    return a;
}

static bool add_loads(cJSON *o, const struct moe_plan *p, const struct moe_plan_proof *f)
{
    return moe_json_add(o, "loads", cJSON_CreateDoubleArray(f->loads, p->ranks));
}

static bool add_bounds(cJSON *o, const struct moe_bounds *b)
{
    cJSON *all = moe_json_add_object(o, "bounds");
    for (int k = 0; all && k < MOE_BOUND_COUNT; k++)
        if (b->of[k] > 0 && !number(all, moe_bound_name((enum moe_bound_kind)k), b->of[k])) return false;
    return all;
}

static bool add_proof(cJSON *o, const struct moe_plan *p, const struct moe_plan_proof *f)
{
    return number(o, "load_max", f->load_max) && number(o, "load_mean", f->load_mean) &&
           number(o, "bound", f->bounds.best) && number(o, "gap", f->gap) &&
           moe_json_add_str(o, "bound_kind", moe_bound_name(f->bounds.kind)) &&
           number(o, "load_max_after_loss", f->load_max_after_loss) && number(o, "loss_rank", f->loss_rank) &&
           (!(f->bounds.after_loss > 0) || number(o, "bound_after_loss", f->bounds.after_loss)) &&
           add_bounds(o, &f->bounds) && number(o, "load_max_rank", f->load_rank) &&
           number(o, "min_cut", f->split) && add_cut(o, p, f) && number(o, "copies_min", f->copies_min) &&
           number(o, "experts_lost_worst", f->lost_worst) &&
           number(o, "experts_lost_worst_node", f->lost_worst_node) &&
           number(o, "activated_max", f->activated_max) && number(o, "noise_floor", f->noise_floor) &&
           number(o, "slots_moved", f->moves);
}

static cJSON *slots(const struct moe_plan *p, const struct moe_plan_layer *l)
{
    cJSON *ranks = cJSON_CreateArray();
    for (int32_t r = 0; ranks && r < p->ranks; r++) {
        cJSON *one = cJSON_CreateIntArray(l->slot + l->first[r], l->first[r + 1] - l->first[r]);
        if (moe_json_append(ranks, one)) continue;
        cJSON_Delete(ranks);
        return NULL;
    }
    return ranks;
}

/* One layer; with its slots when `l` is not NULL. */
static cJSON *layer(const struct moe_plan *p, const struct moe_plan_layer *l, const struct moe_plan_proof *f,
                    int32_t number_of)
{
    cJSON *o = cJSON_CreateObject();
    bool ok = o && number(o, "layer", number_of) && (!l || moe_json_add(o, "ranks", slots(p, l)));
    if (ok && f) ok = add_proof(o, p, f) && (!l || add_loads(o, p, f));
    if (ok) return o;
    cJSON_Delete(o);
    return NULL;
}

cJSON *moe_plan_proofs_json(const struct moe_plan *p, const struct moe_plan_proofs *proofs)
{
    cJSON *a = cJSON_CreateArray();
    for (int32_t i = 0; a && i < p->n_layers; i++) {
        cJSON *o = layer(p, NULL, &proofs->layers[i], p->layers[i].layer);
        if (moe_json_append(a, o)) continue;
        cJSON_Delete(a);
        return NULL;
    }
    return a;
}

/* ---- the text of plan.json: the members of its root, then each layer on a line ---- */

static void add_json(struct moe_buffer *t, cJSON *o)
{
    char *s = o ? moe_json_print(o, 0) : NULL;
    if (s) moe_buffer_printf(t, "%s", s);
    else t->failed = true;
    free(s);
    cJSON_Delete(o);
}

static void add_member(struct moe_buffer *t, const char *key, const cJSON *v)
{
    moe_buffer_printf(t, "\"%s\":", key);
    add_json(t, cJSON_Duplicate(v, true));
    moe_buffer_printf(t, ",\n");
}

static cJSON *root(const struct moe_plan *p)
{
    cJSON *o = cJSON_CreateObject();
    if (o && number(o, "version", MOE_PLAN_VERSION) && number(o, "ranks", p->ranks) &&
        number(o, "experts", p->experts) &&
        (!p->experts_per_token || number(o, "experts_per_token", p->experts_per_token)) &&
        number(o, "slots", p->n_layers ? p->layers[0].slots : 0) &&
        number(o, "ranks_per_node", p->ranks_per_node) && number(o, "survive", p->survive))
        return o;
    cJSON_Delete(o);
    return NULL;
}

char *moe_plan_print(const struct moe_plan *p, const struct moe_plan_proofs *proofs, const cJSON *head)
{
    struct moe_buffer t = { 0 };
    char *text;
    struct moe_err ignored;
    cJSON *o = root(p);
    if (!o) return NULL;
    moe_buffer_printf(&t, "{");
    for (const cJSON *m = o->child; m; m = m->next) add_member(&t, m->string, m);
    for (const cJSON *m = head ? head->child : NULL; m; m = m->next) add_member(&t, m->string, m);
    cJSON_Delete(o);
    moe_buffer_printf(&t, "\"layers\":[\n");
    for (int32_t i = 0; i < p->n_layers; i++) {
        add_json(&t, layer(p, &p->layers[i], proofs ? &proofs->layers[i] : NULL, p->layers[i].layer));
        moe_buffer_printf(&t, i + 1 < p->n_layers ? ",\n" : "\n");
    }
    moe_buffer_printf(&t, "]}\n");
    moe_buffer_finish(&t, &text, &ignored);
    return text;
}
