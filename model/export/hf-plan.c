/* SPDX-License-Identifier: Apache-2.0 */
/* Which tensors an NVFP4 checkpoint has, and in which file. */
#include "model/export/hf-internal.h"

#include "formats/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const flavors[] = { "modelopt", "compressed-tensors" };

int moe_hf_flavor_find(const char *name)
{
    for (int i = 0; i < 2; i++)
        if (!strcmp(flavors[i], name)) return i;
    return -1;
}

const char *moe_hf_flavor_name(enum moe_hf_flavor flavor) { return flavors[flavor]; }

/* ---- one weight ---- */

bool moe_hf_is_nvfp4(const struct moe_tensor *t)
{
    enum moe_class class = moe_role_class((enum moe_role)t->role);
    return t->type == MOE_NVFP4 && t->rows > 1 && class != MOE_CLASS_MOE && t->role != MOE_ROLE_EMBED &&
           t->role != MOE_ROLE_KV_B;
}

static float factor(const struct moe_tensor *t, float v) { return t->reciprocal ? 1.0f / v : v; }

float moe_hf_multiplier(const struct moe_tensor *t) { return factor(t, t->global); }

/* The input scale as a factor.  A container always stores one; 1.0 is that of a weight without calibration,
 * in both formats. */
static float input_factor(const struct moe_tensor *t)
{
    return t->input_scale > 0 ? factor(t, t->input_scale) : 1.0f;
}

const struct moe_tensor *moe_hf_global_owner(const struct moe_source *src, const struct moe_tensor *t)
{
    const struct moe_tensor *p = moe_source_fused_partner(src, t);
    return p && moe_hf_multiplier(p) > moe_hf_multiplier(t) ? p : t;
}

/* A scale v as `t` stores it (a factor or its reciprocal), converted to the way this flavor stores it; the
 * same bits when the two agree. */
static float spelled(const struct moe_hf_plan *p, const struct moe_tensor *t, float v)
{
    return t->reciprocal == (p->flavor == MOE_HF_COMPRESSED_TENSORS) ? v : 1.0f / v;
}

float moe_hf_global(const struct moe_hf_plan *p, const struct moe_tensor *t)
{
    const struct moe_tensor *owner = moe_hf_global_owner(p->src, t);
    return spelled(p, owner, owner->global);
}

float moe_hf_input_scale(const struct moe_hf_plan *p, const struct moe_tensor *t)
{
    const struct moe_tensor *o = moe_source_fused_partner(p->src, t);
    if (o && input_factor(o) > input_factor(t)) t = o;
    return t->input_scale > 0 ? spelled(p, t, t->input_scale) : 1.0f;
}

/* ---- what engines can read ---- */

static enum moe_code mixed(const struct moe_source *src, const struct moe_tensor *t,
                           const struct moe_tensor *o, const char *what, struct moe_err *err)
{
    char a[128], b[128];
    return moe_fail_at(
        err, MOE_UNSUPPORTED, src->path, moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, a),
        "is %s and '%s' is %s: engines read one type for %s (moe-quantize both or neither)",
        moe_dtype_name(t->type), moe_tensor_name((enum moe_role)o->role, o->layer, o->expert, b),
        moe_dtype_name(o->type), what);
}

/* Engines fuse gate with up, q_a with kv_a, and all experts of a layer.  MOE_UNSUPPORTED when only some of
 * what they fuse is NVFP4. */
static enum moe_code check_fused(const struct moe_source *src, struct moe_err *err)
{
    const struct moe_tensor *first = NULL; /* the first expert weight of this layer */
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i], *o = moe_source_fused_partner(src, t);
        if (o && moe_hf_is_nvfp4(t) && !moe_hf_is_nvfp4(o)) return mixed(src, t, o, "the two", err);
        if (t->expert < 0) continue;
        if (!first || first->layer != t->layer) first = t;
        if (moe_hf_is_nvfp4(t) != moe_hf_is_nvfp4(first))
            return mixed(src, t, first, "all experts of a layer", err);
    }
    return MOE_OK;
}

/* Whether t is quantized again under its partner's global scale. */
static bool reencoded(const struct moe_source *src, const struct moe_tensor *t)
{
    return moe_hf_multiplier(moe_hf_global_owner(src, t)) != moe_hf_multiplier(t);
}

static void count(const struct moe_source *src, struct moe_hf_result *r)
{
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        if (moe_hf_is_nvfp4(t)) {
            r->nvfp4++;
            r->uncalibrated += input_factor(t) == 1.0f;
            r->reencoded += reencoded(src, t);
        } else if (!moe_dtype_plain(t->type)) {
            struct moe_hf_decoded *d = t->role == MOE_ROLE_KV_B ? &r->kv_b : &r->decoded;
            if (d->n++) continue;
            moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, d->first);
            d->type = moe_dtype_name(t->type);
        }
    }
}

/* ---- the tensors of the checkpoint, in files ---- */

const char *moe_hf_module_name(const struct moe_tensor *t, char out[128])
{
    char *dot = strrchr(moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, out), '.');
    if (dot) *dot = 0;
    return out;
}

