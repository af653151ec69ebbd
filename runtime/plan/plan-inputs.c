/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-inputs.h"

#include "base/io.h"
#include "base/show.h"
#include "base/stream.h"
#include "formats/checkpoint/foreign.h"
#include "formats/container/container.h"
#include "formats/container/owner.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum moe_code moe_plan_open_model(struct moe_source **src, const char *path, struct moe_err *err)
{
    struct moe_names names;
    bool container = false, weights = false;
    *src = NULL;
    if (moe_exists(path) == MOE_ABSENT) return moe_fail_at(err, MOE_NOT_FOUND, path, NULL, "not found");
    if (moe_exists(path) == MOE_FILE) { /* the message says what kind of file it is */
        MOE_TRY(moe_foreign_path(path, err));
        return moe_fail_at(err, MOE_NOT_FOUND, path, NULL,
                           "is not a directory, as a model is (a plan goes with verify, export, plot or "
                           "stage: moe-plan verify PLAN)");
    }
    MOE_TRY(moe_dir_is_container(path, &container, err));
    MOE_TRY(moe_list_dir(path, &names, err));
    for (size_t i = 0; i < names.n; i++) {
        size_t n = strlen(names.v[i]);
        weights |= (n > 12 && !strcmp(names.v[i] + n - 12, ".safetensors")) ||
                   !strcmp(names.v[i], "model.safetensors.index.json");
    }
    moe_names_release(&names);
    return container || weights ? moe_source_open(src, path, err) : moe_source_open_config(src, path, err);
}

/* Statistics in which every expert of every MoE layer counts 1. */
static enum moe_code uniform(struct moe_routing **r, const struct moe_config *c, struct moe_err *err)
{
    int32_t n = 0, *layers = calloc((size_t)c->num_hidden_layers + 1, sizeof *layers);
    if (!layers) return moe_fail(err, MOE_NOMEM, "no memory for statistics");
    for (int32_t l = 0; l < (int32_t)c->num_hidden_layers; l++)
        if (moe_layer_is_moe(c, l)) layers[n++] = l;
    enum moe_code code = moe_routing_new(r, (int32_t)c->n_routed_experts, (int32_t)c->num_experts_per_tok, n,
                                         layers, 1, err);
    free(layers);
    for (int64_t i = 0; code == MOE_OK && i < (int64_t)n * c->n_routed_experts; i++) (*r)->counts[i] = 1;
    return code;
}

/* Appends the windows of b to those of *a (NULL: there are none yet); both have the same rows. */
static enum moe_code append(struct moe_routing **a, const struct moe_routing *b, struct moe_err *err)
{
    struct moe_routing *old = *a, *r;
    int64_t size = (int64_t)b->n_layers * b->experts;
    int32_t before = old ? old->n_windows : 0;
    MOE_TRY(moe_routing_new(&r, b->experts, b->experts_per_token, b->n_layers, b->layers,
                            before + b->n_windows, err));
    for (int32_t w = 0; w < before; w++) r->tokens[w] = old->tokens[w];
    for (int32_t w = 0; w < b->n_windows; w++) r->tokens[before + w] = b->tokens[w];
    if (old) memcpy(r->counts, old->counts, (size_t)(before * size) * sizeof *r->counts);
    memcpy(r->counts + before * size, b->counts, (size_t)(b->n_windows * size) * sizeof *r->counts);
    moe_routing_free(a);
    *a = r;
    return MOE_OK;
}

/* Appends the windows of a file to *all (NULL: there are none yet), with one row for each MoE layer. */
static enum moe_code add(struct moe_routing **all, struct moe_routing *r, const struct moe_config *c,
                         const char *file, int32_t max_windows, struct moe_err *err)
{
    struct moe_routing *bound;
    moe_routing_merge(r, max_windows);
    int64_t rounded = r->rounded + (*all ? (*all)->rounded : 0);
    int32_t mtp_rows = *all ? (*all)->mtp_rows : 0;
    MOE_TRY(moe_routing_bind(r, c, file, &bound, err));
    enum moe_code code = append(all, bound, err);
    if (code == MOE_OK) (*all)->rounded = rounded;
    if (code == MOE_OK) (*all)->mtp_rows = mtp_rows > bound->mtp_rows ? mtp_rows : bound->mtp_rows;
    moe_routing_free(&bound);
    return code;
}

static enum moe_code from_container(struct moe_routing **all, const struct moe_source *src,
                                    int32_t max_windows, const struct moe_cancel *cancel,
                                    struct moe_err *err)
{
    static const char name[] = "routing.json";
    struct moe_routing *r;
    char *text;
    size_t n;
    enum moe_code code = src->container ? moe_container_read_file(src, name, &text, &n, err) : MOE_NOT_FOUND;
    if (code == MOE_NOT_FOUND) return MOE_OK;
    MOE_TRY(code);
    code = moe_routing_parse(text, n, name, cancel, &r, err);
    free(text);
    MOE_TRY(code);
    code = add(all, r, &src->config, name, max_windows, err);
    moe_routing_free(&r);
    return code;
}

