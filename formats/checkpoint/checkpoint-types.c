/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint/checkpoint-types.c - makes canonical tensors, with their planes, of a checkpoint's
 * tensors. */
#include "formats/checkpoint/checkpoint.h"

#include "base/show.h"
#include "formats/checkpoint/foreign.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Report two tensors of one name.  For a checkpoint that has the experts both fused and single, this is
 * reported once and not for each of them. */
static void report_twice(struct moe_checkpoint *k, const struct moe_raw *r, const struct moe_raw *other)
{
    const struct moe_file *files = k->src->files;
    const char *path = files[r->span.file].path, *name = files[other->span.file].name;
    if (r->fused == other->fused) {
        moe_problem_add(k->p, MOE_CORRUPT, path, r->name,
                        k->has_index ? "is in '%s' already" : MOE_TWICE, name);
        return;
    }
    if (k->both_reported) return;
    k->both_reported = true;
    const struct moe_raw *single = r->fused ? other : r, *fused = r->fused ? r : other;
    moe_problem_add(k->p, MOE_CORRUPT, path, r->name,
                    "is there twice, as a tensor of its own (in '%s') and in the one of all experts of its "
                    "layer (%s, in '%s'): remove either the single experts or the fused ones",
                    files[single->span.file].name,
                    strstr(r->name, "down_proj") ? "down_proj" : "gate_up_proj",
                    files[fused->span.file].name);
}

/* ---- by name: which raw tensor is which component of which slot's tensor ---- */

/* Put a raw tensor into its slot, or note why it is skipped, or report what is wrong with it. */
static void place_raw(struct moe_checkpoint *k, int64_t raw)
{
    struct moe_source *src = k->src;
    struct moe_raw *r = &src->raws[raw];
    struct moe_name n;
    const char *path = src->files[r->span.file].path, *skipped = moe_name_skip_reason(&src->config, r->name);
    const char *tail;
    int64_t rows, cols;
    if (r->skipped) return; /* superseded, or its problem was reported */
    if (skipped && strcmp(skipped, "weight_shape")) {
        r->skipped = skipped;
        return;
    }
    bool known = moe_name_parse(r->name, &n);
    int64_t slot = known ? moe_source_slot(&src->config, n.role, n.layer, n.expert) : -1;
    if (moe_name_layer(r->name, &tail) >= src->config.num_hidden_layers) {
        moe_problem_add(k->p, MOE_CORRUPT, path, r->name,
                        "lies beyond the last layer: config.json has num_hidden_layers %lld and "
                        "num_nextn_predict_layers %lld (of a model with layers for multi-token prediction "
                        "the second is 1 or more)",
                        (long long)src->config.num_hidden_layers,
                        (long long)src->config.num_nextn_predict_layers);
        return;
    }
    const char *foreign = known ? NULL : moe_foreign_tensor(r->name);
    if (foreign) {
        moe_problem_add(k->p, MOE_UNSUPPORTED, path, r->name, "%s", foreign);
        return;
    }
    if (slot < 0 || !moe_tensor_shape(&src->config, n.role, n.layer, &rows, &cols)) {
        moe_problem_add(k->p, MOE_CORRUPT, path, r->name,
                        known ? "the config calls for no such tensor" : "is no tensor of this architecture");
        return;
    }
    int32_t *part = &k->parts[slot * MOE_PART_COUNT + n.part];
    if (*part) report_twice(k, r, &src->raws[*part - 1]);
    else *part = (int32_t)raw + 1;
    r->skipped = skipped;
}

/* ---- one canonical tensor from its components ---- */

/* The tensor t of a slot while it is made. */
struct maker {
    struct moe_checkpoint *k;
    const int32_t *parts;       /* the slot's row of k->parts */
    int64_t slot;
    struct moe_tensor *t;
    const struct moe_raw *data; /* the raw tensor with its values or codes */
};

static const struct moe_raw *find_part(const struct maker *m, enum moe_part p)
{
    return m->parts[p] ? &m->k->src->raws[m->parts[p] - 1] : NULL;
}

