/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan.h"

#include "base/show.h"
#include "formats/container/staged.h"

#include <stdlib.h>
#include <string.h>

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for a placement plan");
}

void moe_plan_free(struct moe_plan **p)
{
    if (!*p) return;
    moe_arena_clear(&(*p)->arena);
    free(*p);
    *p = NULL;
}

static bool layer_new(struct moe_plan *p, struct moe_plan_layer *l, int32_t number, int32_t slots)
{
    struct moe_arena *a = &p->arena;
    *l = (struct moe_plan_layer){ .layer = number, .slots = slots };
    l->first = MOE_NEWN(a, int32_t, p->ranks + 1);
    l->slot = MOE_NEWN(a, int32_t, slots);
    l->copy_first = MOE_NEWN(a, int32_t, p->experts + 1);
    l->copy_rank = MOE_NEWN(a, int32_t, slots);
    l->copy_slot = MOE_NEWN(a, int32_t, slots);
    if (!l->first || !l->slot || !l->copy_first || !l->copy_rank || !l->copy_slot) return false;
    for (int32_t r = 0; r < p->ranks; r++)
        l->first[r + 1] = l->first[r] + slots / p->ranks + (r < slots % p->ranks);
    return true;
}

enum moe_code moe_plan_new(struct moe_plan **out, int32_t ranks, int32_t experts, int32_t n_layers,
                           const int32_t *layers, int32_t slots, struct moe_err *err)
{
    struct moe_plan *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p) return no_memory(err);
    *p = (struct moe_plan){ .ranks = ranks, .experts = experts, .n_layers = n_layers };
    p->layers = MOE_NEWN(&p->arena, struct moe_plan_layer, n_layers);
    bool ok = p->layers;
    for (int32_t i = 0; ok && i < n_layers; i++) ok = layer_new(p, &p->layers[i], layers[i], slots);
    if (!ok) {
        moe_plan_free(&p);
        return no_memory(err);
    }
    *out = p;
    return MOE_OK;
}

/* ---- copies ---- */

static enum moe_code bad_expert(const char *file, int32_t layer, int32_t rank, int32_t e, const char *what,
                                struct moe_err *err)
{
    return moe_fail_at(err, MOE_CORRUPT, file, NULL, "layer %d: rank %d: expert %d %s", (int)layer, (int)rank,
                       (int)e, what);
}

/* Slots are visited by ascending rank, so the copies of each expert are in that order, too. */
static enum moe_code index_layer(const struct moe_plan *p, struct moe_plan_layer *l, const char *file,
                                 struct moe_err *err)
{
    int32_t *at = l->copy_first;
    memset(at, 0, ((size_t)p->experts + 1) * sizeof *at);
    for (int32_t r = 0; r < p->ranks; r++)
        for (int32_t k = l->first[r]; k < l->first[r + 1]; k++) {
            if (l->slot[k] < 0 || l->slot[k] >= p->experts)
                return bad_expert(file, l->layer, r, l->slot[k], "is none of the model's", err);
            at[l->slot[k] + 1]++;
        }
    for (int32_t e = 0; e < p->experts; e++) {
        if (!at[e + 1])
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "layer %d: expert %d is on no rank",
                               (int)l->layer, (int)e);
        at[e + 1] += at[e];
    }
    for (int32_t r = 0; r < p->ranks; r++)
        for (int32_t k = l->first[r]; k < l->first[r + 1]; k++) {
            int32_t e = l->slot[k], c = at[e]++;
            l->copy_rank[c] = r;
            l->copy_slot[c] = k;
        }
    for (int32_t e = p->experts; e > 0; e--) at[e] = at[e - 1];
    at[0] = 0;
    for (int32_t e = 0; e < p->experts; e++)
        for (int32_t c = at[e] + 1; c < at[e + 1]; c++)
            if (l->copy_rank[c] == l->copy_rank[c - 1])
                return bad_expert(file, l->layer, l->copy_rank[c], e, "is there twice", err);
    return MOE_OK;
}

enum moe_code moe_plan_index(struct moe_plan *p, const char *file, struct moe_err *err)
{
    for (int32_t i = 0; i < p->n_layers; i++) MOE_TRY(index_layer(p, &p->layers[i], file, err));
    return MOE_OK;
}

bool moe_plan_holds(const struct moe_plan_layer *l, int32_t rank, int32_t e)
{
    int32_t lo = l->copy_first[e], end = l->copy_first[e + 1], hi = end;
    while (lo < hi) {
        int32_t mid = lo + (hi - lo) / 2;
        if (l->copy_rank[mid] < rank) lo = mid + 1;
        else hi = mid;
    }
    return lo < end && l->copy_rank[lo] == rank;
}

int32_t moe_plan_copies(const struct moe_plan_layer *l, int32_t e, const bool *dead)
{
    int32_t n = 0;
    for (int32_t c = l->copy_first[e]; c < l->copy_first[e + 1]; c++) n += !dead || !dead[l->copy_rank[c]];
    return n;
}

int32_t moe_plan_lost(const struct moe_plan *p, const struct moe_plan_layer *l, const bool *dead,
                      int32_t *out, int32_t cap)
{
    int32_t n = 0;
    for (int32_t e = 0; e < p->experts; e++) {
        if (moe_plan_copies(l, e, dead)) continue;
        if (out && n < cap) out[n] = e;
        n++;
    }
    return n;
}