const char *moe_hf_entry_name(const struct moe_hf_plan *p, const struct moe_hf_entry *e, char out[160])
{
    static const enum moe_part parts[2][4] = {
        { MOE_PART_WEIGHT, MOE_PART_SCALE, MOE_PART_SCALE_2, MOE_PART_INPUT_SCALE },
        { MOE_PART_PACKED, MOE_PART_SCALE, MOE_PART_GLOBAL_SCALE, MOE_PART_INPUT_GLOBAL_SCALE } };
    const struct moe_tensor *t = &p->src->tensors[e->tensor];
    char module[128];
    if (e->part < MOE_HF_CODES) return moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, out);
    snprintf(out, 160, "%s.%s", moe_hf_module_name(t, module),
             moe_part_name(parts[p->flavor][e->part - MOE_HF_CODES]));
    return out;
}

uint64_t moe_hf_entry_bytes(const struct moe_hf_plan *p, const struct moe_hf_entry *e)
{
    const struct moe_tensor *t = &p->src->tensors[e->tensor];
    uint64_t n = (uint64_t)t->rows * (uint64_t)t->cols;
    switch ((enum moe_hf_part)e->part) {
    case MOE_HF_PLAIN: return t->plane[MOE_PLANE_DATA].bytes;
    case MOE_HF_DECODED: return 2 * n;
    case MOE_HF_CODES: return n / 2;
    case MOE_HF_SCALES: return n / 16;
    default: return 4;
    }
}

const char *moe_hf_shard_name(const struct moe_hf_plan *p, int64_t shard, char out[MOE_ST_NAME_BYTES])
{
    return moe_st_shard_name(shard, p->n_shards, out);
}

static void add(struct moe_hf_plan *p, int64_t i, enum moe_hf_part part)
{
    p->entries[p->n++] = (struct moe_hf_entry){ .tensor = (int32_t)i, .part = (uint8_t)part };
}

/* Adds the entries of a weight; they stay in one file. */
static void add_weight(struct moe_hf_plan *p, int64_t i, uint64_t limit)
{
    const struct moe_tensor *t = &p->src->tensors[i];
    int64_t first = p->n;
    uint64_t bytes = 0;

    if (moe_hf_is_nvfp4(t)) {
        for (int part = MOE_HF_CODES; part <= MOE_HF_GLOBAL; part++) add(p, i, (enum moe_hf_part)part);
        if (!p->weight_only) add(p, i, MOE_HF_INPUT);
    } else {
        add(p, i, moe_dtype_plain(t->type) ? MOE_HF_PLAIN : MOE_HF_DECODED);
    }
    for (int64_t k = first; k < p->n; k++) bytes += moe_hf_entry_bytes(p, &p->entries[k]);
    struct moe_hf_shard *s = p->n_shards ? &p->shards[p->n_shards - 1] : NULL;
    if (!s || s->bytes + bytes > limit) {
        s = &p->shards[p->n_shards++];
        *s = (struct moe_hf_shard){ .first = first };
    }
    s->n += p->n - first;
    s->bytes += bytes;
    p->bytes += bytes;
}

/* Adds all weights in the order in which transformers saves a model: embedding, layers, last norm, head. */
static void add_all(struct moe_hf_plan *p, uint64_t limit)
{
    const struct moe_source *src = p->src;
    for (int pass = 0; pass < 3; pass++)
        for (int64_t i = 0; i < src->n_tensors; i++) {
            const struct moe_tensor *t = &src->tensors[i];
            int when = t->layer >= 0 ? 1 : t->role == MOE_ROLE_EMBED ? 0 : 2;
            if (when == pass) add_weight(p, i, limit);
        }
}

/* Sets r->partly_excluded and r->first_partly_excluded, in the flavor modelopt alone. */
static enum moe_code find_partly_excluded(const struct moe_hf_plan *p, struct moe_hf_result *r,
                                          struct moe_err *err)
{
    cJSON *ignore;
    if (p->flavor != MOE_HF_MODELOPT) return MOE_OK;
    MOE_TRY(moe_hf_ignore(p, &ignore, err));
    r->partly_excluded = moe_hf_find_partly_excluded(p, ignore, r->first_partly_excluded);
    cJSON_Delete(ignore);
    return MOE_OK;
}

enum moe_code moe_hf_plan_open(struct moe_hf_plan *p, const struct moe_source *src,
                               const struct moe_hf_options *o, struct moe_hf_result *r, struct moe_err *err)
{
    *p = (struct moe_hf_plan){ .src = src, .flavor = o->flavor, .shard_bytes = o->shard_bytes,
                                .cancel = o->cancel };
    count(src, r);
    if (!r->nvfp4)
        return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL,
                           "has no NVFP4 weights (quantize it in the same pass: moe-quantize %s --to "
                           "hf-nvfp4 -o DIR)", src->path);
    MOE_TRY(check_fused(src, err));
    p->weight_only = r->uncalibrated == r->nvfp4;
    r->weight_only = p->weight_only;
    p->entries = malloc((size_t)(src->n_tensors * 4) * sizeof *p->entries);
    p->shards = malloc((size_t)src->n_tensors * sizeof *p->shards);
    if (!p->entries || !p->shards) {
        moe_hf_plan_release(p);
        return moe_fail(err, MOE_NOMEM, "no memory for a plan of %lld tensors", (long long)src->n_tensors);
    }
    add_all(p, o->shard_bytes);
    r->tensors = p->n;
    r->files = p->n_shards;
    r->output_bytes = p->bytes;
    enum moe_code code = find_partly_excluded(p, r, err);
    if (code != MOE_OK) moe_hf_plan_release(p);
    return code;
}

void moe_hf_plan_release(struct moe_hf_plan *p)
{
    free(p->entries);
    free(p->shards);
    *p = (struct moe_hf_plan){ 0 };
}