static bool has_dtype(const struct moe_raw *r, const char *dtype) { return !strcmp(r->dtype, dtype); }

/* Report a problem with the raw tensor r; false, so that a caller can return it. */
#define WRONG(m, code, r, ...) \
    (moe_problem_add((m)->k->p, (code), (m)->k->src->files[(r)->span.file].path, (r)->name, __VA_ARGS__), \
     false)

static bool require_dtype(const struct maker *m, const struct moe_raw *r, const char *dtype)
{
    return has_dtype(r, dtype) ||
           WRONG(m, MOE_UNSUPPORTED, r, "has dtype %s, which is not supported here (%s is)", r->dtype, dtype);
}

static bool require_matrix(const struct maker *m, const struct moe_raw *r, int64_t rows, int64_t cols)
{
    if (r->ndim == 2 && r->shape[0] == rows && r->shape[1] == cols) return true;
    if (r->ndim != 2)
        return WRONG(m, MOE_CORRUPT, r, "has %d dimension%s, not 2", r->ndim, moe_plural(r->ndim));
    return WRONG(m, MOE_CORRUPT, r, "has shape %lld x %lld, its weight wants %lld x %lld",
                 (long long)r->shape[0], (long long)r->shape[1], (long long)rows, (long long)cols);
}

static void set_plane(const struct maker *m, const struct moe_raw *r, int plane)
{
    m->t->plane[plane] = r->span;
}

/* Find a component that must be there; nothing is reported when its absence was reported already. */
static const struct moe_raw *require_part(const struct maker *m, enum moe_part p)
{
    const struct moe_raw *r = find_part(m, p);
    if (!r && !moe_checkpoint_missing_suppressed(m->k, m->slot))
        (void)WRONG(m, MOE_CORRUPT, m->data, "its '%s' is missing", moe_part_name(p));
    return r;
}

/* A component outside of the set `mask` means that two layouts are mixed in one tensor. */
static bool require_only(const struct maker *m, unsigned mask)
{
    for (int p = 0; p < MOE_PART_COUNT; p++)
        if (m->parts[p] && !(mask >> p & 1))
            return WRONG(m, MOE_CORRUPT, find_part(m, (enum moe_part)p),
                         "does not go with '%s' of dtype %s (mixed layouts)", m->data->name, m->data->dtype);
    return true;
}

/* Make the component p, which must have this dtype and shape, the plane of block scales. */
static bool take_scale(const struct maker *m, enum moe_part p, const char *dtype, int64_t rows, int64_t cols)
{
    const struct moe_raw *r = require_part(m, p);
    if (!r || !require_dtype(m, r, dtype) || !require_matrix(m, r, rows, cols)) return false;
    set_plane(m, r, MOE_PLANE_SCALE);
    return true;
}

/* Make r, one F32 whose shape may be written [] or [1], a plane of the tensor. */
static bool take_scalar(const struct maker *m, const struct moe_raw *r, int plane)
{
    if (!require_dtype(m, r, "F32")) return false;
    if (r->span.bytes != 4) return WRONG(m, MOE_CORRUPT, r, "is no single value");
    set_plane(m, r, plane);
    return true;
}

static bool make_plain(struct maker *m)
{
    m->t->type = has_dtype(m->data, "F32") ? MOE_F32 : has_dtype(m->data, "F16") ? MOE_F16 : MOE_BF16;
    set_plane(m, m->data, MOE_PLANE_DATA);
    return require_only(m, 1u << MOE_PART_WEIGHT);
}

/* The type of scales that are stored with this dtype. */
static enum moe_scale_type scale_type(const struct moe_raw *r)
{
    return has_dtype(r, "F32")     ? MOE_SCALE_F32
         : has_dtype(r, "BF16")    ? MOE_SCALE_BF16
         : has_dtype(r, "F16")     ? MOE_SCALE_F16
         : has_dtype(r, "F8_E8M0") ? MOE_SCALE_E8M0
                                   : MOE_SCALE_NONE;
}

