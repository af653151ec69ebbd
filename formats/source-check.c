/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/source-parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- problems ---- */

static const char *last_component(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

void moe_problem_add_err(struct moe_problems *p, const struct moe_err *err)
{
    if (!p->count++) p->first = *err;
    if (!p->list || p->count > MOE_PROBLEMS_MAX) return;
    char line[sizeof err->msg + sizeof err->file + sizeof err->tensor + 8];
    const char *what = err->msg; /* the message without "'file': tensor 'tensor': ", which is shown already */
    if (*err->file) {
        const char *end = err->msg[0] == '\'' ? strstr(err->msg, "': ") : NULL;
        if (end) what = end + 3;
        if (*err->tensor && !strncmp(what, "tensor '", 8) && (end = strstr(what, "': "))) what = end + 3;
    }
    snprintf(line, sizeof line, "%s%s%s%s%s", *err->file ? last_component(err->file) : "",
             *err->file ? ": " : "", err->tensor, *err->tensor ? ": " : "", what);
    moe_json_append(p->list, cJSON_CreateString(line));
}

void moe_problem_add(struct moe_problems *p, enum moe_code code, const char *file, const char *tensor,
                     const char *fmt, ...)
{
    struct moe_err err;
    char what[512];
    va_list ap;
    if (p->count >= MOE_PROBLEMS_MAX || (p->count && !p->list)) {
        p->count++;
        return;
    }
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    moe_fail_at(&err, code, file, tensor, "%s", what);
    moe_problem_add_err(p, &err);
}

enum moe_code moe_problems_end(struct moe_problems *p, struct moe_err *err)
{
    if (!p->count) return MOE_OK;
    if (p->list) {
        char line[64];
        *err = p->first; /* moe_source_survey returns it */
        if (p->count > MOE_PROBLEMS_MAX) {
            snprintf(line, sizeof line, "and %lld more", (long long)(p->count - MOE_PROBLEMS_MAX));
            moe_json_append(p->list, cJSON_CreateString(line));
        }
        return MOE_OK;
    }
    *err = p->first;
    size_t n = strlen(err->msg);
    if (p->count > 1 && n < sizeof err->msg)
        snprintf(err->msg + n, sizeof err->msg - n, "; and %lld more problem%s (moe-inspect lists them)",
                 (long long)(p->count - 1), p->count > 2 ? "s" : "");
    return err->code;
}

/* ---- slots: three for the model; then for each layer one for each role, and three for each expert ---- */

enum { MODEL_SLOTS = MOE_ROLE_HEAD + 1 };

static int64_t layer_slots(const struct moe_config *c) { return MOE_ROLE_COUNT + 3 * c->n_routed_experts; }

int64_t moe_source_slots(const struct moe_config *c)
{
    return MODEL_SLOTS + c->num_hidden_layers * layer_slots(c);
}

int64_t moe_source_slot(const struct moe_config *c, enum moe_role role, int layer, int expert)
{
    enum moe_class class;
    if ((int)role < 0 || role >= MOE_ROLE_COUNT) return -1;
    class = moe_role_class(role);
    if (class == MOE_CLASS_MODEL) return layer == -1 && expert == -1 ? (int64_t)role : -1;
    if (layer < 0 || layer >= c->num_hidden_layers) return -1;
    int64_t first = MODEL_SLOTS + layer * layer_slots(c);
    if (class != MOE_CLASS_EXPERT) return expert == -1 ? first + role : -1;
    if (expert < 0 || expert >= c->n_routed_experts) return -1;
    return first + MOE_ROLE_COUNT + 3 * (int64_t)expert + (role - MOE_ROLE_EXPERT_GATE);
}

/* ---- completeness ---- */

bool moe_range_has(const struct moe_layer_range *p, const struct moe_config *c, enum moe_role role, int layer)
{
    if (layer >= 0) return layer >= p->first && layer <= p->last;
    return role == MOE_ROLE_EMBED ? p->first == 0 : p->last == c->num_hidden_layers - 1;
}

const char *moe_source_tensor_name(const struct moe_source *src, int64_t i, char out[128])
{
    const struct moe_tensor *t = &src->tensors[i];
    if (src->index->raw_of) return src->raws[src->index->raw_of[i]].name;
    return moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, out);
}

