/* SPDX-License-Identifier: Apache-2.0 */
/* The routed experts of a layer: which tokens chose each, how their weights are read, and their outputs. */
#include "quantize/passes/walk.h"

#include "base/io.h"
#include "kernels/scalar.h"
#include "model/export/hf-layout.h"
#include "quantize/passes/work.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- which experts, which tokens ---- */

struct moe_mlp_tokens moe_walk_expert(const struct moe_walk *c, int64_t e)
{
    struct moe_mlp_tokens t = moe_walk_all(c);
    t.row = c->row + c->first[e];
    t.weight = c->row_weight + c->first[e];
    t.importance = c->row_importance + c->first[e];
    t.n = t.own = c->first[e + 1] - c->first[e];
    return t;
}

enum moe_code moe_walk_unit(const struct moe_walk *c, int layer, struct moe_shard_unit *u,
                            struct moe_err *err)
{
    int number = 0;
    for (int l = 0; l <= layer; l++) number += moe_layer_is_moe(&c->src->config, l);
    return moe_unit_open(u, c->src, c->stored, number, err);
}

/* ---- weights ---- */

void moe_stored_expert_release(struct moe_stored_expert *r)
{
    for (int i = 0; i < 3; i++) free(r->data[i]);
    memset(r, 0, sizeof *r);
}

/* Makes room for `bytes` bytes of weight i. */
static enum moe_code reserve(struct moe_stored_expert *r, int i, size_t bytes, struct moe_err *err)
{
    if (bytes <= r->bytes[i]) return MOE_OK;
    free(r->data[i]);
    r->data[i] = malloc(bytes);
    r->bytes[i] = r->data[i] ? bytes : 0;
    return r->data[i] ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for an expert's weights");
}

/* The weight that was read into r->data[i]. */
static struct moe_weight in_memory(const struct moe_stored_expert *r, int i, const struct moe_tensor *t)
{
    return (struct moe_weight){ .type = t->type,
                                .layout = t->layout,
                                .reciprocal = t->reciprocal,
                                .rows = t->rows,
                                .cols = t->cols,
                                .data = r->data[i],
                                .scale = r->data[i] + t->plane[MOE_PLANE_DATA].bytes,
                                .global = t->global,
                                .input_scale = t->input_scale };
}

/* Where weights are read from: a source or, if that is NULL, a unit's file. */
struct origin {
    const struct moe_source *src;
    int fd; /* of the file */
    const struct moe_unit_file *file;
};

/* Reads one plane of a tensor; index is the tensor's in the source. */
static enum moe_code read_plane(const struct origin *p, const struct moe_tensor *t, int64_t index, int plane,
                                size_t bytes, uint8_t *to, struct moe_err *err)
{
    if (p->src) return moe_source_read(p->src, t, plane, 0, bytes, to, err);
    if (p->file->hf_layout && moe_hf_layout_holds(p->file->hf_layout, index, plane))
        return moe_hf_layout_read(p->file->hf_layout, index, plane, to, err);
    return moe_pread(p->fd, p->file->path, to, bytes, t->plane[plane].offset, err);
}

/* Reads weight i of an expert into r; *w points there. */
static enum moe_code read_weight(const struct origin *p, struct moe_stored_expert *r,
                                 const struct moe_tensor *t, int64_t index, int i, struct moe_weight *w,
                                 struct moe_err *err)
{
    size_t data = (size_t)t->plane[MOE_PLANE_DATA].bytes;
    size_t scale = p->src && t->plane[MOE_PLANE_SCALE].file < 0 ? 0 : (size_t)t->plane[MOE_PLANE_SCALE].bytes;
    uint8_t global[4];
    MOE_TRY(reserve(r, i, data + scale, err));
    MOE_TRY(read_plane(p, t, index, MOE_PLANE_DATA, data, r->data[i], err));
    if (scale) MOE_TRY(read_plane(p, t, index, MOE_PLANE_SCALE, scale, r->data[i] + data, err));
    *w = in_memory(r, i, t);
    if (p->src || t->type != MOE_NVFP4) return MOE_OK; /* a source's tensors carry their global scale */
    MOE_TRY(read_plane(p, t, index, MOE_PLANE_GLOBAL, sizeof global, global, err));
    w->global = moe_load_f32(global);
    return MOE_OK;
}

enum moe_code moe_walk_read(const struct moe_walk *c, struct moe_stored_expert *r, const struct moe_tensor *t,
                            int i, struct moe_weight *w, struct moe_err *err)
{
    return read_weight(&(struct origin){ .src = c->src }, r, t, t - c->src->tensors, i, w, err);
}

/* Reads the three weights of the expert that item g of the unit is. */
static enum moe_code read_expert(const struct origin *p, struct moe_stored_expert *r,
                                 const struct moe_shard_unit *u, const struct moe_unit_item *g,
                                 struct moe_weight w[3], struct moe_err *err)
{
    for (int i = 0; i < 3; i++) {
        int64_t index = u->in[g->first + i];
        MOE_TRY(read_weight(p, r, p->src ? &p->src->tensors[index] : &u->out[g->first + i], index, i, &w[i],
                            err));
    }
    return MOE_OK;
}

/* ---- outputs ---- */

enum moe_code moe_walk_experts(struct moe_walk *c, const struct moe_shard_unit *u,
                               const struct moe_unit_file *file, struct moe_states *out, struct moe_err *err)
{
    struct moe_weight w[3];
    double from = moe_now();
    uint64_t size;
    int fd = -1;

    if (file) MOE_TRY(moe_open_read(file->path, &fd, &size, err));
    const struct origin origin = { file ? NULL : c->src, fd, file };
    enum moe_code code = MOE_OK;
    for (int64_t k = 0; code == MOE_OK && k < u->n_items; k++) {
        const struct moe_unit_item *g = &u->items[k];
        int64_t e = u->out[g->first].expert;
        struct moe_mlp_tokens t = moe_walk_expert(c, e);
        if (!t.n) continue;
        t.clip = c->clip;
        code = read_expert(&origin, &c->raw, u, g, w, err);
        if (code == MOE_OK && (code = moe_mlp_forward(c->mlp, w, &t, out ? out : &c->sum, err)) != MOE_OK)
            moe_wrap(err, "layer %d, expert %lld", c->layer, (long long)e);
        if (code == MOE_OK) moe_meter_add(c->meter, moe_work_mlp(w[0].cols, w[0].rows, (double)t.n));
        if (code == MOE_OK) code = moe_cancel_check_resumable(c->cancel, err);
    }
    if (fd >= 0) close(fd);
    c->seconds[2] += moe_now() - from;
    return code;
}