/* FP8 as DeepSeek stores it (weight_scale_inv) or compressed-tensors' FP8_BLOCK (weight_scale); in both the
 * codes are multiplied by the scales. */
static bool make_fp8(struct maker *m)
{
    struct moe_tensor *t = m->t;
    bool plain = find_part(m, MOE_PART_SCALE) && !find_part(m, MOE_PART_SCALE_INV);
    enum moe_part p = plain ? MOE_PART_SCALE : MOE_PART_SCALE_INV;
    int64_t rows = (t->rows + 127) / 128, cols = (t->cols + 127) / 128;
    t->type = MOE_FP8_B128;
    set_plane(m, m->data, MOE_PLANE_DATA);
    if (!require_only(m, 1u << MOE_PART_WEIGHT | 1u << p)) return false;
    const struct moe_raw *s = require_part(m, p);
    if (!s) return false;
    int64_t values = 1;
    for (int i = 0; i < s->ndim; i++) values *= s->shape[i];
    bool blocks = s->ndim == 2 && values == rows * cols;
    if (!blocks && s->ndim < 3 && (values == 1 || values == t->rows))
        return WRONG(m, MOE_UNSUPPORTED, s,
                     "fp8 with one scale for %s is not supported (one for each block of 128x128 is)",
                     values == 1 ? "the whole weight" : "each row");
    int type = moe_dtype_with(MOE_FP8_B128, 128, scale_type(s));
    if (type < 0)
        return WRONG(m, MOE_UNSUPPORTED, s,
                     "has dtype %s, which is not supported here (F32, BF16 and F8_E8M0 are)", s->dtype);
    t->type = (uint8_t)type;
    return take_scale(m, p, s->dtype, rows, cols);
}

/* INT4: the group size follows from the shape of the scales.  One scale in a row belongs to the whole row,
 * unless the row is just one group. */
static bool make_int4(struct maker *m)
{
    struct moe_tensor *t = m->t;
    int64_t group = 32;
    t->type = MOE_INT4_G32;
    t->cols *= 8;
    set_plane(m, m->data, MOE_PLANE_DATA);
    if (!require_only(m, 1u << MOE_PART_PACKED | 1u << MOE_PART_SCALE | 1u << MOE_PART_SHAPE)) return false;
    if (t->cols % 32)
        return WRONG(m, MOE_UNSUPPORTED, m->data, "%lld column%s no multiple of 32", (long long)t->cols,
                     t->cols == 1 ? " is" : "s are");
    const struct moe_raw *s = require_part(m, MOE_PART_SCALE);
    if (!s) return false;
    if (s->ndim == 2 && s->shape[0] == t->rows && s->shape[1] > 0 && t->cols % s->shape[1] == 0)
        group = t->cols / s->shape[1];
    if (moe_dtype_with(MOE_INT4_G32, group, MOE_SCALE_BF16) < 0 && group != t->cols)
        return WRONG(m, MOE_UNSUPPORTED, s,
                     "int4 in groups of %lld is not supported (32, 64, 128 and whole rows are)",
                     (long long)group);
    if (moe_dtype_with(MOE_INT4_G32, group, MOE_SCALE_BF16) < 0) group = 0;
    int type = moe_dtype_with(MOE_INT4_G32, group, scale_type(s));
    if (type < 0)
        return WRONG(m, MOE_UNSUPPORTED, s, "has dtype %s, which is not supported here (BF16 and F16 are)",
                     s->dtype);
    t->type = (uint8_t)type;
    return take_scale(m, MOE_PART_SCALE, s->dtype, t->rows, group ? t->cols / group : 1);
}

/* NVFP4 as modelopt stores it (weight, weight_scale_2, input_scale), or compressed-tensors (weight_packed,
 * weight_global_scale, input_global_scale, which are reciprocals). */