struct moe_hash128 moe_plan_digest(const struct moe_plan *p)
{
    struct moe_hash128 all = { 0 };
    for (int32_t i = 0; p && i < p->n_layers; i++) {
        const struct moe_plan_layer *l = &p->layers[i];
        const struct moe_hash128 parts[] = { all,
                                             moe_hash128(l->first, (size_t)(p->ranks + 1) * sizeof *l->first),
                                             moe_hash128(l->slot, (size_t)l->slots * sizeof *l->slot) };
        all = moe_hash128(parts, sizeof parts);
    }
    return all;
}

const struct moe_plan_layer *moe_plan_find(const struct moe_plan *p, int32_t layer)
{
    int32_t lo = 0, hi = p->n_layers;
    while (lo < hi) {
        int32_t mid = lo + (hi - lo) / 2;
        if (p->layers[mid].layer < layer) lo = mid + 1;
        else hi = mid;
    }
    return lo < p->n_layers && p->layers[lo].layer == layer ? &p->layers[lo] : NULL;
}

/* ---- for one model ---- */

/* How many MoE layers the model has; their numbers are stored in out (may be NULL). */
static int32_t moe_layers(const struct moe_config *c, int32_t *out)
{
    int32_t n = 0;
    for (int32_t l = 0; l < (int32_t)c->num_hidden_layers; l++)
        if (moe_layer_is_moe(c, l)) {
            if (out) out[n] = l;
            n++;
        }
    return n;
}

enum moe_code moe_plan_trivial(struct moe_plan **p, const struct moe_config *c, int32_t ranks,
                               struct moe_err *err)
{
    int32_t n = moe_layers(c, NULL), experts = (int32_t)c->n_routed_experts,
            *layers = calloc((size_t)n + 1, sizeof *layers);
    *p = NULL;
    if (!layers) return no_memory(err);
    moe_layers(c, layers);
    enum moe_code code = moe_plan_new(p, ranks, experts, n, layers, experts, err);
    free(layers);
    MOE_TRY(code);
    (*p)->experts_per_token = (int32_t)c->num_experts_per_tok;
    for (int32_t i = 0; i < n; i++) {
        struct moe_plan_layer *l = &(*p)->layers[i];
        for (int32_t e = 0; e < experts; e++) l->slot[e] = e;
        for (int32_t r = 0; r < ranks; r++)
            l->first[r + 1] = (int32_t)(((int64_t)(r + 1) * experts + ranks - 1) / ranks);
    }
    code = moe_plan_index(*p, "trivial plan", err);
    if (code != MOE_OK) moe_plan_free(p);
    return code;
}

static enum moe_code other(const char *file, const char *what, const char *each, long long has,
                           long long wants, struct moe_err *err)
{
    return moe_fail_at(err, MOE_MISMATCH, file, NULL, "the plan does not fit: it has %lld %s%s%s, not %lld",
                       has, what, moe_plural(has), each, wants);
}

/* Removes the rows of dense layers, which have no meaning: SGLang's file has a row for each layer. */
static void drop_dense(struct moe_plan *p, const struct moe_config *c)
{
    int32_t n = 0;
    for (int32_t i = 0; i < p->n_layers; i++) {
        bool dense = p->layers[i].layer < c->num_hidden_layers && !moe_layer_is_moe(c, p->layers[i].layer);
        if (!dense) p->layers[n++] = p->layers[i];
    }
    p->n_layers = n;
}

enum moe_code moe_plan_bind(struct moe_plan *p, const struct moe_config *c, int32_t ranks, const char *file,
                            struct moe_err *err)
{
    int32_t n = moe_layers(c, NULL);
    if (p->foreign) drop_dense(p, c);
    if (ranks && p->ranks != ranks) return other(file, "rank", "", p->ranks, ranks, err);
    if (p->experts != c->n_routed_experts)
        return other(file, "expert", " a layer", p->experts, c->n_routed_experts, err);
    if (p->experts_per_token && p->experts_per_token != c->num_experts_per_tok)
        return other(file, "expert", " a token", p->experts_per_token, c->num_experts_per_tok, err);
    int32_t has = p->n_layers, end = (int32_t)(c->num_hidden_layers + c->num_nextn_predict_layers);
    /* an export has rows of layers for multi-token prediction, too */
    while (has && p->layers[has - 1].layer >= c->num_hidden_layers && p->layers[has - 1].layer < end) has--;
    if (has != n) return other(file, "layer", " with experts", has, n, err);
    for (int32_t l = 0; l < (int32_t)c->num_hidden_layers; l++)
        if (moe_layer_is_moe(c, l) && !moe_plan_find(p, l))
            return moe_fail_at(err, MOE_MISMATCH, file, NULL,
                               "the plan does not fit: it has no layer %d", (int)l);
    return MOE_OK;
}

enum moe_code moe_plan_check_staged(const struct moe_plan *p, int32_t first, int32_t last,
                                    const struct moe_source *src, struct moe_err *err)
{
    if (!src->staged) return MOE_OK;
    for (int32_t i = 0; i < p->n_layers; i++) {
        const struct moe_plan_layer *l = &p->layers[i];
        for (int32_t r = first; r <= last; r++)
            for (int32_t k = l->first[r]; k < l->first[r + 1]; k++)
                if (!moe_source_has_expert(src, l->layer, l->slot[k]))
                    return moe_staged_fail_absent(src, l->layer, l->slot[k], (int)r, err);
    }
    return MOE_OK;
}
