/* SPDX-License-Identifier: Apache-2.0 */
/* Where the weights of a model lie on a GPU, and how they come there.
 *
 * What belongs to no routed expert is one block of memory.  The experts of a layer are another, all with the
 * same planes at the same distances, so that a kernel finds that of expert e at e times a stride.  Every
 * plane begins at a multiple of 256 bytes and is what the source holds, but for NVFP4's scales in rows, which
 * checkpoints have: they become the tiles of a container. */
#include "base/grow.h"
#include "base/io.h"
#include "model/ops/cuda/cuda-internal.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256 };

/* Gives out places of a block, which begins at `base`; 0: it is not there yet, and only its bytes count. */
struct placer { struct moe_cuda *d; uint64_t base, at; bool failed; };

static uint64_t up(uint64_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

static uint64_t take(struct placer *p, uint64_t bytes)
{
    uint64_t at = up(p->at);
    p->at = at + bytes;
    return p->base + at;
}

/* Takes a place and notes what is to be copied there; returns the place. */
static uint64_t put(struct placer *p, const void *from, uint64_t bytes)
{
    struct moe_cuda_weights *w = &p->d->weights;
    uint64_t to = take(p, bytes);
    if (!p->base || p->failed) return to;
    p->failed = !MOE_GROW(w->piece, w->cap_pieces, w->n_pieces + 1);
    if (!p->failed)
        w->piece[w->n_pieces++] = (struct moe_cuda_piece){ .from = from, .bytes = bytes, .to = to };
    return to;
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
    struct moe_cuda_weights *all = &p->d->weights;
    bool rows = w->type == MOE_NVFP4 && w->layout == MOE_LAYOUT_LINEAR;
    uint64_t bytes = plane_bytes(w, rows ? MOE_LAYOUT_TILE_128X4 : w->layout, MOE_PLANE_SCALE);
    uint64_t to = put(p, w->scale, bytes);
    if (rows && p->base && !p->failed) {
        all->piece[all->n_pieces - 1].rows = w->rows;
        all->piece[all->n_pieces - 1].blocks = w->cols / 16;
    }
    return to;
}

/* w is the model's, whose global scale stays where it is. */
static struct moe_cuda_matrix put_matrix(struct placer *p, const struct moe_weight *w)
{
    struct moe_cuda_matrix m = { .input_scale = w->data ? moe_input_scale(w) : 0,
                                 .has_scale = w->input_scale > 0 };
    struct moe_weight tiled = *w;
    if (!w->data) return m;
    uint64_t data = put(p, w->data, plane_bytes(w, w->layout, MOE_PLANE_DATA));
    uint64_t scale = w->scale ? put_scales(p, w) : 0;
    if (w->type == MOE_NVFP4) {
        tiled.layout = MOE_LAYOUT_TILE_128X4;
        m.global = put(p, &w->global, sizeof w->global);
    }
    m.w = moe_cuda_weight_of(&tiled, data, scale);
    return m;
}

static struct moe_cuda_mlp put_mlp(struct placer *p, const struct moe_expert *e)
{
    struct moe_cuda_mlp m = { .gate = put_matrix(p, &e->gate) };
    m.up = put_matrix(p, &e->up);
    m.down = put_matrix(p, &e->down);
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

static void put_experts(struct placer *p, int layer)
{
    struct moe_cuda *d = p->d;
    const struct moe_expert *from = d->device.model->layers[layer].experts;
    struct moe_cuda_experts *x = &d->weights.layers[layer].experts;
    int64_t n = moe_cuda_config(d)->n_routed_experts;
    float *gate = NULL, *down = NULL;
    struct placer one = { .d = d };
    put_mlp(&one, from);
    x->stride = (int64_t)up(one.at);
    uint64_t base = take(p, (uint64_t)(n * x->stride));
    if (moe_activations_nvfp4(d->o.activations)) {
        x->gate_scale = put_input_scales(p, &gate);
        x->down_scale = put_input_scales(p, &down);
    }
    for (int64_t e = 0; p->base && !p->failed && e < n; e++) {
        one = (struct placer){ .d = d, .base = base + (uint64_t)(e * x->stride) };
        struct moe_cuda_mlp m = put_mlp(&one, &from[e]);
        p->failed = one.failed;
        if (e == 0) x->mlp = m;
        if (gate) gate[e] = moe_cuda_gate_scale(d, &m);
        if (down) down[e] = moe_cuda_quantizes(d, &m.down) ? m.down.input_scale : 0;
    }
}

/* ---- all weights ---- */

static void put_layer(struct placer *p, int layer)
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
}

/* Decides on the places of everything in the blocks, as far as they are there; counts the bytes of each. */
static enum moe_code put_all(struct moe_cuda *d, struct moe_err *err)
{
    struct moe_cuda_weights *w = &d->weights;
    const struct moe_model *m = d->device.model;
    struct placer p = { .d = d, .base = w->block[0].at };
    w->embed = put_matrix(&p, &m->embed);
    w->head = put_matrix(&p, &m->head);
    w->norm = put_vector(&p, m->norm, m->config.hidden_size);
    for (int l = 0; l < m->config.num_hidden_layers; l++) put_layer(&p, l);
    w->block_bytes[0] = p.at;
    for (int l = 0; l < m->config.num_hidden_layers; l++) {
        struct placer x = { .d = d, .base = w->block[l + 1].at, .failed = p.failed };
        if (m->layers[l].moe) put_experts(&x, l);
        w->block_bytes[l + 1] = x.at;
        p.failed = x.failed;
    }
    return p.failed ? moe_fail(err, MOE_NOMEM, "no memory for the list of a model's weights") : MOE_OK;
}

enum moe_code moe_cuda_weights_plan(struct moe_cuda *d, struct moe_err *err)
{
    struct moe_cuda_weights *w = &d->weights;
    int64_t layers = d->device.model->config.num_hidden_layers;
    w->layers = MOE_NEWN(&w->arena, struct moe_cuda_layer, layers);
    w->block = MOE_NEWN(&w->arena, struct moe_addr, layers + 1);
    w->block_bytes = MOE_NEWN(&w->arena, uint64_t, layers + 1);
    if (!w->layers || !w->block || !w->block_bytes)
        return moe_fail(err, MOE_NOMEM, "no memory for the descriptors of a model's weights");
    for (int l = 0; l < layers; l++) MOE_TRY(check_experts(d->device.model, l, err));
    MOE_TRY(put_all(d, err));
    for (int64_t i = 0; i <= layers; i++) w->bytes += up(w->block_bytes[i]);
    return MOE_OK;
}

/* ---- loading ---- */

/* NVFP4's scales in rows -> tiles. */
static enum moe_code write_tiles(struct moe_cuda *d, const struct moe_cuda_piece *p, struct moe_err *err)
{
    uint8_t *tiles = calloc(1, (size_t)p->bytes);
    const uint8_t *from = p->from;
    if (!tiles) return moe_fail(err, MOE_NOMEM, "no memory to lay out scales");
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t k = 0; k < p->blocks; k++)
            tiles[moe_tile_offset((size_t)r, (size_t)k, (size_t)p->blocks)] = from[r * p->blocks + k];
    enum moe_code code = moe_gpu_write(d->gpu, (struct moe_addr){ p->to }, tiles, p->bytes, err);
    free(tiles);
    return code;
}