static const char *file_of(const struct moe_source *src, const struct moe_tensor *t)
{
    int32_t f = t->plane[MOE_PLANE_DATA].file;
    return f >= 0 && f < src->n_files ? src->files[f].path : src->path;
}

static bool plane_ok(const struct moe_source *src, const struct moe_tensor *t, int plane)
{
    const struct moe_span *s = &t->plane[plane];
    int64_t want = moe_plane_bytes(t->type, t->layout, plane, t->rows, t->cols);
    if (plane == MOE_PLANE_INPUT && s->file < 0) return want >= 0;
    if (want == 0) return s->file < 0;
    return want > 0 && s->file >= 0 && s->file < src->n_files && s->bytes == (uint64_t)want;
}

static bool inside(const struct moe_source *src, const struct moe_span *s)
{
    return s->file < 0 ||
           (s->bytes <= src->files[s->file].size && s->offset <= src->files[s->file].size - s->bytes);
}

static void check_tensor(const struct moe_source *src, int64_t i, struct moe_problems *p)
{
    const struct moe_tensor *t = &src->tensors[i];
    char buffer[128];
    const char *name = moe_source_tensor_name(src, i, buffer), *file = file_of(src, t);
    int64_t rows, cols;
    if (!moe_tensor_shape(&src->config, (enum moe_role)t->role, t->layer, &rows, &cols)) {
        moe_problem_add(p, MOE_CORRUPT, file, name, "the config calls for no such tensor");
        return;
    }
    if (t->rows != rows || t->cols != cols) {
        moe_problem_add(p, MOE_CORRUPT, file, name, "has shape %lld x %lld, the config wants %lld x %lld",
                        (long long)t->rows, (long long)t->cols, (long long)rows, (long long)cols);
        return;
    }
    if (!moe_dtype_name(t->type) || t->layout > MOE_LAYOUT_TILE_128X4 ||
        (t->layout && t->type != MOE_NVFP4) || (rows == 1 && !moe_dtype_plain(t->type))) {
        const char *type = moe_dtype_name(t->type);
        moe_problem_add(p, MOE_UNSUPPORTED, file, name, "cannot be stored as %s",
                        type ? type : "an unknown type");
        return;
    }
    for (int k = 0; k < MOE_PLANE_COUNT; k++) {
        if (!plane_ok(src, t, k))
            moe_problem_add(p, MOE_CORRUPT, file, name, "plane %d has the wrong size", k);
        else if (!src->n_raws &&
                 !inside(src, &t->plane[k])) /* a checkpoint's reader reports this once for each file */
            moe_problem_add(p, MOE_CORRUPT, src->files[t->plane[k].file].path, name,
                            "lies beyond the end of its file (fetch the file again)");
    }
}

static int by_key(const void *x, const void *y)
{
    const struct moe_tensor *a = x, *b = y;
    if (a->layer != b->layer) return a->layer < b->layer ? -1 : 1;
    if (a->expert != b->expert) return a->expert < b->expert ? -1 : 1;
    return (a->role > b->role) - (a->role < b->role);
}

static void index_tensors(struct moe_source *src, struct moe_problems *p)
{
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        char name[128];
        int64_t slot = moe_source_slot(&src->config, (enum moe_role)t->role, t->layer, t->expert);
        if (slot < 0)
            moe_problem_add(p, MOE_CORRUPT, file_of(src, t), moe_source_tensor_name(src, i, name),
                            "the config has no such tensor");
        else if (src->index->slot[slot] >= 0)
            moe_problem_add(p, MOE_CORRUPT, file_of(src, t), moe_source_tensor_name(src, i, name),
                            "is there twice");
        else
            src->index->slot[slot] = (int32_t)i;
        if (slot >= 0) check_tensor(src, i, p);
        if (slot >= 0 && src->is_part &&
            !moe_range_has(&src->part, &src->config, (enum moe_role)t->role, t->layer))
            moe_problem_add(p, MOE_CORRUPT, file_of(src, t), moe_source_tensor_name(src, i, name),
                            "is not of the layers that this part says it holds");
    }
}