static bool make_nvfp4(struct maker *m, bool packed)
{
    struct moe_tensor *t = m->t;
    enum moe_part data = packed ? MOE_PART_PACKED : MOE_PART_WEIGHT,
                  global = packed ? MOE_PART_GLOBAL_SCALE : MOE_PART_SCALE_2,
                  input = packed ? MOE_PART_INPUT_GLOBAL_SCALE : MOE_PART_INPUT_SCALE;
    unsigned mask = 1u << data | 1u << MOE_PART_SCALE | 1u << global | 1u << input;
    t->type = MOE_NVFP4;
    t->cols *= 2;
    t->reciprocal = packed;
    set_plane(m, m->data, MOE_PLANE_DATA);
    if (!require_only(m, mask)) return false;
    if (t->cols % 16)
        return WRONG(m, MOE_UNSUPPORTED, m->data, "%lld column%s no multiple of 16", (long long)t->cols,
                     t->cols == 1 ? " is" : "s are");
    if (!take_scale(m, MOE_PART_SCALE, "F8_E4M3", t->rows, t->cols / 16)) return false;
    const struct moe_raw *g = require_part(m, global), *in = find_part(m, input);
    return g && take_scalar(m, g, MOE_PLANE_GLOBAL) && (!in || take_scalar(m, in, MOE_PLANE_INPUT));
}

static bool is_vector(enum moe_role role)
{
    return role == MOE_ROLE_NORM || role == MOE_ROLE_INPUT_NORM || role == MOE_ROLE_POST_NORM ||
           role == MOE_ROLE_Q_A_NORM || role == MOE_ROLE_KV_A_NORM || role == MOE_ROLE_ROUTER_BIAS;
}

/* Set the tensor's shape to that of its data; for packed codes the caller corrects the columns. */
static bool take_shape(struct maker *m)
{
    const struct moe_raw *r = m->data;
    bool vector = is_vector((enum moe_role)m->t->role);
    if (r->ndim != (vector ? 1 : 2))
        return WRONG(m, MOE_CORRUPT, r, "has %d dimension%s, not %d", r->ndim, moe_plural(r->ndim),
                     vector ? 1 : 2);
    m->t->rows = vector ? 1 : r->shape[0];
    m->t->cols = vector ? r->shape[0] : r->shape[1];
    if (m->t->cols < INT64_MAX / 8) return true; /* packed codes have up to 8 columns in a value */
    return WRONG(m, MOE_CORRUPT, r, "has %lld columns, too many to be true", (long long)m->t->cols);
}

/* Make the tensor of a slot: its type follows from the components and their dtypes; the config is not
 * consulted. */
static bool make_tensor(struct maker *m)
{
    const struct moe_raw *w = find_part(m, MOE_PART_WEIGHT), *packed = find_part(m, MOE_PART_PACKED);
    m->data = w ? w : packed;
    if (!m->data) {
        int p = 0;
        while (p < MOE_PART_COUNT && !m->parts[p]) p++;
        if (p == MOE_PART_COUNT || moe_checkpoint_missing_suppressed(m->k, m->slot)) return false;
        return WRONG(m, MOE_CORRUPT, find_part(m, (enum moe_part)p), "has no weight beside it");
    }
    if (w && packed)
        return WRONG(m, MOE_CORRUPT, packed, "a plain '%s' is there too (mixed layouts)", w->name);
    if (!take_shape(m)) return false;
    bool plain = has_dtype(m->data, "BF16") || has_dtype(m->data, "F32") || has_dtype(m->data, "F16");
    if (is_vector((enum moe_role)m->t->role) && !plain)
        return WRONG(m, MOE_UNSUPPORTED, m->data,
                     "has dtype %s, which is not supported here (BF16, F16 and F32 are)", m->data->dtype);
    if (w && plain) return make_plain(m);
    if (w && has_dtype(w, "F8_E4M3")) return make_fp8(m);
    if (w && has_dtype(w, "U8")) return make_nvfp4(m, false);
    if (packed && has_dtype(packed, "I32")) return make_int4(m);
    if (packed && has_dtype(packed, "U8")) return make_nvfp4(m, true);
    return WRONG(m, MOE_UNSUPPORTED, m->data, "dtype %s is not supported", m->data->dtype);
}