void moe_plan_doubt_stats(const struct moe_routing *r, struct moe_stats_doubts *d)
{
    *d = (struct moe_stats_doubts){ .rounded = r->rounded, .mtp_rows = r->mtp_rows, .layers = r->n_layers,
                                   .experts = r->experts };
    for (int32_t i = 0; i < r->n_layers; i++) {
        int32_t never = 0;
        for (int32_t e = 0; e < r->experts; e++) {
            bool seen = false;
            for (int32_t w = 0; w < r->n_windows && !seen; w++) seen = moe_routing_row(r, w, i)[e] > 0;
            never += !seen;
        }
        if (never == r->experts) d->empty++;
        else if (never > d->never) d->never = never;
    }
}

enum moe_code moe_plan_gather_stats(struct moe_routing **out, enum moe_stats_origin *origin,
                                    const struct moe_source *src, const char *const *paths, size_t n,
                                    int32_t max_windows, const struct moe_cancel *cancel,
                                    struct moe_err *err)
{
    struct moe_routing *all = NULL, *r;
    enum moe_code code = MOE_OK;
    *out = NULL;
    *origin = n ? MOE_STATS_GIVEN : MOE_STATS_CONTAINER;
    if (!moe_config_moe_layers(&src->config))
        return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL,
                           "has no layer with routed experts to place");
    for (size_t i = 0; code == MOE_OK && i < n; i++) {
        code = moe_routing_read(paths[i], cancel, &r, err);
        if (code != MOE_OK) break;
        code = add(&all, r, &src->config, paths[i], max_windows, err);
        moe_routing_free(&r);
    }
    if (code == MOE_OK && !n) code = from_container(&all, src, max_windows, cancel, err);
    if (code == MOE_OK && !all) {
        *origin = MOE_STATS_NONE;
        code = uniform(&all, &src->config, err);
    }
    if (code == MOE_OK) *out = all;
    else moe_routing_free(&all);
    return code;
}

/* Whether, if rows are numbered from 0, one before the plan's last layer has a count and the plan has no such
 * layer. */
static bool others_count(const struct moe_routing *r, const struct moe_plan *p)
{
    int32_t last = p->layers[p->n_layers - 1].layer;
    for (int32_t row = 0; row < last && row < r->n_layers; row++)
        for (int32_t w = 0; w < r->n_windows && !moe_plan_find(p, row); w++)
            for (int32_t e = 0; e < r->experts; e++)
                if (moe_routing_row(r, w, row)[e]) return true;
    return false;
}

/* Whether rows without numbers are the layers of the plan, perhaps followed by the model's layers for
 * multi-token prediction; if not, they are all layers of the model. */
static bool rows_are_layers(const struct moe_routing *r, const struct moe_plan *p)
{
    if (r->n_layers == p->n_layers) return true;
    return p->n_prediction && r->n_layers == p->n_layers + p->n_prediction && others_count(r, p);
}

/* The row with the counts of layer i of the plan; -1: there is none.  bare: rows_are_layers says so. */
static int32_t row_for(const struct moe_routing *r, const struct moe_plan *p, int32_t i, bool bare)
{
    int32_t layer = p->layers[i].layer, k = 0;
    if (!r->layers) return bare ? i : layer < r->n_layers ? layer : -1;
    while (k < r->n_layers && r->layers[k] < layer) k++;
    return k < r->n_layers && r->layers[k] == layer ? k : -1;
}

/* Appends the windows of r to *all, with one row for each layer of the plan. */
static enum moe_code rows_of_plan(struct moe_routing **all, const struct moe_routing *r,
                                  const struct moe_plan *p, const char *file, struct moe_err *err)
{
    struct moe_routing *b;
    bool bare = !r->layers && rows_are_layers(r, p);
    MOE_TRY(moe_routing_new(&b, p->experts, p->experts_per_token, p->n_layers, NULL, r->n_windows, err));
    enum moe_code code = MOE_OK;
    for (int32_t i = 0; code == MOE_OK && i < p->n_layers; i++) {
        int32_t row = row_for(r, p, i, bare);
        if (row < 0 || r->experts != p->experts)
            code = moe_fail_at(err, MOE_MISMATCH, file, NULL,
                               "has no counts of %d experts for layer %d of the plan", (int)p->experts,
                               (int)p->layers[i].layer);
        for (int32_t w = 0; code == MOE_OK && w < r->n_windows; w++)
            memcpy(moe_routing_row(b, w, i), moe_routing_row(r, w, row),
                   (size_t)p->experts * sizeof *b->counts);
    }
    if (code == MOE_OK) code = append(all, b, err);
    moe_routing_free(&b);
    return code;
}

