/* SPDX-License-Identifier: Apache-2.0 */
/* Verifies a whole plan: its head, the statistics that belong to it, every layer (plan-verify-claims.c), and
 * what the plan claims of all layers together. */
#include "runtime/plan/plan-verify.h"

#include "runtime/plan/plan-verify-internal.h"

#include "base/hash.h"
#include "formats/container/identity.h"

#include <stdlib.h>
#include <string.h>

enum { EXPERTS_MAX = 65536, RANKS_MAX = 4096, SLOTS_MAX = 1 << 24 };

/* Counts ranks, experts and slots of the first layer, for plans that do not say these numbers. */
static void shape_of(const cJSON *layers, int64_t *ranks, int64_t *experts, int64_t *slots)
{
    const cJSON *lists = moe_json_get(layers->child, "ranks");
    for (const cJSON *l = cJSON_IsArray(lists) ? lists->child : NULL; l; l = l->next, ++*ranks)
        for (const cJSON *x = l->child; x; x = x->next, ++*slots)
            if (cJSON_IsNumber(x) && x->valuedouble >= (double)*experts && x->valuedouble < EXPERTS_MAX)
                *experts = (int64_t)x->valuedouble + 1;
}

static enum moe_code read_head(struct moe_verify *v, struct moe_err *err)
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
        return moe_fail_at(err, MOE_CORRUPT, f, NULL, "layer 0: a plan of no or too many slots");
    v->ranks = (int32_t)ranks, v->experts = (int32_t)experts, v->survive = (int32_t)survive,
    v->per_node = (int32_t)per_node, v->slots = (int32_t)slots;
    v->n_layers = cJSON_GetArraySize(layers);
    return moe_check_layer_init(&v->layer, &v->arena, v->experts, v->ranks, v->slots)
             ? MOE_OK
             : moe_fail(err, MOE_NOMEM, "no memory to verify a plan");
}

/* Whether, if the rows of r are numbered from 0, one before the plan's last layer has a count and the plan
 * has no such layer. */
static bool others_count(const struct moe_verify *v, const struct moe_routing *r)
{
    int32_t row = 0;
    for (const cJSON *l = moe_json_get(v->root, "layers")->child; l; l = l->next, row++) {
        double number = -1;
        moe_verify_claim(l, "layer", &number);
        for (; row < number && row < r->n_layers; row++)
            for (int32_t w = 0; w < r->n_windows; w++)
                for (int32_t e = 0; e < r->experts; e++)
                    if (r->counts[((int64_t)w * r->n_layers + row) * r->experts + e]) return true;
    }
    return false;
}

/* Whether rows without numbers are the plan's layers, perhaps followed by the model's layers for multi-token
 * prediction; if not, they are all layers of the model. */
static bool has_rows_of_plan(const struct moe_verify *v, const struct moe_routing *r)
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
static enum moe_code gather(struct moe_verify *v, const struct moe_routing *const *stats, int n,
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
                moe_verify_claim(l, "layer", &number);
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
static enum moe_code same_digest(const struct moe_verify *v, bool *same, struct moe_err *err)
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

static enum moe_code check_layers(struct moe_verify *v, const cJSON *old, struct moe_err *err)
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
        MOE_TRY(moe_verify_layer(v, o, (int)number, row, old, err));
        moe_progress_add(v->progress, 1);
    }
    return moe_cancel_check(v->cancel, err);
}

static void check_totals(struct moe_verify *v)
{
    double expert = 0, replicated = 0, layers = v->n_layers;
    moe_verify_compare(v, v->root, -1, "copies_min", v->out->copies_min);
    moe_verify_compare(v, v->root, -1, "experts_lost_worst", v->out->lost_worst);
    moe_verify_compare(v, v->root, -1, "experts_lost_worst_node", v->out->lost_worst_node);
    bool silent = !(v->sum_load > 0);
    if (v->compare && (v->sum_bound > 0 || silent))
        moe_verify_compare(v, v->root, -1, "gap_total", silent ? 0 : v->sum_load / v->sum_bound - 1);
    bool known = moe_verify_claim(v->root, "expert_bytes", &expert) &&
                 moe_verify_claim(v->root, "replicated_bytes", &replicated);
    if (known)
        moe_verify_compare(v, v->root, -1, "bytes_per_rank", replicated + v->most_slots * layers * expert);
    if (!v->moved_known) return;
    moe_verify_compare(v, v->root, -1, "slots_moved", v->moved);
    if (known) moe_verify_compare(v, v->root, -1, "bytes_moved", v->moved * expert);
}

static enum moe_code verify(struct moe_verify *v, const struct moe_routing *const *stats, int n,
                            const cJSON *old, struct moe_err *err)
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
    check_totals(v);
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
    struct moe_verify v = { .path = path,
                            .root = root,
                            .problems = problems,
                            .out = out,
                            .progress = progress,
                            .cancel = cancel,
                            .err = err,
                            .moved_known = true };
    enum moe_code code = verify(&v, stats, n_stats, from, err);
    moe_arena_clear(&v.arena);
    return code;
}
