/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors of each unit, as they will be written, and their items. */
#include "model/unit.h"

#include "model/precision.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int moe_unit_count(const struct moe_source *src)
{
    return 1 + (int)moe_config_moe_layers(&src->config);
}

static int layer_of_unit(const struct moe_source *src, int number)
{
    for (int64_t l = 0; l < src->config.num_hidden_layers; l++)
        if (moe_layer_is_moe(&src->config, l) && --number == 0) return (int)l;
    return -1;
}

/* Whether t belongs to the item of the tensor before it. */
static bool joins(const struct moe_tensor *prev, const struct moe_tensor *t)
{
    if (prev->layer != t->layer || prev->expert != t->expert) return false;
    return t->expert >= 0 || moe_role_fused_partner((enum moe_role)prev->role) == t->role;
}

/* Divides the unit into items, and marks those whose first two tensors share a global scale. */
static void make_items(struct moe_shard_unit *u, const struct moe_source *src)
{
    for (int64_t i = 0; i < u->n; i++) {
        const struct moe_tensor *t = &src->tensors[u->in[i]];
        struct moe_unit_item *g = u->n_items ? &u->items[u->n_items - 1] : NULL;
        if (g && joins(&src->tensors[u->in[i - 1]], t)) g->n++;
        else u->items[u->n_items++] = (struct moe_unit_item){ .first = i, .n = 1 };
    }
    for (int64_t k = 0; k < u->n_items; k++) {
        struct moe_unit_item *g = &u->items[k];
        const struct moe_tensor *gate = &src->tensors[u->in[g->first]], *up = gate;
        if (g->n < 2) continue;
        up = &src->tensors[u->in[g->first + 1]];
        g->share = moe_role_fused_partner((enum moe_role)gate->role) == up->role && gate->type != MOE_NVFP4 &&
                   up->type != MOE_NVFP4 && u->out[g->first].type == MOE_NVFP4 &&
                   u->out[g->first + 1].type == MOE_NVFP4;
    }
}

/* The tensor as it will be written; its input scale is 1 until a calibration finds one. */
static struct moe_tensor describe(const struct moe_tensor *in, uint8_t type)
{
    struct moe_tensor t = *in;
    t.type = type;
    t.layout = type == MOE_NVFP4 ? MOE_LAYOUT_TILE_128X4 : MOE_LAYOUT_LINEAR;
    t.reciprocal = type == MOE_NVFP4 && in->type == MOE_NVFP4 && in->reciprocal;
    if (type == MOE_NVFP4 && in->type != MOE_NVFP4) t.input_scale = 1.0f;
    return t;
}

/* Whether tensor i is written into the unit of `layer` (-1: dense). */
static bool belongs(const struct moe_source *src, const uint8_t *type, int64_t i, int layer)
{
    const struct moe_tensor *t = &src->tensors[i];
    return type[i] != MOE_TYPE_LEFT_OUT && (layer < 0 ? t->expert < 0 : t->expert >= 0 && t->layer == layer);
}

/* The index of the first tensor of this layer or a later one; tensors are in ascending order of layers. */
static int64_t first_of_layer(const struct moe_source *src, int layer)
{
    int64_t low = 0, high = src->n_tensors;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (src->tensors[mid].layer < layer) low = mid + 1;
        else high = mid;
    }
    return low;
}

enum moe_code moe_unit_open(struct moe_shard_unit *u, const struct moe_source *src, const uint8_t *type,
                            int number, struct moe_err *err)
{
    *u = (struct moe_shard_unit){ .layer = number ? layer_of_unit(src, number) : -1 };
    moe_unit_name(u->layer, u->name);
    int64_t from = u->layer < 0 ? 0 : first_of_layer(src, u->layer);
    int64_t to = u->layer < 0 ? src->n_tensors : first_of_layer(src, u->layer + 1);
    for (int64_t i = from; i < to; i++) u->n += belongs(src, type, i, u->layer);
    if (!u->n) return MOE_OK;
    size_t n = (size_t)u->n;
    u->in = malloc(n * sizeof *u->in);
    u->out = malloc(n * sizeof *u->out);
    u->items = malloc(n * sizeof *u->items);
    if (!u->in || !u->out || !u->items) {
        moe_unit_release(u);
        return moe_fail(err, MOE_NOMEM, "no memory for a unit of %zu tensors", n);
    }
    int64_t k = 0;
    for (int64_t i = from; i < to; i++) {
        if (!belongs(src, type, i, u->layer)) continue;
        u->in[k] = i;
        u->out[k++] = describe(&src->tensors[i], type[i]);
    }
    make_items(u, src);
    enum moe_code code = moe_shard_layout(u->out, u->n, u->layer, &u->header, err);
    if (code != MOE_OK) moe_unit_release(u);
    return code;
}

void moe_unit_release(struct moe_shard_unit *u)
{
    free(u->in);
    free(u->out);
    free(u->items);
    *u = (struct moe_shard_unit){ .layer = -1 };
}