enum moe_code moe_plan_read_stats(struct moe_routing **out, const struct moe_plan *p,
                                  const char *const *paths, size_t n, int32_t max_windows,
                                  const struct moe_cancel *cancel, struct moe_err *err)
{
    struct moe_routing *r;
    enum moe_code code = MOE_OK;
    *out = NULL;
    for (size_t i = 0; code == MOE_OK && i < n; i++) {
        code = moe_routing_read(paths[i], cancel, &r, err);
        if (code != MOE_OK) break;
        moe_routing_merge(r, max_windows);
        code = rows_of_plan(out, r, p, paths[i], err);
        moe_routing_free(&r);
    }
    if (code != MOE_OK) moe_routing_free(out);
    return code;
}

enum moe_code moe_plan_check_model(const struct moe_plan *p, const struct moe_source *src, const char *file,
                                   const struct moe_cancel *cancel, struct moe_err *err)
{
    struct moe_identity own = { 0 }, origin = moe_source_origin(src, NULL);
    if (!p->model.has_weights || p->model.header_digest != origin.header_digest) return MOE_OK;
    if (src->kind == MOE_CHECKPOINT) {
        MOE_TRY(moe_source_identity(src, cancel, &own, err));
        origin = own;
    }
    if (moe_identity_same(&p->model, &origin)) return MOE_OK;
    return moe_fail_at(err, MOE_MISMATCH, file, NULL,
                       "is a plan for another model than '%.200s', one of the same config with other weights "
                       "(make a plan for this one with moe-plan)",
                       src->path);
}

enum moe_code moe_plan_check_ranks(const struct moe_plan *p, int64_t ranks, const char *file,
                                   struct moe_err *err)
{
    if (!ranks || ranks == p->ranks) return MOE_OK;
    return moe_fail_at(err, MOE_MISMATCH, file, NULL, "the plan does not fit: it has %d rank%s, not %lld",
                       (int)p->ranks, moe_plural(p->ranks), (long long)ranks);
}

/* Finds the model that the plan names.  The name is the path that moe-plan was given, which may be relative
 * to the directory where it ran, and that may have been the plan's. */
static enum moe_code named_model(const char *plan_path, const char *dir, const char *model,
                                 char path[PATH_MAX], struct moe_err *err)
{
    snprintf(path, PATH_MAX, "%s", model);
    if (moe_exists(path) == MOE_ABSENT && *model != '/')
        MOE_TRY(moe_path_join(path, PATH_MAX, dir, model, err));
    if (moe_exists(path) != MOE_ABSENT) return MOE_OK;
    return moe_fail_at(
        err, MOE_NOT_FOUND, plan_path, NULL,
        "is for '%.300s', which is neither there nor beside the plan (say where it is: --model NAME.moe)",
        model);
}

enum moe_code moe_plan_find_model(const struct moe_plan *p, const char *plan_path, const char *given,
                                  char path[PATH_MAX], struct moe_err *err)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(plan_path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - plan_path) : 1, slash ? plan_path : ".");
    bool inside;
    MOE_TRY(moe_manifest_is_ours(dir, &inside, err));
    if (given || inside) snprintf(path, PATH_MAX, "%s", given ? given : dir);
    else if (p->made_for) return named_model(plan_path, dir, p->made_for, path, err);
    else
        return moe_fail_at(err, MOE_USAGE, plan_path, NULL,
                           "does not say for which container it is (give --model NAME.moe)");
    return MOE_OK;
}

static enum moe_code not_ours(const char *path, const char *whose, struct moe_err *err)
{
    return moe_fail_at(err, MOE_UNSUPPORTED, path, NULL,
                       "is a placement of %s, which says nothing of loads: this reads what moe-plan -o wrote "
                       "(--from, stage, export and moe-run --plan read %s's, too)",
                       whose, whose);
}

enum moe_code moe_plan_text_read(struct moe_plan_text *t, const char *path, const struct moe_cancel *cancel,
                                 struct moe_err *err)
{
    *t = (struct moe_plan_text){ .path = moe_stream_name(path) };
    MOE_TRY(moe_read_text(path, MOE_PLAN_TEXT_MAX, cancel, &t->text, &t->bytes, err));
    path = t->path;
    enum moe_code code = MOE_OK;
    if (*t->text != '{' && strstr(t->text, "initial_global_assignments:"))
        code = not_ours(path, "TensorRT-LLM", err);
    if (code == MOE_OK) code = moe_json_parse(t->text, t->bytes, path, &t->root, err);
    if (code == MOE_OK && moe_json_get(t->root, "physical_to_logical_map"))
        code = not_ours(path, "SGLang", err);
    if (code == MOE_OK) code = moe_plan_check_json(t->root, path, err);
    if (code != MOE_OK) moe_plan_text_release(t);
    return code;
}

void moe_plan_text_release(struct moe_plan_text *t)
{
    free(t->text);
    cJSON_Delete(t->root);
    *t = (struct moe_plan_text){ .path = t->path };
}