static enum moe_code write_pieces(struct moe_cuda *d, const struct moe_cancel *cancel, struct moe_err *err)
{
    for (size_t i = 0; i < d->weights.n_pieces; i++) {
        const struct moe_cuda_piece *p = &d->weights.piece[i];
        MOE_TRY(moe_cancel_check(cancel, err));
        MOE_TRY(p->rows ? write_tiles(d, p, err)
                        : moe_gpu_write(d->gpu, (struct moe_addr){ p->to }, p->from, p->bytes, err));
        d->load.bytes += p->bytes;
    }
    MOE_TRY(moe_gpu_wait(d->gpu, err));
    return moe_cancel_check(cancel, err);
}

enum moe_code moe_cuda_weights_load(struct moe_cuda *d, const struct moe_cancel *cancel, struct moe_err *err)
{
    struct moe_cuda_weights *w = &d->weights;
    double start = moe_now();
    for (int64_t i = 0; i <= moe_cuda_config(d)->num_hidden_layers; i++)
        MOE_TRY(moe_gpu_alloc(d->gpu, w->block_bytes[i], &w->block[i], err));
    MOE_TRY(put_all(d, err));
    MOE_TRY(write_pieces(d, cancel, err));
    free(w->piece);
    w->piece = NULL;
    d->load.path = "cached";
    d->load.seconds = moe_now() - start;
    return MOE_OK;
}

void moe_cuda_weights_free(struct moe_cuda *d)
{
    struct moe_cuda_weights *w = &d->weights;
    for (int64_t i = 0; w->block && i <= moe_cuda_config(d)->num_hidden_layers; i++)
        moe_gpu_free(d->gpu, w->block[i]);
    free(w->piece);
    moe_arena_clear(&w->arena);
}