/* Record in the raws which plane of tensor i they became. */
static void link_raws(struct moe_checkpoint *k, const struct maker *m, int64_t i)
{
    for (int p = 0; p < MOE_PART_COUNT; p++) {
        struct moe_name n = { .part = (enum moe_part)p };
        int plane = moe_name_plane(&n, m->t->type);
        if (!m->parts[p] || plane < 0) continue;
        struct moe_raw *r = &k->src->raws[m->parts[p] - 1];
        r->tensor = (int32_t)i;
        r->plane = plane;
    }
    k->src->index->raw_of[i] = (int32_t)(m->data - k->src->raws);
}

/* Append the tensor of a slot to the source, if the checkpoint has anything for it. */
static void make_slot(struct moe_checkpoint *k, enum moe_role role, int layer, int expert)
{
    struct moe_source *src = k->src;
    int64_t slot = moe_source_slot(&src->config, role, layer, expert), i = src->n_tensors;
    struct maker m = {
        .k = k, .parts = k->parts + slot * MOE_PART_COUNT, .slot = slot, .t = &src->tensors[i]
    };
    *m.t = (struct moe_tensor){ .role = (int16_t)role, .layer = (int16_t)layer, .expert = expert };
    for (int p = 0; p < MOE_PLANE_COUNT; p++) m.t->plane[p].file = -1;
    bool any = false;
    for (int p = 0; p < MOE_PART_COUNT; p++) any |= m.parts[p] != 0;
    if (!any) return;
    if (!make_tensor(&m)) {
        moe_checkpoint_suppress_missing(k, slot);
        return;
    }
    src->n_tensors++;
    link_raws(k, &m, i);
}

/* The number of slots for which the checkpoint has anything. */
static int64_t count_slots(const struct moe_checkpoint *k, int64_t slots)
{
    int64_t n = 0;
    for (int64_t s = 0; s < slots; s++) {
        bool any = false;
        for (int p = 0; p < MOE_PART_COUNT; p++) any |= k->parts[s * MOE_PART_COUNT + p] != 0;
        n += any;
    }
    return n;
}

enum moe_code moe_checkpoint_make_tensors(struct moe_checkpoint *k, struct moe_err *err)
{
    struct moe_source *src = k->src;
    const struct moe_config *c = &src->config;
    int64_t slots = moe_source_slots(c);
    k->parts = calloc((size_t)slots * MOE_PART_COUNT, sizeof *k->parts);
    if (!k->parts)
        return moe_fail_at(err, MOE_NOMEM, src->path, NULL, "no memory for %lld tensors", (long long)slots);
    for (int64_t i = 0; i < src->n_raws; i++) place_raw(k, i);
    size_t n = (size_t)count_slots(k, slots) + 1;
    src->tensors = malloc(n * sizeof *src->tensors);
    src->index->raw_of = malloc(n * sizeof *src->index->raw_of);
    if (!src->tensors || !src->index->raw_of)
        return moe_fail_at(err, MOE_NOMEM, src->path, NULL, "no memory for %zu tensors", n);
    for (int role = MOE_ROLE_EMBED; role <= MOE_ROLE_HEAD; role++) make_slot(k, (enum moe_role)role, -1, -1);
    for (int layer = 0; layer < c->num_hidden_layers; layer++) {
        for (int role = MOE_ROLE_HEAD + 1; role < MOE_ROLE_COUNT; role++)
            if (moe_role_class((enum moe_role)role) != MOE_CLASS_EXPERT)
                make_slot(k, (enum moe_role)role, layer, -1);
        for (int e = 0; e < c->n_routed_experts; e++)
            for (int r = 0; r < 3; r++) make_slot(k, (enum moe_role)(MOE_ROLE_EXPERT_GATE + r), layer, e);
    }
    return MOE_OK;
}
