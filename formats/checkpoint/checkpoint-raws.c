/* SPDX-License-Identifier: Apache-2.0 */
#include "base/grow.h"
#include "formats/checkpoint/checkpoint.h"
#include "formats/checkpoint/fused.h"
#include "formats/checkpoint/safetensors.h"

#include <limits.h>
#include <string.h>

static enum moe_code no_memory(const struct moe_checkpoint *k, struct moe_err *err)
{
    return moe_fail_at(err, MOE_NOMEM, k->src->path, NULL, "no memory for its list of tensors");
}

static enum moe_code grow_raws(struct moe_checkpoint *k, int64_t more, struct moe_err *err)
{
    struct moe_source *src = k->src;
    if (src->n_raws + more > INT32_MAX - 1)
        return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL, "too many tensors");
    return MOE_GROW(src->raws, k->raw_cap, (size_t)(src->n_raws + more)) ? MOE_OK : no_memory(k, err);
}

/* Compare a tensor of this file with the index: returns MOE_SUPERSEDED when the index names another file for
 * it, else NULL. */
static const char *held_against_index(struct moe_checkpoint *k, int32_t file, const char *name)
{
    const char *tail;
    if (!k->has_index) return NULL;
    int64_t i = moe_strmap_get(&k->map, name, strlen(name));
    if (i >= 0) {
        k->seen[i] |= k->file_of[i] == file ? MOE_SEEN : MOE_SEEN_ELSEWHERE;
        return k->file_of[i] == file ? NULL : MOE_SUPERSEDED;
    }
    /* a tensor that the reader skips, or refuses for its name, need not be in the index */
    bool beyond = moe_name_layer(name, &tail) >= k->src->config.num_hidden_layers;
    if (!beyond && !moe_name_skip_reason(&k->src->config, name))
        moe_problem_add(k->p, MOE_CORRUPT, k->src->files[file].path, name, "the index does not name it");
    return NULL;
}

static enum moe_code add_raw(struct moe_checkpoint *k, int32_t file, const struct moe_st_entry *e,
                             const char *skipped, struct moe_err *err)
{
    MOE_TRY(grow_raws(k, 1, err));
    struct moe_raw *r = &k->src->raws[k->src->n_raws++];
    *r = (struct moe_raw){ .name = e->name, .ndim = e->ndim, .span = { file, e->offset, e->bytes },
                           .tensor = -1, .plane = -1, .skipped = skipped };
    memcpy(r->dtype, e->dtype, strlen(e->dtype) + 1);
    memcpy(r->shape, e->shape, sizeof r->shape);
    return MOE_OK;
}

/* ---- experts fused into one tensor ---- */

static enum moe_code add_slices(struct moe_checkpoint *k, int32_t file, const struct moe_st_entry *e,
                                const struct moe_fused *f,
                                const char *skipped, struct moe_err *err)
{
    MOE_TRY(grow_raws(k, f->slices, err));
    for (int64_t i = 0; i < f->slices; i++) {
        char name[MOE_FUSED_NAME];
        struct moe_st_entry slice;
        moe_fused_slice(f, e, i, name, &slice);
        slice.name = moe_arena_alloc(&k->src->index->arena, strlen(name) + 1);
        if (!slice.name) return no_memory(k, err);
        memcpy((char *)(uintptr_t)slice.name, name, strlen(name) + 1);
        MOE_TRY(add_raw(k, file, &slice, skipped, err));
        k->src->raws[k->src->n_raws - 1].fused = true;
    }
    return MOE_OK;
}

/* The experts in a fused tensor that cannot be read are not reported missing, too. */
static void suppress_slices(struct moe_checkpoint *k, const struct moe_fused *f)
{
    int first = f->down ? MOE_ROLE_EXPERT_DOWN : MOE_ROLE_EXPERT_GATE;
    int last = f->down ? MOE_ROLE_EXPERT_DOWN : MOE_ROLE_EXPERT_UP;
    for (int e = 0; e < k->src->config.n_routed_experts; e++)
        for (int role = first; role <= last; role++)
            moe_checkpoint_suppress_missing(k,
                                            moe_source_slot(&k->src->config, (enum moe_role)role, f->layer,
                                                            e));
}

