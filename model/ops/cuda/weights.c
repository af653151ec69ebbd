/* SPDX-License-Identifier: Apache-2.0 */
/* Where the weights of a model lie on a GPU, and how they come there.
 *
 * What belongs to no routed expert is one block of memory.  The experts of a layer have an address range
 * (space.h), all with the same planes at the same distances, in the order that a container has.  Every plane
 * begins at a multiple of 256 bytes and is what the source holds, but for NVFP4's scales in rows, which
 * checkpoints have: they become the tiles of a container.
 *
 * Both follow from the model alone, so that another process can compute with them (kept.h).  What follows
 * from options lies in memory that is never shared. */
#include "base/grow.h"
#include "model/ops/cuda/cuda-internal.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256 };

/* Gives out places from `base` on; 0: the memory is not there yet, and only its bytes count.  there: so are
 * the bytes, and nothing is to be copied.  layout: digests the places and their bytes; may be NULL. */
struct placer { struct moe_cuda *d; uint64_t base, at; bool failed, there; struct moe_hash *layout; };

static uint64_t up(uint64_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

static uint64_t take(struct placer *p, uint64_t bytes)
{
    uint64_t at = up(p->at);
    p->at = at + bytes;
    if (p->layout) moe_hash_add128(p->layout, (uint64_t[]){ at, bytes }, 2 * sizeof(uint64_t));
    return p->base + at;
}

/* Notes what is to be loaded; returns its place. */
static uint64_t note(struct placer *p, struct moe_load_piece piece)
{
    struct moe_cuda_weights *w = &p->d->weights;
    if (!p->base || p->there || p->failed) return piece.to;
    p->failed = !MOE_GROW(w->piece, w->cap_pieces, w->n_pieces + 1);
    if (!p->failed) w->piece[w->n_pieces++] = piece;
    return piece.to;
}

/* Takes a place and notes what is to be copied there; returns the place. */
static uint64_t put(struct placer *p, const void *from, uint64_t bytes)
{
    return note(p, (struct moe_load_piece){ .from = from, .bytes = bytes, .to = take(p, bytes) });
}

/* A vector of the model, which is float32 in host memory; 0 where there is none. */
static uint64_t put_vector(struct placer *p, const float *v, int64_t n)
{
    return v ? put(p, v, (uint64_t)n * sizeof *v) : 0;
}

static uint64_t plane_bytes(const struct moe_weight *w, int layout, int plane)
{
    return (uint64_t)moe_plane_bytes(w->type, layout, plane, w->rows, w->cols);
}

/* The scales of w: NVFP4's always in tiles. */
static uint64_t put_scales(struct placer *p, const struct moe_weight *w)
{
    if (!w->scale) return 0;
    uint64_t bytes = plane_bytes(w, w->layout, MOE_PLANE_SCALE);
    if (w->type != MOE_NVFP4 || w->layout == MOE_LAYOUT_TILE_128X4) return put(p, w->scale, bytes);
    uint64_t to = take(p, plane_bytes(w, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE));
    return note(p, (struct moe_load_piece){ w->scale, bytes, to, .blocks = w->cols / 16 });
}

/* A weight in three parts, so that those of an expert come in the order of a container: first the codes of
 * all, then the scales, then NVFP4's second scales, which stay where the model has them. */
static void put_codes(struct placer *p, const struct moe_weight *w, struct moe_cuda_matrix *m)
{
    *m = (struct moe_cuda_matrix){ .input_scale = w->data ? moe_input_scale(w) : 0,
                                   .has_scale = w->input_scale > 0 };
    if (w->data) m->w.data = put(p, w->data, plane_bytes(w, w->layout, MOE_PLANE_DATA));
}

static void put_scale(struct placer *p, const struct moe_weight *w, struct moe_cuda_matrix *m)
{
    struct moe_weight tiled = *w;
    if (!w->data) return;
    if (w->type == MOE_NVFP4) tiled.layout = MOE_LAYOUT_TILE_128X4;
    m->w = moe_cuda_weight_of(&tiled, m->w.data, put_scales(p, w));
}

static void put_global(struct placer *p, const struct moe_weight *w, struct moe_cuda_matrix *m)
{
    if (w->data && w->type == MOE_NVFP4) m->global = put(p, &w->global, sizeof w->global);
}

static struct moe_cuda_matrix put_matrix(struct placer *p, const struct moe_weight *w)
{
    struct moe_cuda_matrix m;
    put_codes(p, w, &m);
    put_scale(p, w, &m);
    put_global(p, w, &m);
    return m;
}

static struct moe_cuda_mlp put_mlp(struct placer *p, const struct moe_expert *e)
{
    const struct moe_weight *const w[] = { &e->gate, &e->up, &e->down };
    struct moe_cuda_mlp m;
    struct moe_cuda_matrix *const to[] = { &m.gate, &m.up, &m.down };
    for (int i = 0; i < 3; i++) put_codes(p, w[i], to[i]);
    for (int i = 0; i < 3; i++) put_scale(p, w[i], to[i]);
    for (int i = 0; i < 3; i++) put_global(p, w[i], to[i]);
    return m;
}

/* ---- routed experts ---- */

static bool same_form(const struct moe_weight *a, const struct moe_weight *b)
{
    return a->type == b->type && a->layout == b->layout && a->reciprocal == b->reciprocal &&
           a->rows == b->rows && a->cols == b->cols;
}

static enum moe_code check_experts(const struct moe_model *m, int layer, struct moe_err *err)
{
    const struct moe_layer *y = &m->layers[layer];
    for (int64_t e = 1; y->moe && e < m->config.n_routed_experts; e++)
        if (!same_form(&y->experts[0].gate, &y->experts[e].gate) ||
            !same_form(&y->experts[0].up, &y->experts[e].up) ||
            !same_form(&y->experts[0].down, &y->experts[e].down))
            return moe_fail(err, MOE_UNSUPPORTED,
                            "layer %d: expert %lld is stored in another type than expert 0, which a GPU "
                            "cannot compute in this version (try --device cpu)", layer, (long long)e);
    return MOE_OK;
}

/* Room for the scales that inputs of experts are quantized under, and their copy in host memory at *host. */
static uint64_t put_input_scales(struct placer *p, float **host)
{
    int64_t n = moe_cuda_config(p->d)->n_routed_experts;
    *host = p->base ? MOE_NEWN(&p->d->weights.arena, float, n) : NULL;
    if (p->base && !*host) p->failed = true;
    return put(p, *host, (uint64_t)n * sizeof **host);
}

/* The bytes of an expert of a layer; 0 for a layer without. */
static uint64_t expert_bytes(struct moe_cuda *d, int layer, struct moe_hash *layout)
{
    const struct moe_layer *y = &d->device.model->layers[layer];
    struct placer one = { .d = d, .layout = layout };
    if (y->moe) put_mlp(&one, y->experts);
    return up(one.at);
}

/* The experts of a layer, whose range has memory once p has; `own` is for what is not shared. */
static void put_experts(struct placer *p, struct placer *own, int layer)
{
    struct moe_cuda *d = p->d;
    const struct moe_expert *from = d->device.model->layers[layer].experts;
    struct moe_cuda_experts *x = &d->weights.layers[layer].experts;
    float *gate = NULL, *down = NULL;
    if (moe_activations_nvfp4(d->o.activations)) {
        x->gate_scale = put_input_scales(own, &gate);
        x->down_scale = put_input_scales(own, &down);
    }
    if (!p->base) return;
    uint64_t base = moe_space_base(d->weights.space, layer).at;
    x->stride = (int64_t)moe_space_stride(d->weights.space, layer);
    x->resident = moe_space_resident(d->weights.space, layer).at;
    for (int64_t e = 0; !p->failed && e < moe_cuda_config(d)->n_routed_experts; e++) {
        struct placer one = { .d = d, .base = base + (uint64_t)(e * x->stride), .there = p->there };
        struct moe_cuda_mlp m = put_mlp(&one, &from[e]);
        p->failed = one.failed;
        if (e == 0) x->mlp = m;
        if (gate) gate[e] = moe_cuda_gate_scale(d, &m);
        if (down) down[e] = moe_cuda_quantizes(d, &m.down) ? m.down.input_scale : 0;
    }
}

/* ---- all weights ---- */

static void put_layer(struct placer *p, struct placer *own, int layer)
{
    const struct moe_config *c = moe_cuda_config(p->d);
    const struct moe_layer *from = &p->d->device.model->layers[layer];
    struct moe_cuda_layer *y = &p->d->weights.layers[layer];
    y->input_norm = put_vector(p, from->input_norm, c->hidden_size);
    y->post_norm = put_vector(p, from->post_norm, c->hidden_size);
    y->q_a_norm = put_vector(p, from->q_a_norm, c->q_lora_rank);
    y->kv_a_norm = put_vector(p, from->kv_a_norm, c->kv_lora_rank);
    y->q_a = put_matrix(p, &from->q_a);
    y->q_b = put_matrix(p, &from->q_b);
    y->q = put_matrix(p, &from->q);
    y->kv_a = put_matrix(p, &from->kv_a);
    y->kv_b = put_matrix(p, &from->kv_b);
    y->o = put_matrix(p, &from->o);
    y->common = put_mlp(p, from->moe ? &from->shared : &from->dense);
    if (!from->moe) return;
    y->router = put_matrix(p, &from->router);
    y->router_bias = put_vector(p, from->router_bias, c->n_routed_experts);
    put_experts(p, own, layer);
}

/* Decides on the place of everything, and counts its bytes.  there: as in struct placer, of what is
 * shared. */
static enum moe_code put_all(struct moe_cuda *d, bool there, struct moe_hash *layout, struct moe_err *err)
{
    struct moe_cuda_weights *w = &d->weights;
    const struct moe_model *m = d->device.model;
    struct placer p = { .d = d, .base = w->block ? moe_space_base(w->block, 0).at : 0, .there = there,
                        .layout = layout };
    struct placer own = { .d = d, .base = w->own.at };
    w->embed = put_matrix(&p, &m->embed);
    w->head = put_matrix(&p, &m->head);
    w->norm = put_vector(&p, m->norm, m->config.hidden_size);
    for (int l = 0; l < m->config.num_hidden_layers; l++) put_layer(&p, &own, l);
    w->block_bytes = up(p.at);
    w->own_bytes = up(own.at);
    return p.failed || own.failed ? moe_fail(err, MOE_NOMEM, "no memory for the list of a model's weights")
                                  : MOE_OK;
}

/* Counts the bytes of everything, and digests where it lies. */
static enum moe_code measure(struct moe_cuda *d, struct moe_hash *layout, struct moe_err *err)
{
    struct moe_cuda_weights *w = &d->weights;
    const struct moe_config *c = moe_cuda_config(d);
    MOE_TRY(moe_space_granularity(d->gpu, &w->granularity, err));
    moe_hash_reset128(layout);
    moe_hash_add128(layout, &w->granularity, sizeof w->granularity);
    MOE_TRY(put_all(d, false, layout, err));
    w->shared_bytes = moe_space_estimate(w->block_bytes, 1, w->granularity);
    for (int l = 0; l < c->num_hidden_layers; l++) {
        w->expert_bytes[l] = expert_bytes(d, l, layout);
        w->shared_bytes += moe_space_estimate(w->expert_bytes[l], c->n_routed_experts, w->granularity);
        moe_hash_add128(layout, &w->expert_bytes[l], sizeof w->expert_bytes[l]);
    }
    w->layout = moe_hash_get128(layout);
    return MOE_OK;
}

enum moe_code moe_cuda_weights_plan(struct moe_cuda *d, struct moe_err *err)
{
    struct moe_cuda_weights *w = &d->weights;
    const struct moe_config *c = moe_cuda_config(d);
    w->layers = MOE_NEWN(&w->arena, struct moe_cuda_layer, c->num_hidden_layers);
    w->expert_bytes = MOE_NEWN(&w->arena, uint64_t, c->num_hidden_layers);
    if (!w->layers || !w->expert_bytes)
        return moe_fail(err, MOE_NOMEM, "no memory for the descriptors of a model's weights");
    for (int l = 0; l < c->num_hidden_layers; l++) MOE_TRY(check_experts(d->device.model, l, err));
    struct moe_hash *layout = moe_hash_new();
    if (!layout) return moe_fail(err, MOE_NOMEM, "no memory for a checksum");
    enum moe_code code = measure(d, layout, err);
    moe_hash_free(layout);
    w->bytes = w->own_bytes + (d->o.attached ? 0 : w->shared_bytes);
    return code;
}

/* ---- loading ---- */

/* Gives the experts of all layers memory that have none, or (shown) lets kernels use them. */
static enum moe_code each_layer(struct moe_cuda *d, bool shown, struct moe_err *err)
{
    const struct moe_config *c = moe_cuda_config(d);
    enum moe_code code = MOE_OK;
    int32_t *all = malloc(((size_t)c->n_routed_experts + 1) * sizeof *all);
    if (!all) return moe_fail(err, MOE_NOMEM, "no memory for a list of experts");
    for (int32_t e = 0; e < c->n_routed_experts; e++) all[e] = e;
    for (int l = 0; code == MOE_OK && l < c->num_hidden_layers; l++)
        if (d->weights.expert_bytes[l])
            code = (shown ? moe_space_show : moe_space_back)(d->weights.space, l, all, c->n_routed_experts,
                                                             err);
    free(all);
    return code;
}

/* Reserves addresses, and takes or imports the memory behind them. */
static enum moe_code take_memory(struct moe_cuda *d, const struct moe_cuda_start *start, struct moe_err *err)
{
    struct moe_cuda_weights *w = &d->weights;
    const struct moe_config *c = moe_cuda_config(d);
    MOE_TRY(moe_gpu_alloc(d->gpu, w->own_bytes, &w->own, err));
    MOE_TRY(moe_space_open(&w->block, d->gpu, 1, &w->block_bytes, 1, start->shared, err));
    MOE_TRY(moe_space_open(&w->space, d->gpu, (int)c->num_hidden_layers, w->expert_bytes,
                           (int)c->n_routed_experts, start->shared, err));
    if (start->lender) MOE_TRY(moe_cuda_kept_import(d, start, err));
    MOE_TRY(moe_space_back(w->block, 0, &(int32_t){ 0 }, 1, err));
    return each_layer(d, false, err);
}

static enum moe_code read_weights(struct moe_cuda *d, const struct moe_cuda_start *start,
                                  struct moe_err *err)
{
    struct moe_cuda_weights *w = &d->weights;
    const struct moe_load_options o = {
        .path = start->path, .progress = start->progress, .cancel = start->cancel
    };
    return moe_load(d->gpu, d->device.model->source, w->piece, (int64_t)w->n_pieces, &o, &d->load, err);
}

/* What is not shared, where the rest is there. */
static enum moe_code write_own(struct moe_cuda *d, struct moe_err *err)
{
    const struct moe_cuda_weights *w = &d->weights;
    for (size_t i = 0; i < w->n_pieces; i++)
        MOE_TRY(moe_gpu_write(d->gpu, (struct moe_addr){ w->piece[i].to }, w->piece[i].from,
                              w->piece[i].bytes, err));
    return MOE_OK;
}

enum moe_code moe_cuda_weights_load(struct moe_cuda *d, const struct moe_cuda_start *start,
                                    struct moe_err *err)
{
    struct moe_cuda_weights *w = &d->weights;
    bool attached = start->lender;
    MOE_TRY(moe_load_check(moe_gpu_info(d->gpu), start->path, err));
    MOE_TRY(take_memory(d, start, err));
    MOE_TRY(put_all(d, attached, NULL, err));
    MOE_TRY(attached ? write_own(d, err) : read_weights(d, start, err));
    MOE_TRY(each_layer(d, true, err));
    MOE_TRY(moe_gpu_wait(d->gpu, err));
    free(w->piece);
    w->piece = NULL;
    return MOE_OK;
}

void moe_cuda_weights_free(struct moe_cuda *d)
{
    struct moe_cuda_weights *w = &d->weights;
    moe_space_close(&w->space);
    moe_space_close(&w->block);
    moe_gpu_free(d->gpu, w->own);
    free(w->piece);
    moe_arena_clear(&w->arena);
}
