/* SPDX-License-Identifier: Apache-2.0 */
/* convert/export-find.c - where the container holds each tensor of the source checkpoint, and which of them
 * are written. */
#include "convert/export-internal.h"

#include "base/io.h"
#include "formats/checkpoint/safetensors.h"
#include "formats/container/container.h"
#include "formats/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* Sets the tensor and the plane of the container that hold entry `e`; MOE_UNSUPPORTED when it was stored in
 * another type, MOE_CORRUPT when the container does not have it. */
static enum moe_code resolve(const struct moe_source *src, struct moe_origin *e, struct moe_err *err)
{
    struct moe_name n;
    if (!moe_name_parse(e->name, &n))
        return moe_fail_at(err, MOE_CORRUPT, "source.jsonl", e->name, "not a name of this model");
    e->tensor = moe_source_find(src, n.role, n.layer, n.expert);
    if (!e->tensor)
        return moe_fail_at(err, MOE_CORRUPT, "source.jsonl", e->name, "the container has no such tensor");
    e->plane = moe_name_plane(&n, e->tensor->type);
    const struct moe_span *s = e->plane >= 0 ? &e->tensor->plane[e->plane] : NULL;
    uint64_t stored = !s || s->file < 0 ? 0
                    : e->plane == MOE_PLANE_SCALE
                        ? (uint64_t)moe_plane_bytes(e->tensor->type, MOE_LAYOUT_LINEAR, MOE_PLANE_SCALE,
                                                    e->tensor->rows, e->tensor->cols)
                        : s->bytes;
    if (stored != e->bytes)
        return moe_fail_at(
            err, MOE_UNSUPPORTED, src->path, e->name,
            "is stored as %s, the source had %s: a quantized container does not go back with --to hf",
            moe_dtype_name(e->tensor->type), e->dtype);
    return MOE_OK;
}

/* Sets where the entries of this kind are in vision.safetensors or superseded.safetensors; the file's header
 * must list the same entries as source.jsonl, in the same order (else MOE_CORRUPT). */
static enum moe_code match_extra(struct moe_exporter *x, enum moe_extra_kind kind,
                                 const struct moe_st_header *h, struct moe_arena *names, struct moe_err *err)
{
    int64_t k = 0;
    for (int64_t i = 0; i < x->p->n; i++) {
        struct moe_origin *e = &x->p->entries[i];
        if (moe_extra_kind_of(e->skipped) != kind) continue;
        const char *name = moe_extra_name(names, kind, e->file, e->name);
        if (!name) return moe_fail_at(err, MOE_NOMEM, x->extra_path[kind], NULL, "no memory for its names");
        if (k == h->n || strcmp(h->entries[k].name, name) || strcmp(h->entries[k].dtype, e->dtype) ||
            h->entries[k].bytes != e->bytes)
            return moe_fail_at(err, MOE_CORRUPT, x->extra_path[kind], e->name,
                               "is not where source.jsonl has it");
        e->extra_at = h->entries[k++].offset;
    }
    return MOE_OK;
}

enum moe_code moe_export_find_extra(struct moe_exporter *x, enum moe_extra_kind kind, struct moe_err *err)
{
    struct moe_arena names = MOE_ARENA_INIT;
    struct moe_st_header h = { 0 };
    uint64_t size;
    const char *path = x->extra_path[kind];
    if (!moe_container_lists(x->src, moe_extra_files[kind])) return MOE_OK;
    MOE_TRY(moe_container_check_file(x->src, moe_extra_files[kind], x->extra_path[kind], err));
    MOE_TRY(moe_open_read(path, &x->extra_fd[kind], &size, err));
    enum moe_code code = moe_st_read(x->extra_fd[kind], path, size, &names, &h, err);
    if (code == MOE_OK) code = moe_st_check_size(&h, path, size, err);
    if (code == MOE_OK) code = match_extra(x, kind, &h, &names, err);
    free(h.entries);
    moe_arena_clear(&names);
    return code;
}

bool moe_export_is_superseded(const struct moe_origin *e)
{
    return moe_extra_kind_of(e->skipped) == MOE_EXTRA_SUPERSEDED;
}

/* Whether the container lacks any tensor of the source, superseded copies aside.  If so, the superseded
 * copies are not written either, because they serve only to give back a directory that is the source's in
 * every byte. */
static bool lacks_any(const struct moe_exporter *x)
{
    for (int64_t i = 0; i < x->p->n; i++) {
        const struct moe_origin *e = &x->p->entries[i];
        if (e->skipped && !e->literal_bytes && !e->extra_at && !moe_export_is_superseded(e)) return true;
    }
    return false;
}

static void leave_out(struct moe_exporter *x, const struct moe_origin *e)
{
    if (!x->r->skipped++) snprintf(x->r->first_skipped, sizeof x->r->first_skipped, "%s", e->name);
    x->left.vision |= !strcmp(e->skipped, "vision");
    x->left.prediction |= !strcmp(e->skipped, "multi-token prediction");
    x->left.kv_scales |= !strcmp(e->skipped, "kv scale");
}

enum moe_code moe_export_resolve(struct moe_exporter *x, struct moe_err *err)
{
    bool lacks = lacks_any(x);
    for (int64_t i = 0; i < x->p->n; i++) {
        struct moe_origin *e = &x->p->entries[i];
        e->kept = !e->skipped || e->literal_bytes || (e->extra_at && !(lacks && moe_export_is_superseded(e)));
        if (!e->kept) {
            leave_out(x, e);
            continue;
        }
        if (!e->skipped) MOE_TRY(resolve(x->src, e, err));
        x->r->tensors++;
        x->r->output_bytes += e->bytes;
        if (!moe_export_is_superseded(e)) x->index_bytes += e->bytes;
    }
    x->r->input_bytes = x->r->output_bytes;
    x->r->text_only = x->left.vision;
    return MOE_OK;
}

enum moe_code moe_export_rename_as_text_model(struct moe_exporter *x, struct moe_err *err)
{
    static const char wrap[] = "language_model.";
    for (int64_t i = 0; i < x->p->n; i++) {
        struct moe_origin *e = &x->p->entries[i];
        if (strncmp(e->name, wrap, sizeof wrap - 1)) continue;
        e->name += sizeof wrap - 1;
        if (!strncmp(e->name, "model.", 6) || !strncmp(e->name, "lm_head.", 8)) continue;
        size_t n = strlen(e->name) + 7;
        char *name = moe_arena_alloc(&x->p->arena, n);
        if (!name) return moe_fail(err, MOE_NOMEM, "no memory for names");
        snprintf(name, n, "model.%s", e->name);
        e->name = name;
    }
    return MOE_OK;
}