static enum moe_code add_entry(struct moe_checkpoint *k, int32_t file, const struct moe_st_entry *e,
                               struct moe_err *err)
{
    const char *skipped = held_against_index(k, file, e->name);
    struct moe_fused f;
    struct moe_err why;
    bool fused;
    if (moe_fused_parse(&k->src->config, e, &fused, &f, &why) != MOE_OK && !skipped) {
        moe_problem_add(k->p, why.code, k->src->files[file].path, e->name, "%s", why.msg);
        suppress_slices(k, &f);
        skipped = "fused experts";
    }
    return fused ? add_slices(k, file, e, &f, skipped, err) : add_raw(k, file, e, skipped, err);
}

enum moe_code moe_checkpoint_add_raws(struct moe_checkpoint *k, int32_t file, const struct moe_st_header *h,
                                      struct moe_err *err)
{
    MOE_TRY(grow_raws(k, h->n, err));
    for (int64_t i = 0; i < h->n; i++) MOE_TRY(add_entry(k, file, &h->entries[i], err));
    return MOE_OK;
}

/* ---- all tensors together ---- */

/* Some programs write the layers for multi-token prediction but leave num_nextn_predict_layers out or 0.
 * Such layers come directly after the last one, and each has the projection that no other layer has. */
static void find_prediction_layers(struct moe_checkpoint *k)
{
    enum { MOST = 64 };
    bool found[MOST + 1] = { false };
    int64_t n = 0;
    struct moe_config *c = &k->src->config;
    for (int64_t i = 0; i < k->src->n_raws; i++) {
        const char *tail = "";
        int64_t beyond = moe_name_layer(k->src->raws[i].name, &tail) - c->num_hidden_layers;
        if (beyond >= 0 && beyond < MOST && !strcmp(tail, "eh_proj.weight")) found[beyond] = true;
    }
    while (found[n]) n++;
    if (n > c->num_nextn_predict_layers) c->num_nextn_predict_layers = n;
}

/* Tensors that are not used may not be there twice either, unless an index says which copy counts: `--to
 * hf` could not tell the copies apart.  (Tensors that are used are checked when they are put into their
 * slots.) */
static enum moe_code find_skipped_twice(struct moe_checkpoint *k, struct moe_err *err)
{
    const struct moe_source *src = k->src;
    struct moe_strmap seen = { 0 };
    enum moe_code code = MOE_OK;
    if (k->has_index || src->n_files <= 1) return MOE_OK;
    for (int64_t i = 0; code == MOE_OK && i < src->n_raws; i++) {
        const struct moe_raw *r = &src->raws[i];
        int64_t other;
        if (!moe_name_skip_reason(&src->config, r->name)) continue;
        int added = moe_strmap_add(&seen, r->name, strlen(r->name), i, &other);
        if (added < 0) code = no_memory(k, err);
        if (!added)
            moe_problem_add(k->p, MOE_CORRUPT, src->files[r->span.file].path, r->name, MOE_TWICE,
                            src->files[src->raws[other].span.file].name);
    }
    moe_strmap_release(&seen);
    return code;
}

static void find_unheld(struct moe_checkpoint *k)
{
    for (int64_t i = 0; i < k->n_index; i++) {
        struct moe_name n;
        if (k->seen[i] & MOE_SEEN) continue;
        moe_problem_add(k->p, MOE_CORRUPT, k->src->files[k->file_of[i]].path, k->names[i],
                        "the index says that it is in this file, which does not hold it%s",
                        k->seen[i] ? ", while another file does (is the index another upload's? fetch it "
                                     "again, or remove it)" : "");
        if (moe_name_parse(k->names[i], &n))
            moe_checkpoint_suppress_missing(k, moe_source_slot(&k->src->config, n.role, n.layer, n.expert));
    }
}

enum moe_code moe_checkpoint_check_raws(struct moe_checkpoint *k, struct moe_err *err)
{
    find_prediction_layers(k);
    find_unheld(k);
    return find_skipped_twice(k, err);
}