static void find_missing(const struct moe_source *src, enum moe_role role, int layer, int expert,
                         struct moe_problems *p)
{
    char name[128];
    const char *file = src->kind == MOE_CONTAINER ? "manifest.json" : "config.json";
    int64_t rows, cols, slot = moe_source_slot(&src->config, role, layer, expert);
    if (slot < 0 || src->index->slot[slot] >= 0 || !moe_tensor_shape(&src->config, role, layer, &rows, &cols))
        return;
    if (role == MOE_ROLE_HEAD && src->config.tie_word_embeddings) return;
    if (src->is_part && !moe_range_has(&src->part, &src->config, role, layer)) return;
    if (src->index->missing_suppressed && src->index->missing_suppressed[slot / 8] >> slot % 8 & 1) return;
    /* there may be millions of them: then they are counted without making their names */
    if (p->count && (!p->list || p->count >= MOE_PROBLEMS_MAX)) p->count++;
    else moe_problem_add(p, MOE_CORRUPT, p->list ? file : src->path,
                         moe_tensor_name(role, layer, expert, name),
                         "missing: %s calls for it, and no file holds it", file);
}

static void find_all_missing(const struct moe_source *src, struct moe_problems *p)
{
    for (int role = 0; role < MODEL_SLOTS; role++) find_missing(src, (enum moe_role)role, -1, -1, p);
    for (int layer = 0; layer < src->config.num_hidden_layers; layer++) {
        for (int role = MODEL_SLOTS; role < MOE_ROLE_COUNT; role++)
            if (moe_role_class((enum moe_role)role) != MOE_CLASS_EXPERT)
                find_missing(src, (enum moe_role)role, layer, -1, p);
        for (int e = 0; moe_layer_is_moe(&src->config, layer) && e < src->config.n_routed_experts; e++)
            for (int k = 0; k < 3; k++)
                find_missing(src, (enum moe_role)(MOE_ROLE_EXPERT_GATE + k), layer, e, p);
    }
}

/* The type of most weights: of the routed experts, or of all matrices in a model without experts. */
static const char *layout_of(const struct moe_source *src)
{
    int64_t count[MOE_DTYPE_COUNT] = { 0 };
    int best = MOE_BF16;
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        bool counts = src->config.n_routed_experts ? t->expert >= 0 : t->rows > 1;
        if (counts && moe_dtype_name(t->type)) count[t->type]++;
    }
    for (int k = 0; k < MOE_DTYPE_COUNT; k++)
        if (count[k] > count[best]) best = k;
    return moe_dtype_name(best);
}

enum moe_code moe_source_finish(struct moe_source *src, struct moe_problems *p, struct moe_err *err)
{
    size_t slots = (size_t)moe_source_slots(&src->config);
    bool sorted = true;
    for (int64_t i = 1; i < src->n_tensors && sorted; i++)
        sorted = by_key(&src->tensors[i - 1], &src->tensors[i]) <= 0;
    MOE_CHECK(sorted || !src->n_raws);
    if (!sorted) qsort(src->tensors, (size_t)src->n_tensors, sizeof *src->tensors, by_key);
    src->index->slot = malloc(slots * sizeof *src->index->slot);
    if (!src->index->slot)
        return moe_fail_at(err, MOE_NOMEM, src->path, NULL, "no memory for an index of %zu tensors", slots);
    memset(src->index->slot, 0xff, slots * sizeof *src->index->slot);
    index_tensors(src, p);
    find_all_missing(src, p);
    src->layout = layout_of(src);
    return MOE_OK;
}
